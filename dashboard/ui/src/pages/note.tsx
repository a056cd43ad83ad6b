// One notification: what it says, who takes care of it, who saw it, what went out.

import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, message } from "../lib/api";
import { insist } from "../lib/ask";
import { now } from "../lib/clock";
import { absolute, ago, clock, count, plural } from "../lib/format";
import { closeItem, isUnread, openItem, shown, wantsAck, type Entry } from "../lib/inbox";
import { after, useList } from "../lib/list";
import { isLive } from "../lib/live";
import { mark } from "../lib/mark";
import { devicePath } from "../lib/route";
import { getNotification, listNotificationDeliveries, listReceipts, type Delivery, type InboxItem, type Notification, type Receipt } from "../lib/schema.gen";
import { topicPath, topics } from "../lib/topics";
import { Deliveries } from "../parts/deliveries";
import { Fault } from "../parts/fault";
import { SeverityGlyph, SeverityWord } from "../parts/severity";

const T = {
  region: "The notification that is opened",
  pick: "Choose a notification to read it here.",
  keys: "j and k move, o opens, e acknowledges, ? shows all keys.",
  back: "Back to the list",
  loading: "Asking the server for the notification.",
  notFound: "There is no such notification, or it is not for you.",
  ack: "Acknowledge",
  sending: "Acknowledging",
  note: "Note",
  noteHint: "Shown to everybody who got it",
  takeCare: "You take care of it.",
  from: "From",
  topic: "Topic",
  device: "Device",
  sent: "Sent",
  times: (n: number, t: string) => `${count(n)} times, last ${t}`,
  expires: "Expires",
  expired: "Expired",
  escalates: "Next step",
  priority: "Priority",
  gone: "deleted",
  data: "Data",
  link: "Open the link",
  people: "Who has it",
  peopleOf: (acks: number, all: number) => `${count(acks)} of ${count(all)} acknowledged`,
  policy: { any: "one ack is enough", all: "everybody's ack is needed", none: "no ack is asked for" },
  state: { open: "Open", acked: "Acknowledged", resolved: "Over" },
  by: (who: string) => `by ${who}`,
  mine: "You",
  more: "More",
  onlyPublishers: "Publishers of the topic see who has it and what went out.",
  out: "Deliveries",
  step: (n: number) => `told by step ${n}`,
  door: { live: "in the dashboard", api: "by the API", mail: "by mail", mqtt: "by MQTT" },
};

const REREAD_MS = 5_000; // between looks at what other people did

export function NotePanel({ id, back }: { id: string; back: string }) {
  return (
    <aside class="panel" aria-label={T.region}>
      {id ? <Loaded id={id} back={back} /> : <div class="quiet-note"><p>{T.pick}</p><p class="hint">{T.keys}</p></div>}
    </aside>
  );
}

function Loaded({ id, back }: { id: string; back: string }) {
  const entry = useSignal<Signal<Entry> | null>(null);
  const foreign = useSignal<Notification | null>(null);
  const [fault, setFault] = useState("");
  const top = useRef<HTMLAnchorElement>(null);
  useEffect(() => {
    const stop = new AbortController();
    const get = async (signal: AbortSignal) => {
      entry.value = await openItem(id, signal);
      if (!entry.value) foreign.value = (await getNotification(id, signal)).notification;
      setFault("");
    };
    insist(get, stop.signal, (e) => setFault(e instanceof ApiError && e.status === 404 ? T.notFound : message(e))).catch(() => undefined); // each failure was told
    const above = top.current;
    if (above && getComputedStyle(above).display !== "none") { // narrow: the panel takes the place of the list
      above.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    return () => {
      stop.abort();
      closeItem();
    };
  }, [id]);
  const it = entry.value ? shown(entry.value.value) : foreign.value && { notification: foreign.value };
  return (
    <>
      <a ref={top} class="back link" href={back}>{T.back}</a>
      {fault && <p class="error" role="alert">{fault}</p>}
      {!it && !fault && <p class="quiet-note">{T.loading}</p>}
      {it && <Note of={it} wish={entry.value?.value.wish?.state === "acked"} />}
    </>
  );
}

function Note({ of, wish }: { of: { notification: Notification; receipt?: Receipt }; wish: boolean }) {
  const { notification: n, receipt: r } = of;
  useEffect(() => {
    if (r && isUnread(r)) mark([n.id], "read");
  }, [n.id, r && isUnread(r)]);
  const publisher = topics.value?.get(n.topic)?.may_publish ?? false;
  return (
    <article class="note" data-id={n.id} data-state={n.state}>
      <h2><SeverityGlyph of={n.severity} /> {n.title}</h2>
      <p class="sub"><SeverityWord of={n.severity} /> · <b class={n.state === "open" ? "" : "ok"}>{T.state[n.state]}</b>{n.acked_by && n.state === "acked" && ` ${T.by(n.acked_by)}`} · {T.policy[n.ack_policy]}</p>
      {n.ack_note && <blockquote>{n.ack_note}</blockquote>}
      {r && <AckForm of={{ notification: n, receipt: r }} wish={wish} />}
      {n.body && <p class="text">{n.body}</p>}
      <Ways n={n} />
      <Facts n={n} />
      {n.data !== undefined && <section class="sec"><header><h3>{T.data}</h3></header><pre class="json" tabIndex={0} aria-label={T.data}>{JSON.stringify(n.data, null, 2)}</pre></section>}
      {publisher ? <People n={n} mine={r} /> : <p class="hint">{T.onlyPublishers}</p>}
      {publisher && <Out n={n} />}
    </article>
  );
}

function AckForm({ of, wish }: { of: InboxItem; wish: boolean }) {
  const [note, setNote] = useState("");
  const n = of.notification;
  const submit = (e: Event) => {
    e.preventDefault();
    mark([n.id], "acked", note.trim());
  };
  if (wish) return <p role="status">{T.sending}</p>;
  if (of.receipt.state === "acked") return <p role="status" class="ok">{T.takeCare}</p>;
  if (!wantsAck(of)) return null;
  return (
    <form class="ackform" onSubmit={submit}>
      <input aria-label={T.note} placeholder={T.note} title={T.noteHint} maxLength={500} value={note} onInput={(e) => setNote(e.currentTarget.value)} />
      <button class="btn pri">{T.ack} <kbd aria-hidden="true">e</kbd></button>
    </form>
  );
}

/** Where it leads: they open elsewhere, and are told nothing of this page. */
function Ways({ n }: { n: Notification }) {
  const all = [...(n.link ? [{ label: T.link, url: n.link }] : []), ...(n.actions ?? [])];
  if (all.length === 0) return null;
  return <p class="act">{all.map((a) => <a key={a.label + a.url} class="btn" href={a.url} target="_blank" rel="noopener noreferrer" title={a.url}>{a.label} ↗</a>)}</p>;
}

function Facts({ n }: { n: Notification }) {
  const t = now.value;
  const when = (at: string) => <time title={absolute(Date.parse(at))}>{ago(Date.parse(at), t)}</time>;
  return (
    <dl class="facts few">
      <div><dt>{T.topic}</dt><dd>{n.topic_name ? <a class="link" href={topicPath(n.topic)}>{n.topic_name}</a> : T.gone}</dd></div>
      <div><dt>{T.from}</dt><dd>{n.sender.name || n.sender.id} <small>{n.sender.kind}</small></dd></div>
      {n.device && <div><dt>{T.device}</dt><dd><a class="link mono" href={devicePath(n.device)}>{n.device}</a></dd></div>}
      <div><dt>{T.sent}</dt><dd>{when(n.created_at)} {n.count > 1 && <small>{T.times(n.count, ago(Date.parse(n.updated_at), t))}</small>}</dd></div>
      <div><dt>{T.priority}</dt><dd>{n.priority}</dd></div>
      {n.expires_at && <div><dt>{Date.parse(n.expires_at) > t ? T.expires : T.expired}</dt><dd>{when(n.expires_at)}</dd></div>}
      {n.escalate_at && n.state === "open" && <div><dt>{T.escalates}</dt><dd>{when(n.escalate_at)}</dd></div>}
    </dl>
  );
}

/** How far it has come with each: asked again when it changes, and now and then. */
function People({ n, mine }: { n: Notification; mine: Receipt | undefined }) {
  const list = useList<Receipt>((at, stop) => listReceipts(n.id, after(at), stop));
  useReread(`${n.version} ${mine?.seq}`, list.more ? null : list.reload);
  return (
    <section class="sec" aria-labelledby="people-title">
      <header><h3 id="people-title">{T.people}</h3><p>{n.ack_policy === "none" ? plural(n.recipients, "recipient", "recipients") : T.peopleOf(n.acks, n.recipients)}</p></header>
      <Fault of={list} />
      <table class="plain">
        <tbody>
          {list.items?.map((r) => (
            <tr key={r.subject} data-subject={r.subject}>
              <th scope="row">{r.name || r.subject} {r.step !== undefined && <small>{T.step(r.step)}</small>}</th>
              <td><b class={r.state === "acked" ? "ok" : ""}>{r.state}</b> {r.door && <small>{T.door[r.door]}</small>} {r.note && <small>“{r.note}”</small>}</td>
              <td class="n">{lastAt(r)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </section>
  );
}

function lastAt(r: Receipt): string {
  const at = r.acked_at ?? r.read_at ?? r.seen_at ?? r.delivered_at;
  return at ? clock(Date.parse(at), now.value) : "";
}

function Out({ n }: { n: Notification }) {
  const list = useList<Delivery>((at, stop) => listNotificationDeliveries(n.id, after(at), stop));
  useReread(String(n.version), list.more ? null : list.reload);
  return (
    <section class="sec" aria-labelledby="out-title">
      <header><h3 id="out-title">{T.out}</h3></header>
      <Deliveries list={list} />
    </section>
  );
}

/** Calls reload when mark changes, and every REREAD_MS while the page is live and looked at. */
function useReread(mark: string, reload: (() => void) | null): void {
  const latest = useRef(reload);
  const first = useRef(true);
  latest.current = reload;
  useEffect(() => {
    if (first.current) first.current = false;
    else latest.current?.();
  }, [mark]);
  useEffect(() => {
    const timer = setInterval(() => {
      if (isLive() && !document.hidden) latest.current?.();
    }, REREAD_MS);
    return () => clearInterval(timer);
  }, []);
}
