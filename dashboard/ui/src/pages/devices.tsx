// The list of devices.

import { useSignal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { exportColumns, type Column } from "../lib/columns";
import { columns, leaveDevices, newcomers, PAGE, refusal, showDevices, view, type View } from "../lib/devices";
import { count, plural } from "../lib/format";
import { go, listPath, route, type Sort } from "../lib/route";
import { explainDeviceQuery, type QueryPart } from "../lib/schema.gen";
import { clearSelection } from "../lib/selection";
import { mayWriteDevices } from "../lib/session";
import { ColumnMenu } from "../parts/columnmenu";
import { Facets } from "../parts/facets";
import { QueryBox } from "../parts/querybox";
import { ViewMenu } from "../parts/viewmenu";
import { BulkBar, WorkStrip } from "./bulk";
import { ConnectPanel } from "./connect";
import { Table } from "./devicetable";
import { RollCall } from "./rollcall";

const T = {
  title: "Devices",
  shown: (n: number, total: number) => (n >= total ? plural(total, "device", "devices") : `${count(n)} of ${count(total)}`),
  add: "Add device",
  import: "Import",
  needs: "This needs the role operator.",
  csv: "CSV",
  newcomers: (n: number) => `${count(n)} new, show`,
  previous: "Previous",
  next: "Next",
  noneTitle: "No devices yet",
  none: "Devices appear here as soon as they exist, with their state and their latest values.",
  noMatch: "No device matches.",
  without: "Without",
  thereAre: (n: number) => (n === 1 ? "there is 1." : `there are ${count(n)}.`),
  noneHelps: "No single term is why: several of them leave nobody.",
  noMore: "There are no devices on this page any more.",
  clear: "Clear the search",
  start: "Back to the first page",
  loading: "Asking the server for the devices.",
};

export function DevicesPage() {
  const r = route.value;
  const [adding, setAdding] = useState(false);
  const again = useSignal(0);
  const [q, sort, after, cols] = r.page === "devices" ? [r.q, r.sort, r.after, r.cols] : ["", "id" as Sort, "", ""];
  useEffect(() => showDevices(q, sort, after, cols), [q, sort, after, cols, again.value]);
  useEffect(() => () => {
    clearSelection();
    leaveDevices();
  }, []);
  const v = view.value ?? (refusal.value ? { q, sort, after, cols, order: [], total: 0, next: "" } : null);
  const empty = v !== null && v.order.length === 0 && v.q === "" && v.after === "";
  const first = v !== null && v.order.length === 0 && v.after === "" && newcomers.value > 0;
  useEffect(() => {
    if (first) again.value++; // nothing is under the pointer that could move
  }, [first]);
  if (!v) return <p class="quiet-note">{T.loading}</p>;
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

/** The list; without one yet, when the address has a query that the server does not understand, the box to write it right. */
function List({ v, onAdd, onAgain }: { v: View; onAdd: () => void; onAgain: () => void }) {
  const refused = view.value === null;
  const entitled = mayWriteDevices();
  useEffect(clearSelection, [v.q]);
  const onQuery = (q: string) => go(listPath(q, v.sort, "", v.cols), true);
  const columnsNow = columns.value;
  return (
    <section class="sec listing" aria-labelledby="devices-title">
      <header>
        <h2 id="devices-title">{T.title}</h2>
        {!refused && <p>{T.shown(v.order.length, v.total)}</p>}
        {newcomers.value > 0 && <button type="button" class="chip" onClick={onAgain}>{T.newcomers(newcomers.value)}</button>}
        <div class="r">
          <QueryBox value={asked(v.q)} fault={refusal.value} onQuery={onQuery} />
          <button type="button" class="btn add" disabled={!entitled} title={entitled ? undefined : T.needs} onClick={onAdd}>{T.add}</button>
        </div>
      </header>
      {!refused && <div class="tools">
        <Facets q={v.q} onQuery={onQuery} />
        <div class="r">
          <ViewMenu />
          <ColumnMenu q={v.q} shown={columnsNow} onColumns={(cols) => go(listPath(v.q, v.sort, v.after, cols), true)} />
          <a class="btn" href={exportPath(v.q, v.sort, columnsNow)} download="devices.csv">{T.csv}</a>
          {entitled ? <a class="btn" href="/import">{T.import}</a> : <button type="button" class="btn" disabled title={T.needs}>{T.import}</button>}
        </div>
      </div>}
      <BulkBar />
      <WorkStrip />
      {refused && <p class="quiet-note"><a class="link" href={listPath("", v.sort, "", v.cols)}>{T.clear}</a></p>}
      {!refused && (v.order.length === 0 ? <Nothing v={v} /> : <Table v={v} />)}
      <Pager v={v} />
    </section>
  );
}

/** The query that was asked for last, also when the server refused it. */
function asked(shown: string): string {
  const r = route.value;
  return r.page === "devices" ? r.q : shown;
}

function exportPath(q: string, sort: Sort, shown: Column[]): string {
  return "/api/v1/devices:export?" + new URLSearchParams({ columns: exportColumns(shown), ...(q && { q }), ...(sort !== "id" && { sort }) }).toString();
}

/** Nothing matches: which part of the query leaves nobody. */
function Nothing({ v }: { v: View }) {
  const [parts, setParts] = useState<QueryPart[]>([]);
  useEffect(() => {
    setParts([]);
    if (!v.q) return;
    const stop = new AbortController();
    explainDeviceQuery({ q: v.q }, stop.signal).then((e) => setParts(e.parts), () => {}); // the list says enough without
    return () => stop.abort();
  }, [v.q]);
  if (!v.q) return <p class="quiet-note">{T.noMore} <a class="link" href={listPath("", v.sort, "", v.cols)}>{T.start}</a></p>;
  const helps = parts.length > 1 ? parts.filter((p) => p.without > 0) : [];
  return (
    <div class="nothing">
      <p class="quiet-note">{T.noMatch} <a class="link" href={listPath("", v.sort, "", v.cols)}>{T.clear}</a></p>
      {parts.length > 1 && helps.length === 0 && <p class="quiet-note">{T.noneHelps}</p>}
      <ul>
        {helps.map((p) => (
          <li key={p.column}>{T.without} <a class="link" href={listPath(tokensWithout(parts, p), v.sort, "", v.cols)}><code>{p.term}</code></a> {T.thereAre(p.without)}</li>
        ))}
      </ul>
    </div>
  );
}

/** The query with one of its parts left out. */
function tokensWithout(parts: QueryPart[], out: QueryPart): string {
  return parts.filter((p) => p !== out).map((p) => (/\sor\s/.test(p.term) ? `(${p.term})` : p.term)).join(" ");
}

/** Where the pages before this one began; lost, with a way back to the first,
 * when the address was opened directly. */
const places: string[] = [];

function Pager({ v }: { v: View }) {
  if (!v.next && !v.after) return null;
  const next = () => {
    places.push(v.after);
    go(listPath(v.q, v.sort, v.next, v.cols));
  };
  const previous = () => go(listPath(v.q, v.sort, places.pop() ?? "", v.cols));
  return (
    <nav class="pager" aria-label="Pages">
      <button type="button" class="btn" disabled={!v.after} onClick={previous}>{T.previous}</button>
      <button type="button" class="btn" disabled={!v.next} onClick={next}>{T.next} {PAGE}</button>
    </nav>
  );
}
