// One candidate: its last messages, and what each would be as telemetry.

import { useEffect, useState } from "preact/hooks";
import { message } from "../lib/api";
import { now } from "../lib/clock";
import { bytes, plural } from "../lib/format";
import { timeOf } from "../lib/range";
import { getCandidate, type Candidate, type Sample } from "../lib/schema.gen";

const T = {
  sends: (id: string) => `What ${id} sends`,
  note: (n: number) => `its last messages, of ${plural(n, "message", "messages")}`,
  none: "It has sent nothing yet.",
  close: "Close",
  as: "as telemetry",
  rejected: "would be rejected",
};

const LOOK_MS = 3000;

export function CandidatePanel({ id, onClose }: { id: string; onClose: () => void }) {
  const [c, setC] = useState<Candidate | null>(null);
  const [fault, setFault] = useState("");
  const tick = Math.floor(now.value / LOOK_MS);
  useEffect(() => {
    const stop = new AbortController();
    getCandidate(id, stop.signal).then((got) => { setC(got); setFault(""); }, (e: unknown) => stop.signal.aborted || setFault(message(e)));
    return () => stop.abort();
  }, [id, tick]);
  return (
    <section class="sec candidate" aria-labelledby="candidate-title">
      <header><h2 id="candidate-title">{T.sends(id)}</h2>{c && <p>{T.note(c.messages)}</p>}<div class="r"><button type="button" class="btn" onClick={onClose}>{T.close}</button></div></header>
      <p class="error" role="alert">{fault}</p>
      {c && !c.samples?.length && <p class="quiet-note">{T.none}</p>}
      <ul class="msgs" aria-label={T.sends(id)}>{c?.samples?.map((s) => <Line key={s.at + s.topic} s={s} />)}</ul>
    </section>
  );
}

function Line({ s }: { s: Sample }) {
  return (
    <li>
      <time title={s.at}>{timeOf(Date.parse(s.at))}</time>
      <div>
        <span class="mono topic">{s.topic}</span> <small>{bytes(s.size)}</small>
        <p><code class="payload">{s.text ?? s.hex}</code></p>
        {s.decoded.map((d, i) => <p key={i}><small>{T.as}</small> <code>{JSON.stringify(d.values)}</code></p>)}
        {s.rejected.map((r, i) => <p key={i} class="crit">{r}</p>)}
      </div>
      <span class={s.rejected.length > 0 ? "crit" : "ok"}>{s.rejected.length > 0 ? T.rejected : T.as}</span>
    </li>
  );
}
