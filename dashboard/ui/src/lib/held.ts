// What a control says, held by the address: a copied address shows the same.

import { search, setSearch } from "./route";

/** The value of one control in the address, one of several or the first of them, and what sets it: no step in the history. */
export function held<T extends string>(name: string, of: readonly [T, ...T[]]): [T, (value: T) => void] {
  const said = search.value.get(name);
  return [of.find((v) => v === said) ?? of[0], (value) => setSearch({ [name]: value === of[0] ? "" : value }, true)];
}

/** The words of one field in the address. */
export function heldText(name: string): [string, (value: string) => void] {
  return [search.value.get(name) ?? "", (value) => setSearch({ [name]: value }, true)];
}
