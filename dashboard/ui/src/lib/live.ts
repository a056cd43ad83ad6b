// The live connection: one WebSocket to /api/v1/live, subprotocol muster.v1. It
// says honestly how live the page is, reconnects with full jitter, and brings
// every subscription back by itself.

import { batch, signal } from "@preact/signals";
import { serverNow, setServerTime } from "./clock";
import { getMe } from "./schema.gen";
import { me, session } from "./session";

const PING_MS = 15_000;
const PONG_MS = 10_000; // without an answer for so long the connection is dead
const WELCOME_MS = 10_000;
const BACKOFF_MS = 500;
const BACKOFF_MAX_MS = 30_000;
const SETTLED_MS = 5_000; // a connection that lasted so long starts the backoff anew
const RESYNC_MS = 5_000; // at most one resubscription in so long after gaps
const ANSWER_MS = 10_000; // a command without an answer for so long has failed

/** How often the server sends when nothing slows it down. */
export const FULL_HZ = 5;

export type Link =
  | { kind: "connecting"; since: number }
  | { kind: "live" }
  | { kind: "slow"; hz: number; why: string }
  | { kind: "waiting"; since: number; retryAt: number; why: string };

export interface Welcome {
  version: string;
  mqtt_port: number;
}

/** The state of the connection. since is when the page was last live. */
export const link = signal<Link>({ kind: "connecting", since: serverNow() });
/** The last measured round trip in ms, -1 before the first. */
export const roundTrip = signal(-1);
export const welcome = signal<Welcome | null>(null);
/** Whether the reader wants what is live to stand still. */
export const paused = signal(false);

/** Has what is live stand still, or go on. The inbox goes on. */
export function pause(on: boolean): void {
  paused.value = on;
  tellVisible();
}

function tellVisible(): void {
  if (open) send({ t: "vis", on: !document.hidden && !paused.peek() });
}

export function isLive(): boolean {
  const k = link.value.kind;
  return k === "live" || k === "slow";
}

/** Any frame of the server; t says which. */
export interface Frame {
  t: string;
  re?: number;
  ch?: string;
  seq?: number;
  [field: string]: unknown;
}

/** What follows a channel: delta that of a state channel, event that of a log channel
 * (events and whatever else comes of it). */
export interface Handler {
  snapshot(f: Frame): void;
  delta?(f: Frame): void;
  event?(f: Frame): void;
  binary?(data: ArrayBuffer): void;
  refused?(code: string, detail: string): void;
}

/** The parameters of a sub command. A function is asked each time, and can say from
 * where a log channel goes on. */
export type Params = Record<string, unknown> | (() => Record<string, unknown>);

/** A refusal of a command; code is "lost" when nobody knows what became of it. */
export class CommandError extends Error {
  constructor(readonly code: string, detail: string) {
    super(detail);
  }
}

interface Waiting {
  done: (f: Frame) => void;
  failed: (e: CommandError) => void;
  timer: number;
}

interface Sub {
  ch: string;
  params: Params;
  on: Handler;
  id: number; // of the sub command that is in force
  seq: number; // of the last frame, -1 before the snapshot
  resynced: number;
}

const subs = new Map<string, Sub>();
const waiting = new Map<number, Waiting>();
let socket: WebSocket | null = null;
let open = false; // welcomed
let openedAt = 0;
let lastLive = serverNow();
let attempt = 0;
let hint = 0; // the server's wish for the next delay, in ms
let stopped = ""; // why the server does not want us back
let nextID = 1;
let retryTimer = 0;
let pingTimer = 0;
let pongTimer = 0;

/** Shows a channel to on until the returned function is called. A second
 * subscription to the same channel takes its place. */
export function subscribe(ch: string, params: Params, on: Handler): () => void {
  const sub: Sub = { ch, params, on, id: 0, seq: -1, resynced: 0 };
  subs.set(ch, sub);
  if (open) sendSub(sub);
  return () => {
    if (subs.get(ch) !== sub) return;
    subs.delete(ch);
    // A new view of the channel usually follows at once, and replaces this one.
    queueMicrotask(() => {
      if (open && !subs.has(ch)) send({ t: "unsub", id: nextID++, ch });
    });
  };
}

/** Sends a command and gives its answer. It throws a CommandError when the server
 * refuses, does not answer, or is not connected. */
export function command(m: { t: string; [field: string]: unknown }): Promise<Frame> {
  return new Promise((done, failed) => {
    if (!open) return failed(new CommandError("lost", "The page is not connected."));
    const id = nextID++;
    const timer = window.setTimeout(() => settle(id, (w) => w.failed(new CommandError("lost", "The server did not answer."))), ANSWER_MS);
    waiting.set(id, { done, failed, timer });
    send({ ...m, id });
  });
}

function settle(id: number | undefined, how: (w: Waiting) => void): void {
  const w = waiting.get(id ?? 0);
  if (!w) return;
  waiting.delete(id ?? 0);
  clearTimeout(w.timer);
  how(w);
}

/** Connects and stays connected; called once, when signed in. */
export function startLive(): void {
  document.addEventListener("visibilitychange", tellVisible);
  addEventListener("online", () => retryNow());
  connect();
}

/** Connects at once instead of at the next attempt. */
export function retryNow(): void {
  if (link.value.kind !== "waiting") return;
  stopped = "";
  connect();
}

/** Connects anew, as whoever is signed in now: a connection stays that of who made it. */
export function renew(): void {
  attempt = 0;
  socket?.close();
}

function connect(): void {
  clearTimeout(retryTimer);
  link.value = { kind: "connecting", since: lastLive };
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const ws = new WebSocket(`${scheme}//${location.host}/api/v1/live`, "muster.v1");
  ws.binaryType = "arraybuffer";
  socket = ws;
  const patience = setTimeout(() => ws.close(), WELCOME_MS);
  ws.onopen = () => send({ t: "hello", id: nextID++ });
  ws.onmessage = (e) => {
    if (socket !== ws) return;
    if (!receive(e.data)) ws.close();
    else if (open) clearTimeout(patience);
  };
  ws.onclose = () => {
    clearTimeout(patience);
    if (socket === ws) void closed();
  };
}

async function closed(): Promise<void> {
  const welcomed = open;
  socket = null;
  open = false;
  clearInterval(pingTimer);
  clearTimeout(pongTimer);
  for (const id of [...waiting.keys()]) settle(id, (w) => w.failed(new CommandError("lost", "The connection was lost.")));
  if (welcomed && Date.now() - openedAt > SETTLED_MS) attempt = 0;
  const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** attempt++);
  const delay = Math.max(hint, Math.random() * ceiling);
  hint = 0;
  roundTrip.value = -1;
  link.value = { kind: "waiting", since: lastLive, retryAt: serverNow() + delay, why: stopped };
  if (!stopped) retryTimer = window.setTimeout(connect, delay);
  if (!welcomed || stopped) await whoAmI();
}

/** A refused upgrade does not say why; the API does. */
async function whoAmI(): Promise<void> {
  try {
    me.value = await getMe();
  } catch {
    // 401 shows the sign-in page; anything else is what the link already says
  }
  if (session.value === "out") clearTimeout(retryTimer);
}

function send(m: Record<string, unknown>): void {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(m));
}

function sendSub(s: Sub): void {
  s.id = nextID++;
  s.seq = -1;
  send({ t: "sub", id: s.id, ch: s.ch, ...(typeof s.params === "function" ? s.params() : s.params) });
}

/** Takes one message, a frame or an array of them; false when it is neither. */
function receive(data: unknown): boolean {
  if (data instanceof ArrayBuffer) {
    subs.get("dots")?.on.binary?.(data); // no other channel has any
    return true;
  }
  if (typeof data !== "string") return false;
  let parsed: unknown;
  try {
    parsed = JSON.parse(data);
  } catch {
    return false;
  }
  const frames = (Array.isArray(parsed) ? parsed : [parsed]) as Frame[];
  lastLive = serverNow();
  batch(() => frames.forEach(take));
  return true;
}

function take(f: Frame): void {
  switch (f.t) {
    case "welcome":
      return welcomed(f);
    case "snapshot":
    case "delta":
      return forward(f);
    case "event":
    case "counts":
      return subs.get(f.ch ?? "")?.on.event?.(f);
    case "ok":
      return settle(f.re, (w) => w.done(f));
    case "pong":
      clearTimeout(pongTimer);
      roundTrip.value = Math.max(0, Math.round(performance.now() - Number(f["ts"])));
      return;
    case "rate": {
      const hz = Number(f["hz"]);
      link.value = hz < FULL_HZ ? { kind: "slow", hz, why: String(f["why"] ?? "") } : { kind: "live" };
      return;
    }
    case "error":
      return refused(f);
    case "bye":
      hint = Number(f["retry_ms"] ?? 0);
      if (Number(f["code"]) >= 4500) stopped = String(f["why"] || "the server ended the session");
      socket?.close();
  }
}

function welcomed(f: Frame): void {
  open = true;
  openedAt = Date.now();
  setServerTime(Number(f["time"]));
  welcome.value = { version: String(f["version"] ?? ""), mqtt_port: Number(f["mqtt_port"] ?? 0) };
  link.value = { kind: "live" };
  if (document.hidden || paused.peek()) tellVisible();
  for (const s of subs.values()) sendSub(s);
  ping();
  pingTimer = window.setInterval(ping, PING_MS);
}

function ping(): void {
  const ws = socket;
  send({ t: "ping", id: nextID++, ts: Math.round(performance.now()) });
  clearTimeout(pongTimer);
  pongTimer = window.setTimeout(() => ws?.close(), PONG_MS);
}

function forward(f: Frame): void {
  const s = subs.get(f.ch ?? "");
  if (!s || (f.re && f.re !== s.id)) return; // of a view that has been replaced
  const seq = f.seq ?? 0;
  if (f.t === "snapshot") {
    s.seq = seq;
    return s.on.snapshot(f);
  }
  if (s.seq < 0) return; // the snapshot is still to come
  const gap = seq !== s.seq + 1;
  s.seq = seq;
  s.on.delta?.(f);
  if (!gap || Date.now() - s.resynced < RESYNC_MS) return;
  s.resynced = Date.now();
  sendSub(s);
}

function refused(f: Frame): void {
  if (f["code"] === "unauthorized") void whoAmI();
  settle(f.re, (w) => w.failed(new CommandError(String(f["code"] ?? ""), String(f["detail"] ?? ""))));
  for (const s of subs.values()) {
    if (s.id === f.re) s.on.refused?.(String(f["code"] ?? ""), String(f["detail"] ?? ""));
  }
}
