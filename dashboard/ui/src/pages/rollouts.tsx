// Rollouts: those that are under way, live, and those that are over.

import { useEffect } from "preact/hooks";
import { count, day, plural } from "../lib/format";
import { after, useList } from "../lib/list";
import { search, setSearch } from "../lib/route";
import { hasEnded, rolloutPath, sentence, totals, useProgress } from "../lib/rollouts";
import { listRollouts, type RolloutBody } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Part, statesText } from "../parts/bar";
import { Fault } from "../parts/fault";
import { RolloutStatus } from "../parts/rolloutstatus";
import { useRowKeys } from "../parts/keys";
import { kindOf } from "../lib/rollouts";
import { Scroll } from "../parts/scroll";
import { NewRolloutForm } from "./newrollout";

const T = {
  title: "Rollouts",
  how: "A release is brought to devices in phases, and stops by itself when too many fail.",
  make: "New rollout",
  needs: "You may look at rollouts. Making them needs the role operator.",
  none: "There is no rollout yet. Publish a release, then make one here.",
  firmware: "To the releases",
  open: "Under way",
  past: "Over",
  name: "Rollout",
  status: "How it ended",
  devices: "Devices",
  failed: "Failed",
  ended: "Ended",
  more: "More",
  noOpen: "No rollout is under way.",
  phase: (n: number, of: number) => `phase ${n} of ${of}`,
  release: "release",
};

const FOLLOWED = 8; // rollouts that are followed live: a connection may ask for so much only
const ASK_MS = 10_000; // how often the list is asked for when there are more

export function RolloutsPage() {
  useRowKeys();
  const making = search.value.get("new");
  const list = useList<RolloutBody>((at, stop) => listRollouts({ limit: 50, ...after(at) }, stop));
  const open = list.items?.filter((r) => !hasEnded(r.progress)) ?? [];
  const past = list.items?.filter((r) => hasEnded(r.progress)) ?? [];
  const write = may("firmware:write");
  const many = open.length > FOLLOWED;
  useEffect(() => {
    if (!many) return;
    const timer = setInterval(() => document.hidden || list.reload(), ASK_MS);
    return () => clearInterval(timer);
  }, [many]);
  return (
    <>
      <section class="sec rollouts" aria-labelledby="rollouts-title">
        <header>
          <h1 id="rollouts-title">{T.title}</h1><p class="long">{T.how}</p>
          <div class="r"><button type="button" class="btn" disabled={!write} aria-expanded={making !== null} onClick={() => setSearch({ new: making === null ? "rollout" : "" })}>{T.make}</button></div>
        </header>
        {!write && <p class="quiet-note">{T.needs}</p>}
        <Fault of={list} />
        {list.items?.length === 0 && making === null && <p class="quiet-note">{T.none} <a class="link" href="/firmware">{T.firmware}</a></p>}
      </section>
      {write && making !== null && <NewRolloutForm key={making} release={making === "rollout" ? "" : making} />}
      {list.items && list.items.length > 0 && (
        <section class="sec" aria-labelledby="open-title">
          <header><h2 id="open-title">{T.open}</h2><p>{count(open.length)}</p></header>
          {open.length === 0 ? <p class="quiet-note">{T.noOpen}</p> : <ul class="ros">{open.map((r, i) => <Open key={r.id} r={r} follow={i < FOLLOWED} />)}</ul>}
        </section>
      )}
      {past.length > 0 && <Past items={past} />}
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </>
  );
}

function Open({ r, follow }: { r: RolloutBody; follow: boolean }) {
  const p = useProgress(r.progress, follow);
  const states = totals(p.phases);
  return (
    <li class="ro" data-id={r.id}>
      <div class="h">
        <a class="to" href={rolloutPath(r.id)}>{r.name}</a>
        <span><RolloutStatus of={p} /> {p.devices > 0 && <small>{T.phase(p.phase, p.phases.length)}</small>}</span>
      </div>
      <Stages p={p} />
      <p class="sub val">{sentence(r, p)} {p.devices > 0 && statesText(states)}</p>
    </li>
  );
}

/** A bar for each phase, as wide as it has devices. */
export function Stages({ p }: { p: RolloutBody["progress"] }) {
  if (p.devices === 0) return null;
  return (
    <div class="stages val" aria-hidden="true">
      {p.phases.filter((f) => f.devices > 0).map((f, i) => {
        const kinds = new Map<string, number>();
        for (const [s, n] of Object.entries(f.states)) kinds.set(kindOf(s), (kinds.get(kindOf(s)) ?? 0) + n);
        return <Stage key={i} n={f.devices} kinds={kinds} />;
      })}
    </div>
  );
}

function Stage({ n, kinds }: { n: number; kinds: Map<string, number> }) {
  const order = ["done", "busy", "bad", "out", "waits"];
  return (
    <span class="stage" ref={(el) => { if (el) el.style.flexGrow = String(Math.sqrt(n)); }}>
      {order.filter((k) => kinds.get(k)).map((k) => <Part key={k} n={kinds.get(k)!} of={k} />)}
    </span>
  );
}

function Past({ items }: { items: RolloutBody[] }) {
  return (
    <section class="sec" aria-labelledby="past-title">
      <header><h2 id="past-title">{T.past}</h2></header>
      <Scroll labelledby="past-title">
        <table class="plain wide">
          <thead><tr><th scope="col">{T.name}</th><th scope="col">{T.status}</th><th scope="col" class="n">{T.devices}</th><th scope="col" class="n">{T.failed}</th><th scope="col">{T.ended}</th></tr></thead>
          <tbody>
            {items.map((r) => {
              const states = totals(r.progress.phases);
              const failed = Object.entries(states).reduce((sum, [s, n]) => sum + (kindOf(s) === "bad" ? n : 0), 0);
              return (
                <tr key={r.id}>
                  <th scope="row"><a class="to" href={rolloutPath(r.id)}>{r.name}</a></th>
                  <td><RolloutStatus of={r.progress} /></td>
                  <td class="n" title={statesText(states)}>{plural(r.progress.devices, "device", "devices")}</td>
                  <td class={`n ${failed > 0 ? "crit" : ""}`}>{count(failed)}</td>
                  <td>{r.ended_at ? day(r.ended_at) : ""}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}
