// The rail: where one can go, the version, light or dark.

import { useEffect, useRef } from "preact/hooks";
import { fleet } from "../lib/fleet";
import { counts } from "../lib/inbox";
import { count, counted } from "../lib/format";
import { isPutOff } from "../lib/later";
import { may, me } from "../lib/session";
import { PLACES } from "../lib/pages";
import { route, type Route } from "../lib/route";
import { isHeld, useShipping } from "../lib/shipping";
import { pageVersion } from "../lib/version";
import { sheet } from "./everywhere";
import { Logo } from "./logo";
import { ThemeSwitch } from "./themeswitch";
import { TimesSwitch, ZoneSwitch } from "./zoneswitch";

const T = {
  keys: "Shortcuts",
  open: (n: number) => `${counted(n)} open`,
  live: (n: number) => `${count(n)} live`,
  held: (n: number) => `${count(n)} held`,
  account: "Make your account",
  api: "API",
  apiHint: "What the HTTP API can do, with examples",
};

export function Rail() {
  const here = route.value.page;
  const nav = useRef<HTMLElement>(null);
  const inbox = counts.value !== null; // with rights and an inbox come more places
  useEffect(() => {
    let width = innerWidth;
    const turned = () => {
      if (innerWidth === width) return; // the browser's own bars come and go
      width = innerWidth;
      showCurrent(nav.current);
    };
    showCurrent(nav.current);
    addEventListener("resize", turned);
    return () => removeEventListener("resize", turned);
  }, [here, inbox, me.value]);
  return (
    <nav ref={nav} class="rail" aria-label="Main">
      <div class="brand">
        <Logo />
        <span>Muster<small title={location.host}>{location.host}</small></span>
      </div>
      {GROUPS.map((g) => <Group key={g} word={g} here={here} />)}
      <div class="foot">
        {isPutOff() && <a class="api putoff" href="/account">{T.account}</a>}
        <a class="api" href="/api/docs" title={T.apiHint}>{T.api}</a>
        <ThemeSwitch />
        <ZoneSwitch />
        <TimesSwitch />
        <button type="button" class="btn txt shortcuts" onClick={() => { sheet.value = true; }}>{T.keys} <kbd>?</kbd></button>
        <Version />
      </div>
    </nav>
  );
}

/** On a phone the rail is a bar that scrolls: the page that one is on comes to its middle. */
function showCurrent(nav: HTMLElement | null): void {
  const link = nav?.querySelector<HTMLElement>("[aria-current=page]");
  if (!nav || !link || nav.scrollWidth <= nav.clientWidth) return;
  const bar = nav.getBoundingClientRect();
  const at = link.getBoundingClientRect();
  nav.scrollLeft += at.left + at.width / 2 - (bar.left + bar.width / 2);
}

const GROUPS = ["", "Ship", "Watch", "Run"] as const;

function Group({ word, here }: { word: (typeof GROUPS)[number]; here: Route["page"] }) {
  const places = PLACES.filter((p) => p.group === word && p.shown());
  if (places.length === 0) return null;
  return (
    <>
      {word && <span class="group" aria-hidden="true">{word}</span>}
      {places.map((p) => (
        <a key={p.path} href={p.path} aria-current={p.pages.includes(here) ? "page" : undefined}>{p.word}<Figure of={p.path} /></a>
      ))}
    </>
  );
}

/** How many there are of what a page is about, where that is known anyway. */
function Figure({ of }: { of: string }) {
  const total = fleet.value?.total;
  const c = counts.value;
  if (of === "/devices" && total !== undefined) return <b class="val">{count(total)}</b>;
  if (of === "/rollouts" && may("firmware:read")) return <RolloutFigure />;
  if (of !== "/inbox" || !c) return null;
  if (c.open > 0) return <b class="val crit">{T.open(c.open)}</b>;
  return c.unread > 0 ? <b class="val">{counted(c.unread)}</b> : null;
}

/** How many rollouts are held, else how many run. */
function RolloutFigure() {
  const f = useShipping();
  if (!f) return null;
  const held = [...f.paused, ...f.scheduled].filter((r) => isHeld(r.progress)).length;
  if (held > 0) return <b class="val warn">{T.held(held)}</b>;
  return f.running.length > 0 ? <b class="val">{T.live(f.running.length)}</b> : null;
}

function Version() {
  return <div class="ver">{pageVersion()}</div>;
}
