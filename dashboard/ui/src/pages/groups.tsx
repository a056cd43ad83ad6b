// The groups: which there are, how many devices each has, and a new one.

import { useEffect, useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { count, plural } from "../lib/format";
import { after, useList, type List } from "../lib/list";
import { tokens } from "../lib/query";
import { go, listPath } from "../lib/route";
import { listDevices, listGroups, putGroup, type Group } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Choice } from "../parts/choice";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { QueryBox } from "../parts/querybox";
import { Scroll } from "../parts/scroll";

export const KINDS = { static: "static", query: "by query" } as const;

const T = {
  title: "Groups",
  how: "A static group has the devices that are put into it. A group by query has, at each moment, the devices that match.",
  make: "New group",
  needs: "This needs the role operator.",
  none: "There is no group yet. Groups are filters, hold wanted state for all their devices, and say whom a rollout is for.",
  noneStart: "Put devices into a static group on the page Devices: select them there.",
  name: "Name",
  nameHint: "letters, digits, dot, _ and -",
  kind: "Kind",
  description: "Description",
  query: "Query",
  submit: "Make the group",
  group: "Group",
  members: "Devices",
  matching: (n: number) => `${plural(n, "device matches", "devices match")} now.`,
  within: "within",
  more: "More",
};

export function groupPath(name: string): string {
  return "/groups/" + encodeURIComponent(name);
}

/** The list of the devices of a group. */
export function membersPath(name: string): string {
  return listPath(`group:${name}`, "id", "");
}

/** The groups that a saved query names. */
export function groupsIn(query: string): string[] {
  return [...new Set(tokens(query).flatMap((t) => /^group(?::|=|!=)([\w.-]+)$/.exec(t)?.[1] ?? []))];
}

export function GroupsPage() {
  const list = useList<Group>((at, stop) => listGroups(after(at), stop));
  const [making, setMaking] = useState(false);
  const entitled = may("devices:write");
  const none = list.items?.length === 0;
  return (
    <>
      <section class="sec groups" aria-labelledby="groups-title">
        <header>
          <h1 id="groups-title">{T.title}</h1><p class="long">{T.how}</p>
          <div class="r"><button type="button" class="btn" disabled={!entitled} title={entitled ? undefined : T.needs} onClick={() => setMaking(true)}>{T.make}</button></div>
        </header>
        <Fault of={list} />
        {none && <p class="quiet-note">{T.none} {T.noneStart}</p>}
        {list.items && list.items.length > 0 && <Table list={list} />}
        {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
      </section>
      {(making || none) && entitled && <MakeForm />}
    </>
  );
}

function Table({ list }: { list: List<Group> }) {
  return (
    <Scroll labelledby="groups-title">
      <table class="plain">
        <thead><tr><th scope="col">{T.group}</th><th scope="col">{T.kind}</th><th scope="col">{T.query}</th><th scope="col">{T.description}</th><th scope="col" class="n">{T.members}</th></tr></thead>
        <tbody>
          {list.items?.map((g) => (
            <tr key={g.name} data-group={g.name}>
              <th scope="row"><a class="to" href={groupPath(g.name)}>{g.name}</a></th>
              <td>{KINDS[g.kind]}</td>
              <td class="mono query">{g.query}</td>
              <td>{g.description}</td>
              <td class="n"><a class="link val" href={membersPath(g.name)} aria-label={`${count(g.devices)}: ${g.name}`}>{count(g.devices)}</a></td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function MakeForm() {
  const form = useForm({ name: "", kind: "static", description: "", query: "" });
  const submit = form.submit(async (v) => {
    await putGroup(v.name.trim(), { ...(v.description.trim() && { description: v.description.trim() }), ...(v.kind === "query" && { query: v.query.trim() }) });
    go(groupPath(v.name.trim()));
  });
  return (
    <section class="sec makegroup" aria-labelledby="makegroup-title">
      <header><h2 id="makegroup-title">{T.make}</h2></header>
      <form class="stack" onSubmit={submit}>
        <div class="row">
          <Field form={form} name="name" label={T.name} hint={T.nameHint} mono focus />
          <Choice form={form} name="kind" label={T.kind} options={[["static", KINDS.static], ["query", KINDS.query]]} />
          <Field form={form} name="description" label={T.description} optional />
        </div>
        {form.values.kind === "query" && <QueryField value={form.values.query} fault={form.faults.query ?? ""} onQuery={(q) => form.set("query", q)} />}
        <Submit form={form}>{T.submit}</Submit>
      </form>
    </section>
  );
}

/** A query in a form, with how many match it now. */
export function QueryField({ value, fault, onQuery }: { value: string; fault: string; onQuery: (q: string) => void }) {
  const [said, say] = useState<{ n: number; fault: string }>({ n: -1, fault: "" });
  useEffect(() => {
    say({ n: -1, fault: "" });
    if (!value) return;
    const stop = new AbortController();
    const timer = setTimeout(() => {
      listDevices({ q: value, limit: 1, total: true }, stop.signal).then((p) => say({ n: p.total ?? 0, fault: "" }), (e: unknown) => stop.signal.aborted || say({ n: -1, fault: e instanceof Error ? e.message : "" }));
    }, 250);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [value]);
  return (
    <div class="field wide">
      <QueryBox value={value} fault={fault || said.fault} onQuery={onQuery} label={T.query} name="query" />
      <p class="hint" role="status">{said.n >= 0 ? T.matching(said.n) : ""}</p>
    </div>
  );
}
