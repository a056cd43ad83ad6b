// One group: its devices, what they are wanted to do, and what may be changed.

import { useEffect, useState } from "preact/hooks";
import { changing, message } from "../lib/api";
import { useAsked } from "../lib/ask";
import { useForm } from "../lib/form";
import { plural } from "../lib/format";
import { go } from "../lib/route";
import { deleteGroup, getGroup, getGroupDesired, listGroups, putGroup, putGroupDesired, type Group, type GroupParts } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Sure } from "../parts/sure";
import { Wanted, type Level } from "../parts/wanted";
import { groupPath, groupsIn, KINDS, membersPath, QueryField } from "./groups";

const T = {
  needs: "This needs the role operator.",
  static: "Static: it has the devices that are put into it.",
  query: "By query: its devices are those that match at the moment.",
  devices: (n: number) => plural(n, "device", "devices"),
  none: "No device is in it.",
  noneStatic: "Select devices on the page Devices, and put them into it there.",
  parts: "Its query refers to",
  users: "The queries of these groups refer to it",
  settings: "Settings",
  description: "Description",
  save: "Save",
  saved: "Saved.",
  drop: "Delete the group",
  dropSure: "Delete it? Its devices stay.",
  desired: "Wanted of its devices",
  desiredHow: "A document that each device of the group is wanted to have, over what its profile says and under what is its own.",
  desiredQuery: "Only static groups have one: who is in a group by query changes by itself.",
};

export function GroupPage({ id }: { id: string }) {
  const [fault, setFault] = useState("");
  const [turn, setTurn] = useState(0);
  const asked = useAsked((stop) => getGroup(id, stop), id, turn);
  const group = asked.answer;
  if (!group) return <><h1 class="vh">{id}</h1><Fault of={asked} /></>;
  const drop = async () => {
    setFault("");
    try {
      await deleteGroup(group.name);
      go("/groups");
    } catch (e) {
      setFault(message(e));
    }
  };
  return (
    <>
      <section class="sec group" aria-labelledby="group-title">
        <header>
          <h1 id="group-title">{group.name}</h1><p>{KINDS[group.kind]}</p>
          <div class="r">{may("devices:write") ? <Sure word={T.drop} sure={T.dropSure} of={group.name} onSure={drop} /> : <button type="button" class="btn" disabled title={T.needs}>{T.drop}</button>}</div>
        </header>
        <Fault of={asked} />
        <p class="error" role="alert">{fault}</p>
        <p><a class="link members" href={membersPath(group.name)}>{T.devices(group.devices)}</a> <span class="off">{group.kind === "static" ? T.static : T.query}</span></p>
        {group.devices === 0 && <p class="quiet-note">{T.none} {group.kind === "static" && T.noneStatic}</p>}
        <Family group={group} />
      </section>
      <Settings key={turn} group={group} onSaved={() => setTurn(turn + 1)} />
      <Wanted title={T.desired} how={T.desiredHow} none={group.kind === "static" ? "" : T.desiredQuery} of={levelOf(group.name)} />
    </>
  );
}

function levelOf(name: string): Level {
  return { read: (stop) => getGroupDesired(name, stop), write: (over, state) => putGroupDesired(name, changing(over, state)), query: `group:${name}` };
}

/** The groups that its query names, and those whose queries name it. */
function Family({ group }: { group: Group }) {
  const [users, setUsers] = useState<string[]>([]);
  useEffect(() => {
    const stop = new AbortController();
    listGroups({ limit: 1000 }, stop.signal).then((p) => setUsers(p.items.filter((g) => g.query && groupsIn(g.query).includes(group.name)).map((g) => g.name)), () => {}); // the page says enough without
    return () => stop.abort();
  }, [group.name]);
  const names = (word: string, list: string[]) => list.length > 0 && <p>{word}: {list.map((n, i) => <span key={n}>{i > 0 && ", "}<a class="link" href={groupPath(n)}>{n}</a></span>)}</p>;
  return <>{names(T.parts, groupsIn(group.query ?? ""))}{names(T.users, users)}</>;
}

function Settings({ group, onSaved }: { group: Group; onSaved: () => void }) {
  const form = useForm({ description: group.description, query: group.query ?? "" });
  const entitled = may("devices:write");
  const submit = form.submit(async (v) => {
    const parts: GroupParts = { ...(v.description.trim() && { description: v.description.trim() }), ...(group.kind === "query" && { query: v.query.trim() }) };
    await putGroup(group.name, changing(group, parts));
    onSaved();
  });
  return (
    <section class="sec groupsettings" aria-labelledby="groupsettings-title">
      <header><h2 id="groupsettings-title">{T.settings}</h2></header>
      <form class="stack" onSubmit={submit}>
        <fieldset class="stack" disabled={!entitled} title={entitled ? undefined : T.needs}>
          <Field form={form} name="description" label={T.description} optional />
          {group.kind === "query" && <QueryField value={form.values.query} fault={form.faults.query ?? ""} onQuery={(q) => form.set("query", q)} />}
          <Submit form={form}>{T.save}</Submit>
        </fieldset>
      </form>
    </section>
  );
}
