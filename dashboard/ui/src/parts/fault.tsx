// What went wrong with a question, with a way to ask it again.

import type { ComponentChildren } from "preact";
import type { Outcome } from "../lib/ask";

const T = { again: "Try again" };

/** Always there, so that what comes into it is read out. */
export function Fault({ of: q }: { of: Outcome }) {
  return <p class="error" role="alert">{q.fault}{q.again && <> <Again run={q.again} /></>}</p>;
}

/** Stands for a page until what it is about is here: what is waited for, or what went wrong and where to go then. */
export function Pending({ of: q, loading, children }: { of: Outcome; loading: string; children?: ComponentChildren }) {
  if (!q.fault) return <p class="quiet-note">{loading}</p>;
  return <p class="error" role="alert">{q.fault} {q.again && <Again run={q.again} />} {children}</p>;
}

function Again({ run }: { run: () => void }) {
  return <button type="button" class="btn txt again" onClick={run}>{T.again}</button>;
}
