// The roll call: one sentence, the vitals and the bar of states.

import { useLayoutEffect, useRef } from "preact/hooks";
import { ackedPercent, fleet, trace } from "../lib/fleet";
import { now } from "../lib/clock";
import { absolute, bytes, clock, count, plural, rate } from "../lib/format";
import { devicePath, listPath } from "../lib/route";
import type { Cause, Change, Fleet } from "../lib/types";
import { Glyph, MEANING, STATES, WORD } from "../parts/glyph";
import { Spark } from "../parts/spark";

const T = {
  label: "Fleet roll call",
  of: (n: number) => `of ${count(n)} answering`,
  all: "Every device is connected.",
  updating: (n: number) => `${count(n)} of them ${n === 1 ? "is" : "are"} updating`,
  parts: {
    quiet: (n: number) => `${count(n)} quiet for longer than usual`,
    offline: (n: number) => `${count(n)} offline`,
    never: (n: number) => `${count(n)} never connected`,
    unknown: (n: number) => `${count(n)} not heard of since the server started`,
  },
  cause: (since: string) => `Most of the change since ${since} is `,
  gateway: "one gateway, ",
  group: "the group ",
  firmware: "the version ",
  behind: (c: Cause, went: string) => `: ${plural(c.devices, "device", "devices")} ${{ gateway: "behind it", group: "of it", firmware: "with it" }[c.kind]} went ${went}`,
  together: (c: Cause, at: string) => (c.together === c.devices ? ` together at ${at}.` : `, ${count(c.together)} of them together at ${at}.`),
  went: { offline: "offline", quiet: "quiet", "": "silent" },
  inAnHour: (n: number) => `${n > 0 ? "+" : ""}${count(n)} in 1 h`,
  storeDown: (n: number) => `The database cannot be reached. ${plural(n, "message waits", "messages wait")} in the log and will be stored when it is back.`,
  received: "Messages in",
  stored: "Stored within",
  storedHint: (n: number, perSecond: string) => `99 of 100 batches of the last minute took no longer (${plural(n, "batch", "batches")}); ${perSecond} messages a second are stored`,
  p99: "ms p99",
  queued: "Write queue",
  queuedHint: "Messages in the log that are not in the store yet",
  acked: "Commands acked",
  ackedHint: (acked: number, ended: number) => `${count(acked)} of the ${count(ended)} that ended in the last hour, but for those called off`,
  percent: "% 1 h",
  none: "none",
  inHour: "in 1 h",
  inMinute: "in 1 min",
  perSecond: "/s",
  bar: "Devices by state",
};

export function RollCall() {
  const f = fleet.value;
  if (!f) return null;
  return (
    <section class="roll" aria-label={T.label}>
      <div>
        <h1><span class="n val">{count(answering(f))}</span> <span>{T.of(f.total)}</span></h1>
        <p>{sentence(f)}{f.change?.cause && <Why change={f.change} cause={f.change.cause} />}</p>
        {f.store === "down" && <p class="crit">{T.storeDown(f.queued)}</p>}
      </div>
      <Vitals f={f} />
      <Bar f={f} />
    </section>
  );
}

function sentence(f: Fleet): string {
  const c = f.counts;
  const parts = (["offline", "quiet", "never", "unknown"] as const).filter((s) => c[s] > 0).map((s) => T.parts[s](c[s]));
  const away = parts.length === 0 ? T.all : parts.join(", ") + ".";
  return c.updating ? `${T.updating(c.updating)}. ${away}` : away;
}

/** Who is connected and speaks, or has the better reason of an update not to. */
function answering(f: Fleet): number {
  return f.counts.online + (f.counts.updating ?? 0);
}

/** What most of the change has in common, when the server knows one thing. */
function Why({ change, cause }: { change: Change; cause: Cause }) {
  const since = <time title={absolute(change.since)}>{T.cause(clock(change.since, now.value))}</time>;
  const at = clock(cause.at, now.value);
  return <> {since}{T[cause.kind]}<a class="link" href={causePath(cause)}>{cause.name}</a>{T.behind(cause, T.went[cause.state])}{T.together(cause, at)}</>;
}

function causePath({ kind, name }: Cause): string {
  if (kind === "gateway") return devicePath(name);
  return listPath(`${kind === "group" ? "group:" : "fw="}${JSON.stringify(name)}`, "id", "");
}

function Vitals({ f }: { f: Fleet }) {
  const acked = ackedPercent(f);
  return (
    <dl class="vitals">
      <Vital name={T.received} text={rate(f.rates.received)} unit={T.perSecond} line={trace.received} />
      {f.storing && <Vital name={T.stored} text={f.storing.batches > 0 ? milliseconds(f.storing.p99_ms) : T.none} unit={f.storing.batches > 0 ? T.p99 : T.inMinute} line={trace.storing} hint={T.storedHint(f.storing.batches, rate(f.rates.stored))} />}
      <Vital name={T.queued} text={count(f.queued)} unit={f.queued > 0 ? bytes(f.log_bytes) : ""} line={trace.queued} hint={T.queuedHint} />
      {f.commands && <Vital name={T.acked} text={acked === null ? T.none : percent(acked)} unit={acked === null ? T.inHour : T.percent} line={trace.acked} hint={T.ackedHint(f.commands.acked, f.commands.ended)} />}
    </dl>
  );
}

/** Below ten with one digit behind the point, above in whole milliseconds. */
function milliseconds(ms: number): string {
  return ms < 10 ? String(Number(ms.toFixed(1))) : count(Math.round(ms));
}

/** Rounded down, so that 100 is all of them. */
function percent(p: number): string {
  return String(Math.floor(p * 10) / 10);
}

function Vital({ name, text, unit, line, hint }: { name: string; text: string; unit: string; line: number[]; hint?: string }) {
  return (
    <div title={hint}>
      <dt>{name}</dt>
      <dd><span class="val">{text}</span><small>{unit}</small><Spark line={line} /></dd>
    </div>
  );
}

function Bar({ f }: { f: Fleet }) {
  const shown = STATES.filter((s) => (f.counts[s] ?? 0) > 0);
  return (
    <div class="seg">
      <div class="segbar val" aria-hidden="true">
        {shown.map((s) => <Segment key={s} state={s} n={f.counts[s] ?? 0} />)}
      </div>
      <ul class="legend val" aria-label={T.bar}>
        {shown.map((s) => (
          <li key={s} title={MEANING[s]}>
            <a href={listPath(`status:${s}`, "id", "")}><Glyph state={s} /><b>{count(f.counts[s] ?? 0)}</b> {WORD[s]}</a>
            {s !== "updating" && !!f.change?.counts[s] && <em>{T.inAnHour(f.change.counts[s])}</em>}
          </li>
        ))}
      </ul>
    </div>
  );
}

function Segment({ state, n }: { state: string; n: number }) {
  const el = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    if (el.current) el.current.style.flexGrow = String(n);
  }, [n]);
  return <i ref={el} class={state} />;
}
