// Messages received and stored, by the minute, over the last hours; what is not known is a gap.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { now } from "../lib/clock";
import { clock, rate, seconds } from "../lib/format";
import { usePolled } from "../lib/poll";
import { getFleetTraffic, type FleetTraffic } from "../lib/schema.gen";
import { theme, token } from "../lib/theme";

const T = {
  title: "Traffic",
  unit: "messages a second, by the minute",
  received: "in",
  stored: "stored",
  since: (at: string) => `counted since ${at}`,
  drawing: (newest: string) => `Messages of telemetry a second over the last three hours. ${newest}`,
  newest: (i: string, s: string) => `In the newest minute ${i} in and ${s} stored.`,
};

const HOURS = 3;
const MINUTE = 60_000;
const LEAST = 15 * MINUTE; // shown of a server that has just started
const POLL_MS = 10_000;
const TALL = 176;

type Data = [number[], (number | null)[], (number | null)[]];

export function Traffic() {
  const t = usePolled((stop) => getFleetTraffic({ from: `now-${HOURS}h` }, stop), POLL_MS);
  const last = t?.items[t.items.length - 1];
  const newest = last && last.seconds > 0 ? T.newest(rate(last.received / last.seconds), rate(last.stored / last.seconds)) : "";
  const young = t && now.value - Date.parse(t.since) < HOURS * 60 * MINUTE;
  return (
    <section class="sec" aria-labelledby="traffic-title">
      <header>
        <h2 id="traffic-title">{T.title}</h2>
        <p>{T.unit}{young ? `, ${T.since(clock(Date.parse(t.since), now.value))}` : ""}</p>
        <div class="r"><Key colour="one" word={T.received} /><Key colour="two" word={T.stored} /></div>
      </header>
      {t ? <Plot t={t} label={T.drawing(newest)} /> : <div class="traffic" />}
    </section>
  );
}

function Key({ colour, word }: { colour: string; word: string }) {
  return <span class="key"><i class={colour} />{word}</span>;
}

/** Minutes from the beginning of the window, or of counting, to its end; null where nothing is known. */
function dataOf(t: FleetTraffic): Data {
  const known = new Map(t.items.filter((m) => m.seconds >= 1).map((m) => [Date.parse(m.at), m]));
  const end = Math.floor(now.peek() / MINUTE) * MINUTE;
  const out: Data = [[], [], []];
  const since = Math.floor(Date.parse(t.since) / MINUTE) * MINUTE;
  const from = Math.max(end - HOURS * 60 * MINUTE, Math.min(since, end - LEAST));
  for (let at = from; at <= end; at += MINUTE) {
    const m = known.get(at);
    out[0].push(at);
    out[1].push(m ? m.received / m.seconds : null);
    out[2].push(m ? m.stored / m.seconds : null);
  }
  return out;
}

function Plot({ t, label }: { t: FleetTraffic; label: string }) {
  const root = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const colours = theme.value;
  useEffect(() => {
    const el = root.current!;
    const u = makePlot(el, dataOf(t));
    plot.current = u;
    const watch = new ResizeObserver(() => u.setSize({ width: el.clientWidth, height: TALL }));
    watch.observe(el);
    return () => {
      watch.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [colours]);
  useEffect(() => plot.current?.setData(dataOf(t)), [t]);
  return <div class="traffic plot" ref={root} role="img" aria-label={label} />;
}

function makePlot(el: HTMLElement, data: Data): uPlot {
  const font = `11px ${token("--font")}`;
  const line = (name: string) => ({ stroke: token(name), width: 1.4, spanGaps: false, points: { show: (u: uPlot, i: number) => lonely(u, i), size: 4, fill: token(name) } });
  const reading = document.createElement("div");
  reading.className = "reading";
  return new uPlot(
    {
      width: el.clientWidth,
      height: TALL,
      ms: 1,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: { range: (_u, _min, max) => [0, Math.max(1, (max ?? 0) * 1.1)] } },
      axes: [
        { size: 20, gap: 4, font, stroke: token("--ink-3"), grid: { show: false }, ticks: { show: false }, space: 90, values: (u, at) => at.map((v) => (u.valToPos(v, "x") < EDGE ? "" : seconds(v).slice(0, 5))) },
        { size: 44, gap: 6, font, stroke: token("--ink-3"), grid: { stroke: token("--rule"), width: 1 }, ticks: { show: false }, space: 40, values: (_u, at) => at.map((v) => short(v)) },
      ],
      series: [{}, line("--series-1"), line("--series-2")],
      hooks: {
        ready: [(u) => u.over.append(reading)],
        setCursor: [(u) => read(u, reading)],
      },
    },
    data,
    el,
  );
}

const EDGE = 16; // px from the left, where a time would meet the scale's zero

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function short(v: number): string {
  return compact.format(v);
}

/** Points are shown where a minute stands alone: no line would show it. */
function lonely(u: uPlot, series: number): boolean {
  return Array.from(u.data[series]!).filter((v) => v != null).length < 3;
}

function read(u: uPlot, el: HTMLElement): void {
  const { idx, left } = u.cursor;
  const v = idx == null ? null : u.data[1]![idx];
  el.hidden = left === undefined || left < 0 || v == null;
  if (el.hidden) return;
  el.textContent = `${seconds(u.data[0][idx!]!).slice(0, 5)}  ${rate(v!)} ${T.received}, ${rate(u.data[2]![idx!] ?? 0)} ${T.stored}`;
  const flip = left! > u.over.clientWidth - 170;
  el.style.transform = `translate(${left! + (flip ? -8 : 8)}px, 4px)${flip ? " translateX(-100%)" : ""}`;
}
