// Which devices of the list are selected: some rows of it, or all that match. All that
// match is the query itself, and not a list of ids.

import { computed, signal } from "@preact/signals";
import { view } from "./devices";

export const selected = signal<ReadonlySet<string>>(new Set());
export const allMatching = signal(false);
/** Whether rows could not be selected because as many are as may be one by one. */
export const full = signal(false);

/** How many devices are selected by their ids at most: so many the API takes. */
export const MOST_SELECTED = 1000;

/** How many of them are on other pages than the one that is shown. */
export const elsewhere = computed(() => (allMatching.value ? 0 : [...selected.value].filter((id) => !view.value?.order.includes(id)).length));

/** How many are selected. */
export const selectedCount = computed(() => (allMatching.value ? view.value?.total ?? 0 : selected.value.size));

export function clearSelection(): void {
  selected.value = new Set();
  allMatching.value = false;
  full.value = false;
}

function select(ids: ReadonlySet<string>): void {
  full.value = ids.size > MOST_SELECTED;
  if (!full.value) selected.value = ids;
}

export function toggle(id: string): void {
  allMatching.value = false;
  const next = new Set(selected.peek());
  if (!next.delete(id)) next.add(id);
  select(next);
}

/** Selects all rows of the page, or none of it; what is selected on other pages stays. */
export function togglePage(ids: readonly string[]): void {
  const all = ids.every((id) => selected.peek().has(id));
  allMatching.value = false;
  const next = new Set(selected.peek());
  for (const id of ids) {
    if (all) next.delete(id);
    else next.add(id);
  }
  select(next);
}

/** A selection as the API takes it. */
export interface Chosen {
  q: string; // that finds them; empty when they are named
  ids: string[]; // at most MOST_SELECTED; empty when it is all that match
}

export function chosen(): Chosen {
  if (allMatching.peek()) return { q: view.peek()?.q || "id:*", ids: [] };
  return { q: "", ids: [...selected.peek()] };
}
