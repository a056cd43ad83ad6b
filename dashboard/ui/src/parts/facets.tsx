// Filters of the list: what there is to choose is counted by the server once a menu is
// opened, among the devices that the rest of the query finds.

import { useState } from "preact/hooks";
import { useAsked } from "../lib/ask";
import { count } from "../lib/format";
import { conjuncts, leaveOut, without, withTerm } from "../lib/query";
import { listDeviceFacets } from "../lib/schema.gen";
import type { Status } from "../lib/types";
import { Fault } from "./fault";
import { Glyph, STATES } from "./glyph";
import { Menu } from "./menu";

const T = {
  status: "Status",
  group: "Group",
  profile: "Profile",
  firmware: "Firmware",
  tag: "Tag",
  label: (word: string) => `Filter by ${word.toLowerCase()}`,
  counting: "Counting.",
  nothing: "No device has any.",
  none: "none",
  more: (n: number) => `${count(n)} more: type to find them`,
  back: "All tags",
  find: "Find",
};

const FIELDS = ["status", "group", "profile", "firmware", "tag"] as const;
const MOST = 12;

/** Fields of which a device has one value: another choice takes the place of the first. */
const SINGLE: readonly string[] = ["status", "profile", "firmware"];

export function Facets({ q, onQuery }: { q: string; onQuery: (q: string) => void }) {
  return (
    <div class="facets">
      {FIELDS.map((f) => (
        <Menu key={f} name={`facet-${f}`} word={T[f]} label={T.label(T[f])}>
          {(close) => <Values field={f} q={q} onQuery={(next) => { onQuery(next); close(); }} />}
        </Menu>
      ))}
    </div>
  );
}

/** A term as the server writes that of a facet. */
function asFacet(term: string): string {
  return term.replace(/^(\w+):(?=[^=]*$)/, "$1=").replace(/^firmware=/, "fw=");
}

function Values({ field, q, onQuery }: { field: string; q: string; onQuery: (q: string) => void }) {
  const [of, setOf] = useState(field); // a tag's values once its key is chosen
  const [match, setMatch] = useState("");
  const rest = SINGLE.includes(field) ? without(q, field) : q;
  const asked = useAsked((stop) => listDeviceFacets({ fields: of, limit: MOST, ...(rest && { q: rest }), ...(match && { match }) }, stop), of, `${match} ${rest}`);
  const facet = asked.answer?.items[0];
  const chosen = new Set(conjuncts(q).map((t) => asFacet(t.text)));
  const choose = (term: string) => {
    if (of === "tag") return setOf(term);
    if (chosen.has(term)) return onQuery(leaveOut(q, (t) => asFacet(t) === term));
    onQuery(withTerm(rest, term));
  };
  if (asked.fault) return <Fault of={asked} />;
  if (!facet || facet.field !== of) return <p class="hint">{T.counting}</p>;
  return (
    <>
      {of !== field && <button type="button" class="btn txt" onClick={() => setOf(field)}>{T.back}</button>}
      {(facet.more > 0 || match) && <input type="text" value={match} aria-label={T.find} placeholder={T.find} maxLength={64} onInput={(e) => setMatch(e.currentTarget.value)} />}
      <ul>
        {facet.values.map((v) => (
          <li key={v.term}>
            <button type="button" aria-pressed={chosen.has(v.term)} onClick={() => choose(v.term)}>
              <Name field={of} value={v.value} /><b class="val">{count(v.devices)}</b>
            </button>
          </li>
        ))}
      </ul>
      {facet.values.length === 0 && <p class="hint">{T.nothing}</p>}
      {facet.more > 0 && <p class="hint">{T.more(facet.more)}</p>}
    </>
  );
}

function Name({ field, value }: { field: string; value: string }) {
  const state: Status | undefined = field === "status" ? STATES.find((s) => s === value) : undefined;
  return <span>{state && <Glyph state={state} />}{value || T.none}</span>;
}
