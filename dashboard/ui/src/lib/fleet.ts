// The fleet's counters, kept on every page: the rail shows the count.

import { effect, signal, untracked } from "@preact/signals";
import { now } from "./clock";
import { isLive, subscribe } from "./live";
import type { Fleet } from "./types";

export const fleet = signal<Fleet | null>(null);

/** How many seconds the small lines look back. */
export const TRACE = 92;

/** What the vitals were in each of the last seconds since the page opened; NaN
 * where the page was not live. */
export const trace = {
  received: [] as number[],
  storing: [] as number[], // ms
  queued: [] as number[],
  acked: [] as number[], // percent
};

/** Counts the seconds traced, so that the small lines redraw. */
export const traced = signal(0);

export function startFleet(): void {
  subscribe("fleet", {}, {
    snapshot: (f) => {
      fleet.value = f["item"] as Fleet;
      if (trace.received.length === 0) record();
    },
    delta: (f) => {
      fleet.value = { ...fleet.peek(), ...(f["set"] as Fleet) };
    },
  });
  effect(() => {
    now.value;
    untracked(record);
  });
}

/** Of the commands that ended within the last hour how many were acknowledged, in percent; null without any. */
export function ackedPercent(f: Fleet): number | null {
  const c = f.commands;
  return c && c.ended > 0 ? (100 * c.acked) / c.ended : null;
}

function record(): void {
  const f = fleet.peek();
  if (!f) return;
  const live = isLive();
  push(trace.received, live ? f.rates.received : NaN);
  push(trace.storing, live && f.storing?.batches ? f.storing.p99_ms : NaN);
  push(trace.queued, live ? f.queued : NaN);
  push(trace.acked, live ? (ackedPercent(f) ?? NaN) : NaN);
  traced.value = traced.peek() + 1;
}

function push(line: number[], v: number): void {
  line.push(v);
  if (line.length > TRACE) line.shift();
}
