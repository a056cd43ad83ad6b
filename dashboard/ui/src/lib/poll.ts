// What is asked of the API again and again while a page shows it.

import { useEffect, useState } from "preact/hooks";
import { ApiError } from "./api";
import { isLive } from "./live";

/** The newest answer of ask, asked again after every ms while the tab is shown and the page
 * is live; null before the first. An answer that is refused for want of rights is never, and
 * is not asked for again. What cannot be had now stays as it was. */
export function usePolled<A>(ask: (stop: AbortSignal) => Promise<A>, ms: number): A | null {
  const [answer, set] = useState<A | null>(null);
  const live = isLive();
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const turn = async () => {
      try {
        if (!document.hidden && live) set(await ask(stop.signal));
      } catch (e) {
        if (e instanceof ApiError && (e.status === 403 || e.status === 401)) return;
      }
      if (!stop.signal.aborted) timer = window.setTimeout(() => void turn(), ms);
    };
    void turn();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [live]);
  return answer;
}
