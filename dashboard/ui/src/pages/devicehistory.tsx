// The tab History of a device: its readings as they are stored, page by page, and as files.

import { useEffect, useRef, useState } from "preact/hooks";
import { message, call } from "../lib/api";
import { insist } from "../lib/ask";
import { serverNow } from "../lib/clock";
import type { DeviceModel } from "../lib/device";
import { exact, value } from "../lib/format";
import type { Page } from "../lib/list";
import { endsOf, fullOf, range } from "../lib/range";
import { search, setSearch } from "../lib/route";
import { getLatest, type Reading } from "../lib/schema.gen";
import type { Value } from "../lib/types";
import { Scroll } from "../parts/scroll";
import { TimeRange } from "../parts/timerange";

const T = {
  title: "Readings",
  newest: "the newest first",
  key: "Key",
  all: "All keys",
  time: "Time",
  csv: "CSV",
  ndjson: "NDJSON",
  download: (what: string) => `Download as ${what}`,
  csvKeys: "As CSV the keys are the columns.",
  none: "No reading in this range.",
  more: "Older",
  loading: "Asking the server for the readings.",
};

const PAGE = 100;
const COLUMNS = 8;
const MOST_OLDER = 50; // pages beside the first that an address may ask for
const FILE = 100_000; // readings in one file

export function HistoryTab({ model }: { model: DeviceModel }) {
  const r = range.value;
  const key = search.value.get("key") ?? "";
  const [keys, setKeys] = useState<string[]>([]);
  const [items, setItems] = useState<Reading[] | null>(null);
  const [next, setNext] = useState("");
  const [fault, setFault] = useState("");
  const path = `/devices/${encodeURIComponent(model.id)}/telemetry`;
  const older = Math.min(Math.max(0, Math.floor(Number(search.value.get("older")) || 0)), MOST_OLDER);
  const of = `${model.id} ${r.from} ${r.to} ${key}`;
  const shown = useRef(of);
  const asked = (more: Record<string, string>) => {
    const [from, to] = endsOf(r, serverNow());
    const p = new URLSearchParams({ from: new Date(from).toISOString(), to: new Date(to).toISOString(), order: "desc", ...more });
    if (key) p.set("keys", key);
    return p;
  };
  const read = async (cursor: string, stop?: AbortSignal) => {
    const p = asked({ limit: String(PAGE), ...(cursor && { cursor }) });
    const page = await call<Page<Reading>>("GET", `${path}?${p}`, undefined, stop);
    setItems((old) => (cursor ? [...(old ?? []), ...page.items] : page.items));
    setNext(page.next ?? "");
    setFault("");
    return page.next ?? "";
  };
  useEffect(() => {
    const stop = new AbortController();
    const pages = shown.current === of ? older : 0; // of another range the place is another
    shown.current = of;
    if (pages !== older) setSearch({ older: "" }, true);
    const all = async () => {
      let at = "";
      for (let i = 0; i <= pages && (i === 0 || at); i++) at = await insist((signal) => read(at, signal), stop.signal, (e) => setFault(message(e)));
    };
    all().catch(() => undefined); // each failure was told
    return () => stop.abort();
  }, [of]);
  const more = async () => {
    await read(next);
    setSearch({ older: String(Math.min(older + 1, MOST_OLDER)) }, true);
  };
  useEffect(() => {
    const stop = new AbortController();
    getLatest(model.id, undefined, stop.signal).then((l) => setKeys(Object.keys(l.values).sort()), () => undefined);
    return () => stop.abort();
  }, [model.id]);
  const columns = key ? [key] : columnsOf(items ?? []);
  const file = (format: string) => {
    const p = asked({ format, limit: String(FILE), order: "asc" });
    if (format === "csv" && !key) p.set("keys", keys.join(","));
    return `/api/v1${path}?${p}`;
  };
  return (
    <section class="sec" aria-labelledby="readings-title">
      <header>
        <h2 id="readings-title">{T.title}</h2><p>{T.newest}</p>
        <div class="r">
          <select aria-label={T.key} value={key} onChange={(e) => setSearch({ key: e.currentTarget.value }, true)}>
            <option value="">{T.all}</option>
            {keys.map((k) => <option key={k} value={k}>{k}</option>)}
            {key && !keys.includes(key) && <option value={key}>{key}</option>}
          </select>
          {keys.length > 0 && <a class="btn" href={file("csv")} download={`${model.id}.csv`} aria-label={T.download(T.csv)} title={T.csvKeys}>{T.csv}</a>}
          <a class="btn" href={file("ndjson")} download={`${model.id}.ndjson`} aria-label={T.download(T.ndjson)}>{T.ndjson}</a>
        </div>
      </header>
      <TimeRange />
      <p class="error" role="alert">{fault}</p>
      {!items && !fault && <p class="quiet-note">{T.loading}</p>}
      {items?.length === 0 && <p class="quiet-note">{T.none}</p>}
      {items && items.length > 0 && (
        <Scroll labelledby="readings-title">
          <table class="readings">
            <thead><tr><th scope="col">{T.time}</th>{columns.map((c) => <th key={c} scope="col" class="n" title={c}>{c}</th>)}</tr></thead>
            <tbody>{items.map((x, i) => <Line key={i} of={x} columns={columns} />)}</tbody>
          </table>
        </Scroll>
      )}
      {next && <button type="button" class="btn more" onClick={() => void more().catch((e: unknown) => setFault(message(e)))}>{T.more}</button>}
    </section>
  );
}

function Line({ of, columns }: { of: Reading; columns: string[] }) {
  const t = Date.parse(of.time);
  return (
    <tr>
      <th scope="row"><time title={of.time}>{fullOf(t)}</time></th>
      {columns.map((c) => {
        const v = (of.values as Record<string, Value>)[c];
        return <td key={c} class="n" title={v === undefined ? undefined : exact(v)}>{v === undefined ? "" : value(v)}</td>;
      })}
    </tr>
  );
}

/** The keys that are in most readings, in bytewise order. */
function columnsOf(items: Reading[]): string[] {
  const seen = new Map<string, number>();
  for (const x of items) for (const k of Object.keys(x.values)) seen.set(k, (seen.get(k) ?? 0) + 1);
  return [...seen].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).slice(0, COLUMNS).map(([k]) => k).sort();
}
