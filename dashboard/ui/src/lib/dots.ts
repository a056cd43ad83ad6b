// Every device as a dot: the layout, one byte of state for each place, and who is where.

import { signal } from "@preact/signals";
import { command, subscribe } from "./live";
import type { Status } from "./types";

export type By = "group" | "firmware" | "last_seen" | "map";

export interface Section {
  name: string;
  merged?: number; // groups or versions that are together in it
  first: number;
  count: number;
  q: string; // chooses its devices; empty when no query does
}

export interface Layout {
  by: By;
  version: number;
  total: number;
  states: Status[]; // the state of each code
  sections: Section[];
  cell?: number; // by map: how wide and high a place is, in hundredths of a degree
  places?: number[]; // by map: latitude and longitude of its south-west corner, likewise, and how many devices, for each
}

/** Who is at some places, and what chooses them. */
export interface Run {
  ids: string[];
  gateway: string; // when all belong to one
  q: string; // empty when no query chooses just them
}

/** What lies where; null before the first answer. */
export const layout = signal<Layout | null>(null);
/** Counts the frames with states, so that what is counted of them is counted again. */
export const frames = signal(0);
/** Why there are no dots, empty when there are. */
export const refusal = signal("");

/** A place of a device that is gone. */
export const GONE = 255;

const HEADER = 8;
const WHOLE = 1;
const BLOCK = 128; // ids that are asked for together

let codes = new Uint8Array(0);
let changed: (places: Uint32Array | null) => void = () => {};
const names = new Map<number, string[] | "asked">();

/** The code of the state at each place; empty before the first frame. */
export function codesNow(): Uint8Array {
  return codes;
}

/** Has f called with the places that changed, or null for all of them. */
export function onChange(f: (places: Uint32Array | null) => void): () => void {
  changed = f;
  return () => {
    if (changed === f) changed = () => {};
  };
}

/** Shows the dots, live, until the returned function is called. */
export function showDots(by: By): () => void {
  const leave = subscribe("dots", { by }, {
    snapshot: (f) => {
      names.clear();
      codes = new Uint8Array(0);
      refusal.value = "";
      layout.value = f as unknown as Layout;
    },
    binary: take,
    refused: (_code, detail) => {
      refusal.value = detail;
    },
  });
  return () => {
    leave();
    layout.value = null;
    codes = new Uint8Array(0);
  };
}

function take(data: ArrayBuffer): void {
  const l = layout.peek();
  const head = new DataView(data);
  if (!l || data.byteLength < HEADER || head.getUint32(4, true) !== l.version >>> 0) return; // of what was shown before
  if (head.getUint8(0) === WHOLE) {
    codes = new Uint8Array(data, HEADER).slice();
    changed(null);
  } else {
    const places = new Uint32Array((data.byteLength - HEADER) / 4);
    for (let i = 0; i < places.length; i++) {
      const v = head.getUint32(HEADER + 4 * i, true);
      places[i] = v >>> 8;
      codes[v >>> 8] = v & 255;
    }
    changed(places);
  }
  frames.value++;
}

/** The id of the device at a place, undefined while it is not known; then known is called when it is. */
export function nameAt(place: number, known: () => void): string | undefined {
  const block = Math.floor(place / BLOCK);
  const have = names.get(block);
  if (have === "asked") return undefined;
  if (have) return have[place - block * BLOCK];
  const l = layout.peek();
  if (!l) return undefined;
  names.set(block, "asked");
  describe(block * BLOCK, Math.min(l.total, (block + 1) * BLOCK) - 1).then(
    (run) => {
      if (layout.peek() !== l) return;
      names.set(block, run.ids);
      known();
    },
    () => names.delete(block), // asked again when it is pointed at again
  );
  return undefined;
}

/** Asks who is at the places from first to last. */
export async function describe(first: number, last: number): Promise<Run> {
  return (await command({ t: "dots", version: layout.peek()?.version, from: first, to: last })) as unknown as Run;
}

/** How many devices of a run of places are in each state. */
export function tally(first: number, count: number): Partial<Record<Status, number>> {
  const l = layout.peek();
  const out: Partial<Record<Status, number>> = {};
  if (!l) return out;
  const sums = new Array<number>(256).fill(0);
  for (let at = first; at < first + count && at < codes.length; at++) sums[codes[at]!]!++;
  l.states.forEach((s, code) => {
    if (sums[code]) out[s] = sums[code]!;
  });
  return out;
}

/** A run of devices that are silent, with few others between them. */
export interface Cluster {
  first: number;
  last: number;
  silent: number;
}

const BETWEEN = 2; // others that may lie between two silent ones

/** The largest cluster of silent devices; null when none has at least so many. */
export function largestCluster(least: number): Cluster | null {
  const l = layout.peek();
  if (!l) return null;
  const silent = l.states.map((s) => s === "offline" || s === "quiet");
  let best: Cluster | null = null;
  for (const s of l.sections) {
    let run: Cluster | null = null;
    for (let at = s.first; at < s.first + s.count; at++) {
      if (!silent[codes[at]!]) continue;
      if (run && at - run.last <= BETWEEN + 1) {
        run.last = at;
        run.silent++;
      } else {
        run = { first: at, last: at, silent: 1 };
      }
      if (run.silent >= least && (!best || run.silent > best.silent)) best = run;
    }
  }
  return best && { ...best };
}
