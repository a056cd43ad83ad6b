// The tab Access of a device: how it gets in, who failed to, and its end.

import { useState } from "preact/hooks";
import { message } from "../lib/api";
import { now } from "../lib/clock";
import { remember, credentialOf } from "../lib/connect";
import type { DeviceModel } from "../lib/device";
import { useForm } from "../lib/form";
import { ago, day, plural } from "../lib/format";
import { useList } from "../lib/list";
import { go } from "../lib/route";
import { addCredential, deleteDevice, listCredentials, listFailedLogins, removeCredential, rotateCredential, type Credential, type FailedLogin, type Issued } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Area, Choice } from "../parts/choice";
import { CopyLine } from "../parts/copyline";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Scroll } from "../parts/scroll";
import { Sure } from "../parts/sure";
import { ConnectLine } from "./connect";

const T = {
  title: "Credentials",
  note: "several at a time, so that one can be changed without a gap",
  none: "It has no credential: it cannot connect.",
  kind: "Kind", label: "Label", made: "Made", used: "Last used", expires: "Expires", never: "never",
  rotate: "Rotate", remove: "Remove", sure: "Really remove",
  rotated: "The old one stays good for a day.",
  add: "Add a credential",
  token: "Token", secret: "Id and secret", x509: "Certificate",
  certificate: "Certificate in PEM", certificateHint: "its key is pinned; the private key stays with the device",
  labelHint: "for people",
  create: "Add",
  once: "Shown only now; the server keeps a hash of it.",
  user: "MQTT user name", password: "Password",
  connect: "Connect it",
  logins: "Failed logins", loginsNote: "since the server started, the newest first",
  noLogins: "Nobody failed to come in in its name.",
  times: (n: number) => plural(n, "time", "times"),
  from: "From", when: "Last", reason: "Why", who: "As",
  end: "Delete the device",
  endNote: "Its credentials, commands and documents go. It cannot be undone.",
  data: "Its telemetry",
  keep: "keep it: a device made again with this id continues it", erase: "delete it for good",
  confirm: (id: string) => `Type ${id} to confirm`,
  differs: "This is not its id.",
  del: "Delete",
  forbidden: "Needs the role operator or the scope devices:write.",
};

export function AccessTab({ model }: { model: DeviceModel }) {
  const id = model.id;
  const allowed = may("devices:write");
  const [issued, setIssued] = useState<Issued | null>(null);
  const [said, say] = useState("");
  const list = useList<Credential>((_at, stop) => listCredentials(id, stop), "", model.news.value);
  const show = (c: Issued) => {
    remember(id, c);
    setIssued(c);
  };
  return (
    <div class="cols even">
      <div class="main">
        <section class="sec" aria-labelledby="credentials-title">
          <header><h2 id="credentials-title">{T.title}</h2><p>{T.note}</p></header>
          <Fault of={list} />
          {list.items?.length === 0 && <p class="quiet-note">{T.none}</p>}
          {list.items && list.items.length > 0 && (
            <Scroll labelledby="credentials-title">
              <table class="plain">
                <thead><tr><th scope="col">{T.kind}</th><th scope="col">{T.made}</th><th scope="col">{T.used}</th><th scope="col">{T.expires}</th><th /></tr></thead>
                <tbody>
                  {list.items.map((c) => (
                    <tr key={c.id} data-credential={c.id}>
                      <th scope="row"><b>{c.kind}</b> {c.label} {c.state !== "active" && <span class="tag">{c.state}</span>}{c.key_sha256 && <small class="mono"> {c.key_sha256.slice(0, 16)}…</small>}</th>
                      <td>{day(c.created_at)}</td>
                      <td>{c.last_used_at ? ago(Date.parse(c.last_used_at), now.value) : T.never}</td>
                      <td>{c.expires_at ? day(c.expires_at) : T.never}</td>
                      <td class="n acts">
                        {allowed && (
                          <>
                            {(c.kind === "token" || c.kind === "secret") && <button type="button" class="btn txt" aria-label={`${T.rotate} ${c.kind} ${c.label}`} onClick={() => void list.run(async () => { show((await rotateCredential(id, c.id, {})).credential); say(T.rotated); })}>{T.rotate}</button>}
                            <Sure word={T.remove} sure={T.sure} of={`${c.kind} ${c.label}`} onSure={() => void list.run(() => removeCredential(id, c.id))} />
                          </>
                        )}
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroll>
          )}
          {issued && <Fresh of={issued} said={said} />}
        </section>
        <Add id={id} allowed={allowed} onMade={(c) => { show(c); say(""); list.reload(); }} />
        {credentialOf(id) && <section class="sec"><header><h2>{T.connect}</h2></header><ConnectLine id={id} /></section>}
      </div>
      <div class="main">
        <Logins model={model} />
        <End id={id} allowed={allowed} />
      </div>
    </div>
  );
}

function Fresh({ of, said }: { of: Issued; said: string }) {
  return (
    <div class="stack fresh" role="status">
      <p><b>{T.once}</b> {said}</p>
      {of.username && <><p class="hint">{T.user}</p><CopyLine text={of.username} label={T.user} /></>}
      {of.password && <><p class="hint">{T.password}</p><CopyLine text={of.password} label={T.password} /></>}
    </div>
  );
}

type Fields = "kind" | "label" | "certificate";

function Add({ id, allowed, onMade }: { id: string; allowed: boolean; onMade: (c: Issued) => void }) {
  const form = useForm<Fields>({ kind: "token", label: "", certificate: "" });
  const x509 = form.values.kind === "x509";
  const add = async (v: Record<Fields, string>) => {
    const label = v.label.trim();
    const made = await addCredential(id, { kind: v.kind as Issued["kind"], ...(label && { label }), ...(v.kind === "x509" && { certificate: v.certificate }) });
    form.clear();
    onMade(made.credential);
  };
  return (
    <section class="sec" aria-labelledby="add-title">
      <header><h2 id="add-title">{T.add}</h2></header>
      <form class="stack" onSubmit={form.submit(add)}>
        <fieldset class="row" disabled={!allowed}>
          <Choice form={form} name="kind" label={T.kind} options={[["token", T.token], ["secret", T.secret], ["x509", T.x509]]} />
          <Field form={form} name="label" label={T.label} hint={T.labelHint} optional />
          {x509 && <Area form={form} name="certificate" label={T.certificate} hint={T.certificateHint} rows={5} mono />}
        </fieldset>
        {allowed ? <Submit form={form}>{T.create}</Submit> : <p class="hint">{T.forbidden}</p>}
      </form>
    </section>
  );
}

const LOOK_MS = 5000;

function Logins({ model }: { model: DeviceModel }) {
  const list = useList<FailedLogin>((_at, stop) => listFailedLogins(model.id, stop), "", Math.floor(now.value / LOOK_MS));
  return (
    <section class="sec" aria-labelledby="logins-title">
      <header><h2 id="logins-title">{T.logins}</h2><p>{T.loginsNote}</p></header>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.noLogins}</p>}
      <ul class="att">
        {list.items?.map((l, i) => (
          <li key={i}>
            <svg class="g warn" viewBox="0 0 12 12" aria-hidden="true"><path d="M6 .8 11.6 11H.4z" fill="currentColor" /></svg>
            <div><strong>{l.reason}</strong></div>
            <time class="age" title={l.last_at}>{ago(Date.parse(l.last_at), now.value)}</time>
            <div class="sub">{l.username && <span class="mono">{l.username} </span>}{l.peer && <span class="mono">{l.peer} </span>}{l.listener} · {T.times(l.count)}</div>
          </li>
        ))}
      </ul>
    </section>
  );
}

function End({ id, allowed }: { id: string; allowed: boolean }) {
  const [data, setData] = useState<"keep" | "delete">("keep");
  const [typed, setTyped] = useState("");
  const [fault, setFault] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (e: Event) => {
    e.preventDefault();
    if (typed !== id) return setFault(T.differs);
    setBusy(true);
    setFault("");
    try {
      await deleteDevice(id, { data });
      go("/devices");
    } catch (e) {
      setFault(message(e));
      setBusy(false);
    }
  };
  return (
    <section class="sec" aria-labelledby="end-title">
      <header><h2 id="end-title">{T.end}</h2></header>
      <form class="stack end" onSubmit={submit}>
        <p class="hint">{T.endNote}</p>
        <fieldset class="lines" disabled={!allowed}>
          <legend>{T.data}</legend>
          <label class="check"><input type="radio" name="data" checked={data === "keep"} onChange={() => setData("keep")} /> {T.keep}</label>
          <label class="check"><input type="radio" name="data" checked={data === "delete"} onChange={() => setData("delete")} /> {T.erase}</label>
        </fieldset>
        <div class="field">
          <label for="end-id">{T.confirm(id)}</label>
          <input id="end-id" class="mono" autocomplete="off" spellcheck={false} value={typed} disabled={!allowed} aria-describedby="end-error" onInput={(e) => setTyped(e.currentTarget.value)} />
          <p class="error" id="end-error" role="alert">{fault}</p>
        </div>
        {allowed ? <button type="submit" class="btn" disabled={busy || typed !== id}>{T.del}</button> : <p class="hint">{T.forbidden}</p>}
      </form>
    </section>
  );
}
