// One's own subscription to a topic: what goes out beside the inbox, and when.

import { useState } from "preact/hooks";
import { now } from "../lib/clock";
import { useForm } from "../lib/form";
import { absolute } from "../lib/format";
import { putSubscription, testEmail, type Topic, type Via } from "../lib/schema.gen";
import { me } from "../lib/session";
import { undoable, unsubscribe, wantedOf } from "../lib/leave";
import { topicName } from "../lib/topics";
import { Choice } from "../parts/choice";
import { Field, Submit } from "../parts/field";
import { SEVERITIES } from "../parts/severity";

const T = {
  title: "Your subscription",
  none: "You are not subscribed: nothing of this topic comes to you.",
  inbox: "Everything comes to your inbox. What goes out beside it:",
  subscribe: "Subscribe",
  unsubscribe: "Unsubscribe",
  email: "E-mail",
  unconfirmed: "Your e-mail address is not confirmed yet.",
  confirm: "Confirm it",
  severity: "From this severity on",
  digest: "At most one mail",
  quiet: "Quiet hours",
  quietHint: "What comes then waits for their end.",
  from: "From",
  to: "Until",
  clock: "hh:mm",
  zone: "Time zone",
  except: "All the same",
  mute: "Mute",
  mutedUntil: (t: string) => `Muted until ${t}: the inbox fills all the same.`,
  muted: (topic: string) => `${topic} is muted.`,
  unmuted: (topic: string) => `${topic} is not muted any more.`,
  save: "Save",
  saved: "Saved.",
  test: "Mail me a test",
  tested: "The mail server took it.",
};

const LEVELS = SEVERITIES.map((s) => [s, s === "info" ? "info (everything)" : s] as const);
const EXCEPT = [...SEVERITIES.slice(1).map((s) => [s, `${s} and above`] as const), ["none", "nothing"] as const];
const DIGESTS = [["0", "for each notification"], ["300", "in 5 minutes"], ["900", "in 15 minutes"], ["3600", "in an hour"], ["86400", "in a day"]] as const;
const MUTES = [["keep", "as it is"], ["0", "not muted"], ["1", "for an hour"], ["8", "for 8 hours"], ["24", "for a day"], ["168", "for a week"]] as const;
const HOUR_MS = 3_600_000;

/** The form's fields; those of the channel are called as the API's errors point at them. */
const C = "channels/0";

export function SubscriptionForm({ topic, onChange }: { topic: Topic; onChange: () => void }) {
  const [fault, setFault] = useState("");
  const act = (run: () => Promise<unknown>) => () => {
    setFault("");
    run().then(onChange, (e: Error) => setFault(e.message));
  };
  const on = topic.subscription !== undefined;
  return (
    <section class="sec subscription" aria-labelledby="subscription-title">
      <header>
        <h2 id="subscription-title">{T.title}</h2>
        <div class="r">
          {on ? <button type="button" class="btn" onClick={act(() => unsubscribe(topic, onChange))}>{T.unsubscribe}</button>
            : <button type="button" class="btn pri" onClick={act(() => putSubscription(topic.id, "me", {}))}>{T.subscribe}</button>}
        </div>
      </header>
      <p class="error" role="alert">{fault}</p>
      {on ? <Outward topic={topic} onChange={onChange} /> : <p class="quiet-note">{T.none}</p>}
    </section>
  );
}

function first(via: Via | undefined) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const q = via?.quiet;
  return {
    channels: via ? "on" : "", [`${C}/severity`]: via?.severity ?? "warning", [`${C}/digest_s`]: String(via?.digest_s ?? 0), quiet: q ? "on" : "",
    [`${C}/quiet/from`]: q?.from ?? "22:00", [`${C}/quiet/to`]: q?.to ?? "07:00", [`${C}/quiet/zone`]: q?.zone ?? zone, [`${C}/quiet/except`]: q?.except ?? "critical", muted_until: "keep",
  } as Record<Name, string>;
}

type Name = "channels" | "quiet" | "muted_until" | `${typeof C}/${"severity" | "digest_s" | `quiet/${"from" | "to" | "zone" | "except"}`}`;

function viaOf(v: Record<Name, string>, old: Via | undefined): Via {
  const days = old?.quiet?.days;
  return {
    channel: "email", severity: v[`${C}/severity`] as NonNullable<Via["severity"]>, digest_s: Number(v[`${C}/digest_s`]),
    ...(v.quiet && {
      quiet: {
        from: v[`${C}/quiet/from`], to: v[`${C}/quiet/to`], zone: v[`${C}/quiet/zone`].trim(), except: v[`${C}/quiet/except`] as "critical",
        ...(days && { days }),
      },
    }),
  };
}

function Outward({ topic, onChange }: { topic: Topic; onChange: () => void }) {
  const s = topic.subscription;
  const mail = s?.channels?.find((c) => c.channel === "email");
  const others = s?.channels?.filter((c) => c.channel !== "email") ?? [];
  const form = useForm<Name>(first(mail));
  const [said, say] = useState("");
  const muted = s?.muted_until && Date.parse(s.muted_until) > now.value ? s.muted_until : "";
  const submit = form.submit(async (v) => {
    say("");
    const hours = Number(v.muted_until);
    const until = v.muted_until === "keep" ? muted : hours ? new Date(now.peek() + hours * HOUR_MS).toISOString() : "";
    await putSubscription(topic.id, "me", { channels: [...(v.channels ? [viaOf(v, mail)] : []), ...others], ...(until && { muted_until: until }) });
    say(T.saved);
    onChange();
    if (s && v.muted_until !== "keep") undoable(topic, wantedOf(s), hours ? T.muted(topicName(topic)) : T.unmuted(topicName(topic)), onChange);
  });
  const test = form.submit(async () => {
    const { attempt, delivered } = await testEmail();
    say(delivered ? T.tested : attempt.error ?? attempt.verdict);
  });
  const confirmed = me.value?.user?.confirmed ?? false;
  const check = (name: "channels" | "quiet", word: string) => (
    <label class="check"><input type="checkbox" name={name} checked={form.values[name] !== ""} disabled={!confirmed && form.values[name] === ""} onChange={(e) => form.set(name, e.currentTarget.checked ? "on" : "")} /> {word}</label>
  );
  return (
    <form class="stack" onSubmit={submit}>
      <p>{T.inbox}</p>
      <fieldset>
        <legend class="vh">{T.email}</legend>
        {check("channels", T.email)}
        {!confirmed && <span class="hint">{T.unconfirmed} <a class="link" href="/account">{T.confirm}</a></span>}
        <p class="error" role="alert">{form.faults.channels}</p>
      </fieldset>
      {form.values.channels && (
        <div class="row">
          <Choice form={form} name={`${C}/severity`} label={T.severity} options={LEVELS} />
          <Choice form={form} name={`${C}/digest_s`} label={T.digest} options={DIGESTS} />
        </div>
      )}
      {form.values.channels && <fieldset>{check("quiet", T.quiet)} <span class="hint">{T.quietHint}</span></fieldset>}
      {form.values.channels && form.values.quiet && (
        <div class="row">
          <Field form={form} name={`${C}/quiet/from`} label={T.from} hint={T.clock} mono />
          <Field form={form} name={`${C}/quiet/to`} label={T.to} hint={T.clock} mono />
          <Field form={form} name={`${C}/quiet/zone`} label={T.zone} />
          <Choice form={form} name={`${C}/quiet/except`} label={T.except} options={EXCEPT} />
        </div>
      )}
      <div class="row">
        <Choice form={form} name="muted_until" label={T.mute} options={MUTES} hint={muted ? T.mutedUntil(absolute(Date.parse(muted))) : ""} />
        <Submit form={form}>{T.save}</Submit>
        {mail && <button type="button" class="btn" disabled={form.busy} onClick={test}>{T.test}</button>}
        <p role="status">{said}</p>
      </div>
    </form>
  );
}
