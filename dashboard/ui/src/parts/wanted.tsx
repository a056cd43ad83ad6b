// The wanted document of many devices: edited, held against what it was, counted whom it reaches, and only
// then set.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError, message } from "../lib/api";
import { useForm } from "../lib/form";
import { plural } from "../lib/format";
import { leavesOf, pretty } from "../lib/json";
import { listDevices, type DesiredBody } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Area } from "./choice";
import { Submit } from "./field";
import { Scroll } from "./scroll";

const devices = (n: number) => plural(n, "device", "devices");

const T = {
  needs: "This needs the role operator.",
  state: "Document",
  version: (n: number) => `Version ${n}.`,
  never: "Nothing is wanted of them yet.",
  bad: "This is not a JSON object.",
  same: "Nothing is different.",
  review: "See what changes",
  changes: "What changes",
  key: "Key", was: "Was", becomes: "Becomes",
  none: "not there",
  reaches: (n: number) => `It reaches ${devices(n)}${n === 0 ? "." : ", each where no later level says otherwise."}`,
  set: (n: number) => `Set it for ${devices(n)}`,
  back: "Back",
  changed: (n: number) => `${devices(n)} ${n === 1 ? "has" : "have"} another document now.`,
  conflict: (v: number) => `Somebody changed it meanwhile: it is at version ${v} now. Nothing of yours was saved.`,
  theirs: "As it is now",
  take: "Take theirs, drop mine",
  keep: "Keep mine, and see what changes",
};

type State = Record<string, unknown>;

/** Whose document it is. */
export interface Level {
  read: (stop?: AbortSignal) => Promise<DesiredBody>;
  write: (over: DesiredBody, state: State) => Promise<DesiredBody>;
  query: string; // the devices that it reaches
}

export function Wanted({ title, how, of, none = "" }: { title: string; how: string; of: Level; none?: string }) {
  const [doc, setDoc] = useState<DesiredBody | null>(null);
  const [fault, setFault] = useState("");
  const [said, say] = useState("");
  useEffect(() => {
    if (none) return;
    const stop = new AbortController();
    of.read(stop.signal).then(setDoc, (e: unknown) => stop.signal.aborted || setFault(message(e)));
    return () => stop.abort();
  }, [of.query, none]);
  const onDoc = (d: DesiredBody) => {
    setDoc(d);
    say(d.devices_changed === undefined ? "" : T.changed(d.devices_changed));
  };
  return (
    <section class="sec wanted" aria-labelledby="wanted-title">
      <header><h2 id="wanted-title">{title}</h2><p class="long">{how}</p></header>
      {none && <p class="quiet-note">{none}</p>}
      <p class="error" role="alert">{fault}</p>
      {doc && <Editor key={doc.version} of={of} doc={doc} onDoc={onDoc} />}
      <p class="said" role="status">{said}</p>
    </section>
  );
}

function Editor({ of, doc, onDoc }: { of: Level; doc: DesiredBody; onDoc: (d: DesiredBody) => void }) {
  const form = useForm({ state: pretty(doc.state) });
  const [asked, ask] = useState<{ state: State; reach: number } | null>(null);
  const [base, setBase] = useState(doc);
  const [theirs, setTheirs] = useState<DesiredBody | null>(null);
  const entitled = may("devices:write");
  const review = form.submit(async (v) => {
    const state = objectOf(v.state);
    if (!state) return form.refuse("state", T.bad);
    if (diff(base.state, state).length === 0) return form.refuse("state", T.same);
    ask({ state, reach: await reachOf(of.query) });
  });
  const set = form.submit(async () => {
    if (!asked) return;
    try {
      onDoc(await of.write(base, asked.state));
    } catch (e) {
      ask(null);
      if (!(e instanceof ApiError) || e.status !== 412) throw e;
      setTheirs(await of.read());
    }
  });
  const keep = () => {
    if (theirs) setBase(theirs);
    setTheirs(null);
  };
  if (asked) return <Review before={base.state} after={asked.state} reach={asked.reach} busy={form.busy} onSet={set} onBack={() => ask(null)} />;
  return (
    <form class="stack" onSubmit={review}>
      <p class="hint">{doc.version > 0 ? T.version(doc.version) : T.never}</p>
      <fieldset class="stack" disabled={!entitled} title={entitled ? undefined : T.needs}>
        <Area form={form} name="state" label={T.state} rows={Math.min(20, 2 + form.values.state.split("\n").length)} mono />
        {theirs && (
          <div class="conflict" role="alert">
            <p class="error">{T.conflict(theirs.version)}</p>
            <p>{T.theirs}</p>
            <pre class="json" tabIndex={0}>{pretty(theirs.state)}</pre>
            <div class="act">
              <button type="button" class="btn" onClick={() => onDoc(theirs)}>{T.take}</button>
              <button type="button" class="btn" onClick={keep}>{T.keep}</button>
            </div>
          </div>
        )}
        {!theirs && <Submit form={form}>{T.review}</Submit>}
      </fieldset>
      {!entitled && <p class="hint">{T.needs}</p>}
    </form>
  );
}

interface Change { path: string; was: unknown; becomes: unknown }

/** The leaves that are not alike. */
function diff(before: unknown, after: unknown): Change[] {
  const was = new Map(leavesOf(before).map((l) => [l.path, l.value]));
  const is = new Map(leavesOf(after).map((l) => [l.path, l.value]));
  return [...new Set([...was.keys(), ...is.keys()])].filter((p) => p !== "" && JSON.stringify(was.get(p)) !== JSON.stringify(is.get(p)))
    .sort().map((path) => ({ path, was: was.get(path), becomes: is.get(path) }));
}

/** How many devices a document of theirs is about, as the server counts them. */
async function reachOf(query: string): Promise<number> {
  return (await listDevices({ ...(query && { q: query }), limit: 1, total: true })).total ?? 0;
}

function Review({ before, after, reach, busy, onSet, onBack }: { before: unknown; after: State; reach: number; busy: boolean; onSet: (e: Event) => void; onBack: () => void }) {
  const button = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => {
    if (!busy) button.current?.focus(); // until then it is disabled
  }, [busy]);
  const text = (v: unknown) => (v === undefined ? <small>{T.none}</small> : JSON.stringify(v));
  return (
    <form class="stack review" onSubmit={onSet}>
      <h3>{T.changes}</h3>
      <Scroll label={T.changes}>
        <table class="plain">
          <thead><tr><th scope="col">{T.key}</th><th scope="col">{T.was}</th><th scope="col">{T.becomes}</th></tr></thead>
          <tbody>
            {diff(before, after).map((c) => <tr key={c.path} data-path={c.path}><th scope="row" class="mono">{c.path}</th><td class="mono">{text(c.was)}</td><td class="mono"><b>{text(c.becomes)}</b></td></tr>)}
          </tbody>
        </table>
      </Scroll>
      <p class="reaches" data-reach={reach}>{T.reaches(reach)}</p>
      <div class="act">
        <button ref={button} type="submit" class="btn pri" disabled={busy}>{T.set(reach)}</button>
        <button type="button" class="btn txt" onClick={onBack}>{T.back}</button>
      </div>
    </form>
  );
}

function objectOf(text: string): State | null {
  try {
    const v = JSON.parse(text) as unknown;
    return typeof v === "object" && v !== null && !Array.isArray(v) ? (v as State) : null;
  } catch {
    return null;
  }
}
