// Lists of devices as files: checked by the server first, then made as a task that goes on when the page is closed.

import { ApiError } from "./api";
import type { TaskBody } from "./schema.gen";

/** What the server says of a list, or did with it. */
export interface Report {
  dry_run: boolean;
  lines: number;
  created: number;
  updated: number;
  same: number;
  refused: number;
  refusals: { line: number; id?: string; detail: string }[]; // the first 1,000
}

export interface ImportOptions {
  update: boolean; // devices that exist are changed
  partial: boolean; // refused lines do not keep the others back
}

interface Problem { detail?: string; title?: string; code?: string; status?: number }

/** One line of the answer; one of its parts is there. */
interface Line { progress?: { done: number; lines: number }; report?: Report; error?: Problem }

const PATIENCE_MS = 600_000; // for a list to be sent and checked: 256 MiB over a slow line
const LONGEST = 256 << 20; // bytes the server takes

/** The type of a list by the name of its file; null for what is no list. */
export function typeOf(name: string): string | null {
  if (/\.csv$/i.test(name)) return "text/csv";
  return /\.(ndjson|jsonl)$/i.test(name) ? "application/x-ndjson" : null;
}

export function tooLarge(file: File): boolean {
  return file.size > LONGEST;
}

function ask(file: File, o: ImportOptions, more: Record<string, string>, headers: Record<string, string>, stop: AbortSignal): Promise<Response> {
  const q = new URLSearchParams({ ...(o.update && { update: "true" }), ...(o.partial && { partial: "true" }), ...more }).toString();
  return fetch("/api/v1/devices:import" + (q && "?" + q), {
    method: "POST", body: file, headers: { "Content-Type": typeOf(file.name) ?? "text/csv", ...headers }, signal: AbortSignal.any([stop, AbortSignal.timeout(PATIENCE_MS)]),
  }).catch((e: unknown) => {
    if (stop.aborted) throw e;
    throw new ApiError(0, "unreachable", "The server cannot be reached.");
  });
}

function refused(p: Problem, status: number): ApiError {
  return new ApiError(p.status ?? status, p.code ?? "", p.detail || p.title || `The server answered ${status}.`);
}

async function refusal(r: Response): Promise<ApiError> {
  return refused((await r.json().catch(() => ({}))) as Problem, r.status);
}

/** Has the server check every line, and change nothing. */
export async function checkList(file: File, o: ImportOptions, onProgress: (done: number, lines: number) => void, stop: AbortSignal): Promise<Report> {
  const r = await ask(file, o, { dry_run: "true" }, {}, stop);
  if (!r.ok) throw await refusal(r);
  return readReport(r, onProgress);
}

/** Begins to make the devices, as a task. */
export async function startImport(file: File, o: ImportOptions, stop: AbortSignal): Promise<TaskBody> {
  const r = await ask(file, o, {}, { Prefer: "respond-async" }, stop);
  if (!r.ok) throw await refusal(r);
  return (await r.json()) as TaskBody;
}

/** What an import that has ended did; its credentials are passed over. */
export async function resultOf(url: string, stop: AbortSignal): Promise<Report> {
  const r = await fetch(url, { signal: AbortSignal.any([stop, AbortSignal.timeout(PATIENCE_MS)]) });
  if (!r.ok) throw await refusal(r);
  return readReport(r, () => undefined);
}

async function readReport(r: Response, onProgress: (done: number, lines: number) => void): Promise<Report> {
  for await (const text of linesOf(r)) {
    const line = JSON.parse(text) as Line;
    if (line.progress) onProgress(line.progress.done, line.progress.lines);
    if (line.error) throw refused(line.error, r.status);
    if (line.report) return line.report;
  }
  throw new ApiError(0, "unreachable", "The answer of the server broke off.");
}

/** The lines of an answer, as they come; an empty one is none. */
async function* linesOf(r: Response): AsyncGenerator<string> {
  const reader = r.body?.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const got = await reader?.read();
    if (!got || got.done) break;
    const parts = (rest + got.value).split("\n");
    rest = parts.pop() ?? "";
    yield* parts.filter(Boolean);
  }
  if (rest) yield rest;
}
