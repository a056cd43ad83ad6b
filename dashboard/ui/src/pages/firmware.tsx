// Firmware: releases, images, which versions devices report, and whom the server trusts.

import { useEffect, useState } from "preact/hooks";
import { now } from "../lib/clock";
import { absolute, ago, bytes, count, plural } from "../lib/format";
import { hardwareText, manifestOf, releasePath, signers } from "../lib/firmware";
import { listPath } from "../lib/route";
import { useList, type List } from "../lib/list";
import {
  deleteArtifact, getFirmwarePolicy, listArtifacts, listDeviceFacets, listReleases, listSigningKeys,
  type Facet, type FirmwareArtifact, type FirmwareKey, type FirmwarePolicy, type FirmwareRelease,
} from "../lib/schema.gen";
import { may } from "../lib/session";
import { arrived } from "../lib/upload";
import { Part } from "../parts/bar";
import { Fault } from "../parts/fault";
import { ReleaseState } from "../parts/releasestate";
import { Sure } from "../parts/sure";
import { useRowKeys } from "../parts/keys";
import { Scroll } from "../parts/scroll";
import { Trust } from "./firmwaretrust";
import { ReleaseForm } from "./newrelease";
import { Uploads } from "./uploads";

const T = {
  title: "Firmware",
  how: "Releases are signed offline, and brought to devices by rollouts.",
  needs: "You may look at firmware. Changing it needs the role operator.",
  releases: "Releases",
  none: "There is no release yet. Upload an image, or send one with the command line: then make a release of it.",
  release: "Release",
  state: "State",
  signed: "Signed by",
  nobody: "nobody",
  hardware: "Hardware",
  anyHardware: "any",
  size: "Size",
  security: "Security",
  on: "Devices on it",
  made: "Made",
  unknown: "not known",
  more: "More",
  versions: "Versions that devices report",
  noVersion: "none reported",
  beside: (n: number) => `and ${plural(n, "version", "versions")} more`,
  images: "Images",
  noImages: "No image is here yet.",
  file: "File",
  format: "What it is",
  digest: "SHA-256",
  from: "Release from it",
  fromOf: (name: string) => `Release from it: ${name}`,
  drop: "Delete",
  sure: "Really delete?",
  damaged: (why: string) => `damaged: ${why}`,
  selfSigned: "signed itself",
};

export function FirmwarePage() {
  useRowKeys();
  const releases = useList<FirmwareRelease>((at, stop) => listReleases({ limit: 50, ...at }, stop));
  const images = useList<FirmwareArtifact>((at, stop) => listArtifacts({ limit: 50, ...at }, stop));
  const keys = useList<FirmwareKey>((_, stop) => listSigningKeys(stop));
  const [policy, setPolicy] = useState<FirmwarePolicy | null>(null);
  const versions = useVersions();
  const [from, setFrom] = useState<FirmwareArtifact | null>(null);
  const write = may("firmware:write");
  useEffect(() => {
    const stop = new AbortController();
    getFirmwarePolicy(stop.signal).then(setPolicy, () => undefined); // the list of keys says what is wrong
    return () => stop.abort();
  }, [keys.items]);
  const came = arrived.value;
  useEffect(() => {
    if (came) images.reload();
  }, [came]);
  return (
    <>
      <section class="sec firmware" aria-labelledby="firmware-title">
        <header><h1 id="firmware-title">{T.title}</h1><p class="long">{T.how}</p></header>
        {!write && <p class="quiet-note">{T.needs}</p>}
        <Fault of={releases} />
        {releases.items?.length === 0 && <p class="quiet-note">{T.none}</p>}
        {releases.items && releases.items.length > 0 && <Releases items={releases.items} keys={keys.items ?? []} versions={versions} />}
        {releases.more && <button type="button" class="btn" onClick={releases.more}>{T.more}</button>}
      </section>
      {write && <Uploads first={images.items?.length === 0} />}
      {from && <ReleaseForm key={from.sha256} image={from} onClose={() => setFrom(null)} />}
      {images.items && images.items.length > 0 && <Images list={images} write={write} from={setFrom} />}
      {versions && versions.facet.values.length > 0 && <Versions of={versions} />}
      <Trust keys={keys} policy={policy} onPolicy={setPolicy} />
    </>
  );
}

interface ByVersion {
  total: number;
  facet: Facet;
}

/** How many devices report which version, as the server counts them; null while it is asked. */
function useVersions(): ByVersion | null {
  const [said, say] = useState<ByVersion | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    listDeviceFacets({ fields: "firmware", limit: 100 }, stop.signal).then((f) => f.items[0] && say({ total: f.total, facet: f.items[0] }), () => undefined); // who may not see devices sees no counts
    return () => stop.abort();
  }, []);
  return said;
}

function Releases({ items, keys, versions }: { items: FirmwareRelease[]; keys: FirmwareKey[]; versions: ByVersion | null }) {
  const on = (r: FirmwareRelease) => versions?.facet.values.find((v) => v.value === r.version);
  return (
    <Scroll labelledby="firmware-title">
      <table class="plain wide releases">
        <thead><tr>
          <th scope="col">{T.release}</th><th scope="col">{T.state}</th><th scope="col">{T.signed}</th><th scope="col">{T.hardware}</th><th scope="col" class="n">{T.size}</th>
          <th scope="col" class="n">{T.security}</th><th scope="col" class="n">{T.on}</th><th scope="col">{T.made}</th>
        </tr></thead>
        <tbody>
          {items.map((r) => {
            const m = manifestOf(r);
            const at = Date.parse(r.created_at);
            const devices = on(r);
            return (
              <tr key={r.id} data-id={r.id}>
                <th scope="row"><a class="to" href={releasePath(r.id)}>{r.product} {r.version}</a> {r.channel && <span class="tag">{r.channel}</span>}</th>
                <td><ReleaseState of={r} /></td>
                <td><Signers of={r} keys={keys} /></td>
                <td>{hardwareText(m) || T.anyHardware}</td>
                <td class="n">{bytes(m.artifacts.reduce((sum, f) => sum + f.size, 0))}</td>
                <td class="n">{count(m.security_version ?? 0)}</td>
                <td class="n on">{devices ? <a class="link" href={listPath(devices.term, "id", "")}>{count(devices.devices)}</a> : versions ? "0" : T.unknown}</td>
                <td><time title={absolute(at)}>{ago(at, now.value)}</time></td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Scroll>
  );
}

export function Signers({ of: r, keys }: { of: FirmwareRelease; keys: readonly FirmwareKey[] }) {
  const all = signers(r, keys);
  if (all.length === 0) return <span class="warn">{T.nobody}</span>;
  return <>{all.map((s, i) => <span key={s.key} class={s.revoked ? "gone" : ""} title={s.key}>{i > 0 && ", "}{s.name}</span>)}</>;
}

const SHOWN = 12;

function Versions({ of: v }: { of: ByVersion }) {
  const most = Math.max(...v.facet.values.map((x) => x.devices));
  const hidden = v.facet.values.length - SHOWN + v.facet.more;
  return (
    <section class="sec versions" aria-labelledby="versions-title">
      <header><h2 id="versions-title">{T.versions}</h2><p>{plural(v.total, "device", "devices")}</p></header>
      <ul>
        {v.facet.values.slice(0, SHOWN).map((x) => (
          <li key={x.value} data-version={x.value}>
            <a class="to mono" href={listPath(x.term, "id", "")}>{x.value || T.noVersion}</a>
            <span class="segbar" aria-hidden="true"><Part n={x.devices} of={x.value ? "online" : "unknown"} /><Part n={most - x.devices} of="rest" /></span>
            <b class="n">{count(x.devices)}</b>
          </li>
        ))}
      </ul>
      {hidden > 0 && <p class="quiet-note">{T.beside(hidden)}</p>}
    </section>
  );
}

function Images({ list, write, from }: { list: List<FirmwareArtifact>; write: boolean; from: (a: FirmwareArtifact) => void }) {
  return (
    <section class="sec images" aria-labelledby="images-title">
      <header><h2 id="images-title">{T.images}</h2></header>
      <Fault of={list} />
      <Scroll labelledby="images-title">
        <table class="plain wide">
          <thead><tr><th scope="col">{T.file}</th><th scope="col">{T.format}</th><th scope="col" class="n">{T.size}</th><th scope="col">{T.digest}</th><th scope="col">{T.made}</th><th /></tr></thead>
          <tbody>
            {list.items?.map((a) => (
              <tr key={a.sha256} data-sha={a.sha256}>
                <th scope="row">{write ? <a class="to" href={`/api/v1/firmware/artifacts/${a.sha256}/content`} download={a.filename}>{a.filename}</a> : a.filename}</th>
                <td>{imageText(a)}</td>
                <td class="n" title={`${count(a.size)} B`}>{bytes(a.size)}</td>
                <td class="mono" title={a.sha256}>{a.sha256.slice(0, 12)}</td>
                <td><time title={absolute(Date.parse(a.created_at))}>{ago(Date.parse(a.created_at), now.value)}</time></td>
                <td class="n acts">
                  <button type="button" class="btn txt" disabled={!write} aria-label={T.fromOf(a.filename)} onClick={() => from(a)}>{T.from}</button>
                  {write && <Sure word={T.drop} sure={T.sure} of={a.filename} onSure={() => void list.run(() => deleteArtifact(a.sha256))} />}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </section>
  );
}

/** What an image says of itself. */
function imageText(a: FirmwareArtifact): string {
  const i = a.image;
  return [i.format, i.version, i.project, i.hardware?.join(", "), i.security_version !== undefined && `security ${i.security_version}`, i.signed && T.selfSigned, i.damage && T.damaged(i.damage)].filter(Boolean).join(" · ");
}

