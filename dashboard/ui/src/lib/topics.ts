// The topics that one sees, by id: what they are called, and what one may do in them.

import { signal } from "@preact/signals";
import { listTopics, type Topic } from "./schema.gen";

const MOST = 1000; // the API's largest page; a picker of more is of no use

/** The topic of what Muster itself has to say: it has no subscriptions. */
export const SYSTEM = "top_system";

export const topics = signal<ReadonlyMap<string, Topic> | null>(null);

/** Asks for them anew. It throws what listTopics throws. */
export async function readTopics(stop?: AbortSignal): Promise<void> {
  const page = await listTopics({ limit: MOST }, stop);
  topics.value = new Map(page.items.map((t) => [t.id, t]));
}

export function topicName(t: { title: string; name: string }): string {
  return t.title || t.name;
}

export function topicPath(id: string): string {
  return "/topics/" + encodeURIComponent(id);
}
