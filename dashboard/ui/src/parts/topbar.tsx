// The top bar: where one is, how live the page is, who is signed in.

import { now } from "../lib/clock";
import { clock } from "../lib/format";
import { link, pause, paused, retryNow, roundTrip, streamed } from "../lib/live";
import { placeOf, titleOf } from "../lib/pages";
import { route } from "../lib/route";
import { called } from "../lib/called";
import { me } from "../lib/session";
import { topicName, topics } from "../lib/topics";
import { Bell } from "./bell";
import { palette } from "./everywhere";
import { Here } from "./here";

const T = {
  jump: "Jump to device, topic, rollout",
  paused: "Paused",
  goOn: "Go on",
  live: "Live",
  ms: (n: number) => `${n} ms`,
  stream: "by stream",
  streamHint: "No WebSocket gets through to the server, so the page is fed by server-sent events, with all that is live. It looks each minute whether one gets through.",
  slowed: (hz: number) => `Slowed to ${hz} Hz`,
  connecting: "Connecting",
  retryIn: (s: number) => `Reconnecting in ${s} s`,
  disconnected: (t: string) => `Disconnected since ${t}`,
  retry: "Retry",
  said: { connecting: "Connecting", live: "Live", slow: "Live, slowed", waiting: "Disconnected" },
};

const PATIENCE_MS = 30_000; // after so long without the server the pill says since when

export function TopBar() {
  const r = route.value;
  const place = placeOf(r.page);
  const id = place && place.pages[0] !== r.page && "id" in r ? r.id : ""; // of the one thing that the page is about
  const title = titleOf(r.page);
  const name = r.page === "topic" ? nameOf(id) : called.value.get(id) ?? id;
  return (
    <header class="top">
      <nav class="crumb" aria-label="Breadcrumb">
        {place && id ? (
          <>
            <a href={place.path}>{place.word}</a> / <b aria-current="page" title={name}>{name}</b>
          </>
        ) : (
          <b aria-current="page" title={title}>{title}</b>
        )}
      </nav>
      {place && id && r.page !== "device" && <Here at={`${place.pages[0]}/${id}`} />}
      <Jump />
      <LivePill />
      <Bell />
      <Avatar />
    </header>
  );
}

function nameOf(topic: string): string {
  const t = topics.value?.get(topic);
  return t ? topicName(t) : topic;
}

/** Opens the palette. */
function Jump() {
  return (
    <button type="button" class="jump" title={T.jump} aria-keyshortcuts="Control+K" onClick={() => { palette.value = true; }}>
      <svg width="13" height="13" viewBox="0 0 14 14" fill="none" stroke="currentColor" stroke-width="1.6" aria-hidden="true"><circle cx="6" cy="6" r="4.5" /><path d="m9.5 9.5 3.5 3.5" /></svg>
      <span>{T.jump}</span><kbd aria-hidden="true">Ctrl K</kbd>
    </button>
  );
}

function LivePill() {
  const l = link.value;
  if (paused.value && (l.kind === "live" || l.kind === "slow")) {
    return <div class="live paused"><span class="vh" role="status">{T.paused}</span><i aria-hidden="true" /><span>{T.paused}</span><button type="button" class="btn" onClick={() => pause(false)}>{T.goOn}</button></div>;
  }
  return (
    <div class={`live ${l.kind}`}>
      <span class="vh" role="status">{T.said[l.kind]}</span>
      <i aria-hidden="true" />
      <Words />
      {l.kind === "waiting" && <button type="button" class="btn" onClick={retryNow}>{T.retry}</button>}
    </div>
  );
}

function Words() {
  const l = link.value;
  switch (l.kind) {
    case "live":
      return <span>{T.live} {roundTrip.value >= 0 && <small>{T.ms(roundTrip.value)}</small>} <Way /></span>;
    case "slow":
      return <span>{T.slowed(l.hz)} {l.why && <small class="long">{l.why}</small>} <Way /></span>;
    case "connecting":
      return <span>{T.connecting}</span>;
    case "waiting": {
      const t = now.value;
      const since = T.disconnected(clock(l.since, t));
      if (l.why) return <span title={l.why}>{since} <small class="long">{l.why}</small></span>;
      if (t - l.since > PATIENCE_MS) return <span>{since}</span>;
      return <span>{T.retryIn(Math.max(1, Math.ceil((l.retryAt - t) / 1000)))}</span>;
    }
  }
}

/** Says that the page does without a WebSocket. */
function Way() {
  return streamed.value ? <small title={T.streamHint}>{T.stream}</small> : null;
}

function Avatar() {
  const m = me.value;
  if (!m) return null;
  const name = m.name || m.role || "?";
  const initials = name.split(/[\s._-]+/).filter(Boolean).map((w) => w[0]).slice(0, 2).join("").toUpperCase();
  const who = [m.name, m.role].filter((w, i, all) => w && all.indexOf(w) === i).join(", ");
  return <span class="ava" role="img" aria-label={`Signed in as ${who}`} title={who}>{initials}</span>;
}
