// Clients that ask to be adopted: which there are, and what became of those that were adopted or refused here.

import { signal } from "@preact/signals";
import { ApiError, message } from "./api";
import { adoptCandidate, listCandidates, refuseCandidate, type Adoption, type Candidate } from "./schema.gen";

/** A line of the inbox. It stays where it is for as long as the page is open. */
export interface Knock {
  of: Candidate;
  fate: "waits" | "adopted" | "refused" | "gone"; // gone: somebody else saw to it, or its key was deleted
  device?: string; // that it became
  token?: string; // the device's, shown this once
  fault?: string;
}

/** Those that were seen since the page was opened, by id, in their order; null before the first answer. */
export const knocks = signal<Map<string, Knock> | null>(null);

/** Asks who waits. Who is new comes at the end, so that no line moves. */
export async function lookAtCandidates(stop?: AbortSignal): Promise<void> {
  const page = await listCandidates(stop);
  const now = new Map(page.items.map((c) => [c.id, c]));
  const next = new Map<string, Knock>();
  for (const [id, k] of knocks.peek() ?? []) {
    const c = now.get(id);
    if (c) next.set(id, { ...k, of: c, ...(k.fate === "gone" && { fate: "waits" }) });
    else next.set(id, k.fate === "waits" ? { ...k, fate: "gone" } : k);
    now.delete(id);
  }
  for (const c of now.values()) next.set(c.id, { of: c, fate: "waits" });
  knocks.value = next;
}

export function forgetCandidates(): void {
  knocks.value = null;
}

function put(id: string, change: Partial<Knock>): void {
  const old = knocks.peek()?.get(id);
  if (!old) return;
  const { fault: _, ...rest } = old;
  knocks.value = new Map(knocks.peek()).set(id, { ...rest, ...change });
}

/** What a refusal says of a candidate: 404 is that somebody was quicker. */
function failed(id: string, e: unknown): void {
  put(id, e instanceof ApiError && e.status === 404 ? { fate: "gone" } : { fault: message(e) });
}

/** Adopts them, one after the other; one that is refused leaves the others as they are. */
export async function adoptAll(ids: readonly string[], how: Adoption, onDone: (n: number) => void): Promise<void> {
  let n = 0;
  for (const id of ids) {
    try {
      const made = await adoptCandidate(id, how);
      put(id, { fate: "adopted", device: made.device.id, ...(made.credential?.token && { token: made.credential.token }) });
    } catch (e) {
      failed(id, e);
    }
    onDone(++n);
  }
}

/** Refuses them, one after the other: they are cut and kept out. */
export async function refuseAll(ids: readonly string[], onDone: (n: number) => void): Promise<void> {
  let n = 0;
  for (const id of ids) {
    try {
      await refuseCandidate(id);
      put(id, { fate: "refused" });
    } catch (e) {
      failed(id, e);
    }
    onDone(++n);
  }
}
