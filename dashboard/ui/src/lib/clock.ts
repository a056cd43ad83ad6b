// One clock for the page: the server's, ticking each second, so that "12 s ago"
// does not depend on how well the browser's own clock is set.

import { signal } from "@preact/signals";

let skew = 0;

/** The server's time in ms, ticking each second. */
export const now = signal(Date.now());

/** The server's time in ms at this instant. */
export function serverNow(): number {
  return Date.now() + skew;
}

/** Takes the server's clock as ours. */
export function setServerTime(ms: number): void {
  skew = ms - Date.now();
  now.value = ms;
}

/** Starts the tick; called once. */
export function startClock(): void {
  setInterval(() => {
    if (!document.hidden) now.value = serverNow();
  }, 1000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) now.value = serverNow();
  });
}
