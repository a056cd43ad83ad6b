// The tab Messages of a device: what it sends, as it comes, with what became of each; and a
// box that publishes. The server follows a device's messages only while somebody asks.

import { useRef, useState } from "preact/hooks";
import { heldText } from "../lib/held";
import { message } from "../lib/api";
import { useTurns } from "../lib/ask";
import { now } from "../lib/clock";
import type { DeviceModel } from "../lib/device";
import { useForm } from "../lib/form";
import { bytes, count, plural } from "../lib/format";
import { timeOf } from "../lib/range";
import { getTrace, publishToDevice, writeTelemetry, type Traced } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Area, Choice } from "../parts/choice";
import { Field, Submit } from "../parts/field";

const T = {
  title: "Messages",
  note: (n: number) => `${plural(n, "message", "messages")} since this page was opened, at most 10 a second`,
  pause: "Pause", go: "Go on",
  held: (n: number) => `${count(n)} held`,
  filter: "Containing",
  none: "Nothing was sent yet. It appears here when it comes.",
  full: (n: number) => `The newest ${count(n)} are shown.`,
  count: (n: number) => plural(n, "reading", "readings"),
  by: (g: string) => `by ${g}`,
  publish: "Publish",
  what: "What",
  down: "A message to the device", up: "Telemetry, as if the device had sent it",
  topic: "Topic", topicHint: (id: string) => `below devices/${id}/; not one of Muster's own, such as commands or desired`,
  payload: "Payload",
  qos: "QoS",
  retain: "Retain", yes: "yes", no: "no",
  send: "Publish",
  sent: "Published.",
  written: "Written.",
  forbidden: "Needs the role operator, or the scopes commands:send and telemetry:write.",
  notJSON: "Telemetry is JSON here.",
};

const LOOK_MS = 1000;
const MOST = 500; // messages kept by the page

export function MessagesTab({ model }: { model: DeviceModel }) {
  const [items, setItems] = useState<Traced[]>([]);
  const [paused, setPaused] = useState(false);
  const [held, setHeld] = useState<Traced[]>([]);
  const [seen, setSeen] = useState<number | null>(null); // null until the first answer, which has what came before
  const [filter, setFilter] = heldText("q");
  const [fault, setFault] = useState("");
  const known = useRef<Traced[] | null>(null);
  const tick = Math.floor(now.value / LOOK_MS);
  useTurns((stop) => getTrace(model.id, stop).then((page) => {
      setFault("");
      const { fresh, all } = merge(known.current ?? [], page.items);
      setSeen((n) => (n === null ? 0 : n + fresh));
      known.current = all;
      if (paused) setHeld(all);
      else setItems(all);
    }, (e: unknown) => stop.aborted || setFault(message(e))), model.id, tick);
  const pause = () => {
    if (paused) setItems(known.current ?? []);
    setHeld([]);
    setPaused(!paused);
  };
  const shown = filter ? items.filter((m) => (m.topic + (m.payload_text ?? "")).includes(filter)) : items;
  return (
    <div class="cols even">
      <section class="sec" aria-labelledby="messages-title">
        <header>
          <h2 id="messages-title">{T.title}</h2><p>{seen !== null && T.note(seen)}</p>
          <div class="r">
            <input aria-label={T.filter} placeholder={T.filter} value={filter} maxLength={200} onInput={(e) => setFilter(e.currentTarget.value)} />
            {paused && held.length > 0 && <span>{T.held(unseen(held, items))}</span>}
            <button type="button" class="btn" aria-pressed={paused} onClick={pause}>{paused ? T.go : T.pause}</button>
          </div>
        </header>
        <p class="error" role="alert">{fault}</p>
        {items.length === 0 && <p class="quiet-note">{T.none}</p>}
        <ul class="msgs" aria-label={T.title}>{shown.map((m) => <Message key={keyOf(m)} m={m} />)}</ul>
        {items.length === MOST && <p class="hint">{T.full(MOST)}</p>}
      </section>
      <Publish id={model.id} />
    </div>
  );
}

function keyOf(m: Traced): string {
  return `${m.received_at} ${m.topic}`;
}

function unseen(all: Traced[], shown: Traced[]): number {
  const last = shown[0]?.received_at ?? "";
  return all.filter((m) => m.received_at > last).length;
}

/** What was known with what the server has, the newest first: what became of a message may be known later. */
function merge(known: Traced[], got: Traced[]): { fresh: number; all: Traced[] } {
  const by = new Map(known.map((m) => [keyOf(m), m]));
  const before = by.size;
  for (const m of got) by.set(keyOf(m), m);
  const fresh = by.size - before;
  return { fresh, all: [...by.values()].sort((a, b) => (a.received_at < b.received_at ? 1 : -1)).slice(0, MOST) };
}

function Message({ m }: { m: Traced }) {
  const bad = m.verdict === "rejected" || m.verdict === "dropped";
  return (
    <li>
      <time title={m.received_at}>{timeOf(Date.parse(m.received_at))}</time>
      <div>
        <span class="mono topic">{m.topic}</span> <small>QoS {m.qos}, {bytes(m.size)}{m.count > 1 && `, ${T.count(m.count)}`}{m.by && `, ${T.by(m.by)}`}</small>
        <p><code class="payload">{textOf(m)}</code></p>
        {m.reason && <p class="crit">{m.reason}</p>}
      </div>
      <span class={bad ? "crit" : m.verdict === "pending" ? "idle" : "ok"}>{m.verdict}</span>
    </li>
  );
}

const LONGEST = 400;

function textOf(m: Traced): string {
  const s = m.payload_text ?? Array.from(atob(m.payload.slice(0, 64)), (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");
  return s.length > LONGEST ? s.slice(0, LONGEST) + "…" : s;
}

type Fields = "what" | "topic" | "payload" | "qos" | "retain";

function Publish({ id }: { id: string }) {
  const form = useForm<Fields>({ what: "down", topic: "", payload: "", qos: "1", retain: "no" });
  const [said, say] = useState("");
  const up = form.values.what === "up";
  const allowed = may("commands:send") && may("telemetry:write");
  const send = async (v: Record<Fields, string>) => {
    say("");
    if (v.what === "up") {
      let body: unknown;
      try {
        body = JSON.parse(v.payload);
      } catch {
        return form.refuse("payload", T.notJSON);
      }
      await writeTelemetry(body, { device: id });
      return say(T.written);
    }
    await publishToDevice(id, { topic: v.topic.trim(), payload_text: v.payload, qos: Number(v.qos), retain: v.retain === "yes" });
    say(T.sent);
  };
  return (
    <section class="sec" aria-labelledby="publish-title">
      <header><h2 id="publish-title">{T.publish}</h2></header>
      <form class="stack" onSubmit={form.submit(send)}>
        <fieldset class="row" disabled={!allowed}>
          <Choice form={form} name="what" label={T.what} options={[["down", T.down], ["up", T.up]]} />
          {!up && <Field form={form} name="topic" label={T.topic} hint={T.topicHint(id)} mono />}
          <Area form={form} name="payload" label={T.payload} rows={4} mono />
          {!up && <Choice form={form} name="qos" label={T.qos} options={[["0", "0"], ["1", "1"], ["2", "2"]]} />}
          {!up && <Choice form={form} name="retain" label={T.retain} options={[["no", T.no], ["yes", T.yes]]} />}
        </fieldset>
        {allowed ? <Submit form={form}>{T.send}</Submit> : <p class="hint">{T.forbidden}</p>}
        <p role="status">{said}</p>
      </form>
    </section>
  );
}
