// Fields of a form that are not one line: a choice of words, and text of many lines.

import { useId } from "preact/hooks";
import type { Form } from "../lib/form";

interface Props<K extends string> {
  form: Form<K>;
  name: K;
  label: string;
  hint?: string;
  disabled?: boolean;
}

export function Choice<K extends string>({ form, name, label, hint = "", disabled = false, options }: Props<K> & { options: readonly (readonly [string, string])[] }) {
  const id = useId() + name;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select id={id} name={name} disabled={disabled} value={form.values[name]} aria-describedby={`${id}-error ${id}-hint`} onChange={(e) => form.set(name, e.currentTarget.value)}>
        {options.map(([value, word]) => <option key={value} value={value}>{word}</option>)}
      </select>
      <Below id={id} fault={form.faults[name] ?? ""} hint={hint} />
    </div>
  );
}

export function Area<K extends string>({ form, name, label, hint = "", disabled = false, rows = 3, mono = false }: Props<K> & { rows?: number; mono?: boolean }) {
  const id = useId() + name;
  const fault = form.faults[name] ?? "";
  return (
    <div class="field wide">
      <label for={id}>{label}</label>
      <textarea id={id} name={name} class={mono ? "mono" : ""} rows={rows} disabled={disabled} spellcheck={!mono} value={form.values[name]} aria-invalid={fault !== ""} aria-describedby={`${id}-error ${id}-hint`}
        onInput={(e) => form.set(name, e.currentTarget.value)} />
      <Below id={id} fault={fault} hint={hint} />
    </div>
  );
}

function Below({ id, fault, hint }: { id: string; fault: string; hint: string }) {
  return (
    <>
      <p class="error" id={id + "-error"} role="alert">{fault}</p>
      <p class="hint" id={id + "-hint"} hidden={!hint}>{hint}</p>
    </>
  );
}
