// Shown to who followed the set-up link, whose session is nobody's yet.

import { useForm } from "../lib/form";
import { isPutOff, later } from "../lib/later";
import { route } from "../lib/route";
import { setUp } from "../lib/schema.gen";
import { me } from "../lib/session";
import { Field, Submit } from "../parts/field";
import { enter } from "./signin";

const T = {
  title: "Make your admin account",
  how: "You came by the set-up link, which works once. With an account you can sign in again, from any browser.",
  name: "Name",
  email: "E-mail",
  password: "Password",
  rules: "10 to 128 characters",
  submit: "Make the account",
  later: "Later",
};

/** The form, on every page until it is put off, and then where one's account is. */
export function SetupPanel() {
  if (!me.value?.setup || (isPutOff() && route.value.page !== "account")) return null;
  return <SetupForm />;
}

function SetupForm() {
  const form = useForm({ name: "", email: "", password: "" });
  const submit = form.submit(async (v) => {
    await setUp({ name: v.name.trim(), email: v.email.trim(), password: v.password });
    await enter();
  });
  return (
    <section class="sec setup" aria-labelledby="setup-title">
      <header>
        <h2 id="setup-title">{T.title}</h2>
        {!isPutOff() && <div class="r"><button type="button" class="btn txt" onClick={later}>{T.later}</button></div>}
      </header>
      <p>{T.how}</p>
      <form class="row" onSubmit={submit}>
        <Field form={form} name="name" label={T.name} autocomplete="name" optional />
        <Field form={form} name="email" label={T.email} type="email" autocomplete="username" />
        <Field form={form} name="password" label={T.password} type="password" autocomplete="new-password" hint={T.rules} />
        <Submit form={form}>{T.submit}</Submit>
      </form>
    </section>
  );
}
