// The devices of a rollout: where each is, why one is held back, and what happened.

import { useEffect, useState } from "preact/hooks";
import { useAsked } from "../lib/ask";
import { now } from "../lib/clock";
import { absolute, ago, day, seconds } from "../lib/format";
import { after, useList } from "../lib/list";
import { devicePath, search, setSearch } from "../lib/route";
import { STATES, stateWord, type RolloutState } from "../lib/rollouts";
import {
  explainRolloutDevice, listRolloutDevices, listRolloutLog,
  type RolloutBody, type RolloutChange, type RolloutDevice, type RolloutRule, type RolloutWhy,
} from "../lib/schema.gen";
import { StateGlyph } from "../parts/bar";
import { Fault } from "../parts/fault";
import { Scroll } from "../parts/scroll";

const T = {
  devices: "Devices",
  all: "all states",
  state: "State",
  phase: "Phase",
  device: "Device",
  reason: "Reason",
  attempt: "Attempt",
  since: "Since",
  why: "Why?",
  whyOf: (id: string) => `Why? ${id}`,
  none: "No device is there.",
  only: (reason: string) => `Only ${reason}`,
  anyReason: "all reasons",
  more: "More",
  download: (n: number) => `${n} %`,
  title: "Why does a device not get it?",
  ask: "Ask",
  id: "Id of the device",
  notThere: "There is no such device.",
  hint: "Every rule of an offer, in the order in which the server looks at them. A device is offered the release if all hold.",
  first: "the first that holds it back",
  holds: "holds",
  fails: "does not hold",
  until: (t: string) => `until ${t}`,
  version: (v: string) => `It reports version ${v}.`,
  log: "Log",
  newest: "the newest first",
  nothing: "Nothing has happened yet.",
  time: "Time",
  what: "What happened",
  from: "From",
  to: "To",
};

export function RolloutDevices({ r, turn }: { r: RolloutBody; turn: number }) {
  const state = (search.value.get("state") ?? "") as RolloutState | "";
  const reason = search.value.get("reason") ?? "";
  const known = state === "" || STATES.includes(state);
  const list = useList<RolloutDevice>((at, stop) => listRolloutDevices(r.id, { limit: 25, ...after(at), ...(state && known && { state }), ...(reason && { reason }) }, stop), `${state} ${reason} ${turn}`);
  if (r.progress.status === "draft") return null;
  return (
    <section class="sec rolloutdevices" aria-labelledby="rolloutdevices-title">
      <header>
        <h2 id="rolloutdevices-title">{T.devices}</h2>
        <div class="r">
          {reason && <button type="button" class="chip" aria-label={`${T.only(stateWord(reason))}: ${T.anyReason}`} onClick={() => setSearch({ reason: "" }, true)}>{T.only(stateWord(reason))} ×</button>}
          <select aria-label={T.state} value={state} onChange={(e) => setSearch({ state: e.currentTarget.value, reason: "" }, true)}>
            <option value="">{T.all}</option>
            {STATES.map((s) => <option key={s} value={s}>{stateWord(s)}</option>)}
          </select>
        </div>
      </header>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.none}</p>}
      {list.items && list.items.length > 0 && <Table items={list.items} />}
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </section>
  );
}

function Table({ items }: { items: RolloutDevice[] }) {
  return (
    <Scroll labelledby="rolloutdevices-title">
      <table class="plain wide">
        <thead><tr><th scope="col">{T.device}</th><th scope="col">{T.state}</th><th scope="col" class="n">{T.phase}</th><th scope="col" class="n">{T.attempt}</th><th scope="col">{T.reason}</th><th scope="col">{T.since}</th><th /></tr></thead>
        <tbody>
          {items.map((d) => (
            <tr key={d.device}>
              <th scope="row"><a class="to mono" href={devicePath(d.device)}>{d.device}</a></th>
              <td class="status"><StateGlyph of={d.state} /> {stateWord(d.state)} {d.state === "downloading" && <small>{T.download(d.progress)}</small>}</td>
              <td class="n">{d.phase}</td>
              <td class="n">{d.attempt}</td>
              <td>{d.reason && stateWord(d.reason)} {d.detail && <small>{d.detail}</small>}</td>
              <td><time title={absolute(Date.parse(d.updated_at))}>{ago(Date.parse(d.updated_at), now.value)}</time></td>
              <td class="n"><button type="button" class="btn txt" aria-label={T.whyOf(d.device)} onClick={() => setSearch({ why: d.device }, true)}>{T.why}</button></td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

export function Why({ r, turn }: { r: RolloutBody; turn: number }) {
  const device = search.value.get("why") ?? "";
  const [typed, type] = useState(device);
  const asked = useAsked(device ? (stop) => explainRolloutDevice(r.id, device, stop) : null, `${r.id} ${device}`, turn, T.notThere);
  useEffect(() => type(device), [device]);
  const ask = (e: Event) => {
    e.preventDefault();
    setSearch({ why: typed.trim() }, true);
  };
  return (
    <section class="sec whysection" aria-labelledby="why-title">
      <header><h2 id="why-title">{T.title}</h2><p class="long">{T.hint}</p></header>
      <form class="askwhy" onSubmit={ask}>
        <input class="mono" aria-label={T.id} placeholder={T.id} autocomplete="off" spellcheck={false} value={typed} onInput={(e) => type(e.currentTarget.value)} />
        <button type="submit" class="btn">{T.ask}</button>
      </form>
      <Fault of={asked} />
      {asked.answer && <Answer of={asked.answer} />}
    </section>
  );
}

function Answer({ of: w }: { of: RolloutWhy }) {
  return (
    <>
      <p class="answer" role="status"><a class="to mono" href={devicePath(w.device)}>{w.device}</a>: {w.words} {w.version && T.version(w.version)}</p>
      <ol class="rules">{w.rules.map((rule) => <Rule key={rule.name} rule={rule} first={rule.name === w.held} />)}</ol>
    </>
  );
}

function Rule({ rule, first }: { rule: RolloutRule; first: boolean }) {
  const tone = rule.holds ? "ok" : "crit";
  return (
    <li class={first ? "first" : ""} data-rule={rule.name}>
      <svg class={`g ${tone}`} viewBox="0 0 12 12" role="img" aria-label={rule.holds ? T.holds : T.fails}>
        {rule.holds ? <path d="M1.5 6.5 4.6 9.6 10.6 2.6" fill="none" stroke="currentColor" stroke-width="2" /> : <path d="M2 2l8 8M10 2l-8 8" fill="none" stroke="currentColor" stroke-width="2" />}
      </svg>
      <span class="mono">{rule.name}</span>
      <span>{rule.detail}{rule.until && <small> {T.until(day(rule.until))}</small>} {first && <b class="tag">{T.first}</b>}</span>
    </li>
  );
}

export function RolloutLog({ r, turn }: { r: RolloutBody; turn: number }) {
  const list = useList<RolloutChange>((at, stop) => listRolloutLog(r.id, { order: "desc", limit: 25, ...after(at) }, stop), String(turn));
  if (r.progress.status === "draft") return null;
  return (
    <section class="sec rolloutlog" aria-labelledby="rolloutlog-title">
      <header><h2 id="rolloutlog-title">{T.log}</h2><p>{T.newest}</p></header>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.nothing}</p>}
      {list.items && list.items.length > 0 && (
        <Scroll labelledby="rolloutlog-title">
          <table class="plain wide">
            <thead><tr><th scope="col" class="n">#</th><th scope="col">{T.time}</th><th scope="col">{T.device}</th><th scope="col">{T.what}</th><th scope="col">{T.to}</th><th scope="col">{T.reason}</th></tr></thead>
            <tbody>
              {list.items.map((c) => (
                <tr key={c.number}>
                  <td class="n">{c.number}</td>
                  <td class="mono"><time title={absolute(Date.parse(c.at))}>{seconds(Date.parse(c.at))}</time></td>
                  <th scope="row"><a class="to mono" href={devicePath(c.device)}>{c.device}</a></th>
                  <td>{stateWord(c.event)}</td>
                  <td class="status"><StateGlyph of={c.to} /> {stateWord(c.to)}</td>
                  <td>{c.reason && stateWord(c.reason)} {c.detail && <small>{c.detail}</small>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </section>
  );
}
