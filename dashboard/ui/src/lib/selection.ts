// Which devices of the list are selected: some rows of it, or all that match. All that
// match is the query itself, and not a list of ids.

import { computed, signal } from "@preact/signals";
import { view } from "./devices";
import { idsQuery } from "./query";

export const selected = signal<ReadonlySet<string>>(new Set());
export const allMatching = signal(false);

/** How many are selected. */
export const selectedCount = computed(() => (allMatching.value ? view.value?.total ?? 0 : selected.value.size));

export function clearSelection(): void {
  selected.value = new Set();
  allMatching.value = false;
}

export function toggle(id: string): void {
  allMatching.value = false;
  const next = new Set(selected.peek());
  if (!next.delete(id)) next.add(id);
  selected.value = next;
}

/** Selects all rows of the page, or none. */
export function togglePage(ids: readonly string[]): void {
  const all = ids.every((id) => selected.peek().has(id));
  allMatching.value = false;
  selected.value = new Set(all ? [] : ids);
}

/** A selection as the API takes it. */
export interface Chosen {
  q: string; // that finds them
  ids: string[]; // empty when it is all that match
}

export function chosen(): Chosen {
  if (allMatching.peek()) return { q: view.peek()?.q || "id:*", ids: [] };
  const ids = [...selected.peek()];
  return { q: idsQuery(ids), ids };
}
