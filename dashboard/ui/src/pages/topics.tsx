// The topics: which there are, and to which one is subscribed; below them what was given up.

import { useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { count } from "../lib/format";
import { after, useList, type List } from "../lib/list";
import { go, search } from "../lib/route";
import { createTopic, listTopics, putSubscription, type NewTopic, type Topic } from "../lib/schema.gen";
import { isAdmin, may, me } from "../lib/session";
import { SYSTEM, topicName, topicPath } from "../lib/topics";
import { unsubscribe } from "../lib/leave";
import { Choice } from "../parts/choice";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Scroll } from "../parts/scroll";
import { DeadPage, DeadSection } from "./dead";

export const POLICIES = [["any", "one ack is enough"], ["all", "everybody's ack is needed"], ["none", "no ack is asked for"]] as const;
export const VISIBILITIES = [["internal", "every user sees it"], ["private", "only members see it"]] as const;

const T = {
  title: "Topics",
  how: "What notifications are sent to. Who is subscribed gets them in the inbox.",
  make: "New topic",
  needs: "This needs the role operator.",
  name: "Name",
  nameHint: "a-z, 0-9, dot, _ and -; programs send to it",
  label: "Title",
  labelHint: "For people; the name when empty",
  visibility: "Who sees it",
  policy: "Ack",
  submit: "Make the topic",
  none: "There is no topic yet.",
  topic: "Topic",
  role: "Your role",
  noRole: "sees it",
  subscribers: "Subscribers",
  mine: "You",
  subscribed: "subscribed",
  inactive: "inactive",
  private: "private",
  subscribe: "Subscribe",
  unsubscribe: "Unsubscribe",
  more: "More",
};

export function TopicsPage() {
  return search.value.get("show") === "dead" ? <DeadPage /> : <Topics />;
}

function Topics() {
  const list = useList<Topic>((at, stop) => listTopics(after(at), stop));
  const [making, setMaking] = useState(false);
  const entitled = may("topics:write");
  const none = list.items?.every((t) => t.id === SYSTEM);
  return (
    <>
      {(making || (none && entitled)) && <MakeForm />}
      <section class="sec topics" aria-labelledby="topics-title">
        <header>
          <h1 id="topics-title">{T.title}</h1><p class="long">{T.how}</p>
          <div class="r"><button type="button" class="btn" disabled={!entitled} title={entitled ? undefined : T.needs} onClick={() => setMaking(true)}>{T.make}</button></div>
        </header>
        <Fault of={list} />
        {none && <p class="quiet-note">{T.none}</p>}
        {list.items && list.items.length > 0 && <Table list={list} />}
        {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
      </section>
      {isAdmin() && <DeadSection />}
    </>
  );
}

function Table({ list }: { list: List<Topic> }) {
  return (
    <Scroll labelledby="topics-title">
      <table class="plain">
        <thead><tr><th scope="col">{T.topic}</th><th scope="col">{T.role}</th><th scope="col">{T.policy}</th><th scope="col" class="n">{T.subscribers}</th><th scope="col">{T.mine}</th><th /></tr></thead>
        <tbody>{list.items?.map((t) => <Row key={t.id} topic={t} list={list} />)}</tbody>
      </table>
    </Scroll>
  );
}

function Row({ topic: t, list }: { topic: Topic; list: List<Topic> }) {
  const on = t.subscription !== undefined;
  const toggle = () => list.run(() => (on ? unsubscribe(t, list.reload) : putSubscription(t.id, "me", {})));
  return (
    <tr data-topic={t.name}>
      <th scope="row">
        <a class="to" href={topicPath(t.id)}>{topicName(t)}</a> {t.title && <small class="mono">{t.name}</small>}
        {t.status === "inactive" && <span class="tag">{T.inactive}</span>} {t.visibility === "private" && <span class="tag">{T.private}</span>}
      </th>
      <td>{t.role ?? T.noRole}</td>
      <td>{POLICIES.find(([p]) => p === t.ack_policy)?.[1]}</td>
      <td class="n">{count(t.subscribers)}</td>
      <td>{on && <span class="ok">{T.subscribed}</span>}</td>
      <td class="n">{me.value?.user && t.id !== SYSTEM && <button type="button" class="btn" aria-label={`${on ? T.unsubscribe : T.subscribe}: ${topicName(t)}`} onClick={toggle}>{on ? T.unsubscribe : T.subscribe}</button>}</td>
    </tr>
  );
}

function MakeForm() {
  const form = useForm({ name: "", title: "", visibility: "internal", ack_policy: "any" });
  const submit = form.submit(async (v) => {
    const made = await createTopic({
      name: v.name.trim(), visibility: v.visibility as NonNullable<NewTopic["visibility"]>, ack_policy: v.ack_policy as NonNullable<NewTopic["ack_policy"]>,
      ...(v.title.trim() && { title: v.title.trim() }),
    });
    go(topicPath(made.id));
  });
  return (
    <section class="sec maketopic" aria-labelledby="maketopic-title">
      <header><h2 id="maketopic-title">{T.make}</h2></header>
      <form class="row" onSubmit={submit}>
        <Field form={form} name="name" label={T.name} hint={T.nameHint} mono focus />
        <Field form={form} name="title" label={T.label} hint={T.labelHint} optional />
        <Choice form={form} name="visibility" label={T.visibility} options={VISIBILITIES} />
        <Choice form={form} name="ack_policy" label={T.policy} options={POLICIES} />
        <Submit form={form}>{T.submit}</Submit>
      </form>
    </section>
  );
}
