// The simulated devices of the server: made, or taken away, by one click.

import { useRef, useState } from "preact/hooks";
import { message } from "../lib/api";
import { useAsked } from "../lib/ask";
import { welcome } from "../lib/live";
import { endSimulation, getSimulation, startSimulation, type Simulation as Simulated } from "../lib/schema.gen";
import { mayWriteDevices } from "../lib/session";

const T = {
  simulate: (n: number) => `Or simulate ${n} devices`,
  simulated: (n: number) => `${n} simulated devices publish, with the tag sim.`,
  still: (n: number) => `There are ${n} simulated devices. They do not publish.`,
  goOn: "Let them publish",
  remove: "Remove the simulated devices",
};

const SIMULATED = 25;

/** How often the page was connected again: a server that was started anew simulates nothing by itself. */
function useReconnects(): number {
  const now = welcome.value;
  const last = useRef({ of: now, n: 0 });
  if (last.current.of !== now) last.current = { of: now, n: last.current.n + (last.current.of ? 1 : 0) };
  return last.current.n;
}

/** How many there are, and what can be done to them. With offer it also offers to make them while there are none. turn
 * changes when the server is to be asked anew. */
export function Simulation({ offer = false, turn = 0 }: { offer?: boolean; turn?: number }) {
  const allowed = mayWriteDevices();
  const asked = useAsked(allowed ? getSimulation : null, "", `${turn} ${useReconnects()}`);
  const [fault, setFault] = useState("");
  const [busy, setBusy] = useState(false);
  const run = async (what: () => Promise<Simulated>) => {
    setBusy(true);
    setFault("");
    try {
      asked.set(await what());
    } catch (e) {
      setFault(message(e));
    } finally {
      setBusy(false);
    }
  };
  const there = asked.answer;
  const said = fault || (offer ? asked.fault : ""); // of what nobody asked for, nothing is said
  if (!there) return said ? <p class="error" role="alert">{said}</p> : null;
  if (there.devices === 0 && !offer && !said) return null;
  return (
    <div class="ways simulation">
      {there.devices === 0 && offer && <button type="button" class="btn" disabled={busy} onClick={() => void run(() => startSimulation({ devices: SIMULATED }))}>{T.simulate(SIMULATED)}</button>}
      {there.devices > 0 && <p role="status">{there.running ? T.simulated(there.devices) : T.still(there.devices)}</p>}
      {there.devices > 0 && !there.running && <button type="button" class="btn" disabled={busy} onClick={() => void run(() => startSimulation({ devices: there.devices }))}>{T.goOn}</button>}
      {there.devices > 0 && <button type="button" class="btn" disabled={busy} onClick={() => void run(() => endSimulation())}>{T.remove}</button>}
      <p class="error" role="alert">{said}</p>
    </div>
  );
}
