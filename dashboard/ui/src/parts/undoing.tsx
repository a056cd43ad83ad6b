// The offer to take back what was just done: it goes by itself, unless somebody is at it.

import { useEffect, useRef, useState } from "preact/hooks";
import { message } from "../lib/api";
import { undo, type Undo } from "../lib/undo";

const T = { label: "What was just done", undo: "Undo", close: "Close" };

const SHOWN_S = 10; // that it can be taken back
const TICK_MS = 1000; // between looks whether it still can

export function Undoing() {
  const u = undo.value;
  return u && <Offer of={u} />;
}

/** What became of an offer: nothing yet, it is being taken back, or over with these words. */
type End = null | "busy" | { said: string; bad?: boolean };

function Offer({ of: u }: { of: Undo }) {
  const [end, setEnd] = useState<End>(null);
  const [corner] = useState(() => (document.querySelector(".toast:not([data-at=ne])") ? "ne" : "se"));
  const at = useRef(false); // whether the pointer or the focus is in it
  const close = () => {
    if (undo.peek() === u) undo.value = null;
  };
  useEffect(() => setEnd(null), [u]);
  useEffect(() => {
    if (end === "busy") return;
    let left = SHOWN_S;
    const timer = setInterval(() => {
      if (!at.current && --left <= 0) return close();
      if (end === null) u.gone?.().then((why) => why && setEnd((now) => now ?? { said: why }), () => undefined); // the next look tells
    }, TICK_MS);
    return () => clearInterval(timer);
  }, [u, end]);
  const run = () => {
    setEnd("busy");
    u.run().then((said) => setEnd({ said }), (e: unknown) => setEnd({ said: message(e), bad: true }));
  };
  const over = end !== null && end !== "busy" ? end : null;
  return (
    <aside class="toast undoing" data-at={corner} aria-label={T.label}
      onPointerEnter={() => { at.current = true; }} onPointerLeave={() => { at.current = false; }}
      onFocusCapture={() => { at.current = true; }} onBlurCapture={() => { at.current = false; }}>
      <svg class={`g ${over?.bad ? "crit" : "ok"}`} viewBox="0 0 12 12" aria-hidden="true">{over?.bad ? <path d="M2 2l8 8M10 2l-8 8" fill="none" stroke="currentColor" stroke-width="2" /> : <path d="M1.5 6.5 4.6 9.6 10.6 2.6" fill="none" stroke="currentColor" stroke-width="2" />}</svg>
      <div>
        <p role="status">{over?.said ?? u.words}</p>
        <p class="act">
          {!over && <button type="button" class="btn" disabled={end === "busy"} onClick={run}>{T.undo}</button>}
          <button type="button" class="btn txt" onClick={close}>{T.close}</button>
        </p>
      </div>
    </aside>
  );
}
