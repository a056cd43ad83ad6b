// The adoption inbox: clients that came with an adoption key, what they send, and whether they become devices.

import { useEffect, useState } from "preact/hooks";
import { adoptAll, forgetCandidates, knocks, lookAtCandidates, refuseAll, type Knock } from "../lib/adoption";
import { message } from "../lib/api";
import { now } from "../lib/clock";
import { useForm } from "../lib/form";
import { ago, count, plural } from "../lib/format";
import { isLive } from "../lib/live";
import { devicePath, search, setSearch } from "../lib/route";
import { listProfiles, type Adoption } from "../lib/schema.gen";
import { isAdmin, may } from "../lib/session";
import { Done } from "../parts/bar";
import { Choice } from "../parts/choice";
import { CopyLine } from "../parts/copyline";
import { Field, Submit } from "../parts/field";
import { Scroll } from "../parts/scroll";
import { Sure } from "../parts/sure";
import { AdoptionKeys } from "./adoptionkeys";
import { Blocked } from "./blocked";
import { CandidatePanel } from "./candidate";

const T = {
  title: "Adoption",
  how: "Clients that came with an adoption key wait here: nobody gets what they send, and they hear nothing, until somebody adopts them.",
  waiting: (n: number) => (n === 0 ? "Nobody waits." : `${plural(n, "client waits", "clients wait")}.`),
  none: "Nobody waits to be adopted. A client that connects with an adoption key as its password appears here by itself.",
  noneKey: "An adoption key is made below.",
  needs: "This needs the role operator.",
  client: "Client", user: "User name", from: "From", key: "Key", first: "Since", heard: "Last heard of", messages: "Messages",
  select: (id: string) => `Select ${id}`, all: "Select all that wait",
  chosen: (n: number) => `${count(n)} selected`,
  adopt: (n: number) => `Adopt ${plural(n, "client", "clients")}`,
  refuse: (n: number) => `Refuse ${count(n)}`, refuseSure: (n: number) => `Refuse ${count(n)}, and keep out?`,
  clear: "Clear",
  look: "Look", lookAt: (id: string) => `Look at ${id}`,
  fates: { waits: "", adopted: "adopted", refused: "refused", gone: "no longer there" } satisfies Record<Knock["fate"], string>,
  becomes: "What they become",
  id: "Device id", idHint: "The candidate's when empty", name: "Name", profile: "Profile", tags: "Tags", tagsHint: "k=v, with spaces between",
  badTag: "A tag is k=v.",
  progress: (n: number, of: number) => `${count(n)} of ${count(of)}`,
  tokens: "Tokens of the new devices",
  tokensHow: "They are shown only now, and kept only by this page. Use them instead of the adoption key when you can.",
};

const LOOK_MS = 3000;

export function AdoptionPage() {
  const [fault, setFault] = useState("");
  const [chosen, choose] = useState<ReadonlySet<string>>(new Set());
  const live = isLive();
  const tick = Math.floor(now.value / LOOK_MS);
  useEffect(() => {
    if (document.hidden || (!live && knocks.peek())) return;
    const stop = new AbortController();
    lookAtCandidates(stop.signal).then(() => setFault(""), (e: unknown) => stop.signal.aborted || setFault(message(e)));
    return () => stop.abort();
  }, [tick, live]);
  useEffect(() => forgetCandidates, []);
  const all = [...(knocks.value?.values() ?? [])];
  const waiting = all.filter((k) => k.fate === "waits").map((k) => k.of.id);
  const picked = waiting.filter((id) => chosen.has(id));
  const open = search.value.get("of") ?? "";
  return (
    <>
      <section class="sec adoption" aria-labelledby="adoption-title">
        <header><h1 id="adoption-title">{T.title}</h1><p class="long">{T.how}</p>{knocks.value && <p class="r val" role="status">{T.waiting(waiting.length)}</p>}</header>
        <p class="error" role="alert">{fault}</p>
        {!may("devices:write") && <p class="hint">{T.needs}</p>}
        {knocks.value && all.length === 0 && <p class="quiet-note">{T.none} {isAdmin() && T.noneKey}</p>}
        {all.length > 0 && <Table all={all} waiting={waiting} chosen={chosen} choose={choose} open={open} />}
      </section>
      {picked.length > 0 && <Decide ids={picked} onDone={() => choose(new Set())} />}
      <Tokens all={all} />
      {open && <CandidatePanel key={open} id={open} onClose={() => setSearch({ of: "" }, true)} />}
      <Blocked news={all.filter((k) => k.fate === "refused").length} />
      {isAdmin() && <AdoptionKeys />}
    </>
  );
}

interface TableProps {
  all: Knock[];
  waiting: string[];
  chosen: ReadonlySet<string>;
  choose: (c: ReadonlySet<string>) => void;
  open: string;
}

function Table({ all, waiting, chosen, choose, open }: TableProps) {
  const entitled = may("devices:write");
  const toggle = (id: string) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    choose(next);
  };
  const every = waiting.length > 0 && waiting.every((id) => chosen.has(id));
  const box = <input type="checkbox" aria-label={T.all} disabled={!entitled} checked={every} onChange={() => choose(new Set(every ? [] : waiting))} />;
  return (
    <>
      <label class="check every">{box} {T.all}</label>
      <Scroll labelledby="adoption-title">
        <table class="plain candidates">
          <thead><tr><th scope="col"><label class="check">{box} {T.client}</label></th><th scope="col">{T.user}</th><th scope="col">{T.from}</th><th scope="col">{T.key}</th><th scope="col">{T.first}</th><th scope="col">{T.heard}</th><th scope="col" class="n">{T.messages}</th><td /></tr></thead>
          <tbody>
            {all.map((k) => (
              <tr key={k.of.id} data-candidate={k.of.id} data-fate={k.fate} class={k.fate === "gone" || k.fate === "refused" ? "idle" : ""}>
                <th scope="row"><label class="check"><input type="checkbox" aria-label={T.select(k.of.id)} disabled={!entitled || k.fate !== "waits"} checked={k.fate === "waits" && chosen.has(k.of.id)} onChange={() => toggle(k.of.id)} /> <span class="mono">{k.of.id}</span></label></th>
                <td><span class="mono">{k.of.username}</span></td>
                <td><span class="mono">{k.of.peer}</span></td>
                <td>{k.of.adoption_key}</td>
                <td><time title={k.of.first_at}>{ago(Date.parse(k.of.first_at), now.value)}</time></td>
                <td class="val"><time title={k.of.last_at}>{ago(Date.parse(k.of.last_at), now.value)}</time></td>
                <td class="n val">{count(k.of.messages)}</td>
                <td class="acts">
                  {k.device ? <a class="link" href={devicePath(k.device)}>{T.fates.adopted}</a> : T.fates[k.fate]}
                  {k.fate === "waits" && <button type="button" class="btn txt" aria-label={T.lookAt(k.of.id)} aria-expanded={open === k.of.id} onClick={() => setSearch({ of: open === k.of.id ? "" : k.of.id }, true)}>{T.look}</button>}
                  {k.fault && <span class="error" role="alert">{k.fault}</span>}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}

/** The tags of a text such as site=berlin hall=3; null when it is no such. */
function tagsOf(text: string): Record<string, string> | null {
  const pairs = text.split(/\s+/).filter(Boolean).map((p) => /^([^=]+)=(.*)$/.exec(p));
  return pairs.every(Boolean) ? Object.fromEntries(pairs.map((m) => [m![1]!, m![2]!])) : null;
}

function Decide({ ids, onDone }: { ids: string[]; onDone: () => void }) {
  const form = useForm({ id: "", name: "", profile: "default", tags: "" });
  const [profiles, setProfiles] = useState<string[]>(["default"]);
  const [far, setFar] = useState<{ n: number; of: number } | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    listProfiles(stop.signal).then((p) => setProfiles(p.items.map((x) => x.name)), () => undefined); // there is default
    return () => stop.abort();
  }, []);
  const run = async (work: (onEach: (n: number) => void) => Promise<void>) => {
    setFar({ n: 0, of: ids.length });
    await work((n) => setFar({ n, of: ids.length }));
    onDone();
  };
  const one = ids.length === 1;
  const submit = form.submit(async (v) => {
    const tags = tagsOf(v.tags);
    if (!tags) return form.refuse("tags", T.badTag);
    const how: Adoption = { profile: v.profile, tags, ...(one && v.id.trim() && { id: v.id.trim() }), ...(one && v.name.trim() && { name: v.name.trim() }) };
    await run((onEach) => adoptAll(ids, how, onEach));
  });
  return (
    <section class="sec decide" aria-labelledby="decide-title">
      <header>
        <h2 id="decide-title">{T.becomes}</h2><p role="status">{T.chosen(ids.length)}</p>
        <div class="r">
          <Sure word={T.refuse(ids.length)} sure={T.refuseSure(ids.length)} of="" onSure={() => void run((onEach) => refuseAll(ids, onEach))} />
          <button type="button" class="btn txt" onClick={onDone}>{T.clear}</button>
        </div>
      </header>
      <form class="row" onSubmit={submit}>
        {one && <Field form={form} name="id" label={T.id} hint={T.idHint} mono optional />}
        {one && <Field form={form} name="name" label={T.name} optional />}
        <Choice form={form} name="profile" label={T.profile} options={profiles.map((p) => [p, p] as const)} />
        <Field form={form} name="tags" label={T.tags} hint={T.tagsHint} mono optional />
        <Submit form={form}>{T.adopt(ids.length)}</Submit>
      </form>
      {far && <div role="status"><Done done={far.n} total={far.of} label={T.progress(far.n, far.of)} /><p>{T.progress(far.n, far.of)}</p></div>}
    </section>
  );
}

/** What is shown once, of those that were adopted here. */
function Tokens({ all }: { all: Knock[] }) {
  const made = all.filter((k) => k.token);
  if (made.length === 0) return null;
  return (
    <section class="sec tokens" aria-labelledby="tokens-title">
      <header><h2 id="tokens-title">{T.tokens}</h2><p class="long">{T.tokensHow}</p></header>
      <CopyLine text={made.map((k) => `${k.device},${k.token}`).join("\n")} label={T.tokens} />
    </section>
  );
}
