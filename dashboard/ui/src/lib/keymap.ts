// The keys that do something now, and what: the page's own, and those that every page has.
// A page adds its keys with useKeys of parts/keys.

import { signal } from "@preact/signals";
import { singleKey } from "./keys";

/** A key, or two with a space between that are pressed one after the other ("g d"). */
export interface Key {
  keys: string;
  what: string; // what it does, for the sheet
  /** Does it; false leaves the press to others. Without it the key is only told of. */
  run?: () => boolean | void;
}

export interface Keys {
  title: string; // of the group in the sheet
  list: readonly Key[];
}

const SECOND_MS = 1500; // how long the first of two keys waits for the second

/** What is registered, the newest last. */
export const keymap = signal<readonly Keys[]>([]);

/** Adds keys until the returned function is called. The newest are asked first. */
export function addKeys(keys: Keys): () => void {
  keymap.value = [...keymap.peek(), keys];
  return () => {
    keymap.value = keymap.peek().filter((k) => k !== keys);
  };
}

let first = "";
let timer = 0;
let ran = ""; // the key that is down and did something

/** The first of two keys, while the second is waited for. */
export function pendingKey(): string {
  return first;
}

/** Follows the keyboard; called once. */
export function startKeys(): void {
  document.addEventListener("keydown", (e) => {
    const key = singleKey(e);
    ran = "";
    if (!key || !press(first ? `${first} ${key}` : key)) return;
    e.preventDefault();
    ran = key;
  });
  document.addEventListener("keypress", (e) => {
    if (ran && e.key === ran) e.preventDefault(); // the field that the key led to is not to get its letter
  });
  document.addEventListener("keyup", () => { ran = ""; });
}

function press(keys: string): boolean {
  const had = first !== "";
  first = "";
  clearTimeout(timer);
  for (const group of [...keymap.peek()].reverse()) {
    for (const k of group.list) {
      if (k.run && k.keys.split(", ").includes(keys) && k.run() !== false) return true;
    }
  }
  if (had || !keymap.peek().some((g) => g.list.some((k) => k.keys.split(", ").some((one) => one.startsWith(keys + " "))))) return false;
  first = keys;
  timer = window.setTimeout(() => {
    first = "";
  }, SECOND_MS);
  return true;
}
