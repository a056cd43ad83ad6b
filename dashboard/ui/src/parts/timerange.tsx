// Which time is shown: ranges that end now, steps, an absolute one, and the zone.

import { useState } from "preact/hooks";
import { serverNow } from "../lib/clock";
import { dayOf, endsOf, moves, range, RANGES, setUTC, show, showBetween, step, utc, zoneName, zoomOut } from "../lib/range";

const T = {
  range: "Time range",
  earlier: "Earlier",
  later: "Later",
  out: "Zoom out",
  now: "Back to now",
  custom: "From and to",
  from: "From",
  to: "To",
  apply: "Show",
  bad: "From must be before to.",
  zone: "Time zone",
  utc: "UTC",
};

/** The buttons of the range; the range itself is in the address. */
export function TimeRange() {
  const [open, setOpen] = useState(false);
  const r = range.value;
  const live = moves(r);
  const [from, to] = endsOf(r, serverNow());
  return (
    <div class="timerange">
      <button type="button" class="btn step" aria-label={T.earlier} title={T.earlier} onClick={() => step(-0.5, serverNow())}>‹</button>
      <div class="tabs" role="group" aria-label={T.range}>
        {RANGES.map((x) => (
          <button key={x.key} type="button" aria-pressed={live && r.from === `now-${x.key}`} onClick={() => show({ from: `now-${x.key}`, to: "now" })}>{x.words}</button>
        ))}
      </div>
      <button type="button" class="btn step" aria-label={T.later} title={T.later} disabled={live} onClick={() => step(0.5, serverNow())}>›</button>
      <button type="button" class="btn txt" onClick={() => zoomOut(serverNow())}>{T.out}</button>
      {!live && <button type="button" class="btn txt" onClick={() => show({ from: "now-15m", to: "now" })}>{T.now}</button>}
      <button type="button" class="btn txt" aria-expanded={open} onClick={() => setOpen(!open)}>{live ? T.custom : `${dayOf(from)} – ${dayOf(to)}`}</button>
      <Zone />
      {open && <Custom from={from} to={to} onDone={() => setOpen(false)} />}
    </div>
  );
}

function Zone() {
  if (zoneName() === "UTC") return null; // both are the same
  return (
    <div class="tabs" role="group" aria-label={T.zone}>
      <button type="button" aria-pressed={!utc.value} onClick={() => setUTC(false)}>{zoneName()}</button>
      <button type="button" aria-pressed={utc.value} onClick={() => setUTC(true)}>{T.utc}</button>
    </div>
  );
}

/** A time as a field of type datetime-local writes it, in the chosen zone. */
function field(t: number): string {
  const shift = utc.value ? 0 : new Date(t).getTimezoneOffset() * 60_000;
  return new Date(t - shift).toISOString().slice(0, 19);
}

function Custom({ from, to, onDone }: { from: number; to: number; onDone: () => void }) {
  const [a, setA] = useState(field(from));
  const [b, setB] = useState(field(to));
  const [fault, setFault] = useState("");
  const submit = (e: Event) => {
    e.preventDefault();
    const at = (s: string) => Date.parse(utc.value ? s + "Z" : s);
    if (!(at(a) < at(b))) return setFault(T.bad);
    showBetween(at(a), at(b));
    onDone();
  };
  return (
    <form class="between" onSubmit={submit}>
      <label>{T.from} <input type="datetime-local" step="1" value={a} onInput={(e) => setA(e.currentTarget.value)} /></label>
      <label>{T.to} <input type="datetime-local" step="1" value={b} onInput={(e) => setB(e.currentTarget.value)} /></label>
      <button type="submit" class="btn">{T.apply}</button>
      <p class="error" role="alert">{fault}</p>
    </form>
  );
}
