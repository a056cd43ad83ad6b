// The tab Firmware of a device: what it runs, what it is offered, and what holds an update back.

import { useEffect, useState } from "preact/hooks";
import { message } from "../lib/api";
import { now } from "../lib/clock";
import type { DeviceModel } from "../lib/device";
import { ago } from "../lib/format";
import { explainRolloutDevice, getDeviceFirmware, type DeviceFirmware, type FirmwareAction, type RolloutWhy } from "../lib/schema.gen";
import { may } from "../lib/session";

const T = {
  title: "Firmware",
  runs: "runs",
  never: "The device never said what it runs. It does so with firmware.version in what it reports.",
  now: "Under way", waiting: "Waiting", past: "Offered before",
  none: "No rollout has this device.",
  why: "Why it waits", hide: "Hide",
  whyOf: (r: string) => `Why it waits for ${r}`,
  rollout: "Rollout", release: "Release", state: "State", from: "From", phase: "Phase", attempt: "Attempt", changed: "Changed",
  held: "holds it back", until: (t: string) => `until ${t}`,
  forbidden: "Needs the scope firmware:read.",
};

export function FirmwareTab({ model }: { model: DeviceModel }) {
  const [of, setOf] = useState<DeviceFirmware | null>(null);
  const [fault, setFault] = useState("");
  const allowed = may("firmware:read");
  const look = model.news.value + Math.floor(now.value / LOOK_MS);
  useEffect(() => {
    if (!allowed) return;
    const stop = new AbortController();
    getDeviceFirmware(model.id, stop.signal).then((f) => { setOf(f); setFault(""); }, (e: unknown) => stop.signal.aborted || setFault(message(e)));
    return () => stop.abort();
  }, [model.id, look, allowed]);
  if (!allowed) return <p class="quiet-note">{T.forbidden}</p>;
  const past = of?.actions.filter((a) => a.rollout !== of.current?.rollout) ?? [];
  return (
    <section class="sec firmware" aria-labelledby="firmware-title">
      <header><h2 id="firmware-title">{T.title}</h2>{of?.version && <p>{T.runs} <b class="mono" data-version>{of.version}</b></p>}</header>
      <p class="error" role="alert">{fault}</p>
      {of && !of.version && <p class="quiet-note">{T.never}</p>}
      {of?.current && <Actions title={T.now} items={[of.current]} />}
      {of && of.waiting.length > 0 && <Waiting id={model.id} items={of.waiting} />}
      {past.length > 0 && <Actions title={T.past} items={past} />}
      {of && !of.current && of.waiting.length === 0 && past.length === 0 && <p class="quiet-note">{T.none}</p>}
    </section>
  );
}

const LOOK_MS = 5000; // between looks: a device's steps are no events of the feed

function Actions({ title, items }: { title: string; items: FirmwareAction[] }) {
  return (
    <div class="part">
      <h3>{title}</h3>
      <div class="scroll" role="region" aria-label={title} tabIndex={0}>
        <table class="plain">
          <thead><tr><th scope="col">{T.rollout}</th><th scope="col">{T.state}</th><th scope="col">{T.from}</th><th scope="col" class="n">{T.phase}</th><th scope="col" class="n">{T.attempt}</th><th scope="col" class="n">{T.changed}</th></tr></thead>
          <tbody>
            {items.map((a) => (
              <tr key={a.rollout} data-rollout={a.rollout}>
                <th scope="row">{a.name} <small class="mono">{a.release}</small></th>
                <td><b>{a.state}</b>{a.state === "downloading" && ` ${a.progress} %`} <small>{a.reason}{a.detail && `: ${a.detail}`}</small></td>
                <td class="mono">{a.from}</td><td class="n">{a.phase}</td><td class="n">{a.attempt}</td>
                <td class="n"><time title={a.updated_at}>{ago(Date.parse(a.updated_at), now.value)}</time></td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}

function Waiting({ id, items }: { id: string; items: FirmwareAction[] }) {
  return (
    <div class="part">
      <h3>{T.waiting}</h3>
      <ul class="pending">{items.map((a) => <Wait key={a.rollout} id={id} a={a} />)}</ul>
    </div>
  );
}

function Wait({ id, a }: { id: string; a: FirmwareAction }) {
  const [why, setWhy] = useState<RolloutWhy | null>(null);
  const [fault, setFault] = useState("");
  const ask = () => {
    if (why) return setWhy(null);
    setFault("");
    explainRolloutDevice(a.rollout, id).then(setWhy, (e: unknown) => setFault(message(e)));
  };
  return (
    <li>
      <b>{a.name}</b> <small class="mono">{a.release}</small> <span>{a.status}</span>
      <button type="button" class="btn txt" aria-expanded={why !== null} aria-label={T.whyOf(a.name)} onClick={ask}>{why ? T.hide : T.why}</button>
      <p class="error" role="alert">{fault}</p>
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
