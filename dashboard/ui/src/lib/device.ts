// One device as its page shows it: the live item, the points of its numeric keys
// and its rejected messages.

import { signal, untracked } from "@preact/signals";
import { ApiError, call, message } from "./api";
import { serverNow } from "./clock";
import type { Page } from "./list";
import { FULL_HZ, isLive, link, subscribe, type Frame } from "./live";
import { getDevice, listDeviceRejected, type DeviceSessions, type Reading, type Rejected } from "./schema.gen";
import { Series } from "./series";
import type { DeviceItem, Latest } from "./types";

export const RANGES = [
  { key: "15m", ms: 15 * 60_000, words: "15 min" },
  { key: "1h", ms: 3_600_000, words: "1 h" },
  { key: "3h", ms: 3 * 3_600_000, words: "3 h" },
  { key: "24h", ms: 24 * 3_600_000, words: "24 h" },
] as const;
export type Range = (typeof RANGES)[number];

const PAGE = 1000; // readings per request
const PAGES = 20; // requests per range: the newest 20,000 readings are drawn
const REJECTED = 20;
const SESSIONS_MS = 5000; // between looks at the MQTT sessions, which live frames do not carry
const CATCH_UP_MS = 2000; // between looks for readings that live frames left out

export interface History {
  state: "loading" | "done" | "cut" | "failed";
  readings: number;
  from: number; // ms, the oldest reading when the range was cut
  error: string;
}

export class DeviceModel {
  readonly item = signal<DeviceItem | null>(null);
  readonly refused = signal<{ code: string; detail: string } | null>(null);
  readonly range = signal<Range>(RANGES[0]);
  readonly zoom = signal<[number, number] | null>(null);
  /** The numeric keys, in the order of their charts. */
  readonly keys = signal<string[]>([]);
  readonly history = signal<History>({ state: "loading", readings: 0, from: 0, error: "" });
  readonly rejected = signal<Rejected[]>([]);
  /** The MQTT sessions, and when they were looked at, in ms. */
  readonly sessions = signal<{ of: DeviceSessions; at: number } | null>(null);
  /** Counts changes of the points, so that charts redraw. */
  readonly frame = signal(0);
  /** The right edge of the charts in ms: now, or when the page was last live. */
  readonly edge = signal(serverNow());

  private readonly series = new Map<string, Series>();
  private readonly path: string;
  private stop = new AbortController();
  private rejectedSeen = -1;
  private rejectedBusy = false;
  private caught = 0; // ms, the newest reading that came from the API
  private caughtAt = 0;
  private storedSeen = -1;
  private catching = false;
  private sessionsAt = 0; // ms, the last attempt
  private sessionsBusy = false;

  constructor(readonly id: string) {
    this.path = "/devices/" + encodeURIComponent(id);
  }

  /** Follows the device until the returned function is called. */
  follow(): () => void {
    const end = subscribe("device:" + this.id, {}, {
      snapshot: (f) => this.takeSnapshot(f),
      delta: (f) => this.takeDelta(f),
      refused: (code, detail) => {
        this.refused.value = { code, detail };
      },
    });
    return () => {
      end();
      this.stop.abort();
    };
  }

  /** The points of a numeric key. */
  points(key: string): Series {
    let s = this.series.get(key);
    if (!s) {
      s = new Series(key);
      this.series.set(key, s);
    }
    return s;
  }

  /** What the charts show: the zoomed part, or the range up to the edge. */
  window(): [number, number] {
    return this.zoom.value ?? [this.edge.value - this.range.value.ms, this.edge.value];
  }

  show(range: Range): void {
    this.zoom.value = null;
    if (range === this.range.peek()) return;
    this.range.value = range;
    void this.load();
  }

  /** Moves the right edge on; called each second. */
  tick(now: number): void {
    if (!isLive()) return;
    this.edge.value = now;
    for (const s of this.series.values()) s.forget(now - this.range.peek().ms * 1.1);
    void this.catchUp(now);
    void this.fetchSessions(now);
  }

  private takeSnapshot(f: Frame): void {
    const item = f["item"] as DeviceItem | null;
    if (!item) return this.gone();
    this.refused.value = null;
    this.item.value = { ...item, values: item.values ?? {} };
    this.take(this.item.peek()!.values);
    void this.load(); // also after a time without live data: it fills the hole
    this.refreshRejected();
  }

  private takeDelta(f: Frame): void {
    const old = this.item.peek();
    if (f["del"]) return this.gone();
    if (!old) return;
    const set = (f["set"] ?? {}) as Partial<DeviceItem>;
    this.item.value = { ...old, ...set, values: set.values ? { ...old.values, ...set.values } : old.values };
    if (set.values) this.take(set.values);
    this.refreshRejected();
  }

  /** The device has been deleted. */
  private gone(): void {
    this.stop.abort();
    this.refused.value = { code: "not_found", detail: "" };
  }

  private take(values: Record<string, Latest>): void {
    const l = untracked(() => link.value);
    const tick = 1000 / (l.kind === "slow" ? l.hz : FULL_HZ);
    for (const [key, { v, time }] of Object.entries(values)) {
      if (typeof v === "number") this.points(key).add(time, v, tick);
    }
    this.edge.value = Math.max(this.edge.peek(), serverNow());
    this.changed();
  }

  private changed(): void {
    const have = this.keys.peek();
    const more = [...this.series].filter(([k, s]) => s.size > 0 && !have.includes(k)).map(([k]) => k);
    if (more.length > 0) this.keys.value = [...have, ...more.sort()];
    this.frame.value = this.frame.peek() + 1;
  }

  /** Loads the range from the API, newest first, page by page. */
  async load(): Promise<void> {
    this.stop.abort();
    const stop = (this.stop = new AbortController());
    const to = serverNow();
    const from = to - this.range.peek().ms;
    const p = new URLSearchParams({
      from: new Date(from).toISOString(), to: new Date(to + 1000).toISOString(),
      limit: String(PAGE), order: "desc", format: "json",
    });
    let readings = 0;
    let oldest = to;
    this.history.value = { state: "loading", readings, from, error: "" };
    try {
      for (let page = 0; page < PAGES; page++) {
        const got = await call<Page<Reading>>("GET", `${this.path}/telemetry?${p}`, undefined, stop.signal);
        readings += got.items.length;
        oldest = got.items.length ? Date.parse(got.items[got.items.length - 1]!.time) : oldest;
        this.absorb(got.items);
        if (page === 0) this.caught = got.items.length ? Date.parse(got.items[0]!.time) : from;
        const done = !got.next;
        this.history.value = { state: done ? "done" : "loading", readings, from: done ? from : oldest, error: "" };
        if (done) return;
        p.set("cursor", got.next!);
      }
      this.history.value = { state: "cut", readings, from: oldest, error: "" };
    } catch (e) {
      if (stop.signal.aborted || (e instanceof ApiError && e.status === 401)) return;
      this.history.value = { state: "failed", readings, from: oldest, error: message(e) };
    }
  }

  /** Fetches the readings that live frames left out: those carry only the newest
   * value of each key, a few times a second. */
  private async catchUp(now: number): Promise<void> {
    const ledger = this.item.peek()?.ledger;
    const state = this.history.peek().state;
    const stored = ledger ? ledger.stored + ledger.replaced : this.storedSeen;
    if (this.catching || stored === this.storedSeen || now - this.caughtAt < CATCH_UP_MS) return;
    if (state !== "done" && state !== "cut") return;
    this.catching = true;
    this.caughtAt = now;
    this.storedSeen = stored;
    const p = new URLSearchParams({
      from: new Date(this.caught).toISOString(), to: new Date(now + 1000).toISOString(),
      limit: String(PAGE), order: "desc", format: "json",
    });
    try {
      const got = await call<Page<Reading>>("GET", `${this.path}/telemetry?${p}`, undefined, this.stop.signal);
      const fresh = got.items.filter((r) => Date.parse(r.time) > this.caught);
      this.absorb(fresh);
      if (fresh.length > 0) this.caught = Date.parse(fresh[0]!.time);
      const h = this.history.peek();
      this.history.value = { ...h, readings: h.readings + fresh.length };
    } catch {
      this.storedSeen = -1; // the next tick tries again
    } finally {
      this.catching = false;
    }
  }

  /** Takes readings, newest first. */
  private absorb(items: Reading[]): void {
    const t = new Map<string, number[]>();
    const v = new Map<string, number[]>();
    for (let i = items.length - 1; i >= 0; i--) {
      const time = Date.parse(items[i]!.time);
      for (const [key, x] of Object.entries(items[i]!.values)) {
        if (typeof x !== "number") continue;
        if (!t.has(key)) {
          t.set(key, []);
          v.set(key, []);
        }
        t.get(key)!.push(time);
        v.get(key)!.push(x);
      }
    }
    for (const [key, times] of t) this.points(key).merge(times, v.get(key)!);
    this.changed();
  }

  /** Looks at the MQTT sessions. What it saw last stays, with its time, when it cannot. */
  private async fetchSessions(now: number): Promise<void> {
    if (this.sessionsBusy || now - this.sessionsAt < SESSIONS_MS || this.refused.peek()) return;
    this.sessionsBusy = true;
    this.sessionsAt = now;
    try {
      const { mqtt } = await getDevice(this.id);
      if (mqtt) this.sessions.value = { of: mqtt, at: serverNow() };
    } catch {
      // the next look tries again
    } finally {
      this.sessionsBusy = false;
    }
  }

  /** Fetches the rejected messages when the ledger says that there are more. */
  private refreshRejected(): void {
    const n = this.item.peek()?.ledger.rejected ?? 0;
    if (n === this.rejectedSeen || this.rejectedBusy) return;
    this.rejectedSeen = n;
    if (n === 0) return;
    this.rejectedBusy = true;
    void this.fetchRejected();
  }

  private async fetchRejected(): Promise<void> {
    try {
      const got = await listDeviceRejected(this.id, { limit: REJECTED });
      this.rejected.value = got.items;
      this.rejectedBusy = false;
      this.refreshRejected(); // more may have come meanwhile
    } catch {
      this.rejectedBusy = false;
      this.rejectedSeen = -1; // the next change of the device tries again
    }
  }
}
