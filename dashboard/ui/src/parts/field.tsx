// A labelled field of a form, with what is wrong with it below.

import { useEffect, useId, useRef } from "preact/hooks";
import type { Form } from "../lib/form";

interface Props<K extends string> {
  form: Form<K>;
  name: K;
  label: string;
  type?: "text" | "email" | "password";
  autocomplete?: string;
  hint?: string;
  mono?: boolean;
  optional?: boolean;
  focus?: boolean;
  list?: string; // the id of a datalist
}

export function Field<K extends string>({ form, name, label, type = "text", autocomplete = "off", hint = "", mono = false, optional = false, focus = false, list }: Props<K>) {
  const input = useRef<HTMLInputElement>(null);
  const fault = form.faults[name] ?? "";
  useEffect(() => {
    if (focus || fault) input.current?.focus();
  }, [fault]);
  const id = useId() + name;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input ref={input} id={id} name={name} class={mono ? "mono" : ""} {...({ type, autocomplete } as { type: "text"; autocomplete: "off" })} list={list} spellcheck={false} required={!optional}
        value={form.values[name]} aria-invalid={fault !== ""} aria-describedby={`${id}-error ${id}-hint`} onInput={(e) => form.set(name, e.currentTarget.value)} />
      <p class="error" id={id + "-error"} role="alert">{fault}</p>
      <p class="hint" id={id + "-hint"} hidden={!hint}>{hint}</p>
    </div>
  );
}

/** The end of a form: its button, and the fault that is about no field. */
export function Submit({ form, children }: { form: Form<never> | Form<string>; children: string }) {
  return (
    <>
      <p class="error" role="alert">{form.fault}</p>
      <button type="submit" class="btn pri" disabled={form.busy}>{children}</button>
    </>
  );
}

/** A page outside of the shell: sign-in, and where links lead. */
export function Door({ title, children }: { title: string; children: preact.ComponentChildren }) {
  useEffect(() => {
    document.title = `${title} · Muster`;
  }, [title]);
  return (
    <main class="signin" id="main">
      {children}
    </main>
  );
}
