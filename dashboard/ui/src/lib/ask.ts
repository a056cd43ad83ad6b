// A question that a page asks once: asked again by itself while it cannot be answered, and by a press.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, message } from "./api";
import { delayOf } from "./backoff";

const PASSING = [0, 408, 429, 502, 503, 504]; // not reached, too busy, or just starting
const LEAST_MS = 1000; // between two attempts

/** Whether what went wrong may be well in a moment, without anybody doing anything. */
function passes(e: unknown): boolean {
  return e instanceof ApiError && PASSING.includes(e.status);
}

/** Whether to ask again could bring another answer: a refusal by the server stays one. */
export function mayPass(e: unknown): boolean {
  return passes(e) || !(e instanceof ApiError) || e.status >= 500;
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    stop.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    }, { once: true });
  });
}

/** Asks until there is an answer, or one that asking again does not change; the waits grow as those of the live connection.
 * Each failure goes to failed. It throws the last one, or when stop has aborted. */
export async function insist<A>(ask: (stop: AbortSignal) => Promise<A>, stop: AbortSignal, failed: (e: unknown) => void): Promise<A> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await ask(stop);
    } catch (e) {
      if (stop.aborted) throw e;
      failed(e);
      if (!passes(e)) throw e;
    }
    await pause(delayOf(attempt, LEAST_MS), stop);
    stop.throwIfAborted();
  }
}

/** Asks at once, and anew when turn is another: what is under way is heard to its end first, and then asked once more however many
 * turns there were, so that a stream of them cannot keep it from ending. With another of it is broken off and begun anew. */
export function useTurns(ask: (stop: AbortSignal) => Promise<unknown>, of: string, turn: string | number): void {
  const newest = useRef(ask);
  newest.current = ask;
  const line = useRef({ stop: new AbortController(), busy: false, due: false });
  useEffect(() => {
    const mine = { stop: new AbortController(), busy: false, due: false };
    line.current = mine;
    return () => mine.stop.abort();
  }, [of]);
  useEffect(() => {
    const mine = line.current;
    mine.due = true;
    if (mine.busy) return;
    mine.busy = true;
    void (async () => {
      while (mine.due && !mine.stop.signal.aborted) {
        mine.due = false;
        await newest.current(mine.stop.signal).catch(() => undefined); // who asks tells of it
      }
      mine.busy = false;
    })();
  }, [of, turn]);
}

/** What became of a question. */
export interface Outcome {
  fault: string; // in words; empty while there is none
  again: (() => void) | null; // asks at once; null where that brings nothing
}

export interface Asked<A> extends Outcome {
  answer: A | null; // the newest one; null before the first
  set: (answer: A) => void; // takes what a change of it was answered
}

/** The answer to ask, which is asked at once, and anew when of or turn is another: of says what is asked about, so that
 * an answer about something else goes; with turn the old one stays until the new one is here. Without ask nothing is
 * asked. missing is said where the server knows no such thing. */
export function useAsked<A>(ask: ((stop: AbortSignal) => Promise<A>) | null, of: string, turn: string | number = 0, missing = ""): Asked<A> {
  const [got, set] = useState<{ of: string; answer: A } | null>(null);
  const [fault, setFault] = useState<unknown>(null);
  const [presses, press] = useState(0);
  useTurns(async (stop) => {
    setFault(null);
    if (!ask) return;
    const answer = await insist(ask, stop, setFault); // which tells of each failure
    if (stop.aborted) return;
    set({ of, answer });
    setFault(null);
  }, JSON.stringify([of, presses, ask === null]), turn);
  const words = fault === null ? "" : missing && fault instanceof ApiError && fault.status === 404 ? missing : message(fault);
  return {
    answer: got && got.of === of ? got.answer : null, set: (answer) => set({ of, answer }),
    fault: words, again: fault !== null && mayPass(fault) ? () => press((n) => n + 1) : null,
  };
}
