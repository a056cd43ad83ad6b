// What the server says of itself, and what of that needs a person.

import { bytes, count, plural } from "./format";

const T = {
  notReady: "The server is not ready: /readyz says why.",
  storeDown: "The database does not take data. What comes in waits in the log.",
  logFill: (part: number) => `The log is ${Math.round(part * 100)} % full of what is not stored yet.`,
  loop: (s: Service) => `The loop ${s.name} does not run${s.last_error ? `: ${s.last_error}` : "."}`,
  intake: (kind: string) => `What devices say as ${kind} cannot be kept just now.`,
  away: "Notifications wait: their store is away.",
  breaker: (q: Breaker) => `The breaker of ${q.name} is ${q.breaker}.`,
  dead: (c: Channel) => `${plural(c.dead, "delivery", "deliveries")} by ${c.name} given up.`,
  audit: (n: number) => `The audit log is broken in ${plural(n, "place", "places")}: muster doctor names them.`,
};

export interface Service { name: string; running: boolean; restarts: number; last_error?: string }
export interface Channel { name: string; slots: number; running: number; queued: number; sending: number; dead: number; oldest_seconds: number; attempts: number; delivered: number; failed: number; refused: number }
export interface Breaker { name: string; breaker: string; failures: number; open_until: string }
export interface Intake { kind: string; failing: boolean; received: number; stored: number; rejected: number; dropped: number; queued: number }
export interface Timing { count: number; p50_ms: number; p99_ms: number }
export interface Kind { kind: string; running: number; queued: number; concurrency: number; queue: number; states: Record<string, number> }
export interface Node { id: string; host: string; started_at: string; go: string; os: string; arch: string; cpus: number; goroutines: number; heap_bytes: number; held_bytes: number }
export interface Counters { connections: Record<"mqtt" | "websocket" | "sse" | "total", number>; messages: { received: number; sent: number }; rates: { received: number; sent: number }; id?: string; name?: string }

/** The sections that the page lays out by hand; what else there is, is shown as it is. */
export interface Sections {
  server: { ready: boolean; started_at: string; version: string };
  nodes: Node[];
  database: { engine: string; version?: string; timescale?: string; licence?: string; hypertable: boolean; bytes: number; down: boolean };
  timings: Partial<Record<"log" | "store", Timing>>;
  ingest: { store_down: boolean; unstored_bytes: number; log_fill: number; ack_level: string; ledger: Record<string, number> };
  intake: Intake[];
  broker: Record<string, number>;
  services: Service[];
  caches: Record<string, { hits: number; misses: number; evictions: number; entries: number; hit_ratio: number }>;
  tasks: { kinds: Kind[]; kept: number; panics: number; file_bytes: number; memory_bytes: number };
  notifications: { store_away: boolean; channels: Channel[]; queues: Breaker[] };
  counters: { total: Counters; accounts: Counters[] | null; stored: { total: number; rate: number } };
  audit: { sealed: number; signed_from: number; broken: number };
  [name: string]: unknown;
}

/** What the page has no table of its own for. */
export const OTHER = ["live", "twins", "commands", "events", "erasures", "idempotency"] as const;

export interface Trouble { tone: "crit" | "warn"; words: string }

/** What of a server needs a person, the worst first. */
export function troubles(s: Sections): Trouble[] {
  const out: Trouble[] = [];
  const add = (tone: Trouble["tone"], is: boolean, words: () => string) => is && out.push({ tone, words: words() });
  add("crit", !s.server.ready, () => T.notReady);
  add("crit", s.database.down, () => T.storeDown);
  add("crit", s.audit.broken > 0, () => T.audit(s.audit.broken));
  s.services.forEach((x) => add("crit", !x.running, () => T.loop(x)));
  s.intake.forEach((x) => add("crit", x.failing, () => T.intake(x.kind)));
  add("warn", s.ingest.log_fill > 0.5, () => T.logFill(s.ingest.log_fill));
  add("warn", s.notifications.store_away, () => T.away);
  s.notifications.queues.forEach((q) => add("warn", true, () => T.breaker(q)));
  s.notifications.channels.forEach((c) => add("warn", c.dead > 0, () => T.dead(c)));
  return out;
}

/** The diagnostics that somebody may pass on: without the names of people and keys. */
export function diagnostics(version: string, time: string, sections: Sections, page: object): string {
  const { counters, nodes, ...rest } = sections;
  const { accounts, ...sums } = counters;
  const shown = { ...rest, nodes: nodes.map(({ host: _, ...n }) => n), counters: { ...sums, accounts: accounts?.length ?? 0 } };
  return JSON.stringify({ version, time, page, sections: shown }, null, 2);
}

/** A figure of a section, by what its name says it is. */
export function figure(name: string, v: unknown): string {
  if (typeof v === "number") return name.endsWith("bytes") ? bytes(v) : name.endsWith("ratio") ? `${Math.round(v * 100)} %` : count(v);
  if (typeof v === "boolean") return v ? "yes" : "no";
  return typeof v === "string" ? v : JSON.stringify(v);
}

export function words(name: string): string {
  return name.replaceAll("_", " ");
}
