// The tab Firmware of a device: what it runs, what it is offered, what holds an update back, and what can be done.

import { useEffect, useState } from "preact/hooks";
import { message } from "../lib/api";
import { useAsked } from "../lib/ask";
import { now } from "../lib/clock";
import type { DeviceModel } from "../lib/device";
import { ago } from "../lib/format";
import { heldText } from "../lib/held";
import { leavesOf } from "../lib/json";
import { rolloutPath, stateWord } from "../lib/rollouts";
import { explainRolloutDevice, getDeviceFirmware, getTwin, listRolloutLog, type DeviceFirmware, type FirmwareAction } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Fault } from "../parts/fault";
import { Scroll } from "../parts/scroll";
import { Update } from "./deviceupdate";

const T = {
  title: "Firmware",
  runs: "runs",
  never: "The device never said what it runs. It does so with firmware.version in what it reports.",
  now: "Under way", waiting: "Waiting", past: "Offered before",
  none: "No rollout has this device.",
  why: "Why it waits", whyNow: "Why it is there", hide: "Hide",
  whyOf: (word: string, r: string) => `${word}: ${r}`,
  steps: "Steps", stepsOf: (r: string) => `Steps of ${r}`, when: "When", event: "What happened", to: "State", attempted: "Attempt", reason: "Reason",
  rollout: "Rollout", release: "Release", state: "State", from: "From", phase: "Phase", attempt: "Attempt", changed: "Changed",
  soaking: "has the version, and is watched", until: (t: string) => `until ${t}`, late: (what: string) => `later: ${what}`,
  held: "holds it back",
  says: "What it reports of its firmware",
  forbidden: "Needs the scope firmware:read.",
};

export function FirmwareTab({ model }: { model: DeviceModel }) {
  const [of, setOf] = useState<DeviceFirmware | null>(null);
  const [fault, setFault] = useState("");
  const [turn, setTurn] = useState(0);
  const allowed = may("firmware:read");
  const look = model.news.value + Math.floor(now.value / LOOK_MS);
  useEffect(() => {
    if (!allowed) return;
    const stop = new AbortController();
    getDeviceFirmware(model.id, stop.signal).then((f) => { setOf(f); setFault(""); }, (e: unknown) => stop.signal.aborted || setFault(message(e)));
    return () => stop.abort();
  }, [model.id, look, allowed, turn]);
  if (!allowed) return <p class="quiet-note">{T.forbidden}</p>;
  const past = of?.actions.filter((a) => a.rollout !== of.current?.rollout) ?? [];
  return (
    <>
      <section class="sec firmware" aria-labelledby="firmware-title">
        <header><h2 id="firmware-title">{T.title}</h2>{of?.version && <p>{T.runs} <b class="mono" data-version>{of.version}</b></p>}</header>
        <p class="error" role="alert">{fault}</p>
        {of && !of.version && <p class="quiet-note">{T.never}</p>}
        {of?.current && <Actions title={T.now} id={model.id} items={[of.current]} />}
        {of?.current && <ul class="pending"><Wait id={model.id} a={of.current} word={T.whyNow} /></ul>}
        {of && of.waiting.length > 0 && <Waiting id={model.id} items={of.waiting} />}
        {past.length > 0 && <Actions title={T.past} id={model.id} items={past} />}
        {of && !of.current && of.waiting.length === 0 && past.length === 0 && <p class="quiet-note">{T.none}</p>}
        <Reported id={model.id} look={look} />
      </section>
      {of && <Update id={model.id} of={of} onDone={() => setTurn(turn + 1)} />}
    </>
  );
}

const LOOK_MS = 5000; // between looks: a device's steps are no events of the feed

function Actions({ title, id, items }: { title: string; id: string; items: FirmwareAction[] }) {
  const [open, setOpen] = heldText("steps");
  const shown = items.find((a) => a.rollout === open);
  return (
    <div class="part">
      <h3>{title}</h3>
      <Scroll label={title}>
        <table class="plain">
          <thead><tr><th scope="col">{T.rollout}</th><th scope="col">{T.state}</th><th scope="col">{T.from}</th><th scope="col" class="n">{T.phase}</th><th scope="col" class="n">{T.attempt}</th><th scope="col" class="n">{T.changed}</th><td /></tr></thead>
          <tbody>
            {items.map((a) => (
              <tr key={a.rollout} data-rollout={a.rollout}>
                <th scope="row"><a class="link" href={rolloutPath(a.rollout)}>{a.name}</a> <small class="mono">{a.release}</small></th>
                <td><b>{stateWord(a.state)}</b>{a.state === "downloading" && ` ${a.progress} %`} <small>{more(a)}</small></td>
                <td class="mono">{a.from}</td><td class="n">{a.phase}</td><td class="n">{a.attempt}</td>
                <td class="n"><time title={a.updated_at}>{ago(Date.parse(a.updated_at), now.value)}</time></td>
                <td class="acts"><button type="button" class="btn txt" aria-expanded={open === a.rollout} aria-label={T.stepsOf(a.name)} onClick={() => setOpen(open === a.rollout ? "" : a.rollout)}>{open === a.rollout ? T.hide : T.steps}</button></td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {shown && <Steps key={shown.rollout} id={id} a={shown} />}
    </div>
  );
}

/** What there is to be said of a state. */
function more(a: FirmwareAction): string {
  const until = a.deadline_at && T.until(new Date(a.deadline_at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }));
  const why = a.reason && a.reason + (a.detail ? `: ${a.detail}` : "");
  return [why, a.soaking && T.soaking, until, a.late && T.late(a.late)].filter(Boolean).join(", ");
}

const MOST_STEPS = 100;

/** What happened to the device in a rollout, the newest first. */
function Steps({ id, a }: { id: string; a: FirmwareAction }) {
  const asked = useAsked((stop) => listRolloutLog(a.rollout, { device: id, order: "desc", limit: MOST_STEPS }, stop), `${id} ${a.rollout}`, a.updated_at);
  const items = asked.answer?.items;
  return (
    <div class="firmwaresteps">
      <Fault of={asked} />
      {items && (
        <Scroll label={T.stepsOf(a.name)}>
          <table class="plain">
            <thead><tr><th scope="col">{T.when}</th><th scope="col">{T.event}</th><th scope="col">{T.to}</th><th scope="col" class="n">{T.attempted}</th><th scope="col">{T.reason}</th></tr></thead>
            <tbody>{items.map((s) => <tr key={s.number}><th scope="row"><time title={s.at}>{ago(Date.parse(s.at), now.value)}</time></th><td>{s.event}</td><td>{stateWord(s.to)}</td><td class="n">{s.attempt}</td><td>{s.reason}{s.detail && `: ${s.detail}`}</td></tr>)}</tbody>
          </table>
        </Scroll>
      )}
    </div>
  );
}

function Waiting({ id, items }: { id: string; items: FirmwareAction[] }) {
  return (
    <div class="part">
      <h3>{T.waiting}</h3>
      <ul class="pending">{items.map((a) => <Wait key={a.rollout} id={id} a={a} word={T.why} named />)}</ul>
    </div>
  );
}

function Wait({ id, a, word, named = false }: { id: string; a: FirmwareAction; word: string; named?: boolean }) {
  const [wanted, want] = useState(false);
  const asked = useAsked(wanted ? (stop) => explainRolloutDevice(a.rollout, id, stop) : null, `${id} ${a.rollout} ${wanted}`);
  const why = asked.answer;
  return (
    <li>
      {named && <><a class="link" href={rolloutPath(a.rollout)}>{a.name}</a> <small class="mono">{a.release}</small> <span>{a.status}</span> </>}
      <button type="button" class="btn txt" aria-expanded={why !== null} aria-label={T.whyOf(word, a.name)} onClick={() => want(!wanted)}>{why ? T.hide : word}</button>
      <Fault of={asked} />
      {why && (
        <>
          <p>{why.words}</p>
          <ul class="holds">
            {why.rules.map((r) => (
              <li key={r.name} class={r.name === why.held ? "held" : ""}>
                <span class={r.holds ? "ok" : "warn"} aria-hidden="true">{r.holds ? "✓" : "–"}</span> <b class="mono">{r.name}</b> {r.detail}
                {r.name === why.held && <b> {T.held}</b>} {r.until && <small>{T.until(r.until)}</small>}
              </li>
            ))}
          </ul>
        </>
      )}
    </li>
  );
}

/** What the device itself says of its firmware: version, slot, or whatever else it reports there. */
function Reported({ id, look }: { id: string; look: number }) {
  const [state, setState] = useState<unknown>(null);
  useEffect(() => {
    const stop = new AbortController();
    getTwin(id, stop.signal).then((t) => setState(t.reported.state), () => undefined); // the tab Twin says why
    return () => stop.abort();
  }, [id, look]);
  const said = leavesOf(state).filter((l) => l.top === "firmware" || l.top === "versions");
  if (said.length === 0) return null;
  return (
    <div class="part reportedfirmware">
      <h3>{T.says}</h3>
      <table class="plain"><tbody>{said.map((l) => <tr key={l.path}><th scope="row" class="mono">{l.path}</th><td class="mono">{typeof l.value === "string" ? l.value : JSON.stringify(l.value)}</td></tr>)}</tbody></table>
    </div>
  );
}
