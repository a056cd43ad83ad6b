// My account: name, password, e-mail, second factor, sessions.

import { useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { me, session } from "../lib/session";
import { changeMe, changeMyEmail, changeMyPassword, requestConfirmation, signOut as endSession, type User } from "../lib/schema.gen";
import { Field, Submit } from "../parts/field";
import { enter } from "./signin";
import { SecondFactor } from "./secondfactor";
import { Sessions } from "./sessions";

const T = {
  title: "My account",
  none: "This browser is signed in without an account: by an API key or the set-up link.",
  signOut: "Sign out",
  name: "Name",
  save: "Save",
  saved: "Saved.",
  password: "Password",
  old: "Password now",
  next: "New password",
  rules: "10 to 128 characters; your other sessions end.",
  change: "Change the password",
  changed: "The password is changed; your other sessions have ended.",
  email: "E-mail",
  newEmail: "New e-mail address",
  move: "Send the link",
  moved: "If the address is free, a link is on its way there. It counts when you have followed the link.",
  confirmed: "confirmed",
  unconfirmed: "not confirmed yet",
  confirm: "Send the link that confirms it",
  sent: "A link is on its way.",
};

export function AccountPage() {
  const u = me.value?.user;
  const signOut = async () => {
    await endSession().catch(() => undefined); // over either way
    session.value = "out";
  };
  return (
    <>
      <section class="sec" aria-labelledby="account-title">
        <header>
          <h1 id="account-title">{T.title}</h1>
          <p>{u ? `${u.email}, ${u.role}` : ""}</p>
          <div class="r"><button type="button" class="btn" onClick={signOut}>{T.signOut}</button></div>
        </header>
        {u ? <NameForm user={u} /> : <p>{T.none}</p>}
      </section>
      {u?.has_password && <PasswordForm />}
      {u && <EmailForm user={u} />}
      {u && <SecondFactor user={u} />}
      {u && <Sessions />}
    </>
  );
}

function NameForm({ user }: { user: User }) {
  const form = useForm({ name: user.name });
  const [said, say] = useState("");
  const submit = form.submit(async (v) => {
    say("");
    await changeMe({ name: v.name.trim() });
    await enter();
    say(T.saved);
  });
  return (
    <form class="row" onSubmit={submit}>
      <Field form={form} name="name" label={T.name} autocomplete="name" optional />
      <Submit form={form}>{T.save}</Submit>
      <p role="status">{said}</p>
    </form>
  );
}

function PasswordForm() {
  const form = useForm({ old: "", password: "" });
  const [said, say] = useState("");
  const submit = form.submit(async (v) => {
    say("");
    await changeMyPassword(v);
    form.clear();
    say(T.changed);
  });
  return (
    <section class="sec" aria-labelledby="password-title">
      <header><h2 id="password-title">{T.password}</h2></header>
      <form class="row" onSubmit={submit}>
        <Field form={form} name="old" label={T.old} type="password" autocomplete="current-password" />
        <Field form={form} name="password" label={T.next} type="password" autocomplete="new-password" hint={T.rules} />
        <Submit form={form}>{T.change}</Submit>
        <p role="status">{said}</p>
      </form>
    </section>
  );
}

function EmailForm({ user }: { user: User }) {
  const form = useForm({ email: "", password: "" });
  const [said, say] = useState("");
  const confirm = form.submit(async () => {
    await requestConfirmation();
    say(T.sent);
  });
  const submit = form.submit(async (v) => {
    say("");
    await changeMyEmail({ email: v.email.trim(), password: v.password });
    form.clear();
    say(T.moved);
  });
  return (
    <section class="sec" aria-labelledby="email-title">
      <header>
        <h2 id="email-title">{T.email}</h2>
        <p>{user.email}, {user.confirmed ? T.confirmed : T.unconfirmed}</p>
        <div class="r">{!user.confirmed && <button type="button" class="btn" onClick={confirm}>{T.confirm}</button>}</div>
      </header>
      {user.has_password && (
        <form class="row" onSubmit={submit}>
          <Field form={form} name="email" label={T.newEmail} type="email" autocomplete="email" />
          <Field form={form} name="password" label={T.old} type="password" autocomplete="current-password" />
          <Submit form={form}>{T.move}</Submit>
        </form>
      )}
      <p role="status">{said}</p>
    </section>
  );
}
