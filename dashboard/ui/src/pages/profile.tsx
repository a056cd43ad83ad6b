// One profile: what its devices may do, how they register themselves, and what is wanted of them.

import { useEffect, useState } from "preact/hooks";
import { ApiError, changing, message } from "../lib/api";
import { insist, useAsked } from "../lib/ask";
import { numberIn, useForm } from "../lib/form";
import { count, day, plural } from "../lib/format";
import { go, listPath } from "../lib/route";
import { deleteProfile, deleteProvisioning, getProfile, getProfileDesired, getProvisioning, listDevices, putProfile, putProfileDesired, putProvisioning, type NewProvisioning, type Profile, type ProfileRights, type Provisioning } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Area, Choice } from "../parts/choice";
import { CopyLine } from "../parts/copyline";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Sure } from "../parts/sure";
import { Wanted, type Level } from "../parts/wanted";
import { havingProfile, LEVELS } from "./profiles";

const T = {
  needs: "This needs the role operator.",
  devices: (n: number) => plural(n, "device has it", "devices have it"),
  fixed: "Every device without another profile has this one. It cannot be changed; what is wanted of its devices can.",
  drop: "Delete the profile",
  dropSure: "Really delete?",
  rights: "What its devices may do",
  publish: "Further topics to publish to", subscribe: "Further topics to subscribe to",
  filters: "One filter in a line; {id} is the device's own id",
  level: "A message is acked when it is", messageRate: "Messages a second, at most", byteRate: "Bytes a second, at most", rateHint: "0: as the server has it",
  children: "A device may bring its children",
  childrens: [["no", "no"], ["yes", "yes"]] as const,
  save: "Save", saved: "Saved. It holds for connected devices too.",
  stale: "As it is now",
  wanted: "Wanted of its devices",
  wantedHow: "A document that each device of the profile is wanted to have, over the fleet's and under those of its groups and its own.",
  join: "Self-registration",
  joinHow: "Devices that know this key and secret register themselves with this profile.",
  off: "Devices of this profile do not register themselves.",
  on: (s: string, at: string) => `${STRATEGIES.find(([v]) => v === s)?.[1] ?? s}, since ${at}.`,
  strategy: "A device that asks",
  key: "Key", secret: "The secret. It is shown only now; the server keeps a hash of it.",
  allow: "Let them register", change: "Change", renew: "New key and secret", stop: "Stop it", stopSure: "Really stop?",
};

const STRATEGIES: readonly (readonly [string, string])[] = [["create", "is made when it does not exist"], ["preprovisioned", "must exist, without a credential"]];

export function ProfilePage({ id }: { id: string }) {
  const [fault, setFault] = useState("");
  const [turn, setTurn] = useState(0);
  const asked = useAsked((stop) => getProfile(id, stop), id, turn);
  const profile = asked.answer;
  if (!profile) return <><h1 class="vh">{id}</h1><Fault of={asked} /></>;
  const drop = () => deleteProfile(profile.name).then(() => go("/profiles"), (e: unknown) => setFault(message(e)));
  const fixed = profile.name === "default";
  return (
    <>
      <section class="sec profile" aria-labelledby="profile-title">
        <header>
          <h1 id="profile-title">{profile.name}</h1>
          <div class="r">{may("devices:write") && !fixed ? <Sure word={T.drop} sure={T.dropSure} of={profile.name} onSure={() => void drop()} /> : <button type="button" class="btn" disabled title={fixed ? T.fixed : T.needs}>{T.drop}</button>}</div>
        </header>
        <Fault of={asked} />
        <p class="error" role="alert">{fault}</p>
        <Having name={profile.name} />
        {fixed && <p class="quiet-note">{T.fixed}</p>}
      </section>
      {!fixed && <Rights key={turn} profile={profile} onChanged={() => setTurn(turn + 1)} />}
      <Wanted title={T.wanted} how={T.wantedHow} of={levelOf(profile.name)} />
      <Joining profile={profile.name} />
    </>
  );
}

function levelOf(name: string): Level {
  return { read: (stop) => getProfileDesired(name, stop), write: (over, state) => putProfileDesired(name, changing(over, state)), query: havingProfile(name) };
}

function Having({ name }: { name: string }) {
  const [n, setN] = useState(-1);
  useEffect(() => {
    const stop = new AbortController();
    listDevices({ q: havingProfile(name), limit: 1, total: true }, stop.signal).then((p) => setN(p.total ?? 0), () => undefined); // the rest of the page says enough
    return () => stop.abort();
  }, [name]);
  return <p class="having">{n >= 0 && <a class="link val" href={listPath(havingProfile(name), "id", "")}>{T.devices(n)}</a>}</p>;
}

const lines = (text: string) => text.split("\n").map((l) => l.trim()).filter(Boolean);

function Rights({ profile, onChanged }: { profile: Profile; onChanged: () => void }) {
  const p = profile;
  const form = useForm({ publish: p.publish.join("\n"), subscribe: p.subscribe.join("\n"), level: p.level ?? "", message_rate: String(p.message_rate), byte_rate: String(p.byte_rate), create_children: p.create_children ? "yes" : "no" });
  const [base, setBase] = useState(p);
  const [theirs, setTheirs] = useState<Profile | null>(null);
  const [said, say] = useState("");
  const entitled = may("devices:write");
  const submit = form.submit(async (v) => {
    say("");
    const rights: ProfileRights = {
      publish: lines(v.publish), subscribe: lines(v.subscribe), ...(v.level && { level: v.level as "stored" }),
      message_rate: numberIn("message_rate", v.message_rate || "0", true), byte_rate: numberIn("byte_rate", v.byte_rate || "0", true), create_children: v.create_children === "yes",
    };
    try {
      await putProfile(p.name, changing(base, rights));
    } catch (e) {
      if (e instanceof ApiError && e.status === 412) setTheirs(await getProfile(p.name));
      throw e;
    }
    setBase(await getProfile(p.name));
    say(T.saved);
  });
  return (
    <section class="sec rights" aria-labelledby="rights-title">
      <header><h2 id="rights-title">{T.rights}</h2></header>
      <form class="stack" onSubmit={submit}>
        <fieldset class="stack" disabled={!entitled} title={entitled ? undefined : T.needs}>
          <Area form={form} name="publish" label={T.publish} hint={T.filters} rows={3} mono />
          <Area form={form} name="subscribe" label={T.subscribe} hint={T.filters} rows={3} mono />
          <div class="row">
            <Choice form={form} name="level" label={T.level} options={LEVELS} />
            <Field form={form} name="message_rate" label={T.messageRate} hint={T.rateHint} optional />
            <Field form={form} name="byte_rate" label={T.byteRate} hint={T.rateHint} optional />
            <Choice form={form} name="create_children" label={T.children} options={T.childrens} />
          </div>
          {theirs && <Theirs of={theirs} onTake={onChanged} onKeep={() => { setBase(theirs); setTheirs(null); }} />}
          <Submit form={form}>{T.save}</Submit>
        </fieldset>
        {!entitled && <p class="hint">{T.needs}</p>}
        <p role="status">{said}</p>
      </form>
    </section>
  );
}

const C = { take: "Take theirs, drop mine", keep: "Keep mine, to be saved over theirs", none: "none" };

/** What somebody else made of it meanwhile. */
function Theirs({ of: p, onTake, onKeep }: { of: Profile; onTake: () => void; onKeep: () => void }) {
  const facts: [string, string][] = [
    [T.publish, p.publish.join(" ") || C.none], [T.subscribe, p.subscribe.join(" ") || C.none], [T.level, p.level ?? LEVELS[0]![1]],
    [T.messageRate, count(p.message_rate)], [T.byteRate, count(p.byte_rate)], [T.children, p.create_children ? "yes" : "no"],
  ];
  return (
    <div class="conflict" role="group" aria-label={T.stale}>
      <p>{T.stale}</p>
      <dl class="pairs">{facts.map(([k, v]) => <div key={k}><dt>{k}</dt><dd class="mono">{v}</dd></div>)}</dl>
      <div class="act">
        <button type="button" class="btn" onClick={onTake}>{C.take}</button>
        <button type="button" class="btn" onClick={onKeep}>{C.keep}</button>
      </div>
    </div>
  );
}

function Joining({ profile }: { profile: string }) {
  const [how, setHow] = useState<Provisioning | null | undefined>(undefined); // null for none
  const [fault, setFault] = useState("");
  const entitled = may("devices:write");
  const form = useForm({ strategy: "create" });
  useEffect(() => {
    const stop = new AbortController();
    insist((signal) => getProvisioning(profile, signal), stop.signal, (e) => {
      if (e instanceof ApiError && e.status === 404) setHow(null);
      else setFault(message(e));
    }).then((p) => {
      setFault("");
      setHow(p);
      form.set("strategy", p.strategy);
    }, () => undefined); // each failure was told
    return () => stop.abort();
  }, [profile]);
  const put = (keep: boolean) => form.submit(async (v) => {
    setHow(await putProvisioning(profile, { strategy: v.strategy as NewProvisioning["strategy"], ...(keep && { keep }) }));
  });
  const stop = () => deleteProvisioning(profile).then(() => setHow(null), (e: unknown) => setFault(message(e)));
  return (
    <section class="sec joining" aria-labelledby="joining-title">
      <header>
        <h2 id="joining-title">{T.join}</h2><p class="long">{T.joinHow}</p>
        <div class="r">{how && entitled && <Sure word={T.stop} sure={T.stopSure} of={profile} onSure={() => void stop()} />}</div>
      </header>
      <p class="error" role="alert">{fault}</p>
      {how === null && <p class="quiet-note">{T.off}</p>}
      {how && <p>{T.strategy} {T.on(how.strategy, day(how.created_at))} {T.key}: <code class="payload">{how.key}</code></p>}
      {how?.secret && <div class="stack" role="status"><p>{T.secret}</p><CopyLine text={how.secret} label={T.secret} /></div>}
      {how !== undefined && (
        <form class="row" onSubmit={put(how !== null)}>
          <fieldset class="row" disabled={!entitled} title={entitled ? undefined : T.needs}>
            <Choice form={form} name="strategy" label={T.strategy} options={STRATEGIES} />
            <Submit form={form}>{how ? T.change : T.allow}</Submit>
          </fieldset>
          {how && <button type="button" class="btn txt" disabled={!entitled} onClick={put(false)}>{T.renew}</button>}
          {!entitled && <p class="hint">{T.needs}</p>}
        </form>
      )}
    </section>
  );
}
