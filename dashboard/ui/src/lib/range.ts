// Which time is shown: relative to now or absolute, as the address has it.

import { computed } from "@preact/signals";
import { search, setSearch } from "./route";
import { write, zone } from "./zone";

export interface Range {
  from: string; // now-3h, or RFC 3339
  to: string; // now, or RFC 3339
}

export const RANGES = [
  { key: "15m", ms: 15 * 60_000, words: "15 min" },
  { key: "1h", ms: 3_600_000, words: "1 h" },
  { key: "3h", ms: 3 * 3_600_000, words: "3 h" },
  { key: "24h", ms: 24 * 3_600_000, words: "24 h" },
  { key: "7d", ms: 7 * 24 * 3_600_000, words: "7 d" },
  { key: "30d", ms: 30 * 24 * 3_600_000, words: "30 d" },
] as const;

const UNITS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 24 * 3_600_000, w: 7 * 24 * 3_600_000 };
const DEFAULT: Range = { from: "now-15m", to: "now" };
const LEAST = 1000; // ms that a range shows at least
const MOST = 400 * UNITS["d"]!;

/** A point in time in ms: now, now-3h, or RFC 3339; NaN for anything else. */
export function pointOf(s: string, now: number): number {
  const m = /^now(?:([+-])(\d{1,9})([smhdw]))?$/.exec(s);
  if (!m) return Date.parse(s);
  return m[1] ? now + (m[1] === "-" ? -1 : 1) * Number(m[2]) * UNITS[m[3]!]! : now;
}

/** The range in the address, or the default when it has none that can be shown. */
export const range = computed<Range>(() => {
  const p = search.value;
  const r = { from: p.get("from") ?? DEFAULT.from, to: p.get("to") ?? DEFAULT.to };
  const at = Date.now();
  const [from, to] = [pointOf(r.from, at), pointOf(r.to, at)];
  return to - from >= LEAST && to - from <= MOST ? r : DEFAULT;
});

/** Whether the right edge of a range moves with the clock. */
export function moves(r: Range): boolean {
  return r.to === "now";
}

/** A range's ends in ms. */
export function endsOf(r: Range, now: number): [number, number] {
  return [pointOf(r.from, now), pointOf(r.to, now)];
}

/** Shows a range: it goes into the address. */
export function show(r: Range): void {
  const old = range.peek();
  if (r.from === old.from && r.to === old.to) return; // charts with one crosshair say it together
  const plain = r.from === DEFAULT.from && r.to === DEFAULT.to;
  const fixed = /^\d/.test(r.from) && zone.peek() !== "browser"; // who gets the link reads the same times
  setSearch({ from: plain ? "" : r.from, to: plain || r.to === "now" ? "" : r.to, tz: fixed ? zone.peek() : "" });
}

/** Shows an absolute range. */
export function showBetween(from: number, to: number): void {
  if (to - from < LEAST) [from, to] = [(from + to) / 2 - LEAST / 2, (from + to) / 2 + LEAST / 2];
  show({ from: new Date(Math.max(from, to - MOST)).toISOString(), to: new Date(to).toISOString() });
}

/** Moves the range by part of its length: -0.5 goes half of it back. */
export function step(part: number, now: number): void {
  const [from, to] = endsOf(range.peek(), now);
  const by = (to - from) * part;
  showBetween(from + by, to + by);
}

/** Shows twice as much time around the same middle, not beyond now when it moves. */
export function zoomOut(now: number): void {
  const [from, to] = endsOf(range.peek(), now);
  const half = (to - from) / 2;
  showBetween(from - half, Math.min(to + half, Math.max(now, to)));
}

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit" } as const;
const DAY = { day: "numeric", month: "short" } as const;

/** The time of day in the chosen zone: 08:58:07. */
export function timeOf(t: number): string {
  return write("time", CLOCK, t);
}

/** Day and minute in the chosen zone. */
export function dayOf(t: number): string {
  return write("day", { ...DAY, hour: "2-digit", minute: "2-digit" }, t);
}

/** Date and time in the chosen zone. */
export function fullOf(t: number): string {
  return write("full", { ...DAY, year: "numeric", ...CLOCK }, t);
}
