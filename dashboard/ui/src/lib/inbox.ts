// One's own inbox: its figures for every page, the list that is shown, and what
// becomes of both, as the live channel tells it. Items are kept only while a list
// or one of them is shown.

import { batch, computed, effect, signal, untracked, type Signal } from "@preact/signals";
import { ApiError, message } from "./api";
import { serverNow } from "./clock";
import { isLive, renew, subscribe, type Frame } from "./live";
import { getNotification, listInbox, type InboxCounts, type InboxItem, type Notification, type Receipt } from "./schema.gen";
import { me, session } from "./session";

/** Which notifications the list shows. */
export type Show = "open" | "unread" | "all";

/** What was asked for and is not answered yet. */
export interface Wish {
  state: "read" | "acked";
  note: string;
}

/** An item as the server last told it, and what is asked to become of it. */
export interface Entry {
  item: InboxItem;
  wish: Wish | null;
}

const PAGE = 50;
const MOST = 2_000; // items of one list; older ones are not asked for
const FRESH_MS = 60_000; // what is older is no news, but was missed
const NEAR_TOP = 200; // px of scrolling within which the top of the list is in sight
const URGENT = 20; // announced ones that are remembered
const RANK: Record<Receipt["state"], number> = { sent: 0, delivered: 1, seen: 2, read: 3, acked: 4 };

/** How many are unread and open; null while nobody knows, or who is signed in has no inbox. */
export const counts = signal<InboxCounts | null>(null);
/** Urgent ones that came while the page was open and nobody looked at, newest first. */
export const urgent = signal<Notification[]>([]);
/** The newest that came, for whoever listens to the page. */
export const news = signal<Notification | null>(null);
/** What went wrong with what was asked for. */
export const trouble = signal("");

const entries = new Map<string, Signal<Entry>>();
let place = ""; // epoch and seq of the last frame

/** The list that is shown. */
export interface View {
  show: Show;
  topic: string;
  order: string[];
  next: string; // cursor of the page after; empty at the end
  loading: boolean;
  fault: string;
}

export const view = signal<View | null>(null);
/** New ones that wait, since putting them in would move what the pointer is on. */
export const held = signal<string[]>([]);

/** Whether the list may not move now. */
let steady = false;

/** The item as the page shows it: with what was asked for, as if it were so. */
export function shown({ item, wish }: Entry): InboxItem {
  const r = item.receipt;
  if (!wish || RANK[wish.state] <= RANK[r.state]) return item;
  const at = new Date(serverNow()).toISOString();
  if (wish.state === "read") return { ...item, receipt: { ...r, state: "read", read_at: at } };
  return { notification: acknowledged(item.notification, at, wish.note), receipt: { ...r, state: "acked", acked_at: at, ...(wish.note && { note: wish.note }) } };
}

function acknowledged(n: Notification, at: string, note: string): Notification {
  if (n.state !== "open" || n.ack_policy !== "any") return n; // all: others have to, too
  return { ...n, state: "acked", acks: n.acks + 1, acked_at: at, acked_by: me.peek()?.name ?? "", ...(note && { ack_note: note }) };
}

/** Whether who is signed in is still to acknowledge it. */
export function wantsAck({ notification: n, receipt: r }: InboxItem): boolean {
  return n.state === "open" && n.ack_policy !== "none" && r.state !== "acked";
}

export function isUnread(r: Receipt): boolean {
  return RANK[r.state] < RANK.read;
}

export function isUnseen(r: Receipt): boolean {
  return RANK[r.state] < RANK.seen;
}

export function entryOf(id: string): Signal<Entry> | undefined {
  return entries.get(id);
}

/** How many of the list are no longer what it is a list of. */
export const settled = computed(() => {
  const v = view.value;
  if (!v || v.show === "all") return 0;
  return v.order.filter((id) => {
    const e = entries.get(id)?.value;
    return e && !fits(shown(e), v);
  }).length;
});

function fits(it: InboxItem, v: View): boolean {
  if (v.topic && it.notification.topic !== v.topic) return false;
  if (v.show === "unread") return isUnread(it.receipt);
  return v.show === "all" || (it.notification.state === "open" && it.notification.ack_policy !== "none");
}

/** Follows the inbox of who is signed in; called once. */
export function startInbox(): void {
  let stop = () => {};
  const whose = computed(() => (session.value === "in" ? me.value?.user?.id ?? "" : ""));
  effect(() => {
    const user = whose.value;
    untracked(() => {
      stop();
      stop = () => {};
      place = "";
      entries.clear();
      batch(() => {
        counts.value = view.value = news.value = null;
        urgent.value = [];
      });
      if (user && isLive()) renew(); // it was nobody's, or somebody else's
      if (user) stop = subscribe("inbox", () => (place ? { after: place } : { limit: 1 }), { snapshot, event });
    });
  });
}

let epoch = "";

function snapshot(f: Frame): void {
  epoch = String(f["epoch"]);
  const anew = place === "" || f["items"] !== undefined;
  place = `${epoch}-${f.seq}`;
  count(f);
  const v = view.peek();
  const other = f["reason"] !== undefined; // another database: nothing of before is true
  if (other) entries.clear();
  if (anew && v) void openView(v.show, v.topic, other ? [] : v.order);
}

function event(f: Frame): void {
  if (f.t === "counts") return count(f);
  place = `${epoch}-${f.seq}`;
  const it = f["ev"] as InboxItem;
  const known = take(it);
  const v = view.peek();
  const lists = !known && v !== null && fits(it, v);
  announce(it, lists && !steady && !document.hidden && scrollY < NEAR_TOP);
  if (!lists) return;
  keep(it);
  if (steady) held.value = [it.notification.id, ...held.peek()];
  else add([it.notification.id]);
}

function count(f: Frame): void {
  counts.value = { unread: Number(f["unread"]), open: Number(f["open"]) };
}

/** Takes what the server says of an item that is kept; false when it is not. */
function take(it: InboxItem): boolean {
  const e = entries.get(it.notification.id);
  if (!e) return false;
  const had = e.peek();
  if (it.receipt.seq < had.item.receipt.seq || it.notification.version < had.item.notification.version) return true; // older news
  const over = had.wish && RANK[it.receipt.state] >= RANK[had.wish.state];
  e.value = { item: it, wish: over ? null : had.wish };
  return true;
}

function keep(it: InboxItem): void {
  if (!take(it)) entries.set(it.notification.id, signal<Entry>({ item: it, wish: null }));
}

/** Says aloud what is new, unless it is in sight anyway, and takes back what somebody
 * has looked at. */
function announce({ notification: n, receipt: r }: InboxItem, inSight: boolean): void {
  const others = urgent.peek().filter((u) => u.id !== n.id);
  const told = urgent.peek().find((u) => u.id === n.id);
  const fresh = serverNow() - Date.parse(n.created_at) < FRESH_MS;
  const calls = n.priority === "urgent" && n.state === "open" && (told ? isUnread(r) : isUnseen(r) && !inSight && (fresh || RANK[r.state] === 0));
  if (calls && (!told || n.count > told.count)) urgent.value = [n, ...others].slice(0, URGENT);
  if (!calls && told) urgent.value = others;
  if (isUnseen(r) && n.state === "open" && fresh) news.value = n;
}

/** Puts the urgent ones away; they stay in the inbox. */
export function calm(): void {
  urgent.value = [];
}

/** Shows the list anew; order is what of it is known. */
export async function openView(show: Show, topic: string, order: string[] = []): Promise<void> {
  const v: View = { show, topic, order, next: "", loading: true, fault: "" };
  batch(() => {
    view.value = v;
    held.value = [];
  });
  await load(v, "");
}

/** Puts the page after below. */
export async function older(): Promise<void> {
  const v = view.peek();
  if (!v?.next || v.loading) return;
  const more = { ...v, loading: true };
  view.value = more;
  await load(more, v.next);
}

async function load(v: View, cursor: string): Promise<void> {
  const query = { limit: PAGE, ...(v.topic && { topic: v.topic }), ...(v.show === "unread" && { unread: true }), ...(v.show === "open" && { unacked: true }), ...(cursor && { after: cursor }) };
  let change: Partial<View>;
  const before = [...entries.keys()];
  try {
    const page = await listInbox(query);
    if (current() !== v) return;
    if (!cursor) forget(before, page.items);
    page.items.forEach(keep);
    const order = join(view.peek()!.order, page.items.map((it) => it.notification.id));
    change = { order, next: order.length < MOST ? page.next ?? "" : "", loading: false };
  } catch (e) {
    if (current() !== v || (e instanceof ApiError && e.status === 401)) return;
    change = { loading: false, fault: message(e) };
  }
  update(change);
}

/** The load that is under way: update makes a new View for the same one. */
const origin = new WeakMap<View, View>();

function current(): View | null {
  const v = view.peek();
  return v && (origin.get(v) ?? v);
}

function update(change: Partial<View>): void {
  const v = view.peek()!;
  const next = { ...v, ...change };
  origin.set(next, origin.get(v) ?? v);
  view.value = next;
}

/** Drops what was kept for the list before, but for what is asked for or came meanwhile. */
function forget(before: string[], items: InboxItem[]): void {
  const stay = new Set([...items.map((it) => it.notification.id), ...view.peek()!.order, opened]);
  for (const id of before) if (!stay.has(id) && !entries.get(id)?.peek().wish) entries.delete(id);
}

/** Both without doubles, newest first: ids grow with time. */
function join(a: string[], b: string[]): string[] {
  return [...new Set([...a, ...b])].sort((x, y) => (x < y ? 1 : -1));
}

function add(ids: string[]): void {
  const v = view.peek();
  if (v) update({ order: join(v.order, ids).slice(0, MOST) });
}

/** Lets the list move, or not. */
export function hold(on: boolean): void {
  steady = on;
  if (!on && held.peek().length > 0) showHeld();
}

/** Puts in what waited. */
export function showHeld(): void {
  batch(() => {
    add(held.peek());
    held.value = [];
  });
}

export function leaveView(): void {
  view.value = null;
  held.value = [];
  steady = false;
  for (const id of [...entries.keys()]) if (id !== opened && !entries.get(id)!.peek().wish) entries.delete(id);
}

let opened = ""; // kept beside the list

/** Gets one item, also when it is not in the list. It throws what getNotification throws;
 * null says that it is not in one's own inbox. */
export async function openItem(id: string, stop: AbortSignal): Promise<Signal<Entry> | null> {
  opened = id;
  const have = entries.get(id);
  if (have) return have;
  const { notification, receipt } = await getNotification(id, stop);
  if (!receipt) return null;
  keep({ notification, receipt });
  return entries.get(id)!;
}

export function closeItem(): void {
  opened = "";
}
