// What one does with notifications: seen, read, acknowledged. It shows at once, goes
// out by the socket, and is taken back when the server says otherwise.

import { message } from "./api";
import { entryOf, shown, trouble, type Entry } from "./inbox";
import { command, CommandError } from "./live";
import { markNotifications } from "./schema.gen";

type State = "seen" | "read" | "acked";

interface Job {
  state: State;
  note: string;
  ids: Set<string>;
}

const MOST = 1000; // in one command
const BURST = 5; // commands at once,
const REFILL_MS = 600; // and one more in so long: the server takes 30 in 10 s, of all kinds

const T = {
  missing: (n: number) => (n === 1 ? "That notification is not in your inbox any more." : `${n} notifications are not in your inbox any more.`),
  failed: (what: string, why: string) => `${what} did not reach the server: ${why}`,
  what: { seen: "That it was seen", read: "That it was read", acked: "The acknowledgement" },
};

const jobs: Job[] = [];
let busy = false;
let spent = 0; // when the burst is whole again, in ms

/** Marks notifications of one's own inbox; many at once become few commands. */
export function mark(ids: readonly string[], state: State, note = ""): void {
  if (ids.length === 0) return;
  trouble.value = "";
  if (state !== "seen") for (const id of ids) wish(id, (e) => ({ ...e, wish: { state, note } }));
  let job = jobs.find((j) => j.state === state && j.note === note && j.ids.size + ids.length <= MOST);
  if (!job) {
    job = { state, note, ids: new Set() };
    if (state === "acked") jobs.unshift(job); // before what only tells that somebody looked
    else jobs.push(job);
  }
  for (const id of ids) job.ids.add(id);
  if (!busy) void work();
}

function wish(id: string, change: (e: Entry) => Entry): void {
  const e = entryOf(id);
  if (e) e.value = change(e.peek());
}

async function work(): Promise<void> {
  busy = true;
  while (jobs.length > 0) {
    const wait = spent - Date.now() - (BURST - 1) * REFILL_MS;
    if (wait > 0) await new Promise((r) => setTimeout(r, wait));
    spent = Math.max(spent, Date.now()) + REFILL_MS;
    await run(jobs.shift()!);
  }
  busy = false;
}

async function run({ state, note, ids }: Job): Promise<void> {
  const all = [...ids];
  try {
    const missing = new Set(await send(all, state, note));
    for (const id of all) wish(id, (e) => done(e, state, missing.has(id)));
    if (missing.size > 0 && state !== "seen") trouble.value = T.missing(missing.size);
  } catch (e) {
    for (const id of all) wish(id, (e) => done(e, state, true));
    if (state !== "seen") trouble.value = T.failed(T.what[state], message(e));
  }
}

/** The item after the answer: what was asked for is so, or is taken back. */
function done(e: Entry, state: State, refused: boolean): Entry {
  if (e.wish?.state !== state) return e; // more was asked for since
  return { item: refused ? e.item : shown(e), wish: null };
}

/** Sends by the socket, and by the API when nobody knows what became of that: marking
 * twice is marking once. It gives the ids that are not in the inbox. */
async function send(ids: string[], state: State, note: string): Promise<string[]> {
  const extra = note ? { note } : {};
  try {
    const ok = await command({ t: "ack", n: ids, state, ...extra });
    return (ok["missing"] as string[] | undefined) ?? [];
  } catch (e) {
    if (!(e instanceof CommandError) || e.code !== "lost") throw e;
  }
  return (await markNotifications({ ids, state, ...extra })).missing;
}
