// Users: who may come in, and as what. For admins.

import { useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { day } from "../lib/format";
import { useList, type List } from "../lib/list";
import { isAdmin, me } from "../lib/session";
import { changeUser, clearUserTotp, createUser, deleteUser, listUsers, type ChangedUser, type User } from "../lib/schema.gen";
import { CopyLine } from "../parts/copyline";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";

type Role = User["role"];

const ROLES: readonly Role[] = ["viewer", "operator", "admin"];

const T = {
  title: "Users",
  forbidden: "Only admins look after users.",
  invite: "Invite a user",
  email: "E-mail",
  role: "Role",
  send: "Invite",
  link: (email: string) => `This link lets ${email} in within 7 days. It is shown only now; it is mailed too when the server has --smtp.`,
  user: "User",
  state: "State",
  last: "Last signed in",
  never: "never",
  invited: "invited",
  disabled: "disabled",
  active: "active",
  unconfirmed: "e-mail not confirmed",
  factor: "second factor",
  you: "you",
  roleOf: (who: string) => `Role of ${who}`,
  disable: "Disable",
  enable: "Enable",
  clear: "Remove second factor",
  drop: "Delete",
  sure: "Really delete?",
  more: "More",
};

export function UsersPage() {
  if (!isAdmin()) return <p>{T.forbidden}</p>;
  return <Users />;
}

function Users() {
  const list = useList<User>(listUsers);
  return (
    <>
      <section class="sec users" aria-labelledby="users-title">
        <header><h1 id="users-title">{T.title}</h1></header>
        <Fault of={list} />
        <div class="scroll">
          <table class="plain stacked">
            <thead><tr><th>{T.user}</th><th>{T.role}</th><th>{T.state}</th><th>{T.last}</th><th /></tr></thead>
            <tbody>{list.items?.map((u) => <Row key={u.id} user={u} list={list} />)}</tbody>
          </table>
        </div>
        {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
      </section>
      <InviteForm list={list} />
    </>
  );
}

function InviteForm({ list }: { list: List<User> }) {
  const form = useForm<"email" | "role">({ email: "", role: "viewer" });
  const [made, setMade] = useState<{ email: string; link: string } | null>(null);
  const submit = form.submit(async (v) => {
    setMade(null);
    const email = v.email.trim();
    const out = await createUser({ email, role: v.role as Role });
    setMade({ email, link: new URL(out.invitation ?? "", location.origin).href });
    form.clear();
    list.reload();
  });
  return (
    <section class="sec invite" aria-labelledby="invite-title">
      <header><h2 id="invite-title">{T.invite}</h2></header>
      <form class="row" onSubmit={submit}>
        <Field form={form} name="email" label={T.email} type="email" />
        <div class="field">
          <label for="invite-role">{T.role}</label>
          <RoleChoice id="invite-role" value={form.values.role} onChange={(r) => form.set("role", r)} />
        </div>
        <Submit form={form}>{T.send}</Submit>
      </form>
      {made && <div class="stack" role="status"><p>{T.link(made.email)}</p><CopyLine text={made.link} label={T.link(made.email)} /></div>}
    </section>
  );
}

function RoleChoice({ id, label, value, onChange }: { id?: string; label?: string; value: string; onChange: (r: Role) => void }) {
  return (
    <select id={id} aria-label={label} value={value} onChange={(e) => onChange(e.currentTarget.value as Role)}>
      {ROLES.map((r) => <option key={r} value={r}>{r}</option>)}
    </select>
  );
}

function Row({ user: u, list }: { user: User; list: List<User> }) {
  const [sure, setSure] = useState(false);
  const change = (body: ChangedUser) => list.run(() => changeUser(u.id, body));
  const mine = u.id === me.value?.user?.id;
  const who = u.email ?? u.name;
  return (
    <tr>
      <th scope="row">{u.name || u.email} {mine && <span class="tag">{T.you}</span>} {u.name && <small>{u.email}</small>}</th>
      <td data-label={T.role}><RoleChoice label={T.roleOf(who)} value={u.role} onChange={(role) => change({ role })} /></td>
      <td data-label={T.state}>{stateOf(u)}</td>
      <td data-label={T.last}>{u.last_login_at ? day(u.last_login_at) : T.never}</td>
      <td class="n acts">
        {u.second_factor && <button type="button" class="btn txt" aria-label={`${T.clear}, ${who}`} onClick={() => list.run(() => clearUserTotp(u.id))}>{T.clear}</button>}
        <button type="button" class="btn txt" aria-label={`${u.disabled ? T.enable : T.disable} ${who}`} onClick={() => change({ disabled: !u.disabled })}>{u.disabled ? T.enable : T.disable}</button>
        {sure
          ? <button type="button" class="btn" aria-label={`${T.sure} ${who}`} onBlur={() => setSure(false)} onClick={() => list.run(() => deleteUser(u.id))}>{T.sure}</button>
          : <button type="button" class="btn txt" aria-label={`${T.drop} ${who}`} onClick={() => setSure(true)}>{T.drop}</button>}
      </td>
    </tr>
  );
}

function stateOf(u: User): string {
  if (u.disabled) return T.disabled;
  if (!u.has_password && !u.external) return T.invited;
  return [T.active, !u.confirmed && T.unconfirmed, u.second_factor && T.factor].filter(Boolean).join(", ");
}
