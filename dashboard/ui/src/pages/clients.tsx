// The clients of the broker: what waits for each, what each lost; and cutting one off.

import { held, heldText } from "../lib/held";
import { now } from "../lib/clock";
import { absolute, ago, bytes, count, rate } from "../lib/format";
import { after, useList } from "../lib/list";
import { devicePath } from "../lib/route";
import { kickClient, listClients, type Client } from "../lib/schema.gen";
import { Fault } from "../parts/fault";
import { Scroll } from "../parts/scroll";
import { Sure } from "../parts/sure";

const T = {
  title: "MQTT clients",
  search: "Search by client id",
  sort: "Order",
  client: "Client",
  since: "Since",
  away: "away",
  in: "In",
  out: "Out",
  waiting: "Waiting",
  lost: "Lost",
  perSecond: "/s",
  from: "From",
  kick: "Cut off",
  sure: "Really cut off?",
  reason: "cut off in the dashboard",
  none: "No client is, or was, here.",
  noMatch: "No client is called so.",
  more: "More",
};

const SORTS = [["id", "by id"], ["backlog", "most bytes waiting"], ["queued", "most messages waiting"], ["dropped", "most lost"], ["received", "most in"], ["sent", "most out"]] as const;
type Sort = (typeof SORTS)[number][0];

export function Clients() {
  const [q, setQ] = heldText("client");
  const [sort, setSort] = held<Sort>("clients", ["id", "backlog", "queued", "dropped", "received", "sent"]);
  const list = useList<Client>((at, stop) => listClients({ limit: 25, sort, ...(q.trim() && { q: q.trim() }), ...after(at) }, stop), `${sort} ${q.trim()}`);
  return (
    <section class="sec clients" aria-labelledby="clients-title">
      <header>
        <h2 id="clients-title">{T.title}</h2>
        <div class="r">
          <input type="search" aria-label={T.search} placeholder={T.search} value={q} spellcheck={false} autocomplete="off" onInput={(e) => setQ(e.currentTarget.value)} />
          <select aria-label={T.sort} value={sort} onChange={(e) => setSort(e.currentTarget.value as Sort)}>{SORTS.map(([v, word]) => <option key={v} value={v}>{word}</option>)}</select>
        </div>
      </header>
      <Fault of={list} />
      {list.items?.length === 0 && <p class="quiet-note">{q ? T.noMatch : T.none}</p>}
      {list.items && list.items.length > 0 && (
        <Scroll labelledby="clients-title">
          <table class="plain wide">
            <thead><tr><th scope="col">{T.client}</th><th scope="col">{T.since}</th><th scope="col">{T.from}</th><th scope="col" class="n">{T.in}</th><th scope="col" class="n">{T.out}</th><th scope="col" class="n">{T.waiting}</th><th scope="col" class="n">{T.lost}</th><th /></tr></thead>
            <tbody>{list.items.map((c) => <Row key={`${c.device ?? c.account ?? ""} ${c.client_id}`} c={c} kick={() => void list.run(() => kickClient({ client_id: c.client_id, reason: T.reason, ...(c.device ? { device: c.device } : c.account ? { account: c.account } : {}) }))} />)}</tbody>
          </table>
        </Scroll>
      )}
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.more}</button>}
    </section>
  );
}

function Row({ c, kick }: { c: Client; kick: () => void }) {
  const since = Date.parse(c.since);
  const waits = c.queued + c.inflight;
  return (
    <tr data-client={c.client_id}>
      <th scope="row" class="mono">{c.device ? <a class="to" href={devicePath(c.device)}>{c.client_id}</a> : c.client_id} {c.device && c.device !== c.client_id && <small>{c.device}</small>} {c.account && <small>{c.account}</small>}</th>
      <td>{!c.connected && <span class="off">{T.away} </span>}<time title={absolute(since)}>{ago(since, now.value)}</time></td>
      <td class="mono">{c.peer} {c.listener && <small>{c.listener}</small>}</td>
      <td class="n" title={bytes(c.received_bytes)}>{count(c.received)} <small>{rate(c.received_rate)}{T.perSecond}</small></td>
      <td class="n" title={bytes(c.sent_bytes)}>{count(c.sent)} <small>{rate(c.sent_rate)}{T.perSecond}</small></td>
      <td class={`n ${waits > 0 ? "warn" : ""}`}>{count(waits)} {c.backlog > 0 && <small>{bytes(c.backlog)}</small>}</td>
      <td class={`n ${c.dropped > 0 ? "crit" : ""}`}>{count(c.dropped)}</td>
      <td class="n">{c.connected && <Sure word={T.kick} sure={T.sure} of={c.client_id} onSure={kick} />}</td>
    </tr>
  );
}
