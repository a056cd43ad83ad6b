// Whom the server trusts to sign releases, and how many must have.

import { changing } from "../lib/api";
import { numberIn, useForm } from "../lib/form";
import { day, plural } from "../lib/format";
import type { List } from "../lib/list";
import { addSigningKey, putFirmwarePolicy, revokeSigningKey, type FirmwareKey, type FirmwarePolicy } from "../lib/schema.gen";
import { isAdmin } from "../lib/session";
import { Area } from "../parts/choice";
import { CopyLine } from "../parts/copyline";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Scroll } from "../parts/scroll";
import { Sure } from "../parts/sure";

const T = {
  title: "Keys and policy",
  policy: (p: FirmwarePolicy) => `A release needs ${plural(p.threshold, "signature", "signatures")}; ${plural(p.keys, "key counts", "keys count")}.`,
  unsigned: "The server was started with --insecure-unsigned: releases need no signature.",
  none: "No key is trusted yet. Make one where images are built, and trust its public half:",
  keygen: "muster firmware keygen release.key && muster firmware trust release.key.pub --name \"build server\"",
  key: "Key",
  name: "Name",
  since: "Trusted since",
  state: "State",
  counts: "counts",
  revoked: (why: string) => (why ? `revoked: ${why}` : "revoked"),
  revoke: "Revoke",
  sure: "Revoke for ever?",
  reason: "revoked in the dashboard",
  add: "Trust a key",
  pem: "Public key",
  pemHint: "As muster firmware keygen writes it, in release.key.pub",
  nameLabel: "Whose it is",
  submit: "Trust it",
  threshold: "Signatures that a release needs",
  least: (n: number) => `The server asks for ${n} at least.`,
  save: "Save",
  needs: "Only admins say whom to trust.",
};

export function Trust({ keys, policy, onPolicy }: { keys: List<FirmwareKey>; policy: FirmwarePolicy | null; onPolicy: (p: FirmwarePolicy) => void }) {
  return (
    <section class="sec trust" aria-labelledby="trust-title">
      <header><h2 id="trust-title">{T.title}</h2>{policy && <p class="says-policy">{T.policy(policy)}</p>}</header>
      {policy?.unsigned && <p class="warn">{T.unsigned}</p>}
      <Fault of={keys} />
      {keys.items?.length === 0 && <div class="stack"><p>{T.none}</p><CopyLine text={T.keygen} label={T.none} /></div>}
      {keys.items && keys.items.length > 0 && <Keys list={keys} />}
      {isAdmin() ? <AddKey list={keys} /> : <p class="quiet-note">{T.needs}</p>}
      {isAdmin() && policy && !policy.unsigned && <PolicyForm key={policy.threshold} policy={policy} onPolicy={onPolicy} />}
    </section>
  );
}

function Keys({ list }: { list: List<FirmwareKey> }) {
  return (
    <Scroll labelledby="trust-title">
      <table class="plain wide">
        <thead><tr><th scope="col">{T.name}</th><th scope="col">{T.key}</th><th scope="col">{T.since}</th><th scope="col">{T.state}</th><th /></tr></thead>
        <tbody>
          {list.items?.map((k) => (
            <tr key={k.id}>
              <th scope="row">{k.name}</th>
              <td class="mono">{k.id}</td>
              <td>{day(k.created_at)}</td>
              <td>{k.revoked_at ? <span class="crit">{T.revoked(k.reason ?? "")}</span> : <span class="ok">{T.counts}</span>}</td>
              <td class="n">{!k.revoked_at && isAdmin() && <Sure word={T.revoke} sure={T.sure} of={k.name} onSure={() => void list.run(() => revokeSigningKey(k.id, { reason: T.reason }))} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function AddKey({ list }: { list: List<FirmwareKey> }) {
  const form = useForm({ name: "", pem: "" });
  const submit = form.submit(async (v) => {
    await addSigningKey({ name: v.name.trim(), pem: v.pem });
    form.clear();
    list.reload();
  });
  return (
    <details class="moreof">
      <summary>{T.add}</summary>
      <form class="row" onSubmit={submit}>
        <Field form={form} name="name" label={T.nameLabel} />
        <Area form={form} name="pem" label={T.pem} hint={T.pemHint} mono rows={4} />
        <Submit form={form}>{T.submit}</Submit>
      </form>
    </details>
  );
}

function PolicyForm({ policy, onPolicy }: { policy: FirmwarePolicy; onPolicy: (p: FirmwarePolicy) => void }) {
  const form = useForm({ threshold: String(policy.threshold) });
  const submit = form.submit(async (v) => onPolicy(await putFirmwarePolicy(changing(policy, { threshold: numberIn("threshold", v.threshold) }))));
  return (
    <form class="row policyform" aria-label={T.threshold} onSubmit={submit}>
      <Field form={form} name="threshold" label={T.threshold} hint={T.least(policy.least)} />
      <Submit form={form}>{T.save}</Submit>
    </form>
  );
}
