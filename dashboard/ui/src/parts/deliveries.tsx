// What goes out by mail, webhook and MQTT: how it stands, every attempt, and another
// try for whoever may ask for one.

import { useState } from "preact/hooks";
import { useAsked } from "../lib/ask";
import { absolute, ago, duration, plural, seconds } from "../lib/format";
import { exactTimes } from "../lib/zone";
import { now } from "../lib/clock";
import type { List } from "../lib/list";
import { devicePath } from "../lib/route";
import { getDelivery, requeueDeliveries, type Delivery } from "../lib/schema.gen";
import { isAdmin } from "../lib/session";
import { Fault } from "./fault";

const T = {
  none: "Nothing goes out for this beside the inbox.",
  to: "To",
  state: "State",
  made: "Made",
  attempts: (n: number) => plural(n, "attempt", "attempts"),
  due: (ms: number, at: string) => (ms < 1000 ? "due now" : exactTimes.value ? `next ${at}` : `next in ${duration(ms)}`),
  again: "Send again",
  needs: "Only admins send again.",
  more: "More",
  noTries: "It was not tried yet.",
  answered: (n: number) => `answered ${n}`,
  about: "the notification",
  webhook: "the webhook",
  device: "the device",
};

const TONE: Record<Delivery["state"], string> = { queued: "off", sending: "off", sent: "ok", dead: "crit", dropped: "idle" };

function shape(s: Delivery["state"]) {
  switch (s) {
    case "sent":
      return <path d="M1.5 6.5 4.6 9.6 10.6 2.6" fill="none" stroke="currentColor" stroke-width="2" />;
    case "dead":
      return <path d="M2 2l8 8M10 2l-8 8" fill="none" stroke="currentColor" stroke-width="2" />;
    case "dropped":
      return <path d="M1.5 6h9" fill="none" stroke="currentColor" stroke-width="2" />;
    default:
      return <circle cx="6" cy="6" r="4.2" fill="none" stroke="currentColor" stroke-width="1.7" stroke-dasharray="3 2" />;
  }
}

interface Props {
  list: List<Delivery>;
  nameOf?: (d: Delivery) => string;
  /** Says what each is about, where not all are about one. */
  about?: boolean;
  none?: string;
  again?: (d: Delivery) => Promise<unknown>;
}

export function Deliveries({ list, nameOf = (d) => d.target_name ?? d.target, about = false, none = T.none, again = (d) => requeueDeliveries({ ids: [d.id] }) }: Props) {
  return (
    <>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{none}</p>}
      <ul class="outgo">
        {list.items?.map((d) => <Line key={d.id} d={d} name={nameOf(d)} about={about} again={() => list.run(() => again(d))} />)}
      </ul>
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </>
  );
}

function Line({ d, name, about, again }: { d: Delivery; name: string; about: boolean; again: () => void }) {
  const [open, setOpen] = useState(false);
  const ended = d.state === "dead" || d.state === "sent";
  const made = Date.parse(d.created_at);
  return (
    <li>
      <svg class={`g ${TONE[d.state]}`} viewBox="0 0 12 12" aria-hidden="true">{shape(d.state)}</svg>
      <div>
        <span><b class={TONE[d.state]}>{d.state}</b> {d.channel} to {name}</span>
        <p class="sub">
          <time title={absolute(made)}>{ago(made, now.value)}</time>
          {d.due_at && d.attempts > 0 && <span> · {T.due(Date.parse(d.due_at) - now.value, ago(Date.parse(d.due_at), now.value))}</span>}
          {about && d.notification && <span> · <a class="link" href={`/inbox/${encodeURIComponent(d.notification)}`}>{T.about}</a></span>}
          {about && d.channel === "webhook" && <span> · <a class="link" href={`/webhooks/${encodeURIComponent(d.target)}`}>{T.webhook}</a></span>}
          {about && d.channel === "mqtt" && <span> · <a class="link" href={devicePath(d.target)}>{T.device}</a></span>}
        </p>
        {d.error && <p class="sub">{d.error}</p>}
        <details onToggle={(e) => setOpen(e.currentTarget.open)}>
          <summary>{T.attempts(d.attempts)}</summary>
          {open && <Tries of={d} />}
        </details>
      </div>
      {ended && <button type="button" class="btn" disabled={!isAdmin()} title={isAdmin() ? undefined : T.needs} aria-label={`${T.again}: ${d.channel} to ${name}`} onClick={again}>{T.again}</button>}
    </li>
  );
}

/** The attempts; lists of many deliveries leave them out, and then they are asked for. */
function Tries({ of: d }: { of: Delivery }) {
  const asked = useAsked(d.tries ? null : (stop) => getDelivery(d.id, stop), d.id, d.attempts);
  const tries = d.tries ?? (asked.answer && (asked.answer.tries ?? []));
  if (asked.fault) return <Fault of={asked} />;
  if (!tries) return null;
  if (tries.length === 0) return <p class="sub">{T.noTries}</p>;
  return (
    <ol class="tries">
      {tries.map((a) => (
        <li key={a.at}>
          <time class="mono" title={absolute(Date.parse(a.at))}>{seconds(Date.parse(a.at))}</time> {a.verdict}
          {a.status ? `, ${T.answered(a.status)}` : ""} in {a.duration_ms < 1000 ? `${Math.round(a.duration_ms)} ms` : duration(a.duration_ms)}
          {a.error && <span class="sub">{a.error}</span>}
          {a.response && <span class="sub mono">{a.response}</span>}
        </li>
      ))}
    </ol>
  );
}
