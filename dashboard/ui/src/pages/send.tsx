// Sending a notification to a topic, to all of its subscribers or to some of them.

import { useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { count, plural } from "../lib/format";
import { useList } from "../lib/list";
import { listTopicSubscriptions, sendNotification, type NewNotification, type SentNotification, type Subscription, type Topic } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Area, Choice } from "../parts/choice";
import { Field, Submit } from "../parts/field";
import { SEVERITIES } from "../parts/severity";

const T = {
  title: "Send",
  forbidden: "Sending needs the role operator.",
  subject: "Title",
  severity: "Severity",
  priority: "Priority",
  body: "Text",
  link: "Link",
  linkHint: "http:// or https://",
  device: "About the device",
  key: "Dedup key",
  keyHint: "While one with this key is open, it is counted up and nobody is told anew",
  data: "Data",
  dataHint: "A JSON object, for programs",
  notJSON: "This is not a JSON object.",
  whom: "To",
  everybody: "All subscribers",
  nobody: "Nobody is subscribed: it would be kept, and reach no inbox.",
  preview: (n: number, who: string) => `${plural(n, "recipient", "recipients")}: ${who}`,
  others: (n: number) => ` and ${count(n)} more`,
  more: "expand",
  fewer: "Fewer fields",
  further: "More fields",
  submit: "Send",
  sent: (n: number) => `Sent to ${plural(n, "inbox", "inboxes")}.`,
  counted: (n: number) => `One with this key is open: it was counted up, to ${count(n)}.`,
  missed: (who: string) => `Not subscribed: ${who}.`,
};

const PRIORITIES = [["", "as the severity says"], ["urgent", "urgent"], ["normal", "normal"], ["bulk", "bulk"]] as const;
const SHOWN = 8; // names in the preview
const MOST = 100; // subscribers that can be chosen from

export function SendForm({ topic, onSent }: { topic: Topic; onSent: () => void }) {
  const form = useForm({ title: "", severity: "info", priority: "", body: "", link: "", device: "", dedup_key: "", data: "", to: "" });
  const list = useList<Subscription>((_, stop) => listTopicSubscriptions(topic.id, { limit: MOST }, stop), String(topic.subscribers));
  const [chosen, setChosen] = useState<readonly string[]>([]);
  const [further, setFurther] = useState(false);
  const [answer, setAnswer] = useState<SentNotification | null>(null);
  const submit = form.submit(async (v) => {
    setAnswer(null);
    const data = v.data.trim() ? objectOf(v.data) : undefined;
    if (data === null) return form.refuse("data", T.notJSON);
    setAnswer(await sendNotification(messageOf(topic, v, chosen, data)));
    form.clear();
    onSent();
  });
  if (!may("notify:send")) return null;
  return (
    <section class="sec send" aria-labelledby="send-title">
      <header><h2 id="send-title">{T.title}</h2></header>
      <form class="stack" onSubmit={submit}>
        <div class="row">
          <Field form={form} name="title" label={T.subject} />
          <Choice form={form} name="severity" label={T.severity} options={SEVERITIES.map((s) => [s, s] as const)} />
        </div>
        <Area form={form} name="body" label={T.body} rows={2} />
        {further && (
          <div class="row">
            <Choice form={form} name="priority" label={T.priority} options={PRIORITIES} />
            <Field form={form} name="link" label={T.link} hint={T.linkHint} optional />
            <Field form={form} name="device" label={T.device} mono optional />
            <Field form={form} name="dedup_key" label={T.key} hint={T.keyHint} optional />
            <Area form={form} name="data" label={T.data} hint={T.dataHint} mono />
          </div>
        )}
        <Recipients all={list.items ?? []} total={topic.subscribers} chosen={chosen} choose={setChosen} />
        <p class="error" role="alert">{form.faults.to}{list.fault}</p>
        <div class="ways">
          <Submit form={form}>{T.submit}</Submit>
          <button type="button" class="btn txt" aria-expanded={further} onClick={() => setFurther(!further)}>{further ? T.fewer : T.further}</button>
        </div>
        <p role="status">{answer && said(answer, list.items ?? [])}</p>
      </form>
    </section>
  );
}

function objectOf(text: string): object | null {
  try {
    const v: unknown = JSON.parse(text);
    return typeof v === "object" && !Array.isArray(v) ? v : null;
  } catch {
    return null;
  }
}

function messageOf(topic: Topic, v: Record<"title" | "severity" | "priority" | "body" | "link" | "device" | "dedup_key", string>, to: readonly string[], data: object | undefined): NewNotification {
  return {
    topic: topic.id, title: v.title.trim(), severity: v.severity as NonNullable<NewNotification["severity"]>,
    ...(v.body.trim() && { body: v.body.trim() }), ...(v.priority && { priority: v.priority as NonNullable<NewNotification["priority"]> }),
    ...(v.link.trim() && { link: v.link.trim() }), ...(v.device.trim() && { device: v.device.trim() }), ...(v.dedup_key.trim() && { dedup_key: v.dedup_key.trim() }),
    ...(data && { data }), ...(to.length > 0 && { to: [...to] }),
  };
}

function nameIn(all: Subscription[], subject: string): string {
  return all.find((s) => s.subject === subject)?.name || subject;
}

function said(a: SentNotification, all: Subscription[]): string {
  const words = [a.duplicate ? T.counted(a.notification.count) : T.sent(a.recipients)];
  if (a.not_subscribed.length > 0) words.push(T.missed(a.not_subscribed.map((s) => nameIn(all, s)).join(", ")));
  return words.join(" ");
}

/** Who gets it, as it would be sent now; and a choice among them. */
function Recipients({ all, total, chosen, choose }: { all: Subscription[]; total: number; chosen: readonly string[]; choose: (to: readonly string[]) => void }) {
  if (total === 0) return <p class="warn">{T.nobody}</p>;
  const whom = chosen.length > 0 ? chosen : all.map((s) => s.subject);
  const n = chosen.length || total;
  const names = whom.slice(0, SHOWN).map((s) => nameIn(all, s)).join(", ");
  const toggle = (s: string) => choose(chosen.includes(s) ? chosen.filter((x) => x !== s) : [...chosen, s]);
  return (
    <>
      <fieldset>
        <legend>{T.whom}</legend>
        <label class="check"><input type="checkbox" checked={chosen.length === 0} onChange={() => choose([])} /> {T.everybody}</label>
        {all.map((s) => <label key={s.subject} class="check"><input type="checkbox" checked={chosen.includes(s.subject)} onChange={() => toggle(s.subject)} /> {s.name || s.subject}</label>)}
      </fieldset>
      <p class="preview">{T.preview(n, names)}{n > SHOWN && T.others(n - SHOWN)}</p>
    </>
  );
}
