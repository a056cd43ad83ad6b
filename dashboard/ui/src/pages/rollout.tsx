// One rollout, live: how far each phase is, what stops it, and what people may do with it.

import { useEffect, useRef, useState } from "preact/hooks";
import { changing, message } from "../lib/api";
import { useAsked } from "../lib/ask";
import { call } from "../lib/called";
import { now } from "../lib/clock";
import { absolute, ago, count, duration, measure, plural } from "../lib/format";
import { useFollowed } from "../lib/poll";
import { go } from "../lib/route";
import { phasesOf, rolloutPath, sentence, stateWord, STATES, totals, useProgress } from "../lib/rollouts";
import {
  abortRollout, agreeToRollout, approveRollout, deleteRollout, getRelease, getRollout, pauseRollout, resumeRollout, startRollout, supersedeRollout,
  type RolloutBody, type RolloutPhase, type RolloutPhaseProgress, type RolloutProgress,
} from "../lib/schema.gen";
import { may } from "../lib/session";
import { StateBar, StateGlyph, statesText } from "../parts/bar";
import { Pending } from "../parts/fault";
import { useRowKeys } from "../parts/keys";
import { RolloutStatus } from "../parts/rolloutstatus";
import { Sure } from "../parts/sure";
import { RolloutDevices, RolloutLog, Why } from "./rolloutdevices";
import { PlanSection, RollbackForm } from "./rolloutplan";

const T = {
  notFound: "There is no such rollout.",
  all: "All rollouts",
  loading: "Asking the server for the rollout.",
  needs: "You may look at rollouts. Changing them needs the role operator.",
  release: "Release",
  devices: "Devices",
  inFlight: "Being updated",
  ofMost: (n: number) => `of at most ${count(n)}`,
  ended: "Through",
  speed: "Speed",
  perMinute: (n: number) => `${measure(n < 10 ? Math.round(n * 10) / 10 : Math.round(n))} a minute`,
  eta: "Left",
  about: (s: number) => `about ${duration(s * 1000)}`,
  started: "Started",
  by: (name: string) => `by ${name}`,
  unknown: "not known yet",
  start: "Start",
  agree: "Agree",
  drop: "Delete the draft",
  sure: "Really delete?",
  pause: "Pause",
  resume: "Resume",
  skip: "Resume with the next phase",
  noResume: "Its last phase has ended short of what it asks for: there is nothing to resume. Roll back, or abort.",
  approve: "Let the next phase begin",
  abort: "Abort",
  abortSure: (n: number) => `End it for ${plural(n, "device", "devices")}?`,
  force: "Abort by force",
  forceSure: (n: number) => `Give up ${plural(n, "device that installs", "devices that install")}?`,
  supersede: "Take the place of older ones",
  phases: "Phases",
  phase: (n: number, name: string) => name || `phase ${n}`,
  now: "now",
  stops: (most: number, n: number) => `stops at ${plural(most, "failing device", "failing devices")}: ${n === 0 ? "none is" : plural(n, "is", "are")}${n < most ? `, ${count(most - n)} left` : ""}`,
  share: (percent: number, sample: number) => `stops at ${measure(percent)} % of the results${sample > 0 ? `, from ${count(sample)} results on` : ""}`,
  failingNow: (n: number) => plural(n, "device fails", "devices fail"),
  never: "nothing stops it",
  needed: (n: number) => `needs ${measure(n)} % confirmed`,
  soaking: (n: number) => `${count(n)} soaking`,
  late: (n: number) => `${count(n)} late`,
  lateAll: "Updated late",
  lateSub: "not counted as confirmed",
  thenWait: (s: number) => `then ${duration(s * 1000)}`,
  manual: "then a person",
  noDevices: "no devices",
  reasons: "Why they are where they are",
  state: "State",
  reason: "Reason",
  approvals: "Agreed to",
  legend: "Devices by state",
};

export function RolloutPage({ id }: { id: string }) {
  const [turn, again] = useState(0);
  const asked = useAsked((stop) => getRollout(id, stop), id, turn, T.notFound);
  if (!asked.answer) return <Pending of={asked} loading={T.loading}><a class="link" href="/rollouts">{T.all}</a></Pending>;
  return <Loaded r={asked.answer} set={asked.set} reload={() => again((n) => n + 1)} />;
}

const FOLLOW_MS = 2000; // between two looks at one that people prepare
const SETTLE_MS = 1500; // how long changes are gathered before what the channel does not have is asked for

/** Calls f some time after mark changed, once for changes that follow each other. */
function useSettled(mark: string, f: () => void): void {
  const timer = useRef(0);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    if (timer.current) return;
    timer.current = window.setTimeout(() => {
      timer.current = 0;
      f();
    }, SETTLE_MS);
  }, [mark]);
  useEffect(() => () => clearTimeout(timer.current), []);
}

function Loaded({ r, set, reload }: { r: RolloutBody; set: (r: RolloutBody) => void; reload: () => void }) {
  useRowKeys();
  const p = useProgress(r.progress);
  const [turn, setTurn] = useState(0);
  call(r.id, r.name);
  const stands = p.status === "draft" || p.status === "scheduled" || p.status === "paused"; // and the channel says nothing of who agrees, or changes it
  useFollowed((stop) => getRollout(r.id, stop), FOLLOW_MS, r, set, stands);
  useSettled(JSON.stringify([p.status, p.waiting, p.phase, p.phases]), () => {
    setTurn((n) => n + 1);
    reload();
  });
  return (
    <>
      <Head r={r} p={p} set={set} />
      <Phases r={r} p={p} />
      <Reasons r={r} />
      <RolloutDevices r={r} turn={turn} />
      <Why r={r} turn={turn} />
      <PlanSection r={r} p={p} set={set} />
      <RolloutLog r={r} turn={turn} />
    </>
  );
}

function Head({ r, p, set }: { r: RolloutBody; p: RolloutProgress; set: (r: RolloutBody) => void }) {
  const [fault, setFault] = useState("");
  const [rolling, setRolling] = useState(false);
  const write = may("firmware:write");
  const act = (run: () => Promise<RolloutBody | undefined>) => {
    setFault("");
    run().then((x) => x && set(x), (e: unknown) => setFault(message(e)));
  };
  useEffect(() => setFault(""), [p.status, p.waiting, p.phase]); // it was about how the rollout stood
  const states = totals(p.phases);
  return (
    <section class="dev rollout">
      <h1>{r.name}</h1>
      <p class="sub"><RolloutStatus of={p} /> <span class="says val">{sentence(r, p)}</span></p>
      {p.telemetry && <p class="sub">{p.telemetry}</p>}
      {r.note && <p class="sub">{r.note}</p>}
      {p.devices > 0 && <StateBar states={states} label={statesText(states)} />}
      {p.devices > 0 && <Legend r={r} states={states} />}
      <Facts r={r} p={p} />
      <div class="ways">
        <Verbs r={r} p={p} act={act} write={write} onRollback={() => setRolling(!rolling)} />
      </div>
      {!write && <p class="quiet-note">{T.needs}</p>}
      <p class="error" role="alert">{fault}</p>
      {rolling && <RollbackForm r={r} />}
    </section>
  );
}

function Legend({ r, states }: { r: RolloutBody; states: Record<string, number> }) {
  return (
    <ul class="legend val" aria-label={T.legend}>
      {STATES.filter((s) => states[s]).map((s) => (
        <li key={s} data-state={s}><a href={rolloutPath(r.id, s)}><StateGlyph of={s} /> <b>{count(states[s]!)}</b> {stateWord(s)}</a></li>
      ))}
    </ul>
  );
}

/** The version of a release, empty until it is known. */
function useVersion(release: string): string {
  const [version, set] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    getRelease(release, stop.signal).then((x) => set(x.version), () => {}); // its product says enough
    return () => stop.abort();
  }, [release]);
  return version;
}

function Facts({ r, p }: { r: RolloutBody; p: RolloutProgress }) {
  const late = p.phases.reduce((n, f) => n + f.late, 0);
  return (
    <dl class="facts few">
      <div><dt>{T.release}</dt><dd><a class="link" href={"/firmware/" + encodeURIComponent(r.release)}>{r.product} {useVersion(r.release)}</a></dd></div>
      <div><dt>{T.devices}</dt><dd class="val">{count(p.devices)} {r.q && <small class="mono">{r.q}</small>}</dd></div>
      <div><dt>{T.ended}</dt><dd class="val">{count(p.ended)}</dd></div>
      <div><dt>{T.inFlight}</dt><dd class="val">{count(p.in_flight)} <small>{T.ofMost(p.concurrent)}</small></dd></div>
      {late > 0 && <div><dt>{T.lateAll}</dt><dd class="val">{count(late)} <small>{T.lateSub}</small></dd></div>}
      {p.status === "running" && <div><dt>{T.speed}</dt><dd class="val">{p.per_minute === null ? T.unknown : T.perMinute(p.per_minute)}</dd></div>}
      {p.status === "running" && <div><dt>{T.eta}</dt><dd class="val">{p.eta_s === null ? T.unknown : T.about(p.eta_s)}</dd></div>}
      {r.started_at && <div><dt>{T.started}</dt><dd><time title={absolute(Date.parse(r.started_at))}>{ago(Date.parse(r.started_at), now.value)}</time> {r.started_by && <small>{T.by(r.started_by.name ?? r.started_by.id)}</small>}</dd></div>}
    </dl>
  );
}

interface Acts {
  r: RolloutBody;
  p: RolloutProgress;
  act: (run: () => Promise<RolloutBody | undefined>) => void;
  write: boolean;
  onRollback: () => void;
}

function Verbs({ r, p, act, write, onRollback }: Acts) {
  const verb = (word: string, run: () => Promise<RolloutBody | undefined>, primary = false) => (
    <button key={word} type="button" class={primary ? "btn pri" : "btn"} disabled={!write} onClick={() => act(run)}>{word}</button>
  );
  const asked = (word: string, sure: string, run: () => Promise<RolloutBody | undefined>) => (write ? <Sure key={word} word={word} sure={sure} of={r.name} onSure={() => act(run)} /> : verb(word, run));
  const abort = asked(T.abort, T.abortSure(p.devices - p.ended), () => abortRollout(r.id, changing(r, { force: false })));
  const back = <button key="back" type="button" class="btn" disabled={!write} onClick={onRollback}>{RollbackForm.word}</button>;
  const short = p.reason === "success_threshold" || p.reason === "nothing_proved"; // the server does not resume such a phase
  const another = r.started_at && p.phase < phasesOf(r.plan).length;
  const resume = !short && verb(T.resume, () => resumeRollout(r.id, changing(r, {})), true);
  const skip = another && verb(T.skip, () => resumeRollout(r.id, changing(r, { skip_phase: true })), short);
  const agree = (first: boolean) => !r.started_at && (r.min_approvals ?? 0) > 0 && verb(T.agree, () => agreeToRollout(r.id, changing(r, {})), first);
  const held = p.status === "scheduled" && p.reason === "approvals";
  switch (p.status) {
    case "draft":
      return <>{verb(T.start, () => startRollout(r.id), true)}{agree(false)}
        {asked(T.drop, T.sure, () => deleteRollout(r.id).then(() => (go("/rollouts"), undefined)))}</>;
    case "scheduled":
      return <>{agree(held)}{verb(T.pause, () => pauseRollout(r.id), !held)}{abort}</>;
    case "running":
      return <>{p.waiting && verb(T.approve, () => approveRollout(r.id), true)}{verb(T.pause, () => pauseRollout(r.id), !p.waiting)}{verb(T.supersede, () => supersedeRollout(r.id))}{abort}</>;
    case "paused":
      return <>{resume}{agree(false)}{skip}{back}{abort}{short && !another && <p class="sub noresume">{T.noResume}</p>}</>;
    default:
      return <>{back}{p.status === "aborted" && !r.forced && p.in_flight > 0 && asked(T.force, T.forceSure(p.in_flight), () => abortRollout(r.id, changing(r, { force: true })))}</>;
  }
}

function Phases({ r, p }: { r: RolloutBody; p: RolloutProgress }) {
  const plan = phasesOf(r.plan);
  return (
    <section class="sec phases" aria-labelledby="phases-title">
      <header><h2 id="phases-title">{T.phases}</h2></header>
      <ol>
        {plan.map((f, i) => <Phase key={i} n={i + 1} plan={f} at={p.phases[i]} current={p.phase === i + 1 && !["draft", "scheduled", "completed"].includes(p.status)} />)}
      </ol>
    </section>
  );
}

function Phase({ n, plan, at, current }: { n: number; plan: RolloutPhase; at: RolloutPhaseProgress | undefined; current: boolean }) {
  const name = T.phase(n, plan.name ?? "");
  return (
    <li data-phase={n} class={current ? "on" : ""}>
      <div class="h"><span><b>{name}</b> <small>{whom(plan)}</small></span> {current && <span class="tag">{T.now}</span>}<span class="r val">{at ? plural(at.devices, "device", "devices") : T.noDevices}</span></div>
      {at && at.devices > 0 && <StateBar states={at.states} label={`${name}: ${statesText(at.states)}`} />}
      {at && at.devices > 0 && <p class="sub val">{statesText(at.states)}{at.soaking > 0 && `, ${T.soaking(at.soaking)}`}{at.late > 0 && `, ${T.late(at.late)}`}</p>}
      <p class="sub">{rules(plan, at).join(" · ")}</p>
    </li>
  );
}

/** Which devices a phase is for, as its plan says. */
function whom(f: RolloutPhase): string {
  if (f.count !== undefined) return plural(f.count, "device", "devices");
  return f.percent !== undefined ? `${measure(f.percent)} %` : f.q ?? "";
}

/** What must hold before the next phase, and what is left until it stops. */
function rules(f: RolloutPhase, at: RolloutPhaseProgress | undefined): string[] {
  const failing = at?.failing ?? 0;
  const out: string[] = [];
  if (f.failure?.absolute) out.push(T.stops(f.failure.absolute, failing));
  if (f.failure?.percent) out.push(T.share(f.failure.percent, f.failure.min_sample ?? 0));
  if (!f.failure?.absolute && failing > 0) out.push(T.failingNow(failing));
  if (out.length === 0) out.push(T.never);
  if (f.success !== undefined) out.push(T.needed(f.success));
  if (f.soak_s) out.push(T.thenWait(f.soak_s));
  if (f.gate === "manual") out.push(T.manual);
  if (f.regression) out.push(`${f.regression.aggregate ?? "avg"} ${f.regression.key} ${f.regression.worse} ${measure(f.regression.percent ?? 10)} %`);
  return out;
}

function Reasons({ r }: { r: RolloutBody }) {
  if (!r.reasons || r.reasons.length === 0) return null;
  return (
    <section class="sec" aria-labelledby="reasons-title">
      <header><h2 id="reasons-title">{T.reasons}</h2></header>
      <table class="plain reasons">
        <thead><tr><th scope="col">{T.state}</th><th scope="col">{T.reason}</th><th scope="col" class="n">{T.devices}</th></tr></thead>
        <tbody>
          {r.reasons.map((x) => (
            <tr key={x.state + x.reason}>
              <td class="status"><StateGlyph of={x.state} /> {stateWord(x.state)}</td>
              <td><a class="to" href={rolloutPath(r.id, x.state, x.reason)}>{stateWord(x.reason)}</a></td>
              <td class="n">{count(x.devices)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
