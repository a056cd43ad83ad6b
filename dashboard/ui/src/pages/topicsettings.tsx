// What owners change of a topic: its words, who sees it, events, escalation, templates.

import { useState } from "preact/hooks";
import { changing, message } from "../lib/api";
import { numberIn, useForm } from "../lib/form";
import { go } from "../lib/route";
import {
  changeTopic, deleteTopic, previewTemplate, type ChangedTopic, type Preview, type Topic, type TopicEscalation, type TopicSource, type TopicStep, type TopicTemplate,
} from "../lib/schema.gen";
import { may } from "../lib/session";
import { topicName } from "../lib/topics";
import { Area, Choice } from "../parts/choice";
import { Field, Submit } from "../parts/field";
import { Rows, rowsOf, rowsText, type Column, type Row } from "../parts/rows";
import { SEVERITIES } from "../parts/severity";
import { Sure } from "../parts/sure";
import { POLICIES, VISIBILITIES } from "./topics";

const T = {
  title: "Settings",
  forbidden: "Changing topics needs the role operator.",
  label: "Title",
  description: "Description",
  visibility: "Who sees it",
  policy: "Ack",
  policyHint: "Of what is sent from now on",
  status: "Status",
  retention: "Kept for, in days",
  devices: "Devices that may publish",
  devicesHint: "A device query; empty for none",
  sources: "Events that become notifications",
  sourcesHint: "Types with spaces between: presence.offline, command.*. What is over by another event is told to be: presence.online.",
  types: "Types",
  query: "Only devices",
  severity: "Severity",
  clears: "Over by",
  words: "Title",
  addSource: "Add events",
  escalation: "Who is told next while nobody acks",
  escalationHint: "Each step after the one before it, to the ids of users, usr_..., with spaces between.",
  minutes: "After minutes",
  who: "Users",
  by: "By",
  addStep: "Add a step",
  repeat: "The last step again, times",
  save: "Save",
  drop: "Delete the topic",
  sure: "Really delete it, with all members and subscriptions?",
  templates: "Templates",
  templatesHow: "How mails and webhooks are worded; Muster's own words where they are empty.",
  subject: "Subject of mails",
  text: "Text of mails",
  webhook: "Body of webhooks",
  webhookHint: "Makes JSON",
  preview: "Preview",
};

const STATUSES = [["active", "active"], ["inactive", "inactive: nothing can be sent"]] as const;
const DAY_S = 86_400;

export function TopicSettings({ topic, onChange }: { topic: Topic; onChange: () => void }) {
  const [fault, setFault] = useState("");
  if (!may("topics:write")) return <p class="hint">{T.forbidden}</p>;
  const drop = () => void deleteTopic(topic.id).then(() => go("/topics"), (e: unknown) => setFault(message(e)));
  return (
    <>
      <section class="sec settings" aria-labelledby="settings-title">
        <header><h2 id="settings-title">{T.title}</h2><div class="r"><Sure word={T.drop} sure={T.sure} of={topicName(topic)} onSure={drop} /></div></header>
        <p class="error" role="alert">{fault}</p>
        <Settings topic={topic} onChange={onChange} />
      </section>
      <Templates topic={topic} onChange={onChange} />
    </>
  );
}

type Name = "title" | "description" | "visibility" | "ack_policy" | "status" | "retention_s" | "devices" | "sources" | "escalation" | "repeat";

const SOURCE: readonly Column[] = [
  { key: "types", label: T.types, mono: true }, { key: "q", label: T.query, mono: true }, { key: "severity", label: T.severity, options: SEVERITIES.map((s) => [s, s] as const) },
  { key: "clears", label: T.clears, mono: true }, { key: "title", label: T.words },
];
const STEP: readonly Column[] = [
  { key: "after", label: T.minutes }, { key: "to", label: T.who, mono: true }, { key: "channels", label: T.by, options: [["", "inbox"], ["email", "inbox and e-mail"]] },
];

const listOf = (text: string | undefined) => (text ?? "").split(/[\s,]+/).filter(Boolean);

function sourceRow(s: TopicSource): Row {
  return { types: s.types.join(" "), q: s.q ?? "", severity: s.severity, clears: s.clears?.join(" ") ?? "", title: s.title ?? "" };
}

function sourceOf(r: Row): TopicSource {
  const clears = listOf(r["clears"]);
  return {
    types: listOf(r["types"]), severity: r["severity"] as TopicSource["severity"], ...(r["q"]?.trim() && { q: r["q"].trim() }), ...(clears.length > 0 && { clears }),
    ...(r["title"]?.trim() && { title: r["title"].trim() }),
  };
}

function stepRow(s: TopicStep): Row {
  return { after: String(s.after_s / 60), to: s.to.join(" "), channels: s.channels?.join(" ") ?? "" };
}

function escalationOf(steps: string, repeat: string): TopicEscalation {
  const rows = rowsOf(steps).map((r, i) => ({ after_s: Math.round(numberIn(`escalation/${i}/after`, r["after"] ?? "", true) * 60), to: listOf(r["to"]), channels: listOf(r["channels"]) }));
  const again = rows.length > 0 ? numberIn("repeat", repeat || "0") : 0;
  return { steps: rows as TopicStep[], ...(again > 0 && { repeat: again }) };
}

function Settings({ topic: t, onChange }: { topic: Topic; onChange: () => void }) {
  const first: Record<Name, string> = {
    title: t.title, description: t.description, visibility: t.visibility, ack_policy: t.ack_policy, status: t.status, retention_s: String(t.retention_s / DAY_S),
    devices: t.devices ?? "", sources: rowsText((t.sources ?? []).map(sourceRow)), escalation: rowsText((t.escalation?.steps ?? []).map(stepRow)), repeat: String(t.escalation?.repeat ?? 0),
  };
  const form = useForm<Name>(first);
  const submit = form.submit(async (v) => {
    await changeTopic(t.id, changing(t, changes(first, v)));
    onChange();
  });
  return (
    <form class="stack" onSubmit={submit}>
      <div class="row">
        <Field form={form} name="title" label={T.label} optional />
        <Field form={form} name="description" label={T.description} optional />
        <Choice form={form} name="visibility" label={T.visibility} options={VISIBILITIES} />
        <Choice form={form} name="ack_policy" label={T.policy} hint={T.policyHint} options={POLICIES} />
        <Choice form={form} name="status" label={T.status} options={STATUSES} />
        <Field form={form} name="retention_s" label={T.retention} />
        <Field form={form} name="devices" label={T.devices} hint={T.devicesHint} mono optional />
      </div>
      <Rows form={form} name="sources" legend={T.sources} hint={T.sourcesHint} columns={SOURCE} fresh={{ severity: "warning" }} add={T.addSource} />
      <Rows form={form} name="escalation" legend={T.escalation} hint={T.escalationHint} columns={STEP} fresh={{ after: "5", channels: "email" }} add={T.addStep} />
      {form.values.escalation && <div class="row"><Field form={form} name="repeat" label={T.repeat} /></div>}
      <Submit form={form}>{T.save}</Submit>
    </form>
  );
}

/** What is otherwise than it was, as the API takes it. */
function changes(first: Record<Name, string>, v: Record<Name, string>): ChangedTopic {
  const body: Record<string, unknown> = {};
  for (const name of Object.keys(first) as Name[]) {
    if (v[name] !== first[name]) body[name === "repeat" ? "escalation" : name] = valueOf(name, v);
  }
  return body as ChangedTopic;
}

function valueOf(name: Name, v: Record<Name, string>): unknown {
  switch (name) {
    case "retention_s":
      return Math.round(numberIn(name, v[name], true) * DAY_S);
    case "sources":
      return rowsOf(v[name]).map(sourceOf);
    case "escalation":
    case "repeat":
      return escalationOf(v.escalation, v.repeat);
    default:
      return v[name].trim();
  }
}

function Templates({ topic, onChange }: { topic: Topic; onChange: () => void }) {
  const old = topic.template ?? {};
  const form = useForm({ "template/mail_subject": old.mail_subject ?? "", "template/mail_text": old.mail_text ?? "", "template/webhook": old.webhook ?? "" });
  const [seen, setSeen] = useState<Preview | null>(null);
  const template = (v: typeof form.values): TopicTemplate => ({ mail_subject: v["template/mail_subject"], mail_text: v["template/mail_text"], webhook: v["template/webhook"] });
  const preview = form.submit(async (v) => setSeen(await previewTemplate({ template: template(v) })));
  const save = form.submit(async (v) => {
    await changeTopic(topic.id, changing(topic, { template: template(v) }));
    onChange();
  });
  return (
    <section class="sec templates" aria-labelledby="templates-title">
      <header><h2 id="templates-title">{T.templates}</h2><p class="long">{T.templatesHow}</p></header>
      <form class="stack" onSubmit={save}>
        <Field form={form} name="template/mail_subject" label={T.subject} mono optional />
        <Area form={form} name="template/mail_text" label={T.text} rows={5} mono />
        <Area form={form} name="template/webhook" label={T.webhook} hint={T.webhookHint} rows={3} mono />
        <div class="ways"><Submit form={form}>{T.save}</Submit><button type="button" class="btn" disabled={form.busy} onClick={preview}>{T.preview}</button></div>
      </form>
      {seen && (
        <div class="seen" role="status">
          <p><strong>{seen.mail_subject}</strong></p>
          <pre class="json" tabIndex={0} aria-label={T.text}>{seen.mail_text}</pre>
          {seen.webhook !== undefined && <pre class="json" tabIndex={0} aria-label={T.webhook}>{JSON.stringify(seen.webhook, null, 2)}</pre>}
        </div>
      )}
    </section>
  );
}
