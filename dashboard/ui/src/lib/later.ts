// Whether the set-up form was put off: for as long as this tab is open, also when the page is loaded again.

import { signal } from "@preact/signals";
import { me } from "./session";

const NAME = "muster-setup-later";

function kept(): boolean {
  try {
    return sessionStorage.getItem(NAME) !== null;
  } catch {
    return false; // a browser that keeps nothing
  }
}

const put = signal(kept());

/** Puts the form off. */
export function later(): void {
  put.value = true;
  try {
    sessionStorage.setItem(NAME, "yes");
  } catch {
    // it is put off until the page is loaded again
  }
}

/** Whether the session is that of the set-up link, and the form was put off. */
export function isPutOff(): boolean {
  return Boolean(me.value?.setup) && put.value;
}
