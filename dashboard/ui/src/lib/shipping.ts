// The rollouts that have not ended, as the rail and the Overview show them: one question for all of them.

import { shared } from "./poll";
import { listRollouts, type RolloutBody, type RolloutProgress } from "./schema.gen";
import { may } from "./session";

const POLL_MS = 10_000;

/** How many of each kind are counted. */
export const MOST_SHIPPING = 100;

export interface Shipping {
  running: RolloutBody[];
  paused: RolloutBody[];
  scheduled: RolloutBody[];
}

/** The newest answer; null before the first, and to whom may not see firmware. */
export const useShipping = shared(async (stop): Promise<Shipping | null> => {
  if (!may("firmware:read")) return null;
  const of = async (status: keyof Shipping) => (await listRollouts({ status, limit: MOST_SHIPPING }, stop)).items;
  const [running, paused, scheduled] = await Promise.all([of("running"), of("paused"), of("scheduled")]);
  return { running, paused, scheduled };
}, POLL_MS);

/** Whether a rule stopped a rollout, or keeps it from beginning: nobody paused it. */
export function isHeld(p: RolloutProgress): boolean {
  return (p.status === "paused" && p.reason !== "operator") || (p.status === "scheduled" && p.reason === "approvals");
}

/** Why a rollout is held, paused or aborted, in words. */
export function whyOf(p: RolloutProgress): string {
  return WHY[p.reason ?? ""] ?? p.reason ?? "";
}

const WHY: Partial<Record<string, string>> = {
  operator: "by a person", failure_threshold: "too many devices failed", success_threshold: "too few devices succeeded", nothing_proved: "its phase is over, and no device was confirmed", regression: "the telemetry of updated devices is worse",
  release_revoked: "its release was revoked", release_deprecated: "its time has come, its release is deprecated, and no rollout begins with it", superseded: "another rollout took its devices", approvals: "its time has come, and more people must agree to it",
};
