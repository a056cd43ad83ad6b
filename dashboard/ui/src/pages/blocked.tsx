// Clients that were refused, and are kept out.

import { useEffect } from "preact/hooks";
import { day } from "../lib/format";
import { useList } from "../lib/list";
import { listBlockedClients, unblockClient, type BlockedClient } from "../lib/schema.gen";
import { may } from "../lib/session";
import { Fault } from "../parts/fault";

const T = {
  title: "Refused",
  how: "They are kept out until somebody lets them knock again.",
  let: "Let it knock again",
  letOf: (id: string) => `Let ${id} knock again`,
  needs: "This needs the role operator.",
};

/** The refused; news counts those that were refused on this page. */
export function Blocked({ news }: { news: number }) {
  const list = useList<BlockedClient>((_, stop) => listBlockedClients(stop));
  useEffect(() => {
    if (news > 0) list.reload();
  }, [news]);
  if (!list.fault && !list.items?.length) return null;
  const entitled = may("devices:write");
  return (
    <section class="sec blocked" aria-labelledby="blocked-title">
      <header><h2 id="blocked-title">{T.title}</h2><p class="long">{T.how}</p></header>
      <Fault of={list} />
      <table class="plain">
        <tbody>
          {list.items?.map((b) => (
            <tr key={b.id} data-blocked={b.candidate}>
              <th scope="row" class="mono">{b.candidate}</th><td>{day(b.created_at)}</td>
              <td class="n"><button type="button" class="btn txt" disabled={!entitled} title={entitled ? undefined : T.needs} aria-label={T.letOf(b.candidate)} onClick={() => void list.run(() => unblockClient(b.id))}>{T.let}</button></td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
