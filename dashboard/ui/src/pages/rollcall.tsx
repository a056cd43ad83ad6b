// The roll call: one sentence, the vitals and the bar of states.

import { useLayoutEffect, useRef } from "preact/hooks";
import { fleet, trace } from "../lib/fleet";
import { bytes, count, plural, rate } from "../lib/format";
import type { Fleet } from "../lib/types";
import { Glyph, MEANING, STATES, WORD } from "../parts/glyph";
import { Spark } from "../parts/spark";

const T = {
  label: "Fleet roll call",
  of: (n: number) => `of ${count(n)} answering`,
  all: "Every device is connected.",
  parts: {
    quiet: (n: number) => `${count(n)} quiet for longer than usual`,
    offline: (n: number) => `${count(n)} offline`,
    never: (n: number) => `${count(n)} never connected`,
    unknown: (n: number) => `${count(n)} not heard of since the server started`,
  },
  storeDown: (n: number) => `The database cannot be reached. ${plural(n, "message waits", "messages wait")} in the log and will be stored when it is back.`,
  received: "Messages in",
  stored: "Stored",
  queued: "Waiting to be stored",
  perSecond: "/s",
  bar: "Devices by state",
};

export function RollCall() {
  const f = fleet.value;
  if (!f) return null;
  return (
    <section class="roll" aria-label={T.label}>
      <div>
        <h1><span class="n val">{count(f.counts.online)}</span> <span>{T.of(f.total)}</span></h1>
        <p>{sentence(f)}</p>
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
  return parts.length === 0 ? T.all : parts.join(", ") + ".";
}

function Vitals({ f }: { f: Fleet }) {
  return (
    <dl class="vitals">
      <Vital name={T.received} text={rate(f.rates.received)} unit={T.perSecond} line={trace.received} />
      <Vital name={T.stored} text={rate(f.rates.stored)} unit={T.perSecond} line={trace.stored} />
      <Vital name={T.queued} text={count(f.queued)} unit={f.queued > 0 ? bytes(f.log_bytes) : ""} line={trace.queued} />
    </dl>
  );
}

function Vital({ name, text, unit, line }: { name: string; text: string; unit: string; line: number[] }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd><span class="val">{text}</span><small>{unit}</small><Spark line={line} /></dd>
    </div>
  );
}

function Bar({ f }: { f: Fleet }) {
  const shown = STATES.filter((s) => f.counts[s] > 0);
  return (
    <div class="seg">
      <div class="segbar val" aria-hidden="true">
        {shown.map((s) => <Segment key={s} state={s} n={f.counts[s]} />)}
      </div>
      <ul class="legend val" aria-label={T.bar}>
        {shown.map((s) => (
          <li key={s} title={MEANING[s]}><Glyph state={s} /><b>{count(f.counts[s])}</b> {WORD[s]}</li>
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
