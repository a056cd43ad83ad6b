// Shown when nobody is signed in.

import { useState } from "preact/hooks";
import { call, message } from "../lib/api";
import { me, session } from "../lib/session";
import type { Me } from "../lib/types";
import { Logo } from "../parts/logo";

const T = {
  title: "Sign in",
  how: "Open the set-up link printed on the server's console, or sign in with an API key.",
  key: "API key",
  submit: "Sign in",
  empty: "Enter the key; it begins with mst_.",
};

export function SignInPage() {
  const [key, setKey] = useState("");
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (e: Event) => {
    e.preventDefault();
    if (!key.trim()) return setError(T.empty);
    setBusy(true);
    setError("");
    try {
      await call("POST", "/session", { key: key.trim() });
      me.value = await call<Me>("GET", "/me");
      session.value = "in";
    } catch (e) {
      setError(message(e));
    } finally {
      setBusy(false);
    }
  };
  return (
    <main class="signin" id="main">
      <div class="brand"><Logo /><span>Muster<small>{location.host}</small></span></div>
      <h1>{T.title}</h1>
      <p>{T.how}</p>
      <form onSubmit={submit}>
        <label for="key">{T.key}</label>
        <input id="key" type="password" autocomplete="off" spellcheck={false} value={key} aria-invalid={error !== ""} aria-describedby="key-error"
          onInput={(e) => setKey(e.currentTarget.value)} />
        <button type="submit" class="btn pri" disabled={busy}>{T.submit}</button>
        <p class="error" id="key-error" role="alert">{error}</p>
      </form>
    </main>
  );
}
