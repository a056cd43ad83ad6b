// What the live protocol muster.v1 says. Times are integer milliseconds. The shapes of the
// HTTP API are in schema.gen.ts.

import type { Ledger } from "./schema.gen";

export type Presence = "online" | "quiet" | "offline" | "never" | "unknown";
/** The one word for how a device is: its presence, or that it updates while it is connected. */
export type Status = Presence | "updating";
export type Value = number | boolean | string | null | object;

export interface Fleet {
  total: number;
  counts: Record<Presence, number> & { updating?: number };
  rates: { received: number; stored: number };
  queued: number;
  log_bytes: number; // of what is queued
  store: "ok" | "down";
  storing?: { batches: number; p99_ms: number }; // of the last minute
  commands?: { ended: number; acked: number }; // of the last hour
  change?: Change; // of servers that compare
}

/** How the fleet is beside an hour ago. */
export interface Change {
  since: number;
  counts: Record<Presence, number>; // now, less then, of the devices that were there then
  silent: number; // offline or quiet now, and online at some time since
  cause?: Cause;
}

/** What most of those that went silent have in common. */
export interface Cause {
  kind: "gateway" | "group" | "firmware";
  name: string;
  state: "offline" | "quiet" | "";
  devices: number;
  together: number; // within the minute that began at at
  at: number;
}

export interface DeviceRow {
  id: string;
  name: string;
  state: Presence;
  status?: Status; // of servers that tell it
  since: number;
  last_seen: number;
  reason: string;
  parent?: string;
  profile?: string;
  firmware?: string;
  groups?: string[];
  tags?: Record<string, string>;
  values: Record<string, [Value, number]>;
}

export interface Connection {
  peer: string;
  client_id: string;
  protocol: string | number;
  transport: string;
  keep_alive_s: number;
  since: number;
}

export interface Latest {
  v: Value;
  time: number;
  arrival: number;
}

export interface DeviceItem {
  id: string;
  name: string;
  created_at: number;
  state: Presence;
  status?: Status; // of servers that tell it
  since: number;
  last_seen: number;
  reason: string;
  connection: Connection | null;
  ledger: Ledger;
  values: Record<string, Latest>;
}
