// The HTTP API under /api/v1, by the session's cookie.

import { seconds } from "./format";
import { session } from "./session";

const TIMEOUT_MS = 15_000;
const changed = (by: string) => `${by} changed this meanwhile. Load the page again to see it as it is now, and change it then.`;

/** A refusal by the server (problem+json), or status 0 when it was not reached. */
export class ApiError extends Error {
  constructor(readonly status: number, readonly code: string, message: string, readonly fields: Record<string, string> = {}) {
    super(message);
  }
}

interface Problem {
  title?: string;
  detail?: string;
  code?: string;
  errors?: { pointer?: string; parameter?: string; detail: string }[];
  changed_by?: { name: string; at: string };
}

const tags = new WeakMap<object, string>(); // the ETags of what was answered
const bound = new WeakMap<object, string>(); // of bodies: the version that they change

const tasks = new WeakSet<object>(); // bodies of requests that are to become tasks

/** Asks that a request becomes a task, which goes on when the page is closed. */
export function asTask<T extends object>(body: T): T {
  tasks.add(body);
  return body;
}

/** Binds a change to the version that it was made from: it is refused when somebody changed that meanwhile. */
export function changing<T extends object>(of: object, body: T): T {
  const tag = tags.get(of);
  if (tag) bound.set(body, tag);
  return body;
}

const fresh = new WeakSet<object>(); // bodies of what must not be there yet

/** Has a PUT make what is not there yet, and never replace what somebody else made. */
export function making<T extends object>(body: T): T {
  fresh.add(body);
  return body;
}

function isIn(set: WeakSet<object>, body: unknown): boolean {
  return typeof body === "object" && body !== null && set.has(body);
}

async function answerOf<T>(r: Response): Promise<T> {
  if (!r.headers.get("Content-Type")?.includes("json")) return undefined as T;
  const answer = (await r.json()) as T;
  const tag = r.headers.get("ETag");
  if (tag && typeof answer === "object" && answer) tags.set(answer, tag);
  return answer;
}

/** Calls the API and returns the answer's JSON, undefined for an answer without any. */
export async function call<T>(method: string, path: string, body?: unknown, stop?: AbortSignal): Promise<T> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const init: RequestInit = { method, signal: stop ? AbortSignal.any([stop, timeout]) : timeout };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    const tag = typeof body === "object" && body ? bound.get(body) : undefined;
    init.headers = { "Content-Type": "application/json", ...(tag && { "If-Match": tag }), ...(isIn(fresh, body) && { "If-None-Match": "*" }), ...(isIn(tasks, body) && { Prefer: "respond-async" }) };
  }
  const r = await fetch("/api/v1" + path, init).catch((e: unknown) => {
    if (stop?.aborted) throw e;
    throw new ApiError(0, "unreachable", "The server cannot be reached.");
  });
  if (r.ok) return answerOf<T>(r);
  const p = (await r.json().catch(() => ({}))) as Problem;
  if (r.status === 401) session.value = "out";
  if (r.status === 412) throw new ApiError(412, p.code ?? "", changed(p.changed_by ? `${p.changed_by.name}, at ${seconds(Date.parse(p.changed_by.at))},` : "Somebody"));
  throw new ApiError(r.status, p.code ?? "", p.detail || p.title || `The server answered ${r.status}.`, fieldsOf(p));
}

/** What is wrong with which field of the body, or parameter, by its name. */
function fieldsOf(p: Problem): Record<string, string> {
  return Object.fromEntries((p.errors ?? []).map((e) => [(e.pointer ?? "").replace(/^#\//, "") || (e.parameter ?? "").replace(/^query\./, ""), e.detail]).filter(([name]) => name));
}

/** What to tell the user about an error of call. */
export function message(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}
