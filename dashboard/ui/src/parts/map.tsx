// Every device on a map: clusters of places over the outline of the land, which is in the
// binary. The worst state of a cluster is its mark, as shape and colour.

import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { LAND, UNITS } from "muster:land";
import { codesNow, frames, nameAt, onChange, type Layout } from "../lib/dots";
import { count, plural } from "../lib/format";
import { go, listPath, search, setSearch } from "../lib/route";
import { theme, token } from "../lib/theme";
import type { Status } from "../lib/types";
import { Glyph, STATES, tone, WORD } from "./glyph";
import { bounded, clusters, fit, queryOf, radiusOf, sideFor, spot, viewOf, viewText, WORST, zoomed, type Cluster, type View } from "./mapview";
import { useSize } from "./size";

const T = {
  map: "Map. Arrow keys move it, plus and minus zoom, 0 shows all devices. Table has the same as a table.",
  drawing: (n: number, places: number) => `${plural(n, "device", "devices")} at ${plural(places, "place", "places")}, each marked by its worst state.`,
  in: "Zoom in",
  out: "Zoom out",
  all: "All",
  allHint: "Show all devices",
  none: "No device has a location yet. It is given as lat and lon when a device is made, changed or imported.",
  without: (n: number) => `${plural(n, "device has", "devices have")} no location.`,
  withoutHint: "Show them",
  devices: (n: number) => plural(n, "device", "devices"),
  where: "Where",
  total: "Devices",
};

const TALLEST = 470; // px
const STEP = 60; // px that an arrow key moves
const ROWS = 100; // of the table

export function MapView({ l, table }: { l: Layout; table: boolean }) {
  const without = l.sections.find((s) => s.name === "");
  const some = (l.places?.length ?? 0) > 0;
  return (
    <>
      {!some && <p class="quiet-note">{T.none}</p>}
      {some && (table ? <Places l={l} /> : <Canvas l={l} />)}
      {without && <p class="map-note val">{T.without(without.count)} <a class="link" href={listPath(without.q, "id", "")}>{T.withoutHint}</a></p>}
    </>
  );
}

/** The marks and the view that a canvas shows. */
interface Shown {
  view: View;
  width: number;
  height: number;
  marks: Cluster[];
}

function Canvas({ l }: { l: Layout }) {
  const wrap = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const shown = useRef<Shown | null>(null);
  const [width, ratio] = useSize(wrap);
  const height = Math.min(TALLEST, Math.max(260, Math.round(width * 0.56)));
  const view = useSignal<View | null>(viewOf(search.peek().get("at") ?? "")); // null: all devices
  const pointed = useSignal<{ c: Cluster; x: number; y: number } | null>(null);
  const colours = theme.value;
  const at = view.value;
  useLayoutEffect(() => {
    const c = canvas.current;
    if (!c || width === 0) return;
    const draw = () => {
      const v = at ? bounded(at, width, height) : fit(l, width, height);
      const marks = clusters(l, codesNow(), sideFor(l.cell ?? 1, v.scale));
      shown.current = { view: v, width, height, marks };
      paint(c, shown.current, ratio);
      const p = pointed.peek(); // what rests under the pointer is told as it is now
      const under = p && markAt(shown.current, p.x, p.y);
      if (p) pointed.value = under && { ...p, c: under };
    };
    draw();
    let frame = 0;
    const stop = onChange(() => {
      if (!frame) frame = requestAnimationFrame(() => { frame = 0; draw(); });
    });
    return () => {
      stop();
      cancelAnimationFrame(frame);
    };
  }, [l, width, height, ratio, colours, at]);
  useEffect(() => {
    const text = at ? viewText(at) : "";
    if (text === (search.peek().get("at") ?? "")) return;
    const timer = setTimeout(() => setSearch({ at: text }, true), 300); // it rests
    return () => clearTimeout(timer);
  }, [at]);
  const hands = useRef<ReturnType<typeof pointing> | null>(null);
  hands.current ??= pointing(shown, view, pointed);
  useEffect(() => {
    const c = canvas.current!;
    const wheel = hands.current!.wheel;
    c.addEventListener("wheel", wheel, { passive: false }); // it is kept from zooming the page
    return () => c.removeEventListener("wheel", wheel);
  }, []);
  const zoom = (by: number) => {
    const s = shown.current;
    if (s) view.value = zoomed(s.view, by, 0, 0, s.width, s.height);
  };
  return (
    <div class="map" ref={wrap}>
      <div role="group" aria-label={T.map} tabIndex={0} onKeyDown={(e) => keyed(e, shown.current, view, zoom)}>
        <canvas ref={canvas} class="plot" role="img" aria-label={T.drawing(l.sections[0]?.count ?? 0, l.places!.length / 3)} style={{ width: `${width}px`, height: `${height}px` }} {...hands.current.on} />
      </div>
      <div class="zoom">
        <button type="button" class="btn" aria-label={T.in} title={T.in} onClick={() => zoom(2)}>+</button>
        <button type="button" class="btn" aria-label={T.out} title={T.out} onClick={() => zoom(0.5)}>−</button>
        <button type="button" class="btn" title={T.allHint} onClick={() => (view.value = null)}>{T.all}</button>
      </div>
      {pointed.value && <Tip c={pointed.value.c} x={pointed.value.x} y={pointed.value.y} width={width} />}
    </div>
  );
}

function keyed(e: KeyboardEvent, s: Shown | null, view: { value: View | null }, zoom: (by: number) => void) {
  if (!s || e.ctrlKey || e.metaKey || e.altKey) return;
  const move = (dx: number, dy: number) => {
    view.value = bounded({ ...s.view, lon: s.view.lon + dx / s.view.scale, lat: s.view.lat - dy / s.view.scale }, s.width, s.height);
  };
  const does: Record<string, () => void> = {
    ArrowLeft: () => move(-STEP, 0), ArrowRight: () => move(STEP, 0), ArrowUp: () => move(0, -STEP), ArrowDown: () => move(0, STEP),
    "+": () => zoom(2), "=": () => zoom(2), "-": () => zoom(0.5), "0": () => (view.value = null),
  };
  const act = does[e.key];
  if (!act) return;
  e.preventDefault();
  act();
}

const COLOUR: Record<string, string> = { ok: "--ok", warn: "--warn", off: "--off", idle: "--ink-3" };

/** Paints the land, and over it the marks, the worst on top. */
function paint(canvas: HTMLCanvasElement, s: Shown, ratio: number): void {
  canvas.width = Math.max(1, Math.round(s.width * ratio));
  canvas.height = Math.max(1, Math.round(s.height * ratio));
  const ctx = canvas.getContext("2d");
  if (!ctx) return;
  const { view: v, width, height } = s;
  const [x, y] = spot(v, 90, -180, width, height);
  const unit = v.scale / UNITS;
  ctx.setTransform(ratio * unit, 0, 0, ratio * unit, ratio * x, ratio * y);
  const land = new Path2D(LAND);
  ctx.fillStyle = token("--sunken");
  ctx.fill(land, "evenodd");
  ctx.strokeStyle = token("--rule-2");
  ctx.lineWidth = 0.8 / unit;
  ctx.stroke(land);
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  const ground = token("--paper");
  const order = [...s.marks].sort((a, b) => WORST.indexOf(b.worst) - WORST.indexOf(a.worst));
  for (const c of order) {
    const [cx, cy] = spot(v, c.at.lat, c.at.lon, width, height);
    const r = radiusOf(c);
    if (cx < -r || cy < -r || cx > width + r || cy > height + r) continue;
    mark(ctx, c.worst, cx, cy, r, token(COLOUR[tone(c.worst)] ?? "--off"), ground);
  }
}

/** Draws the shape that a state has everywhere, on a ground that sets it off. */
function mark(ctx: CanvasRenderingContext2D, state: Status, x: number, y: number, r: number, colour: string, ground: string): void {
  ctx.beginPath();
  if (state === "quiet") {
    ctx.moveTo(x, y - r);
    ctx.lineTo(x + r, y + r * 0.8);
    ctx.lineTo(x - r, y + r * 0.8);
    ctx.closePath();
  } else if (state === "unknown") {
    ctx.rect(x - r * 0.8, y - r * 0.8, r * 1.6, r * 1.6);
  } else {
    ctx.arc(x, y, r, 0, 2 * Math.PI);
  }
  if (state === "updating") {
    ctx.fillStyle = ground;
    ctx.fill();
    ctx.beginPath();
    ctx.arc(x, y, r, -Math.PI / 2, Math.PI / 2);
    ctx.closePath();
    ctx.fillStyle = colour;
    ctx.fill();
    ctx.beginPath();
    ctx.arc(x, y, r, 0, 2 * Math.PI);
    ctx.strokeStyle = colour;
    ctx.lineWidth = 2;
    ctx.stroke();
    return;
  }
  const solid = state === "online" || state === "quiet";
  ctx.fillStyle = solid ? colour : ground;
  ctx.strokeStyle = solid ? ground : colour;
  ctx.lineWidth = solid ? 1 : 2;
  ctx.setLineDash(state === "never" ? [2.4, 2.2] : []);
  ctx.fill();
  ctx.stroke();
  ctx.setLineDash([]);
}

type Cell<X> = { value: X };

/** The mark at a point, the nearest one that is not too far. */
function markAt(s: Shown, x: number, y: number): Cluster | null {
  let best: Cluster | null = null;
  let least = Infinity;
  for (const c of s.marks) {
    const [cx, cy] = spot(s.view, c.at.lat, c.at.lon, s.width, s.height);
    const far = Math.hypot(cx - x, cy - y);
    if (far < least && far <= Math.max(12, radiusOf(c) + 3)) [best, least] = [c, far];
  }
  return best;
}

/** What the pointer does: point, open by a click, move by dragging, zoom by two fingers or by the wheel with Ctrl. */
function pointing(shown: { current: Shown | null }, view: Cell<View | null>, pointed: Cell<{ c: Cluster; x: number; y: number } | null>) {
  const down = new Map<number, { x: number; y: number }>();
  let moved = false;
  const move = (s: Shown, e: PointerEvent) => {
    const was = down.get(e.pointerId)!;
    const is = { x: e.offsetX, y: e.offsetY };
    if (!moved && Math.hypot(is.x - was.x, is.y - was.y) < 4) return;
    moved = true;
    down.set(e.pointerId, is);
    const other = [...down].find(([id]) => id !== e.pointerId)?.[1];
    if (other) {
      const factor = Math.hypot(is.x - other.x, is.y - other.y) / Math.max(1, Math.hypot(was.x - other.x, was.y - other.y));
      view.value = zoomed(s.view, factor, other.x - s.width / 2, other.y - s.height / 2, s.width, s.height);
    } else {
      view.value = bounded({ ...s.view, lon: s.view.lon - (is.x - was.x) / s.view.scale, lat: s.view.lat + (is.y - was.y) / s.view.scale }, s.width, s.height);
    }
  };
  const up = (e: PointerEvent) => void down.delete(e.pointerId);
  return {
    wheel: (e: WheelEvent) => {
      const s = shown.current;
      if (!s || !(e.ctrlKey || e.metaKey)) return; // the page scrolls
      e.preventDefault();
      view.value = zoomed(s.view, Math.exp(-e.deltaY / 200), e.offsetX - s.width / 2, e.offsetY - s.height / 2, s.width, s.height);
    },
    on: {
      onPointerDown: (e: PointerEvent) => {
        if (e.button !== 0) return;
        if (down.size === 0) moved = false;
        down.set(e.pointerId, { x: e.offsetX, y: e.offsetY });
        (e.currentTarget as Element).setPointerCapture(e.pointerId);
      },
      onPointerMove: (e: PointerEvent) => {
        const s = shown.current;
        if (!s) return;
        if (down.has(e.pointerId)) move(s, e);
        const c = moved && down.size > 0 ? null : markAt(s, e.offsetX, e.offsetY);
        pointed.value = c && { c, x: e.offsetX, y: e.offsetY };
      },
      onPointerUp: up,
      onPointerCancel: up,
      onPointerLeave: () => (pointed.value = null),
      onClick: (e: MouseEvent) => {
        const c = shown.current && !moved ? markAt(shown.current, e.offsetX, e.offsetY) : null;
        if (c) go(listPath(queryOf(c), "id", ""));
      },
    },
  };
}

function where(c: Cluster): string {
  const part = (deg: number, plus: string, minus: string) => `${Math.abs(deg).toFixed(c.side < 100 ? 2 : 1)}° ${deg < 0 ? minus : plus}`;
  return `${part(c.at.lat, "N", "S")}, ${part(c.at.lon, "E", "W")}`;
}

function Tip({ c, x, y, width }: { c: Cluster; x: number; y: number; width: number }) {
  const again = useSignal(0);
  again.value;
  const id = c.count === 1 ? nameAt(c.first, () => again.value++) : undefined;
  return (
    <div class="tip val" style={{ left: `${Math.max(0, Math.min(x + 12, width - 230))}px`, top: `${y + 14}px` }}>
      <b class={id ? "mono" : ""}>{id ?? T.devices(c.count)}</b> {STATES.filter((s) => c.by[s]).map((s) => <span key={s}> <Glyph state={s} /> {c.count > 1 && count(c.by[s]!)} {WORD[s]}</span>)} <small>{where(c)}</small>
    </div>
  );
}

/** The same as the map: each place with its states, the largest first. */
function Places({ l }: { l: Layout }) {
  const all = useComputed(() => {
    frames.value;
    let side = l.cell ?? 1;
    let found = clusters(l, codesNow(), side);
    while (found.length > ROWS && side < 36000) found = clusters(l, codesNow(), (side *= 2));
    return found.sort((a, b) => b.count - a.count);
  }).value;
  const states = STATES.filter((s) => all.some((c) => c.by[s]));
  return (
    <div class="scroll" tabIndex={0} role="region" aria-labelledby="dots-title">
      <table class="sections">
        <thead>
          <tr><th scope="col">{T.where}</th>{states.map((s) => <th key={s} scope="col" class="n"><Glyph state={s} /> {WORD[s]}</th>)}<th scope="col" class="n">{T.total}</th></tr>
        </thead>
        <tbody>
          {all.map((c) => (
            <tr key={`${c.lat},${c.lon}`}>
              <th scope="row"><a href={listPath(queryOf(c), "id", "")}>{where(c)}</a></th>
              {states.map((s) => <td key={s} class="n val">{c.by[s] ? <a href={listPath(`${queryOf(c)} status:${s}`, "id", "")}>{count(c.by[s]!)}</a> : "0"}</td>)}
              <td class="n val">{count(c.count)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
