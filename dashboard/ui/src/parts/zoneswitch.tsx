// How times are written on all pages: the zone, and ages or times.

import { deviceZone, exactTimes, setExact, setZone, zone, zoneName, type Zone } from "../lib/zone";

const T = {
  zone: "Time zone",
  short: { browser: "Local", utc: "UTC", device: "Device" } as Record<Zone, string>,
  times: "Times",
  ages: "Ages",
  agesHint: "3 min ago",
  exact: "Clock",
  exactHint: "The time itself, where there would be an age",
};

/** The zones that differ; the device's only on its pages. With long each has its name. */
export function ZoneSwitch({ long = false }: { long?: boolean }) {
  const names: Record<Zone, string> = { browser: zoneName(), utc: "UTC", device: deviceZone.value };
  const all = (["browser", "utc", "device"] as const).filter((z) => (z !== "utc" || names.browser !== "UTC") && names[z]);
  if (all.length < 2 && zone.value === "browser") return null; // all are the same
  const shown: Zone = all.includes(zone.value) ? zone.value : "browser";
  return (
    <div class="tabs" role="group" aria-label={T.zone}>
      {all.map((z) => <button key={z} type="button" title={names[z]} aria-pressed={z === shown} onClick={() => setZone(z)}>{long ? names[z] : T.short[z]}</button>)}
    </div>
  );
}

export function TimesSwitch() {
  return (
    <div class="tabs" role="group" aria-label={T.times}>
      <button type="button" title={T.agesHint} aria-pressed={!exactTimes.value} onClick={() => setExact(false)}>{T.ages}</button>
      <button type="button" title={T.exactHint} aria-pressed={exactTimes.value} onClick={() => setExact(true)}>{T.exact}</button>
    </div>
  );
}
