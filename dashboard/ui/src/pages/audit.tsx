// The audit log: who changed what, with before and after. For admins.

import { useEffect, useState } from "preact/hooks";
import { useForm } from "../lib/form";
import { absolute, count, plural } from "../lib/format";
import { useList } from "../lib/list";
import { search, setSearch } from "../lib/route";
import { getSystem, listAudit, type AuditRecord } from "../lib/schema.gen";
import { isAdmin } from "../lib/session";
import type { Sections } from "../lib/system";
import { Fault } from "../parts/fault";
import { Field, Submit } from "../parts/field";
import { Scroll } from "../parts/scroll";

const T = {
  title: "Audit",
  how: "Every change, with who made it, from where, and the thing before and after. Nothing changes or deletes a record.",
  forbidden: "Only admins read the audit log.",
  sealed: (n: number) => `${plural(n, "record is", "records are")} sealed`,
  whole: "no break",
  broken: (n: number) => `${plural(n, "break", "breaks")}: muster doctor names them`,
  object: "Thing",
  objectHint: "Such as devices/pump-7",
  actor: "By the id",
  action: "Action",
  from: "From",
  to: "To",
  timeHint: "2026-03-01T08:00:00Z",
  show: "Show",
  actionHint: "A ! before it leaves it out",
  noSteps: "Without devices' steps in rollouts",
  clear: "Show all",
  none: "Nothing was changed that fits.",
  when: "When",
  who: "Who",
  what: "What",
  before: "Before",
  after: "After",
  nothing: "nothing",
  request: "Request",
  older: "Older records",
  open: (seq: number) => `Record ${seq}`,
  system: "Muster itself",
  onlyObject: "Only this thing",
  onlyActor: "Only by this one",
};

/** All but the records that vouch for the logs of rollouts, of which there is one a second while devices are updated. */
const STEPS = "!rollout.log";

const FIELDS = ["object", "actor", "action", "from", "to"] as const;
type Name = (typeof FIELDS)[number];

export function AuditPage() {
  if (!isAdmin()) return <p>{T.forbidden}</p>;
  return <Audit />;
}

function filters(): Partial<Record<Name, string>> {
  return Object.fromEntries(FIELDS.map((f) => [f, search.value.get(f) ?? ""]).filter(([, v]) => v)) as Partial<Record<Name, string>>;
}

function Audit() {
  const on = filters();
  const mark = JSON.stringify(on);
  const list = useList<AuditRecord>((at, stop) => listAudit({ limit: 50, ...on, ...at }, stop), mark);
  return (
    <section class="sec auditlog" aria-labelledby="audit-title">
      <header><h1 id="audit-title">{T.title}</h1><p class="long">{T.how}</p><div class="r"><Seal /></div></header>
      <Filters key={mark} on={on} wrong={list.fields} />
      {!on.action && <p class="quiet-note"><button type="button" class="btn txt nosteps" onClick={() => setSearch({ action: STEPS })}>{T.noSteps}</button></p>}
      {!FIELDS.some((f) => list.fields[f]) && <Fault of={list} />}
      {list.items?.length === 0 && <p class="quiet-note">{T.none}</p>}
      {list.items && list.items.length > 0 && <Table items={list.items} />}
      {list.more && <button type="button" class="btn" onClick={list.more}>{T.older}</button>}
    </section>
  );
}

/** Whether the log is as it was sealed. */
function Seal() {
  const [said, say] = useState<Sections["audit"] | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    getSystem(stop.signal).then((s) => say((s.sections as Sections).audit), () => undefined); // the list says what is wrong
    return () => stop.abort();
  }, []);
  if (!said) return null;
  return <span class="seal">{T.sealed(said.sealed)}, <b class={said.broken > 0 ? "crit" : "ok"}>{said.broken > 0 ? T.broken(said.broken) : T.whole}</b></span>;
}

function Filters({ on, wrong }: { on: Partial<Record<Name, string>>; wrong: Record<string, string> }) {
  const form = useForm<Name>({ object: on.object ?? "", actor: on.actor ?? "", action: on.action ?? "", from: on.from ?? "", to: on.to ?? "" });
  useEffect(() => {
    const at = FIELDS.find((f) => wrong[f]);
    if (at) form.refuse(at, wrong[at]!);
  }, [wrong]);
  const submit = form.submit(async (v) => setSearch(Object.fromEntries(FIELDS.map((f) => [f, v[f].trim()]))));
  return (
    <form class="row auditfilter" onSubmit={submit}>
      <Field form={form} name="object" label={T.object} hint={T.objectHint} mono optional />
      <Field form={form} name="action" label={T.action} hint={T.actionHint} mono optional />
      <Field form={form} name="actor" label={T.actor} mono optional />
      <Field form={form} name="from" label={T.from} hint={T.timeHint} mono optional />
      <Field form={form} name="to" label={T.to} mono optional />
      <div class="ways"><Submit form={form}>{T.show}</Submit>{Object.keys(on).length > 0 && <button type="button" class="btn" onClick={() => setSearch({ object: "", actor: "", action: "", from: "", to: "" })}>{T.clear}</button>}</div>
    </form>
  );
}

function Table({ items }: { items: AuditRecord[] }) {
  return (
    <Scroll labelledby="audit-title">
      <table class="plain wide audit">
        <thead><tr><th scope="col" class="n">#</th><th scope="col">{T.when}</th><th scope="col">{T.who}</th><th scope="col">{T.action}</th><th scope="col">{T.object}</th></tr></thead>
        <tbody>{items.map((r) => <Record key={r.seq} r={r} />)}</tbody>
      </table>
    </Scroll>
  );
}

function Record({ r }: { r: AuditRecord }) {
  const [open, setOpen] = useState(false);
  const who = r.actor.name || r.actor.id || (r.actor.kind === "system" ? T.system : r.actor.kind);
  return (
    <>
      <tr data-seq={r.seq}>
        <td class="n"><button type="button" class="btn txt" aria-expanded={open} aria-label={T.open(r.seq)} onClick={() => setOpen(!open)}>{count(r.seq)}</button></td>
        <td class="mono"><time>{absolute(Date.parse(r.at))}</time></td>
        <td>{r.actor.id ? <button type="button" class="btn txt" title={T.onlyActor} onClick={() => setSearch({ actor: r.actor.id })}>{who}</button> : who} <small>{[r.actor.kind, r.actor.address].filter((w) => w && w !== who).join(" ")}</small></td>
        <td class="mono">{r.action}</td>
        <td class="mono"><button type="button" class="btn txt" title={T.onlyObject} onClick={() => setSearch({ object: r.object })}>{r.object}</button></td>
      </tr>
      {open && (
        <tr class="detail"><td colSpan={5}>
          {r.actor.request && <p class="hint">{T.request} <span class="mono">{r.actor.request}</span></p>}
          <Change before={r.before} after={r.after} />
        </td></tr>
      )}
    </>
  );
}

/** The members that differ, before and after. */
function Change({ before, after }: { before: unknown; after: unknown }) {
  const rows = differences(before, after);
  return (
    <table class="plain change">
      <thead><tr><th scope="col">{T.what}</th><th scope="col">{T.before}</th><th scope="col">{T.after}</th></tr></thead>
      <tbody>{rows.map(([path, a, b]) => <tr key={path}><th scope="row" class="mono">{path || "·"}</th><td class="mono"><del>{text(path, a)}</del></td><td class="mono"><ins>{text(path, b)}</ins></td></tr>)}</tbody>
    </table>
  );
}

/** The members of records that are times, in microseconds; 0 is none. */
const TIMES = /(^|\.)(at|created|edited|ended|ends|expires|muted_until|named|passed|phase_at|published|revoked|revoked_at|start_at|started|until|updated|verified)$/;

function text(path: string, v: unknown): string {
  if (typeof v === "number" && TIMES.test(path)) return v === 0 ? T.nothing : absolute(v / 1000);
  return v === undefined || v === null ? T.nothing : typeof v === "string" ? v : JSON.stringify(v);
}

const DEEP = 4; // levels; what is deeper is shown as one

function isObject(v: unknown): v is Record<string, unknown> {
  return typeof v === "object" && v !== null && !Array.isArray(v);
}

/** The dotted paths whose values differ, with both. */
function differences(a: unknown, b: unknown, path = "", depth = 0): [string, unknown, unknown][] {
  if (JSON.stringify(a) === JSON.stringify(b)) return [];
  if (depth >= DEEP || !(isObject(a) || isObject(b)) || (a && !isObject(a)) || (b && !isObject(b))) return [[path, a, b]];
  const [x, y] = [isObject(a) ? a : {}, isObject(b) ? b : {}];
  const names = [...new Set([...Object.keys(x), ...Object.keys(y)])].sort();
  return names.length === 0 ? [[path, a, b]] : names.flatMap((n) => differences(x[n], y[n], path ? `${path}.${n}` : n, depth + 1));
}
