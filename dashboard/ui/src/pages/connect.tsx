// Connecting a device: make it, send its first value, watch it arrive.

import { useSignal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { message } from "../lib/api";
import { credentialOf, publishLine, remember } from "../lib/connect";
import { exact, seconds, value } from "../lib/format";
import { subscribe, welcome } from "../lib/live";
import { devicePath } from "../lib/route";
import { mayWriteDevices } from "../lib/session";
import { addCredential, createDevice } from "../lib/schema.gen";
import type { DeviceItem } from "../lib/types";
import { CopyLine } from "../parts/copyline";

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
  needs: "mosquitto_pub comes with the Mosquitto clients. Any MQTT client will do.",
  waiting: "Waiting for it to connect",
  connected: "Connected",
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

/** The command that sends a value as the device. */
export function ConnectLine({ id }: { id: string }) {
  const c = credentialOf(id);
  const line = publishLine(id, c);
  if (!welcome.value) return null;
  if (!line) return <p>{T.noPort}</p>;
  return (
    <div class="first">
      <CopyLine text={line} label={`Command that sends the first value of ${id}`} />
      <p class="hint">{c ? T.once : T.unknownToken} {T.needs}</p>
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
  const connected = newest !== undefined || (d !== null && d.state !== "never");
  return (
    <ol class="steps" aria-live="polite">
      <Step done={connected} current={!connected}>{connected ? T.connected : T.waiting}</Step>
      <Step done={newest !== undefined} current={connected && !newest}>
        {newest ? (
          <>
            {T.value}: <span class="mono">{newest[0]}</span> <b title={exact(newest[1].v)}>{value(newest[1].v)}</b> <small>{seconds(newest[1].time)}</small>
          </>
        ) : (
          T.noValue
        )}
      </Step>
    </ol>
  );
}

function Step({ done, current, children }: { done: boolean; current: boolean; children: preact.ComponentChildren }) {
  return (
    <li class={done ? "done" : current ? "now" : ""}>
      <svg class={`g ${done ? "ok" : "idle"}`} viewBox="0 0 12 12" aria-hidden="true">
        {done ? <circle cx="6" cy="6" r="5" fill="currentColor" /> : <circle cx="6" cy="6" r="4.2" fill="none" stroke="currentColor" stroke-width="1.7" />}
      </svg>
      <span>{children}</span>
    </li>
  );
}
