// Where the QR code of a claim code leads: one press makes the device yours.

import { useState } from "preact/hooks";
import { message } from "../lib/api";
import { devicePath, go } from "../lib/route";
import { claimDevice } from "../lib/schema.gen";

const T = {
  title: "Claim a device",
  how: "The device that shows this code becomes yours. A code is good once.",
  code: "Code",
  submit: "Claim",
  empty: "Enter the code; it has eight characters.",
};

export function ClaimPage({ code: given }: { code: string }) {
  const [code, setCode] = useState(given);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (e: Event) => {
    e.preventDefault();
    if (!code.trim()) return setError(T.empty);
    setBusy(true);
    setError("");
    try {
      const device = await claimDevice({ code: code.trim() });
      go(devicePath(device.id), true);
    } catch (e) {
      setError(message(e));
    } finally {
      setBusy(false);
    }
  };
  return (
    <section class="signin claim">
      <h1>{T.title}</h1>
      <p>{T.how}</p>
      <form onSubmit={submit}>
        <label for="code">{T.code}</label>
        <input id="code" type="text" autocomplete="off" spellcheck={false} value={code} aria-invalid={error !== ""} aria-describedby="code-error"
          onInput={(e) => setCode(e.currentTarget.value)} />
        <button type="submit" class="btn pri" disabled={busy}>{T.submit}</button>
        <p class="error" id="code-error" role="alert">{error}</p>
      </form>
    </section>
  );
}
