// The pages that one can go to: the rail, the palette and the keys show them by this list.

import { isAdmin, may, me } from "./session";
import { counts } from "./inbox";

export interface Place {
  path: string;
  word: string;
  group: "" | "Ship" | "Watch" | "Run";
  key: string; // after g; empty for none
  pages: readonly string[]; // the routes that it stands for
  shown: () => boolean;
}

const always = () => true;
const reads = () => may("firmware:read");

export const PLACES: readonly Place[] = [
  { path: "/", word: "Overview", group: "", key: "o", pages: ["overview"], shown: always },
  { path: "/devices", word: "Devices", group: "", key: "d", pages: ["devices", "device"], shown: always },
  { path: "/groups", word: "Groups", group: "", key: "g", pages: ["groups", "group"], shown: always },
  { path: "/profiles", word: "Profiles", group: "", key: "p", pages: ["profiles", "profile"], shown: () => may("devices:read") },
  { path: "/adoption", word: "Adoption", group: "", key: "n", pages: ["adoption"], shown: () => may("devices:read") },
  { path: "/firmware", word: "Firmware", group: "Ship", key: "f", pages: ["firmware", "release"], shown: reads },
  { path: "/rollouts", word: "Rollouts", group: "Ship", key: "r", pages: ["rollouts", "rollout"], shown: reads },
  { path: "/inbox", word: "Inbox", group: "Watch", key: "i", pages: ["inbox"], shown: () => counts.value !== null },
  { path: "/topics", word: "Topics", group: "Watch", key: "t", pages: ["topics", "topic"], shown: () => may("topics:read") },
  { path: "/webhooks", word: "Webhooks", group: "Watch", key: "w", pages: ["webhooks", "webhook"], shown: isAdmin },
  { path: "/dashboard", word: "System", group: "Run", key: "s", pages: ["dashboard"], shown: isAdmin },
  { path: "/tasks", word: "Tasks", group: "Run", key: "k", pages: ["tasks"], shown: () => may("devices:read") },
  { path: "/keys", word: "API keys", group: "Run", key: "", pages: ["keys"], shown: isAdmin },
  { path: "/service-accounts", word: "Service accounts", group: "Run", key: "", pages: ["service-accounts"], shown: isAdmin },
  { path: "/users", word: "Users", group: "Run", key: "u", pages: ["users"], shown: isAdmin },
  { path: "/audit", word: "Audit", group: "Run", key: "a", pages: ["audit"], shown: isAdmin },
  { path: "/account", word: "My account", group: "Run", key: "m", pages: ["account"], shown: () => Boolean(me.value?.role) },
];
