// A short tint on what has just changed.

import { useLayoutEffect, useRef } from "preact/hooks";
import type { RefObject } from "preact";

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Tints the element that has the returned ref whenever mark changes. */
export function useHeat<E extends HTMLElement>(mark: unknown): RefObject<E | null> {
  const el = useRef<E>(null);
  const before = useRef(mark);
  useLayoutEffect(() => {
    if (Object.is(before.current, mark)) return;
    before.current = mark;
    if (still.matches || document.hidden) return;
    el.current?.animate([{ backgroundColor: "var(--heat)" }, { backgroundColor: "transparent" }], { duration: 900, easing: "ease-out" });
  }, [mark]);
  return el;
}
