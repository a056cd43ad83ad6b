// Which columns the list has: those of every device, and any tag or telemetry key of the
// devices that are listed.

import { useState } from "preact/hooks";
import { useAsked } from "../lib/ask";
import { columnsText, PLAIN, type Column } from "../lib/columns";
import { count } from "../lib/format";
import { listDeviceFacets, type Facet } from "../lib/schema.gen";
import { Fault } from "./fault";
import { Menu } from "./menu";

const T = {
  word: "Columns",
  device: "Of the device",
  tags: "Tags",
  keys: "Telemetry",
  find: "Find a key",
  value: "value",
  line: "line",
  none: "No device that is listed has sent any.",
  noTags: "No device that is listed has any.",
  more: (n: number) => `${count(n)} more: type to find them`,
  reset: "Let the page choose",
  heads: { seen: "Last seen", reason: "Reason", profile: "Profile", parent: "Gateway", firmware: "Firmware", groups: "Groups", tags: "All tags" } as Record<string, string>,
};

interface Props {
  q: string;
  shown: Column[];
  onColumns: (cols: string) => void;
}

export function ColumnMenu(props: Props) {
  return <Menu name="columns" word={T.word} label={T.word}>{() => <Choices {...props} />}</Menu>;
}

function Choices({ q, shown, onColumns }: Props) {
  const [match, setMatch] = useState("");
  const asked = useAsked((stop) => listDeviceFacets({ fields: "tag,key", limit: 20, ...(q && { q }), ...(match && { match }) }, stop), q, match);
  const facets = asked.answer?.items ?? [];
  const names = shown.map((c) => c.name);
  const box = (name: string, word: string, label: string) => (
    <label class="check"><input type="checkbox" aria-label={label} checked={names.includes(name)}
      onChange={() => onColumns(columnsText(names.includes(name) ? names.filter((n) => n !== name) : [...names, name]))} /> {word}</label>
  );
  const keys = facets.find((f) => f.field === "key");
  const tags = facets.find((f) => f.field === "tag");
  const usable = (f: Facet | undefined) => (f?.values ?? []).filter((v) => !v.value.includes(","));
  return (
    <>
      <Fault of={asked} />
      <fieldset><legend>{T.device}</legend>{PLAIN.map((p) => <span key={p}>{box(p, T.heads[p] ?? p, T.heads[p] ?? p)}</span>)}</fieldset>
      <input type="text" value={match} aria-label={T.find} placeholder={T.find} maxLength={64} onInput={(e) => setMatch(e.currentTarget.value)} />
      <fieldset class="long">
        <legend>{T.keys}</legend>
        {usable(keys).map((v) => (
          <div key={v.value} class="key"><span class="mono">{v.value}</span>{box(`v.${v.value}`, T.value, `${v.value}: ${T.value}`)}{box(`spark.${v.value}`, T.line, `${v.value}: ${T.line}`)}</div>
        ))}
        {keys && keys.values.length === 0 && <p class="hint">{T.none}</p>}
        {keys && keys.more > 0 && <p class="hint">{T.more(keys.more)}</p>}
      </fieldset>
      <fieldset>
        <legend>{T.tags}</legend>
        {usable(tags).map((v) => <span key={v.value}>{box(`tag:${v.value}`, v.value, v.value)}</span>)}
        {tags && tags.values.length === 0 && <p class="hint">{T.noTags}</p>}
      </fieldset>
      <button type="button" class="btn txt" onClick={() => onColumns("")}>{T.reset}</button>
    </>
  );
}
