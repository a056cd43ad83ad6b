// Who has a role in a topic, and who is subscribed to it.

import { useEffect, useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { day } from "../lib/format";
import { after, useList } from "../lib/list";
import { deleteMember, deleteSubscription, listMembers, listTopicSubscriptions, listUsers, putMember, putSubscription, type Member, type Subscription, type Topic, type User, type Via } from "../lib/schema.gen";
import { isAdmin, may } from "../lib/session";
import { Choice } from "../parts/choice";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Sure } from "../parts/sure";

const ROLES = [["subscriber", "subscriber"], ["publisher", "publisher"], ["owner", "owner"]] as const;
const MOST = 1000; // users offered by name

const T = {
  members: "Members",
  membersHow: "Owners change the topic, publishers send.",
  subscribers: "Subscribers",
  who: "User or API key",
  whoHint: "Its id, usr_... or key_...",
  subject: "User or device",
  subjectHint: "The id of a user, or device: and the id of a device",
  role: "Role",
  add: "Add",
  drop: "Remove",
  sure: "Really remove?",
  none: "Nobody but the owner.",
  nobody: "Nobody is subscribed.",
  roleOf: (who: string) => `Role of ${who}`,
  more: "More",
  inboxOnly: "inbox only",
  muted: (t: string) => `muted until ${t}`,
};

/** Users by name, for whoever may list them. */
function useUsers(): User[] {
  const [users, setUsers] = useState<User[]>([]);
  useEffect(() => {
    if (!isAdmin()) return;
    const stop = new AbortController();
    listUsers({ limit: MOST }, stop.signal).then((p) => setUsers(p.items), () => undefined); // then ids are typed
    return () => stop.abort();
  }, []);
  return users;
}

function Users({ id, users }: { id: string; users: User[] }) {
  return <datalist id={id}>{users.map((u) => <option key={u.id} value={u.id}>{u.name || u.email}</option>)}</datalist>;
}

export function Members({ topic, owner }: { topic: Topic; owner: boolean }) {
  const list = useList<Member>((at, stop) => listMembers(topic.id, after(at), stop));
  const users = useUsers();
  const form = useForm({ principal: "", role: "subscriber" });
  const entitled = owner && may("topics:write");
  const submit = form.submit(async (v) => {
    await putMember(topic.id, v.principal.trim(), { role: v.role as Member["role"] });
    form.clear();
    list.reload();
  });
  const change = (m: Member, role: string) => list.run(() => putMember(topic.id, m.principal, { role: role as Member["role"] }));
  return (
    <section class="sec members" aria-labelledby="members-title">
      <header><h2 id="members-title">{T.members}</h2><p>{T.membersHow}</p></header>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.none}</p>}
      <table class="plain">
        <tbody>
          {list.items?.map((m) => (
            <tr key={m.principal}>
              <th scope="row">{m.name || <span class="mono">{m.principal}</span>}</th>
              <td>
                <select aria-label={T.roleOf(m.name || m.principal)} value={m.role} disabled={!entitled} onChange={(e) => change(m, e.currentTarget.value)}>
                  {ROLES.map(([r]) => <option key={r} value={r}>{r}</option>)}
                </select>
              </td>
              <td class="n">{entitled && <Sure word={T.drop} sure={T.sure} of={m.name || m.principal} onSure={() => void list.run(() => deleteMember(topic.id, m.principal))} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
      {entitled && (
        <form class="row" onSubmit={submit}>
          <Field form={form} name="principal" label={T.who} hint={T.whoHint} list="member-users" mono />
          <Choice form={form} name="role" label={T.role} options={ROLES} />
          <Submit form={form}>{T.add}</Submit>
          <Users id="member-users" users={users} />
        </form>
      )}
    </section>
  );
}

export function Subscribers({ topic, owner, turn, onChange }: { topic: Topic; owner: boolean; turn: number; onChange: () => void }) {
  const list = useList<Subscription>((at, stop) => listTopicSubscriptions(topic.id, after(at), stop), String(turn));
  const users = useUsers();
  const form = useForm({ subject: "" });
  const entitled = owner && may("topics:write");
  const submit = form.submit(async (v) => {
    const subject = v.subject.trim();
    await putSubscription(topic.id, subject, subject.startsWith("device:") ? { channels: [{ channel: "mqtt" }] } : {});
    form.clear();
    onChange();
  });
  const drop = (s: Subscription) => void list.run(() => deleteSubscription(topic.id, s.subject).then(onChange));
  return (
    <section class="sec subscribers" aria-labelledby="subscribers-title">
      <header><h2 id="subscribers-title">{T.subscribers}</h2></header>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{T.nobody}</p>}
      <table class="plain">
        <tbody>
          {list.items?.map((s) => (
            <tr key={s.subject}>
              <th scope="row">{s.name || <span class="mono">{s.subject}</span>}</th>
              <td>{owner && (s.channels?.length ? s.channels.map(words).join(", ") : T.inboxOnly)} {s.muted_until && <small>{T.muted(day(s.muted_until))}</small>}</td>
              <td class="n">{entitled && <Sure word={T.drop} sure={T.sure} of={s.name || s.subject} onSure={() => drop(s)} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
      {entitled && (
        <form class="row" onSubmit={submit}>
          <Field form={form} name="subject" label={T.subject} hint={T.subjectHint} list="subscriber-users" mono />
          <Submit form={form}>{T.add}</Submit>
          <Users id="subscriber-users" users={users} />
        </form>
      )}
    </section>
  );
}

function words(v: Via): string {
  return [v.channel, v.severity && v.severity !== "info" && `from ${v.severity}`, v.quiet && `quiet ${v.quiet.from} to ${v.quiet.to}`].filter(Boolean).join(" ");
}
