// The HTTP API under /api/v1, by the session's cookie.

import { session } from "./session";

const TIMEOUT_MS = 15_000;

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
  errors?: { pointer?: string; detail: string }[];
}

/** Calls the API and returns the answer's JSON, undefined for 202 and 204. */
export async function call<T>(method: string, path: string, body?: unknown, stop?: AbortSignal): Promise<T> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const init: RequestInit = { method, signal: stop ? AbortSignal.any([stop, timeout]) : timeout };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "Content-Type": "application/json" };
  }
  const r = await fetch("/api/v1" + path, init).catch((e: unknown) => {
    if (stop?.aborted) throw e;
    throw new ApiError(0, "unreachable", "The server cannot be reached.");
  });
  if (r.ok) return r.status === 204 || r.status === 202 ? (undefined as T) : ((await r.json()) as T);
  const p = (await r.json().catch(() => ({}))) as Problem;
  if (r.status === 401) session.value = "out";
  throw new ApiError(r.status, p.code ?? "", p.detail || p.title || `The server answered ${r.status}.`, fieldsOf(p));
}

/** What is wrong with which field of the body, by its name. */
function fieldsOf(p: Problem): Record<string, string> {
  return Object.fromEntries((p.errors ?? []).map((e) => [(e.pointer ?? "").replace(/^#\//, ""), e.detail]).filter(([name]) => name));
}

/** What to tell the user about an error of call. */
export function message(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}
