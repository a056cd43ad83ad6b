// One device as its page shows it: the live item, the points of its numeric keys
// and its rejected messages.

import { signal, untracked } from "@preact/signals";
import { ApiError, call, message } from "./api";
import { serverNow } from "./clock";
import type { Page } from "./list";
import { FULL_HZ, isLive, link, paused, subscribe, type Frame } from "./live";
import { endsOf, moves, range } from "./range";
import { getChart, getDevice, getPresence, listDeviceRejected, type Device, type DeviceSessions, type PresenceDetail, type Reading, type Rejected } from "./schema.gen";
import { Series } from "./series";
import type { DeviceItem, Latest } from "./types";

const PAGE = 1000; // readings of one look for those that live frames left out
const PIXELS = 600; // the least that is asked for
const REJECTED = 20;
const SESSIONS_MS = 5000; // between looks at the MQTT sessions, which live frames do not carry
const CATCH_UP_MS = 2000; // between looks for readings that live frames left out
const SLACK_MS = 2000; // that a reading may take to the store
const LATE_MS = 5000; // between two loads because something came late
const STRIP_MS = 60_000; // between looks at the last day

/** Somebody who looks at the device. */
export interface Viewer {
  name: string;
  edits: string; // what of it: twin; empty for nothing
  you: boolean;
}

export interface History {
  state: "loading" | "done" | "cut" | "failed";
  readings: number;
  from: number; // ms, the oldest reading when the range was cut
  left: number; // keys that there was no room for
  error: string;
}

export class DeviceModel {
  readonly item = signal<DeviceItem | null>(null);
  readonly refused = signal<{ code: string; detail: string } | null>(null);
  /** The numeric keys, in the order of their charts. */
  readonly keys = signal<string[]>([]);
  readonly history = signal<History>({ state: "loading", readings: 0, from: 0, left: 0, error: "" });
  readonly rejected = signal<Rejected[]>([]);
  /** The MQTT sessions, and when they were looked at, in ms. */
  readonly sessions = signal<{ of: DeviceSessions; at: number } | null>(null);
  /** What the registry knows of it, and its presence in full; null until they were looked at. */
  readonly about = signal<Device | null>(null);
  readonly presence = signal<PresenceDetail | null>(null);
  /** Counts what happened to it, by the feed of events, so that tabs look again. */
  readonly news = signal(0);
  /** Who else looks at it, and what they edit. */
  readonly here = signal<Viewer[]>([]);
  private editing = "";
  private again: () => void = () => undefined;
  /** How many pixels wide the charts are. */
  width = PIXELS;
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
  private stripAt = 0;
  private stripState = "";
  private lateAt = 0;
  private counted = 0; // ms, up to which history.readings counts by itself
  private recent = new Set<string>(); // times of readings at the edge of the last look

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
    const deaf = subscribe("events", { q: `id=${JSON.stringify(this.id)}` }, {
      snapshot: () => undefined,
      event: (f) => {
        if (f.t === "event") this.news.value++;
      },
    });
    this.meet();
    return () => {
      end();
      deaf();
      this.again();
      this.stop.abort();
    };
  }

  /** Says that one is here, and hears who else is. */
  private meet(): void {
    const take = (f: Frame) => {
      const item = (f["item"] ?? f["set"]) as { viewers?: Viewer[] } | undefined;
      if (item?.viewers) this.here.value = item.viewers;
    };
    this.again = subscribe("here:" + this.id, { edits: this.editing }, { snapshot: take, delta: take, refused: () => undefined });
  }

  /** Says that one edits what, until the returned function is called. */
  edits(what: string): () => void {
    const be = (w: string) => {
      this.editing = w;
      this.meet();
    };
    be(what);
    return () => be("");
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

  /** What the charts show; its right edge moves unless the range is an absolute one. */
  window(): [number, number] {
    return endsOf(range.value, this.edge.value);
  }

  /** Loads what the range in the address asks for; called when that is another. */
  ranged(): void {
    if (this.item.peek()) void this.load();
  }

  /** Moves the right edge on; called each second. */
  tick(now: number): void {
    if (!paused.peek()) this.edge.value = now; // without a connection too: what nobody saw is shown as such
    if (!isLive()) return;
    void this.fetchAbout(now);
    if (!moves(range.peek())) return;
    const [from, to] = endsOf(range.peek(), now);
    for (const s of this.series.values()) s.forget(from - (to - from) * 0.1);
    void this.catchUp(now);
  }

  private takeSnapshot(f: Frame): void {
    const item = f["item"] as DeviceItem | null;
    if (!item) return this.gone();
    this.refused.value = null;
    this.item.value = { ...item, values: item.values ?? {} };
    this.take(this.item.peek()!.values);
    void this.load(this.history.peek().state === "done"); // also after a time without live data: it fills the hole
    void this.fetchAbout(serverNow());
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
      if (typeof v === "number" && (moves(untracked(() => range.value)) || !this.series.has(key))) this.points(key).add(time, v, tick);
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

  /** Loads the charts of the range from the API. With quiet what is shown stays until it is here. */
  async load(quiet = false): Promise<void> {
    this.stop.abort();
    const stop = (this.stop = new AbortController());
    const now = serverNow();
    const r = range.peek();
    const [from, to] = endsOf(r, now);
    if (!quiet) this.history.value = { ...this.history.peek(), state: "loading", error: "" };
    const px = Math.min(4000, Math.max(PIXELS, Math.round(this.width * devicePixelRatio)));
    try {
      const got = await getChart(this.id, { from: new Date(from).toISOString(), to: new Date(moves(r) ? to + 1000 : to).toISOString(), px }, stop.signal);
      const folded = new Map(got.items.map((k) => [k.key, k]));
      for (const key of folded.keys()) this.points(key);
      for (const [key, s] of this.series) {
        const k = folded.get(key);
        if (k) s.replace(k, moves(r), got.step_ms);
        else if (!moves(r)) s.clear();
      }
      this.caught = now - SLACK_MS;
      this.counted = now;
      this.history.value = { state: got.whole ? "done" : "cut", readings: got.readings, from: Date.parse(got.from), left: got.keys_left, error: "" };
      this.changed();
    } catch (e) {
      if (stop.signal.aborted || (e instanceof ApiError && e.status === 401)) return;
      this.history.value = { ...this.history.peek(), state: "failed", error: message(e) };
    }
  }

  /** Fetches the readings that live frames left out: those carry only the newest
   * value of each key, a few times a second. What was stored and is not among the
   * newest came late: then the window is loaded again. */
  private async catchUp(now: number): Promise<void> {
    const ledger = this.item.peek()?.ledger;
    const state = this.history.peek().state;
    const stored = ledger ? ledger.stored + ledger.replaced : this.storedSeen;
    if (this.catching || stored === this.storedSeen || now - this.caughtAt < CATCH_UP_MS) return;
    if (state !== "done" && state !== "cut") return;
    this.catching = true;
    this.caughtAt = now;
    const more = this.storedSeen < 0 ? 0 : stored - this.storedSeen;
    this.storedSeen = stored;
    try {
      const got = await this.newest(now);
      const known = this.recent;
      const fresh = got.filter((r) => !known.has(r.time));
      this.absorb(fresh);
      if (got.length > 0) this.caught = Math.max(this.caught, Date.parse(got[0]!.time) - SLACK_MS);
      this.recent = new Set(got.filter((r) => Date.parse(r.time) >= this.caught).map((r) => r.time));
      const h = this.history.peek();
      this.history.value = { ...h, readings: h.readings + fresh.filter((x) => Date.parse(x.time) > this.counted).length };
      if (fresh.length < more && now - this.lateAt > LATE_MS) {
        this.lateAt = now;
        void this.load(true);
      }
    } catch {
      this.storedSeen = -1; // the next tick tries again
    } finally {
      this.catching = false;
    }
  }

  /** The readings since the last look, newest first. */
  private async newest(now: number): Promise<Reading[]> {
    const p = new URLSearchParams({
      from: new Date(this.caught).toISOString(), to: new Date(now + 1000).toISOString(),
      limit: String(PAGE), order: "desc", format: "json",
    });
    return (await call<Page<Reading>>("GET", `${this.path}/telemetry?${p}`, undefined, this.stop.signal)).items;
  }

  /** Takes readings, newest first. */
  private absorb(items: Reading[]): void {
    for (let i = items.length - 1; i >= 0; i--) {
      const time = Date.parse(items[i]!.time);
      for (const [key, x] of Object.entries(items[i]!.values)) {
        if (typeof x === "number") this.points(key).add(time, x, 0);
      }
    }
    this.changed();
  }

  /** Looks at what live frames do not carry: the registry's words, the MQTT sessions and the
   * presence in full. What was seen last stays, with its time, when it cannot. */
  async fetchAbout(now: number): Promise<void> {
    if (this.sessionsBusy || now - this.sessionsAt < SESSIONS_MS || this.refused.peek()) return;
    this.sessionsBusy = true;
    this.sessionsAt = now;
    try {
      const about = await getDevice(this.id);
      this.about.value = about;
      if (about.mqtt) this.sessions.value = { of: about.mqtt, at: serverNow() };
      const state = this.item.peek()?.state ?? "";
      if (now - this.stripAt >= STRIP_MS || state !== this.stripState) {
        this.stripAt = now;
        this.stripState = state;
        this.presence.value = await getPresence(this.id);
      }
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
