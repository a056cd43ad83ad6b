// The tab Twin of a device: what is wanted against what it reports, and its own wanted document.

import { useEffect, useState } from "preact/hooks";
import { ApiError, changing, message } from "../lib/api";
import { insist, useTurns } from "../lib/ask";
import { now } from "../lib/clock";
import type { DeviceModel } from "../lib/device";
import { ago } from "../lib/format";
import { leavesOf, parsed, pretty } from "../lib/json";
import { getDeviceDesired, getTwin, putDeviceDesired, type DesiredBody, type TwinBody } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Scroll } from "../parts/scroll";

const T = {
  title: "Twin",
  note: "wanted against reported",
  converged: "Everything that is wanted is reported.",
  pending: (n: number) => `${n} not as wanted`,
  key: "Key", reported: "Reported", wanted: "Wanted", from: "Wanted by", age: "Changed",
  owns: "device owns",
  none: "Nothing is wanted of this device, and it has reported nothing.",
  edit: "Edit what is wanted",
  own: "What is wanted of this device alone",
  levels: (l: string) => `Levels below it: ${l}.`,
  doc: "A JSON object. Null is not possible: leave a key out.",
  save: "Save", cancel: "Cancel",
  forbidden: "Needs the role operator or the scope devices:write.",
  notJSON: (why: string) => `This is not JSON: ${why}`,
  notObject: "The document is a JSON object.",
  conflict: (v: number) => `Somebody changed it meanwhile: it is at version ${v} now. Nothing of yours was saved.`,
  unread: (why: string) => `Somebody changed it meanwhile, and how it is now cannot be read: ${why} Nothing of yours was saved; save again to see it.`,
  theirs: "As it is now",
  take: "Take theirs, drop mine",
  keep: "Keep mine over theirs",
  saved: (v: number) => `Saved as version ${v}.`,
  others: (names: string) => `${names} edits this too.`,
};

const LOOK_MS = 5000; // between looks at the twin: a report of the device is no event

export function TwinTab({ model }: { model: DeviceModel }) {
  const [twin, setTwin] = useState<TwinBody | null>(null);
  const [fault, setFault] = useState("");
  const [editing, setEditing] = useState(false);
  const [said, say] = useState("");
  const news = model.news.value + Math.floor(now.value / LOOK_MS);
  useTurns((stop) => getTwin(model.id, stop).then((t) => { setTwin(t); setFault(""); }, (e: unknown) => stop.aborted || setFault(message(e))), model.id + " " + said, news);
  const allowed = may("devices:write");
  return (
    <section class="sec twin" aria-labelledby="twin-title">
      <header>
        <h2 id="twin-title">{T.title}</h2><p>{twin ? (twin.converged ? T.converged : T.pending(twin.diverged_count)) : T.note}</p>
        <div class="r">
          {!editing && <button type="button" class="btn" disabled={!allowed} title={allowed ? undefined : T.forbidden} onClick={() => setEditing(true)}>{T.edit}</button>}
        </div>
      </header>
      <p class="error" role="alert">{fault}</p>
      <p class="vh" role="status">{said}</p>
      {editing && <Editor model={model} onDone={(v) => { setEditing(false); if (v !== undefined) say(T.saved(v)); }} />}
      {twin && <Leaves of={twin} />}
    </section>
  );
}

interface Line {
  path: string;
  wanted?: unknown;
  reported?: unknown;
  from: string;
  at: string;
  differs: boolean;
}

function linesOf(t: TwinBody): Line[] {
  const lines = new Map<string, Line>();
  const meta = (top: string) => t.meta[top] ?? {};
  for (const l of leavesOf(t.reported.state)) lines.set(l.path, { path: l.path, reported: l.value, from: "", at: meta(l.top).reported_at ?? "", differs: false });
  for (const l of leavesOf(t.desired.state)) {
    const old = lines.get(l.path);
    const at = t.diverged.includes(l.path) ? meta(l.top).desired_at : old?.at;
    lines.set(l.path, { ...old, path: l.path, wanted: l.value, from: t.winners[l.path] ?? "", at: at ?? meta(l.top).desired_at ?? "", differs: t.diverged.includes(l.path) });
  }
  return [...lines.values()].sort((a, b) => Number(b.differs) - Number(a.differs) || (a.path < b.path ? -1 : 1));
}

function Leaves({ of }: { of: TwinBody }) {
  const lines = linesOf(of);
  if (lines.length === 0) return <p class="quiet-note">{T.none}</p>;
  return (
    <Scroll labelledby="twin-title">
      <table class="plain">
        <thead><tr><th scope="col">{T.key}</th><th scope="col">{T.reported}</th><th scope="col">{T.wanted}</th><th scope="col">{T.from}</th><th scope="col" class="n">{T.age}</th></tr></thead>
        <tbody>
          {lines.map((l) => (
            <tr key={l.path} class={l.differs ? "differs" : ""} data-path={l.path}>
              <th scope="row" class="mono">{l.path}</th>
              <td class="mono">{l.reported === undefined ? "" : JSON.stringify(l.reported)}</td>
              <td class="mono">{l.wanted === undefined ? <small>{T.owns}</small> : <b>{JSON.stringify(l.wanted)}</b>}</td>
              <td>{l.from}</td>
              <td class="n">{l.at && <time title={l.at}>{ago(Date.parse(l.at), now.value)}</time>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

/** Edits the device's own document, bound to the version that was seen. */
function Editor({ model, onDone }: { model: DeviceModel; onDone: (version?: number) => void }) {
  const id = model.id;
  const [base, setBase] = useState<DesiredBody | null>(null);
  const [theirs, setTheirs] = useState<DesiredBody | null>(null);
  const [text, setText] = useState("");
  const [fault, setFault] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    const stop = new AbortController();
    insist((signal) => getDeviceDesired(id, signal), stop.signal, (e) => setFault(message(e))).then((d) => {
      setFault("");
      setBase(d);
      setText(pretty(d.state));
    }, () => undefined); // each failure was told
    return () => stop.abort();
  }, [id]);
  useEffect(() => model.edits("twin"), [model]);
  const save = async (over: DesiredBody | null) => {
    let body: unknown;
    try {
      body = parsed(text, {});
    } catch (e) {
      return setFault(T.notJSON(message(e)));
    }
    if (!body || typeof body !== "object" || Array.isArray(body)) return setFault(T.notObject);
    if (!over) return;
    setBusy(true);
    setFault("");
    try {
      const got = await putDeviceDesired(id, changing(over, body as Record<string, unknown>));
      onDone(got.version);
    } catch (e) {
      if (!(e instanceof ApiError && e.status === 412)) return setFault(message(e));
      await getDeviceDesired(id).then(setTheirs, (why: unknown) => setFault(T.unread(message(why))));
    } finally {
      setBusy(false);
    }
  };
  const others = model.here.value.filter((w) => !w.you && w.edits === "twin");
  return (
    <form class="stack editor" onSubmit={(e) => { e.preventDefault(); void save(base); }}>
      <div class="field wide">
        <label for="twin-doc">{T.own}</label>
        <textarea id="twin-doc" class="mono" rows={10} spellcheck={false} value={text} aria-describedby="twin-doc-hint twin-doc-error" onInput={(e) => setText(e.currentTarget.value)} />
        <p class="hint" id="twin-doc-hint">{T.doc}</p>
        <p class="error" id="twin-doc-error" role="alert">{fault}</p>
      </div>
      {theirs && (
        <div class="conflict" role="alert">
          <p class="error">{T.conflict(theirs.version)}</p>
          <p>{T.theirs}</p>
          <pre class="json" tabIndex={0}>{pretty(theirs.state)}</pre>
          <div class="act">
            <button type="button" class="btn" onClick={() => { setBase(theirs); setText(pretty(theirs.state)); setTheirs(null); }}>{T.take}</button>
            <button type="button" class="btn" disabled={busy} onClick={() => { setBase(theirs); setTheirs(null); void save(theirs); }}>{T.keep}</button>
          </div>
        </div>
      )}
      <div class="act">
        <button type="submit" class="btn pri" disabled={busy || !base || theirs !== null}>{T.save}</button>
        <button type="button" class="btn txt" onClick={() => onDone()}>{T.cancel}</button>
      </div>
      {/* Last, for it comes and goes by itself: nothing that is pressed lies below it. */}
      {others.length > 0 && <p class="warn" role="status">{T.others(others.map((w) => w.name).join(", "))}</p>}
    </form>
  );
}
