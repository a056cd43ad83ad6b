// One release: what is in it, who signed it, what it still needs, and where it went.

import { useEffect, useState } from "preact/hooks";
import { changing, message } from "../lib/api";
import { useAsked } from "../lib/ask";
import { call } from "../lib/called";
import { fileName, hardwareText, manifestOf, releaseName, saveFile } from "../lib/firmware";
import { useForm } from "../lib/form";
import { bytes, count, day } from "../lib/format";
import { after, useList } from "../lib/list";
import { useFollowed } from "../lib/poll";
import { go, listPath } from "../lib/route";
import { rolloutPath } from "../lib/rollouts";
import {
  deleteRelease, deprecateRelease, getFirmwarePolicy, getRelease, listDeviceFacets, listRollouts, listSigningKeys, publishRelease, revokeRelease, signRelease,
  type FacetValue, type FirmwareKey, type FirmwarePolicy, type FirmwareRelease, type FirmwareSignature, type RolloutBody,
} from "../lib/schema.gen";
import { may } from "../lib/session";
import { CopyLine } from "../parts/copyline";
import { Fault, Pending } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { ReleaseState } from "../parts/releasestate";
import { RolloutStatus } from "../parts/rolloutstatus";
import { Scroll } from "../parts/scroll";
import { Sure } from "../parts/sure";

const T = {
  notFound: "There is no such release.",
  all: "All firmware",
  loading: "Asking the server for the release.",
  needs: "You may look at releases. Changing them needs the role operator.",
  version: "Version",
  type: "Type",
  hardware: "Hardware",
  any: "any",
  from: "Replaces from",
  security: "Security version",
  channel: "Channel",
  published: "Published",
  devices: "Devices that report it",
  made: "Made",
  expires: "Expires",
  depends: "Depends on",
  notes: "Notes",
  roll: "Roll out",
  publish: "Publish",
  deprecate: "Deprecate",
  deprecateSure: "No rollout begins with it any more?",
  revoke: "Revoke",
  revokeSubmit: "Revoke for ever",
  reason: "Why",
  reasonHint: "It is offered to nobody any more, in rollouts under way neither",
  drop: "Delete the draft",
  sure: "Really delete?",
  images: "Images",
  file: "File",
  format: "Format",
  size: "Size",
  digest: "SHA-256",
  signatures: "Signatures",
  signed: (n: number, need: number) => `${count(n)} of ${count(need)}`,
  nobody: "Nobody has signed it yet.",
  key: "Key",
  who: "Whose",
  state: "State",
  counts: "counts",
  lost: "counts no more",
  how: "Signing is offline: the secret key meets no server.",
  step1: "Save the manifest, and take it to where the key is.",
  save: (name: string) => `Save ${name}`,
  step2: "Sign it there.",
  step3: "Give the signed file back.",
  give: "The signed file",
  others: "This file is of another release.",
  noJson: "This is no signed manifest.",
  none: "The file has no signature that is not here already.",
  rollouts: "Rollouts",
  noRollouts: "It was not rolled out yet.",
  more: "More",
};

const FOLLOW_MS = 2000; // between two looks at who has signed it, and how it stands

export function ReleasePage({ id }: { id: string }) {
  const asked = useAsked((stop) => getRelease(id, stop), id, 0, T.notFound);
  if (!asked.answer) return <Pending of={asked} loading={T.loading}><a class="link" href="/firmware">{T.all}</a></Pending>;
  return <Loaded r={asked.answer} set={asked.set} />;
}

function Loaded({ r, set }: { r: FirmwareRelease; set: (r: FirmwareRelease) => void }) {
  const [keys, setKeys] = useState<FirmwareKey[]>([]);
  const [policy, setPolicy] = useState<FirmwarePolicy | null>(null);
  call(r.id, releaseName(r));
  useFollowed((stop) => getRelease(r.id, stop), FOLLOW_MS, r, set);
  useEffect(() => {
    const stop = new AbortController();
    listSigningKeys(stop.signal).then((p) => setKeys(p.items), () => undefined); // names only: the ids are there
    getFirmwarePolicy(stop.signal).then(setPolicy, () => undefined);
    return () => stop.abort();
  }, []);
  return (
    <>
      <Head r={r} set={set} />
      <Images r={r} />
      <Signatures r={r} set={set} keys={keys} policy={policy} />
      <Rolled r={r} />
    </>
  );
}

function Head({ r, set }: { r: FirmwareRelease; set: (r: FirmwareRelease) => void }) {
  const [fault, setFault] = useState("");
  const [revoking, setRevoking] = useState(false);
  const write = may("firmware:write");
  const act = (run: () => Promise<FirmwareRelease | undefined>) => {
    setFault("");
    run().then((x) => x && set(x), (e: unknown) => setFault(message(e)));
  };
  return (
    <section class="dev release">
      <h1>{releaseName(r)}</h1>
      <p class="sub"><ReleaseState of={r} /> {r.state !== "draft" && (r.problem || r.reason) && <span class="says">{r.reason || r.problem}</span>}</p>
      <Facts r={r} />
      <div class="ways">
        {r.state === "published" && (write && r.offerable ? <a class="btn pri" href={`/rollouts?new=${encodeURIComponent(r.id)}`}>{T.roll}</a> : <button type="button" class="btn pri" disabled>{T.roll}</button>)}
        {r.state === "draft" && <button type="button" class="btn pri" disabled={!write} onClick={() => act(() => publishRelease(r.id))}>{T.publish}</button>}
        {r.state === "published" && (write ? <Sure word={T.deprecate} sure={T.deprecateSure} of={releaseName(r)} onSure={() => act(() => deprecateRelease(r.id))} /> : <button type="button" class="btn" disabled>{T.deprecate}</button>)}
        {(r.state === "published" || r.state === "deprecated") && <button type="button" class="btn" disabled={!write} aria-expanded={revoking} onClick={() => setRevoking(!revoking)}>{T.revoke}</button>}
        {r.state === "draft" && write && <Sure word={T.drop} sure={T.sure} of={releaseName(r)} onSure={() => act(() => deleteRelease(r.id).then(() => (go("/firmware"), undefined)))} />}
      </div>
      {!write && <p class="quiet-note">{T.needs}</p>}
      <p class="error" role="alert">{fault}</p>
      {revoking && write && <RevokeForm r={r} onDone={(x) => { set(x); setRevoking(false); }} />}
    </section>
  );
}

function Facts({ r }: { r: FirmwareRelease }) {
  const m = manifestOf(r);
  const on = useDevicesOn(r.version);
  const fact = (word: string, text: preact.ComponentChildren) => <div key={word}><dt>{word}</dt><dd>{text}</dd></div>;
  return (
    <dl class="facts few">
      {fact(T.hardware, hardwareText(m) || T.any)}
      {fact(T.type, m.type ?? "app")}
      {fact(T.security, count(m.security_version ?? 0))}
      {m.min_from_version && fact(T.from, m.min_from_version)}
      {(m.depends ?? []).length > 0 && fact(T.depends, m.depends!.map((d) => `${d.product} ${d.version}`).join(", "))}
      {r.channel && fact(T.channel, r.channel)}
      {r.published_at ? fact(T.published, day(r.published_at)) : fact(T.made, day(r.created_at))}
      {m.expires && fact(T.expires, day(m.expires))}
      {on && fact(T.devices, on.devices > 0 ? <a class="link on" href={listPath(on.term, "id", "")}>{count(on.devices)}</a> : <span class="on">0</span>)}
      {r.notes && fact(T.notes, r.notes)}
    </dl>
  );
}

/** How many devices report a version; null while that is not known. */
function useDevicesOn(version: string): Pick<FacetValue, "devices" | "term"> | null {
  const [on, set] = useState<Pick<FacetValue, "devices" | "term"> | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    listDeviceFacets({ fields: "firmware", match: version, limit: 100 }, stop.signal).then((f) => set(f.items[0]?.values.find((v) => v.value === version) ?? { devices: 0, term: "" }), () => undefined);
    return () => stop.abort();
  }, [version]);
  return on;
}

function RevokeForm({ r, onDone }: { r: FirmwareRelease; onDone: (r: FirmwareRelease) => void }) {
  const form = useForm({ reason: "" });
  const submit = form.submit(async (v) => onDone(await revokeRelease(r.id, changing(r, { reason: v.reason.trim() }))));
  return (
    <form class="row revokeform" aria-label={T.revoke} onSubmit={submit}>
      <Field form={form} name="reason" label={T.reason} hint={T.reasonHint} focus />
      <Submit form={form}>{T.revokeSubmit}</Submit>
    </form>
  );
}

function Images({ r }: { r: FirmwareRelease }) {
  return (
    <section class="sec" aria-labelledby="files-title">
      <header><h2 id="files-title">{T.images}</h2></header>
      <Scroll labelledby="files-title">
        <table class="plain wide">
          <thead><tr><th scope="col">{T.file}</th><th scope="col">{T.format}</th><th scope="col" class="n">{T.size}</th><th scope="col">{T.digest}</th></tr></thead>
          <tbody>
            {manifestOf(r).artifacts.map((f) => (
              <tr key={f.sha256}><th scope="row">{f.filename}</th><td>{f.format || "raw"}</td><td class="n" title={`${count(f.size)} B`}>{bytes(f.size)}</td><td class="mono">{f.sha256}</td></tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}

function Signatures({ r, set, keys, policy }: { r: FirmwareRelease; set: (r: FirmwareRelease) => void; keys: FirmwareKey[]; policy: FirmwarePolicy | null }) {
  const known = (s: FirmwareSignature) => keys.find((k) => k.id === s.key);
  const good = r.signatures.filter((s) => known(s)?.revoked_at === null).length;
  const wants = policy !== null && !policy.unsigned && good < policy.threshold && r.state !== "revoked";
  return (
    <section class="sec signatures" aria-labelledby="signatures-title">
      <header><h2 id="signatures-title">{T.signatures}</h2>{policy && <p class="have">{T.signed(good, policy.threshold)}</p>}</header>
      {r.signatures.length === 0 ? <p class="quiet-note">{T.nobody}</p> : (
        <Scroll labelledby="signatures-title"><table class="plain wide">
          <thead><tr><th scope="col">{T.who}</th><th scope="col">{T.key}</th><th scope="col">{T.state}</th></tr></thead>
          <tbody>{r.signatures.map((s) => (
            <tr key={s.key}><th scope="row">{known(s)?.name ?? "?"}</th><td class="mono cutkey">{s.key}</td><td>{known(s)?.revoked_at === null ? <span class="ok">{T.counts}</span> : <span class="crit">{T.lost}</span>}</td></tr>
          ))}</tbody>
        </table></Scroll>
      )}
      {wants && may("firmware:write") && <SignSteps r={r} set={set} />}
    </section>
  );
}

function SignSteps({ r, set }: { r: FirmwareRelease; set: (r: FirmwareRelease) => void }) {
  const [fault, setFault] = useState("");
  const name = fileName(r);
  const give = async (file: File | undefined) => {
    if (!file) return;
    setFault("");
    try {
      set(await signedBy(r, await file.text()));
    } catch (e) {
      setFault(message(e));
    }
  };
  return (
    <ol class="signsteps">
      <li><p>{T.step1} <small>{T.how}</small></p><button type="button" class="btn" onClick={() => saveFile(name, JSON.stringify({ manifest: r.manifest, signatures: r.signatures }, null, 2) + "\n")}>{T.save(name)}</button></li>
      <li><p>{T.step2}</p><CopyLine text={`muster firmware sign --key release.key ${name}`} label={T.step2} /></li>
      <li>
        <p><label for="signed-file">{T.step3}</label></p>
        <input id="signed-file" type="file" accept=".json,application/json" onChange={(e) => void give(e.currentTarget.files?.[0])} />
        <p class="error" role="alert">{fault}</p>
      </li>
    </ol>
  );
}

/** Adds the signatures of a signed file that are new. */
async function signedBy(r: FirmwareRelease, text: string): Promise<FirmwareRelease> {
  let file: { manifest?: { product?: string; version?: string }; signatures?: FirmwareSignature[] };
  try {
    file = JSON.parse(text) as typeof file;
  } catch {
    throw new Error(T.noJson);
  }
  if (!file.manifest || !Array.isArray(file.signatures)) throw new Error(T.noJson);
  if (file.manifest.product !== r.product || file.manifest.version !== r.version) throw new Error(T.others);
  const fresh = file.signatures.filter((s) => !r.signatures.some((x) => x.key === s.key));
  if (fresh.length === 0) throw new Error(T.none);
  return signRelease(r.id, { signatures: fresh });
}

function Rolled({ r }: { r: FirmwareRelease }) {
  const list = useList<RolloutBody>((at, stop) => listRollouts({ release: r.id, limit: 20, ...after(at) }, stop));
  return (
    <section class="sec" aria-labelledby="rolled-title">
      <header><h2 id="rolled-title">{T.rollouts}</h2></header>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.noRollouts}</p>}
      {list.items && list.items.length > 0 && (
        <ul class="ros">{list.items.map((x) => <li key={x.id} class="ro"><div class="h"><a class="to" href={rolloutPath(x.id)}>{x.name}</a><RolloutStatus of={x.progress} /></div></li>)}</ul>
      )}
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </section>
  );
}
