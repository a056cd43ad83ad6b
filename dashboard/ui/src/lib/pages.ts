// The pages that one can go to, and what all of them are called: the rail, the palette, the keys, the top bar and the title
// of the window say it by this list.

import { isAdmin, may, me } from "./session";
import { counts } from "./inbox";
import type { Route } from "./route";

export interface Place {
  path: string;
  word: string;
  group: "" | "Ship" | "Watch" | "Run";
  key: string; // after g; empty for none
  pages: readonly [Route["page"], ...Route["page"][]]; // the routes that it stands for: its own, and those of one of its things
  one?: string; // what one of its things is called where its own name is not known
  shown: () => boolean;
}

const always = () => true;
const reads = () => may("firmware:read");

export const PLACES: readonly Place[] = [
  { path: "/", word: "Overview", group: "", key: "o", pages: ["overview"], shown: always },
  { path: "/devices", word: "Devices", group: "", key: "d", pages: ["devices", "device"], one: "Device", shown: always },
  { path: "/groups", word: "Groups", group: "", key: "g", pages: ["groups", "group"], one: "Group", shown: always },
  { path: "/profiles", word: "Profiles", group: "", key: "p", pages: ["profiles", "profile"], one: "Profile", shown: () => may("devices:read") },
  { path: "/adoption", word: "Adoption", group: "", key: "n", pages: ["adoption"], shown: () => may("devices:read") },
  { path: "/firmware", word: "Firmware", group: "Ship", key: "f", pages: ["firmware", "release"], one: "Release", shown: reads },
  { path: "/rollouts", word: "Rollouts", group: "Ship", key: "r", pages: ["rollouts", "rollout"], one: "Rollout", shown: reads },
  { path: "/inbox", word: "Inbox", group: "Watch", key: "i", pages: ["inbox"], shown: () => counts.value !== null },
  { path: "/topics", word: "Topics", group: "Watch", key: "t", pages: ["topics", "topic"], one: "Topic", shown: () => may("topics:read") },
  { path: "/webhooks", word: "Webhooks", group: "Watch", key: "w", pages: ["webhooks", "webhook"], one: "Webhook", shown: isAdmin },
  { path: "/dashboard", word: "System", group: "Run", key: "s", pages: ["dashboard"], shown: isAdmin },
  { path: "/tasks", word: "Tasks", group: "Run", key: "k", pages: ["tasks"], shown: () => may("devices:read") },
  { path: "/keys", word: "API keys", group: "Run", key: "", pages: ["keys"], shown: isAdmin },
  { path: "/service-accounts", word: "Service accounts", group: "Run", key: "", pages: ["service-accounts"], shown: isAdmin },
  { path: "/users", word: "Users", group: "Run", key: "u", pages: ["users"], shown: isAdmin },
  { path: "/audit", word: "Audit", group: "Run", key: "a", pages: ["audit"], shown: isAdmin },
  { path: "/account", word: "My account", group: "Run", key: "m", pages: ["account"], shown: () => Boolean(me.value?.role) },
];

/** Pages that one comes to from others, without a place of their own. */
const ELSEWHERE: Partial<Record<Route["page"], string>> = { claim: "Claim a device", import: "Import a list", nowhere: "Not found" };

/** The place that a page belongs to, if there is one. */
export function placeOf(page: Route["page"]): Place | undefined {
  return PLACES.find((p) => p.pages.includes(page));
}

/** What a page is called; id is what it is about, which is its name where people choose it, and name what that is called. */
export function titleOf(page: Route["page"], name = "", id = ""): string {
  const place = placeOf(page);
  if (!place) return ELSEWHERE[page] ?? "Muster";
  if (page === place.pages[0]) return place.word;
  return name || (NAMED.includes(page) && id) || (place.one ?? place.word);
}

const NAMED: readonly Route["page"][] = ["device", "group", "profile"];
