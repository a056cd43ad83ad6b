// What can be done to the devices that are selected: the bar, the question that is asked
// before, and how far it is.

import { useEffect, useRef, useState } from "preact/hooks";
import { message } from "../lib/api";
import { begin, countOf, work, type Deed } from "../lib/bulk";
import { view } from "../lib/devices";
import { useForm } from "../lib/form";
import { count, plural } from "../lib/format";
import { listGroups } from "../lib/schema.gen";
import { allMatching, chosen, clearSelection, elsewhere, full, MOST_SELECTED, selected, selectedCount, type Chosen } from "../lib/selection";
import { may } from "../lib/session";
import { Area, Choice } from "../parts/choice";
import { Field, Submit } from "../parts/field";

const devices = (n: number) => plural(n, "device", "devices");

const T = {
  label: "What to do with the selected devices",
  selected: (n: number, elsewhere: number) => (elsewhere > 0 ? `${count(n)} selected, ${count(elsewhere)} of them on other pages` : `${count(n)} selected`),
  full: (most: number) => `At most ${count(most)} are selected one by one.`,
  all: (n: number) => `Select all ${count(n)} that match`,
  allOn: (n: number) => `All ${count(n)} that match are selected`,
  clear: "Clear",
  needs: "This needs the role operator.",
  tag: "Tag",
  group: "Group",
  command: "Send a command",
  delete: "Delete",
  key: "Tag",
  keyHint: "letters, digits, dot, _ and -",
  value: "Value",
  way: "What to do",
  setTag: "set it",
  dropTag: "take it away",
  addGroup: "put them into it",
  dropGroup: "take them out of it",
  inGroup: "Static group",
  noGroups: "There is no static group yet: make one on the page Groups.",
  method: "Method",
  params: "Parameters",
  paramsHint: "JSON; may be empty",
  badParams: "This is not JSON.",
  data: "Their telemetry",
  keep: "is kept",
  erase: "is deleted too",
  count: "Count the devices",
  counted: (n: number) => `${devices(n)} ${n === 1 ? "matches" : "match"} now.`,
  none: "No device matches now.",
  typeCount: (n: number) => `Type ${n} to confirm`,
  back: "Back",
  cancel: "Cancel",
  close: "Close",
  does: {
    tag: (n: number) => `Tag ${devices(n)}`,
    group: (n: number) => `Change the group of ${devices(n)}`,
    command: (n: number, method = "") => `Send ${method} to ${devices(n)}`,
    delete: (n: number) => `Delete ${devices(n)}`,
  },
  final: "A deleted device does not come back.",
  progress: (done: number, total: number) => (total > 0 ? `${count(done)} of ${count(total)}` : "It begins."),
  done: (n: number) => `done: ${count(n)}`,
  failed: "failed",
  stopped: (n: number, of: number) => `stopped: ${count(n)} of ${count(of)}`,
  stop: "Stop",
  undo: "Undo",
  undone: "Undone.",
};

type Kind = Deed["kind"];
const KINDS: readonly Kind[] = ["tag", "group", "command", "delete"];

/** The bar; empty while nothing is selected. */
export function BulkBar() {
  const [asks, ask] = useState<Kind | null>(null);
  const n = selectedCount.value;
  const v = view.value;
  if (!v || (n === 0 && !asks)) return null;
  const page = v.order.length > 0 && v.order.every((id) => selected.value.has(id));
  return (
    <section class="bulk" aria-label={T.label}>
      <b role="status">{allMatching.value ? T.allOn(n) : T.selected(n, elsewhere.value)}</b>
      {full.value && <span class="warn" role="alert">{T.full(MOST_SELECTED)}</span>}
      {page && !allMatching.value && v.total > n && <button type="button" class="btn txt" onClick={() => { allMatching.value = true; }}>{T.all(v.total)}</button>}
      <span class="r">
        {KINDS.map((k) => {
          const allowed = may(k === "command" ? "commands:send" : "devices:write");
          return <button key={k} type="button" class="btn" data-kind={k} disabled={!allowed} title={allowed ? undefined : T.needs} onClick={() => ask(k)}>{T[k]}</button>;
        })}
        <button type="button" class="btn txt" onClick={clearSelection}>{T.clear}</button>
      </span>
      {asks && <Ask kind={asks} of={chosen()} onClose={() => ask(null)} />}
    </section>
  );
}

function Ask({ kind, of, onClose }: { kind: Kind; of: Chosen; onClose: () => void }) {
  const el = useRef<HTMLDialogElement>(null);
  const [c] = useState(of); // what was selected when it was asked for
  const [deed, setDeed] = useState<Deed | null>(null);
  const [n, setN] = useState(-1);
  useEffect(() => el.current?.showModal(), []);
  const counted = async (d: Deed) => {
    setN(await countOf(c, d));
    setDeed(d);
  };
  return (
    <dialog ref={el} class="sheet ask" aria-labelledby="ask-title" onClose={onClose}>
      <h2 id="ask-title">{T[kind]}</h2>
      {deed === null ? <DeedForm kind={kind} onDeed={counted} /> : <Confirm deed={deed} n={n} c={c} onBack={() => setDeed(null)} onBegun={() => el.current?.close()} />}
      <form method="dialog"><button class="btn txt">{T.cancel}</button></form>
    </dialog>
  );
}

function DeedForm({ kind, onDeed }: { kind: Kind; onDeed: (d: Deed) => Promise<void> }) {
  const form = useForm({ key: "", value: "", way: "add", group: "", method: "", params: "", data: "keep" });
  const groups = useStaticGroups(kind === "group");
  const submit = form.submit(async (v) => {
    const deed = deedOf(kind, v);
    if (!deed) return form.refuse("params", T.badParams);
    await onDeed(deed);
  });
  const static1 = groups ?? [];
  useEffect(() => {
    if (static1[0] && !form.values.group) form.set("group", static1[0]);
  }, [static1[0]]);
  return (
    <form class="stack" onSubmit={submit}>
      {kind === "tag" && <Choice form={form} name="way" label={T.way} options={[["add", T.setTag], ["drop", T.dropTag]]} />}
      {kind === "tag" && <Field form={form} name="key" label={T.key} hint={T.keyHint} mono focus />}
      {kind === "tag" && form.values.way === "add" && <Field form={form} name="value" label={T.value} optional />}
      {kind === "group" && <Choice form={form} name="way" label={T.way} options={[["add", T.addGroup], ["drop", T.dropGroup]]} />}
      {kind === "group" && <Choice form={form} name="group" label={T.inGroup} options={static1.map((g) => [g, g] as const)} hint={groups?.length === 0 ? T.noGroups : ""} />}
      {kind === "command" && <Field form={form} name="method" label={T.method} mono focus />}
      {kind === "command" && <Area form={form} name="params" label={T.params} hint={T.paramsHint} mono />}
      {kind === "delete" && <Choice form={form} name="data" label={T.data} options={[["keep", T.keep], ["delete", T.erase]]} />}
      <Submit form={form}>{T.count}</Submit>
    </form>
  );
}

function deedOf(kind: Kind, v: Record<"key" | "value" | "way" | "group" | "method" | "params" | "data", string>): Deed | null {
  switch (kind) {
    case "tag":
      return { kind, key: v.key.trim(), value: v.way === "add" ? v.value : null };
    case "group":
      return { kind, group: v.group, add: v.way === "add" };
    case "delete":
      return { kind, data: v.data === "delete" ? "delete" : "keep" };
    case "command":
      try {
        return { kind, method: v.method.trim(), params: v.params.trim() ? (JSON.parse(v.params) as unknown) : undefined };
      } catch {
        return null;
      }
  }
}

/** The names of the static groups, null before they are known. */
function useStaticGroups(wanted: boolean): string[] | null {
  const [names, setNames] = useState<string[] | null>(null);
  useEffect(() => {
    if (!wanted) return;
    const stop = new AbortController();
    listGroups({ limit: 1000 }, stop.signal).then((p) => setNames(p.items.filter((g) => g.kind === "static").map((g) => g.name)), () => setNames([]));
    return () => stop.abort();
  }, [wanted]);
  return names;
}

function Confirm({ deed, n, c, onBack, onBegun }: { deed: Deed; n: number; c: Chosen; onBack: () => void; onBegun: () => void }) {
  const [typed, setTyped] = useState("");
  const [fault, setFault] = useState("");
  const [busy, setBusy] = useState(false);
  const title = deed.kind === "command" ? T.does.command(n, deed.method) : T.does[deed.kind](n);
  const final = deed.kind === "delete";
  const run = async (e: Event) => {
    e.preventDefault();
    setBusy(true);
    setFault("");
    try {
      await begin(c, deed, n, title);
      if (final) clearSelection();
      onBegun();
    } catch (err) {
      setFault(message(err));
      setBusy(false);
    }
  };
  return (
    <form class="stack confirm" onSubmit={run}>
      <p>{n > 0 ? T.counted(n) : T.none}</p>
      {final && n > 0 && <p class="crit">{T.final}</p>}
      {final && n > 0 && <label class="field"><span>{T.typeCount(n)}</span><input value={typed} inputMode="numeric" autocomplete="off" ref={(el) => { if (el && typed === "") el.focus(); }} onInput={(e) => setTyped(e.currentTarget.value)} /></label>}
      <p class="error" role="alert">{fault}</p>
      <div class="ways">
        <button type="submit" class="btn pri" disabled={busy || n === 0 || (final && typed.trim() !== String(n))}>{title}</button>
        <button type="button" class="btn" onClick={onBack}>{T.back}</button>
      </div>
    </form>
  );
}

/** How far the last work is, and what came of it. */
export function WorkStrip() {
  const w = work.value;
  const [fault, setFault] = useState("");
  useEffect(() => setFault(""), [w?.title, w?.state]);
  if (!w) return null;
  const run = (what: () => Promise<unknown>, then: () => void) => what().then(then, (e: unknown) => setFault(message(e)));
  return (
    <div class={`work ${w.state}`} role="status">
      <b>{w.title}</b>
      {w.state === "running" && <progress value={w.total > 0 ? w.done : undefined} max={w.total || 1} aria-label={w.title} />}
      <span class="val">{w.state === "running" ? T.progress(w.done, w.total) : w.state === "failed" ? T.failed : w.state === "stopped" ? T.stopped(w.done, w.total) : T.done(w.done)}{w.said && `, ${w.said}`}</span>
      {fault && <span class="error">{fault}</span>}
      <span class="r">
        {w.cancel && <button type="button" class="btn" onClick={() => run(w.cancel!, () => {})}>{T.stop}</button>}
        {w.undo && <button type="button" class="btn" onClick={() => run(w.undo!, () => { work.value = { title: w.title, state: "done", done: w.done, total: w.total, said: T.undone }; })}>{T.undo}</button>}
        {w.state !== "running" && <button type="button" class="btn txt" onClick={() => { work.value = null; }}>{T.close}</button>}
      </span>
    </div>
  );
}
