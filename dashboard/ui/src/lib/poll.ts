// What is asked of the API again and again while a page shows it.

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";
import { isLive } from "./live";

type Ask<A> = (stop: AbortSignal) => Promise<A>;

/** Gives each answer of ask to take, asked again after every ms while the tab is shown, until the returned function is
 * called or the answer is refused for want of rights. */
function repeat<A>(ask: Ask<A>, ms: number, take: (answer: A) => void, later = false): () => void {
  const stop = new AbortController();
  let timer = 0;
  const turn = async () => {
    try {
      if (!document.hidden) {
        const answer = await ask(stop.signal);
        if (!stop.signal.aborted) take(answer);
      }
    } catch (e) {
      if (e instanceof ApiError && (e.status === 403 || e.status === 401)) return;
    }
    if (!stop.signal.aborted) timer = window.setTimeout(() => void turn(), ms);
  };
  if (later) timer = window.setTimeout(() => void turn(), ms);
  else void turn();
  return () => {
    stop.abort();
    clearTimeout(timer);
  };
}

/** The newest answer of ask, asked again after every ms while the tab is shown and the page
 * is live; null before the first. An answer that is refused for want of rights is never, and
 * is not asked for again. What cannot be had now stays as it was. */
export function usePolled<A>(ask: Ask<A>, ms: number): A | null {
  const [answer, set] = useState<A | null>(null);
  const live = isLive();
  useEffect(() => (live ? repeat(ask, ms, set) : undefined), [live]);
  return answer;
}

/** Follows something that is shown: set gets each later answer of ask that differs from it, asked again after every ms while the
 * tab is shown and the page is live, and on. What was asked for before the reader changed it himself is dropped; and while he is in a
 * form nothing changes, so that what he sends is refused when somebody else has changed the same. */
export function useFollowed<A>(ask: Ask<A>, ms: number, shown: A, set: (answer: A) => void, on = true): void {
  const live = isLive();
  const newest = useRef(shown);
  newest.current = shown;
  useEffect(() => {
    if (!live || !on) return;
    const differing = async (stop: AbortSignal) => {
      const before = newest.current;
      const answer = await ask(stop);
      return newest.current === before && !document.activeElement?.closest("main form") && JSON.stringify(answer) !== JSON.stringify(before) ? answer : null;
    };
    return repeat(differing, ms, (answer) => answer && set(answer), true);
  }, [live, on]);
}

/** usePolled for a question of which several parts of a page show the answer: it is asked once for all of them, and the
 * answer goes with the last. */
export function shared<A>(ask: Ask<A>, ms: number): () => A | null {
  const answer = signal<A | null>(null);
  let users = 0;
  let asking: (() => void) | null = null;
  const halt = () => {
    asking?.();
    asking = null;
  };
  return () => {
    const live = isLive();
    useEffect(() => {
      users++;
      return () => {
        if (--users > 0) return;
        halt();
        answer.value = null;
      };
    }, []);
    useEffect(() => {
      if (!live) halt();
      else asking ??= repeat(ask, ms, (a) => (answer.value = a));
    }, [live]);
    return answer.value;
  };
}
