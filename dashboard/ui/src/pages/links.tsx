// Where links in mails lead, and the page that asks for one. Opening them does nothing:
// programs that look at mails follow links too.

import { useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { go, linkToken } from "../lib/route";
import { acceptInvitation, confirmEmail, forgotPassword, resetPassword } from "../lib/schema.gen";
import { session } from "../lib/session";
import { Door, Field, Submit } from "../parts/field";
import { enter } from "./signin";

const T = {
  rules: "10 to 128 characters; neither your e-mail address nor your name.",
  name: "Your name",
  email: "E-mail",
  password: "Password",
  newPassword: "New password",
  signIn: "Go to sign-in",
  home: "Go to the dashboard",
  none: "This page needs the link from the mail: open it again.",
  invite: { title: "Accept the invitation", how: "Choose a name and a password; then you are signed in.", submit: "Accept" },
  forgot: {
    title: "Forgot the password", how: "Enter your e-mail address. If there is an account with it, a link that sets a new password is mailed there.",
    submit: "Send the link", done: "If there is an account with this address, a link is on its way. It is good for an hour.",
  },
  reset: { title: "Set a new password", how: "All your sessions end; sign in with the new password.", submit: "Set the password", done: "The password is set." },
  confirm: { title: "Confirm the e-mail address", how: "Press the button to confirm that this address is yours.", submit: "Confirm", done: "The address is confirmed." },
};

/** What stays to be done when a form has done its work. */
function Done({ text }: { text: string }) {
  const signedIn = session.value === "in";
  return (
    <>
      <p role="status">{text}</p>
      <div class="ways"><a class="btn pri" href="/devices">{signedIn ? T.home : T.signIn}</a></div>
    </>
  );
}

export function InvitePage() {
  const form = useForm({ name: "", password: "" });
  const submit = form.submit(async (v) => {
    await acceptInvitation({ token: linkToken(), name: v.name.trim(), password: v.password });
    await enter();
    go("/devices", true);
  });
  return (
    <Door title={T.invite.title}>
      <h1>{T.invite.title}</h1>
      <p>{linkToken() ? T.invite.how : T.none}</p>
      {linkToken() && (
        <form class="stack" onSubmit={submit}>
          <Field form={form} name="name" label={T.name} autocomplete="name" focus />
          <Field form={form} name="password" label={T.password} type="password" autocomplete="new-password" hint={T.rules} />
          <Submit form={form}>{T.invite.submit}</Submit>
        </form>
      )}
    </Door>
  );
}

export function ForgotPage() {
  const form = useForm({ email: "" });
  const [done, setDone] = useState(false);
  const submit = form.submit(async (v) => {
    await forgotPassword({ email: v.email.trim() });
    setDone(true);
  });
  return (
    <Door title={T.forgot.title}>
      <h1>{T.forgot.title}</h1>
      {done ? <Done text={T.forgot.done} /> : (
        <>
          <p>{T.forgot.how}</p>
          <form class="stack" onSubmit={submit}>
            <Field form={form} name="email" label={T.email} type="email" autocomplete="username" focus />
            <Submit form={form}>{T.forgot.submit}</Submit>
          </form>
        </>
      )}
    </Door>
  );
}

export function ResetPage() {
  const form = useForm({ password: "" });
  const [done, setDone] = useState(false);
  const submit = form.submit(async (v) => {
    await resetPassword({ token: linkToken(), password: v.password });
    session.value = "out";
    setDone(true);
  });
  return (
    <Door title={T.reset.title}>
      <h1>{T.reset.title}</h1>
      {done ? <Done text={T.reset.done} /> : (
        <>
          <p>{linkToken() ? T.reset.how : T.none}</p>
          {linkToken() && (
            <form class="stack" onSubmit={submit}>
              <Field form={form} name="password" label={T.newPassword} type="password" autocomplete="new-password" hint={T.rules} focus />
              <Submit form={form}>{T.reset.submit}</Submit>
            </form>
          )}
        </>
      )}
    </Door>
  );
}

export function ConfirmPage() {
  const form = useForm<never>({} as Record<never, string>);
  const [done, setDone] = useState(false);
  const submit = form.submit(async () => {
    await confirmEmail({ token: linkToken() });
    setDone(true);
  });
  return (
    <Door title={T.confirm.title}>
      <h1>{T.confirm.title}</h1>
      {done ? <Done text={T.confirm.done} /> : (
        <>
          <p>{linkToken() ? T.confirm.how : T.none}</p>
          {linkToken() && <form class="stack" onSubmit={submit}><Submit form={form}>{T.confirm.submit}</Submit></form>}
        </>
      )}
    </Door>
  );
}
