// Single keys: whether they are on (WCAG 2.2, 2.1.4: they can be turned off), and
// which of them a key press is.

import { signal } from "@preact/signals";

const STORED = "muster.keys";

/** Whether single keys do something. */
export const keysOn = signal(read());

function read(): boolean {
  try {
    return localStorage.getItem(STORED) !== "off";
  } catch {
    return true; // storage is forbidden: it cannot have been turned off
  }
}

export function setKeys(on: boolean): void {
  keysOn.value = on;
  try {
    if (on) localStorage.removeItem(STORED);
    else localStorage.setItem(STORED, "off");
  } catch {
    // it holds for as long as the page is open
  }
}

/** The key of a press that is a command: none with a modifier or while typing. */
export function singleKey(e: KeyboardEvent): string {
  const at = e.target as HTMLElement | null;
  if (!keysOn.peek() || e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey) return "";
  if (at?.closest?.("input, textarea, select, [contenteditable], dialog")) return "";
  return e.key;
}
