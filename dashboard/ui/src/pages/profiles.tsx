// The profiles: which there are, how many devices have each, a new one; and what is wanted of the whole fleet.

import { useEffect, useState } from "preact/hooks";
import { ApiError, changing, making } from "../lib/api";
import { useForm } from "../lib/form";
import { count } from "../lib/format";
import { useList } from "../lib/list";
import { go, listPath } from "../lib/route";
import { getFleetDesired, listDeviceFacets, listProfiles, putFleetDesired, putProfile, type Profile } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Scroll } from "../parts/scroll";
import { Wanted, type Level } from "../parts/wanted";

const T = {
  title: "Profiles",
  how: "A profile says what its devices may do beside their own topics, how safe and how fast their messages are, and what is wanted of them. Each device has one.",
  make: "New profile",
  needs: "This needs the role operator.",
  name: "Name",
  nameHint: "letters, digits, dot, _ and -",
  submit: "Make the profile",
  taken: "There is a profile with this name.",
  profile: "Profile", publish: "May publish to", subscribe: "May subscribe to", level: "Acked when", rate: "Messages a second", devices: "Devices",
  usual: "as the server has it",
  own: "its own topics only",
  fleet: "Wanted of the whole fleet",
  fleetHow: "A document that every device is wanted to have. What its profile, its groups and its own document say goes over it.",
};

export const LEVELS: readonly (readonly [string, string])[] = [["", T.usual], ["received", "received"], ["durable", "durable"], ["stored", "stored"]];

const FLEET: Level = { read: getFleetDesired, write: (over, state) => putFleetDesired(changing(over, state)), query: "" };
const MOST = 1000; // profiles that there can be

export function profilePath(name: string): string {
  return "/profiles/" + encodeURIComponent(name);
}

/** The query that finds the devices of a profile. */
export function havingProfile(name: string): string {
  return `profile:${name}`;
}

/** How many devices have each profile, as the server counts them; null before it said so. */
function useCounts(): Map<string, number> | null {
  const [counts, setCounts] = useState<Map<string, number> | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    listDeviceFacets({ fields: "profile", limit: MOST }, stop.signal).then((f) => setCounts(new Map(f.items[0]?.values.map((v) => [v.value, v.devices]))), () => undefined); // the list says enough without
    return () => stop.abort();
  }, []);
  return counts;
}

export function ProfilesPage() {
  const list = useList<Profile>((_, stop) => listProfiles(stop));
  const counts = useCounts();
  const [makes, make] = useState(false);
  const entitled = may("devices:write");
  return (
    <>
      <section class="sec profiles" aria-labelledby="profiles-title">
        <header>
          <h1 id="profiles-title">{T.title}</h1><p class="long">{T.how}</p>
          <div class="r"><button type="button" class="btn" disabled={!entitled} title={entitled ? undefined : T.needs} onClick={() => make(true)}>{T.make}</button></div>
        </header>
        <Fault of={list} />
        {list.items && <Table items={list.items} counts={counts} />}
      </section>
      {makes && <MakeForm />}
      <Wanted title={T.fleet} how={T.fleetHow} of={FLEET} />
    </>
  );
}

function Table({ items, counts }: { items: Profile[]; counts: Map<string, number> | null }) {
  const filters = (list: string[]) => (list.length > 0 ? <span class="mono">{list.join(" ")}</span> : <span class="idle">{T.own}</span>);
  return (
    <Scroll labelledby="profiles-title">
      <table class="plain">
        <thead><tr><th scope="col">{T.profile}</th><th scope="col">{T.publish}</th><th scope="col">{T.subscribe}</th><th scope="col">{T.level}</th><th scope="col" class="n">{T.rate}</th><th scope="col" class="n">{T.devices}</th></tr></thead>
        <tbody>
          {items.map((p) => (
            <tr key={p.name} data-profile={p.name}>
              <th scope="row"><a class="to" href={profilePath(p.name)}>{p.name}</a></th>
              <td>{filters(p.publish)}</td>
              <td>{filters(p.subscribe)}</td>
              <td>{p.level ?? <span class="idle">{T.usual}</span>}</td>
              <td class="n">{p.message_rate > 0 ? count(p.message_rate) : <span class="idle">{T.usual}</span>}</td>
              <td class="n">{counts && <a class="link val" href={listPath(havingProfile(p.name), "id", "")} aria-label={`${count(counts.get(p.name) ?? 0)}: ${p.name}`}>{count(counts.get(p.name) ?? 0)}</a>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function MakeForm() {
  const form = useForm({ name: "" });
  const submit = form.submit(async (v) => {
    const name = v.name.trim();
    try {
      await putProfile(name, making({}));
    } catch (e) {
      if (e instanceof ApiError && e.status === 412) return form.refuse("name", T.taken);
      throw e;
    }
    go(profilePath(name));
  });
  return (
    <section class="sec makeprofile" aria-labelledby="makeprofile-title">
      <header><h2 id="makeprofile-title">{T.make}</h2></header>
      <form class="row" onSubmit={submit}>
        <Field form={form} name="name" label={T.name} hint={T.nameHint} mono focus />
        <Submit form={form}>{T.submit}</Submit>
      </form>
    </section>
  );
}
