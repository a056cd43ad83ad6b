// The list of devices.

import { useSignal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { now } from "../lib/clock";
import { cell, columns, leaveDevices, newcomers, PAGE, refusal, rowOf, showDevices, view, type View } from "../lib/devices";
import { absolute, ago, count, exact, plural, value } from "../lib/format";
import { devicePath, go, listPath, route, type Sort } from "../lib/route";
import type { Value } from "../lib/types";
import { Glyph, MEANING, WORD } from "../parts/glyph";
import { useHeat } from "../parts/heat";
import { ConnectPanel } from "./connect";
import { RollCall } from "./rollcall";

const T = {
  title: "Devices",
  shown: (n: number, total: number) => (n === total ? plural(total, "device", "devices") : `${count(n)} of ${count(total)}`),
  search: "Search by id",
  add: "Add device",
  state: "State",
  device: "Device",
  seen: "Last seen",
  never: "never",
  deleted: "deleted",
  newcomers: (n: number) => `${count(n)} new, show`,
  previous: "Previous",
  next: "Next",
  noneTitle: "No devices yet",
  none: "Devices appear here as soon as they exist, with their state and their latest values.",
  noMatch: (q: string) => `No device id contains “${q}”.`,
  noMore: "There are no devices on this page any more.",
  clear: "Clear the search",
  start: "Back to the first page",
  loading: "Asking the server for the devices.",
};

/** Typing pauses this long before the list follows. */
const TYPING_MS = 250;

export function DevicesPage() {
  const r = route.value;
  const [adding, setAdding] = useState(false);
  const again = useSignal(0);
  const [q, sort, after] = r.page === "devices" ? [r.q, r.sort, r.after] : ["", "id" as Sort, ""];
  useEffect(() => showDevices(q, sort, after), [q, sort, after, again.value]);
  useEffect(() => leaveDevices, []);
  const v = view.value;
  const empty = v !== null && v.order.length === 0 && v.q === "" && v.after === "";
  const first = empty && newcomers.value > 0;
  useEffect(() => {
    if (first) again.value++; // nothing is under the pointer that could move
  }, [first]);
  if (!v) return <p class="quiet-note">{refusal.value || T.loading}</p>;
  return (
    <>
      {empty ? <NoDevices /> : <RollCall />}
      {(empty || adding) && <Adding first={empty} total={v.total} open={setAdding} isOpen={adding} />}
      {!empty && <List v={v} onAdd={() => setAdding(true)} onAgain={() => again.value++} />}
    </>
  );
}

function NoDevices() {
  return (
    <section class="roll">
      <div><h1>{T.noneTitle}</h1><p>{T.none}</p></div>
    </section>
  );
}

/** The panel, kept open when its own device ends the emptiness. */
function Adding({ first, total, open, isOpen }: { first: boolean; total: number; open: (on: boolean) => void; isOpen: boolean }) {
  useEffect(() => {
    if (!isOpen) open(true);
  }, []);
  return <ConnectPanel first={first} suggestion={`device-${total + 1}`} onClose={() => open(false)} />;
}

function List({ v, onAdd, onAgain }: { v: View; onAdd: () => void; onAgain: () => void }) {
  return (
    <section class="sec" aria-labelledby="devices-title">
      <header>
        <h2 id="devices-title">{T.title}</h2>
        <p>{T.shown(v.order.length, v.total)}</p>
        {newcomers.value > 0 && <button type="button" class="chip" onClick={onAgain}>{T.newcomers(newcomers.value)}</button>}
        <div class="r">
          <Search q={v.q} sort={v.sort} />
          <button type="button" class="btn" onClick={onAdd}>{T.add}</button>
        </div>
      </header>
      {refusal.value && <p class="error" role="alert">{refusal.value}</p>}
      {v.order.length === 0 ? <Nothing v={v} /> : <Table v={v} />}
      <Pager v={v} />
    </section>
  );
}

function Search({ q, sort }: { q: string; sort: Sort }) {
  const [text, setText] = useState(q);
  const timer = useRef(0);
  useEffect(() => setText(q), [q]);
  const onInput = (e: { currentTarget: HTMLInputElement }) => {
    const typed = e.currentTarget.value;
    setText(typed);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => go(listPath(typed.trim(), sort, ""), true), TYPING_MS);
  };
  return (
    <label class="search">
      <svg width="13" height="13" viewBox="0 0 14 14" fill="none" stroke="currentColor" stroke-width="1.6" aria-hidden="true"><circle cx="6" cy="6" r="4.5" /><path d="m9.5 9.5 3.5 3.5" /></svg>
      <input type="search" value={text} placeholder={T.search} aria-label={T.search} autocomplete="off" spellcheck={false} onInput={onInput} />
    </label>
  );
}

function Nothing({ v }: { v: View }) {
  if (v.q) return <p class="quiet-note">{T.noMatch(v.q)} <a class="link" href={listPath("", v.sort, "")}>{T.clear}</a></p>;
  return <p class="quiet-note">{T.noMore} <a class="link" href={listPath("", v.sort, "")}>{T.start}</a></p>;
}

// The roles are written out, for a narrow window lays the rows out as a grid, which
// would take them away.
function Table({ v }: { v: View }) {
  const keys = columns.value;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-labelledby="devices-title">
      <table class="devices" role="table">
        <thead role="rowgroup">
          <tr role="row">
            <th scope="col" role="columnheader" class="state">{T.state}</th>
            <SortHead v={v} sort="id" word={T.device} order="ascending" />
            <SortHead v={v} sort="-seen" word={T.seen} order="descending" />
            {keys.map((k) => <th key={k} scope="col" role="columnheader" class="n" title={k}>{k}</th>)}
          </tr>
        </thead>
        <tbody role="rowgroup">{v.order.map((id) => <DeviceLine key={id} id={id} keys={keys} />)}</tbody>
      </table>
    </div>
  );
}

function SortHead({ v, sort, word, order }: { v: View; sort: Sort; word: string; order: "ascending" | "descending" }) {
  const on = v.sort === sort;
  return (
    <th scope="col" role="columnheader" aria-sort={on ? order : "none"}>
      <button type="button" class="sort" onClick={() => go(listPath(v.q, sort, ""))}>
        {word} <svg width="8" height="6" viewBox="0 0 8 6" aria-hidden="true" class={on ? order : "no"}><path d="M4 0l4 6H0z" fill="currentColor" /></svg>
      </button>
    </th>
  );
}

function DeviceLine({ id, keys }: { id: string; keys: string[] }) {
  const row = rowOf(id)?.value;
  if (!row) return null;
  return (
    <tr role="row" class={row.deleted ? "deleted" : undefined}>
      <td role="cell" class="state val" title={MEANING[row.state]}>
        <Glyph state={row.state} /> {row.deleted ? T.deleted : WORD[row.state]}
      </td>
      <th scope="row" role="rowheader"><a href={devicePath(id)}><span class="mono">{id}</span>{row.name && <small>{row.name}</small>}</a></th>
      <td role="cell" class="seen val">{row.last_seen > 0 ? <time title={absolute(row.last_seen)}>{ago(row.last_seen, now.value)}</time> : T.never}</td>
      {keys.map((k) => <ValueCell key={k} of={cell(row, k)} name={k} />)}
    </tr>
  );
}

function ValueCell({ of, name }: { of: [Value, number] | undefined; name: string }) {
  const text = of ? value(of[0]) : "";
  const el = useHeat<HTMLTableCellElement>(text);
  return (
    <td ref={el} role="cell" class="n val" data-key={name} title={of ? `${exact(of[0])}, ${absolute(of[1])}` : undefined}>
      {of ? text : <span class="none" aria-label="no value">·</span>}
    </td>
  );
}

/** Where the pages before this one began; lost, with a way back to the first,
 * when the address was opened directly. */
const places: string[] = [];

function Pager({ v }: { v: View }) {
  if (!v.next && !v.after) return null;
  const next = () => {
    places.push(v.after);
    go(listPath(v.q, v.sort, v.next));
  };
  const previous = () => go(listPath(v.q, v.sort, places.pop() ?? ""));
  return (
    <nav class="pager" aria-label="Pages">
      <button type="button" class="btn" disabled={!v.after} onClick={previous}>{T.previous}</button>
      <button type="button" class="btn" disabled={!v.next} onClick={next}>{T.next} {PAGE}</button>
    </nav>
  );
}
