// The rollouts that go on now, each live.

import { useEffect, useState } from "preact/hooks";
import { count, plural } from "../lib/format";
import { subscribe } from "../lib/live";
import type { RolloutBody, RolloutProgress } from "../lib/schema.gen";
import { isHeld, useShipping, whyOf } from "../lib/shipping";

const T = {
  title: "Rollouts",
  live: (n: number) => `${count(n)} live`,
  phase: (name: string, at: number, of: number) => (of > 1 ? `${name}, phase ${at} of ${of}` : name),
  held: "held",
  paused: "paused",
  figures: (p: RolloutProgress, failing: number) => `${count(p.in_flight)} updating, ${count(p.ended)} of ${plural(p.devices, "device", "devices")} through, ${count(failing)} failing.`,
  bar: (p: RolloutProgress) => p.phases.map((x, i) => `${x.name || `phase ${i + 1}`}: ${throughOf(p, i)} of ${x.devices}`).join(", "),
};

const MOST = 5; // shown live

export function LiveRollouts() {
  const s = useShipping();
  const all = s ? [...s.running, ...s.paused, ...s.scheduled.filter((r) => isHeld(r.progress))].slice(0, MOST) : [];
  if (all.length === 0) return null;
  return (
    <section class="sec" aria-labelledby="rollouts-title">
      <header><h2 id="rollouts-title">{T.title}</h2><p class="val">{s && s.running.length > 0 ? T.live(s.running.length) : count(all.length)}</p></header>
      {all.map((r) => <Rollout key={r.id} r={r} />)}
    </section>
  );
}

function Rollout({ r }: { r: RolloutBody }) {
  const [p, set] = useState<RolloutProgress>(r.progress);
  useEffect(() => subscribe(`rollout:${r.id}`, {}, {
    snapshot: (f) => set(f["item"] as RolloutProgress),
    delta: (f) => f["set"] && set(f["set"] as RolloutProgress),
  }), [r.id]);
  const failing = p.phases.reduce((n, x) => n + x.failing, 0);
  const phase = p.phases[p.phase - 1];
  return (
    <div class="ro">
      <div class="h">
        <a href={`/rollouts/${encodeURIComponent(r.id)}`}><b>{r.name}</b></a>
        {isHeld(p) ? <span class="warn" title={whyOf(p)}>{T.held}</span> : p.status === "paused" ? <span class="warn">{T.paused}</span> : phase && <span>{T.phase(phase.name, p.phase, p.phases.length)}</span>}
      </div>
      <div class="stages" role="img" aria-label={T.bar(p)}>
        {p.phases.map((x, i) => <i key={i} style={{ flexGrow: Math.max(1, x.devices) }}><i style={{ width: `${x.devices ? (100 * throughOf(p, i)) / x.devices : 0}%` }} /></i>)}
      </div>
      <small class="val">{T.figures(p, failing)}</small>
    </div>
  );
}

const ENDED = ["confirmed", "failed", "rolled_back", "timed_out", "skipped", "canceled"];

/** How many devices of a phase the rollout is through with. */
function throughOf(p: RolloutProgress, i: number): number {
  const states = p.phases[i]?.states ?? {};
  return ENDED.reduce((n, s) => n + (states[s] ?? 0), 0);
}
