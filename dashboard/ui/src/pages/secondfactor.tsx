// The second factor: set up by a QR code and a first code, removed by the password.

import { useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { me } from "../lib/session";
import { beginTotp, confirmTotp, deleteTotp, type TotpSetup, type User } from "../lib/schema.gen";
import { CopyLine } from "../parts/copyline";
import { Field, Submit } from "../parts/field";
import { enter } from "./signin";

const T = {
  title: "Second factor",
  on: "on",
  off: "off",
  how: "Besides the password, a code of six digits is asked for, from an authenticator on your phone.",
  begin: "Set it up",
  scan: "Scan this with the authenticator, or type the secret into it. Then enter the code it shows.",
  qr: "QR code of the secret",
  secret: "The secret",
  code: "Code",
  confirm: "Turn it on",
  codes: "It is on. Keep these recovery codes where you find them without the phone; each is good once. They are shown only now.",
  kept: "I have kept them",
  password: "Password",
  drop: "Turn it off",
};

export function SecondFactor({ user }: { user: User }) {
  const [setup, setSetup] = useState<TotpSetup | null>(null);
  const [codes, setCodes] = useState<string[]>([]);
  const form = useForm<never>({} as Record<never, string>);
  const begin = form.submit(async () => setSetup(await beginTotp()));
  const on = (codes: string[]) => {
    setSetup(null);
    setCodes(codes);
    if (me.value) me.value = { ...me.value, user: { ...user, second_factor: true } };
  };
  return (
    <section class="sec totp" aria-labelledby="totp-title">
      <header><h2 id="totp-title">{T.title}</h2><p>{user.second_factor ? T.on : T.off}</p></header>
      {codes.length > 0 ? (
        <div class="stack">
          <p role="status">{T.codes}</p>
          <CopyLine text={codes.join("\n")} label={T.codes} />
          <div><button type="button" class="btn pri" onClick={() => setCodes([])}>{T.kept}</button></div>
        </div>
      ) : user.second_factor ? (
        <DropForm />
      ) : setup ? (
        <ConfirmForm setup={setup} onDone={on} />
      ) : (
        <form class="stack" onSubmit={begin}><p>{T.how}</p><Submit form={form}>{T.begin}</Submit></form>
      )}
    </section>
  );
}

function ConfirmForm({ setup, onDone }: { setup: TotpSetup; onDone: (codes: string[]) => void }) {
  const form = useForm({ code: "" });
  const submit = form.submit(async (v) => {
    const made = await confirmTotp({ code: v.code.trim() });
    onDone(made.recovery_codes);
  });
  return (
    <form class="stack" onSubmit={submit}>
      <p>{T.scan}</p>
      <QR svg={setup.svg} />
      <CopyLine text={setup.secret} label={T.secret} />
      <Field form={form} name="code" label={T.code} autocomplete="one-time-code" mono focus />
      <Submit form={form}>{T.confirm}</Submit>
    </form>
  );
}

/** The QR code, drawn anew from the one path of the server's picture. */
function QR({ svg }: { svg: string }) {
  const side = /viewBox="0 0 (\d+) \d+"/.exec(svg)?.[1] ?? "1";
  const path = /<path d="([Mhvz0-9 -]+)"/.exec(svg)?.[1] ?? "";
  return (
    <svg class="qr" viewBox={`0 0 ${side} ${side}`} shape-rendering="crispEdges" role="img" aria-label={T.qr}>
      <rect width={side} height={side} fill="#fff" />
      <path d={path} fill="#000" />
    </svg>
  );
}

function DropForm() {
  const form = useForm({ password: "" });
  const submit = form.submit(async (v) => {
    await deleteTotp(v);
    await enter();
  });
  return (
    <form class="row" onSubmit={submit}>
      <Field form={form} name="password" label={T.password} type="password" autocomplete="current-password" />
      <Submit form={form}>{T.drop}</Submit>
    </form>
  );
}
