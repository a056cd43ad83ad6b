// The tab Events of a device: what happened, and what it logged.

import { useEffect, useState } from "preact/hooks";
import type { DeviceModel } from "../lib/device";
import { useList } from "../lib/list";
import { fullOf } from "../lib/range";
import { search, setSearch } from "../lib/route";
import { listEvents, listLogLines, type Event, type LogLine } from "../lib/schema.gen";
import { Fault } from "../parts/fault";

const T = {
  events: "Events", logs: "Logs", show: "What is shown",
  type: "Only of the type", level: "At least", q: "Containing",
  by: (g: string) => `by ${g}`,
  system: "noticed by Muster",
  noEvents: "No event. A device publishes one at devices/{id}/events/{type}.",
  noLogs: "No log line. A device publishes them at devices/{id}/logs.",
  more: "Older",
};

const LEVELS = ["debug", "info", "warn", "error"] as const;
const TYPING_MS = 250;

export function EventsTab({ model }: { model: DeviceModel }) {
  const logs = search.value.get("show") === "logs";
  return (
    <section class="sec" aria-labelledby="events-title">
      <header>
        <h2 id="events-title">{logs ? T.logs : T.events}</h2>
        <div class="tabs" role="group" aria-label={T.show}>
          <button type="button" aria-pressed={!logs} onClick={() => setSearch({ show: "", level: "", q: "" })}>{T.events}</button>
          <button type="button" aria-pressed={logs} onClick={() => setSearch({ show: "logs", type: "" })}>{T.logs}</button>
        </div>
        <div class="r">{logs ? <LogFilter /> : <Typed name="type" label={T.type} />}</div>
      </header>
      {logs ? <Logs model={model} /> : <Events model={model} />}
    </section>
  );
}

/** A field whose text goes into the address when typing pauses. */
function Typed({ name, label }: { name: string; label: string }) {
  const at = search.value.get(name) ?? "";
  const [text, setText] = useState(at);
  useEffect(() => setText(at), [at]);
  useEffect(() => {
    if (text === at) return;
    const timer = setTimeout(() => setSearch({ [name]: text.trim() }, true), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return <input aria-label={label} placeholder={label} value={text} maxLength={64} onInput={(e) => setText(e.currentTarget.value)} />;
}

function LogFilter() {
  return (
    <>
      <select aria-label={T.level} value={search.value.get("level") ?? "debug"} onChange={(e) => setSearch({ level: e.currentTarget.value === "debug" ? "" : e.currentTarget.value }, true)}>
        {LEVELS.map((l) => <option key={l} value={l}>{l}</option>)}
      </select>
      <Typed name="q" label={T.q} />
    </>
  );
}

function Events({ model }: { model: DeviceModel }) {
  const type = search.value.get("type") ?? "";
  const list = useList<Event>((at, stop) => listEvents(model.id, { limit: 100, ...(type && { type }), ...at }, stop), type, model.news.value);
  return (
    <>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.noEvents}</p>}
      <ul class="happened">
        {list.items?.map((e, i) => (
          <li key={e.time + e.type + i}>
            <time title={e.time}>{fullOf(Date.parse(e.time))}</time>
            <b class="mono">{e.type}</b>
            <span><code class="payload">{JSON.stringify(e.payload)}</code> <small>{e.source === "system" ? T.system : e.by && T.by(e.by)}</small></span>
          </li>
        ))}
      </ul>
      {list.more && <button type="button" class="btn more" onClick={list.more}>{T.more}</button>}
    </>
  );
}

function Logs({ model }: { model: DeviceModel }) {
  const p = search.value;
  const level = LEVELS.find((l) => l === p.get("level"));
  const q = p.get("q") ?? "";
  const list = useList<LogLine>((at, stop) => listLogLines(model.id, { limit: 100, ...(level && { level }), ...(q && { q }), ...at }, stop), `${level} ${q}`, model.news.value);
  return (
    <>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.noLogs}</p>}
      <ul class="happened">
        {list.items?.map((l, i) => (
          <li key={l.time + i} data-level={l.level}>
            <time title={l.time}>{fullOf(Date.parse(l.time))}</time>
            <b class={l.level === "error" ? "crit" : l.level === "warn" ? "warn" : ""}>{l.level}</b>
            <span>{l.text} {l.fields !== null && <code class="payload">{JSON.stringify(l.fields)}</code>}</span>
          </li>
        ))}
      </ul>
      {list.more && <button type="button" class="btn more" onClick={list.more}>{T.more}</button>}
    </>
  );
}
