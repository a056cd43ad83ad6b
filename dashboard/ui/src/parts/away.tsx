// One bar at the foot of the page: the server is away, or runs another version by now. It
// lies over what is there and moves nothing.

import { now } from "../lib/clock";
import { duration, seconds } from "../lib/format";
import { link, retryNow, welcome } from "../lib/live";
import { pageVersion } from "../lib/version";

const T = {
  away: (since: string) => `The server has not been reached since ${since}.`,
  age: (ms: number) => `What is dim is ${duration(ms)} old.`,
  never: "The server has not been reached yet.",
  refused: (why: string) => `The server ended the connection: ${why}.`,
  next: (s: number) => `Next try in ${s} s.`,
  trying: "Trying now.",
  retry: "Retry now",
  updated: (v: string) => `The server now runs ${v}. This page is of before, and goes on until you reload it.`,
  reload: "Reload",
};

const PATIENCE_MS = 2000; // a connection that is back so soon is no news

export function Away() {
  const l = link.value;
  const t = now.value;
  const lost = l.kind === "waiting" || (l.kind === "connecting" && welcome.value !== null);
  if (lost && (t - l.since >= PATIENCE_MS || (l.kind === "waiting" && l.why))) return <Lost t={t} />;
  const servers = welcome.value?.version ?? "";
  if (servers === "" || servers === pageVersion()) return null;
  return (
    <aside class="bar-foot">
      <p role="status">{T.updated(servers)}</p>
      <button type="button" class="btn" onClick={() => location.reload()}>{T.reload}</button>
    </aside>
  );
}

function Lost({ t }: { t: number }) {
  const l = link.value;
  if (l.kind !== "waiting" && l.kind !== "connecting") return null;
  const waits = l.kind === "waiting";
  const why = waits ? l.why : "";
  return (
    <aside class="bar-foot lost">
      <p>
        <strong role="alert">{why ? T.refused(why) : welcome.value ? T.away(seconds(l.since)) : T.never}</strong>
        {welcome.value && <> {T.age(t - l.since)}</>}
        {waits ? why === "" && <span class="next"> {T.next(Math.max(1, Math.ceil((l.retryAt - t) / 1000)))}</span> : <span class="next"> {T.trying}</span>}
      </p>
      <button type="button" class="btn" disabled={!waits} onClick={retryNow}>{T.retry}</button>
    </aside>
  );
}
