// One topic: what it is, one's own subscription, sending, what was sent, who is in it.

import { useEffect, useState } from "preact/hooks";
import { useAsked } from "../lib/ask";
import { held } from "../lib/held";
import { now } from "../lib/clock";
import { absolute, ago, count, duration, plural } from "../lib/format";
import { after, useList } from "../lib/list";
import { getTopic, listNotifications, type Notification, type Topic } from "../lib/schema.gen";
import { me } from "../lib/session";
import { readTopics, SYSTEM, topicName } from "../lib/topics";
import { Fault, Pending } from "../parts/fault";
import { SeverityGlyph, SeverityWord } from "../parts/severity";
import { Members, Subscribers } from "./members";
import { SendForm } from "./send";
import { SubscriptionForm } from "./subscription";
import { TopicSettings } from "./topicsettings";

const T = {
  notFound: "There is no such topic, or you may not see it.",
  loading: "Asking the server for the topic.",
  all: "All topics",
  facts: { role: "Your role", sees: "you see it", subscribers: "Subscribers", kept: "Kept for", visibility: "Seen by", all: "every user", members: "members", escalation: "Escalation", none: "none", sources: "Events" },
  steps: (n: number) => plural(n, "step", "steps"),
  sources: (n: number) => plural(n, "source", "sources"),
  inactive: "Inactive: nothing can be sent.",
  sent: "Notifications",
  state: "State",
  any: "All",
  states: { open: "Open", acked: "Acknowledged", resolved: "Over" },
  nothing: "None.",
  more: "More",
  acks: (n: number, all: number) => `${count(n)} of ${count(all)} acknowledged`,
};

const STATES = ["", "open", "acked", "resolved"] as const;

export function TopicPage({ id }: { id: string }) {
  const [sent, setSent] = useState(0);
  const [turn, setTurn] = useState(0);
  const asked = useAsked((stop) => getTopic(id, stop), id, turn, T.notFound);
  const topic = asked.answer;
  useEffect(() => {
    const stop = new AbortController();
    readTopics(stop.signal).catch(() => undefined); // only the name in the top bar needs them
    return () => stop.abort();
  }, [id]);
  if (!topic || asked.fault) return <Pending of={asked} loading={T.loading}><a class="link" href="/topics">{T.all}</a></Pending>;
  const again = () => setTurn((n) => n + 1);
  const owner = topic.role === "owner" || me.value?.role === "admin";
  return (
    <>
      <Head topic={topic} />
      {me.value?.user && topic.id !== SYSTEM && <SubscriptionForm key={topic.subscription?.version ?? 0} topic={topic} onChange={again} />}
      {topic.may_publish && topic.id !== SYSTEM && <SendForm topic={topic} onSent={() => setSent(sent + 1)} />}
      {topic.may_publish && <Sent topic={topic} turn={sent} />}
      <div class="cols even">
        {topic.role || owner ? <Members topic={topic} owner={owner} /> : null}
        {topic.may_publish && <Subscribers topic={topic} owner={owner} turn={topic.subscribers} onChange={again} />}
      </div>
      {owner && topic.id !== SYSTEM && <TopicSettings key={topic.version} topic={topic} onChange={again} />}
    </>
  );
}

function Head({ topic: t }: { topic: Topic }) {
  return (
    <section class="dev">
      <h1>{topicName(t)}</h1>
      <p class="sub"><code>{t.name}</code> {t.description && <span>{t.description}</span>} {t.status === "inactive" && <b class="warn">{T.inactive}</b>}</p>
      <dl class="facts few">
        <div><dt>{T.facts.role}</dt><dd>{t.role ?? T.facts.sees}</dd></div>
        <div><dt>{T.facts.subscribers}</dt><dd>{count(t.subscribers)}</dd></div>
        <div><dt>{T.facts.visibility}</dt><dd>{t.visibility === "private" ? T.facts.members : T.facts.all}</dd></div>
        <div><dt>{T.facts.kept}</dt><dd>{duration(t.retention_s * 1000)}</dd></div>
        {t.may_publish && <div><dt>{T.facts.escalation}</dt><dd>{t.escalation ? T.steps(t.escalation.steps.length) : T.facts.none}</dd></div>}
        {t.may_publish && <div><dt>{T.facts.sources}</dt><dd>{t.sources?.length ? T.sources(t.sources.length) : T.facts.none}</dd></div>}
      </dl>
    </section>
  );
}

function Sent({ topic, turn }: { topic: Topic; turn: number }) {
  const [state, setState] = held("state", STATES);
  const list = useList<Notification>((at, stop) => listNotifications({ topic: topic.id, limit: 20, ...after(at), ...(state && { state }) }, stop), `${state} ${turn}`);
  return (
    <section class="sec sent" aria-labelledby="sent-title">
      <header>
        <h2 id="sent-title">{T.sent}</h2>
        <div class="r tabs" role="group" aria-label={T.state}>
          {STATES.map((s) => <button key={s} type="button" aria-pressed={s === state} onClick={() => setState(s)}>{s ? T.states[s] : T.any}</button>)}
        </div>
      </header>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.nothing}</p>}
      <ul class="notes">{list.items?.map((n) => <Line key={n.id} n={n} />)}</ul>
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </section>
  );
}

function Line({ n }: { n: Notification }) {
  const made = Date.parse(n.created_at);
  return (
    <li data-id={n.id} class={n.state === "open" ? "" : "past"}>
      <SeverityGlyph of={n.severity} />
      <div class="what">
        <a href={`/inbox/${encodeURIComponent(n.id)}`}>{n.title}</a>
        <p class="sub"><SeverityWord of={n.severity} /> · {T.states[n.state]} {n.ack_policy !== "none" && ` · ${T.acks(n.acks, n.recipients)}`}</p>
      </div>
      <time class="age" title={absolute(made)}>{ago(made, now.value)}</time>
    </li>
  );
}
