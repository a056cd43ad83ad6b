// A status as shape, colour and word.

import type { Presence, Status } from "../lib/types";

export const STATES: readonly Status[] = ["online", "updating", "quiet", "offline", "never", "unknown"];

/** What a state is called in a list. */
export const WORD: Record<Status, string> = {
  online: "online",
  updating: "updating",
  quiet: "quiet",
  offline: "offline",
  never: "never seen",
  unknown: "unknown",
};

/** What a state means, for titles. */
export const MEANING: Record<Status, string> = {
  online: "connected",
  updating: "connected, and fetches, installs or proves new firmware",
  quiet: "connected, but silent for longer than it usually is",
  offline: "was connected, is not now",
  never: "has not connected yet",
  unknown: "not heard of since the server started",
};

const TONE: Record<Status, string> = { online: "ok", updating: "upd", quiet: "warn", offline: "off", never: "idle", unknown: "off" };

/** The status of a device that is listed. */
export function statusOf(d: { state: Presence; status?: Status }): Status {
  return d.status ?? d.state;
}

function shape(s: Status) {
  switch (s) {
    case "online":
      return <circle cx="6" cy="6" r="5" fill="currentColor" />;
    case "updating":
      return <><circle cx="6" cy="6" r="4.3" fill="none" stroke="currentColor" stroke-width="1.5" /><path d="M6 1a5 5 0 0 1 0 10z" fill="currentColor" /></>;
    case "quiet":
      return <path d="M6 .8 11.6 11H.4z" fill="currentColor" />;
    case "offline":
      return <circle cx="6" cy="6" r="4.2" fill="none" stroke="currentColor" stroke-width="1.7" />;
    case "never":
      return <circle cx="6" cy="6" r="4.4" fill="none" stroke="currentColor" stroke-width="1.4" stroke-dasharray="2.1 2.5" />;
    case "unknown":
      return <path d="M1.8 1.8h8.4v8.4H1.8z" fill="none" stroke="currentColor" stroke-width="1.6" />;
  }
}

export function tone(s: Status): string {
  return TONE[s] ?? "off";
}

export function Glyph({ state }: { state: Status }) {
  return <svg class={`g ${tone(state)}`} viewBox="0 0 12 12" aria-hidden="true">{shape(state)}</svg>;
}
