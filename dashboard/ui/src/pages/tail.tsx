// What happens right now, a line for each event.

import { useEffect } from "preact/hooks";
import { absolute, count, seconds } from "../lib/format";
import { devicePath } from "../lib/route";
import { followEvents, lines, pause, paused, waiting, type Line } from "../lib/tail";

const T = {
  title: "Right now",
  pause: "Pause",
  resume: (n: number) => (n > 0 ? `Show ${count(n)} more` : "Go on"),
  none: "Nothing has happened yet.",
};

/** What an event says of its device, or of what else it is about. */
const WORDS: Record<string, (d: Record<string, unknown>) => string> = {
  "device.created": () => "was made",
  "device.updated": (d) => `changed: ${list(d["changed"])}`,
  "device.deleted": () => "was deleted",
  "device.credential_added": () => "got a credential",
  "device.credential_removed": () => "lost a credential",
  "device.adopted": () => "was adopted",
  "presence.online": () => "is online",
  "presence.quiet": () => "is quiet for longer than usual",
  "presence.offline": (d) => `is offline: ${text(d["reason"])}`,
  "telemetry.rejected": (d) => `sent what was rejected: ${text(d["detail"])}`,
  "task.finished": (d) => `${text(d["kind"])} ${text(d["state"])}`,
  "delivery.dead": (d) => `to ${text(d["channel"])} was given up`,
};

function text(v: unknown): string {
  return typeof v === "string" ? v : v === undefined ? "" : JSON.stringify(v);
}

function list(v: unknown): string {
  return Array.isArray(v) ? v.join(", ") : text(v);
}

function wordsOf({ type, data }: Line): { who: string; what: string; device: string } {
  const device = text(data["device"]);
  const [family, verb] = type.split(".");
  const rest = (verb ?? "").replaceAll("_", " ");
  const own = WORDS[type];
  if (own) return { who: device || `${family}`, what: own(data), device };
  if (family === "command") return { who: device, what: `${text(data["method"])} ${rest}`, device };
  if (family === "job") return { who: `job ${text(data["job"])}`, what: rest, device: "" };
  if (family === "notification") return { who: text(data["title"]), what: `notification ${rest}`, device: "" };
  if (family === "rollout") return { who: text(data["name"]), what: `rollout ${rest}${verb === "phase" ? ` ${text(data["phase_number"])} of ${text(data["phases"])}` : ""}`, device: "" };
  return { who: device || type, what: device ? type : "", device };
}

const TONES: [RegExp, string][] = [
  [/^presence\.offline|expired|cancelled|deleted/, "off"],
  [/^presence\.quiet|failed|rejected|dead|stopped|paused|aborted/, "warn"],
  [/^notification\.created/, "crit"],
  [/online|succeeded|completed|resolved|acked|delivered|accepted/, "ok"],
];

function toneOf(type: string): string {
  return TONES.find(([r]) => r.test(type))?.[1] ?? "idle";
}

export function Tail() {
  useEffect(followEvents, []);
  const all = lines.value;
  return (
    <section class="sec" aria-labelledby="tail-title">
      <header>
        <h2 id="tail-title">{T.title}</h2>
        <div class="r"><button type="button" class="btn txt" aria-pressed={paused.value} onClick={() => pause(!paused.value)}>{paused.value ? T.resume(waiting.value) : T.pause}</button></div>
      </header>
      {all.length === 0 ? <p class="quiet-note">{T.none}</p> : (
        <div class="tail" role="log" aria-live="off" aria-labelledby="tail-title" tabIndex={0}><ol>{all.map((l) => <Happened key={l.seq} l={l} />)}</ol></div>
      )}
    </section>
  );
}

function Happened({ l }: { l: Line }) {
  const { who, what, device } = wordsOf(l);
  return (
    <li title={`${absolute(l.at)}, ${l.type}`}>
      <time>{seconds(l.at)}</time>
      <svg class={`g ${toneOf(l.type)}`} viewBox="0 0 12 12" aria-hidden="true"><circle cx="6" cy="6" r="4" fill="currentColor" /></svg>
      <span>{device ? <a href={devicePath(device)}>{who}</a> : <b>{who}</b>} {what}</span>
    </li>
  );
}
