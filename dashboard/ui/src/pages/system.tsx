// System: how the server is. For admins; useful before there is any device.

import { useEffect, useRef, useState } from "preact/hooks";
import { message } from "../lib/api";
import { now } from "../lib/clock";
import { copy } from "../lib/copy";
import { bytes, count, duration, measure, plural, rate } from "../lib/format";
import { link, subscribe } from "../lib/live";
import { getSystem } from "../lib/schema.gen";
import { isAdmin } from "../lib/session";
import { diagnostics, figure, OTHER, troubles, words, type Counters, type Sections, type Service } from "../lib/system";
import { pageVersion } from "../lib/version";
import { Scroll } from "../parts/scroll";
import { Clients } from "./clients";

const T = {
  forbidden: "Only admins see how the server is.",
  loading: "Asking the server how it is.",
  runs: "Everything runs.",
  needs: (n: number) => `${plural(n, "thing needs", "things need")} a person.`,
  up: (v: string, ms: number) => `Muster ${v}, up for ${duration(ms)}.`,
  copy: "Copy diagnostics",
  copied: "Copied",
  failed: "Selected: press Ctrl C",
  what: "What is copied: without names of people and keys",
  received: "Messages in",
  stored: "Stored",
  open: "Connections",
  queue: "Write queue",
  logTime: "Log, p99",
  storeTime: "Database, p99",
  perSecond: "/s",
  ms: "ms",
  none: "none",
  nodes: "Nodes",
  node: "Node",
  host: "Host",
  since: "Up",
  memory: "Heap",
  held: "Held",
  routines: "Goroutines",
  cpus: "CPUs",
  runtime: "Runtime",
  database: "Database",
  engine: "Engine",
  size: "Size",
  unknown: "not known",
  table: "Telemetry",
  hyper: "hypertable",
  partitions: "native partitions",
  down: "It does not take data",
  batches: (t: { count: number; p50_ms: number; p99_ms: number }) => t.count === 0 ? "none yet" : `${brief(t.p50_ms)} ms median, ${brief(t.p99_ms)} ms p99, ${count(t.count)} times`,
  storeBatch: "A batch takes",
  ingest: "Log and ingest",
  logFrame: "A frame takes",
  unstored: "Not stored yet",
  fill: "Of the log's bound",
  level: "Acked when",
  intake: "What devices say beside telemetry",
  kind: "Kind",
  waiting: "Waiting",
  rejected: "Rejected",
  dropped: "Dropped",
  state: "State",
  ok: "well",
  failing: "failing",
  services: "Services and loops",
  restarted: (n: number) => `${count(n)} restarts`,
  stopped: "does not run",
  broker: "Broker",
  channels: "Notifications by channel",
  channel: "Channel",
  busy: "Busy",
  sending: "Sending",
  sent: "Messages out",
  dead: "Given up",
  oldest: "Oldest",
  arrived: "Arrived",
  breakers: "Breakers that are not closed",
  closed: "All breakers are closed.",
  tasks: "Tasks",
  running: "Running",
  ended: "Kept",
  caches: "Caches",
  cache: "Cache",
  entries: "Entries",
  hits: "Hits",
  evictions: "Evicted",
  accounts: "Busiest accounts",
  account: "Account",
  sealed: "Sealed records",
  broken: "Breaks",
  other: "Figures of the rooms",
};

const ASK_MS = 5_000;

/** A time in ms: what is estimated needs no digits. */
function brief(ms: number): string {
  return ms < 10 ? ms.toFixed(1) : count(Math.round(ms));
}

export function SystemPage() {
  if (!isAdmin()) return <p>{T.forbidden}</p>;
  return <Page />;
}

interface Said { version: string; time: string; sections: Sections }

/** Asks how the server is, again and again while the page is seen. */
function useSystem(): { said: Said | null; fault: string } {
  const [said, say] = useState<Said | null>(null);
  const [fault, setFault] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    const ask = () => getSystem(stop.signal).then((s) => {
      say(s as unknown as Said);
      setFault("");
    }, (e: unknown) => stop.signal.aborted || setFault(message(e)));
    void ask();
    const timer = setInterval(() => document.hidden || void ask(), ASK_MS);
    return () => {
      clearInterval(timer);
      stop.abort();
    };
  }, []);
  return { said, fault };
}

interface Live { total?: Counters; stored?: { total: number; rate: number }; queues?: { store: number; log_bytes: number } }

/** The counters of the live channel, second by second. */
function useCounters(): Live {
  const [item, set] = useState<Live>({});
  useEffect(() => subscribe("system", {}, { snapshot: (f) => set(f["item"] as Live), delta: (f) => set((old) => ({ ...old, ...(f["set"] as Live) })) }), []);
  return item;
}

function Page() {
  const { said, fault } = useSystem();
  if (!said) return <p class={fault ? "error" : "quiet-note"} role={fault ? "alert" : undefined}>{fault || T.loading}</p>;
  const s = said.sections;
  return (
    <>
      <Head said={said} fault={fault} />
      <Nodes s={s} />
      <div class="two">
        <div><Database s={s} /><Intake s={s} /><Plain title={T.broker} id="broker" of={s.broker} /></div>
        <div><Ingest s={s} /><Channels s={s} /><TaskKinds s={s} /></div>
      </div>
      <Services all={s.services} />
      <div class="two"><Caches s={s} /><Accounts s={s} /></div>
      <Others s={s} />
      <Clients />
      <Diagnostics said={said} />
    </>
  );
}

function Head({ said, fault }: { said: Said; fault: string }) {
  const s = said.sections;
  const all = troubles(s);
  const live = useCounters();
  const vital = (word: string, text: string, unit: string) => <div key={word}><dt>{word}</dt><dd><span class="val">{text}</span><small>{unit}</small></dd></div>;
  const took = (word: string, t?: { count: number; p99_ms: number }) => (t?.count ? vital(word, brief(t.p99_ms), T.ms) : vital(word, T.none, ""));
  return (
    <section class="roll system">
      <div>
        <h1>{all.length === 0 ? T.runs : T.needs(all.length)}</h1>
        <p>{T.up(said.version, now.value - Date.parse(s.server.started_at))}</p>
        {fault && <p class="crit" role="alert">{fault}</p>}
        {all.length > 0 && <ul class="troubles">{all.map((t) => <li key={t.words} class={t.tone}><svg class="g" viewBox="0 0 12 12" aria-hidden="true"><path d={t.tone === "crit" ? "M6 0l6 6-6 6-6-6z" : "M6 .8 11.6 11H.4z"} fill="currentColor" /></svg> {t.words}</li>)}</ul>}
      </div>
      <dl class="vitals">
        {vital(T.received, rate((live.total ?? s.counters.total).rates.received), T.perSecond)}
        {vital(T.stored, rate((live.stored ?? s.counters.stored).rate), T.perSecond)}
        {vital(T.open, count((live.total ?? s.counters.total).connections.total), "")}
        {vital(T.queue, count(live.queues?.store ?? s.ingest.ledger["queued"] ?? 0), "")}
        {took(T.logTime, s.timings.log)}
        {took(T.storeTime, s.timings.store)}
      </dl>
    </section>
  );
}

function Sec({ id, title, sub, children }: { id: string; title: string; sub?: string; children: preact.ComponentChildren }) {
  return (
    <section class="sec" data-section={id} aria-labelledby={`sys-${id}`}>
      <header><h2 id={`sys-${id}`}>{title}</h2>{sub && <p>{sub}</p>}</header>
      {children}
    </section>
  );
}

type Pair = readonly [string, preact.ComponentChildren, string?];

/** Names and values, one below the other. */
function Pairs({ of }: { of: readonly Pair[] }) {
  return <table class="plain pairs"><tbody>{of.map(([name, v, tone]) => <tr key={name} data-figure={name}><th scope="row">{name}</th><td class={`n ${tone ?? ""}`}>{v}</td></tr>)}</tbody></table>;
}

function Plain({ title, id, of }: { title: string; id: string; of: Record<string, unknown> }) {
  return <Sec id={id} title={title}><Pairs of={Object.entries(of).map(([k, v]) => [words(k), figure(k, v)])} /></Sec>;
}

function Grid({ id, heads, rows }: { id: string; heads: readonly string[]; rows: readonly (readonly preact.ComponentChildren[])[] }) {
  return (
    <Scroll labelledby={`sys-${id}`}>
      <table class="plain wide">
        <thead><tr>{heads.map((h, i) => <th key={h} scope="col" class={i > 0 ? "n" : ""}>{h}</th>)}</tr></thead>
        <tbody>{rows.map((r, i) => <tr key={i}>{r.map((c, j) => (j === 0 ? <th key={j} scope="row">{c}</th> : <td key={j} class="n">{c}</td>))}</tr>)}</tbody>
      </table>
    </Scroll>
  );
}

function Nodes({ s }: { s: Sections }) {
  const up = (at: string) => duration(now.value - Date.parse(at));
  return (
    <Sec id="nodes" title={T.nodes} sub={count(s.nodes.length)}>
      <Grid id="nodes" heads={[T.node, T.host, T.since, T.cpus, T.routines, T.memory, T.held, T.runtime]}
        rows={s.nodes.map((n) => [<span class="mono">{n.id}</span>, n.host, up(n.started_at), count(n.cpus), count(n.goroutines), bytes(n.heap_bytes), bytes(n.held_bytes), `${n.go} ${n.os}/${n.arch}`])} />
    </Sec>
  );
}

function Database({ s }: { s: Sections }) {
  const d = s.database;
  const engine = d.engine === "postgres" ? `PostgreSQL ${d.version ?? ""}${d.timescale ? `, TimescaleDB ${d.timescale}` : ""}` : "SQLite";
  return (
    <Sec id="database" title={T.database}>
      {d.down && <p class="crit">{T.down}</p>}
      <Pairs of={[
        [T.engine, engine], [T.size, d.bytes < 0 ? T.unknown : bytes(d.bytes)],
        ...(d.engine === "postgres" ? [[T.table, d.hypertable ? T.hyper : T.partitions] as const] : []),
        ...(s.timings.store ? [[T.storeBatch, T.batches(s.timings.store)] as const] : []),
        [T.sealed, count(s.audit.sealed)], [T.broken, count(s.audit.broken), s.audit.broken > 0 ? "crit" : ""],
      ]} />
    </Sec>
  );
}

function Ingest({ s }: { s: Sections }) {
  const i = s.ingest;
  return (
    <Sec id="ingest" title={T.ingest}>
      <Pairs of={[
        [T.unstored, bytes(i.unstored_bytes)], [T.fill, `${measure(i.log_fill * 100)} %`, i.log_fill > 0.5 ? "warn" : ""], [T.level, i.ack_level],
        ...(s.timings.log ? [[T.logFrame, T.batches(s.timings.log)] as const] : []),
        ...Object.entries(i.ledger).map(([k, n]) => [k, count(n), (k === "rejected" || k === "dropped") && n > 0 ? "warn" : ""] as const),
      ]} />
    </Sec>
  );
}

function Intake({ s }: { s: Sections }) {
  return (
    <Sec id="intake" title={T.intake}>
      <Grid id="intake" heads={[T.kind, T.received, T.waiting, T.rejected, T.dropped, T.state]}
        rows={s.intake.map((k) => [words(k.kind), count(k.received), count(k.queued), count(k.rejected), count(k.dropped), <span class={k.failing ? "crit" : "ok"}>{k.failing ? T.failing : T.ok}</span>])} />
    </Sec>
  );
}

function Services({ all }: { all: readonly Service[] }) {
  const sorted = [...all].sort((a, b) => Number(a.running) - Number(b.running) || b.restarts - a.restarts || (a.name < b.name ? -1 : 1));
  return (
    <Sec id="services" title={T.services} sub={count(all.length)}>
      <ul class="loops">
        {sorted.map((x) => (
          <li key={x.name} class={x.running ? "" : "crit"}>
            <svg class={`g ${x.running ? (x.restarts > 0 ? "warn" : "ok") : "crit"}`} viewBox="0 0 12 12" aria-hidden="true">{x.running ? (x.restarts > 0 ? <path d="M6 .8 11.6 11H.4z" fill="currentColor" /> : <circle cx="6" cy="6" r="5" fill="currentColor" />) : <path d="M6 0l6 6-6 6-6-6z" fill="currentColor" />}</svg>
            <span class="mono">{x.name}</span>
            {!x.running && <span>{T.stopped}</span>}
            {x.restarts > 0 && <small class="warn" title={x.last_error}>{T.restarted(x.restarts)}</small>}
          </li>
        ))}
      </ul>
    </Sec>
  );
}

function Channels({ s }: { s: Sections }) {
  const n = s.notifications;
  return (
    <Sec id="notifications" title={T.channels}>
      <Grid id="notifications" heads={[T.channel, T.busy, T.waiting, T.sending, T.dead, T.oldest, T.arrived]}
        rows={n.channels.map((c) => [c.name, `${count(c.running)} of ${count(c.slots)}`, count(c.queued), count(c.sending), <span class={c.dead > 0 ? "warn" : ""}>{count(c.dead)}</span>, c.oldest_seconds > 0 ? duration(c.oldest_seconds * 1000) : "", count(c.delivered)])} />
      {n.queues.length === 0 ? <p class="quiet-note">{T.closed}</p> : <><h3>{T.breakers}</h3><Pairs of={n.queues.map((q) => [q.name, q.breaker, "warn"])} /></>}
    </Sec>
  );
}

function TaskKinds({ s }: { s: Sections }) {
  const kept = (states: Record<string, number>) => Object.values(states).reduce((a, b) => a + b, 0);
  return (
    <Sec id="tasks" title={T.tasks}>
      <Grid id="tasks" heads={[T.kind, T.running, T.waiting, T.ended]}
        rows={s.tasks.kinds.map((k) => [<span class="mono">{k.kind}</span>, `${count(k.running)} of ${count(k.concurrency)}`, `${count(k.queued)} of ${count(k.queue)}`, count(kept(k.states))])} />
    </Sec>
  );
}

function Caches({ s }: { s: Sections }) {
  return (
    <Sec id="caches" title={T.caches}>
      <Grid id="caches" heads={[T.cache, T.entries, T.hits, T.evictions]} rows={Object.entries(s.caches).map(([name, c]) => [name, count(c.entries), `${Math.round(c.hit_ratio * 100)} %`, count(c.evictions)])} />
    </Sec>
  );
}

function Accounts({ s }: { s: Sections }) {
  const all = s.counters.accounts ?? [];
  if (all.length === 0) return null;
  return (
    <Sec id="accounts" title={T.accounts}>
      <Grid id="accounts" heads={[T.account, T.open, T.received, T.sent]} rows={all.map((a) => [a.name || a.id || "", count(a.connections.total), count(a.messages.received), count(a.messages.sent)])} />
    </Sec>
  );
}

function Others({ s }: { s: Sections }) {
  const shown = OTHER.filter((name) => s[name] && typeof s[name] === "object");
  return (
    <Sec id="other" title={T.other}>
      <div class="others">{shown.map((name) => <div key={name}><h3>{words(name)}</h3><Pairs of={Object.entries(s[name] as object).map(([k, v]) => [words(k), figure(k, v)])} /></div>)}</div>
    </Sec>
  );
}

function Diagnostics({ said }: { said: Said }) {
  const code = useRef<HTMLElement>(null);
  const [word, say] = useState("");
  const text = diagnostics(said.version, said.time, said.sections, { version: pageVersion(), link: link.value.kind, browser: navigator.userAgent, url: location.pathname });
  const onClick = async () => {
    say((await copy(text, code.current)) ? T.copied : T.failed);
    setTimeout(() => say(""), 3000);
  };
  return (
    <section class="sec diagnostics" aria-label={T.copy}>
      <button type="button" class="btn" onClick={() => void onClick()}>{word || T.copy}</button> <span class="vh" role="status">{word}</span>
      <details class="moreof"><summary>{T.what}</summary><pre class="json" tabIndex={0} aria-label={T.what}><code ref={code}>{text}</code></pre></details>
    </section>
  );
}
