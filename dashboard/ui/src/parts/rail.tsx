// The rail: where one can go, the version, light or dark.

import { fleet } from "../lib/fleet";
import { count } from "../lib/format";
import { welcome } from "../lib/live";
import { route } from "../lib/route";
import { isAdmin, me } from "../lib/session";
import { pageVersion } from "../lib/version";
import { Logo } from "./logo";
import { ThemeSwitch } from "./themeswitch";

const T = {
  devices: "Devices",
  users: "Users",
  keys: "API keys",
  account: "My account",
  api: "API",
  apiHint: "What the HTTP API can do, with examples",
  updated: (v: string) => `The server now runs ${v}.`,
  reload: "Reload the page",
};

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
        <a class="api" href="/api/docs" title={T.apiHint}>{T.api}</a>
        <ThemeSwitch />
        <Version />
      </div>
    </nav>
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
