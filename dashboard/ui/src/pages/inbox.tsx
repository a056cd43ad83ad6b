// The inbox: what one was told, what needs somebody, and the item that is opened.

import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { now } from "../lib/clock";
import { absolute, ago, clock, count, counted, plural } from "../lib/format";
import { counts, entryOf, held, hold, isUnread, isUnseen, leaveView, older, openView, settled, showHeld, shown, trouble, view, wantsAck, type Show, type View } from "../lib/inbox";
import { pendingKey } from "../lib/keymap";
import { singleKey } from "../lib/keys";
import { mark } from "../lib/mark";
import { go, inboxPath, route } from "../lib/route";
import { readInbox, type InboxItem } from "../lib/schema.gen";
import { me } from "../lib/session";
import { readTopics, topicName, topics } from "../lib/topics";
import { sheet } from "../parts/everywhere";
import { useKeys } from "../parts/keys";
import { SeverityGlyph, SeverityWord } from "../parts/severity";
import { FirstNotification } from "./firstnote";
import { NotePanel } from "./note";

const T = {
  title: "Inbox",
  nobodys: "An inbox is a user's. This browser is signed in without an account: by an API key or the set-up link.",
  account: "Make your account",
  keysOf: "Inbox",
  open: "Needs an ack",
  unread: "Unread",
  all: "All",
  filter: "Which notifications",
  topic: "Topic",
  allTopics: "All topics",
  newcomers: (n: number) => `${count(n)} new, show`,
  done: (n: number) => `${plural(n, "is", "are")} done, clear`,
  readAll: "Mark all as read",
  keys: "Keys",
  ack: "Acknowledge",
  older: "Older",
  loading: "Asking the server for the inbox.",
  nothing: { open: "Nothing needs you.", unread: "Everything is read.", all: "Nothing here." } satisfies Record<Show, string>,
  isUnread: "unread",
  youAcked: (at: string) => `you acknowledged ${at}`,
  sending: "acknowledging",
  acked: (who: string, at: string) => `acknowledged by ${who} ${at}`,
  ackedNobody: (at: string) => `acknowledged ${at}`,
  resolved: (at: string) => `over since ${at}`,
  urgent: "urgent",
  again: (n: number) => `${count(n)} times`,
  gone: "topic deleted",
};

/** The inbox of who is signed in; a key, or who came by the set-up link, has none. */
export function InboxPage() {
  const m = me.value;
  if (!m || m.user) return <Mine />;
  return (
    <section class="sec" aria-labelledby="inbox-title">
      <header><h1 id="inbox-title">{T.title}</h1></header>
      <p>{T.nobodys} {m.setup && <a class="link" href="/account">{T.account}</a>}</p>
    </section>
  );
}

function Mine() {
  const r = route.value;
  const [show, topic, id] = r.page === "inbox" ? [r.show, r.topic, r.id] : ["all" as Show, "", ""];
  const at = useSignal(""); // the item that keys are about
  const [fault, setFault] = useState("");
  useEffect(() => void openView(show, topic), [show, topic]);
  useEffect(() => leaveView, []);
  useEffect(() => {
    const stop = new AbortController();
    readTopics(stop.signal).catch(() => undefined); // without them the picker is not there
    return () => stop.abort();
  }, []);
  useTriage(at);
  const readAll = () => {
    setFault("");
    const newest = view.value?.order[0];
    readInbox(newest ? { up_to: newest } : {}).catch((e: Error) => setFault(e.message));
  };
  const v = view.value;
  return (
    <div class={id ? "inbox opened" : "inbox"}>
      <section class="sec" aria-labelledby="inbox-title">
        <h1 id="inbox-title" class="vh">{T.title}</h1>
        <Filters show={show} topic={topic} onReadAll={readAll} onKeys={() => { sheet.value = true; }} />
        <p class="error" role="alert">{fault || trouble.value}</p>
        {v?.fault && <p class="error" role="alert">{v.fault}</p>}
        {v && v.order.length > 0 && <List v={v} at={at} opened={id} />}
        {v && v.order.length === 0 && (v.loading ? <p class="quiet-note">{T.loading}</p> : !v.fault && <Nothing v={v} />)}
      </section>
      <NotePanel key={id} id={id} back={inboxPath(show, topic)} />
    </div>
  );
}

function Nothing({ v }: { v: View }) {
  if (v.show === "all" && !v.topic) return <FirstNotification />;
  return <p class="quiet-note">{T.nothing[v.show]} {v.show !== "all" && <a class="link" href={inboxPath("all", v.topic)}>{T.all}</a>}</p>;
}

function Filters({ show, topic, onReadAll, onKeys }: { show: Show; topic: string; onReadAll: () => void; onKeys: () => void }) {
  const n = counts.value;
  const figure: Partial<Record<Show, number | undefined>> = { open: n?.open, unread: n?.unread };
  return (
    <header class="filters">
      <nav class="tabs" aria-label={T.filter}>
        {(["open", "unread", "all"] as const).map((s) => (
          <a key={s} href={inboxPath(s, topic)} aria-current={s === show ? "page" : undefined}>{T[s]}{figure[s] ? <b>{counted(figure[s])}</b> : null}</a>
        ))}
      </nav>
      {held.value.length > 0 && <button type="button" class="chip" onClick={showHeld}>{T.newcomers(held.value.length)}</button>}
      {settled.value > 0 && <button type="button" class="chip" onClick={() => void openView(show, topic)}>{T.done(settled.value)}</button>}
      <div class="r">
        {topics.value && topics.value.size > 0 && (
          <select aria-label={T.topic} value={topic} onChange={(e) => go(inboxPath(show, e.currentTarget.value), true)}>
            <option value="">{T.allTopics}</option>
            {[...topics.value.values()].map((t) => <option key={t.id} value={t.id}>{topicName(t)}</option>)}
          </select>
        )}
        <button type="button" class="btn" disabled={!n?.unread} onClick={onReadAll}>{T.readAll}</button>
        <button type="button" class="btn keys" aria-label={T.keys} title={T.keys} onClick={onKeys}>?</button>
      </div>
    </header>
  );
}

function List({ v, at, opened }: { v: View; at: Signal<string>; opened: string }) {
  const el = useRef<HTMLUListElement>(null);
  useSeen(el, v.order);
  return (
    <>
      <ul ref={el} class="notes" aria-labelledby="inbox-title" onPointerEnter={() => hold(true)} onPointerLeave={() => hold(false)}>
        {v.order.map((id) => <Line key={id} id={id} v={v} at={at} opened={opened === id} />)}
      </ul>
      {v.next && <button type="button" class="btn more" disabled={v.loading} onClick={() => void older()}>{T.older}</button>}
    </>
  );
}

/** Tells the server what was on the screen. */
function useSeen(list: { current: HTMLElement | null }, order: readonly string[]): void {
  useEffect(() => {
    const eye = new IntersectionObserver((rows) => {
      if (document.hidden) return;
      const ids = rows.filter((r) => r.isIntersecting).map((r) => (r.target as HTMLElement).dataset["id"] ?? "");
      mark(ids.filter((id) => {
        const e = entryOf(id)?.peek();
        return e && isUnseen(e.item.receipt);
      }), "seen");
    }, { threshold: 0.5 });
    const look = () => list.current?.querySelectorAll("li[data-id]").forEach((li) => {
      eye.unobserve(li);
      eye.observe(li);
    });
    look();
    document.addEventListener("visibilitychange", look);
    return () => {
      eye.disconnect();
      document.removeEventListener("visibilitychange", look);
    };
  }, [order]);
}

function Line({ id, v, at, opened }: { id: string; v: View; at: Signal<string>; opened: boolean }) {
  const e = entryOf(id)?.value;
  if (!e) return null;
  const it = shown(e);
  const { notification: n, receipt: r } = it;
  const made = Date.parse(n.created_at);
  const onAck = (e: Event) => {
    (e.currentTarget as Element).closest("li")?.querySelector("a")?.focus(); // the button goes, and would take the focus with it
    mark([id], "acked");
  };
  const classes = [isUnread(r) && "unread", opened && "on", n.state !== "open" && "past"].filter(Boolean).join(" ");
  return (
    <li data-id={id} data-state={n.state} data-receipt={r.state} class={classes}>
      <SeverityGlyph of={n.severity} />
      <div class="what">
        <a href={inboxPath(v.show, v.topic, id)} aria-current={opened ? "true" : undefined} onFocus={() => { at.value = id; }}>
          {isUnread(r) && <span class="vh">{T.isUnread}: </span>}{n.title}
        </a>
        <p class="sub">
          <SeverityWord of={n.severity} />{n.priority === "urgent" && n.severity !== "critical" && `, ${T.urgent}`} · {n.topic_name || T.gone}
          {n.device && <> · <span class="mono">{n.device}</span></>}
          {n.count > 1 && ` · ${T.again(n.count)}`}
        </p>
        <p class="sub how">{how(it, now.value, e.wish?.state === "acked")}</p>
      </div>
      <time class="age" title={absolute(made)}>{ago(made, now.value)}</time>
      {wantsAck(it) && <button type="button" class="btn ack" aria-label={`${T.ack}: ${n.title}`} onClick={onAck}>{T.ack}</button>}
    </li>
  );
}

/** How it stands, in words; empty while it is open and nobody did anything. */
function how({ notification: n, receipt: r }: InboxItem, t: number, sending: boolean): string {
  if (sending) return T.sending;
  if (n.state === "resolved") return T.resolved(n.resolved_at ? clock(Date.parse(n.resolved_at), t) : "");
  if (r.state === "acked" && r.acked_at) return T.youAcked(clock(Date.parse(r.acked_at), t));
  if (n.state !== "acked" || !n.acked_at) return "";
  const at = clock(Date.parse(n.acked_at), t);
  return n.acked_by ? T.acked(n.acked_by, at) : T.ackedNobody(at);
}

/** Triage by keys. */
function useTriage(at: Signal<string>): void {
  useKeys(T.keysOf, KEYS.map(([keys, what]) => ({ keys, what })));
  useEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      const key = pendingKey() ? "" : singleKey(e);
      if (key && press(key, e.repeat, at)) e.preventDefault();
    };
    document.addEventListener("keydown", onKey, true); // before the keys that every page has
    return () => document.removeEventListener("keydown", onKey, true);
  }, []);
}

const KEYS: readonly (readonly [string, string])[] = [
  ["j, k", "the next, the one before"],
  ["o", "open"],
  ["e, a", "acknowledge"],
  ["u", "mark as read"],
  ["Esc", "close what is open"],
];

/** Does what a key says; false when it says nothing. */
function press(key: string, repeated: boolean, at: Signal<string>): boolean {
  const r = route.peek();
  if (r.page !== "inbox") return false;
  const id = at.peek() || r.id;
  switch (key) {
    case "j":
    case "k":
      return move(id, key === "j" ? 1 : -1, at);
    case "Escape":
      if (r.id) go(inboxPath(r.show, r.topic));
      if (r.id) focusRow(id);
      return r.id !== "";
  }
  const e = entryOf(id)?.peek();
  if (!e || repeated) return false;
  const it = shown(e);
  switch (key) {
    case "o":
      go(inboxPath(r.show, r.topic, id));
      return true;
    case "e":
    case "a":
      if (wantsAck(it)) mark([id], "acked");
      else if (isUnread(it.receipt)) mark([id], "read");
      return true;
    case "u":
      if (isUnread(it.receipt)) mark([id], "read");
      return true;
  }
  return false;
}

function move(id: string, by: number, at: Signal<string>): boolean {
  const order = view.peek()?.order ?? [];
  const next = order[Math.min(order.length - 1, Math.max(0, order.indexOf(id) + by))];
  if (!next) return false;
  at.value = next;
  focusRow(next);
  return true;
}

function focusRow(id: string): void {
  const a = document.querySelector<HTMLElement>(`.notes li[data-id="${CSS.escape(id)}"] a`);
  a?.focus({ preventScroll: true });
  a?.closest("li")?.scrollIntoView({ block: "nearest" });
}
