// The Overview: how all devices are, what needs a person, and what happens right now.

import { useEffect, useState } from "preact/hooks";
import { fleet } from "../lib/fleet";
import { counts } from "../lib/inbox";
import { may } from "../lib/session";
import { Dots } from "../parts/dots";
import { lazy } from "../parts/lazy";
import { ConnectPanel } from "./connect";
import { LiveRollouts } from "./liverollouts";
import { Needs } from "./needs";
import { RollCall } from "./rollcall";
import { Simulation } from "./simulation";
import { Tail } from "./tail";

const Traffic = lazy(() => import("../parts/traffic").then((m) => m.Traffic));

const T = {
  noneTitle: "No devices yet",
  none: "Devices appear here as soon as they exist, each as a dot, with what they do right now.",
  loading: "Asking the server for the fleet.",
};

export function OverviewPage() {
  const f = fleet.value;
  const [adding, setAdding] = useState(false);
  if (!f) return <p class="quiet-note" role="status">{T.loading}</p>;
  const empty = f.total === 0;
  if (empty && !adding) setAdding(true); // and stays open when its own device ends the emptiness
  return (
    <>
      {empty ? <section class="roll"><div><h1>{T.noneTitle}</h1><p>{T.none}</p></div></section> : <RollCall />}
      {adding && <ConnectPanel first={empty} suggestion={`device-${f.total + 1}`} onClose={() => setAdding(false)} />}
      {!empty && !adding && <Simulated total={f.total} />}
      {!empty && <Fleet />}
    </>
  );
}

const CALM_MS = 2000; // without another device, after which the server is asked for simulated ones

/** The simulated devices, as long as there are any, whoever made them. */
function Simulated({ total }: { total: number }) {
  const [turn, setTurn] = useState(total);
  useEffect(() => {
    const timer = setTimeout(() => setTurn(total), CALM_MS);
    return () => clearTimeout(timer);
  }, [total]);
  return <Simulation turn={turn} />;
}

function Fleet() {
  return (
    <>
      <div class="over">
        <Dots />
        <div class="side">
          <Needs open={counts.value?.open ?? 0} />
          {may("firmware:read") && <LiveRollouts />}
        </div>
      </div>
      <div class="over low">
        <Traffic />
        <Tail />
      </div>
    </>
  );
}
