// The table of the list of devices: its rows follow the fleet, and stay where they are.

import { useEffect, useRef } from "preact/hooks";
import { now } from "../lib/clock";
import type { Column } from "../lib/columns";
import { cell, columns, rowOf, type Row, type View } from "../lib/devices";
import { absolute, ago, duration, exact, value } from "../lib/format";
import type { Key } from "../lib/keymap";
import { keysOn } from "../lib/keys";
import { devicePath, go, listPath, type Sort } from "../lib/route";
import { allMatching, selected, toggle, togglePage } from "../lib/selection";
import { showSparks, sparks } from "../lib/sparks";
import type { Value } from "../lib/types";
import { Glyph, MEANING, statusOf, WORD } from "../parts/glyph";
import { useHeat } from "../parts/heat";
import { useKeys } from "../parts/keys";
import { Sparkline } from "../parts/sparkline";

const T = {
  state: "State",
  device: "Device",
  never: "never",
  deleted: "deleted",
  select: (id: string) => `Select ${id}`,
  selectPage: "Select this page",
  heads: { seen: "Last seen", reason: "Reason", profile: "Profile", parent: "Gateway", firmware: "Firmware", groups: "Groups", tags: "Tags" } as Record<string, string>,
  line: (key: string) => `${key}, line`,
  old: (age: string) => `${age} old`,
  nothing: "no value",
  keys: { title: "Devices", next: "the next row", before: "the row before", select: "select the row", open: "open it" },
};

/** What a column is called. */
export function headOf(c: Column): string {
  return T.heads[c.kind] ?? (c.kind === "spark" ? T.line(c.key) : c.key);
}

// The roles are written out, for a narrow window lays the rows out as a grid, which
// would take them away.
export function Table({ v }: { v: View }) {
  const shown = columns.value;
  const lines = shown.filter((c) => c.kind === "spark").map((c) => c.key);
  useEffect(() => showSparks(lines, v.order), [lines.join(), v.order]);
  const body = useRef<HTMLTableSectionElement>(null);
  const keys: Key[] = [
    { keys: "j", what: T.keys.next, run: () => move(body.current, 1) },
    { keys: "k", what: T.keys.before, run: () => move(body.current, -1) },
    { keys: "x", what: T.keys.select, run: () => toggleHere(v.order, body.current) },
    { keys: "Enter", what: T.keys.open },
  ];
  useKeys(T.keys.title, keys);
  // A checkbox takes no text: the keys work on it too.
  const onKey = (e: KeyboardEvent) => {
    if (!(e.target instanceof HTMLInputElement) || !keysOn.peek() || e.ctrlKey || e.metaKey || e.altKey) return;
    if (keys.find((k) => k.keys === e.key)?.run?.()) e.preventDefault();
  };
  return (
    <div class="scroll" tabIndex={0} role="region" aria-labelledby="devices-title">
      <table class="devices" role="table">
        <thead role="rowgroup">
          <tr role="row">
            <th scope="col" role="columnheader" class="state"><PageBox v={v} />{T.state}</th>
            <SortHead v={v} up="id" down="-id" first="id" word={T.device} />
            {shown.map((c) => (c.kind === "seen" ? <SortHead key={c.name} v={v} up="seen" down="-seen" first="-seen" word={headOf(c)} />
              : <th key={c.name} scope="col" role="columnheader" class={numeric(c) ? "n" : c.kind} title={headOf(c)}>{headOf(c)}</th>))}
          </tr>
        </thead>
        <tbody role="rowgroup" ref={body} onKeyDown={onKey} onPointerOver={(e) => entitle(e.target as Element, v.order, shown)}>{v.order.map((id) => <DeviceLine key={id} id={id} shown={shown} />)}</tbody>
      </table>
    </div>
  );
}

function numeric(c: Column): boolean {
  return c.kind === "v" || c.kind === "spark";
}

function PageBox({ v }: { v: View }) {
  const on = v.order.filter((id) => selected.value.has(id)).length;
  const all = allMatching.value || (on > 0 && on === v.order.length);
  return (
    <label class="tick"><input type="checkbox" aria-label={T.selectPage} checked={all} ref={(el) => { if (el) el.indeterminate = !all && on > 0; }} onChange={() => togglePage(v.order)} /></label>
  );
}

interface SortProps {
  v: View;
  up: Sort;
  down: Sort;
  first: Sort; // what the first press asks for
  word: string;
}

function SortHead({ v, up, down, first, word }: SortProps) {
  const order = v.sort === up ? "ascending" : v.sort === down ? "descending" : "none";
  const next = order === "none" ? first : order === "ascending" ? down : up;
  return (
    <th scope="col" role="columnheader" aria-sort={order}>
      <button type="button" class="sort" onClick={() => go(listPath(v.q, next, "", v.cols))}>
        {word} <svg width="8" height="6" viewBox="0 0 8 6" aria-hidden="true" class={order === "none" ? "no" : order}><path d="M4 0l4 6H0z" fill="currentColor" /></svg>
      </button>
    </th>
  );
}

function DeviceLine({ id, shown }: { id: string; shown: Column[] }) {
  const row = rowOf(id)?.value;
  const on = allMatching.value || selected.value.has(id);
  if (!row) return null;
  return (
    <tr role="row" class={[on && "on", row.deleted && "deleted", row.state !== "online" && "stale"].filter(Boolean).join(" ") || undefined}>
      <td role="cell" class="state val" title={MEANING[statusOf(row)]}>
        <label class="tick"><input type="checkbox" aria-label={T.select(id)} checked={on} onChange={() => toggle(id)} /></label>
        <Glyph state={statusOf(row)} /> {row.deleted ? T.deleted : WORD[statusOf(row)]}
      </td>
      <th scope="row" role="rowheader"><a href={devicePath(id)}><span class="mono">{id}</span>{row.name && <small>{row.name}</small>}</a></th>
      {shown.map((c) => <Cell key={c.name} row={row} c={c} />)}
    </tr>
  );
}

function Cell({ row, c }: { row: Row; c: Column }) {
  switch (c.kind) {
    case "v":
      return <ValueCell of={cell(row, c.key)} name={c.key} stale={row.state !== "online"} />;
    case "spark":
      return <td role="cell" class="n val spark" data-key={c.key}><Sparkline line={sparks.value.get(c.key)?.get(row.id)} name={c.key} /></td>;
    case "seen":
      return <td role="cell" class="seen val">{row.last_seen > 0 ? <time>{ago(row.last_seen, now.value)}</time> : T.never}</td>;
    default:
      return <TextCell text={textOf(row, c)} name={headOf(c)} />;
  }
}

function TextCell({ text, name }: { text: string; name: string }) {
  return <td role="cell" class="text val" data-key={name} title={text}>{text || <span class="none" aria-label={T.nothing}>·</span>}</td>;
}

function textOf(row: Row, c: Column): string {
  switch (c.kind) {
    case "tag":
      return row.tags?.[c.key] ?? "";
    case "tags":
      return Object.entries(row.tags ?? {}).map(([k, v]) => (v ? `${k}=${v}` : k)).join(" ");
    case "groups":
      return (row.groups ?? []).join(" ");
    case "reason":
      return row.reason;
    case "profile":
      return row.profile ?? "";
    case "parent":
      return row.parent ?? "";
    case "firmware":
      return row.firmware ?? "";
    default:
      return "";
  }
}

/** A value; that of a device which does not answer says how old it is. */
function ValueCell({ of, name, stale }: { of: [Value, number] | undefined; name: string; stale: boolean }) {
  const text = of ? value(of[0]) : "";
  const el = useHeat<HTMLTableCellElement>(text);
  const age = of && stale ? duration(Math.max(0, now.value - of[1])) : "";
  return (
    <td ref={el} role="cell" class="n val" data-key={name}>
      {of ? text : <span class="none" aria-label={T.nothing}>·</span>}
      {age && <small class="age" aria-label={T.old(age)}>{age.split(" ").slice(0, 2).join(" ")}</small>}
    </td>
  );
}

/** Gives the cell under the pointer its title: to keep those of all cells would cost more than the cells. */
function entitle(target: Element, order: readonly string[], shown: Column[]): void {
  const td = target.closest("td");
  const tr = td?.closest("tr");
  const row = rowOf(order[tr?.sectionRowIndex ?? -1] ?? "")?.peek();
  const c = shown[(td?.cellIndex ?? 0) - 2]; // after state and device
  if (!td || !row || !c) return;
  if (c.kind === "seen") td.title = row.last_seen > 0 ? absolute(row.last_seen) : "";
  const of = c.kind === "v" ? cell(row, c.key) : undefined;
  if (of) td.title = `${exact(of[0])}, ${absolute(of[1])}`;
}

/** Moves the focus to the row that is so many further, by its link: Enter opens it. */
function move(body: HTMLTableSectionElement | null, by: number): boolean {
  const links = [...(body?.querySelectorAll<HTMLAnchorElement>("tr > th a") ?? [])];
  const here = links.findIndex((a) => a.closest("tr")?.contains(document.activeElement));
  const next = links[here < 0 ? 0 : Math.min(links.length - 1, Math.max(0, here + by))];
  next?.focus({ preventScroll: true });
  next?.scrollIntoView({ block: "nearest" });
  return next !== undefined;
}

/** Selects the row that has the focus, or does so no more. */
function toggleHere(order: readonly string[], body: HTMLTableSectionElement | null): boolean {
  const here = [...(body?.rows ?? [])].findIndex((r) => r.contains(document.activeElement));
  const id = order[here];
  if (id !== undefined) toggle(id);
  return id !== undefined;
}
