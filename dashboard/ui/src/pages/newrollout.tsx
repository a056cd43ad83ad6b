// A new rollout: which release, which devices, how fast, and when it stops.

import { useEffect, useRef, useState } from "preact/hooks";
import { insist } from "../lib/ask";
import { numberIn, useForm, type Form } from "../lib/form";
import { plural } from "../lib/format";
import { go } from "../lib/route";
import { ApiError, message } from "../lib/api";
import { planOf, type PlanField } from "../lib/plan";
import { createRollout, listDevices, listReleases, type FirmwareRelease, type NewRollout } from "../lib/schema.gen";
import { rolloutPath } from "../lib/rollouts";
import { Area, Choice } from "../parts/choice";
import { Field, Submit } from "../parts/field";
import { Rows, type Column } from "../parts/rows";

const T = {
  title: "New rollout",
  release: "Release",
  choose: "Choose a published release",
  noReleases: "No release is published that may be offered now.",
  firmware: "To the releases",
  name: "Name",
  q: "Devices",
  qHint: "In the query language: group:cold-chain tag:site=berlin; id:* is all",
  counting: "Counting",
  matches: (n: number) => `${plural(n, "device matches", "devices match")} now.`,
  start: "Begin",
  starts: [["draft", "as a draft"], ["now", "at once, or at its time"]] as const,
  usual: "Ten canaries, a tenth, all; at most 100 devices at a time. It pauses itself when two canaries fail, or later one device in ten.",
  more: "More: phases, limits, windows, approvals",
  submit: "Make the rollout",
  membership: "Devices that match later",
  memberships: [["snapshot", "do not join"], ["dynamic", "join"]] as const,
  supersede: "Older rollouts of the product",
  supersedes: [["wait", "are waited for"], ["replace", "let their devices go"]] as const,
  downgrade: "Devices with a newer version",
  downgrades: [["", "are skipped"], ["yes", "get this older one: a downgrade"]] as const,
  rollback: "Release to go back to",
  none: "none",
  approvals: "Approvals of others",
  approvalsHint: "How many people besides you must agree before it starts",
  startAt: "Not before",
  startAtHint: "RFC 3339, such as 2026-03-01T22:00:00Z",
  seed: "Seed",
  seedHint: "The same seed gives the same canaries; random when empty",
  note: "Note",
  concurrent: "At most at a time",
  perMinute: "At most a minute",
  attempts: "Attempts of each device",
  retry: "Seconds before the second",
  soak: "Seconds to be well",
  soakHint: "After which a device with the version is confirmed",
  onFailure: "Too many failures",
  onFailures: [["pause", "pause it"], ["abort", "abort it"]] as const,
  zone: "Zone of devices without one",
  silent: (state: string) => `Seconds of silence while ${state}`,
  phases: "Phases",
  phasesHint: "Devices is a number (10), a share (25%) or a query; the last has 100%. It stops at so many failures (2) or a share of the results (10%) from so many results on. None: the usual ones.",
  addPhase: "Add a phase",
  regressions: "Telemetry that must not get worse",
  regressionsHint: "The next phase waits until enough is known, and the rollout pauses itself when updated devices are worse than the others.",
  addRegression: "Add telemetry",
  windows: "Windows",
  windowsHint: "When devices are offered the release, in the zone of each. None: always. Days as mon tue, with spaces between; every day when empty.",
  addWindow: "Add a window",
  default: (v: string) => `${v} when empty`,
};

const PHASE: readonly Column[] = [
  { key: "name", label: "Name" }, { key: "devices", label: "Devices", mono: true, at: ["percent", "count", "q"] }, { key: "success", label: "Success, %" }, { key: "stop", label: "Stop at", at: ["failure", "failure/percent", "failure/absolute"] },
  { key: "sample", label: "From results", at: ["failure/min_sample"] }, { key: "soak", label: "Then wait, s", at: ["soak_s"] }, { key: "gate", label: "Next phase", options: [["auto", "begins by itself"], ["manual", "a person lets it"]] },
];
const REGRESSION: readonly Column[] = [
  { key: "phase", label: "Phase, from 1" }, { key: "key", label: "Telemetry", mono: true }, { key: "worse", label: "Worse is", options: [["up", "up"], ["down", "down"]] }, { key: "percent", label: "By %" },
  { key: "aggregate", label: "Of each device", options: [["avg", "mean"], ["min", "least"], ["max", "most"], ["p95", "95th percentile"]] }, { key: "window", label: "Window, s" }, { key: "devices", label: "Devices at least" },
];
const WINDOW: readonly Column[] = [{ key: "days", label: "Days", mono: true }, { key: "from", label: "From", mono: true }, { key: "to", label: "To", mono: true }];
const STATES = ["offered", "downloading", "installing", "rebooting"] as const;
const SILENCE: Record<(typeof STATES)[number], string> = { offered: "86400", downloading: "7200", installing: "1800", rebooting: "900" };
const TYPING_MS = 300;

type Name = "release" | "name" | "q" | "start" | "membership" | "supersede" | "downgrade" | "rollback" | "min_approvals" | "start_at" | "seed" | "note" | PlanField;

const EMPTY: Record<Name, string> = {
  release: "", name: "", q: "id:*", start: "draft", membership: "snapshot", supersede: "wait", downgrade: "", rollback: "", min_approvals: "", start_at: "", seed: "", note: "",
  "plan/concurrent": "", "plan/per_minute": "", "plan/attempts": "", "plan/retry_s": "", "plan/soak_s": "", "plan/on_failure": "pause", "plan/zone": "", "plan/phases": "", "plan/windows": "",
  regressions: "", "plan/deadlines/offered_s": "", "plan/deadlines/downloading_s": "", "plan/deadlines/installing_s": "", "plan/deadlines/rebooting_s": "",
};

export function NewRolloutForm({ release }: { release: string }) {
  const form = useForm<Name>({ ...EMPTY, release });
  const releases = useReleases(form);
  const named = useRef("");
  const chosen = releases?.find((r) => r.id === form.values.release);
  useEffect(() => {
    if (!chosen || form.values.name !== named.current) return; // the reader's own name stays
    named.current = `${chosen.product} ${chosen.version}`;
    form.set("name", named.current);
  }, [chosen?.id]);
  const submit = form.submit(async (v) => {
    const made = await createRollout(bodyOf(v));
    go(rolloutPath(made.id));
  });
  if (!releases) return null;
  if (releases.length === 0) return <p class="quiet-note">{form.faults.release || T.noReleases} <a class="link" href="/firmware">{T.firmware}</a></p>;
  return (
    <section class="sec newrollout" aria-labelledby="newrollout-title">
      <header><h2 id="newrollout-title">{T.title}</h2><p class="long">{T.usual}</p></header>
      <form onSubmit={submit}>
        <div class="row">
          <Choice form={form} name="release" label={T.release} options={[["", T.choose], ...releases.map((r) => [r.id, `${r.product} ${r.version}`] as const)]} />
          <Field form={form} name="name" label={T.name} />
          <div><Field form={form} name="q" label={T.q} hint={T.qHint} mono /><Matching q={form.values.q} /></div>
          <Choice form={form} name="start" label={T.start} options={T.starts} />
        </div>
        <More form={form} releases={releases.filter((r) => r.product === chosen?.product && r.id !== chosen.id)} />
        <div class="ways"><Submit form={form}>{T.submit}</Submit></div>
      </form>
    </section>
  );
}

function useReleases(form: Form<Name>): FirmwareRelease[] | null {
  const [releases, setReleases] = useState<FirmwareRelease[] | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    insist((signal) => listReleases({ state: "published", limit: 200 }, signal), stop.signal, (e) => {
      form.refuse("release", message(e));
      setReleases([]);
    }).then((p) => {
      form.refuse("release", "");
      setReleases(p.items.filter((r) => r.offerable));
    }, () => undefined); // each failure was told
    return () => stop.abort();
  }, []);
  return releases;
}

/** How many devices a query matches, as the server counts them. */
export function Matching({ q }: { q: string }) {
  const [said, say] = useState<{ n: number } | { fault: string } | null>(null);
  useEffect(() => {
    say(null);
    const stop = new AbortController();
    const timer = setTimeout(() => {
      insist((signal) => listDevices({ q: q.trim(), limit: 1, total: true }, signal), stop.signal, (e) => say({ fault: e instanceof ApiError ? e.fields["q"] ?? e.message : message(e) })).then(
        (page) => say({ n: page.total ?? 0 }), () => undefined); // each failure was told
    }, TYPING_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [q]);
  if (said && "fault" in said) return <p class="error matching" role="alert">{said.fault}</p>;
  return <p class="hint matching" role="status">{said ? T.matches(said.n) : T.counting}</p>;
}

function More({ form, releases }: { form: Form<Name>; releases: FirmwareRelease[] }) {
  return (
    <details class="moreof">
      <summary>{T.more}</summary>
      <Rows form={form} name="plan/phases" legend={T.phases} hint={T.phasesHint} columns={PHASE} fresh={{ name: "", devices: "", success: "90", stop: "", sample: "", soak: "", gate: "auto" }} add={T.addPhase} />
      <Rows form={form} name="regressions" legend={T.regressions} hint={T.regressionsHint} columns={REGRESSION} fresh={{ phase: "1", key: "", worse: "up", percent: "10", aggregate: "avg", window: "3600", devices: "3" }} add={T.addRegression} />
      <Rows form={form} name="plan/windows" legend={T.windows} hint={T.windowsHint} columns={WINDOW} fresh={{ days: "", from: "22:00", to: "04:00" }} add={T.addWindow} />
      <div class="row">
        <Field form={form} name="plan/concurrent" label={T.concurrent} hint={T.default("100")} optional />
        <Field form={form} name="plan/per_minute" label={T.perMinute} hint={T.default("no limit")} optional />
        <Field form={form} name="plan/attempts" label={T.attempts} hint={T.default("3")} optional />
        <Field form={form} name="plan/retry_s" label={T.retry} hint={T.default("300")} optional />
        <Field form={form} name="plan/soak_s" label={T.soak} hint={`${T.soakHint}; ${T.default("60")}`} optional />
        <Choice form={form} name="plan/on_failure" label={T.onFailure} options={T.onFailures} />
        {STATES.map((s) => <Field key={s} form={form} name={`plan/deadlines/${s}_s`} label={T.silent(s)} hint={T.default(SILENCE[s])} optional />)}
        <Field form={form} name="plan/zone" label={T.zone} hint={T.default("UTC")} mono optional />
        <Choice form={form} name="membership" label={T.membership} options={T.memberships} />
        <Choice form={form} name="supersede" label={T.supersede} options={T.supersedes} />
        <Choice form={form} name="downgrade" label={T.downgrade} options={T.downgrades} />
        <Choice form={form} name="rollback" label={T.rollback} options={[["", T.none], ...releases.map((r) => [r.id, `${r.product} ${r.version}`] as const)]} />
        <Field form={form} name="min_approvals" label={T.approvals} hint={T.approvalsHint} optional />
        <Field form={form} name="start_at" label={T.startAt} hint={T.startAtHint} mono optional />
        <Field form={form} name="seed" label={T.seed} hint={T.seedHint} mono optional />
        <Area form={form} name="note" label={T.note} rows={2} />
      </div>
    </details>
  );
}

function bodyOf(v: Record<Name, string>): NewRollout {
  const plan = planOf(v);
  const text = (name: "note" | "seed" | "start_at" | "rollback") => v[name].trim() && { [name]: v[name].trim() };
  return {
    name: v.name.trim(), release: v.release, q: v.q.trim(), membership: v.membership as "snapshot", supersede: v.supersede as "wait", start: v.start === "now",
    ...(v.downgrade && { downgrade: true }), ...text("note"), ...text("seed"), ...text("start_at"), ...text("rollback"),
    ...(v.min_approvals.trim() && { min_approvals: numberIn("min_approvals", v.min_approvals) }), ...(Object.keys(plan).length > 0 && { plan }),
  };
}
