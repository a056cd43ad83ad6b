// What things with ids for programs are called, for the top bar: pages tell what they show.

import { signal } from "@preact/signals";

const MOST = 100;

export const called = signal<ReadonlyMap<string, string>>(new Map());

/** Tells what the thing with an id is called. */
export function call(id: string, name: string): void {
  if (called.peek().get(id) === name) return;
  called.value = new Map([...[...called.peek()].slice(-MOST), [id, name]]);
}
