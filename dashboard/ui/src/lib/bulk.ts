// What is done to many devices at once: counted by the server first, then done as a task or
// a job whose progress is followed, and undone while that is possible.

import { signal } from "@preact/signals";
import { asTask, message } from "./api";
import { abortJob, cancelTask, createJob, deleteDevices, getJob, getTask, listDevices, updateDevices, type BulkUpdate, type Device, type JobBody, type TaskBody } from "./schema.gen";
import { idsQueries } from "./query";
import type { Chosen } from "./selection";

const POLL_MS = 700;
const FORGIVES = 5; // looks in a row that may fail
const MOST_UNDO = 1000; // devices of an action that can be undone: so many ids the API takes
const MOST_VALUES = 20; // different values of a tag that an undo writes back
const SMALL = 200; // devices that are changed at once; more are a task

/** What is to be done. */
export type Deed =
  | { kind: "tag"; key: string; value: string | null } // null takes the tag away
  | { kind: "group"; group: string; add: boolean }
  | { kind: "command"; method: string; params: unknown }
  | { kind: "delete"; data: "keep" | "delete" };

/** What is being done, or was. */
export interface Work {
  title: string;
  state: "running" | "done" | "stopped" | "failed"; // stopped: by who began it
  done: number;
  total: number;
  said: string; // what came of it
  cancel?: () => Promise<unknown>;
  undo?: () => Promise<unknown>;
}

/** The last that was begun; null when nothing was, or it was put away. */
export const work = signal<Work | null>(null);

/** Asks the server how many devices it would be about; it checks the change too. */
export async function countOf(c: Chosen, deed: Deed): Promise<number> {
  switch (deed.kind) {
    case "command":
      return (await createJob({ ...whom(c), kind: "command", method: deed.method, ...(deed.params !== undefined && { params: deed.params }), dry_run: true })).matched;
    case "delete":
      return (await deleteDevices({ ...whom(c), dry_run: true })).matched;
    default:
      return (await updateDevices({ ...whom(c), ...changeOf(deed), dry_run: true })).matched;
  }
}

function whom(c: Chosen): { q: string } | { ids: string[] } {
  return c.ids.length > 0 ? { ids: c.ids } : { q: c.q };
}

function changeOf(deed: Deed): Partial<BulkUpdate> {
  if (deed.kind === "tag") return { tags: { [deed.key]: deed.value } };
  if (deed.kind === "group") return deed.add ? { add_groups: [deed.group] } : { drop_groups: [deed.group] };
  return {};
}

/** Does it to as many devices as were counted, and returns when it has begun: it goes on
 * when the reader leaves. */
export async function begin(c: Chosen, deed: Deed, expect: number, title: string): Promise<void> {
  if (deed.kind === "command") {
    const made = await createJob({ ...whom(c), kind: "command", method: deed.method, ...(deed.params !== undefined && { params: deed.params }) });
    if (made.job) followJob(made.job, title);
    return;
  }
  const body = { ...whom(c), expect };
  const large = expect > SMALL;
  if (deed.kind === "delete") {
    const gone = { ...body, data: deed.data };
    const got = await deleteDevices(large ? asTask(gone) : gone);
    return got.task ? followTask(got.task, title) : ended(title, got.changed);
  }
  const undo = await undoOf(c, deed, expect);
  const change = { ...body, ...changeOf(deed) };
  const got = await updateDevices(large ? asTask(change) : change);
  if (got.task) followTask(got.task, title, undo);
  else ended(title, got.changed, undo);
}

function ended(title: string, n: number, undo?: () => Promise<unknown>): void {
  work.value = { title, state: "done", done: n, total: n, said: "", ...(undo && { undo }) };
}

/** What undoes a change: made before it, of what the devices have now. */
async function undoOf(c: Chosen, deed: Deed, n: number): Promise<(() => Promise<unknown>) | undefined> {
  if (n === 0 || n > MOST_UNDO || (deed.kind !== "tag" && deed.kind !== "group")) return undefined;
  const before: Device[] = [];
  for (const q of c.ids.length > 0 ? idsQueries(c.ids) : [c.q]) before.push(...(await listDevices({ q, limit: MOST_UNDO })).items);
  const back = deed.kind === "group" ? groupsBack(before, deed.group, deed.add) : tagsBack(before, deed.key, deed.value);
  if (back.length === 0 || back.length > MOST_VALUES) return undefined;
  return async () => {
    for (const b of back) await updateDevices(b);
  };
}

function groupsBack(before: Device[], group: string, add: boolean): BulkUpdate[] {
  const ids = before.filter((d) => d.groups.includes(group) !== add).map((d) => d.id);
  if (ids.length === 0) return [];
  return [add ? { ids, drop_groups: [group] } : { ids, add_groups: [group] }];
}

function tagsBack(before: Device[], key: string, value: string | null): BulkUpdate[] {
  const byOld = new Map<string | null, string[]>();
  for (const d of before) {
    const old = d.tags[key] ?? null;
    if (old !== value) byOld.set(old, [...(byOld.get(old) ?? []), d.id]);
  }
  return [...byOld].map(([old, ids]) => ({ ids, tags: { [key]: old } }));
}

function followTask(t: TaskBody, title: string, undo?: () => Promise<unknown>): void {
  follow(title, t, () => getTask(t.id), () => cancelTask(t.id), (now, stopped) => {
    const over = !["queued", "running"].includes(now.state);
    const failed = now.state === "failed" || now.state === "timed_out";
    return { over, failed, done: now.done, total: now.total, said: now.state === "cancelled" ? (stopped ? "" : "cancelled") : now.error?.detail ?? "", undo };
  });
}

function followJob(j: JobBody, title: string): void {
  follow(title, j, () => getJob(j.id), () => abortJob(j.id), (now, stopped) => {
    const n = now.counts;
    const bad = [[n.failed, "failed"], [n.expired, "expired"], [n.cancelled, "cancelled"]].filter(([k]) => k).map(([k, w]) => `${k} ${w}`).join(", ");
    const by = stopped ? "" : now.reason;
    return { over: now.state === "done" || now.state === "aborted", failed: now.state === "aborted", done: now.total - n.pending - n.running - n.cancelled, total: now.total, said: [by, bad].filter(Boolean).join(": ") };
  });
}

interface Look {
  over: boolean;
  failed: boolean;
  done: number;
  total: number;
  said: string;
  undo?: (() => Promise<unknown>) | undefined;
}

/** Looks at something from time to time until it is over or another work took its place. */
function follow<T>(title: string, first: T, read: () => Promise<T>, cancel: () => Promise<unknown>, look: (now: T, stopped: boolean) => Look): void {
  let mine: Work;
  let stopped = false;
  const stop = async () => {
    await cancel();
    stopped = true;
  };
  const show = (now: T) => {
    const { over, failed, done, total, said, undo } = look(now, stopped);
    mine = { title, state: over && stopped && done < total ? "stopped" : failed ? "failed" : over ? "done" : "running", done, total, said, ...(!over && { cancel: stop }), ...(over && !failed && undo && { undo }) };
    work.value = mine;
    return over;
  };
  const next = (misses: number) => setTimeout(async () => {
    if (work.peek() !== mine) return;
    try {
      const now = await read();
      if (work.peek() === mine && !show(now)) next(0);
    } catch (e) {
      if (misses < FORGIVES) return next(misses + 1);
      mine = { ...mine, state: "failed", said: message(e) };
      work.value = mine;
    }
  }, POLL_MS);
  if (!show(first)) next(0);
}
