// The small lines of the rows that are shown: asked for again from time to time while
// somebody looks, and for no other device.

import { signal } from "@preact/signals";
import { listSparklines, type Sparkline } from "./schema.gen";

const EVERY_MS = 30_000;
const POINTS = 32;
const MOST_KEYS = 3; // columns of lines; each is a request

/** The lines by key, then device. */
export const sparks = signal<ReadonlyMap<string, ReadonlyMap<string, Sparkline>>>(new Map());

/** Shows the lines of keys for devices until the returned function is called. */
export function showSparks(keys: readonly string[], ids: readonly string[]): () => void {
  if (keys.length === 0 || ids.length === 0) return () => {};
  const stop = new AbortController();
  const read = () => {
    if (document.hidden) return;
    for (const key of keys.slice(0, MOST_KEYS)) void readKey(key, ids, stop.signal);
  };
  read();
  const timer = setInterval(read, EVERY_MS);
  return () => {
    stop.abort();
    clearInterval(timer);
  };
}

async function readKey(key: string, ids: readonly string[], stop: AbortSignal): Promise<void> {
  try {
    const got = await listSparklines({ ids: ids.join(","), key, points: POINTS }, stop);
    sparks.value = new Map([...sparks.peek()].filter(([k]) => k !== key)).set(key, new Map(got.items.map((l) => [l.device, l])));
  } catch {
    // what was there stays until the next time; the live state says what is wrong
  }
}
