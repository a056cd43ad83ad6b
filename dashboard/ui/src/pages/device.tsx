// One device.

import { useEffect, useState } from "preact/hooks";
import { now } from "../lib/clock";
import { DeviceModel, RANGES } from "../lib/device";
import { absolute, ago, clock, count, duration, plural } from "../lib/format";
import { welcome } from "../lib/live";
import type { Connection, DeviceItem } from "../lib/types";
import { Chart } from "../parts/chart";
import { Glyph, tone } from "../parts/glyph";
import { ConnectLine } from "./connect";
import { LedgerTable, Rejected, SessionsTable, TextValues } from "./deviceside";

const T = {
  loading: "Asking the server for the device.",
  missing: (id: string) => `There is no device with the id ${id}.`,
  back: "All devices",
  created: (t: string) => `made ${t}`,
  session: "Session",
  since: (t: string) => `since ${t}`,
  lastSeen: "Last message",
  never: "none yet",
  transport: "Transport",
  keepAlive: (s: number) => (s > 0 ? `keep-alive ${s} s` : "no keep-alive"),
  from: "From",
  client: "Client id",
  messages: "Messages",
  stored: (n: number) => `${count(n)} stored`,
  signals: "Signals",
  readings: (n: number) => `${plural(n, "reading", "readings")} loaded`,
  loaded: { loading: ", more to come", done: "", cut: "", failed: "" },
  cut: (n: number, t: string) => `the newest ${count(n)} readings, back to ${t}`,
  failed: (why: string) => `The history could not be loaded: ${why}`,
  again: "Try again",
  drag: "Drag to zoom",
  unzoom: "Zoom out",
  range: "Time range",
  noSignals: "No numeric value in this range.",
  showMore: (n: number) => `Show ${plural(n, "more signal", "more signals")}`,
  connect: "Connect it",
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

const FIRST_CHARTS = 8;

export function DevicePage({ id }: { id: string }) {
  const [model] = useState(() => new DeviceModel(id));
  useEffect(() => model.follow(), [model]);
  const t = now.value;
  useEffect(() => model.tick(t), [t]);
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
  return (
    <>
      <Header d={d} />
      <Facts d={d} />
      {d.state === "never" && d.last_seen === 0 ? <NeverConnected id={id} /> : <Body model={model} d={d} />}
    </>
  );
}

function Header({ d }: { d: DeviceItem }) {
  return (
    <section class="dev">
      <div>
        <h1><Glyph state={d.state} />{d.id}</h1>
        <div class="sub">
          <StateSentence d={d} />
          {d.name && <span class="tag">{d.name}</span>}
          <small title={absolute(d.created_at)}>{T.created(clock(d.created_at, now.value))}</small>
        </div>
      </div>
    </section>
  );
}

function StateSentence({ d }: { d: DeviceItem }) {
  const t = now.value;
  const since = d.since > 0 ? ` since ${clock(d.since, t)}` : "";
  const why = d.reason ? `, because ${REASON[d.reason] ?? d.reason}` : "";
  const colour = tone(d.state);
  switch (d.state) {
    case "online":
      return <span class={`val ${colour}`}><b>Online</b>{d.since > 0 && ` for ${duration(t - d.since)}`}</span>;
    case "quiet":
      return <span class={`val ${colour}`}><b>Quiet</b> for longer than usual{d.last_seen > 0 && `: last message ${ago(d.last_seen, t)}`}</span>;
    case "offline":
      return <span class={`val ${colour}`}><b>Offline</b>{since}{why}</span>;
    case "never":
      return <span class={`val ${colour}`}><b>Never connected</b></span>;
    case "unknown":
      return <span class={`val ${colour}`}><b>Unknown</b>: not heard of since the server started</span>;
  }
}

function Facts({ d }: { d: DeviceItem }) {
  const t = now.value;
  const c = d.connection;
  return (
    <dl class={c ? "facts" : "facts few"}>
      {c && (
        <div><dt>{T.session}</dt><dd><span class="val">{duration(t - c.since)}</span> <small title={absolute(c.since)}>{T.since(clock(c.since, t))}</small></dd></div>
      )}
      <div>
        <dt>{T.lastSeen}</dt>
        <dd class="val">{d.last_seen > 0 ? <time title={absolute(d.last_seen)}>{ago(d.last_seen, t)}</time> : T.never}</dd>
      </div>
      {c && (
        <>
          <div><dt>{T.transport}</dt><dd>{transport(c)} <small>{T.keepAlive(c.keep_alive_s)}</small></dd></div>
          <div><dt>{T.from}</dt><dd class="mono">{c.peer}</dd></div>
          <div><dt>{T.client}</dt><dd class="mono cut" title={c.client_id}>{c.client_id}</dd></div>
        </>
      )}
      <div><dt>{T.messages}</dt><dd><span class="val">{count(d.ledger.received + d.ledger.recovered)}</span> <small class="val">{T.stored(d.ledger.stored)}</small></dd></div>
    </dl>
  );
}

function transport(c: Connection): string {
  const protocol = String(c.protocol);
  const version = protocol === "4" ? "MQTT 3.1.1" : /^\d/.test(protocol) ? `MQTT ${protocol}` : protocol;
  const carrier: Record<string, string> = { tcp: "TCP", tls: "TLS", ws: "WebSocket", wss: "WebSocket, TLS" };
  return `${version} / ${carrier[c.transport] ?? c.transport}`;
}

function NeverConnected({ id }: { id: string }) {
  if (!welcome.value) return null;
  return (
    <section class="sec">
      <header><h2>{T.connect}</h2></header>
      <ConnectLine id={id} />
    </section>
  );
}

function Body({ model, d }: { model: DeviceModel; d: DeviceItem }) {
  return (
    <div class="cols">
      <Signals model={model} />
      <div class="side">
        <TextValues values={d.values} />
        <LedgerTable ledger={d.ledger} />
        <SessionsTable seen={model.sessions.value} />
        <Rejected items={model.rejected.value} total={d.ledger.rejected} />
      </div>
    </div>
  );
}

function Signals({ model }: { model: DeviceModel }) {
  const [all, setAll] = useState(false);
  const keys = model.keys.value;
  const shown = all ? keys : keys.slice(0, FIRST_CHARTS);
  const h = model.history.value;
  return (
    <section class="sec" aria-labelledby="signals-title">
      <header>
        <h2 id="signals-title">{T.signals}</h2>
        <p>{h.state === "cut" ? T.cut(h.readings, clock(h.from, now.value)) : T.readings(h.readings) + T.loaded[h.state]}</p>
        <div class="r">
          {model.zoom.value ? (
            <button type="button" class="btn txt" onClick={() => { model.zoom.value = null; }}>{T.unzoom}</button>
          ) : (
            keys.length > 0 && <span class="hint">{T.drag}</span>
          )}
          <Ranges model={model} />
        </div>
      </header>
      {h.state === "failed" && (
        <p class="error" role="alert">{T.failed(h.error)} <button type="button" class="btn txt" onClick={() => void model.load()}>{T.again}</button></p>
      )}
      {keys.length === 0 && h.state !== "loading" && <p class="quiet-note">{T.noSignals}</p>}
      {shown.map((k, i) => <Chart key={k} model={model} name={k} index={i} last={i === shown.length - 1} />)}
      {keys.length > shown.length && (
        <button type="button" class="btn more" onClick={() => setAll(true)}>{T.showMore(keys.length - shown.length)}</button>
      )}
    </section>
  );
}

function Ranges({ model }: { model: DeviceModel }) {
  return (
    <div class="tabs" role="group" aria-label={T.range}>
      {RANGES.map((r) => (
        <button key={r.key} type="button" aria-pressed={model.range.value === r} onClick={() => model.show(r)}>{r.words}</button>
      ))}
    </div>
  );
}
