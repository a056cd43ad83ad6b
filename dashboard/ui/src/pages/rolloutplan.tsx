// The plan of a rollout: what is set, what may be changed while it runs, and the way back.

import { useEffect, useState } from "preact/hooks";
import { changing, message } from "../lib/api";
import { numberIn, useForm } from "../lib/form";
import { count, day, duration, plural } from "../lib/format";
import { planOf } from "../lib/plan";
import { go } from "../lib/route";
import { agreed, hasEnded, rolloutPath } from "../lib/rollouts";
import { changeRollout, listReleases, rollbackRollout, type FirmwareRelease, type RolloutBody, type RolloutPlan, type RolloutProgress } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Choice } from "../parts/choice";
import { Field, Submit } from "../parts/field";

const T = {
  plan: "Plan",
  concurrent: "At most at a time",
  perMinute: "At most a minute",
  noLimit: "no limit",
  windows: "Windows",
  always: "always",
  everyDay: "every day",
  zone: "Zone without one",
  attempts: "Attempts",
  retry: "Before the second",
  soak: "To be well for",
  onFailure: "Too many failures",
  onFailures: { pause: "pause it", abort: "abort it" } as Record<string, string>,
  deadlines: "Silence that fails",
  membership: "Later devices",
  memberships: { snapshot: "do not join", dynamic: "join" } as Record<string, string>,
  supersede: "Older rollouts",
  supersedes: { wait: "are waited for", replace: "let their devices go" } as Record<string, string>,
  downgrade: "Newer versions",
  downgrades: "go back: a downgrade",
  seed: "Seed",
  approvals: "Agreed to",
  gone: ", who may not any more",
  approvalsOf: (n: number) => plural(n, "person", "people"),
  made: "Made",
  by: (name: string, at: string) => `${name}, ${at}`,
  change: "Change how fast it goes",
  changed: "It holds at once.",
  changedAnew: "It holds at once, and people must agree to it anew.",
  save: "Save",
  ask: "Who must agree",
  askPeople: "Approvals",
  askHint: "So many others must agree before it starts; 0 for nobody.",
  rollback: "Roll back",
  rollbackHow: "Devices that have this release, or install it, are brought back. Once more takes those that got it late.",
  release: "Release to go back to",
  asPlanned: "the one that was named",
  others: "Approvals of others",
  othersHint: "1 or more where the release has a lower security version. It is a draft until they agree.",
  begin: "Begin",
  begins: [["draft", "as a draft"], ["now", "at once"]] as const,
  makeRollback: "Make the rollback",
};

export function PlanSection({ r, p, set }: { r: RolloutBody; p: RolloutProgress; set: (r: RolloutBody) => void }) {
  const plan = r.plan;
  return (
    <section class="sec plan" aria-labelledby="plan-title">
      <header><h2 id="plan-title">{T.plan}</h2></header>
      <dl class="facts few">
        <Fact word={T.concurrent}>{count(plan.concurrent ?? 0)}</Fact>
        <Fact word={T.perMinute}>{plan.per_minute ? count(plan.per_minute) : T.noLimit}</Fact>
        <Fact word={T.windows}>{windowsText(plan)}</Fact>
        {plan.zone && <Fact word={T.zone}>{plan.zone}</Fact>}
        <Fact word={T.attempts}>{count(plan.attempts ?? 0)}</Fact>
        <Fact word={T.retry}>{duration((plan.retry_s ?? 0) * 1000)}</Fact>
        <Fact word={T.soak}>{duration((plan.soak_s ?? 0) * 1000)}</Fact>
        <Fact word={T.onFailure}>{T.onFailures[plan.on_failure ?? "pause"]}</Fact>
        <Fact word={T.deadlines}>{Object.entries(plan.deadlines ?? {}).map(([s, n]) => `${s.replace(/_s$/, "")} ${duration(Number(n) * 1000)}`).join(", ")}</Fact>
        <Fact word={T.membership}>{T.memberships[r.membership ?? "snapshot"]}</Fact>
        <Fact word={T.supersede}>{T.supersedes[r.supersede ?? "wait"]}</Fact>
        {r.downgrade && <Fact word={T.downgrade}>{T.downgrades}</Fact>}
        <Fact word={T.seed}><span class="mono">{r.seed}</span></Fact>
        <Fact word={T.made}>{T.by(r.created_by.name ?? r.created_by.id, day(r.created_at))}</Fact>
        {(r.min_approvals ?? 0) > 0 && <Fact word={T.approvals}>{count(agreed(r))} of {T.approvalsOf(r.min_approvals ?? 0)} {r.approvals.map((a) => <small key={a.at}> {T.by(a.by.name ?? a.by.id, day(a.at))}{!a.counts && T.gone}</small>)}</Fact>}
      </dl>
      {may("firmware:write") && !hasEnded(p) && <ChangeForm key={`${plan.concurrent} ${plan.per_minute}`} r={r} set={set} />}
      {may("firmware:write") && p.status === "draft" && <ApprovalsForm key={`agree ${r.min_approvals ?? 0}`} r={r} set={set} />}
    </section>
  );
}

function Fact({ word, children }: { word: string; children: preact.ComponentChildren }) {
  return <div><dt>{word}</dt><dd>{children}</dd></div>;
}

function windowsText(plan: RolloutPlan): string {
  if (!plan.windows || plan.windows.length === 0) return T.always;
  return plan.windows.map((w) => `${w.days && w.days.length > 0 ? w.days.join(" ") : T.everyDay} ${w.from} to ${w.to}`).join("; ");
}

const REST = {
  "plan/attempts": "", "plan/retry_s": "", "plan/soak_s": "", "plan/on_failure": "pause", "plan/zone": "", "plan/phases": "", "plan/windows": "", regressions: "",
  "plan/deadlines/offered_s": "", "plan/deadlines/downloading_s": "", "plan/deadlines/installing_s": "", "plan/deadlines/rebooting_s": "",
};

function ChangeForm({ r, set }: { r: RolloutBody; set: (r: RolloutBody) => void }) {
  const form = useForm({ "plan/concurrent": String(r.plan.concurrent ?? ""), "plan/per_minute": String(r.plan.per_minute ?? "") });
  const submit = form.submit(async (v) => set(await changeRollout(r.id, changing(r, { plan: planOf({ ...REST, ...v }) }))));
  return (
    <form class="row changerollout" aria-label={T.change} onSubmit={submit}>
      <Field form={form} name="plan/concurrent" label={T.concurrent} hint={r.approvals.length > 0 && !r.started_at ? T.changedAnew : T.changed} optional />
      <Field form={form} name="plan/per_minute" label={T.perMinute} optional />
      <Submit form={form}>{T.save}</Submit>
    </form>
  );
}

/** How many people must agree to a draft. */
function ApprovalsForm({ r, set }: { r: RolloutBody; set: (r: RolloutBody) => void }) {
  const form = useForm({ min_approvals: String(r.min_approvals ?? 0) });
  const submit = form.submit(async (v) => set(await changeRollout(r.id, changing(r, { min_approvals: numberIn("min_approvals", v.min_approvals) }))));
  return (
    <form class="row changeapprovals" aria-label={T.ask} onSubmit={submit}>
      <Field form={form} name="min_approvals" label={T.askPeople} hint={T.askHint} />
      <Submit form={form}>{T.save}</Submit>
    </form>
  );
}

/** Makes a rollout that brings devices back. */
export function RollbackForm({ r }: { r: RolloutBody }) {
  const form = useForm({ release: r.rollback ?? "", start: "draft", min_approvals: "" });
  const [releases, setReleases] = useState<FirmwareRelease[]>([]);
  useEffect(() => {
    const stop = new AbortController();
    listReleases({ product: r.product, limit: 200 }, stop.signal).then((p) => setReleases(p.items.filter((x) => x.id !== r.release && x.offerable)), (e: unknown) => stop.signal.aborted || form.refuse("release", message(e)));
    return () => stop.abort();
  }, [r.id]);
  const submit = form.submit(async (v) => {
    const made = await rollbackRollout(r.id, { start: v.start === "now", ...(v.release && { release: v.release }), ...(v.min_approvals.trim() && { min_approvals: numberIn("min_approvals", v.min_approvals) }) });
    go(rolloutPath(made.id));
  });
  const options = releases.map((x) => [x.id, `${x.product} ${x.version}`] as const);
  return (
    <form class="row rollbackform" aria-label={T.rollback} onSubmit={submit}>
      <Choice form={form} name="release" label={T.release} hint={T.rollbackHow} options={[["", T.asPlanned], ...options]} />
      <Field form={form} name="min_approvals" label={T.others} hint={T.othersHint} optional />
      <Choice form={form} name="start" label={T.begin} options={T.begins} />
      <Submit form={form}>{T.makeRollback}</Submit>
    </form>
  );
}
RollbackForm.word = T.rollback;
