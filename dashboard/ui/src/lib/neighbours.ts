// The list that one came from, so that [ and ] go to the device before and after.

let order: readonly string[] = [];

/** Remembers the devices of a list that is left. */
export function rememberOrder(ids: readonly string[]): void {
  if (ids.length > 0) order = [...ids];
}

/** The device so many places after id in that list, empty when there is none. */
export function neighbour(id: string, by: number): string {
  const i = order.indexOf(id);
  return i < 0 ? "" : order[i + by] ?? "";
}
