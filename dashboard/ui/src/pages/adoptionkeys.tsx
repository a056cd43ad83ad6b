// The keys that let unknown clients into the adoption inbox. For admins.

import { useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { day } from "../lib/format";
import { useList } from "../lib/list";
import { createAdoptionKey, deleteAdoptionKey, listAdoptionKeys, type AdoptionKey } from "../lib/schema.gen";
import { Choice } from "../parts/choice";
import { CopyLine } from "../parts/copyline";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Scroll } from "../parts/scroll";
import { Sure } from "../parts/sure";

const T = {
  title: "Adoption keys",
  how: "Devices put one where the password goes, beside any user name, or where the user name goes.",
  none: "There is no adoption key: nobody can come in to be adopted.",
  name: "Name", made: "Made", expires: "Expires", never: "never",
  drop: "Revoke", dropSure: "Revoke it, and cut its candidates?",
  submit: "Make the key",
  once: "This is the key. It is shown only now; the server keeps a hash of it.",
};

const LIVES = [["0", "never"], ["1", "tomorrow"], ["7", "in a week"], ["30", "in 30 days"]] as const;

export function AdoptionKeys() {
  const list = useList<AdoptionKey>((_, stop) => listAdoptionKeys(stop));
  const form = useForm({ name: "", days: "7" });
  const [secret, setSecret] = useState("");
  const submit = form.submit(async (v) => {
    setSecret("");
    const made = await createAdoptionKey({ name: v.name.trim(), ...(v.days !== "0" && { expires_at: new Date(Date.now() + Number(v.days) * 86_400_000).toISOString() }) });
    setSecret(made.secret);
    form.clear();
    list.reload();
  });
  return (
    <section class="sec adoptionkeys" aria-labelledby="adoptionkeys-title">
      <header><h2 id="adoptionkeys-title">{T.title}</h2><p class="long">{T.how}</p></header>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.none}</p>}
      {list.items && list.items.length > 0 && (
        <Scroll labelledby="adoptionkeys-title">
          <table class="plain">
            <thead><tr><th scope="col">{T.name}</th><th scope="col">{T.made}</th><th scope="col">{T.expires}</th><td /></tr></thead>
            <tbody>
              {list.items.map((k) => (
                <tr key={k.id} data-key={k.name}>
                  <th scope="row">{k.name}</th><td>{day(k.created_at)}</td><td>{k.expires_at ? day(k.expires_at) : T.never}</td>
                  <td class="acts"><Sure word={T.drop} sure={T.dropSure} of={k.name} onSure={() => void list.run(() => deleteAdoptionKey(k.id))} /></td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      <form class="row" onSubmit={submit}>
        <Field form={form} name="name" label={T.name} />
        <Choice form={form} name="days" label={T.expires} options={LIVES} />
        <Submit form={form}>{T.submit}</Submit>
      </form>
      {secret && <div class="stack" role="status"><p>{T.once}</p><CopyLine text={secret} label={T.once} /></div>}
    </section>
  );
}
