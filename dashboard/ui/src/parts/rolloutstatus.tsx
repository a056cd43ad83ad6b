// How a rollout stands, as shape, colour and word.

import type { RolloutProgress } from "../lib/schema.gen";
import { isHeld } from "../lib/shipping";

const T = { waits: "waits for approval", held: "held" };

const TONE: Record<RolloutProgress["status"], string> = { draft: "idle", scheduled: "idle", running: "upd", paused: "warn", completed: "ok", aborted: "off" };

export function RolloutStatus({ of: p }: { of: RolloutProgress }) {
  const held = isHeld(p);
  const asks = held || (p.status === "running" && p.waiting);
  const tone = asks ? "warn" : TONE[p.status];
  const word = held ? T.held : asks ? T.waits : p.status;
  return <span class={`status ${tone}`}><svg class="g" viewBox="0 0 12 12" aria-hidden="true">{shape(asks ? "paused" : p.status)}</svg> {word}</span>;
}

function shape(s: RolloutProgress["status"]) {
  switch (s) {
    case "running":
      return <><circle cx="6" cy="6" r="4.3" fill="none" stroke="currentColor" stroke-width="1.5" /><path d="M6 1a5 5 0 0 1 0 10z" fill="currentColor" /></>;
    case "paused":
      return <path d="M6 .8 11.6 11H.4z" fill="currentColor" />;
    case "completed":
      return <circle cx="6" cy="6" r="5" fill="currentColor" />;
    case "aborted":
      return <path d="M2 2l8 8M10 2l-8 8" fill="none" stroke="currentColor" stroke-width="2" />;
    default:
      return <circle cx="6" cy="6" r="4.4" fill="none" stroke="currentColor" stroke-width="1.4" stroke-dasharray="2.1 2.5" />;
  }
}
