// The rail: where one can go, the version, light or dark.

import { fleet } from "../lib/fleet";
import { count } from "../lib/format";
import { welcome } from "../lib/live";
import { choice, choose, type Choice } from "../lib/theme";
import { Logo } from "./logo";

const T = {
  devices: "Devices",
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
  return (
    <nav class="rail" aria-label="Main">
      <div class="brand">
        <Logo />
        <span>Muster<small title={location.host}>{location.host}</small></span>
      </div>
      <a href="/devices" aria-current="page">
        {T.devices}
        {total !== undefined && <b class="val">{count(total)}</b>}
      </a>
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
