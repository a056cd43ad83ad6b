// The rail: where one can go, the version, light or dark.

import { fleet } from "../lib/fleet";
import { count } from "../lib/format";
import { welcome } from "../lib/live";
import { route } from "../lib/route";
import { isAdmin, me } from "../lib/session";
import { choice, choose, type Choice } from "../lib/theme";
import { Logo } from "./logo";

const T = {
  devices: "Devices",
  users: "Users",
  keys: "API keys",
  account: "My account",
  theme: "Theme",
  updated: (v: string) => `The server now runs ${v}.`,
  reload: "Reload the page",
};

const THEMES: [Choice, string][] = [["system", "Auto"], ["light", "Light"], ["dark", "Dark"]];

/** The version this page was served with. */
function pageVersion(): string {
  return document.querySelector<HTMLMetaElement>('meta[name="muster-version"]')?.content ?? "";
}

export function Rail() {
  const total = fleet.value?.total;
  const here = route.value.page;
  return (
    <nav class="rail" aria-label="Main">
      <div class="brand">
        <Logo />
        <span>Muster<small title={location.host}>{location.host}</small></span>
      </div>
      <a href="/devices" aria-current={here === "devices" || here === "device" ? "page" : undefined}>
        {T.devices}
        {total !== undefined && <b class="val">{count(total)}</b>}
      </a>
      {isAdmin() && <a href="/users" aria-current={here === "users" ? "page" : undefined}>{T.users}</a>}
      {isAdmin() && <a href="/keys" aria-current={here === "keys" ? "page" : undefined}>{T.keys}</a>}
      {me.value?.role && <a href="/account" aria-current={here === "account" ? "page" : undefined}>{T.account}</a>}
      <div class="foot">
        <ThemeSwitch />
        <Version />
      </div>
    </nav>
  );
}

function ThemeSwitch() {
  return (
    <div class="tabs" role="group" aria-label={T.theme}>
      {THEMES.map(([key, word]) => (
        <button key={key} type="button" aria-pressed={choice.value === key} onClick={() => choose(key)}>{word}</button>
      ))}
    </div>
  );
}

function Version() {
  const mine = pageVersion();
  const servers = welcome.value?.version ?? "";
  if (servers === "" || servers === mine) return <div class="ver">{mine}</div>;
  return (
    <div class="ver">
      {T.updated(servers)} <button type="button" class="btn txt" onClick={() => location.reload()}>{T.reload}</button>
    </div>
  );
}
