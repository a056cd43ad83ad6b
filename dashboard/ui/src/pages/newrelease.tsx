// A release of an image: a draft, which is signed offline before it is published.

import { serverNow } from "../lib/clock";
import { newManifest, releasePath } from "../lib/firmware";
import { useForm } from "../lib/form";
import { go } from "../lib/route";
import { createRelease, type FirmwareArtifact } from "../lib/schema.gen";
import { Field, Submit } from "../parts/field";

const T = {
  title: (name: string) => `A release of ${name}`,
  how: "It becomes a draft. Its page has the manifest, and the line that signs it.",
  close: "Close",
  product: "Product",
  productHint: "Whose firmware it is: releases of one product replace each other",
  version: "Version",
  versionHint: "Semantic, written out: 2.0.0",
  type: "Type",
  typeHint: "app, os, bootloader, model",
  security: "Security version",
  securityHint: "Goes up with each security fix",
  hardware: "Hardware",
  hardwareHint: "board:revision,revision; board. Any when empty",
  from: "Replaces from",
  fromHint: "The least version that it replaces; any when empty",
  channel: "Channel",
  notes: "Notes",
  submit: "Make the draft",
};

export function ReleaseForm({ image: a, onClose }: { image: FirmwareArtifact; onClose: () => void }) {
  const form = useForm({
    "manifest/product": a.image.project ?? "", "manifest/version": a.image.version ?? "", "manifest/type": "app", "manifest/security_version": String(a.image.security_version ?? 0),
    "manifest/hw_compat": "", "manifest/min_from_version": "", channel: "", notes: "",
  });
  const submit = form.submit(async (v) => {
    const manifest = newManifest(a, {
      product: v["manifest/product"], version: v["manifest/version"], type: v["manifest/type"], security: v["manifest/security_version"],
      hardware: v["manifest/hw_compat"], min_from: v["manifest/min_from_version"],
    }, serverNow());
    const made = await createRelease({ manifest, ...(v.channel.trim() && { channel: v.channel.trim() }), ...(v.notes.trim() && { notes: v.notes.trim() }) });
    go(releasePath(made.id));
  });
  return (
    <section class="sec newrelease" aria-labelledby="newrelease-title">
      <header><h2 id="newrelease-title">{T.title(a.filename)}</h2><p class="long">{T.how}</p><div class="r"><button type="button" class="btn" onClick={onClose}>{T.close}</button></div></header>
      <form class="row" onSubmit={submit}>
        <Field form={form} name="manifest/product" label={T.product} hint={T.productHint} mono focus />
        <Field form={form} name="manifest/version" label={T.version} hint={T.versionHint} mono />
        <Field form={form} name="manifest/type" label={T.type} hint={T.typeHint} mono />
        <Field form={form} name="manifest/security_version" label={T.security} hint={T.securityHint} />
        <Field form={form} name="manifest/hw_compat" label={T.hardware} hint={T.hardwareHint} mono optional />
        <Field form={form} name="manifest/min_from_version" label={T.from} hint={T.fromHint} mono optional />
        <Field form={form} name="channel" label={T.channel} optional />
        <Field form={form} name="notes" label={T.notes} optional />
        <Submit form={form}>{T.submit}</Submit>
      </form>
    </section>
  );
}
