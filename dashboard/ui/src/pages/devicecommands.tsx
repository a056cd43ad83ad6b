// The tab Commands of a device: send one, and follow each through its four steps.

import { useEffect, useRef, useState } from "preact/hooks";
import { message } from "../lib/api";
import { now } from "../lib/clock";
import type { DeviceModel } from "../lib/device";
import { useForm } from "../lib/form";
import { ago, duration } from "../lib/format";
import { parsed, pretty } from "../lib/json";
import { useList } from "../lib/list";
import { useNames } from "../lib/people";
import { cancelCommand, getCommand, listCommands, sendCommand, type CommandBody } from "../lib/schema.gen";
import { may } from "../lib/session";
import { offer } from "../lib/undo";
import { Area } from "../parts/choice";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";

const T = {
  send: "Send a command",
  method: "Method", methodHint: "what to do, as the device calls it: led/set",
  params: "Params", paramsHint: "any JSON; {} when empty",
  ttl: "Expires after, in seconds", ttlHint: "a day when empty; it counts from now until the command is finished",
  go: "Send",
  forbidden: "Needs the role operator or the scope commands:send.",
  title: "Commands",
  note: "the newest first",
  none: "No command was sent to this device yet.",
  cancel: "Cancel", again: "Send again",
  of: (c: CommandBody) => `${c.method}, command ${c.id}`,
  by: (who: string) => `by ${who}`,
  result: "Result", error: "Error", late: "Reported when it was over", details: "Params and answer",
  more: "Older",
  queued: (c: CommandBody) => `${c.method} is queued for ${c.device}.`,
  tooLate: (c: CommandBody) => `Too late: ${c.method} was sent to ${c.device}.`,
  over: (c: CommandBody) => `Too late: ${c.method} is over, ${WORDS[c.state]}.`,
  wasCancelled: (c: CommandBody) => `${c.method} was called off.`,
  back: (c: CommandBody) => `${c.method} was called off before it was sent to ${c.device}.`,
  mayHave: (c: CommandBody) => `${c.method} is called off, but it was sent before: ${c.device} may have it.`,
  notJSON: (why: string) => `This is not JSON: ${why}`,
  ttlBad: "A whole number from 1 to 2592000.",
};

const STEPS = ["queued", "sent", "reached", "done"] as const;

const WORDS: Record<CommandBody["state"], string> = {
  queued: "queued, waits for the device", sent: "sent", delivered: "reached the device", accepted: "accepted by the device", progress: "under way",
  succeeded: "done", failed: "failed", expired: "expired", cancelled: "cancelled",
};

type Fields = "method" | "params" | "ttl";
const EMPTY: Record<Fields, string> = { method: "", params: "", ttl: "" };

export function CommandsTab({ model, focus }: { model: DeviceModel; focus: number }) {
  const list = useList<CommandBody>((at, stop) => listCommands(model.id, { limit: 50, ...(at.cursor && { after: at.cursor }) }, stop), "", model.news.value);
  const [again, setAgain] = useState<{ of: CommandBody; n: number } | null>(null);
  const allowed = may("commands:send");
  const nameOf = useNames((list.items ?? []).map((c) => c.created_by));
  return (
    <>
      <SendForm key={again?.n ?? 0} id={model.id} allowed={allowed} focus={focus} first={again ? { method: again.of.method, params: pretty(again.of.params), ttl: "" } : EMPTY} onSent={list.reload} />
      <section class="sec" aria-labelledby="commands-title">
        <header><h2 id="commands-title">{T.title}</h2><p>{T.note}</p></header>
        <Fault of={list} />
        {list.items?.length === 0 && <p class="quiet-note">{T.none}</p>}
        <ul class="commands">
          {list.items?.map((c) => (
            <Command key={c.id} c={c} by={nameOf(c.created_by)} allowed={allowed} onCancel={() => void list.run(() => cancelCommand(model.id, c.id))} onAgain={() => setAgain({ of: c, n: (again?.n ?? 0) + 1 })} />
          ))}
        </ul>
        {list.more && <button type="button" class="btn more" onClick={list.more}>{T.more}</button>}
      </section>
    </>
  );
}

function SendForm({ id, allowed, focus, first, onSent }: { id: string; allowed: boolean; focus: number; first: Record<Fields, string>; onSent: () => void }) {
  const form = useForm<Fields>(first);
  const el = useRef<HTMLFormElement>(null);
  useEffect(() => {
    if (focus > 0 || first.method) el.current?.querySelector("input")?.focus();
  }, [focus]);
  const send = async (v: Record<Fields, string>) => {
    let params: unknown;
    try {
      params = parsed(v.params, {});
    } catch (e) {
      return form.refuse("params", T.notJSON(message(e)));
    }
    const ttl = v.ttl.trim() === "" ? 0 : Number(v.ttl);
    if (v.ttl.trim() !== "" && !(Number.isInteger(ttl) && ttl >= 1)) return form.refuse("ttl", T.ttlBad);
    const sent = await sendCommand(id, { method: v.method.trim(), params, ...(ttl > 0 && { ttl_s: ttl }) });
    form.clear();
    onSent();
    offer({ words: T.queued(sent), gone: () => getCommand(id, sent.id).then(tooLate), run: () => takeBack(sent).finally(onSent) });
  };
  return (
    <section class="sec" aria-labelledby="send-title">
      <header><h2 id="send-title">{T.send}</h2></header>
      <form ref={el} class="stack sendform" onSubmit={form.submit(send)}>
        <fieldset disabled={!allowed} class="row">
          <Field form={form} name="method" label={T.method} hint={T.methodHint} mono />
          <Field form={form} name="ttl" label={T.ttl} hint={T.ttlHint} optional />
          <Area form={form} name="params" label={T.params} hint={T.paramsHint} rows={3} mono />
        </fieldset>
        {allowed ? <Submit form={form}>{T.go}</Submit> : <p class="hint">{T.forbidden}</p>}
      </form>
    </section>
  );
}

/** Why a command can not be taken back any more; empty while it can. */
function tooLate(c: CommandBody): string {
  if (c.state === "queued") return "";
  if (c.state === "cancelled") return T.wasCancelled(c);
  return c.finished_at ? T.over(c) : T.tooLate(c);
}

/** Calls off a command that was not sent yet. A device that has it is not told when it is called off: then it is left alone. */
async function takeBack({ device, id }: CommandBody): Promise<string> {
  const why = tooLate(await getCommand(device, id));
  if (why) return why;
  const c = await cancelCommand(device, id);
  return c.sent_at || c.attempts > 0 ? T.mayHave(c) : T.back(c);
}

/** How many steps are behind a command. */
function reached(c: CommandBody): number {
  switch (c.state) {
    case "queued":
      return 1;
    case "sent":
      return 2;
    case "delivered":
    case "accepted":
    case "progress":
      return 3;
    case "succeeded":
      return 4;
    default:
      return c.accepted_at || c.progress_at || c.delivered_at ? 3 : c.sent_at ? 2 : 1;
  }
}

function Command({ c, by, allowed, onCancel, onAgain }: { c: CommandBody; by: string; allowed: boolean; onCancel: () => void; onAgain: () => void }) {
  const over = c.finished_at !== null;
  const bad = c.state === "failed" || c.state === "expired";
  const n = reached(c);
  const words = c.state === "progress" ? `${WORDS.progress}, ${c.progress} %` : WORDS[c.state];
  const took = over && c.state !== "cancelled" ? ` in ${duration(Date.parse(c.finished_at!) - Date.parse(c.created_at))}` : "";
  return (
    <li data-command={c.id} data-state={c.state}>
      <div class="what">
        <b class="mono">{c.method}</b> <code class="payload">{short(c.params)}</code>
        <p class="sub"><span title={c.created_by}>{T.by(by)}</span> <time title={c.created_at}>{ago(Date.parse(c.created_at), now.value)}</time></p>
      </div>
      <div class="how">
        <span class={`four ${bad ? "bad" : over && c.state === "cancelled" ? "gone" : ""}`} role="img" aria-label={`${Math.min(n, 4)} of 4 steps: ${STEPS[n - 1]}`}>
          {STEPS.map((s, i) => <i key={s} class={i < n ? "on" : bad && i === n ? "no" : ""} />)}
        </span>
        <span class={bad ? "crit" : ""}>{words}{took}</span>
      </div>
      <div class="act">
        {!over && <button type="button" class="btn" disabled={!allowed} title={allowed ? undefined : T.forbidden} aria-label={`${T.cancel} ${T.of(c)}`} onClick={onCancel}>{T.cancel}</button>}
        {over && <button type="button" class="btn txt" disabled={!allowed} title={allowed ? undefined : T.forbidden} aria-label={`${T.again}: ${T.of(c)}`} onClick={onAgain}>{T.again}</button>}
      </div>
      <Answer c={c} />
    </li>
  );
}

function Answer({ c }: { c: CommandBody }) {
  const parts: [string, unknown][] = [];
  if (c.result !== null && c.result !== undefined) parts.push([T.result, c.result]);
  if (c.error !== null && c.error !== undefined) parts.push([T.error, c.error]);
  if (c.late) parts.push([T.late, c.late]);
  if (parts.length === 0) return null;
  return <div class="reply">{parts.map(([word, v]) => <p key={word}><span class="sub">{word}</span> <code class="payload">{typeof v === "string" ? v : JSON.stringify(v)}</code></p>)}</div>;
}

const LONGEST = 120;

function short(v: unknown): string {
  const s = JSON.stringify(v) ?? "";
  return s.length > LONGEST ? s.slice(0, LONGEST) + "…" : s;
}
