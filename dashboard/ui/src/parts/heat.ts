// A short tint on what has just changed. It fades in two steps that all cells take together, and
// not as an animation: one fading cell would have the whole page drawn sixty times a second.

import { useLayoutEffect, useRef } from "preact/hooks";
import type { RefObject } from "preact";

const STEP_MS = 400; // longer than two frames of the server are apart: what changes in each stays tinted

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** The tinted elements, each for three steps at most after its last change: when that was. */
const hot = new Map<HTMLElement, number>();
let timer = 0;

/** Tints the element that has the returned ref whenever mark changes. */
export function useHeat<E extends HTMLElement>(mark: unknown): RefObject<E | null> {
  const el = useRef<E>(null);
  const before = useRef(mark);
  useLayoutEffect(() => {
    if (Object.is(before.current, mark)) return;
    before.current = mark;
    if (!still.matches && !document.hidden && el.current) heat(el.current);
  }, [mark]);
  return el;
}

function heat(el: HTMLElement): void {
  hot.set(el, performance.now());
  if (!el.classList.contains("hot")) {
    el.classList.remove("warm");
    el.classList.add("hot");
  }
  timer ||= window.setTimeout(cool, STEP_MS);
}

function cool(): void {
  const t = performance.now();
  for (const [el, at] of hot) {
    if (t - at >= 2 * STEP_MS) {
      el.classList.remove("hot", "warm");
      hot.delete(el);
    } else if (t - at >= STEP_MS) {
      el.classList.replace("hot", "warm");
    }
  }
  timer = hot.size > 0 ? window.setTimeout(cool, STEP_MS) : 0;
}
