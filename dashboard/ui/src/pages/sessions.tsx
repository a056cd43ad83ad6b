// The sessions of who is signed in, and how to end them.

import { agentWords } from "../lib/agent";
import { day } from "../lib/format";
import { useList } from "../lib/list";
import { endSession, endSessions, listSessions, type Session } from "../lib/schema.gen";
import { Fault } from "../parts/fault";

const T = {
  title: "Sessions",
  how: "Where you are signed in.",
  others: "End all others",
  browser: "Browser",
  address: "Address",
  seen: "Last used",
  began: "Signed in",
  current: "this one",
  unknown: "unknown",
  end: "End",
  endOf: (agent: string) => `End the session of ${agent}`,
  more: "More",
};

export function Sessions() {
  const list = useList<Session>((at, stop) => listSessions({ ...at, user: "me" }, stop));
  return (
    <section class="sec sessions" aria-labelledby="sessions-title">
      <header>
        <h2 id="sessions-title">{T.title}</h2><p>{T.how}</p>
        <div class="r"><button type="button" class="btn" onClick={() => list.run(() => endSessions())}>{T.others}</button></div>
      </header>
      <Fault of={list} />
      <div class="scroll">
        <table class="plain stacked">
          <thead><tr><th>{T.browser}</th><th>{T.address}</th><th>{T.seen}</th><th>{T.began}</th><th /></tr></thead>
          <tbody>
            {list.items?.map((s) => (
              <tr key={s.id}>
                <th scope="row"><span title={s.agent}>{agentWords(s.agent) || T.unknown}</span> {s.current && <span class="tag">{T.current}</span>}</th>
                <td data-label={T.address}><span class="mono">{s.address}</span></td><td data-label={T.seen}>{day(s.last_seen_at)}</td><td data-label={T.began}>{day(s.created_at)}</td>
                <td class="n">
                  {!s.current && (
                    <button type="button" class="btn txt" aria-label={T.endOf(agentWords(s.agent) || T.unknown)} onClick={() => list.run(() => endSession(s.id))}>{T.end}</button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </section>
  );
}
