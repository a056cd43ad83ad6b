// What a form does: hold its fields, send them, say faults at the field they are about.

import { useState } from "preact/hooks";
import { ApiError, message } from "./api";

/** What is wrong with a field, found before anything was sent. */
export class FieldFault extends Error {
  constructor(readonly at: string, why: string) {
    super(why);
  }
}

const T = { noNumber: "This is no number.", noWhole: "This is no whole number." };

/** What a field holds as a number, which may have a part behind a point when it is a measure; a FieldFault of the field otherwise. */
export function numberIn(at: string, text: string, measure = false): number {
  const n = text.trim();
  if (!/^[+-]?\d+(\.\d+)?$/.test(n)) throw new FieldFault(at, T.noNumber);
  if (!measure && !Number.isInteger(Number(n))) throw new FieldFault(at, T.noWhole);
  return Number(n);
}

export interface Form<K extends string> {
  values: Record<K, string>;
  faults: Partial<Record<K, string>>;
  /** The faults by what they are about in full: a place within a field, such as a cell of its lines. */
  places: Record<string, string>;
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
  const [places, setPlaces] = useState<Record<string, string>>({});
  const [fault, setFault] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = (run: (values: Record<K, string>) => Promise<void>) => async (e: Event) => {
    e.preventDefault();
    setBusy(true);
    setFault("");
    setFaults({});
    setPlaces({});
    try {
      await run(values);
    } catch (e) {
      const all = e instanceof FieldFault ? { [e.at]: e.message } : e instanceof ApiError ? e.fields : {};
      const known = Object.entries(all).map(([at, why]) => [fieldOf(at, first), why] as const).filter(([name]) => name);
      setPlaces(all);
      if (known.length > 0) setFaults(Object.fromEntries(known) as Partial<Record<K, string>>);
      else setFault(message(e));
    } finally {
      setBusy(false);
    }
  };
  return {
    values, faults, places, fault, busy, submit,
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
