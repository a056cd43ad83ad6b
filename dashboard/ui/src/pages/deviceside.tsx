// What stands beside a device's charts: values that are not numbers, the ledger,
// rejected messages.

import { now } from "../lib/clock";
import { absolute, ago, clock, count, exact, value } from "../lib/format";
import type { DeviceSessions, Ledger, Rejected as RejectedMessage } from "../lib/schema.gen";
import type { Latest } from "../lib/types";
import { useHeat } from "../parts/heat";

const T = {
  values: "Other values",
  key: "Key",
  value: "Value",
  age: "Age",
  ledger: "Messages",
  ledgerNote: "since the server started",
  sessions: "To the device",
  sessionsNote: (n: number) => `its ${n === 1 ? "MQTT session" : `${count(n)} MQTT sessions`}`,
  asOf: (t: string) => `as of ${t}`,
  rejected: "Rejected",
  newest: (n: number, all: number) => (n < all ? `the newest ${n} of ${count(all)}` : ""),
  bytes: (n: number) => `${count(n)} bytes`,
  emptyPayload: "empty payload",
};

const EXCERPT = 160; // characters of a payload

export function TextValues({ values }: { values: Record<string, Latest> }) {
  const keys = Object.keys(values).filter((k) => typeof values[k]!.v !== "number").sort();
  if (keys.length === 0) return null;
  return (
    <section class="sec" aria-labelledby="values-title">
      <header><h2 id="values-title">{T.values}</h2></header>
      <table>
        <thead><tr><th scope="col">{T.key}</th><th scope="col">{T.value}</th><th scope="col" class="n">{T.age}</th></tr></thead>
        <tbody>{keys.map((k) => <TextValue key={k} name={k} latest={values[k]!} />)}</tbody>
      </table>
    </section>
  );
}

function TextValue({ name, latest }: { name: string; latest: Latest }) {
  const text = value(latest.v);
  const el = useHeat<HTMLTableCellElement>(text);
  return (
    <tr>
      <th scope="row" class="mono">{name}</th>
      <td ref={el} class="val long-text" title={exact(latest.v)}>{text}</td>
      <td class="n val"><time title={absolute(latest.time)}>{ago(latest.time, now.value)}</time></td>
    </tr>
  );
}

const CAME: [keyof Ledger, string][] = [["received", "received"], ["recovered", "recovered from the log at start"]];
const WENT: [keyof Ledger, string][] = [
  ["stored", "stored"],
  ["duplicate", "duplicate of a stored one"],
  ["replaced", "replaced a stored one"],
  ["rejected", "rejected"],
  ["dropped", "dropped"],
  ["queued", "waiting to be stored"],
];

/** The ledger: what came in, and what became of it. Lines of nothing are left
 * out, but for the three that everyone looks for. */
export function LedgerTable({ ledger }: { ledger: Ledger }) {
  const always: (keyof Ledger)[] = ["received", "stored", "rejected"];
  const shown = (line: [keyof Ledger, string]) => ledger[line[0]] > 0 || always.includes(line[0]);
  return (
    <section class="sec" aria-labelledby="ledger-title">
      <header><h2 id="ledger-title">{T.ledger}</h2><p>{T.ledgerNote}</p></header>
      <table class="ledger">
        <tbody>{CAME.filter(shown).map((l) => <LedgerLine key={l[0]} ledger={ledger} line={l} />)}</tbody>
        <tbody>{WENT.filter(shown).map((l) => <LedgerLine key={l[0]} ledger={ledger} line={l} />)}</tbody>
      </table>
    </section>
  );
}

function LedgerLine({ ledger, line: [key, words] }: { ledger: Ledger; line: [keyof Ledger, string] }) {
  const bad = (key === "rejected" || key === "dropped") && ledger[key] > 0;
  return (
    <tr>
      <th scope="row">{words}</th>
      <td class={bad ? "n val crit" : "n val"} data-ledger={key}>{count(ledger[key])}</td>
    </tr>
  );
}

const OLD_MS = 12_000; // since the sessions were looked at, after which their age is said

const HELD: [keyof DeviceSessions, string][] = [
  ["queued", "waiting for the device"],
  ["inflight", "sent, not acknowledged"],
  ["dropped", "lost: queue full, too slow or too large"],
];

/** What the MQTT sessions hold for the device and what they have lost; nothing when
 * both are nothing. */
export function SessionsTable({ seen }: { seen: { of: DeviceSessions; at: number } | null }) {
  if (!seen || (seen.of.queued === 0 && seen.of.dropped === 0)) return null;
  const { of, at } = seen;
  const old = now.value - at > OLD_MS;
  return (
    <section class="sec" aria-labelledby="sessions-title">
      <header><h2 id="sessions-title">{T.sessions}</h2><p>{old ? T.asOf(clock(at, now.value)) : T.sessionsNote(of.sessions)}</p></header>
      <table>
        <tbody>
          {HELD.filter(([key]) => of[key] > 0).map(([key, words]) => (
            <tr key={key}>
              <th scope="row">{words}</th>
              <td class={key === "dropped" ? "n val crit" : "n val"} data-sessions={key}>{count(of[key])}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

export function Rejected({ items, total }: { items: RejectedMessage[]; total: number }) {
  if (items.length === 0) return null;
  return (
    <section class="sec" aria-labelledby="rejected-title">
      <header><h2 id="rejected-title">{T.rejected}</h2><p>{T.newest(items.length, total)}</p></header>
      <ul class="att">
        {items.map((m) => <RejectedLine key={`${m.time} ${m.topic}`} m={m} />)}
      </ul>
    </section>
  );
}

function RejectedLine({ m }: { m: RejectedMessage }) {
  const t = Date.parse(m.time);
  return (
    <li>
      <svg class="g crit" viewBox="0 0 12 12" aria-hidden="true"><path d="M6 0l6 6-6 6-6-6z" fill="currentColor" /></svg>
      <div><strong>{m.reason}</strong></div>
      <time class="age" title={absolute(t)}>{clock(t, now.value)}</time>
      <div class="sub"><span class="tag mono">{m.code}</span> <span class="mono">{m.topic}</span></div>
      <div class="sub"><code class="payload">{excerpt(m)}</code> <small>{T.bytes(m.size)}</small></div>
    </li>
  );
}

/** The payload's beginning: its text, or its bytes in hexadecimal. */
function excerpt(m: RejectedMessage): string {
  if (m.size === 0) return T.emptyPayload;
  const text = m.payload_text ?? hex(m.payload);
  return text.length > EXCERPT ? text.slice(0, EXCERPT) + "…" : text;
}

function hex(base64: string): string {
  const bytes = atob(base64.slice(0, 64));
  return Array.from(bytes, (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");
}
