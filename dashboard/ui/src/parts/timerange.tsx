// Which time is shown: ranges that end now, steps, an absolute one, and the zone.

import { useEffect, useState } from "preact/hooks";
import { serverNow } from "../lib/clock";
import { dayOf, endsOf, moves, range, RANGES, show, showBetween, step, zoomOut } from "../lib/range";
import { fromWall, timeZone, wallTime } from "../lib/zone";
import { ZoneSwitch } from "./zoneswitch";

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
      <ZoneSwitch long />
      {open && <Custom from={from} to={to} onDone={() => setOpen(false)} />}
    </div>
  );
}

interface Moment {
  text: string; // as it is typed, in the chosen zone
  at: number; // NaN while it is no time
}

/** A moment that is typed. In another zone it is written otherwise, and stays the same moment. */
function useMoment(first: number): [Moment, (text: string) => void] {
  const [m, set] = useState<Moment>({ text: wallTime(first), at: first });
  const zone = timeZone();
  useEffect(() => set((old) => (Number.isNaN(old.at) ? old : { ...old, text: wallTime(old.at) })), [zone]);
  return [m, (text) => set({ text, at: text ? fromWall(text) : NaN })];
}

function Custom({ from, to, onDone }: { from: number; to: number; onDone: () => void }) {
  const [a, setA] = useMoment(from);
  const [b, setB] = useMoment(to);
  const [fault, setFault] = useState("");
  const submit = (e: Event) => {
    e.preventDefault();
    if (!(a.at < b.at)) return setFault(T.bad);
    showBetween(a.at, b.at);
    onDone();
  };
  return (
    <form class="between" onSubmit={submit}>
      <label>{T.from} <input type="datetime-local" step="1" value={a.text} onInput={(e) => setA(e.currentTarget.value)} /></label>
      <label>{T.to} <input type="datetime-local" step="1" value={b.text} onInput={(e) => setB(e.currentTarget.value)} /></label>
      <button type="submit" class="btn">{T.apply}</button>
      <p class="error" role="alert">{fault}</p>
    </form>
  );
}
