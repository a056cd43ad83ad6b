// How times are written: in which zone, and whether as an age. One choice for all pages,
// which this browser remembers; an address may name a zone of its own.

import { computed, signal } from "@preact/signals";
import { search, setSearch } from "./route";

export type Zone = "browser" | "utc" | "device";

const ZONE = "muster.zone";
const EXACT = "muster.times";

const chosen = signal<Zone>(zoneOf(stored(ZONE)) ?? "browser");

/** Whether ages are written as times: 14:02 instead of 3 min ago. */
export const exactTimes = signal(stored(EXACT) === "exact");

/** The zone of the device whose page is shown, its tag tz; empty without one that the browser knows. */
export const deviceZone = signal("");

/** The choice: what the address says, or else what this browser remembers. */
export const zone = computed<Zone>(() => zoneOf(search.value.get("tz")) ?? chosen.value);

function zoneOf(s: string | null): Zone | null {
  return s === "utc" || s === "device" || s === "browser" ? s : null;
}

function stored(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function keep(key: string, value: string): void {
  try {
    if (value) localStorage.setItem(key, value);
    else localStorage.removeItem(key);
  } catch {
    // it holds for as long as the page is open
  }
}

/** Has all times written so. An address that names a zone, or shows a time of its own, names this one. */
export function setZone(z: Zone): void {
  chosen.value = z;
  keep(ZONE, z === "browser" ? "" : z);
  const p = search.peek();
  if (p.has("tz") || /^\d/.test(p.get("from") ?? "")) setSearch({ tz: z }, true);
}

export function setExact(on: boolean): void {
  exactTimes.value = on;
  keep(EXACT, on ? "exact" : "");
}

/** The browser's zone, by its name. */
export function zoneName(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}

/** The zone that times are written in, by its IANA name; undefined for the browser's. */
export function timeZone(): string | undefined {
  if (zone.value === "utc") return "UTC";
  return zone.value === "device" && deviceZone.value ? deviceZone.value : undefined;
}

/** Takes the zone of a device that is shown; what is no zone is none. */
export function setDeviceZone(name: string): void {
  let known = name;
  try {
    if (name) new Intl.DateTimeFormat("en", { timeZone: name });
  } catch {
    known = "";
  }
  deviceZone.value = known;
}

const formats = new Map<string, Intl.DateTimeFormat>();
const MANY = 64; // formats that are kept, one for each form and zone

/** Writes t in the chosen zone. form names the options, which are the same for it each time. */
export function write(form: string, options: Intl.DateTimeFormatOptions, t: number): string {
  const at = timeZone();
  const key = form + " " + (at ?? "");
  let f = formats.get(key);
  if (!f) {
    if (formats.size >= MANY) formats.clear();
    f = new Intl.DateTimeFormat("en-GB", at ? { ...options, timeZone: at } : options);
    formats.set(key, f);
  }
  return f.format(t);
}

/** What the zone adds to UTC at t, in ms. */
export function offsetAt(t: number): number {
  const at = timeZone();
  if (!at) return -new Date(t).getTimezoneOffset() * 60_000;
  if (at === "UTC") return 0;
  const whole = Math.floor(t / 1000) * 1000;
  return Date.parse(wallTime(whole) + "Z") - whole;
}

const WALL = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" } as const;

/** t in the chosen zone as a field of type datetime-local has it: 2026-03-01T08:30:00. */
export function wallTime(t: number): string {
  const m = /^(\d\d)\/(\d\d)\/(\d{4}), (.*)$/.exec(write("wall", WALL, t));
  return m ? `${m[3]}-${m[2]}-${m[1]}T${m[4]}` : new Date(t).toISOString().slice(0, 19);
}

/** The time that a clock in the chosen zone shows so; NaN for what is no time. */
export function fromWall(s: string): number {
  const utc = Date.parse(s + "Z");
  return utc - offsetAt(utc - offsetAt(utc));
}
