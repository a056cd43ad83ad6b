// Rollouts: how far they are, live, and what is said about them.

import { useEffect, useState } from "preact/hooks";
import { count, plural } from "./format";
import { subscribe } from "./live";
import type { RolloutBody, RolloutPhase, RolloutPhaseProgress, RolloutPlan, RolloutProgress } from "./schema.gen";
import { whyOf } from "./shipping";

const T = {
  draft: "A draft: nothing is offered.",
  agree: (have: number, need: number) => `A draft: ${have} of ${plural(need, "person", "people")} agreed to it.`,
  scheduled: "It waits for its time.",
  scheduledAgreed: (have: number, need: number) => `It waits for its time: ${have} of ${plural(need, "person", "people")} agreed to it.`,
  unapproved: (have: number, need: number) => `Its time has come, and ${have} of ${plural(need, "person", "people")} agreed to it.`,
  waits: (name: string) => `Phase ${name} is over, and a person must approve before the next begins.`,
  vacant: (name: string) => `Phase ${name} has no device yet: it waits until one joins, or a person lets the next begin.`,
  running: (flying: number, most: number) => `${count(flying)} of at most ${count(most)} are being updated.`,
  none: "No device has joined yet.",
  completed: (n: number) => `Done: ${plural(n, "device has", "devices have")} it.`,
  because: (why: string) => `${why.charAt(0).toUpperCase()}${why.slice(1)}.`,
};

export type RolloutState = keyof typeof KINDS;

/** How a state counts in bars. */
export type Kind = "done" | "busy" | "bad" | "waits" | "out";

const KINDS = {
  confirmed: "done", offered: "busy", downloading: "busy", downloaded: "busy", installing: "busy", rebooting: "busy",
  failed: "bad", rolled_back: "bad", timed_out: "bad", queued: "waits", skipped: "out", canceled: "out",
} as const satisfies Record<string, Kind>;

/** Every state, in the order of bars and legends. */
export const STATES = Object.keys(KINDS) as RolloutState[];

export function kindOf(state: string): Kind {
  return KINDS[state as RolloutState] ?? "waits";
}

/** A state in words. */
export function stateWord(state: string): string {
  return state.replaceAll("_", " ");
}

/** The states of phases together. */
export function totals(phases: readonly RolloutPhaseProgress[]): Record<string, number> {
  const out: Record<string, number> = {};
  for (const p of phases) for (const [s, n] of Object.entries(p.states)) out[s] = (out[s] ?? 0) + n;
  return out;
}

export function hasEnded(p: RolloutProgress): boolean {
  return p.status === "completed" || p.status === "aborted";
}

/** How many people have agreed who may do so now. */
export function agreed(r: RolloutBody): number {
  return r.approvals.filter((a) => a.counts).length;
}

/** Whether no device is in the phase that it is in. */
export function isVacant(p: RolloutProgress): boolean {
  return p.phases[p.phase - 1]?.devices === 0;
}

/** How a rollout stands, in a sentence after its status. */
export function sentence(r: RolloutBody, p: RolloutProgress): string {
  switch (p.status) {
    case "draft":
      return r.min_approvals ? T.agree(agreed(r), r.min_approvals) : T.draft;
    case "scheduled":
      return p.reason === "approvals" ? T.unapproved(agreed(r), r.min_approvals ?? 0) : r.min_approvals ? T.scheduledAgreed(agreed(r), r.min_approvals) : T.scheduled;
    case "paused":
    case "aborted":
      return whyOf(p) && T.because(whyOf(p)); // its status, which stands before it, says the rest
    case "completed":
      return T.completed(totals(p.phases)["confirmed"] ?? 0);
    case "running":
      if (p.waiting) return (isVacant(p) ? T.vacant : T.waits)(p.phases[p.phase - 1]?.name || String(p.phase));
      return p.devices === 0 ? T.none : T.running(p.in_flight, p.concurrent);
  }
}

/** The plan of a rollout with what the server puts in for what is absent. */
export function phasesOf(plan: RolloutPlan): RolloutPhase[] {
  return plan.phases ?? [];
}

/** The progress of a rollout as it happens, beginning with what the API said; without follow it stays so. */
export function useProgress(first: RolloutProgress, follow = true): RolloutProgress {
  const [p, setP] = useState(first);
  useEffect(() => {
    setP(first);
    if (!follow || (hasEnded(first) && first.in_flight === 0)) return;
    return subscribe("rollout:" + first.id, {}, {
      snapshot: (f) => setP(f["item"] as RolloutProgress),
      delta: (f) => setP((old) => ({ ...old, ...(f["set"] as Partial<RolloutProgress>) })),
    });
  }, [first, follow]);
  return p;
}

export function rolloutPath(id: string, state = "", reason = ""): string {
  const q = new URLSearchParams({ ...(state && { state }), ...(reason && { reason }) }).toString();
  return "/rollouts/" + encodeURIComponent(id) + (q && "?" + q);
}
