// A bar of parts of a whole, and its legend: colour, shape and word.

import { useLayoutEffect, useRef } from "preact/hooks";
import { count } from "../lib/format";
import { kindOf, STATES, stateWord, type Kind } from "../lib/rollouts";

const TONE: Record<Kind, string> = { done: "ok", busy: "upd", bad: "crit", waits: "idle", out: "off" };

function shape(k: Kind) {
  switch (k) {
    case "done":
      return <circle cx="6" cy="6" r="5" fill="currentColor" />;
    case "busy":
      return <><circle cx="6" cy="6" r="4.3" fill="none" stroke="currentColor" stroke-width="1.5" /><path d="M6 1a5 5 0 0 1 0 10z" fill="currentColor" /></>;
    case "bad":
      return <path d="M6 0l6 6-6 6-6-6z" fill="currentColor" />;
    case "waits":
      return <circle cx="6" cy="6" r="4.4" fill="none" stroke="currentColor" stroke-width="1.4" stroke-dasharray="2.1 2.5" />;
    case "out":
      return <path d="M1.5 6h9" fill="none" stroke="currentColor" stroke-width="2" />;
  }
}

export function KindGlyph({ of }: { of: Kind }) {
  return <svg class={`g ${TONE[of]}`} viewBox="0 0 12 12" aria-hidden="true">{shape(of)}</svg>;
}

/** A state of a device in a rollout. */
export function StateGlyph({ of }: { of: string }) {
  return <KindGlyph of={kindOf(of)} />;
}

/** A part of a bar, as wide as n is of the whole. */
export function Part({ n, of }: { n: number; of: string }) {
  const el = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    if (el.current) el.current.style.flexGrow = String(n);
  }, [n]);
  return <i ref={el} class={of} />;
}

/** The states of devices, one beside the other. */
export function StateBar({ states, label }: { states: Record<string, number>; label: string }) {
  const kinds = new Map<Kind, number>();
  for (const s of STATES) if (states[s]) kinds.set(kindOf(s), (kinds.get(kindOf(s)) ?? 0) + states[s]);
  return <div class="segbar kinds val" role="img" aria-label={label}>{[...kinds].map(([k, n]) => <Part key={k} n={n} of={k} />)}</div>;
}

/** What a bar says in words. */
export function statesText(states: Record<string, number>): string {
  return STATES.filter((s) => states[s]).map((s) => `${count(states[s]!)} ${stateWord(s)}`).join(", ");
}

/** How much of something is done, as a bar with its figures for who does not see it. */
export function Done({ done, total, label }: { done: number; total: number; label: string }) {
  return <div class="segbar kinds val" role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={total} aria-valuenow={done}><Part n={done} of="busy" /><Part n={Math.max(0, total - done)} of="rest" /></div>;
}
