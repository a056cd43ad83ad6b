// Shown when nobody is signed in.

import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../lib/api";
import { useForm } from "../lib/form";
import { me, session } from "../lib/session";
import { getMe, getSignInMethods, signIn, type Methods } from "../lib/schema.gen";
import { Door, Field, Submit } from "../parts/field";
import { Logo } from "../parts/logo";

const T = {
  title: "Sign in",
  how: "With your account, an API key, or the set-up link printed on the server's console.",
  email: "E-mail",
  password: "Password",
  submit: "Sign in",
  code: "Code",
  codeTitle: "Second factor",
  codeHow: "Enter the six digits that your authenticator shows, or one of your recovery codes.",
  codeWrong: "The code is wrong, or was used before.",
  back: "Back",
  forgot: "Forgot the password?",
  key: "API key",
  useKey: "Use an API key",
  usePassword: "Use e-mail and password",
  empty: "Enter the key; it begins with mst_.",
  provider: (name: string) => `Sign in with ${name}`,
};

/** Goes on as whoever has just signed in. */
export async function enter(): Promise<void> {
  me.value = await getMe();
  session.value = "in";
}

export function SignInPage() {
  const [byKey, setByKey] = useState(false);
  const [methods, setMethods] = useState<Methods | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    getSignInMethods(stop.signal).then(setMethods, () => setMethods(null)); // the form works without
    return () => stop.abort();
  }, []);
  return (
    <Door title={T.title}>
      <div class="brand"><Logo /><span>Muster<small>{location.host}</small></span></div>
      <h1>{T.title}</h1>
      <p>{T.how}</p>
      {byKey ? <KeyForm /> : <PasswordForm />}
      <div class="ways">
        {methods?.provider && <a class="btn" href={`${methods.provider.start}?next=${encodeURIComponent(location.pathname + location.search)}`}>{T.provider(methods.provider.name)}</a>}
        {methods?.mail && !byKey && <a class="link" href="/forgot">{T.forgot}</a>}
        <button type="button" class="btn txt" onClick={() => setByKey(!byKey)}>{byKey ? T.usePassword : T.useKey}</button>
      </div>
    </Door>
  );
}

function PasswordForm() {
  const form = useForm({ email: "", password: "", code: "" });
  const [asked, setAsked] = useState(false);
  const submit = form.submit(async (v) => {
    try {
      await signIn({ email: v.email.trim(), password: v.password, ...(asked && { code: v.code.trim() }) });
    } catch (e) {
      if (!(e instanceof ApiError) || e.status !== 401) throw e;
      if (e.code === "second_factor_needed") return setAsked(true);
      if (!asked) throw e;
      form.set("code", "");
      return form.refuse("code", T.codeWrong);
    }
    await enter();
  });
  if (!asked) {
    return (
      <form key="password" class="stack" onSubmit={submit}>
        <Field form={form} name="email" label={T.email} type="email" autocomplete="username" focus />
        <Field form={form} name="password" label={T.password} type="password" autocomplete="current-password" />
        <Submit form={form}>{T.submit}</Submit>
      </form>
    );
  }
  return (
    <form key="code" class="stack" onSubmit={submit} aria-label={T.codeTitle}>
      <p>{T.codeHow}</p>
      <Field form={form} name="code" label={T.code} autocomplete="one-time-code" mono focus />
      <Submit form={form}>{T.submit}</Submit>
      <button type="button" class="btn txt" onClick={() => setAsked(false)}>{T.back}</button>
    </form>
  );
}

function KeyForm() {
  const form = useForm({ key: "" });
  const submit = form.submit(async (v) => {
    if (!v.key.trim()) return form.refuse("key", T.empty);
    await signIn({ key: v.key.trim() });
    await enter();
  });
  return (
    <form class="stack" onSubmit={submit}>
      <Field form={form} name="key" label={T.key} type="password" mono optional focus />
      <Submit form={form}>{T.submit}</Submit>
    </form>
  );
}
