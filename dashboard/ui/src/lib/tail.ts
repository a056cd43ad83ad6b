// What happens right now: the newest events of the feed, a line each, in bounded memory.

import { signal } from "@preact/signals";
import { subscribe, type Frame } from "./live";

export interface Line {
  seq: number;
  type: string;
  at: number; // ms
  data: Record<string, unknown>;
}

const KEPT = 60; // lines
const BEFORE = 30; // events of before the page was opened

/** The newest lines, the newest first. */
export const lines = signal<Line[]>([]);
/** Whether lines are held back. */
export const paused = signal(false);
/** How many came while they are. Of them the newest are kept. */
export const waiting = signal(0);

let held: Line[] = [];
let place = ""; // <epoch>-<seq> of the last event

/** Follows the feed until the returned function is called. */
export function followEvents(): () => void {
  let begun = false;
  place = "";
  lines.value = [];
  held = [];
  paused.value = false;
  waiting.value = 0;
  let leave = () => {};
  const follow = () => {
    leave = subscribe("events", () => (place ? { after: place } : {}), {
      snapshot: (f) => {
        const [epoch, seq] = [String(f["epoch"]), Number(f["seq"])];
        place = `${epoch}-${seq}`;
        if (begun) return;
        begun = true;
        place = `${epoch}-${Math.max(0, seq - BEFORE)}`; // and now with what came before
        follow();
      },
      event: take,
    });
  };
  follow();
  return () => leave();
}

function take(f: Frame): void {
  const ev = f["ev"] as { type: string; timestamp: string; data: Record<string, unknown> };
  const seq = Number(f["seq"]);
  place = place.slice(0, place.lastIndexOf("-") + 1) + seq;
  const line = { seq, type: ev.type, at: Date.parse(ev.timestamp), data: ev.data };
  if (!paused.peek()) {
    lines.value = [line, ...lines.peek()].slice(0, KEPT);
    return;
  }
  held = [line, ...held].slice(0, KEPT);
  waiting.value++;
}

/** Holds lines back, or shows those that were. */
export function pause(on: boolean): void {
  paused.value = on;
  if (on) return;
  lines.value = [...held, ...lines.peek()].slice(0, KEPT);
  held = [];
  waiting.value = 0;
}
