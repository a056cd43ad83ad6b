// How long to wait before the next attempt to connect: full jitter under a ceiling that
// doubles, so that many pages that lost one server do not come back together.

const FIRST_MS = 500;
const MOST_MS = 30_000;
const RESTART_MS = 10_000; // over which pages come back when a proxy says that the server restarts

/** The delay before an attempt, the first being 0. asked is the server's wish; the longer one counts. */
export function delayOf(attempt: number, asked: number, random = Math.random): number {
  return Math.max(asked, random() * Math.min(MOST_MS, FIRST_MS * 2 ** attempt));
}

/** What a close code asks for, in ms: 1012 is a restart (RFC 6455 registry), others ask nothing. */
export function askedBy(code: number, random = Math.random): number {
  return code === 1012 ? random() * RESTART_MS : 0;
}
