// The tab Live of a device: its signals with one crosshair, and what stands beside them.

import { useEffect } from "preact/hooks";
import { held } from "../lib/held";
import { now } from "../lib/clock";
import type { DeviceModel } from "../lib/device";
import { clock, count, duration, plural } from "../lib/format";
import { welcome } from "../lib/live";
import { range } from "../lib/range";
import type { PresenceDetail } from "../lib/schema.gen";
import type { DeviceItem } from "../lib/types";
import { Chart } from "../parts/chart";
import { TimeRange } from "../parts/timerange";
import { ConnectLine } from "./connect";
import { LedgerTable, Rejected, SessionsTable, TextValues } from "./deviceside";

const T = {
  signals: "Signals",
  readings: (n: number) => `${plural(n, "reading", "readings")}, shown as least and greatest per pixel`,
  left: (n: number) => `, without ${plural(n, "more key", "more keys")}`,
  loading: "loading",
  cut: (n: number, t: string) => `the newest ${count(n)} readings, back to ${t}`,
  failed: (why: string) => `The history could not be loaded: ${why}`,
  again: "Try again",
  drag: "Drag to zoom",
  noSignals: "No numeric value in this range.",
  showMore: (n: number) => `Show ${plural(n, "more signal", "more signals")}`,
  connect: "Connect it",
  reachable: "Reachable, 24 h",
  uptime: "reachable in 30 days",
  stretch: (state: string, ms: number) => `${state} for ${duration(ms)}`,
  dayAgo: "24 h ago",
  today: "now",
};

const FIRST_CHARTS = 8;

export function LiveTab({ model, d }: { model: DeviceModel; d: DeviceItem }) {
  if (d.state === "never" && d.last_seen === 0) return <NeverConnected id={d.id} />;
  return (
    <div class="cols">
      <div class="main">
        <Signals model={model} />
        {model.presence.value && <Reachable p={model.presence.value} />}
      </div>
      <div class="side">
        <TextValues values={d.values} />
        <LedgerTable ledger={d.ledger} />
        <SessionsTable seen={model.sessions.value} />
        <Rejected items={model.rejected.value} total={d.ledger.rejected} />
      </div>
    </div>
  );
}

function NeverConnected({ id }: { id: string }) {
  if (!welcome.value) return null;
  return (
    <section class="sec">
      <header><h2>{T.connect}</h2></header>
      <ConnectLine id={id} />
    </section>
  );
}

function Signals({ model }: { model: DeviceModel }) {
  const [charts, setCharts] = held("charts", ["first", "all"]);
  const all = charts === "all";
  const r = range.value;
  useEffect(() => model.ranged(), [r.from, r.to]);
  const [from, to] = model.window();
  model.frame.value;
  const keys = model.keys.value.filter((k) => model.points(k).extent(from, to).n > 0 || typeof model.item.peek()?.values[k]?.v === "number");
  const shown = all ? keys : keys.slice(0, FIRST_CHARTS);
  const h = model.history.value;
  return (
    <section class="sec" aria-labelledby="signals-title">
      <header>
        <h2 id="signals-title">{T.signals}</h2>
        <p>{h.state === "loading" && h.readings === 0 ? T.loading : h.state === "cut" ? T.cut(h.readings, clock(h.from, now.value)) : T.readings(h.readings)}{h.left > 0 && T.left(h.left)}</p>
        {keys.length > 0 && <div class="r"><span class="hint">{T.drag}</span></div>}
      </header>
      <TimeRange />
      {h.state === "failed" && (
        <p class="error" role="alert">{T.failed(h.error)} <button type="button" class="btn txt" onClick={() => void model.load()}>{T.again}</button></p>
      )}
      {keys.length === 0 && h.state !== "loading" && <p class="quiet-note">{T.noSignals}</p>}
      {shown.map((k, i) => <Chart key={k} model={model} name={k} index={i} last={i === shown.length - 1} />)}
      {keys.length > shown.length && (
        <button type="button" class="btn more" onClick={() => setCharts("all")}>{T.showMore(keys.length - shown.length)}</button>
      )}
    </section>
  );
}

const DAY = 24 * 3_600_000;

/** The last day as one strip: each state by its height and colour, and in words for who cannot see it. */
function Reachable({ p }: { p: PresenceDetail }) {
  const end = Date.parse(p.strip[p.strip.length - 1]?.to ?? "");
  if (!end) return null;
  const at = (t: string) => ((Date.parse(t) - (end - DAY)) / DAY) * 1000;
  const away = p.strip.filter((s) => s.state === "offline" || s.state === "quiet");
  const words = away.slice(-5).map((s) => T.stretch(s.state, Date.parse(s.to) - Date.parse(s.from))).join(", ");
  return (
    <section class="reach" aria-label={T.reachable}>
      <div>
        <div class="n">{T.reachable}</div>
        {p.uptime_30d.percent != null && <div class="v val">{p.uptime_30d.percent}<small>%</small></div>}
        <div class="m">{T.uptime}</div>
      </div>
      <div>
        <svg viewBox="0 0 1000 24" preserveAspectRatio="none" role="img" aria-label={words || T.reachable}>
          {p.strip.map((s) => {
            const x = Math.max(0, at(s.from));
            const tall = s.state === "online" ? 24 : s.state === "quiet" ? 16 : s.state === "offline" ? 8 : 4;
            return <rect key={s.from} class={`p-${s.state}`} x={x} y={24 - tall} width={Math.max(0, at(s.to) - x)} height={tall}><title>{`${clock(Date.parse(s.from), now.peek())}: ${T.stretch(s.state, Date.parse(s.to) - Date.parse(s.from))}`}</title></rect>;
          })}
        </svg>
        <div class="ends"><span>{T.dayAgo}</span><span>{T.today}</span></div>
      </div>
    </section>
  );
}
