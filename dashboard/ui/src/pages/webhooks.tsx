// Webhooks: where events are sent. For admins.

import { useEffect, useState } from "preact/hooks";
import { message } from "../lib/api";
import { useForm, type Form } from "../lib/form";
import { day } from "../lib/format";
import { after, useList, type List } from "../lib/list";
import { createWebhook, listEventTypes, listWebhooks, type EventType, type Webhook } from "../lib/schema.gen";
import { isAdmin } from "../lib/session";
import { CopyLine } from "../parts/copyline";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Scroll } from "../parts/scroll";

const T = {
  title: "Webhooks",
  how: "Events sent to other systems, signed as Standard Webhooks has it.",
  forbidden: "Only admins look after webhooks.",
  make: "Make a webhook",
  url: "URL",
  types: "Types of events",
  typesHint: "With spaces between: exact ones, families such as device.*, or *",
  q: "Only devices",
  qHint: "A device query; empty for all events",
  topics: "Only topics",
  topicsHint: "Of notifications: names of topics with spaces between, worded as each topic's template has it; empty for all",
  description: "Description",
  submit: "Make the webhook",
  once: "This is its secret. It is shown only now; give it to the receiver.",
  none: "There is no webhook yet.",
  state: "State",
  since: "Changed",
  more: "More",
  enabled: "enabled",
  disabled: "disabled",
  noEvents: "gets no events",
  choose: "Add a type",
};

export function webhookPath(id: string): string {
  return "/webhooks/" + encodeURIComponent(id);
}

/** The types, or names, in a field: with spaces or commas between. */
export function typesOf(text: string): string[] {
  return text.split(/[\s,]+/).filter(Boolean);
}

export function WebhooksPage() {
  if (!isAdmin()) return <p>{T.forbidden}</p>;
  return <Webhooks />;
}

function Webhooks() {
  const list = useList<Webhook>((at, stop) => listWebhooks(after(at), stop));
  return (
    <>
      <section class="sec webhooks" aria-labelledby="webhooks-title">
        <header><h1 id="webhooks-title">{T.title}</h1><p class="long">{T.how}</p></header>
        <Fault of={list} />
        {list.items?.length === 0 && <p class="quiet-note">{T.none}</p>}
        {list.items && list.items.length > 0 && <Table items={list.items} />}
        {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
      </section>
      <MakeForm list={list} />
    </>
  );
}

function Table({ items }: { items: Webhook[] }) {
  return (
    <Scroll labelledby="webhooks-title">
      <table class="plain">
        <thead><tr><th scope="col">{T.url}</th><th scope="col">{T.types}</th><th scope="col">{T.state}</th><th scope="col">{T.since}</th></tr></thead>
        <tbody>
          {items.map((w) => (
            <tr key={w.id}>
              <th scope="row"><a class="to" href={webhookPath(w.id)}>{w.url}</a> {w.description && <small>{w.description}</small>}</th>
              <td class="mono">{w.types.join(" ")}</td>
              <td><WebhookState of={w} /></td>
              <td>{day(w.updated_at)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

export function WebhookState({ of: w }: { of: Webhook }) {
  if (w.disabled) return <><span class="off">{T.disabled}</span> {w.reason && <small>{w.reason}</small>}</>;
  if (w.problem) return <><span class="warn">{T.noEvents}</span> <small>{w.problem}</small></>;
  return <span class="ok">{T.enabled}</span>;
}

/** The fields that say what a webhook gets. */
export function WebhookFields({ form }: { form: Form<"url" | "types" | "q" | "topics" | "description"> }) {
  const [types, setTypes] = useState<EventType[]>([]);
  useEffect(() => {
    const stop = new AbortController();
    listEventTypes(stop.signal).then((p) => setTypes(p.items), (e: unknown) => stop.signal.aborted || form.refuse("types", message(e)));
    return () => stop.abort();
  }, []);
  const add = (t: string) => form.set("types", [...new Set([...typesOf(form.values.types), t])].join(" "));
  return (
    <>
      <Field form={form} name="url" label={T.url} mono />
      <div>
        <Field form={form} name="types" label={T.types} hint={T.typesHint} mono />
        <select class="addtype" aria-label={T.choose} value="" onChange={(e) => e.currentTarget.value && add(e.currentTarget.value)}>
          <option value="">{T.choose}</option>
          {types.map((t) => <option key={t.type} value={t.type} disabled={t.reserved}>{t.type}: {t.summary}</option>)}
        </select>
      </div>
      <Field form={form} name="q" label={T.q} hint={T.qHint} mono optional />
      <Field form={form} name="topics" label={T.topics} hint={T.topicsHint} mono optional />
      <Field form={form} name="description" label={T.description} optional />
    </>
  );
}

function MakeForm({ list }: { list: List<Webhook> }) {
  const form = useForm({ url: "", types: "", q: "", topics: "", description: "" });
  const [secret, setSecret] = useState("");
  const submit = form.submit(async (v) => {
    setSecret("");
    const made = await createWebhook({
      url: v.url.trim(), types: typesOf(v.types), topics: typesOf(v.topics), ...(v.q.trim() && { q: v.q.trim() }), ...(v.description.trim() && { description: v.description.trim() }),
    });
    setSecret(made.secret);
    form.clear();
    list.reload();
  });
  return (
    <section class="sec makewebhook" aria-labelledby="makewebhook-title">
      <header><h2 id="makewebhook-title">{T.make}</h2></header>
      <form class="row" onSubmit={submit}>
        <WebhookFields form={form} />
        <Submit form={form}>{T.submit}</Submit>
      </form>
      {secret && <div class="stack" role="status"><p>{T.once}</p><CopyLine text={secret} label={T.once} /></div>}
    </section>
  );
}
