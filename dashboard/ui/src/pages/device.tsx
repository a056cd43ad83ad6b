// One device: who it is, how it is, and its tabs.

import { useEffect, useState } from "preact/hooks";
import { now } from "../lib/clock";
import { setDeviceZone } from "../lib/zone";
import { DeviceModel } from "../lib/device";
import { absolute, ago, clock, count, duration } from "../lib/format";
import { neighbour } from "../lib/neighbours";
import { devicePath, go, route, TABS, type Tab } from "../lib/route";
import { may } from "../lib/session";
import type { Connection, DeviceItem } from "../lib/types";
import { Glyph, statusOf, tone } from "../parts/glyph";
import { useKeys } from "../parts/keys";
import { AccessTab } from "./deviceaccess";
import { CommandsTab } from "./devicecommands";
import { EventsTab } from "./deviceevents";
import { FirmwareTab } from "./devicefirmware";
import { HistoryTab } from "./devicehistory";
import { LiveTab } from "./devicelive";
import { MessagesTab } from "./devicemessages";
import { TwinTab } from "./devicetwin";

const T = {
  loading: "Asking the server for the device.",
  keys: "Device", before: "the device before it in the list", after: "the device after it",
  missing: (id: string) => `There is no device with the id ${id}.`,
  back: "All devices",
  created: (t: string) => `made ${t}`,
  session: "Session",
  since: (t: string) => `since ${t}`,
  lastSeen: "Last message",
  never: "none yet",
  every: (ms: number) => `expected every ${duration(ms)}`,
  transport: "Transport",
  keepAlive: (s: number) => (s > 0 ? `keep-alive ${s} s` : "no keep-alive"),
  from: "From",
  client: "Client id",
  skew: "Clock skew",
  skewHint: "What its newest message says of its time, against when it arrived",
  messages: "Messages",
  stored: (n: number) => `${count(n)} stored`,
  updating: (state: string) => (state === "quiet" ? ", and silent for longer than it usually is." : "."),
  itsFirmware: "What it does",
  tabs: "Parts of the device",
  tab: { live: "Live", history: "History", twin: "Twin", commands: "Commands", events: "Events", firmware: "Firmware", messages: "Messages", access: "Access" } as Record<Tab, string>,
  send: "Send command", update: "Update firmware",
  sendForbidden: "Needs the role operator or the scope commands:send.",
  here: (names: string[]) => (names.length === 1 ? `${names[0]} is here too` : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]} are here too`),
  edits: (name: string, what: string) => `${name} (edits the ${what})`,
  group: (g: string) => `Devices of the group ${g}`,
};

const REASON: Record<string, string> = {
  disconnected: "it disconnected",
  keepalive: "its keep-alive ran out",
  "taken over": "another client took its client id over",
  closed: "the connection broke",
  "server stopped": "the server stopped",
  "disconnected, with last will": "it disconnected and had its last will sent",
  "reads too slowly": "it read too slowly",
  "message refused for now": "the server could not take a message",
  "packet too large": "it sent a packet that is too large",
  "protocol error": "it broke the MQTT protocol",
  "server error": "of an error in the server",
  "publishes too much": "it published more than it may",
  "credential gone": "its credential is not valid any more",
};

export function DevicePage({ id }: { id: string }) {
  const [model] = useState(() => new DeviceModel(id));
  const [focus, setFocus] = useState(0);
  useEffect(() => model.follow(), [model]);
  const t = now.value;
  useEffect(() => model.tick(t), [t]);
  const tz = model.about.value?.tags["tz"] ?? "";
  useEffect(() => {
    setDeviceZone(tz);
    return () => setDeviceZone("");
  }, [tz]);
  const command = () => {
    go(devicePath(id, "commands"));
    setFocus((n) => n + 1);
  };
  const beside = (by: number) => {
    const r = route.peek(); // what is drawn may be one press behind
    const next = neighbour(r.page === "device" ? r.id : id, by);
    if (!next) return false;
    go(devicePath(next, r.page === "device" ? r.tab : "live"));
    return true;
  };
  useKeys(T.keys, [
    ...TABS.map((tab, i) => ({ keys: String(i + 1), what: T.tab[tab], run: () => go(devicePath(id, tab)) })),
    { keys: "[", what: T.before, run: () => beside(-1) },
    { keys: "]", what: T.after, run: () => beside(1) },
    { keys: "c", what: T.send, run: () => (may("commands:send") ? command() : false) },
  ]);
  const refused = model.refused.value;
  if (refused) {
    return (
      <section class="roll">
        <div>
          <h1>{id}</h1>
          <p>{refused.code === "not_found" ? T.missing(id) : refused.detail} <a class="link" href="/devices">{T.back}</a></p>
        </div>
      </section>
    );
  }
  const d = model.item.value;
  if (!d) return <p class="quiet-note">{T.loading}</p>;
  const r = route.value;
  const tab = r.page === "device" ? r.tab : "live";
  return (
    <>
      <div class="devhead">
        <Header model={model} d={d} onCommand={command} />
        <Tabs model={model} tab={tab} />
      </div>
      <Facts model={model} d={d} />
      {tab === "live" && <LiveTab model={model} d={d} />}
      {tab === "history" && <HistoryTab model={model} />}
      {tab === "twin" && <TwinTab model={model} />}
      {tab === "commands" && <CommandsTab model={model} focus={focus} />}
      {tab === "events" && <EventsTab model={model} />}
      {tab === "firmware" && <FirmwareTab model={model} />}
      {tab === "messages" && <MessagesTab model={model} />}
      {tab === "access" && <AccessTab model={model} />}
    </>
  );
}

function Header({ model, d, onCommand }: { model: DeviceModel; d: DeviceItem; onCommand: () => void }) {
  const about = model.about.value;
  const maySend = may("commands:send");
  return (
    <section class="dev across">
      <div>
        <h1><Glyph state={statusOf(d)} />{d.id}</h1>
        <div class="sub">
          <StateSentence d={d} every={model.presence.value?.check_in_s ?? 0} />
          {d.name && <span class="tag">{d.name}</span>}
          {about?.groups.map((g) => <a key={g} class="tag" href={`/devices?q=${encodeURIComponent("group:" + JSON.stringify(g))}`} title={T.group(g)}>{g}</a>)}
          {Object.entries(about?.tags ?? {}).map(([k, v]) => <span key={k} class="tag">{v ? `${k}:${v}` : k}</span>)}
          <small title={absolute(d.created_at)}>{T.created(clock(d.created_at, now.value))}</small>
          <Here model={model} />
        </div>
      </div>
      <div class="act">
        {may("firmware:write") && <a class="btn" href={devicePath(d.id, "firmware")}>{T.update}</a>}
        <button type="button" class="btn pri" disabled={!maySend} title={maySend ? undefined : T.sendForbidden} onClick={onCommand}>{T.send} <kbd aria-hidden="true">C</kbd></button>
      </div>
    </section>
  );
}

/** Who else looks at it. */
function Here({ model }: { model: DeviceModel }) {
  const others = model.here.value.filter((w) => !w.you);
  if (others.length === 0) return <span class="here" role="status" />;
  return <span class="here" role="status">{T.here(others.map((w) => (w.edits ? T.edits(w.name, w.edits) : w.name)))}</span>;
}

function Tabs({ model, tab }: { model: DeviceModel; tab: Tab }) {
  const firmware = model.about.value?.firmware;
  return (
    <nav class="tabbar" aria-label={T.tabs}>
      {TABS.map((t) => (
        <a key={t} href={devicePath(model.id, t) + keep(tab, t)} aria-current={t === tab ? "page" : undefined}>
          {T.tab[t]} {t === "firmware" && firmware && <small>{firmware}</small>}
        </a>
      ))}
    </nav>
  );
}

/** The range goes along between the tabs that have one. */
function keep(from: Tab, to: Tab): string {
  if (!["live", "history"].includes(from) || !["live", "history"].includes(to)) return "";
  const p = new URLSearchParams(location.search);
  const kept = new URLSearchParams([...p].filter(([k]) => k === "from" || k === "to")).toString();
  return kept && "?" + kept;
}

function StateSentence({ d, every }: { d: DeviceItem; every: number }) {
  const t = now.value;
  const since = d.since > 0 ? ` since ${clock(d.since, t)}` : "";
  const why = d.reason ? `, because ${REASON[d.reason] ?? d.reason}` : "";
  const is = statusOf(d);
  const colour = tone(is);
  switch (is) {
    case "updating":
      return <span class={`val ${colour}`}><b>Updating</b>{T.updating(d.state)} {may("firmware:read") && <a class="link" href={devicePath(d.id, "firmware")}>{T.itsFirmware}</a>}</span>;
    case "online":
      return <span class={`val ${colour}`}><b>Online</b>{d.since > 0 && ` for ${duration(t - d.since)}`}</span>;
    case "quiet":
      return <span class={`val ${colour}`}><b>Quiet</b>{d.last_seen > 0 && `: last message ${ago(d.last_seen, t)}`}{every > 0 ? `, ${T.every(every * 1000)}` : ", for longer than usual"}</span>;
    case "offline":
      return <span class={`val ${colour}`}><b>Offline</b>{since}{why}</span>;
    case "never":
      return <span class={`val ${colour}`}><b>Never connected</b></span>;
    case "unknown":
      return <span class={`val ${colour}`}><b>Unknown</b>: not heard of since the server started</span>;
  }
}

function Facts({ model, d }: { model: DeviceModel; d: DeviceItem }) {
  const t = now.value;
  const c = d.connection;
  const every = model.presence.value?.check_in_s ?? 0;
  const skew = skewOf(d);
  return (
    <dl class={c ? "facts" : "facts few"}>
      {c && (
        <div><dt>{T.session}</dt><dd><span class="val">{duration(t - c.since)}</span> <small title={absolute(c.since)}>{T.since(clock(c.since, t))}</small></dd></div>
      )}
      <div>
        <dt>{T.lastSeen}</dt>
        <dd class="val">{d.last_seen > 0 ? <time title={absolute(d.last_seen)}>{ago(d.last_seen, t)}</time> : T.never} {every > 0 && <small>{T.every(every * 1000)}</small>}</dd>
      </div>
      {c && (
        <>
          <div><dt>{T.transport}</dt><dd>{transport(c)} <small>{T.keepAlive(c.keep_alive_s)}</small></dd></div>
          <div><dt>{T.from}</dt><dd class="mono">{c.peer}</dd></div>
          <div><dt>{T.client}</dt><dd class="mono cut" title={c.client_id}>{c.client_id}</dd></div>
        </>
      )}
      {skew !== null && <div><dt title={T.skewHint}>{T.skew}</dt><dd class="val" data-skew>{signed(skew)}</dd></div>}
      <div><dt>{T.messages}</dt><dd><span class="val">{count(d.ledger.received + d.ledger.recovered)}</span> <small class="val">{T.stored(d.ledger.stored)}</small></dd></div>
    </dl>
  );
}

/** What the clock of the device is ahead of arrival, in ms, by its newest message; null when
 * it tells no time of its own. */
function skewOf(d: DeviceItem): number | null {
  const newest = Object.values(d.values).sort((a, b) => b.arrival - a.arrival)[0];
  return newest && newest.time !== newest.arrival ? newest.time - newest.arrival : null;
}

function signed(ms: number): string {
  const s = Math.abs(ms) < 60_000 ? `${(Math.abs(ms) / 1000).toFixed(2)} s` : duration(Math.abs(ms));
  return (s === "0.00 s" ? "" : ms < 0 ? "\u2212" : "+") + s;
}

function transport(c: Connection): string {
  const protocol = String(c.protocol);
  const version = protocol === "4" ? "MQTT 3.1.1" : /^\d/.test(protocol) ? `MQTT ${protocol}` : protocol;
  const carrier: Record<string, string> = { tcp: "TCP", tls: "TLS", ws: "WebSocket", wss: "WebSocket, TLS" };
  return `${version} / ${carrier[c.transport] ?? c.transport}`;
}
