// Uploads of images: in pieces, so that a cut costs no more than a piece. They go on while
// other pages are looked at; a file that is given again after a reload goes on where it was.

import { signal } from "@preact/signals";
import { ApiError, message } from "./api";
import { beginUpload, deleteUpload, getUpload, type FirmwareArtifact, type FirmwareUpload } from "./schema.gen";
import { Sha256 } from "./sha256";

const READ = 1 << 20; // bytes that are looked at in one go, between two frames
const LEAST_PIECE = 1 << 18;
const MOST_PIECE = 8 << 20;
const TRIES = 40; // that bring nothing, one after the other
const PIECE_MS = 120_000;
const BACKOFF_MS = 500;
const BACKOFF_MAX_MS = 10_000;
const MOST = 20; // files at a time

/** A file that is being sent. */
export interface Sending {
  readonly key: number;
  readonly name: string;
  readonly size: number;
  phase: "checking" | "sending" | "waiting" | "done" | "failed";
  done: number; // bytes that were looked at, or that the server has
  fault: string;
  sha256: string;
}

export const sendings = signal<readonly Sending[]>([]);

interface Work {
  file: File;
  stop: AbortController;
}

const works = new Map<number, Work>();
let next = 1;

/** Called with each image that arrived as a whole. */
export const arrived = signal<FirmwareArtifact | null>(null);

/** Sends files, one after the other in each call; beyond the bound they are left out. */
export function sendFiles(files: Iterable<File>): void {
  for (const file of [...files].slice(0, Math.max(0, MOST - works.size))) {
    const key = next++;
    works.set(key, { file, stop: new AbortController() });
    sendings.value = [...sendings.peek(), { key, name: nameOf(file.name), size: file.size, phase: "checking", done: 0, fault: "", sha256: "" }];
    void run(key);
  }
}

/** A name as the server takes it: of other characters each is a dash. */
function nameOf(name: string): string {
  return name.replace(/[^A-Za-z0-9._+-]/g, "-").replace(/^[.-]+/, "") || "image";
}

/** Tries a file again that failed. */
export function sendAgain(key: number): void {
  const w = works.get(key);
  if (!w) return;
  w.stop = new AbortController();
  void run(key);
}

/** Ends an upload, on the server too, or takes one that is over off the list. */
export function dropSending(key: number): void {
  const s = sendings.peek().find((x) => x.key === key);
  works.get(key)?.stop.abort();
  works.delete(key);
  sendings.value = sendings.peek().filter((x) => x.key !== key);
  if (s?.sha256 && s.phase !== "done") deleteUpload(s.sha256).catch(() => undefined); // it ends by itself in a day
}

function put(key: number, change: Partial<Sending>): void {
  sendings.value = sendings.peek().map((s) => (s.key === key ? { ...s, ...change } : s));
}

async function run(key: number): Promise<void> {
  const w = works.get(key)!;
  const stop = w.stop.signal;
  addEventListener("beforeunload", ask);
  try {
    put(key, { phase: "checking", done: 0, fault: "" });
    const sha256 = await digest(w.file, stop, (done) => put(key, { done }));
    put(key, { sha256, phase: "sending", done: 0 });
    const here = await send(key, w.file, sha256, stop);
    put(key, { phase: "done", done: w.file.size });
    arrived.value = here;
  } catch (e) {
    if (!stop.aborted) put(key, { phase: "failed", fault: message(e) });
  }
  if (!sendings.peek().some((s) => s.phase !== "done" && s.phase !== "failed")) removeEventListener("beforeunload", ask);
}

/** Has the browser ask before the page goes while something is being sent. */
function ask(e: Event): void {
  e.preventDefault();
}

async function digest(file: File, stop: AbortSignal, tell: (done: number) => void): Promise<string> {
  const sum = new Sha256();
  for (let at = 0; at < file.size; at += READ) {
    const piece = new Uint8Array(await file.slice(at, at + READ).arrayBuffer());
    stop.throwIfAborted();
    sum.add(piece);
    tell(Math.min(file.size, at + READ));
  }
  return sum.hex();
}

/** Sends what the server does not have, as often as it takes; gives the image. */
async function send(key: number, file: File, sha256: string, stop: AbortSignal): Promise<FirmwareArtifact> {
  const piece = Math.min(MOST_PIECE, Math.max(LEAST_PIECE, Math.ceil(file.size / 100)));
  let at: FirmwareUpload | null = null;
  for (let failed = 0; ; ) {
    try {
      at ??= await asked(sha256, file, key, stop);
      if (at.artifact) return at.artifact;
      put(key, { phase: "sending", done: at.offset, fault: "" });
      at = await append(at, file.slice(at.offset, at.offset + piece), stop);
      failed = 0;
    } catch (e) {
      if (stop.aborted || !passes(e) || ++failed > TRIES) throw e;
      put(key, { phase: "waiting", fault: message(e) });
      await pause(Math.random() * Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** failed), stop);
      at = null; // only the server knows what of the piece arrived
    }
  }
}

/** How far the server is. */
async function asked(sha256: string, file: File, key: number, stop: AbortSignal): Promise<FirmwareUpload> {
  const known = sendings.peek().find((s) => s.key === key)?.done ?? 0;
  if (known > 0) {
    const u = await getUpload(sha256, stop).catch((e: unknown) => {
      if (e instanceof ApiError && e.status === 404) return null; // the last piece arrived, and its answer did not
      throw e;
    });
    if (u) return u;
  }
  return beginUpload({ sha256, size: file.size, filename: nameOf(file.name) }, stop);
}

async function append(u: FirmwareUpload, body: Blob, stop: AbortSignal): Promise<FirmwareUpload> {
  const r = await fetch(`/api/v1/firmware/uploads/${u.id}`, {
    method: "PATCH", body, signal: AbortSignal.any([stop, AbortSignal.timeout(PIECE_MS)]),
    headers: { "Content-Type": "application/octet-stream", "Upload-Offset": String(u.offset) },
  }).catch((e: unknown) => {
    if (stop.aborted) throw e;
    throw new ApiError(0, "unreachable", "The server cannot be reached; the upload goes on when it can.");
  });
  if (r.ok) return (await r.json()) as FirmwareUpload;
  const p = (await r.json().catch(() => ({}))) as { code?: string; detail?: string; title?: string };
  throw new ApiError(r.status, p.code ?? "", p.detail || p.title || `The server answered ${r.status}.`);
}

/** Whether a fault may be over when it is tried again. */
function passes(e: unknown): boolean {
  return e instanceof ApiError && (e.status === 0 || e.status === 408 || e.status === 409 || e.status === 429 || e.status >= 500) && e.code !== "insufficient_storage";
}

function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((done, failed) => {
    const timer = setTimeout(done, ms);
    stop.addEventListener("abort", () => {
      clearTimeout(timer);
      failed(stop.reason);
    }, { once: true });
  });
}
