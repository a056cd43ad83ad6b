// Tasks: what takes long and goes on by itself; live, with its result.

import { useEffect, useState } from "preact/hooks";
import { held } from "../lib/held";
import { message } from "../lib/api";
import { now } from "../lib/clock";
import { absolute, ago, bytes, count, duration } from "../lib/format";
import { subscribe, type Frame } from "../lib/live";
import { useList, type List as ListOf } from "../lib/list";
import { search, setSearch } from "../lib/route";
import { cancelTask, listTasks, listTaskKinds, startTask, type TaskBody, type TaskKind } from "../lib/schema.gen";
import { may, me } from "../lib/session";
import { Done } from "../parts/bar";
import { Fault } from "../parts/fault";
import { Sure } from "../parts/sure";
import { useRowKeys } from "../parts/keys";
import { Scroll } from "../parts/scroll";

const T = {
  title: "Tasks",
  how: "Requests that take long: they go on while you look at something else, and after a restart.",
  needs: "Starting and cancelling tasks needs the role operator.",
  none: "There is no task yet. Imports, exports and changes of many devices become tasks.",
  noMatch: "No task is so.",
  loading: "Asking the server for the tasks.",
  state: "State",
  all: "all states",
  kind: "Kind",
  task: "Task",
  progress: "Progress",
  by: "Started by",
  when: "When",
  result: "Result",
  of: (t: TaskBody) => (t.total > 0 ? `${count(t.done)} of ${count(t.total)}` : count(t.done)),
  ending: "ends soon",
  cancel: "Cancel",
  sure: "Really cancel?",
  get: (size: number) => `Get it, ${bytes(size)}`,
  until: (t: string) => `until ${t}`,
  took: (ms: number) => `took ${duration(ms)}`,
  older: "Older tasks",
  kinds: "Kinds",
  what: "What it does",
  most: "At a time",
  waits: "Waiting at most",
  time: "May take",
  keeps: "Result kept",
  durable: "Goes on after a restart",
  yes: "yes",
  no: "no",
  export: "Export all devices",
  started: "It was started.",
};

export const STATES = ["queued", "running", "succeeded", "failed", "cancelled", "timed_out"] as const;
const TONE: Record<TaskBody["state"], string> = { queued: "idle", running: "upd", succeeded: "ok", failed: "crit", cancelled: "off", timed_out: "crit" };
const SHOWN = 50;

export function TasksPage() {
  useRowKeys();
  const state = search.value.get("state") ?? "";
  const kind = search.value.get("kind") ?? "";
  return (
    <>
      <section class="sec tasks" aria-labelledby="tasks-title">
        <header>
          <h1 id="tasks-title">{T.title}</h1><p class="long">{T.how}</p>
          <div class="r"><Filter name="state" word={T.state} all={T.all} options={STATES} value={state} /></div>
        </header>
        {!may("devices:write") && <p class="quiet-note">{T.needs}</p>}
        {state || kind ? <Filtered state={state} kind={kind} /> : <Newest />}
      </section>
      <Kinds />
    </>
  );
}

function Filter({ name, word, all, options, value }: { name: string; word: string; all: string; options: readonly string[]; value: string }) {
  return (
    <select aria-label={word} value={value} onChange={(e) => setSearch({ [name]: e.currentTarget.value })}>
      <option value="">{all}</option>
      {options.map((o) => <option key={o} value={o}>{o.replaceAll("_", " ")}</option>)}
    </select>
  );
}

/** The newest tasks as the live channel has them, with older ones below on demand. */
function Newest() {
  const [tasks, set] = useState<ReadonlyMap<string, TaskBody> | null>(null);
  const [fault, setFault] = useState("");
  const [older, setOlder] = held("older", ["no", "yes"]);
  useEffect(() => subscribe("tasks", { limit: SHOWN }, {
    snapshot: (f) => set(new Map((f["items"] as TaskBody[]).map((t) => [t.id, t]))),
    delta: (f) => set((old) => merged(old ?? new Map(), f)),
    refused: (_, why) => setFault(why),
  }), []);
  if (fault) return <p class="error" role="alert">{fault}</p>;
  if (!tasks) return <p class="quiet-note">{T.loading}</p>;
  const items = [...tasks.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  if (items.length === 0) return <p class="quiet-note">{T.none}</p>;
  return (
    <>
      <Table items={items} />
      {items.length >= SHOWN && older === "no" && <button type="button" class="btn" onClick={() => setOlder("yes")}>{T.older}</button>}
      {older === "yes" && <Older skip={tasks} />}
    </>
  );
}

function merged(old: ReadonlyMap<string, TaskBody>, f: Frame): ReadonlyMap<string, TaskBody> {
  const next = new Map([...old, ...Object.entries((f["set"] ?? {}) as Record<string, TaskBody>)]);
  for (const id of (f["del"] ?? []) as string[]) next.delete(id);
  return next;
}

function Older({ skip }: { skip: ReadonlyMap<string, TaskBody> }) {
  const list = useList<TaskBody>((at, stop) => listTasks({ limit: 100, ...at }, stop));
  return <List items={list.items?.filter((t) => !skip.has(t.id)) ?? null} of={list} none="" />;
}

function Filtered({ state, kind }: { state: string; kind: string }) {
  const list = useList<TaskBody>((at, stop) => listTasks({ limit: SHOWN, ...at, ...(state && { state: state as "queued" }), ...(kind && { kind }) }, stop), `${state} ${kind}`);
  return <List items={list.items} of={list} none={T.noMatch} />;
}

function List({ items, of, none }: { items: TaskBody[] | null; of: ListOf<TaskBody>; none: string }) {
  return (
    <>
      <Fault of={of} />
      {items?.length === 0 && none && <p class="quiet-note">{none}</p>}
      {items && items.length > 0 && <Table items={items} />}
      {of.more && <button type="button" class="btn" onClick={of.more}>{T.older}</button>}
    </>
  );
}

function Table({ items }: { items: TaskBody[] }) {
  return (
    <Scroll labelledby="tasks-title">
      <table class="plain wide">
        <thead><tr><th scope="col">{T.task}</th><th scope="col">{T.state}</th><th scope="col">{T.progress}</th><th scope="col">{T.by}</th><th scope="col">{T.when}</th><th scope="col">{T.result}</th><th /></tr></thead>
        <tbody>{items.map((t) => <Row key={t.id} t={t} />)}</tbody>
      </table>
    </Scroll>
  );
}

function Row({ t }: { t: TaskBody }) {
  const [fault, setFault] = useState("");
  const open = t.state === "queued" || t.state === "running";
  const from = Date.parse(t.started_at ?? t.created_at);
  const cancel = () => void cancelTask(t.id).catch((e: unknown) => setFault(message(e)));
  return (
    <tr data-id={t.id}>
      <th scope="row">{t.kind} <small class="mono">{t.id}</small></th>
      <td class={`status ${TONE[t.state]}`}>{t.state.replaceAll("_", " ")} {open && t.cancel_requested && <small>{T.ending}</small>}</td>
      <td class="far">{t.state === "running" && t.total > 0 && <Done done={t.done} total={t.total} label={`${t.kind}: ${T.of(t)}`} />}<span class="val">{T.of(t)}</span> {t.note && <small>{t.note}</small>} {t.error && <small class="crit">{t.error.detail}</small>}</td>
      <td>{t.owner_name || <span class="mono">{t.owner}</span>}</td>
      <td><time title={absolute(from)}>{ago(from, now.value)}</time> {t.ended_at && t.started_at && <small>{T.took(Date.parse(t.ended_at) - Date.parse(t.started_at))}</small>}</td>
      <td>{t.result && mayGet(t) && <a class="link" href={t.result.url} download={`${t.id}`} title={T.until(absolute(Date.parse(t.result.expires_at)))}>{T.get(t.result.size)}</a>}</td>
      <td class="n">{open && (may("devices:write") ? <Sure word={T.cancel} sure={T.sure} of={t.id} onSure={cancel} /> : <button type="button" class="btn txt" disabled>{T.cancel}</button>)}<span class="error" role="alert">{fault}</span></td>
    </tr>
  );
}

/** Whether the result may be asked for: that of an import holds credentials, and is for who started it. */
function mayGet(t: TaskBody): boolean {
  return t.kind !== "devices.import" || t.owner === me.value?.user?.id;
}

function Kinds() {
  const list = useList<TaskKind>((_, stop) => listTaskKinds(stop));
  const [said, say] = useState("");
  const [fault, setFault] = useState("");
  const start = () => startTask({ kind: "devices.export", input: { q: "", format: "csv" } }).then(() => say(T.started), (e: unknown) => setFault(message(e)));
  return (
    <section class="sec kinds-of-tasks" aria-labelledby="kinds-title">
      <header><h2 id="kinds-title">{T.kinds}</h2><div class="r"><button type="button" class="btn" disabled={!may("devices:write")} onClick={() => void start()}>{T.export}</button></div></header>
      <p role="status">{said}</p>
      <p class="error" role="alert">{fault}</p>
      <Fault of={list} />
      <Scroll labelledby="kinds-title">
        <table class="plain wide">
          <thead><tr><th scope="col">{T.kind}</th><th scope="col">{T.what}</th><th scope="col" class="n">{T.most}</th><th scope="col" class="n">{T.waits}</th><th scope="col" class="n">{T.time}</th><th scope="col" class="n">{T.keeps}</th><th scope="col">{T.durable}</th></tr></thead>
          <tbody>
            {list.items?.map((k) => (
              <tr key={k.kind}>
                <th scope="row" class="mono"><button type="button" class="btn txt" onClick={() => setSearch({ kind: k.kind })}>{k.kind}</button></th>
                <td>{k.summary}</td><td class="n">{count(k.concurrency)}</td><td class="n">{count(k.queue)}</td>
                <td class="n">{duration(k.timeout_s * 1000)}</td><td class="n">{duration(k.keep_result_s * 1000)}</td><td>{k.durable ? T.yes : T.no}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}
