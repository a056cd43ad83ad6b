// The live connection: one WebSocket to /api/v1/live, subprotocol muster.v1, or a stream
// where none gets through. It says honestly how live the page is, reconnects with full
// jitter, and brings every subscription back by itself.

import { batch, signal } from "@preact/signals";
import { askedBy, delayOf } from "./backoff";
import { serverNow, setServerTime } from "./clock";
import { getMe } from "./schema.gen";
import { me, session } from "./session";
import { openSocket, openStream, type Wire } from "./wire";

const PING_MS = 15_000;
const PONG_MS = 10_000; // without an answer for so long the connection is dead
const WELCOME_MS = 10_000;
const BACK_MS = 60_000; // between two looks whether a WebSocket gets through by now
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
/** Whether the connection is a stream, because no WebSocket gets through. */
export const streamed = signal(false);
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
let wire: Wire | null = null;
let trying: Wire | null = null; // a WebSocket that may take the place of a stream
let parting = false; // the server said bye
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
let backTimer = 0;

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
  addEventListener("online", () => {
    retryNow();
    lookForASocket();
  });
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
  wire?.close();
}

function connect(): void {
  clearTimeout(retryTimer);
  link.value = { kind: "connecting", since: lastLive };
  dial(streamed.peek());
}

/** Opens a connection. A beside takes the place of the one there is once it is welcomed. */
function dial(stream: boolean, beside = false): void {
  let patience = 0;
  const w: Wire = (stream ? openStream : openSocket)({
    opened: () => w.send({ t: "hello", id: nextID++ }),
    message: (data) => {
      if (trying === w && typeof data === "string" && data.includes('"welcome"')) takeOver(w);
      if (wire !== w) return;
      if (!receive(data)) w.close();
      else if (open) clearTimeout(patience);
    },
    closed: (code) => {
      clearTimeout(patience);
      if (trying === w) trying = null;
      if (wire === w) closed(code);
    },
  });
  patience = window.setTimeout(() => w.close(), WELCOME_MS);
  if (beside) trying = w;
  else wire = w;
}

/** Tries a WebSocket beside the stream that is there. */
function lookForASocket(): void {
  if (open && wire?.stream && !trying) dial(false, true);
}

/** Gives up the stream for a WebSocket that got through. */
function takeOver(w: Wire): void {
  const old = wire;
  trying = null;
  wire = w;
  down();
  old?.close();
}

/** Ends what belongs to a connection. */
function down(): void {
  open = false;
  clearInterval(pingTimer);
  clearInterval(backTimer);
  clearTimeout(pongTimer);
  for (const id of [...waiting.keys()]) settle(id, (w) => w.failed(new CommandError("lost", "The connection was lost.")));
}

function closed(code: number): void {
  const was = wire;
  const welcomed = open;
  wire = null;
  down();
  trying?.close();
  trying = null;
  if (was && !was.stream && !welcomed && !parting) return dial(true); // perhaps a proxy refuses WebSockets alone
  streamed.value = welcomed && was !== null && was.stream;
  if (welcomed && Date.now() - openedAt > SETTLED_MS) attempt = 0;
  const delay = delayOf(attempt++, Math.max(hint, askedBy(code)));
  hint = 0;
  parting = false;
  roundTrip.value = -1;
  link.value = { kind: "waiting", since: lastLive, retryAt: serverNow() + delay, why: stopped };
  if (!stopped) retryTimer = window.setTimeout(connect, delay);
  if (!welcomed || stopped) void whoAmI();
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
  wire?.send(m);
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
      parting = true;
      hint = Number(f["retry_ms"] ?? 0);
      if (Number(f["code"]) >= 4500) stopped = String(f["why"] || "the server ended the session");
      wire?.close();
  }
}

function welcomed(f: Frame): void {
  open = true;
  streamed.value = wire?.stream ?? false;
  openedAt = Date.now();
  setServerTime(Number(f["time"]));
  welcome.value = { version: String(f["version"] ?? ""), mqtt_port: Number(f["mqtt_port"] ?? 0) };
  link.value = { kind: "live" };
  if (document.hidden || paused.peek()) tellVisible();
  for (const s of subs.values()) sendSub(s);
  ping();
  pingTimer = window.setInterval(ping, PING_MS);
  if (streamed.peek()) backTimer = window.setInterval(lookForASocket, BACK_MS);
}

function ping(): void {
  const w = wire;
  send({ t: "ping", id: nextID++, ts: Math.round(performance.now()) });
  clearTimeout(pongTimer);
  pongTimer = window.setTimeout(() => w?.close(), PONG_MS);
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
