// What a form does: hold its fields, send them, say faults at the field they are about.

import { useState } from "preact/hooks";
import { ApiError, message } from "./api";

export interface Form<K extends string> {
  values: Record<K, string>;
  faults: Partial<Record<K, string>>;
  fault: string; // that is about no field
  busy: boolean;
  set: (name: K, value: string) => void;
  refuse: (name: K, why: string) => void;
  /** A submit handler: do may return false when it has said a fault itself. */
  submit: (run: (values: Record<K, string>) => Promise<void>) => (e: Event) => Promise<void>;
  clear: () => void;
}

/** A form with the given fields and what they hold at first. */
export function useForm<K extends string>(first: Record<K, string>): Form<K> {
  const [values, setValues] = useState(first);
  const [faults, setFaults] = useState<Partial<Record<K, string>>>({});
  const [fault, setFault] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = (run: (values: Record<K, string>) => Promise<void>) => async (e: Event) => {
    e.preventDefault();
    setBusy(true);
    setFault("");
    setFaults({});
    try {
      await run(values);
    } catch (e) {
      const known = e instanceof ApiError ? Object.entries(e.fields).map(([at, why]) => [fieldOf(at, first), why] as const).filter(([name]) => name) : [];
      if (known.length > 0) setFaults(Object.fromEntries(known) as Partial<Record<K, string>>);
      else setFault(message(e));
    } finally {
      setBusy(false);
    }
  };
  return {
    values, faults, fault, busy, submit,
    set: (name, value) => setValues((v) => ({ ...v, [name]: value })),
    refuse: (name, why) => setFaults({ [name]: why } as Partial<Record<K, string>>),
    clear: () => setValues(first),
  };
}

/** The field that a pointer is about: that of its name, or the one that holds it. */
function fieldOf(pointer: string, fields: object): string {
  for (let at = pointer; at; at = at.slice(0, Math.max(0, at.lastIndexOf("/")))) {
    if (at in fields) return at;
  }
  return "";
}
