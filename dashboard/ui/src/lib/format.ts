// Numbers, times and values in words. Negative numbers carry a true minus sign.

import type { Value } from "./types";
import { exactTimes, write } from "./zone";

const MINUS = "\u2212";
const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const MINUTES = { hour: "2-digit", minute: "2-digit" } as const;
const SECONDS = { ...MINUTES, second: "2-digit" } as const;
const DAY = { day: "numeric", month: "short" } as const;

function minus(s: string): string {
  return s.replace("-", MINUS);
}

/** A whole number with its thousands grouped. */
export function count(n: number): string {
  return minus(grouped.format(n));
}

const MOST = 1000; // the server counts an inbox up to this

/** A figure of an inbox: beyond what the server counts it says so. */
export function counted(n: number): string {
  return n < MOST ? count(n) : `${count(MOST - 1)}+`;
}

/** n noun, with the plural when there is not just one. */
export function plural(n: number, one: string, many: string): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

const fractions = [0, 1, 2, 3, 4, 5, 6].map((n) => new Intl.NumberFormat("en", { maximumFractionDigits: n }));
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

/** n with about the given number of digits, at least its whole ones. */
function rounded(n: number, digits: number): string {
  const a = Math.abs(n);
  if (a !== 0 && (a < 1e-3 || a >= 1e12)) return minus(n.toExponential(Math.max(0, digits - 2)));
  const whole = a < 1 ? 0 : Math.floor(Math.log10(a)) + 1;
  return minus(fractions[Math.min(6, Math.max(0, digits - whole))]!.format(n));
}

/** A measured number, with four or five digits; the exact one belongs in a title. */
export function measure(n: number): string {
  return rounded(n, Math.abs(n) >= 1000 ? 5 : 4);
}

/** A number beside others that lie within span of it: fine enough to tell them
 * apart, and no finer. Large ones come as 12.3K. */
export function within(n: number, span: number): string {
  const a = Math.abs(n);
  if (span === 0) return measure(n);
  const decimals = 1 - Math.floor(Math.log10(span));
  if (a >= 100_000 && a < 1e12 && span > a / 100) return minus(compact.format(n));
  if (decimals > 6 || a >= 1e12) return minus(n.toPrecision(5));
  return minus(fractions[Math.max(0, decimals)]!.format(n));
}

/** The step between the numbers near n that within can say. */
function stepOf(n: number, span: number): number {
  const a = Math.abs(n);
  const digits = (k: number) => 10 ** (Math.floor(Math.log10(a)) + 1 - k);
  const decimals = 1 - Math.floor(Math.log10(span));
  if (a >= 100_000 && a < 1e12 && span > a / 100) return digits(4);
  return decimals > 6 || a >= 1e12 ? digits(5) : 10 ** -Math.max(0, decimals);
}

/** An end of a range of numbers, as within says it, but never inside the range: the least is rounded down, the greatest up. */
export function end(n: number, span: number, of: "least" | "greatest"): string {
  if (span === 0 || n === 0) return within(n, span);
  const step = stepOf(n, span);
  const near = n / step;
  const whole = Math.round(near);
  const exact = Math.abs(near - whole) < 1e-6;
  return within((exact ? whole : of === "least" ? Math.floor(near) : Math.ceil(near)) * step, span);
}

/** A rate per second: whole from 100 up, one decimal below. */
export function rate(n: number): string {
  return n >= 100 ? count(n) : minus(n.toFixed(n > 0 && n < 0.1 ? 2 : n === 0 ? 0 : 1));
}

/** A size with its unit, by powers of 1024. */
export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i === 0 || n >= 100 ? count(n) : n.toFixed(1)} ${units[i]}`;
}

/** A telemetry value on one line. */
export function value(v: Value): string {
  if (typeof v === "number") return measure(v);
  if (typeof v === "string") return v;
  if (v === null) return "null";
  return typeof v === "boolean" ? (v ? "true" : "false") : JSON.stringify(v);
}

/** The value as it came, for a title. */
export function exact(v: Value): string {
  return typeof v === "string" ? v : JSON.stringify(v);
}

/** A length of time with at most two units: 41 s, 26 min, 2 h 06 min, 6 d 4 h. */
export function duration(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min} min`;
  const h = Math.floor(min / 60);
  if (h < 24) return min % 60 ? `${h} h ${String(min % 60).padStart(2, "0")} min` : `${h} h`;
  const d = Math.floor(h / 24);
  return h % 24 ? `${d} d ${h % 24} h` : `${d} d`;
}

/** How long ago t was; times within the second, or a little ahead, are "now". Where exact times
 * are chosen, the time itself. */
export function ago(t: number, now: number): string {
  if (exactTimes.value) return sameDay(t, now) ? seconds(t) : write("day seconds", { ...DAY, ...SECONDS }, t);
  const ms = now - t;
  if (ms <= -60_000) return `in ${duration(-ms)}`;
  return ms < 1000 ? "now" : `${duration(ms)} ago`;
}

function sameDay(a: number, b: number): boolean {
  const day = (t: number) => write("date", { ...DAY, year: "numeric" }, t);
  return day(a) === day(b);
}

/** The time of day, with the day when it is not today's. */
export function clock(t: number, now: number): string {
  return sameDay(t, now) ? write("clock", MINUTES, t) : write("day", { ...DAY, ...MINUTES }, t);
}

export function seconds(t: number): string {
  return write("time", SECONDS, t);
}

/** Date, time and zone in full, for titles. */
export function absolute(t: number): string {
  return write("absolute", { ...DAY, year: "numeric", ...SECONDS, timeZoneName: "short" }, t);
}

/** A time in RFC 3339 as day and minute. */
export function day(at: string): string {
  return write("long day", { ...DAY, year: "numeric", ...MINUTES }, Date.parse(at));
}
