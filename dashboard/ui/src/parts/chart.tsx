// One key's line: the name and the value on the left, the line on the right,
// the least to the greatest of each pixel, with the silences shaded and the crosshair shared between all charts.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { now } from "../lib/clock";
import type { DeviceModel } from "../lib/device";
import { duration, end, exact, value, within } from "../lib/format";
import { isLive, link } from "../lib/live";
import { dayOf, moves, range, showBetween, timeOf } from "../lib/range";
import { search, setSearch } from "../lib/route";
import type { Series } from "../lib/series";
import { theme, token } from "../lib/theme";
import { offsetAt, timeZone } from "../lib/zone";

const COLOURS = ["--series-1", "--series-2", "--series-3", "--ink-2"];
const TALL = 138;
const LOW = 78;
const AXIS = 20;
const GUTTER = 52; // px at the right, for the ends of the value axis

const LEAST_DRAG = 4; // px; less is a click
const MINUTE = 60_000;
/** What the time axis may step by, in ms. */
const STEPS = [1, 2, 5, 10, 15, 30].flatMap((n) => [n * 1000, n * MINUTE]).concat([1, 2, 3, 4, 6, 12, 24, 48, 96, 168, 336, 720].map((n) => n * 60 * MINUTE)).sort((a, b) => a - b);

const T = {
  noData: (ms: number) => `no data ${duration(ms)}`,
  unseen: (ms: number) => `not connected ${duration(ms)}`,
  unseenSince: (time: string) => `, not connected since ${time}`,
  spread: (min: number, max: number) => (min === max ? `steady at ${value(min)}` : `${end(min, max - min, "least")} to ${end(max, max - min, "greatest")}`),
  single: "one reading",
  nothing: "nothing in this range",
  drawing: (key: string, from: string, to: string) => `${key} from ${from} to ${to}`,
};

interface Props {
  model: DeviceModel;
  name: string;
  index: number;
  last: boolean;
}

export function Chart({ model, name, index, last }: Props) {
  const root = useRef<HTMLDivElement>(null);
  const points = model.points(name);
  model.frame.value;
  const [from, to] = model.window();
  const e = points.extent(from, to);
  const latest = model.item.value?.values[name];
  const colours = theme.value + " " + timeZone();
  const l = link.value;
  const unseen = "since" in l && l.since > from && moves(range.value) ? l.since : 0;
  const plot = useRef<uPlot | null>(null);
  useEffect(() => {
    const el = root.current!;
    model.width = el.clientWidth;
    const u = makePlot(el, model, points, index, last);
    plot.current = u;
    const watch = new ResizeObserver(() => u.setSize({ width: el.clientWidth, height: heightOf(index, last) }));
    watch.observe(el);
    return () => {
      watch.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [colours, last, index, points]);
  useEffect(() => {
    const frame = requestAnimationFrame(() => redraw(plot.current, points, from, to));
    return () => cancelAnimationFrame(frame);
  });
  return (
    <div class="chart" data-key={name}>
      <div>
        <div class="n" title={name}>{name}</div>
        <div class="v val" title={latest ? exact(latest.v) : undefined}>{latest ? value(latest.v) : ""}</div>
        <div class="m">{e.n > 0 ? (e.n === 1 ? T.single : T.spread(e.min, e.max)) : T.nothing}</div>
      </div>
      <div class="plot" ref={root} role="img" aria-label={T.drawing(name, dayOf(from), dayOf(to)) + (unseen ? T.unseenSince(timeOf(unseen)) : "")} />
    </div>
  );
}

function heightOf(index: number, last: boolean): number {
  return (index === 0 ? TALL : LOW) + (last ? AXIS : 0);
}

function redraw(u: uPlot | null, s: Series, from: number, to: number): void {
  if (!u) return;
  const pinned = Date.parse(search.peek().get("at") ?? "");
  u.batch(() => {
    u.setData([s.xs, s.high, s.low], false);
    u.setScale("x", { min: from, max: to });
  });
  if (pinned >= from && pinned <= to && !u.root.parentElement?.closest(".sec")?.querySelector(".u-over:hover")) u.setCursor({ left: u.valToPos(pinned, "x"), top: 1 }, true);
}

/** A click pins the crosshair, of all charts, and a double click lets it go: the address has it. */
function pin(u: uPlot): void {
  let down = 0;
  u.over.addEventListener("pointerdown", (e) => {
    down = e.clientX;
  });
  u.over.addEventListener("click", (e) => {
    if (Math.abs(e.clientX - down) < LEAST_DRAG && (u.cursor.left ?? -1) >= 0) setSearch({ at: new Date(u.posToVal(u.cursor.left!, "x")).toISOString() }, true);
  });
  u.over.addEventListener("dblclick", () => setSearch({ at: "" }, true));
}

function makePlot(el: HTMLElement, model: DeviceModel, s: Series, index: number, last: boolean): uPlot {
  const colour = token(COLOURS[index % COLOURS.length]!);
  const font = `11px ${token("--font")}`;
  const label = document.createElement("div");
  label.className = "reading";
  const when = document.createElement("div");
  when.className = "when";
  const options: uPlot.Options = {
    width: el.clientWidth,
    height: heightOf(index, last),
    ms: 1,
    padding: [4, GUTTER, last ? 0 : 4, 0],
    legend: { show: false },
    cursor: {
      y: false,
      drag: { x: true, y: false, setScale: false },
      sync: { key: "device" },
      points: { size: 7, width: 0, stroke: colour, fill: colour },
    },
    scales: { x: { time: true, auto: false }, y: { range: (_u, min, max) => spread(min, max) } },
    axes: [
      { show: last, size: AXIS, gap: 4, font, stroke: token("--ink-3"), grid: { show: false }, ticks: { show: false }, space: 90, incrs: STEPS, splits: axisSplits, values: axisTimes },
      { show: false },
    ],
    series: [{}, { stroke: colour, width: 1.4, points: { size: 4, width: 0, fill: colour } }, { stroke: colour, width: 1.4, points: { show: false } }],
    bands: [{ series: [1, 2], fill: colour + "66" }],
    hooks: {
      drawClear: [(u) => drawGround(u, model, s, index)],
      draw: [(u) => drawEnds(u)],
      setCursor: [(u) => moveLabels(u, label, last ? when : null)],
      setSelect: [zoomTo],
      ready: [
        (u) => {
          pin(u);
          u.over.append(label);
          if (last) u.over.append(when);
        },
      ],
    },
  };
  return new uPlot(options, [s.xs, s.high, s.low], el);
}

/** Whole steps of local time within the window. */
function axisSplits(_u: uPlot, _axis: number, min: number, max: number, step: number): number[] {
  const offset = -offsetAt(min);
  const splits: number[] = [];
  for (let t = Math.ceil((min - offset) / step) * step + offset; t <= max; t += step) splits.push(t);
  return splits;
}

/** The value axis: a little room around what is shown, rounded. */
function spread(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1];
  if (min === max) {
    const room = Math.abs(min) * 0.05 || 1;
    return [min - room, max + room];
  }
  const [lo, hi] = uPlot.rangeNum(min, max, 0.1, true);
  return [lo ?? min, hi ?? max];
}

function axisTimes(_u: uPlot, splits: number[]): string[] {
  const gap = splits.length > 1 ? splits[1]! - splits[0]! : 0;
  return splits.map((t) => {
    const midnight = (t + offsetAt(t)) % (24 * 60 * MINUTE) === 0;
    if (midnight && gap >= MINUTE) return dayOf(t).replace(/, .*/, "");
    return timeOf(t).slice(0, gap > 0 && gap < MINUTE ? 8 : 5);
  });
}

/** Hairlines at the top, middle and bottom, and a shade over every silence. */
function drawGround(u: uPlot, model: DeviceModel, s: Series, index: number): void {
  const g = u.ctx;
  const { left, top, width, height } = u.bbox;
  g.save();
  const holes: [number, number, ((ms: number) => string)?][] = [...s.holes];
  const edge = model.edge.peek();
  const l = link.peek();
  const moving = moves(range.peek()) && s.size > 0;
  if (moving && "since" in l) holes.push([l.since, edge, T.unseen]);
  else if (moving && isLive() && edge - s.last > s.patience) holes.push([s.last, edge]);
  const [from, to] = [u.scales["x"]!.min!, u.scales["x"]!.max!];
  for (const [a, b, says = T.noData] of holes) {
    if (b < from || a > to) continue;
    const x0 = Math.max(left, u.valToPos(a, "x", true));
    const x1 = Math.min(left + width, u.valToPos(b, "x", true));
    g.fillStyle = token("--off-w");
    g.fillRect(x0, top, x1 - x0, height);
    if (index !== 0) continue;
    g.font = `${11 * devicePixelRatio}px ${token("--font")}`;
    const words = says(b - a);
    if (g.measureText(words).width > x1 - x0) continue;
    g.fillStyle = token("--ink-3");
    g.textAlign = "center";
    g.textBaseline = "top";
    g.fillText(words, (x0 + x1) / 2, top + 3 * devicePixelRatio);
  }
  g.fillStyle = token("--rule");
  for (const f of [0, 0.5, 1]) g.fillRect(left, Math.round(top + f * (height - devicePixelRatio)), width, devicePixelRatio);
  g.restore();
}

/** The ends of the value axis, in the gutter at the right. */
function drawEnds(u: uPlot): void {
  const y = u.scales["y"]!;
  if (y.min == null || y.max == null || u.data[0].length === 0) return;
  const g = u.ctx;
  const { left, top, width, height } = u.bbox;
  const r = devicePixelRatio;
  g.save();
  g.font = `${11 * r}px ${token("--font")}`;
  g.textAlign = "right";
  g.fillStyle = token("--ink-3");
  g.textBaseline = "top";
  g.fillText(end(y.max, y.max - y.min, "greatest"), left + width + GUTTER * r, top, GUTTER * r);
  g.textBaseline = "bottom";
  g.fillText(end(y.min, y.max - y.min, "least"), left + width + GUTTER * r, top + height, GUTTER * r);
  g.restore();
}

function moveLabels(u: uPlot, label: HTMLElement, when: HTMLElement | null): void {
  const { idx, left } = u.cursor;
  const v = idx == null ? null : u.data[1]![idx];
  const low = idx == null ? null : u.data[2]![idx];
  const on = left !== undefined && left >= 0;
  label.hidden = !on || v == null;
  if (!label.hidden) {
    const y = u.scales["y"]!;
    const span = ((y.max ?? 1) - (y.min ?? 0)) / 10;
    label.textContent = low == null || low === v ? within(v!, span) : `${within(low, span)} to ${within(v!, span)}`;
    const x = u.valToPos(u.data[0][idx!]!, "x");
    const flip = x > u.over.clientWidth - 70;
    label.style.transform = `translate(${x + (flip ? -6 : 6)}px, ${Math.max(2, u.valToPos(v!, "y") - 20)}px)${flip ? " translateX(-100%)" : ""}`;
  }
  if (!when) return;
  when.hidden = !on;
  if (!on) return;
  when.textContent = timeOf(u.posToVal(left, "x"));
  const half = 30;
  when.style.transform = `translate(${Math.min(Math.max(left, half), u.over.clientWidth - half)}px, 3px) translateX(-50%)`;
}

function zoomTo(u: uPlot): void {
  const { left, width } = u.select;
  if (width < LEAST_DRAG) return;
  const from = u.posToVal(left, "x");
  const to = u.posToVal(left + width, "x");
  u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  showBetween(from, Math.min(to, now.peek()));
}
