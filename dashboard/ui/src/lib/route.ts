// The address bar: which page, and the list's query, order and place.

import { computed, signal } from "@preact/signals";
import type { Show } from "./inbox";

export type Route =
  | { page: "devices"; q: string; sort: Sort; after: string; cols: string }
  | { page: "device"; id: string; tab: Tab }
  | { page: "claim"; code: string }
  | { page: "inbox"; id: string; show: Show; topic: string }
  | { page: One; id: string }
  | { page: "nowhere"; path: string }
  | { page: Plain };

/** The tabs of a device's page, in their order. */
export const TABS = ["live", "history", "twin", "commands", "events", "firmware", "messages", "access"] as const;
export type Tab = (typeof TABS)[number];

/** The pages that have nothing but their name in the address. */
export type Plain = "overview" | "account" | "users" | "keys" | "groups" | "topics" | "webhooks" | "firmware" | "rollouts" | "dashboard" | "audit" | "tasks" | "adoption" | "profiles" | "import" | "service-accounts" | "forgot" | LinkPage;

/** The pages of one thing, below the list of its kind. */
export type One = "group" | "profile" | "topic" | "webhook" | "release" | "rollout";

const LISTS: Record<string, One> = { groups: "group", profiles: "profile", topics: "topic", webhooks: "webhook", firmware: "release", rollouts: "rollout" };

/** The pages that links in mails lead to. */
export type LinkPage = "invite" | "reset" | "confirm";

let token = "";

/** The token of the link that led here. It is in no address, history entry or Referer. */
export function linkToken(): string {
  return token;
}

/** Takes the token out of the address bar. */
function takeToken(): void {
  const m = /^\/(invite|reset|confirm)\/([^/]+)$/.exec(location.pathname);
  if (!m?.[2]) return;
  token = decode(m[2]);
  history.replaceState(null, "", "/" + m[1]);
}
takeToken();

/** The page shown now. */
export const route = signal<Route>(parse(location));

/** What is in the address after the question mark. */
export const search = computed(() => {
  route.value;
  return new URLSearchParams(location.search);
});

/** Puts values into the address, an empty one takes its name out; with replace,
 * without a step in the history. */
export function setSearch(changes: Record<string, string>, replace = false): void {
  const p = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === "") p.delete(name);
    else p.set(name, value);
  }
  const s = p.toString();
  go(location.pathname + (s && "?" + s), replace);
}

export type Sort = "id" | "-id" | "seen" | "-seen";

function parse(at: { pathname: string; search: string }): Route {
  const m = /^\/devices\/([^/]+)(?:\/([a-z]+))?$/.exec(at.pathname);
  if (m?.[1]) return { page: "device", id: decode(m[1]), tab: TABS.find((t) => t === m[2]) ?? "live" };
  const claim = /^\/claim\/([^/]+)$/.exec(at.pathname);
  if (claim?.[1]) return { page: "claim", code: decode(claim[1]) };
  if (at.pathname === "/") return { page: "overview" };
  const plain = /^\/(account|users|keys|groups|topics|webhooks|firmware|rollouts|dashboard|audit|tasks|adoption|profiles|import|service-accounts|forgot|invite|reset|confirm)$/.exec(at.pathname);
  if (plain?.[1]) return { page: plain[1] as Plain };
  const p = new URLSearchParams(at.search);
  const inbox = /^\/inbox(?:\/([^/]+))?$/.exec(at.pathname);
  if (inbox) return { page: "inbox", id: decode(inbox[1] ?? ""), show: showOf(p.get("show")), topic: p.get("topic") ?? "" };
  const one = /^\/(groups|profiles|topics|webhooks|firmware|rollouts)\/([^/]+)$/.exec(at.pathname);
  if (one?.[2]) return { page: LISTS[one[1]!]!, id: decode(one[2]) };
  if (at.pathname !== "/devices") return { page: "nowhere", path: at.pathname };
  return { page: "devices", q: p.get("q") ?? "", sort: sortOf(p.get("sort")), after: p.get("after") ?? "", cols: p.get("cols") ?? "" };
}

/** The order of the list; any other that the address names is that of ids. */
export function sortOf(s: string | null): Sort {
  return s === "-seen" || s === "seen" || s === "-id" ? s : "id";
}

function decode(s: string): string {
  try {
    return decodeURIComponent(s);
  } catch {
    return s; // a stray percent sign: no device has one in its id
  }
}

export function devicePath(id: string, tab: Tab = "live"): string {
  return "/devices/" + encodeURIComponent(id) + (tab === "live" ? "" : "/" + tab);
}

function showOf(s: string | null): Show {
  return s === "open" || s === "unread" ? s : "all";
}

/** The address of the inbox, with one item opened unless id is empty. */
export function inboxPath(show: Show, topic: string, id = ""): string {
  const p = new URLSearchParams();
  if (show !== "all") p.set("show", show);
  if (topic) p.set("topic", topic);
  const s = p.toString();
  return "/inbox" + (id && "/" + encodeURIComponent(id)) + (s && "?" + s);
}

/** The address of what was given up, of all channels. */
export const DEAD_PATH = "/topics?show=dead";

/** The address of the list with the given query, leaving out what is default. */
export function listPath(q: string, sort: Sort, after: string, cols = ""): string {
  const p = new URLSearchParams();
  if (q) p.set("q", q);
  if (sort !== "id") p.set("sort", sort);
  if (after) p.set("after", after);
  if (cols) p.set("cols", cols);
  const s = p.toString();
  return s ? "/devices?" + s : "/devices";
}

/** Goes to path; with replace, without a step in the history. */
export function go(path: string, replace = false): void {
  if (replace) history.replaceState(null, "", path);
  else history.pushState(null, "", path);
  const before = shownPath;
  follow();
  if (before === shownPath || (before.startsWith("/inbox") && shownPath.startsWith("/inbox"))) return;
  if (deviceOf(before) !== "" && deviceOf(before) === deviceOf(shownPath)) return; // another tab of the same page
  scrollTo(0, 0);
  document.getElementById("main")?.focus({ preventScroll: true });
}

function deviceOf(path: string): string {
  return /^\/devices\/([^/]+)/.exec(path)?.[1] ?? "";
}

/** The path of what is shown, without what is after the question mark. */
let shownPath = location.pathname;

function follow(): void {
  shownPath = location.pathname;
  route.value = parse(location);
}

/** Follows the browser's back and forward, and plain clicks on links of ours. */
export function startRouter(): void {
  addEventListener("popstate", follow);
  document.addEventListener("click", (e) => {
    if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    const a = (e.target as Element | null)?.closest?.("a[href]");
    if (!(a instanceof HTMLAnchorElement) || a.target || a.hasAttribute("download")) return;
    if (a.origin !== location.origin || !/^\/((devices|groups|inbox|topics|webhooks|firmware|rollouts|dashboard|audit|tasks|account|users|keys|adoption|profiles|import|service-accounts|forgot)(\/|$)|$)/.test(a.pathname) || a.hash) return;
    e.preventDefault();
    go(a.pathname + a.search);
  });
}
