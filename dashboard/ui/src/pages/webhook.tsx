// One webhook: what it gets, its secrets, whether it arrives.

import { useEffect, useRef, useState } from "preact/hooks";
import { useAsked } from "../lib/ask";
import { held } from "../lib/held";
import { changing, message } from "../lib/api";
import { serverNow } from "../lib/clock";
import { numberIn, useForm } from "../lib/form";
import { day } from "../lib/format";
import { after, useList, type List } from "../lib/list";
import { usePolled } from "../lib/poll";
import { go } from "../lib/route";
import {
  changeWebhook, deleteWebhook, getWebhook, listWebhookDeliveries, replayWebhook, rotateWebhookSecret, testWebhook,
  type Delivery, type Webhook, type WebhookAttempt,
} from "../lib/schema.gen";
import { isAdmin } from "../lib/session";
import { Choice } from "../parts/choice";
import { CopyLine } from "../parts/copyline";
import { Deliveries } from "../parts/deliveries";
import { Pending } from "../parts/fault";
import { Submit } from "../parts/field";
import { Sure } from "../parts/sure";
import { typesOf, WebhookFields, WebhookState } from "./webhooks";

const T = {
  forbidden: "Only admins look after webhooks.",
  notFound: "There is no such webhook.",
  loading: "Asking the server for the webhook.",
  all: "All webhooks",
  state: "State",
  types: "Types",
  q: "Only devices",
  allEvents: "all events",
  topics: "Only topics",
  owner: "Made by",
  secrets: "Secrets",
  signs: "signs",
  until: (t: string) => `signs until ${t}`,
  enable: "Enable",
  disable: "Disable",
  test: "Send a test",
  testing: "Sending",
  delivered: (ms: number, status: number) => `The receiver took it in ${Math.round(ms)} ms and answered ${status}.`,
  failed: (verdict: string, why: string) => `${VERDICTS[verdict] ?? verdict} ${why}`,
  rotate: "New secret",
  overlap: "The old one signs too for",
  once: "This is the new secret. It is shown only now; give it to the receiver.",
  drop: "Delete",
  sure: "Really delete?",
  change: "Change",
  save: "Save",
  deliveries: "Deliveries",
  any: "All",
  none: "Nothing was sent yet.",
  replayDead: "Send all dead again",
  since: "All of the last",
  replay: "Send again",
  replayed: (n: number, more: boolean) => `${n} queued again${more ? ", and there are more: ask again" : ""}.`,
  answer: "How the answer begins",
};

const VERDICTS: Record<string, string> = { again: "It did not arrive, and would be tried again:", gone: "The receiver is gone, and the webhook disabled:", dead: "It can not arrive:" };
const OVERLAPS = [["86400", "a day"], ["3600", "an hour"], ["604800", "a week"], ["0", "no time at all"]] as const;
const SINCE = [["1", "hour"], ["24", "day"], ["168", "week"], ["720", "30 days"]] as const; // in hours
const CHAT = "shoutrrr:"; // begins the URL of a chat service, which verifies no signatures
const STATES = ["", "queued", "sent", "dead"] as const;

const PAGE = 20;
const AGAIN_MS = 5_000; // between two looks at its state and its deliveries

export function WebhookPage({ id }: { id: string }) {
  if (!isAdmin()) return <p>{T.forbidden}</p>;
  return <Loaded id={id} />;
}

function Loaded({ id }: { id: string }) {
  const [fault, setFault] = useState("");
  const asked = useAsked((stop) => getWebhook(id, stop), id, 0, T.notFound);
  const { answer: hook, set: setHook } = asked;
  const later = usePolled((stop) => getWebhook(id, stop), AGAIN_MS);
  if (!hook) return <Pending of={asked} loading={T.loading}><a class="link" href="/webhooks">{T.all}</a></Pending>;
  const act = (run: () => Promise<Webhook | undefined>) => {
    setFault("");
    run().then((w) => w && setHook(w), (e: unknown) => setFault(message(e)));
  };
  return (
    <>
      <Head hook={later && later.updated_at >= hook.updated_at ? later : hook} act={act} fault={fault} />
      {!hook.url.startsWith(CHAT) && <Secrets hook={hook} onChange={setHook} />}
      <Sent hook={hook} />
      <ChangeForm key={hook.updated_at} hook={hook} onChange={setHook} />
    </>
  );
}

function Head({ hook: w, act, fault }: { hook: Webhook; act: (run: () => Promise<Webhook | undefined>) => void; fault: string }) {
  return (
    <section class="dev">
      <h1 class="url">{w.url}</h1>
      {w.description && <p class="sub">{w.description}</p>}
      <dl class="facts few">
        <div><dt>{T.state}</dt><dd><WebhookState of={w} /></dd></div>
        <div><dt>{T.types}</dt><dd class="mono">{w.types.join(" ")}</dd></div>
        <div><dt>{T.q}</dt><dd>{w.q ? <code>{w.q}</code> : T.allEvents}</dd></div>
        {w.topics.length > 0 && <div><dt>{T.topics}</dt><dd class="mono">{w.topics.join(" ")}</dd></div>}
        <div><dt>{T.owner}</dt><dd>{w.owner}</dd></div>
      </dl>
      <div class="ways">
        <Tester hook={w} act={act} />
        <button type="button" class="btn" onClick={() => act(() => changeWebhook(w.id, changing(w, { disabled: !w.disabled })))}>{w.disabled ? T.enable : T.disable}</button>
        <Sure word={T.drop} sure={T.sure} of={w.url} onSure={() => act(() => deleteWebhook(w.id).then(() => (go("/webhooks"), undefined)))} />
      </div>
      <p class="error" role="alert">{fault}</p>
    </section>
  );
}

function Tester({ hook, act }: { hook: Webhook; act: (run: () => Promise<Webhook | undefined>) => void }) {
  const [busy, setBusy] = useState(false);
  const [got, setGot] = useState<WebhookAttempt | null>(null);
  const test = () => {
    setBusy(true);
    setGot(null);
    act(() => testWebhook(hook.id).then((a) => (setGot(a), getWebhook(hook.id))).finally(() => setBusy(false)));
  };
  return (
    <>
      <button type="button" class="btn pri" disabled={busy} onClick={test}>{busy ? T.testing : T.test}</button>
      <div class="tested" role="status">
        {got && <p class={got.delivered ? "ok" : "crit"}>{got.delivered ? T.delivered(got.duration_ms, got.status ?? 0) : T.failed(got.verdict, got.error ?? "")}</p>}
        {got?.response && <pre class="json" tabIndex={0} aria-label={T.answer}>{got.response}</pre>}
      </div>
    </>
  );
}

function Secrets({ hook, onChange }: { hook: Webhook; onChange: (w: Webhook) => void }) {
  const form = useForm({ overlap_s: "86400" });
  const [secret, setSecret] = useState("");
  const submit = form.submit(async (v) => {
    const made = await rotateWebhookSecret(hook.id, { overlap_s: numberIn("overlap_s", v.overlap_s) });
    setSecret(made.secret);
    onChange(made.webhook);
  });
  return (
    <section class="sec secrets" aria-labelledby="secrets-title">
      <header><h2 id="secrets-title">{T.secrets}</h2></header>
      <table class="plain"><tbody>
        {hook.secrets.map((s) => <tr key={s.created_at}><th scope="row">{day(s.created_at)}</th><td>{s.ends_at ? T.until(day(s.ends_at)) : T.signs}</td></tr>)}
      </tbody></table>
      <form class="row" onSubmit={submit}>
        <Choice form={form} name="overlap_s" label={T.overlap} options={OVERLAPS} />
        <Submit form={form}>{T.rotate}</Submit>
      </form>
      {secret && <div class="stack" role="status"><p>{T.once}</p><CopyLine text={secret} label={T.once} /></div>}
    </section>
  );
}

/** Follows the deliveries of a webhook in a state. Nothing moves while the pointer or the focus is in the element that has the ref. */
function useFresh(id: string, state: typeof STATES[number], list: List<Delivery>) {
  const box = useRef<HTMLElement>(null);
  const newest = useRef({ state, list });
  newest.current = { state, list };
  const page = usePolled(async (stop) => {
    const of = newest.current.state;
    return { of, page: await listWebhookDeliveries(id, { limit: PAGE, ...(of && { state: of }) }, stop) };
  }, AGAIN_MS);
  useEffect(() => {
    if (page?.of !== state || !list.items) return;
    newest.current.list.fresh(page.page, (d) => d.id, Boolean(box.current?.querySelector(".outgo:hover, .outgo:focus-within")));
  }, [page]);
  return box;
}

function Sent({ hook }: { hook: Webhook }) {
  const [state, setState] = held("state", STATES);
  const [said, say] = useState("");
  const list = useList<Delivery>((at, stop) => listWebhookDeliveries(hook.id, { limit: PAGE, ...after(at), ...(state && { state }) }, stop), state);
  const box = useFresh(hook.id, state, list);
  const form = useForm({ since: "1" });
  const replay = (hours: number) => form.submit(async () => {
    const done = await replayWebhook(hook.id, hours ? { since: new Date(serverNow() - hours * 3_600_000).toISOString() } : {});
    say(T.replayed(done.requeued, done.more));
    list.reload();
  });
  return (
    <section ref={box} class="sec sent" aria-labelledby="sent-title">
      <header>
        <h2 id="sent-title">{T.deliveries}</h2>
        <div class="r tabs" role="group" aria-label={T.state}>{STATES.map((s) => <button key={s} type="button" aria-pressed={s === state} onClick={() => setState(s)}>{s || T.any}</button>)}</div>
      </header>
      <Deliveries list={list} nameOf={() => hook.url} none={T.none} again={(d) => replayWebhook(hook.id, { ids: [d.id] })} />
      <form class="row" onSubmit={replay(Number(form.values.since))}>
        <Choice form={form} name="since" label={T.since} options={SINCE} />
        <Submit form={form}>{T.replay}</Submit>
        <button type="button" class="btn" disabled={form.busy} onClick={replay(0)}>{T.replayDead}</button>
        <p role="status">{said}</p>
      </form>
    </section>
  );
}

function ChangeForm({ hook: w, onChange }: { hook: Webhook; onChange: (w: Webhook) => void }) {
  const form = useForm({ url: w.url, types: w.types.join(" "), q: w.q, topics: w.topics.join(" "), description: w.description });
  const submit = form.submit(async (v) => {
    const url = v.url.trim(); // of a chat service its name only is known here
    const body = { ...(url !== w.url && { url }), types: typesOf(v.types), q: v.q.trim(), topics: typesOf(v.topics), description: v.description.trim() };
    onChange(await changeWebhook(w.id, changing(w, body)));
  });
  return (
    <section class="sec changewebhook" aria-labelledby="change-title">
      <header><h2 id="change-title">{T.change}</h2></header>
      <form class="row" onSubmit={submit}>
        <WebhookFields form={form} />
        <Submit form={form}>{T.save}</Submit>
      </form>
    </section>
  );
}
