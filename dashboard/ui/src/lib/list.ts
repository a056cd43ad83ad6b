// A list that is asked of the API: its pages, and what went wrong.

import { useState } from "preact/hooks";
import { ApiError, message } from "./api";
import { insist, mayPass, useTurns, type Outcome } from "./ask";

/** A page of a list, as the API has it. */
export interface Page<T> {
  items: T[];
  next?: string | null; // cursor of the page after; none at the end
}

/** Where a page begins, as the lists about notifications say it. */
export function after(at: { cursor?: string }): { after?: string } {
  return at.cursor ? { after: at.cursor } : {};
}

/** Asks for the page at a cursor, or for the first. */
export type Read<T> = (at: { cursor?: string }, stop?: AbortSignal) => Promise<Page<T>>;

export interface List<T> extends Outcome {
  fields: Record<string, string>; // what is wrong with the question, by its parameter
  items: T[] | null; // null until the first page is here
  more: (() => void) | null; // null at the end
  reload: () => void;
  /** Puts in what a later look at the first page found: what is new comes first, and what had been read after it stays. While
   * steady, only what is there already is brought up to date. */
  fresh: (page: Page<T>, idOf: (item: T) => string, steady: boolean) => void;
  /** Does something to the list and asks for it again. */
  run: (change: () => Promise<unknown>) => Promise<void>;
}

const NONE: Record<string, string> = {};

/** The list that ask reads; ask is looked at once, and again when of is another; with other
 * news too, when what was asked before has been heard. */
export function useList<T>(ask: Read<T>, of = "", news: string | number = 0): List<T> {
  const [items, setItems] = useState<T[] | null>(null);
  const [next, setNext] = useState("");
  const [fault, setFault] = useState(""); // of a change, or of a further page
  const [unread, setUnread] = useState<unknown>(null); // what went wrong with the first page
  const [turn, setTurn] = useState(0);
  const read = async (cursor: string, stop?: AbortSignal) => {
    const page = await ask(cursor ? { cursor } : {}, stop);
    setItems((old) => (cursor ? [...(old ?? []), ...page.items] : page.items));
    setNext(page.next ?? "");
  };
  useTurns(async (stop) => {
    await insist((signal) => read("", signal), stop, setUnread); // which tells of each failure
    if (!stop.aborted) setUnread(null);
  }, JSON.stringify([turn, of]), news);
  const run = async (change: () => Promise<unknown>) => {
    setFault("");
    try {
      await change();
    } catch (e) {
      setFault(message(e));
    }
    setTurn((t) => t + 1);
  };
  const fresh = (page: Page<T>, idOf: (item: T) => string, steady: boolean) => {
    const now = new Map(page.items.map((x) => [idOf(x), x]));
    const last = items?.findIndex((x) => idOf(x) === idOf(page.items.at(-1) ?? x)) ?? -1;
    const rest = page.next && last >= 0 ? items!.slice(last + 1) : [];
    setItems((old) => (steady && old?.length ? old.map((x) => now.get(idOf(x)) ?? x) : [...page.items, ...rest]));
    if (!steady && rest.length === 0) setNext(page.next ?? "");
  };
  const reload = () => setTurn((t) => t + 1);
  const more = next ? () => void read(next).then(() => setFault(""), (e: unknown) => setFault(message(e))) : null;
  return { items, fields: unread instanceof ApiError ? unread.fields : NONE, fault: fault || (unread === null ? "" : message(unread)), again: !fault && unread !== null && mayPass(unread) ? reload : null, more, fresh, run, reload };
}
