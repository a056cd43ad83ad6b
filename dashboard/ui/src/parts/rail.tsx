// The rail: where one can go, the version, light or dark.

import { fleet } from "../lib/fleet";
import { counts } from "../lib/inbox";
import { count, counted } from "../lib/format";
import { welcome } from "../lib/live";
import { route } from "../lib/route";
import { isAdmin, may, me } from "../lib/session";
import { pageVersion } from "../lib/version";
import { Logo } from "./logo";
import { ThemeSwitch } from "./themeswitch";

const T = {
  devices: "Devices",
  groups: "Groups",
  inbox: "Inbox",
  open: (n: number) => `${counted(n)} open`,
  topics: "Topics",
  webhooks: "Webhooks",
  watch: "Watch",
  run: "Run",
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
      <a href="/groups" aria-current={here === "groups" || here === "group" ? "page" : undefined}>{T.groups}</a>
      <Group word={T.watch} />
      {counts.value && (
        <a href="/inbox" aria-current={here === "inbox" ? "page" : undefined}>
          {T.inbox}
          {counts.value.open > 0 ? <b class="val crit">{T.open(counts.value.open)}</b> : counts.value.unread > 0 && <b class="val">{counted(counts.value.unread)}</b>}
        </a>
      )}
      {may("topics:read") && <a href="/topics" aria-current={here === "topics" || here === "topic" ? "page" : undefined}>{T.topics}</a>}
      {isAdmin() && <a href="/webhooks" aria-current={here === "webhooks" || here === "webhook" ? "page" : undefined}>{T.webhooks}</a>}
      {me.value?.role && <Group word={T.run} />}
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

function Group({ word }: { word: string }) {
  return <span class="group" aria-hidden="true">{word}</span>;
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
