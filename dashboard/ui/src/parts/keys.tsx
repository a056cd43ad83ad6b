// Keys of a page: what a part registers while it is shown.

import { useLayoutEffect, useRef } from "preact/hooks";
import { addKeys, type Key } from "../lib/keymap";

/** Adds the keys to the keyboard and to the sheet of keys for as long as the part is shown.
 * What is run is always the newest function given. They are there as soon as the part is seen: after the
 * paint, what is pressed at once would be lost. */
export function useKeys(title: string, list: readonly Key[]): void {
  const now = useRef(list);
  now.current = list;
  useLayoutEffect(() => addKeys({ title, list: list.map((k, i) => ({ keys: k.keys, what: k.what, ...(k.run && { run: () => now.current[i]?.run?.() }) })) }), [title, list.map((k) => k.keys + k.what).join("\n")]);
}

const ROWS = "main .wide tbody th a, main .ros .to";

/** j and k go through the rows of the page's lists by their links; Enter, which is the browser's
 * own, opens one. */
export function useRowKeys(): void {
  const move = (by: number) => {
    const all = [...document.querySelectorAll<HTMLElement>(ROWS)];
    if (all.length === 0) return false;
    const at = all.indexOf(document.activeElement as HTMLElement);
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))]!;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
    return true;
  };
  useKeys("Lists", [
    { keys: "j", what: "the next row", run: () => move(1) },
    { keys: "k", what: "the row before", run: () => move(-1) },
    { keys: "Enter", what: "open it" },
  ]);
}
