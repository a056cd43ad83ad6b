// Every device, one dot: a canvas that can be pointed at, clicked and dragged over, with a table
// of the same for who cannot see it.

import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { now } from "../lib/clock";
import { codesNow, describe, frames, GONE, largestCluster, layout, nameAt, onChange, refusal, showDots, tally, type By, type Layout, type Run, type Section } from "../lib/dots";
import { count, plural } from "../lib/format";
import { devicePath, go, listPath, setSearch, search } from "../lib/route";
import { theme, token } from "../lib/theme";
import type { Status } from "../lib/types";
import { arrange, blockOf, Painter, placeAt, spotOf, type Grid } from "./dotgrid";
import { Glyph, STATES, WORD } from "./glyph";
import { lazy } from "./lazy";
import { useSize } from "./size";

const MapView = lazy(() => import("./map").then((m) => m.MapView));

const T = {
  title: "Every device, one dot",
  hint: "Click a dot to open it, drag to select",
  arrange: "Arrange by",
  by: { group: "Group", firmware: "Firmware", last_seen: "Last seen", map: "Map" },
  mapHint: "Click a mark to list its devices, drag to move",
  table: "Table",
  tableHint: "The same as a table",
  drawing: (n: number) => `${plural(n, "device", "devices")} as dots, coloured by state. The button Table has the same as a table.`,
  none: { group: "in no group", firmware: "no version reported", last_seen: "", map: "" },
  merged: { group: (n: number) => `${count(n)} more groups`, firmware: (n: number) => `${count(n)} more versions`, last_seen: () => "", map: () => "" },
  ages: { "5m": "in the last 5 minutes", "1h": "in the last hour", "1d": "in the last day", "7d": "in the last 7 days", older: "longer ago", never: "never" } as Record<string, string>,
  section: { group: "Group", firmware: "Firmware", last_seen: "Last seen", map: "" },
  total: "Devices",
  silent: (n: number) => `${count(n)} silent`,
  selected: (n: number) => `${plural(n, "device", "devices")} selected`,
  open: "Show them in the list",
  scattered: "No one query has just these. Select fewer.",
  clear: "Clear",
  gone: "deleted",
  loading: "Asking the server for the dots.",
};

const BYS: By[] = ["group", "firmware", "last_seen", "map"];
const CALL = 28; // px that a callout takes
const HEIGHT = 470; // px that the dots may take

export function nameOf(l: Layout, s: Section): string {
  if (s.merged) return T.merged[l.by](s.merged);
  if (l.by === "last_seen") return T.ages[s.name] ?? s.name;
  return s.name || T.none[l.by];
}

export function Dots() {
  const by = (BYS as string[]).includes(search.value.get("by") ?? "") ? (search.value.get("by") as By) : "group";
  const table = search.value.get("dots") === "table";
  useEffect(() => showDots(by), [by]);
  const l = layout.value;
  return (
    <section class="sec dots" aria-labelledby="dots-title">
      <header>
        <h2 id="dots-title">{T.title}</h2>
        <p class="hint">{by === "map" ? T.mapHint : T.hint}</p>
        <div class="r">
          <span class="tabs" role="group" aria-label={T.arrange}>
            {BYS.map((b) => <button key={b} type="button" aria-pressed={b === by} onClick={() => setSearch({ by: b === "group" ? "" : b, at: "" }, true)}>{T.by[b]}</button>)}
          </span>
          <span class="tabs"><button type="button" aria-pressed={table} title={T.tableHint} onClick={() => setSearch({ dots: table ? "" : "table" }, true)}>{T.table}</button></span>
        </div>
      </header>
      {refusal.value && <p class="error" role="alert">{refusal.value}</p>}
      {!l ? !refusal.value && <p class="quiet-note dots-wait">{T.loading}</p> : l.by === "map" ? <MapView l={l} table={table} /> : table ? <DotTable l={l} /> : <DotCanvas key={l.version} l={l} />}
    </section>
  );
}

interface Pointed {
  place: number;
  x: number;
  y: number;
}

function DotCanvas({ l }: { l: Layout }) {
  const wrap = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const painter = useRef<Painter | null>(null);
  const [grid, setGrid] = useState<Grid | null>(null);
  const pointed = useSignal<Pointed | null>(null);
  const chosen = useSignal<[number, number] | null>(null);
  const [hands] = useState(() => pointing(() => painter.current?.grid ?? null, pointed, chosen)); // one for all draws: a drag outlives them
  const [width, ratio] = useSize(wrap);
  const colours = theme.value;
  useLayoutEffect(() => {
    if (!canvas.current || width === 0) return;
    const g = arrange(l.sections, width, HEIGHT, ratio);
    painter.current = new Painter(canvas.current, g, ratio, coloursOf(l));
    painter.current.chosen = chosen.peek();
    painter.current.all(codesNow());
    painter.current.flush();
    setGrid(g);
  }, [l, width, ratio, colours]);
  useEffect(() => follow(painter), []);
  useEffect(() => {
    const p = painter.current;
    if (!p) return;
    p.chosen = chosen.value;
    p.all(codesNow());
    p.flush();
  }, [chosen.value]);
  return (
    <div class="gridwrap" ref={wrap}>
      <canvas
        ref={canvas}
        class="plot"
        role="img"
        aria-label={T.drawing(l.total)}
        style={grid ? { width: `${grid.width}px`, height: `${grid.height}px` } : undefined}
        {...hands}
      />
      {grid?.blocks.map((b) => <BlockName key={b.section.first} l={l} grid={grid} at={b.section.first} />)}
      {grid && <Callout grid={grid} l={l} />}
      {grid && pointed.value && <Tip l={l} p={pointed.value} width={width} />}
      {chosen.value && <Chosen run={chosen.value} l={l} onClear={() => (chosen.value = null)} />}
    </div>
  );
}

const TONES: Record<Status, string> = { online: "--d-ok", updating: "--d-upd", quiet: "--d-warn", offline: "--d-off", never: "--d-idle", unknown: "--d-unknown" };

function coloursOf(l: Layout) {
  return { codes: l.states.map((s) => token(TONES[s])), ground: token("--paper"), chosen: token("--accent") };
}

/** Paints what changes, once a frame, until the returned function is called. */
function follow(painter: { current: Painter | null }): () => void {
  let places: number[] | null = [];
  let frame = 0;
  const draw = () => {
    frame = 0;
    const p = painter.current;
    if (!p) return;
    if (places === null) p.all(codesNow());
    else p.some(places, codesNow());
    places = [];
    p.flush();
  };
  const stop = onChange((some) => {
    if (some === null) places = null;
    else if (places) for (const at of some) places.push(at);
    if (!frame) frame = requestAnimationFrame(draw);
  });
  return () => {
    stop();
    cancelAnimationFrame(frame);
  };
}

type Cell<X> = { value: X };

/** What the pointer does: point, open by a click, select a run by dragging with a mouse or a pen. */
function pointing(grid: () => Grid | null, pointed: Cell<Pointed | null>, chosen: Cell<[number, number] | null>) {
  let from = -1;
  let dragged = false;
  const at = (e: PointerEvent) => {
    const g = grid();
    return g ? placeAt(g, e.offsetX, e.offsetY) : -1;
  };
  return {
    onPointerMove: (e: PointerEvent) => {
      const place = at(e);
      pointed.value = place < 0 ? null : { place, x: e.offsetX, y: e.offsetY };
      const g = grid();
      if (from < 0 || place < 0 || !g || (place === from && !dragged)) return;
      dragged = true;
      const s = blockOf(g, from)!.section;
      const to = Math.min(Math.max(place, s.first), s.first + s.count - 1);
      chosen.value = [Math.min(from, to), Math.max(from, to)];
    },
    onPointerLeave: () => (pointed.value = null),
    onPointerDown: (e: PointerEvent) => {
      if (e.button !== 0) return;
      from = e.pointerType === "touch" ? -1 : at(e);
      dragged = false;
      if (from >= 0) (e.currentTarget as Element).setPointerCapture(e.pointerId);
    },
    onPointerUp: () => (from = -1),
    onClick: (e: MouseEvent) => {
      const g = grid();
      const place = g ? placeAt(g, e.offsetX, e.offsetY) : -1;
      if (dragged || place < 0) return;
      void describe(place, place).then((run) => run.ids[0] && go(devicePath(run.ids[0])), () => {});
    },
  };
}

function BlockName({ l, grid, at }: { l: Layout; grid: Grid; at: number }) {
  const b = blockOf(grid, at)!;
  const name = nameOf(l, b.section);
  const style = { left: `${b.x}px`, top: `${b.y - 19}px`, maxWidth: `${b.width}px` };
  const words = <>{name} <small class="val">{count(b.section.count)}</small></>;
  if (!b.section.q) return <span class="block" style={style} title={name}>{words}</span>;
  return <a class="block" style={style} title={name} href={listPath(b.section.q, "id", "")}>{words}</a>;
}

function Tip({ l, p, width }: { l: Layout; p: Pointed; width: number }) {
  const [, again] = useState(0);
  const [asked, ask] = useState(-1);
  useEffect(() => {
    const timer = setTimeout(() => ask(p.place), 80); // it rests
    return () => clearTimeout(timer);
  }, [p.place]);
  frames.value;
  const code = codesNow()[p.place] ?? GONE;
  const state = l.states[code];
  const id = asked === p.place ? nameAt(p.place, () => again((n) => n + 1)) : undefined;
  return (
    <div class="tip" style={{ left: `${Math.min(p.x + 12, width - 190)}px`, top: `${p.y + 14}px` }}>
      {state && <Glyph state={state} />} <b class="mono">{id ?? "…"}</b> {state ? WORD[state] : T.gone}
    </div>
  );
}

/** What is said of the largest cluster of silent devices: looked at each second. */
function Callout({ grid, l }: { grid: Grid; l: Layout }) {
  const second = now.value;
  const cluster = useComputed(() => {
    now.value;
    return largestCluster(Math.max(5, Math.ceil(l.total / 2000)));
  }).value;
  const [run, setRun] = useState<{ first: number; last: number; run: Run } | null>(null);
  const first = cluster?.first ?? -1;
  const last = cluster?.last ?? -1;
  useEffect(() => {
    if (first < 0) return;
    let mine = true;
    const timer = setTimeout(() => void describe(first, last).then((r) => mine && setRun({ first, last, run: r }), () => {}), 700); // it has settled
    return () => {
      mine = false;
      clearTimeout(timer);
    };
  }, [first, last]);
  if (!cluster || !run || run.first !== first || run.last !== last || second === 0) return null;
  const block = blockOf(grid, last);
  if (!block) return null;
  const spot = spotOf(grid, last);
  const floor = block.y + block.rows * grid.pitch - CALL;
  const below = floor < block.y + CALL; // a low section: its neighbours' names would be under it
  const top = below ? grid.height + 6 : Math.min(spot.y + grid.pitch + 6, floor);
  const place = { left: `${Math.min(Math.max(spot.x - 60, 0), Math.max(grid.width - 190, 0))}px`, top: `${top}px` };
  const kind = below ? "call below" : "call";
  const words = <><b>{run.run.gateway || nameOf(l, block.section)}</b> <span class="val">{T.silent(cluster.silent)}</span></>;
  if (!run.run.q) return <span class={kind} style={place}>{words}</span>;
  return <a class={kind} style={place} href={listPath(silentOf(run.run), "id", "")}>{words}</a>;
}

const SILENT = "(status:offline or status:quiet)";

/** The silent devices of a run, by its gateway when it has one. */
function silentOf(run: Run): string {
  return `${run.q} ${SILENT}`;
}

/** What was dragged over. */
function Chosen({ run, l, onClear }: { run: [number, number]; l: Layout; onClear: () => void }) {
  const [first, last] = run;
  const [q, setQ] = useState<string | null>(null);
  useEffect(() => {
    let mine = true;
    setQ(null);
    const timer = setTimeout(() => void describe(first, last).then((r) => mine && setQ(r.q), () => {}), 200);
    return () => {
      mine = false;
      clearTimeout(timer);
    };
  }, [first, last]);
  frames.value;
  const by = tally(first, last - first + 1);
  const whole = l.sections.length === 1 && last - first + 1 === l.total;
  return (
    <p class="chosen" role="status">
      <b>{T.selected(last - first + 1)}</b>
      {STATES.filter((s) => by[s]).map((s) => <span key={s} class="val"><Glyph state={s} /> {count(by[s]!)} {WORD[s]}</span>)}
      {q !== null && (q || whole ? <a class="link" href={listPath(q, "id", "")}>{T.open}</a> : <span>{T.scattered}</span>)}
      <button type="button" class="btn txt" onClick={onClear}>{T.clear}</button>
    </p>
  );
}

/** The same as the canvas: the states of each section, each a link to its devices. */
function DotTable({ l }: { l: Layout }) {
  frames.value;
  const rows = l.sections.map((s) => ({ s, by: tally(s.first, s.count) }));
  const states = STATES.filter((state) => rows.some((r) => r.by[state]));
  return (
    <div class="scroll" tabIndex={0} role="region" aria-labelledby="dots-title">
      <table class="sections">
        <thead>
          <tr><th scope="col">{T.section[l.by]}</th>{states.map((s) => <th key={s} scope="col" class="n"><Glyph state={s} /> {WORD[s]}</th>)}<th scope="col" class="n">{T.total}</th></tr>
        </thead>
        <tbody>
          {rows.map(({ s, by }) => (
            <tr key={s.first}>
              <th scope="row">{linkTo(s.q, nameOf(l, s))}</th>
              {states.map((state) => <td key={state} class="n val">{by[state] ? linkTo(s.q && `${s.q} status:${state}`, count(by[state]!)) : "0"}</td>)}
              <td class="n val">{count(s.count)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function linkTo(q: string, words: string) {
  return q ? <a href={listPath(q, "id", "")}>{words}</a> : words;
}
