// What needs a person: each line only when there is something, and each a link to it.

import type { ComponentChildren } from "preact";
import { now } from "../lib/clock";
import { ago, count, counted, plural } from "../lib/format";
import { usePolled } from "../lib/poll";
import { idsQuery } from "../lib/query";
import { isVacant } from "../lib/rollouts";
import { DEAD_PATH, devicePath, inboxPath, listPath } from "../lib/route";
import { isAdmin, may } from "../lib/session";
import { listDeliveries, listDevices, listRejected, type Delivery, type Rejected, type RolloutBody } from "../lib/schema.gen";
import { isHeld, useShipping, whyOf, type Shipping } from "../lib/shipping";

const T = {
  title: "Needs a person",
  none: "Nothing needs you now.",
  silent: (n: number) => `${plural(n, "device is", "devices are")} silent`,
  silentSub: "past their expected check-in, or quiet while connected",
  rejected: (n: number, most: boolean, devices: number) => `${count(n)}${most ? " or more" : ""} ${n === 1 ? "message" : "messages"}${devices > 1 ? ` of ${count(devices)} devices` : ""} ${n === 1 ? "was" : "were"} rejected in the last hour`,
  rejectedSub: (r: Rejected) => `${r.device}: ${r.reason}`,
  unacked: (n: number) => `${counted(n)} ${n === 1 ? "notification asks" : "notifications ask"} for an acknowledgement`,
  held: (name: string) => `The rollout ${name} is held`,
  paused: (name: string) => `The rollout ${name} is paused`,
  waiting: (name: string) => `The rollout ${name} waits for a person`,
  waitingSub: "its phase is over, and the next one needs a decision",
  vacantSub: "no device is in its phase yet: one that joins, or a person, lets it go on",
  dead: (n: number, most: boolean) => `${count(n)}${most ? " or more" : ""} ${n === 1 ? "delivery was" : "deliveries were"} given up`,
  deadSub: (d: Delivery) => `${d.channel}${d.error ? `: ${d.error}` : ""}`,
};

const POLL_MS = 10_000;
const MOST = 100; // of what is listed rather than counted
const HOUR_MS = 3_600_000;

/** What the needs are made of. */
interface Facts {
  silent: number;
  rejected: Rejected[];
  dead: Delivery[];
}

async function ask(stop: AbortSignal): Promise<Facts> {
  const [silent, rejected, dead] = await Promise.all([
    listDevices({ q: "status:silent", limit: 1, total: true }, stop),
    listRejected({ limit: MOST }, stop),
    isAdmin() ? listDeliveries({ state: "dead", limit: MOST }, stop) : { items: [] },
  ]);
  return { silent: silent.total ?? 0, rejected: rejected.items, dead: dead.items };
}

export function Needs({ open }: { open: number }) {
  const f = usePolled(ask, POLL_MS);
  const shipping = useShipping();
  const rollouts = waiting(shipping);
  const known = f !== null && (shipping !== null || !may("firmware:read"));
  const t = now.value;
  const recent = (f?.rejected ?? []).filter((r) => t - Date.parse(r.time) < HOUR_MS);
  const lines = [
    open > 0 && <Need key="unacked" tone="crit" href={inboxPath("open", "")} words={T.unacked(open)} />,
    ...rollouts.map((r) => <Held key={r.id} r={r} />),
    f && f.silent > 0 && <Need key="silent" tone="off" href={listPath("status:silent", "id", "")} words={T.silent(f.silent)} sub={T.silentSub} />,
    recent[0] && <Need key="rejected" tone="warn" href={rejectedPath(recent)} words={T.rejected(recent.length, recent.length === MOST, devicesOf(recent).length)} sub={T.rejectedSub(recent[0])} age={ago(Date.parse(recent[0].time), t)} />,
    f?.dead[0] && <Need key="dead" tone="warn" href={DEAD_PATH} words={T.dead(f.dead.length, f.dead.length === MOST)} sub={T.deadSub(f.dead[0])} age={ago(Date.parse(f.dead[0].ended_at ?? f.dead[0].created_at), t)} />,
  ].filter(Boolean);
  return (
    <section class="sec needs" aria-labelledby="needs-title">
      <header><h2 id="needs-title">{T.title}</h2>{lines.length > 0 && <p class="val">{count(lines.length)}</p>}</header>
      {lines.length > 0 ? <ul>{lines}</ul> : known && <p class="quiet-note">{T.none}</p>}
    </section>
  );
}

/** The rollouts that somebody has to look at. */
function waiting(s: Shipping | null): RolloutBody[] {
  return s ? [...s.paused, ...s.scheduled.filter((r) => isHeld(r.progress)), ...s.running.filter((r) => r.progress.waiting)] : [];
}

function devicesOf(messages: Rejected[]): string[] {
  return [...new Set(messages.map((r) => r.device))];
}

const LONGEST = 2000; // bytes of a query, and at most 60 terms: what the language takes

/** The page of the one device, or the list of just those whose messages were rejected; of the first when they are too many. */
function rejectedPath(messages: Rejected[]): string {
  const ids = devicesOf(messages);
  const q = idsQuery(ids);
  return ids.length === 1 || ids.length > 60 || q.length > LONGEST ? devicePath(ids[0]!) : listPath(q, "id", "");
}

function Held({ r }: { r: RolloutBody }) {
  const waits = r.progress.status === "running";
  const words = waits ? T.waiting(r.name) : isHeld(r.progress) ? T.held(r.name) : T.paused(r.name);
  const sub = waits ? (isVacant(r.progress) ? T.vacantSub : T.waitingSub) : whyOf(r.progress);
  return <Need tone="warn" href={`/rollouts/${encodeURIComponent(r.id)}`} words={words} sub={sub} />;
}

const SHAPES: Record<string, ComponentChildren> = {
  crit: <path d="M6 .2 11.8 6 6 11.8.2 6z" fill="currentColor" />,
  warn: <path d="M6 .8 11.6 11H.4z" fill="currentColor" />,
  off: <circle cx="6" cy="6" r="4.2" fill="none" stroke="currentColor" stroke-width="1.7" />,
};

function Need({ tone, href, words, sub, age }: { tone: string; href: string; words: string; sub?: string; age?: string }) {
  return (
    <li>
      <svg class={`g ${tone}`} viewBox="0 0 12 12" aria-hidden="true">{SHAPES[tone]}</svg>
      <a href={href}>{words}</a>
      {age && <span class="age">{age}</span>}
      {sub && <span class="sub" title={sub}>{sub}</span>}
    </li>
  );
}
