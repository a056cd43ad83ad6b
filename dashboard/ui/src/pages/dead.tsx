// What was given up, of all channels: looked at, and sent again, one by one or all that match.

import { useState } from "preact/hooks";
import { message } from "../lib/api";
import { plural } from "../lib/format";
import { held } from "../lib/held";
import { after, useList } from "../lib/list";
import { DEAD_PATH } from "../lib/route";
import { listDeliveries, requeueDeliveries, type Delivery } from "../lib/schema.gen";
import { isAdmin } from "../lib/session";
import { Deliveries } from "../parts/deliveries";

const T = {
  title: "What was given up",
  how: "Mails, webhooks and messages to devices, of all topics. Mend the cause, then send again.",
  none: "Nothing: all that went out arrived, or is still tried.",
  noneOf: (channel: string) => `Nothing by ${channel}.`,
  forbidden: "Only admins see what was given up.",
  topics: "All topics",
  alone: "Only this list",
  channel: "Channel",
  any: "All",
  all: "Send all again",
  allOf: (channel: string) => `Send all by ${channel} again`,
  counting: "Counting",
  sure: (n: number, more: boolean) => `Send ${more ? "the newest " : ""}${plural(n, "delivery", "deliveries")} again?`,
  back: "Not now",
  queued: (n: number, of: number) => (n === of ? `${plural(n, "delivery is", "deliveries are")} queued again.` : `${n} of ${plural(of, "delivery is", "deliveries are")} queued again; the others are not there, or not given up, any more.`),
};

const CHANNELS = ["", "email", "webhook", "mqtt"] as const;
type Channel = (typeof CHANNELS)[number];
const SHOWN = 50;
const AT_ONCE = 1000; // ids that one request takes
const MOST = 10 * AT_ONCE; // that are sent again by one press

/** The list alone, by its own address. */
export function DeadPage() {
  if (!isAdmin()) return <p>{T.forbidden}</p>;
  return <Dead alone />;
}

/** The list below another. */
export function DeadSection() {
  return <Dead />;
}

function Dead({ alone = false }: { alone?: boolean }) {
  const [channel, setChannel] = held<Channel>("channel", CHANNELS);
  const [fault, setFault] = useState("");
  const list = useList<Delivery>((at, stop) => listDeliveries({ state: "dead", limit: SHOWN, ...after(at), ...(channel && { channel }) }, stop), channel);
  const Title = alone ? "h1" : "h2";
  return (
    <section class="sec dead" aria-labelledby="dead-title">
      <header>
        <Title id="dead-title">{T.title}</Title><p class="long">{T.how}</p>
        <div class="r tabs" role="group" aria-label={T.channel}>{CHANNELS.map((c) => <button key={c} type="button" aria-pressed={c === channel} onClick={() => setChannel(c)}>{c || T.any}</button>)}</div>
      </header>
      <div class="ways">
        {list.items && <SendAll key={channel} channel={channel} any={list.items.length > 0} onSent={list.reload} onFault={setFault} />}
        {alone ? <a class="link" href="/topics">{T.topics}</a> : <a class="link" href={DEAD_PATH}>{T.alone}</a>}
      </div>
      <p class="error" role="alert">{fault}</p>
      <Deliveries list={list} about none={channel ? T.noneOf(channel) : T.none} />
    </section>
  );
}

interface Found { ids: string[]; more: boolean }

/** The ids of all that was given up by a channel, the newest first, within bounds. */
async function findAll(channel: Channel): Promise<Found> {
  const ids: string[] = [];
  let cursor = "";
  do {
    const page = await listDeliveries({ state: "dead", limit: AT_ONCE, ...after({ cursor }), ...(channel && { channel }) });
    ids.push(...page.items.map((d) => d.id));
    cursor = page.next ?? "";
  } while (cursor && ids.length < MOST);
  return { ids, more: cursor !== "" };
}

async function queueAll(ids: string[]): Promise<number> {
  let queued = 0;
  for (let at = 0; at < ids.length; at += AT_ONCE) queued += (await requeueDeliveries({ ids: ids.slice(at, at + AT_ONCE) })).requeued.length;
  return queued;
}

/** Counts first; then the button says how many it sends again. */
function SendAll({ channel, any, onSent, onFault }: { channel: Channel; any: boolean; onSent: () => void; onFault: (why: string) => void }) {
  const [found, setFound] = useState<Found | null>(null);
  const [busy, setBusy] = useState(false);
  const [said, say] = useState("");
  const act = (run: () => Promise<void>) => () => {
    setBusy(true);
    onFault("");
    say("");
    run().catch((e: unknown) => onFault(message(e))).finally(() => setBusy(false));
  };
  const send = act(async () => {
    const ids = found!.ids;
    setFound(null);
    say(T.queued(await queueAll(ids), ids.length));
    onSent();
  });
  return (
    <>
      {found && <button type="button" class="btn pri" disabled={busy || found.ids.length === 0} onClick={send} ref={(el) => el?.focus()}>{T.sure(found.ids.length, found.more)}</button>}
      {found && <button type="button" class="btn txt" disabled={busy} onClick={() => setFound(null)}>{T.back}</button>}
      {!found && any && <button type="button" class="btn" disabled={busy} onClick={act(async () => setFound(await findAll(channel)))}>{busy ? T.counting : channel ? T.allOf(channel) : T.all}</button>}
      <p role="status">{said}</p>
    </>
  );
}
