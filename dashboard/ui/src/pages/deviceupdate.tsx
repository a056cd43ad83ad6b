// What can be done about the firmware of one device: a rollout of its own, of any release that may be offered.

import { useState } from "preact/hooks";
import { useAsked } from "../lib/ask";
import { releaseName } from "../lib/firmware";
import { useForm } from "../lib/form";
import { rolloutPath } from "../lib/rollouts";
import { createRollout, listReleases, type DeviceFirmware, type FirmwareRelease } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Choice } from "../parts/choice";
import { Fault } from "../parts/fault";
import { Submit } from "../parts/field";

const T = {
  title: "Install a release",
  how: "A rollout of this device alone. The server looks at every rule of an offer, as ever: hardware, versions, signatures.",
  release: "Release", choose: "Choose a published release",
  back: (v: string) => `Back to ${v}`,
  supersede: "Other rollouts of the product",
  supersedes: [["wait", "come first: wait for them"], ["replace", "give way, unless it installs already"]] as const,
  downgrade: "Where the device has a newer version",
  downgrades: [["", "it is not installed"], ["yes", "it goes back to this one"]] as const,
  submit: "Install it",
  name: (r: string, id: string) => `${r} on ${id}`,
  none: "No release is published that may be offered now.",
  begun: "It has begun:", drafted: "It waits for approvals:",
  needs: "This needs the role operator.",
};

const MOST = 200; // releases to choose from

/** A term that finds one device. */
function only(id: string): string {
  return `id="${id}"`;
}

/** The version that a device had before the one that it has, where a rollout brought that. */
function before(of: DeviceFirmware, releases: readonly FirmwareRelease[]): FirmwareRelease | undefined {
  const last = of.actions.find((a) => a.state === "confirmed" && a.from && a.from !== of.version);
  const brought = last && releases.find((r) => r.id === last.release);
  return releases.find((r) => r.version === last?.from && (!brought || r.product === brought.product));
}

export function Update({ id, of, onDone }: { id: string; of: DeviceFirmware; onDone: () => void }) {
  const asked = useAsked((stop) => listReleases({ state: "published", limit: MOST }, stop), id);
  const releases = asked.answer && asked.answer.items.filter((r) => r.offerable);
  const [made, setMade] = useState<{ id: string; name: string; draft: boolean } | null>(null);
  const form = useForm({ release: "", supersede: "wait", downgrade: "" });
  const entitled = may("firmware:write");
  const submit = form.submit(async (v) => {
    setMade(null);
    const release = releases?.find((r) => r.id === v.release);
    if (!release) return form.refuse("release", T.choose);
    const got = await createRollout({ name: T.name(releaseName(release), id), release: release.id, q: only(id), supersede: v.supersede as "wait", start: true, ...(v.downgrade && { downgrade: true }), plan: { phases: [{ percent: 100 }] } });
    setMade({ id: got.id, name: got.name, draft: got.progress.status === "draft" });
    form.clear();
    onDone();
  });
  const goBack = (release: string) => {
    form.set("release", release);
    form.set("downgrade", "yes");
  };
  const old = releases ? before(of, releases) : undefined;
  return (
    <section class="sec update" aria-labelledby="update-title">
      <header><h2 id="update-title">{T.title}</h2><p class="long">{T.how}</p></header>
      <Fault of={asked} />
      {releases?.length === 0 && <p class="quiet-note">{T.none}</p>}
      {releases && releases.length > 0 && (
        <form class="stack" onSubmit={submit}>
          <fieldset class="row" disabled={!entitled} title={entitled ? undefined : T.needs}>
            <Choice form={form} name="release" label={T.release} options={[["", T.choose], ...releases.map((r) => [r.id, releaseName(r)] as const)]} />
            <Choice form={form} name="supersede" label={T.supersede} options={T.supersedes} />
            <Choice form={form} name="downgrade" label={T.downgrade} options={T.downgrades} />
          </fieldset>
          <fieldset class="act" disabled={!entitled} title={entitled ? undefined : T.needs}>
            <Submit form={form}>{T.submit}</Submit>
            {old && <button type="button" class="btn back" onClick={() => goBack(old.id)}>{T.back(old.version)}</button>}
          </fieldset>
          {!entitled && <p class="hint">{T.needs}</p>}
        </form>
      )}
      {made && <p role="status">{made.draft ? T.drafted : T.begun} <a class="link" href={rolloutPath(made.id)}>{made.name}</a></p>}
    </section>
  );
}
