// The plan of a rollout from what a form holds: what is left empty is left to the server.

import { numberIn } from "./form";
import { rowsOf, type Row } from "../parts/rows";
import type { RolloutPhase, RolloutPlan, RolloutRegression, RolloutThreshold, RolloutWindow } from "./schema.gen";

const NUMBERS = ["concurrent", "per_minute", "attempts", "retry_s", "soak_s"] as const;
const SILENCES = ["offered_s", "downloading_s", "installing_s", "rebooting_s"] as const;

/** The fields of a plan, by their pointers in a rollout. */
export type PlanField = `plan/${(typeof NUMBERS)[number] | "on_failure" | "zone" | "phases" | "windows"}` | `plan/deadlines/${(typeof SILENCES)[number]}` | "regressions";

export function planOf(v: Record<PlanField, string>): RolloutPlan {
  const plan: RolloutPlan = {};
  for (const n of NUMBERS) if (v[`plan/${n}`].trim()) plan[n] = numberIn(`plan/${n}`, v[`plan/${n}`]);
  if (v["plan/on_failure"] === "abort") plan.on_failure = "abort";
  if (v["plan/zone"].trim()) plan.zone = v["plan/zone"].trim();
  const deadlines = Object.fromEntries(SILENCES.filter((s) => v[`plan/deadlines/${s}`].trim()).map((s) => [s, numberIn(`plan/deadlines/${s}`, v[`plan/deadlines/${s}`])]));
  if (Object.keys(deadlines).length > 0) plan.deadlines = deadlines;
  const phases = rowsOf(v["plan/phases"]).map(phaseOf);
  for (const [i, r] of rowsOf(v.regressions).entries()) {
    const phase = phases[numberIn(`regressions/${i}/phase`, r["phase"] ?? "") - 1];
    if (!phase) throw new Error(`There is no phase ${r["phase"]} for the telemetry ${r["key"]}: add the phases first.`);
    phase.regression = regressionOf(r, `regressions/${i}`);
  }
  if (phases.length > 0) plan.phases = phases;
  const windows = rowsOf(v["plan/windows"]).map(windowOf);
  if (windows.length > 0) plan.windows = windows;
  return plan;
}

const SHARE = /^(\d+(?:\.\d+)?)\s*%$/;

/** What a cell holds as a number; undefined when it is empty. */
function number(at: string, text: string | undefined, measure = false): number | undefined {
  return text?.trim() ? numberIn(at, text, measure) : undefined;
}

function phaseOf(r: Row, i: number): RolloutPhase {
  const at = `plan/phases/${i}`;
  const devices = (r["devices"] ?? "").trim();
  const share = SHARE.exec(devices);
  const success = number(`${at}/success`, r["success"], true);
  const soak = number(`${at}/soak`, r["soak"]);
  const failure = thresholdOf(r, at);
  return {
    ...(r["name"]?.trim() && { name: r["name"].trim() }),
    ...(share ? { percent: Number(share[1]) } : /^\d+$/.test(devices) ? { count: Number(devices) } : { q: devices }),
    ...(success !== undefined && { success }), ...(soak !== undefined && { soak_s: soak }), ...(failure && { failure }),
    gate: r["gate"] === "manual" ? "manual" : "auto",
  };
}

function thresholdOf(r: Row, at: string): RolloutThreshold | undefined {
  const stop = (r["stop"] ?? "").trim();
  if (!stop) return undefined;
  const share = SHARE.exec(stop);
  const sample = number(`${at}/sample`, r["sample"]);
  return { ...(share ? { percent: Number(share[1]) } : { absolute: numberIn(`${at}/stop`, stop) }), ...(sample !== undefined && { min_sample: sample }) };
}

function regressionOf(r: Row, at: string): RolloutRegression {
  const [percent, window, devices] = [number(`${at}/percent`, r["percent"], true), number(`${at}/window`, r["window"]), number(`${at}/devices`, r["devices"])];
  return {
    key: (r["key"] ?? "").trim(), worse: r["worse"] === "down" ? "down" : "up", aggregate: (r["aggregate"] ?? "avg") as "avg",
    ...(percent !== undefined && { percent }), ...(window !== undefined && { window_s: window }), ...(devices !== undefined && { min_devices: devices }),
  };
}

function windowOf(r: Row): RolloutWindow {
  const days = (r["days"] ?? "").toLowerCase().split(/[\s,]+/).filter(Boolean);
  return { from: (r["from"] ?? "").trim(), to: (r["to"] ?? "").trim(), ...(days.length > 0 && { days: days as NonNullable<RolloutWindow["days"]> }) };
}
