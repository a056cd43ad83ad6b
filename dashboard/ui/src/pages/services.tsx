// Service accounts: third parties that come in over MQTT. For admins.

import { useState } from "preact/hooks";
import { changing } from "../lib/api";
import { useForm } from "../lib/form";
import { day } from "../lib/format";
import { useList, type List } from "../lib/list";
import { changeServiceAccount, createServiceAccount, deleteServiceAccount, getServiceAccount, listServiceAccounts, type ServiceAccount } from "../lib/schema.gen";
import { isAdmin } from "../lib/session";
import { Area, Choice } from "../parts/choice";
import { CopyLine } from "../parts/copyline";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Scroll } from "../parts/scroll";
import { Sure } from "../parts/sure";

/** How many days an account may live, and what that is called. */
const LIVES = [["0", "never"], ["30", "in 30 days"], ["90", "in 90 days"], ["365", "in a year"]] as const;

const T = {
  title: "Service accounts",
  how: "Programs that connect over MQTT and use the topics that are listed, and no others.",
  forbidden: "Only admins look after service accounts.",
  none: "There is no service account yet.",
  name: "Name", nameHint: "The MQTT user name",
  publish: "May publish to", subscribe: "May subscribe to", filters: "One topic filter in a line",
  state: "State", on: "on", off: "off", enable: "Turn on", disable: "Turn off",
  expires: "Expires", never: "never", nothing: "nothing",
  change: "Change", save: "Save", cancel: "Cancel",
  drop: "Delete", dropSure: "Delete it, and cut its connections?",
  make: "Make a service account", submit: "Make the account",
  once: "This is its password. It is shown only now; the server keeps a hash of it.",
};

const lines = (text: string) => text.split("\n").map((l) => l.trim()).filter(Boolean);

export function ServicesPage() {
  if (!isAdmin()) return <p>{T.forbidden}</p>;
  return <Services />;
}

function Services() {
  const list = useList<ServiceAccount>((_, stop) => listServiceAccounts(stop));
  const [edited, edit] = useState<ServiceAccount | null>(null);
  const onEdit = (s: ServiceAccount) => void list.run(async () => edit(await getServiceAccount(s.id)));
  return (
    <>
      <section class="sec services" aria-labelledby="services-title">
        <header><h1 id="services-title">{T.title}</h1><p class="long">{T.how}</p></header>
        <Fault of={list} />
        {list.items?.length === 0 && <p class="quiet-note">{T.none}</p>}
        {list.items && list.items.length > 0 && (
          <Scroll labelledby="services-title">
            <table class="plain">
              <thead><tr><th scope="col">{T.name}</th><th scope="col">{T.publish}</th><th scope="col">{T.subscribe}</th><th scope="col">{T.state}</th><th scope="col">{T.expires}</th><td /></tr></thead>
              <tbody>{list.items.map((s) => <Row key={s.id} of={s} list={list} onEdit={onEdit} />)}</tbody>
            </table>
          </Scroll>
        )}
      </section>
      {edited && <ChangeForm key={edited.id} of={edited} onDone={() => { edit(null); list.reload(); }} />}
      <MakeForm list={list} />
    </>
  );
}

function Row({ of: s, list, onEdit }: { of: ServiceAccount; list: List<ServiceAccount>; onEdit: (s: ServiceAccount) => void }) {
  const filters = (f: string[]) => (f.length > 0 ? <span class="mono">{f.join(" ")}</span> : <span class="idle">{T.nothing}</span>);
  return (
    <tr data-account={s.name}>
      <th scope="row">{s.name}</th>
      <td>{filters(s.publish)}</td>
      <td>{filters(s.subscribe)}</td>
      <td>{s.disabled ? T.off : T.on}</td>
      <td>{s.expires_at ? day(s.expires_at) : T.never}</td>
      <td class="acts">
        <button type="button" class="btn txt" aria-label={`${T.change} ${s.name}`} onClick={() => onEdit(s)}>{T.change}</button>
        <button type="button" class="btn txt" aria-label={`${s.disabled ? T.enable : T.disable} ${s.name}`} onClick={() => void list.run(() => changeServiceAccount(s.id, { disabled: !s.disabled }))}>{s.disabled ? T.enable : T.disable}</button>
        <Sure word={T.drop} sure={T.dropSure} of={s.name} onSure={() => void list.run(() => deleteServiceAccount(s.id))} />
      </td>
    </tr>
  );
}

/** Changes the topics of an account, bound to how it was when the form was opened. */
function ChangeForm({ of: s, onDone }: { of: ServiceAccount; onDone: () => void }) {
  const form = useForm({ publish: s.publish.join("\n"), subscribe: s.subscribe.join("\n") });
  const submit = form.submit(async (v) => {
    await changeServiceAccount(s.id, changing(s, { publish: lines(v.publish), subscribe: lines(v.subscribe) }));
    onDone();
  });
  return (
    <section class="sec changeservice" aria-labelledby="changeservice-title">
      <header><h2 id="changeservice-title">{s.name}</h2></header>
      <form class="stack" onSubmit={submit}>
        <Area form={form} name="publish" label={T.publish} hint={T.filters} mono />
        <Area form={form} name="subscribe" label={T.subscribe} hint={T.filters} mono />
        <div class="act"><Submit form={form}>{T.save}</Submit><button type="button" class="btn txt" onClick={onDone}>{T.cancel}</button></div>
      </form>
    </section>
  );
}

function MakeForm({ list }: { list: List<ServiceAccount> }) {
  const form = useForm({ name: "", publish: "", subscribe: "", days: "0" });
  const [secret, setSecret] = useState("");
  const submit = form.submit(async (v) => {
    setSecret("");
    const made = await createServiceAccount({
      name: v.name.trim(), publish: lines(v.publish), subscribe: lines(v.subscribe),
      ...(v.days !== "0" && { expires_at: new Date(Date.now() + Number(v.days) * 86_400_000).toISOString() }),
    });
    setSecret(made.secret);
    form.clear();
    list.reload();
  });
  return (
    <section class="sec makeservice" aria-labelledby="makeservice-title">
      <header><h2 id="makeservice-title">{T.make}</h2></header>
      <form class="stack" onSubmit={submit}>
        <div class="row">
          <Field form={form} name="name" label={T.name} hint={T.nameHint} mono />
          <Choice form={form} name="days" label={T.expires} options={LIVES} />
          <Area form={form} name="publish" label={T.publish} hint={T.filters} mono />
          <Area form={form} name="subscribe" label={T.subscribe} hint={T.filters} mono />
        </div>
        <Submit form={form}>{T.submit}</Submit>
      </form>
      {secret && <div class="stack" role="status"><p>{T.once}</p><CopyLine text={secret} label={T.once} /></div>}
    </section>
  );
}
