// The address bar: which page, and the list's query, order and place.

import { signal } from "@preact/signals";

export type Route =
  | { page: "devices"; q: string; sort: Sort; after: string }
  | { page: "device"; id: string }
  | { page: "claim"; code: string };

export type Sort = "id" | "-seen";

/** The page shown now. */
export const route = signal<Route>(parse(location));

function parse(at: { pathname: string; search: string }): Route {
  const m = /^\/devices\/([^/]+)$/.exec(at.pathname);
  if (m?.[1]) return { page: "device", id: decode(m[1]) };
  const claim = /^\/claim\/([^/]+)$/.exec(at.pathname);
  if (claim?.[1]) return { page: "claim", code: decode(claim[1]) };
  const p = new URLSearchParams(at.search);
  const sort = p.get("sort") === "-seen" ? "-seen" : "id";
  return { page: "devices", q: p.get("q") ?? "", sort, after: p.get("after") ?? "" };
}

function decode(s: string): string {
  try {
    return decodeURIComponent(s);
  } catch {
    return s; // a stray percent sign: no device has one in its id
  }
}

export function devicePath(id: string): string {
  return "/devices/" + encodeURIComponent(id);
}

/** The address of the list with the given query, leaving out what is default. */
export function listPath(q: string, sort: Sort, after: string): string {
  const p = new URLSearchParams();
  if (q) p.set("q", q);
  if (sort !== "id") p.set("sort", sort);
  if (after) p.set("after", after);
  const s = p.toString();
  return s ? "/devices?" + s : "/devices";
}

/** Goes to path; with replace, without a step in the history. */
export function go(path: string, replace = false): void {
  if (replace) history.replaceState(null, "", path);
  else history.pushState(null, "", path);
  const before = route.value;
  route.value = parse(location);
  if (before.page === route.value.page && before.page === "devices") return;
  scrollTo(0, 0);
  document.getElementById("main")?.focus({ preventScroll: true });
}

/** Follows the browser's back and forward, and plain clicks on links of ours. */
export function startRouter(): void {
  addEventListener("popstate", () => {
    route.value = parse(location);
  });
  document.addEventListener("click", (e) => {
    if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    const a = (e.target as Element | null)?.closest?.("a[href]");
    if (!(a instanceof HTMLAnchorElement) || a.target || a.hasAttribute("download")) return;
    if (a.origin !== location.origin || !/^\/(devices(\/|$)|$)/.test(a.pathname) || a.hash) return;
    e.preventDefault();
    go(a.pathname + a.search);
  });
}
