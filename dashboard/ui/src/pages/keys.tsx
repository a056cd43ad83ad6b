// API keys: what programs may do. For admins.

import { useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { day } from "../lib/format";
import { useList, type List } from "../lib/list";
import { isAdmin, me } from "../lib/session";
import { createAPIKey, deleteAPIKey, listAPIKeys, type ApiKey } from "../lib/schema.gen";
import { CopyLine } from "../parts/copyline";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";

const SCOPES = [
  "devices:read", "devices:write", "telemetry:read", "telemetry:write", "commands:send", "firmware:read", "firmware:write",
  "topics:read", "topics:write", "notify:send", "alerts:read", "alerts:write", "mqtt", "admin",
] as const;

/** How many days a key may live, and what that is called. */
const LIVES = [["0", "never"], ["30", "in 30 days"], ["90", "in 90 days"], ["365", "in a year"]] as const;

const T = {
  title: "API keys",
  forbidden: "Only admins look after API keys.",
  make: "Make an API key",
  name: "Name",
  scopes: "Scopes",
  selector: "Only devices",
  selectorHint: "A device query; empty for all. Not beside admin.",
  expires: "Expires",
  mine: "Ends with my account",
  submit: "Make the key",
  noScope: "Choose at least one scope.",
  once: "This is the key. It is shown only now; the server keeps a hash of it.",
  used: "Last used",
  never: "never",
  all: "all devices",
  drop: "Revoke",
  sure: "Really revoke?",
  more: "More",
  use: "What keys can do: the API",
};

export function KeysPage() {
  if (!isAdmin()) return <p>{T.forbidden}</p>;
  return <Keys />;
}

function Keys() {
  const list = useList<ApiKey>((_, stop) => listAPIKeys(stop));
  return (
    <>
      <section class="sec keys" aria-labelledby="keys-title">
        <header><h1 id="keys-title">{T.title}</h1><p class="r"><a class="link" href="/api/docs">{T.use}</a></p></header>
        <Fault of={list} />
        <div class="scroll">
          <table class="plain stacked">
            <thead><tr><th>{T.name}</th><th>{T.scopes}</th><th>{T.selector}</th><th>{T.used}</th><th>{T.expires}</th><th /></tr></thead>
            <tbody>{list.items?.map((k) => <Row key={k.id} apiKey={k} list={list} />)}</tbody>
          </table>
        </div>
      </section>
      <MakeForm list={list} />
    </>
  );
}

function MakeForm({ list }: { list: List<ApiKey> }) {
  const form = useForm({ name: "", selector: "", days: "0", scopes: "" });
  const [scopes, setScopes] = useState<readonly string[]>([]);
  const [mine, setMine] = useState(false);
  const [secret, setSecret] = useState("");
  const submit = form.submit(async (v) => {
    setSecret("");
    if (scopes.length === 0) return form.refuse("scopes", T.noScope);
    const made = await createAPIKey({
      name: v.name.trim(), scopes: [...scopes], ...(v.selector.trim() && { selector: v.selector.trim() }), ...(mine && { owner: "me" }),
      ...(v.days !== "0" && { expires_at: new Date(Date.now() + Number(v.days) * 86_400_000).toISOString() }),
    });
    setSecret(made.secret);
    form.clear();
    setScopes([]);
    list.reload();
  });
  const toggle = (s: string) => setScopes(scopes.includes(s) ? scopes.filter((x) => x !== s) : [...scopes, s]);
  return (
    <section class="sec makekey" aria-labelledby="makekey-title">
      <header><h2 id="makekey-title">{T.make}</h2></header>
      <form class="stack" onSubmit={submit}>
        <div class="row">
          <Field form={form} name="name" label={T.name} />
          <Field form={form} name="selector" label={T.selector} hint={T.selectorHint} mono optional />
          <div class="field">
            <label for="key-life">{T.expires}</label>
            <select id="key-life" value={form.values.days} onChange={(e) => form.set("days", e.currentTarget.value)}>
              {LIVES.map(([days, word]) => <option key={days} value={days}>{word}</option>)}
            </select>
          </div>
        </div>
        <fieldset>
          <legend>{T.scopes}</legend>
          {SCOPES.map((s) => (
            <label key={s} class="check"><input type="checkbox" checked={scopes.includes(s)} onChange={() => toggle(s)} /> <span class="mono">{s}</span></label>
          ))}
          <p class="error" role="alert">{form.faults.scopes}</p>
        </fieldset>
        {me.value?.user && <label class="check"><input type="checkbox" checked={mine} onChange={() => setMine(!mine)} /> {T.mine}</label>}
        <div><Submit form={form}>{T.submit}</Submit></div>
      </form>
      {secret && <div class="stack" role="status"><p>{T.once}</p><CopyLine text={secret} label={T.once} /></div>}
    </section>
  );
}

function Row({ apiKey: k, list }: { apiKey: ApiKey; list: List<ApiKey> }) {
  const [sure, setSure] = useState(false);
  return (
    <tr>
      <th scope="row">{k.name}</th>
      <td class="mono" data-label={T.scopes}>{k.scopes.join(" ")}</td>
      <td data-label={T.selector}>{k.selector ? <span class="mono">{k.selector}</span> : T.all}</td>
      <td data-label={T.used}>{k.last_used ? day(k.last_used) : T.never}</td>
      <td data-label={T.expires}>{k.expires_at ? day(k.expires_at) : T.never}</td>
      <td class="n">
        {sure
          ? <button type="button" class="btn" aria-label={`${T.sure} ${k.name}`} onBlur={() => setSure(false)} onClick={() => list.run(() => deleteAPIKey(k.id))}>{T.sure}</button>
          : <button type="button" class="btn txt" aria-label={`${T.drop} ${k.name}`} onClick={() => setSure(true)}>{T.drop}</button>}
      </td>
    </tr>
  );
}
