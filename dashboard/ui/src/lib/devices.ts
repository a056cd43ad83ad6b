// The list of devices as it is shown: one signal per row, so that a change
// redraws its own row only. Live changes never reorder, add or take away rows;
// a new view does.

import { signal, type Signal } from "@preact/signals";
import { parseColumns, type Column } from "./columns";
import { subscribe, type Frame } from "./live";
import { rememberOrder } from "./neighbours";
import type { Sort } from "./route";
import type { DeviceRow, Value } from "./types";

export const PAGE = 50;
const COLUMNS = 4;

export interface Row extends DeviceRow {
  deleted: boolean;
}

export interface View {
  q: string;
  sort: Sort;
  after: string;
  cols: string;
  order: string[];
  total: number;
  next: string;
}

/** What the table shows; null before the first answer. */
export const view = signal<View | null>(null);
/** How many devices match that the view does not show because they came later. */
export const newcomers = signal(0);
/** The columns beside state and device. */
export const columns = signal<Column[]>([]);
/** Why the server refused the view, empty when it did not. */
export const refusal = signal("");

const rows = new Map<string, Signal<Row>>();

/** The row of a device in the view. */
export function rowOf(id: string): Signal<Row> | undefined {
  return rows.get(id);
}

/** Shows the given view, live, until the returned function is called. */
export function showDevices(q: string, sort: Sort, after: string, cols = ""): () => void {
  const keys = parseColumns(cols).filter((c) => c.kind === "v").map((c) => c.key);
  return subscribe("devices", { q, sort, after, limit: PAGE, ...(keys.length > 0 && { cols: keys }) }, {
    snapshot: (f) => takeSnapshot(f, { q, sort, after, cols }),
    delta: takeDelta,
    refused: (_code, detail) => {
      refusal.value = detail;
    },
  });
}

/** Forgets the view, so that nothing old is shown on the way back. */
export function leaveDevices(): void {
  rememberOrder(view.peek()?.order ?? []);
  view.value = null;
  columns.value = [];
  refusal.value = "";
  rows.clear();
}

function takeSnapshot(f: Frame, at: Pick<View, "q" | "sort" | "after" | "cols">): void {
  const items = (f["items"] ?? []) as DeviceRow[];
  const keep = new Set(items.map((d) => d.id));
  for (const id of rows.keys()) if (!keep.has(id)) rows.delete(id);
  for (const d of items) {
    const row = { ...d, values: d.values ?? {}, deleted: false };
    const have = rows.get(d.id);
    if (have) have.value = row;
    else rows.set(d.id, signal(row));
  }
  const old = view.peek();
  const same = old !== null && old.q === at.q && old.sort === at.sort && old.after === at.after && old.cols === at.cols;
  columns.value = at.cols ? parseColumns(at.cols) : chooseColumns(same ? columns.peek() : []);
  refusal.value = "";
  newcomers.value = 0;
  view.value = { ...at, order: items.map((d) => d.id), total: Number(f["total"] ?? items.length), next: String(f["next"] ?? "") };
}

function takeDelta(f: Frame): void {
  for (const [id, change] of Object.entries((f["set"] ?? {}) as Record<string, Partial<DeviceRow>>)) {
    const row = rows.get(id);
    if (!row) continue;
    const old = row.peek();
    row.value = { ...old, ...change, values: change.values ? { ...old.values, ...change.values } : old.values, deleted: false };
  }
  for (const id of (f["del"] ?? []) as string[]) {
    const row = rows.get(id);
    if (row) row.value = { ...row.peek(), deleted: true };
  }
  const drift = f["drift"] as { new?: number; total?: number } | undefined;
  if (drift) newcomers.value = drift.new ?? 0;
  const v = view.peek();
  if (v && drift?.total !== undefined) view.value = { ...v, total: drift.total };
  if (!v?.cols && columns.peek().length < COLUMNS + 1) columns.value = chooseColumns(columns.peek());
}

/** Last seen, the columns there are, and beside them the keys that most rows send,
 * numbers first. */
function chooseColumns(old: Column[]): Column[] {
  const kept = old.filter((c) => c.kind === "v").map((c) => c.key);
  const seen = new Map<string, { rows: number; numbers: number }>();
  for (const row of rows.values()) {
    for (const [key, [v]] of Object.entries(row.peek().values)) {
      const s = seen.get(key) ?? { rows: 0, numbers: 0 };
      s.rows++;
      if (typeof v === "number") s.numbers++;
      seen.set(key, s);
    }
  }
  const more = [...seen]
    .filter(([key]) => !kept.includes(key))
    .sort(([a, x], [b, y]) => y.rows - x.rows || y.numbers - x.numbers || (a < b ? -1 : 1))
    .map(([key]) => key);
  const all = [...kept, ...more].slice(0, COLUMNS);
  if (all.length === kept.length && old.length > 0) return old;
  return [{ name: "seen", kind: "seen", key: "" }, ...all.map((key): Column => ({ name: `v.${key}`, kind: "v", key }))];
}

/** A row's value of a column, undefined when the device never sent it. */
export function cell(row: Row, key: string): [Value, number] | undefined {
  return Object.hasOwn(row.values, key) ? row.values[key] : undefined;
}
