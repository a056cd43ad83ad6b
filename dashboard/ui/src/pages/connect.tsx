// Connecting a device: make it, send its first value, watch it arrive.

import { useSignal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { message } from "../lib/api";
import { now, serverNow } from "../lib/clock";
import { credentialOf, placeOf, remember } from "../lib/connect";
import { ago, exact, seconds, value } from "../lib/format";
import { subscribe, welcome } from "../lib/live";
import { devicePath, search, setSearch } from "../lib/route";
import { mayWriteDevices } from "../lib/session";
import { SHELLS } from "../lib/quote";
import { addCredential, createDevice, listFailedLogins, listUnknownLogins, type FailedLogin } from "../lib/schema.gen";
import { hasShells, snippet, TOOLS, type Tool } from "../lib/snippets";
import type { DeviceItem, Latest } from "../lib/types";
import { CopyLine } from "../parts/copyline";
import { Simulation } from "./simulation";

const T = {
  first: "Connect the first device",
  more: "Add a device",
  connect: (id: string) => `Connect ${id}`,
  intro: "Give it an id. Muster makes a token, and the device sends its first value with one command.",
  id: "Device id",
  idHint: "letters, digits and . _ : -",
  name: "Name",
  optional: "optional",
  create: "Create device",
  forbidden: "Needs the role operator or the scope devices:write.",
  close: "Close",
  send: "Send its first value",
  once: "The token is shown only now; the server keeps a hash of it.",
  unknownToken: "TOKEN stands for the token that was shown when the device was made.",
  newToken: "Make a new token",
  noPort: "The server listens on no MQTT port.",
  tool: "With", shell: "Shell",
  sends: (id: string) => `What sends the first value of ${id}`,
  needs: {
    mosquitto: "mosquitto_pub comes with the Mosquitto clients. Any MQTT client will do.",
    curl: "KEY stands for an API key with the scope telemetry:write: over HTTP it is not the device itself that writes.",
    python: "It needs paho-mqtt: pip install paho-mqtt",
    esp32: "It needs the Arduino core for the ESP32 and PubSubClient.",
    go: "It needs github.com/eclipse/paho.mqtt.golang: go mod init first && go mod tidy && go run .",
  } as Record<Tool, string>,
  waiting: "Waiting for it to connect",
  connected: "Connected",
  authenticated: "Authenticated",
  notYet: "Not yet authenticated",
  refused: (why: string, peer: string, when: string) => `Refused: ${why}${peer && ` (from ${peer})`}, ${when}`,
  chart: (name: string, n: number) => `${name}, ${n === 1 ? "one value" : `${n} values`}`,
  value: "First value",
  noValue: "First value not yet received",
  open: "Open its page",
  another: "Add another",
};

/** The panel. first says that there are no devices at all yet. */
export function ConnectPanel({ first, suggestion, onClose }: { first: boolean; suggestion: string; onClose: () => void }) {
  const [made, setMade] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (!first) field.current?.focus();
  }, [first, made]);
  return (
    <section class="sec connect" aria-labelledby="connect-title" onKeyDown={(e) => e.key === "Escape" && !first && onClose()}>
      <header>
        <h2 id="connect-title">{made ? T.connect(made) : first ? T.first : T.more}</h2>
        {(!first || made) && <div class="r"><button type="button" class="btn txt" onClick={onClose}>{T.close}</button></div>}
      </header>
      {made ? <SendFirst id={made} onAnother={() => setMade("")} /> : <CreateForm field={field} suggestion={suggestion} onMade={setMade} />}
      {!made && <Simulation offer />}
    </section>
  );
}

interface FormProps {
  field: { current: HTMLInputElement | null };
  suggestion: string;
  onMade: (id: string) => void;
}

function CreateForm({ field, suggestion, onMade }: FormProps) {
  const [id, setID] = useState(suggestion);
  const [name, setName] = useState("");
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const allowed = mayWriteDevices();
  const submit = async (e: Event) => {
    e.preventDefault();
    setBusy(true);
    setError("");
    try {
      const made = await createDevice({ id: id.trim(), credential: "token", ...(name.trim() && { name: name.trim() }) });
      if (made.credential) remember(made.device.id, made.credential);
      onMade(made.device.id);
    } catch (e) {
      setError(message(e));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form class="create" onSubmit={submit}>
      <p>{T.intro}</p>
      <div class="fields">
        <label>
          <span>{T.id} <small>{T.idHint}</small></span>
          <input ref={field} class="mono" value={id} required maxLength={128} pattern="[A-Za-z0-9._:\-]+" autocomplete="off" spellcheck={false}
            aria-describedby="create-error" onInput={(e) => setID(e.currentTarget.value)} />
        </label>
        <label>
          <span>{T.name} <small>{T.optional}</small></span>
          <input value={name} maxLength={200} autocomplete="off" onInput={(e) => setName(e.currentTarget.value)} />
        </label>
        <button type="submit" class="btn pri" disabled={busy || !allowed} title={allowed ? undefined : T.forbidden}>{T.create}</button>
      </div>
      <p class="error" id="create-error" role="alert">{error || (allowed ? "" : T.forbidden)}</p>
    </form>
  );
}

function SendFirst({ id, onAnother }: { id: string; onAnother: () => void }) {
  return (
    <div class="first">
      <h3>{T.send}</h3>
      <ConnectLine id={id} />
      <Progress id={id} />
      <div class="act">
        <a class="btn pri" href={devicePath(id)}>{T.open}</a>
        <button type="button" class="btn" onClick={onAnother}>{T.another}</button>
      </div>
    </div>
  );
}

/** What the address says of a choice. Another browser has another shell by itself, so that each choice is written there. */
function chosen<K extends string>(name: string, all: readonly (readonly [K, string])[]): K | undefined {
  const said = search.value.get(name);
  return all.find(([k]) => k === said)?.[0];
}

/** What sends a value as the device. */
export function ConnectLine({ id }: { id: string }) {
  const c = credentialOf(id);
  const at = placeOf();
  const tool = chosen("tool", TOOLS) ?? "mosquitto";
  const shell = chosen("shell", SHELLS) ?? (/win/i.test(navigator.platform) ? "powershell" : "sh");
  if (!welcome.value) return null;
  if (!at) return <p>{T.noPort}</p>;
  const choose = (name: "tool" | "shell", label: string, all: readonly (readonly [string, string])[], on: string) => (
    <div class="tabs" role="group" aria-label={label}>
      {all.map(([k, word]) => <button key={k} type="button" aria-pressed={k === on} onClick={() => setSearch({ [name]: k }, true)}>{word}</button>)}
    </div>
  );
  return (
    <div class="first">
      <div class="ways">
        {choose("tool", T.tool, TOOLS, tool)}
        {hasShells(tool) && choose("shell", T.shell, SHELLS, shell)}
      </div>
      <CopyLine text={snippet(tool, shell, id, c, at)} label={T.sends(id)} />
      <p class="hint">{c ? T.once : tool === "curl" ? "" : T.unknownToken} {T.needs[tool]}</p>
      {!c && mayWriteDevices() && <NewToken id={id} />}
    </div>
  );
}

/** Makes another token, beside those the device has. */
function NewToken({ id }: { id: string }) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const make = async () => {
    setBusy(true);
    setError("");
    try {
      const made = await addCredential(id, { kind: "token" });
      remember(id, made.credential);
    } catch (e) {
      setError(message(e));
      setBusy(false);
    }
  };
  return (
    <div class="act">
      <button type="button" class="btn" disabled={busy} onClick={make}>{T.newToken}</button>
      <p class="error" role="alert">{error}</p>
    </div>
  );
}

function Progress({ id }: { id: string }) {
  const item = useSignal<DeviceItem | null>(null);
  const [points] = useState<{ key: string; at: [number, number][] }>({ key: "", at: [] });
  useEffect(
    () =>
      subscribe("device:" + id, {}, {
        snapshot: (f) => {
          item.value = f["item"] as DeviceItem;
        },
        delta: (f) => {
          const old = item.peek();
          const set = (f["set"] ?? {}) as Partial<DeviceItem>;
          if (old) item.value = { ...old, ...set, values: { ...old.values, ...set.values } };
        },
      }),
    [id],
  );
  const d = item.value;
  const newest = Object.entries(d?.values ?? {}).sort(([, a], [, b]) => b.arrival - a.arrival)[0];
  const authenticated = newest !== undefined || (d !== null && d.state !== "never");
  const why = useWhyNot(id, !authenticated);
  const first = useRef(newest);
  first.current ??= newest;
  if (newest) note(points, newest[0], newest[1]);
  return (
    <>
      <ol class="steps" aria-live="polite">
        <Step done={authenticated || why !== null} current={!authenticated && !why}>{authenticated || why ? T.connected : T.waiting}</Step>
        <Step done={authenticated} current={why !== null && !authenticated} bad={why !== null && !authenticated}>
          {authenticated ? T.authenticated : why ? T.refused(why.reason, why.peer ?? "", ago(Date.parse(why.last_at), now.value)) : T.notYet}
        </Step>
        <Step done={newest !== undefined} current={authenticated && !newest}>
          {first.current ? (
            <>
              {T.value}: <span class="mono">{first.current[0]}</span> <b title={exact(first.current[1].v)}>{value(first.current[1].v)}</b> <small>{seconds(first.current[1].time)}</small>
            </>
          ) : (
            T.noValue
          )}
        </Step>
      </ol>
      {points.at.length > 0 && <FirstChart name={points.key} at={points.at} />}
    </>
  );
}

const LOOK_MS = 2000; // between looks at failed logins
const SHOWN = 60; // values of the first chart

/** The newest login that was refused since this is shown: in the device's name, or in nobody's. */
function useWhyNot(id: string, on: boolean): FailedLogin | null {
  const [why, setWhy] = useState<FailedLogin | null>(null);
  const [since] = useState(() => serverNow() - LOOK_MS);
  const tick = on ? Math.floor(now.value / LOOK_MS) : 0;
  useEffect(() => {
    if (!on) return setWhy(null);
    const stop = new AbortController();
    Promise.all([listFailedLogins(id, stop.signal), listUnknownLogins(stop.signal)]).then(
      ([mine, nobodys]) => {
        const fresh = [...mine.items, ...nobodys.items].filter((l) => Date.parse(l.last_at) >= since);
        setWhy(fresh.sort((a, b) => (a.last_at < b.last_at ? 1 : -1))[0] ?? null);
      },
      () => undefined, // the next look tries again
    );
    return () => stop.abort();
  }, [id, tick, on]);
  return why;
}

/** Keeps the values of the key that came first. */
function note(points: { key: string; at: [number, number][] }, key: string, v: Latest): void {
  if (typeof v.v !== "number" || (points.key && points.key !== key)) return;
  points.key = key;
  if (points.at[points.at.length - 1]?.[0] === v.time) return;
  points.at.push([v.time, v.v]);
  if (points.at.length > SHOWN) points.at.shift();
}

/** The values so far as a line. */
function FirstChart({ name, at }: { name: string; at: [number, number][] }) {
  const [t0, t1] = [at[0]![0], at[at.length - 1]![0]];
  const vs = at.map(([, v]) => v);
  const [lo, hi] = [Math.min(...vs), Math.max(...vs)];
  const x = (t: number) => (t1 > t0 ? 4 + ((t - t0) / (t1 - t0)) * 292 : 296);
  const y = (v: number) => (hi > lo ? 44 - ((v - lo) / (hi - lo)) * 40 : 24);
  return (
    <svg class="firstchart" viewBox="0 0 300 48" role="img" aria-label={T.chart(name, at.length)}>
      <polyline points={at.map(([t, v]) => `${x(t)},${y(v)}`).join(" ")} fill="none" stroke="currentColor" stroke-width="1.6" />
      <circle cx={x(t1)} cy={y(vs[vs.length - 1]!)} r="3" fill="currentColor" />
    </svg>
  );
}

function Step({ done, current, bad = false, children }: { done: boolean; current: boolean; bad?: boolean; children: preact.ComponentChildren }) {
  return (
    <li class={done ? "done" : bad ? "bad" : current ? "now" : ""}>
      <svg class={`g ${done ? "ok" : bad ? "crit" : "idle"}`} viewBox="0 0 12 12" aria-hidden="true">
        {done ? <circle cx="6" cy="6" r="5" fill="currentColor" /> : <circle cx="6" cy="6" r="4.2" fill="none" stroke="currentColor" stroke-width="1.7" />}
      </svg>
      <span>{children}</span>
    </li>
  );
}
