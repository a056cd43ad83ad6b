// A list that is asked of the API: its pages, and what went wrong.

import { useEffect, useState } from "preact/hooks";
import { call, message } from "./api";
import type { Page } from "./types";

export interface List<T> {
  items: T[] | null; // null until the first page is here
  fault: string;
  more: (() => void) | null; // null at the end
  reload: () => void;
  /** Does something to the list and asks for it again. */
  run: (change: () => Promise<unknown>) => Promise<void>;
}

/** The list at path, which may have a query. */
export function useList<T>(path: string): List<T> {
  const [items, setItems] = useState<T[] | null>(null);
  const [next, setNext] = useState("");
  const [fault, setFault] = useState("");
  const [turn, setTurn] = useState(0);
  const read = async (cursor: string, stop?: AbortSignal) => {
    const q = cursor ? (path.includes("?") ? "&" : "?") + "cursor=" + encodeURIComponent(cursor) : "";
    const page = await call<Page<T>>("GET", path + q, undefined, stop);
    setItems((old) => (cursor ? [...(old ?? []), ...page.items] : page.items));
    setNext(page.next ?? "");
  };
  useEffect(() => {
    const stop = new AbortController();
    read("", stop.signal).catch((e: unknown) => stop.signal.aborted || setFault(message(e)));
    return () => stop.abort();
  }, [path, turn]);
  const run = async (change: () => Promise<unknown>) => {
    setFault("");
    try {
      await change();
    } catch (e) {
      setFault(message(e));
    }
    setTurn((t) => t + 1);
  };
  const more = next ? () => void read(next).catch((e: unknown) => setFault(message(e))) : null;
  return { items, fault, more, run, reload: () => setTurn((t) => t + 1) };
}
