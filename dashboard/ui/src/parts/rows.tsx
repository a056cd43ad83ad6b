// A list in a form: a line for each of its things, a cell for each of their words. The form
// holds it as JSON in one field.

import { useId } from "preact/hooks";
import type { Form } from "../lib/form";

const T = {
  drop: "Remove",
  dropOf: (legend: string, n: number) => `Remove ${n} of: ${legend}`,
};

export type Row = Record<string, string>;

export interface Column {
  key: string;
  label: string;
  mono?: boolean;
  options?: readonly (readonly [string, string])[];
  at?: readonly string[]; // what the API calls it, where that is not its key
}

interface Props<K extends string> {
  form: Form<K>;
  name: K;
  legend: string;
  hint: string;
  columns: readonly Column[];
  fresh: Row; // what a new line holds
  add: string;
}

/** What the field of a Rows holds. */
export function rowsOf(text: string): Row[] {
  return text ? (JSON.parse(text) as Row[]) : [];
}

export function rowsText(rows: Row[]): string {
  return rows.length > 0 ? JSON.stringify(rows) : "";
}

export function Rows<K extends string>({ form, name, legend, hint, columns, fresh, add }: Props<K>) {
  const id = useId();
  const rows = rowsOf(form.values[name]);
  const put = (next: Row[]) => form.set(name, rowsText(next));
  const faultAt = (i: number, c: Column) => [c.key, ...(c.at ?? [])].map((k) => form.places[`${name}/${i}/${k}`]).find(Boolean) ?? "";
  const placed = rows.some((_, i) => columns.some((c) => faultAt(i, c)));
  const cell = (row: Row, i: number, c: Column) => {
    const at = { id: `${id}-${i}-${c.key}`, name: `${name}/${i}/${c.key}`, value: row[c.key] ?? "" };
    const wrong = faultAt(i, c);
    const set = (value: string) => put(rows.map((r, j) => (j === i ? { ...r, [c.key]: value } : r)));
    return (
      <div class="field" key={c.key}>
        <label for={at.id}>{c.label}</label>
        {c.options ? <select {...at} onChange={(e) => set(e.currentTarget.value)}>{c.options.map(([value, word]) => <option key={value} value={value}>{word}</option>)}</select>
          : <input {...at} class={c.mono ? "mono" : ""} aria-invalid={wrong !== ""} aria-describedby={wrong ? at.id + "-error" : undefined} autocomplete="off" spellcheck={false} onInput={(e) => set(e.currentTarget.value)} />}
        {wrong && <p class="error" id={at.id + "-error"} role="alert">{wrong}</p>}
      </div>
    );
  };
  return (
    <fieldset class={`lines ${name}`} aria-describedby={`${id}-error ${id}-hint`}>
      <legend>{legend}</legend>
      {rows.map((row, i) => (
        <div class="row" key={i}>
          {columns.map((c) => cell(row, i, c))}
          <button type="button" class="btn txt" aria-label={T.dropOf(legend, i + 1)} onClick={() => put(rows.filter((_, j) => j !== i))}>{T.drop}</button>
        </div>
      ))}
      <p class="error" id={id + "-error"} role="alert">{placed ? "" : form.faults[name] ?? ""}</p>
      <p class="hint" id={id + "-hint"}>{hint}</p>
      <button type="button" class="btn" onClick={() => put([...rows, fresh])}>{add}</button>
    </fieldset>
  );
}
