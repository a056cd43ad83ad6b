// What was just done and can still be taken back, for a short time. The last takes the place of the one before.

import { signal } from "@preact/signals";

/** Something that can be taken back. */
export interface Undo {
  words: string; // what was done
  /** Takes it back, and says what came of it. It throws what the API throws. */
  run: () => Promise<string>;
  /** Says why it can not be taken back any more; empty while it can. Asked for again and again. */
  gone?: () => Promise<string>;
}

/** What is offered now; null for nothing. */
export const undo = signal<Undo | null>(null);

/** Offers to take something back. */
export function offer(what: Undo): void {
  undo.value = what;
}
