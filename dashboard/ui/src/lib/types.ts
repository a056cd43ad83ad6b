// What the server says: the shapes of the HTTP API and of the live protocol
// muster.v1. Times are integer milliseconds unless they are RFC 3339 strings.

export type Presence = "online" | "quiet" | "offline" | "never" | "unknown";
export type Value = number | boolean | string | null | object;

export interface Fleet {
  total: number;
  counts: Record<Presence, number>;
  rates: { received: number; stored: number };
  queued: number;
  log_bytes: number; // of what is queued
  store: "ok" | "down";
}

export interface DeviceRow {
  id: string;
  name: string;
  state: Presence;
  since: number;
  last_seen: number;
  reason: string;
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

export interface Ledger {
  received: number;
  recovered: number;
  stored: number;
  duplicate: number;
  replaced: number;
  rejected: number;
  dropped: number;
  queued: number;
}

/** What a device's MQTT sessions hold for it, and what they have lost. */
export interface Sessions {
  sessions: number;
  queued: number;
  inflight: number;
  backlog: number; // bytes
  dropped: number;
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
  since: number;
  last_seen: number;
  reason: string;
  connection: Connection | null;
  ledger: Ledger;
  values: Record<string, Latest>;
}

export interface Me {
  name?: string;
  role?: string; // of a session; an API key has none
  scopes?: string[];
  user?: User;
  setup?: boolean; // the session of the set-up link, nobody's yet
}

export type Role = "viewer" | "operator" | "admin";

/** A user; who is no admin sees of others id, name and role only. */
export interface User {
  id: string;
  name: string;
  role: Role;
  email?: string;
  confirmed?: boolean;
  disabled?: boolean;
  has_password?: boolean;
  second_factor?: boolean;
  external?: boolean;
  created_at?: string;
  last_login_at?: string;
}

export interface Session {
  id: string;
  user?: string;
  role: Role;
  address: string;
  agent: string;
  current: boolean;
  created_at: string;
  last_seen_at: string;
}

export interface APIKey {
  id: string;
  name: string;
  scopes: string[];
  selector?: string;
  owner?: string;
  created_at: string;
  expires_at: string | null;
  last_used: string | null;
}

/** How one can sign in besides e-mail and password. */
export interface Methods {
  mail: boolean;
  provider?: { name: string; start: string };
}

export interface Credential {
  id: string;
  kind: "token" | "secret";
  token?: string;
  username: string;
  password?: string;
}

export interface Created {
  device: { id: string; name: string };
  credential: Credential;
}

export interface Reading {
  time: string;
  values: Record<string, Value>;
}

export interface Page<T> {
  items: T[];
  next?: string;
}

export interface RejectedMessage {
  time: string;
  topic: string;
  code: string;
  reason: string;
  payload: string;
  payload_text?: string;
  size: number;
}
