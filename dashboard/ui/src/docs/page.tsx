// The API page: what the server's own document says, to be read, filtered and linked to.

import { useEffect, useRef, useState } from "preact/hooks";
import { pageVersion } from "../lib/version";
import { Logo } from "../parts/logo";
import { ThemeSwitch } from "../parts/themeswitch";
import { load, type Document, type Operation } from "./document";
import { OperationView } from "./operation";

const T = {
  title: "HTTP API",
  skip: "Skip to the operations",
  dashboard: "Dashboard",
  how: "Programs send an API key as Authorization: Bearer mst_...; the dashboard's session works too. Bodies are JSON where nothing else is said, times are RFC 3339.",
  openapi: "OpenAPI document",
  asyncapi: "AsyncAPI document (MQTT)",
  filter: "Filter",
  filterHint: "Words of the path, the summary, a scope or a parameter",
  count: (n: number, all: number) => (n === all ? `${all} operations` : `${n} of ${all} operations`),
  none: (q: string) => `No operation has “${q}”.`,
  groups: "Groups",
  loading: "Reading the document",
  fault: "The document cannot be read.",
  retry: "Try again",
};

export function ApiPage() {
  const [doc, setDoc] = useState<Document | null>(null);
  const [fault, setFault] = useState("");
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    setFault("");
    load().then(setDoc).catch((e: unknown) => setFault(e instanceof Error ? e.message : String(e)));
  }, [turn]);
  return (
    <div class="docs">
      <a class="skip" href="#operations">{T.skip}</a>
      <header class="docshead">
        <a class="home" href="/"><Logo /> Muster<span class="vh"> {T.dashboard}</span></a>
        <small>{pageVersion()}</small>
        <ThemeSwitch />
      </header>
      <div class="intro">
        <h1>{T.title}</h1>
        <p>{T.how}</p>
        <p class="papers"><a class="link" href="/api/openapi.json">{T.openapi}</a> <a class="link" href="/api/asyncapi.json">{T.asyncapi}</a></p>
      </div>
      {doc ? <Operations doc={doc} /> : (
        <main id="operations">
          <p role="status">{fault ? `${T.fault} ${fault}` : T.loading}</p>
          {fault && <button type="button" class="btn" onClick={() => setTurn(turn + 1)}>{T.retry}</button>}
        </main>
      )}
    </div>
  );
}

/** The operation that the address names. */
function named(): string {
  return location.hash.slice(1);
}

function Operations({ doc }: { doc: Document }) {
  const [q, setQ] = useState(new URLSearchParams(location.search).get("q") ?? "");
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set([named()]));
  const field = useRef<HTMLInputElement>(null);
  const toggle = (id: string, on: boolean) => setOpen((old) => {
    if (old.has(id) === on) return old;
    const next = new Set(old);
    if (on) next.add(id);
    else next.delete(id);
    return next;
  });
  const filter = (text: string) => {
    setQ(text);
    history.replaceState(null, "", (text ? "?q=" + encodeURIComponent(text) : location.pathname) + location.hash);
  };
  useEffect(() => {
    const follow = () => {
      toggle(named(), true);
      requestAnimationFrame(() => document.getElementById(named())?.scrollIntoView());
    };
    const focus = (e: KeyboardEvent) => {
      if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || e.target instanceof HTMLInputElement) return;
      e.preventDefault();
      field.current?.focus();
    };
    follow();
    addEventListener("hashchange", follow);
    addEventListener("keydown", focus);
    return () => {
      removeEventListener("hashchange", follow);
      removeEventListener("keydown", focus);
    };
  }, []);
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = doc.operations.filter((op) => words.every((w) => op.words.includes(w)));
  const tags = [...new Set(shown.map((op) => op.tag))];
  return (
    <>
      <div class="filter" role="search">
        <label for="filter">{T.filter}</label>
        <input id="filter" type="search" ref={field} value={q} placeholder={T.filterHint} autocomplete="off" onInput={(e) => filter(e.currentTarget.value)} />
        <p role="status">{T.count(shown.length, doc.operations.length)}</p>
      </div>
      <div class="docscols">
        <nav aria-label={T.groups}>
          <ul>{tags.map((t) => <li key={t}><a href={`#tag-${t}`}>{t} <small>{shown.filter((op) => op.tag === t).length}</small></a></li>)}</ul>
        </nav>
        <main id="operations" tabIndex={-1}>
          {shown.length === 0 && <p class="quiet-note">{T.none(q)}</p>}
          {tags.map((t) => <Group key={t} tag={t} doc={doc} list={shown.filter((op) => op.tag === t)} open={open} toggle={toggle} />)}
        </main>
      </div>
    </>
  );
}

function Group({ tag, list, doc, open, toggle }: {
  tag: string; list: Operation[]; doc: Document; open: ReadonlySet<string>; toggle: (id: string, on: boolean) => void;
}) {
  return (
    <section class="sec" id={`tag-${tag}`} aria-labelledby={`title-${tag}`}>
      <header><h2 id={`title-${tag}`}>{tag}</h2></header>
      {list.map((op) => (
        <OperationView key={op.operationId} op={op} doc={doc} open={open.has(op.operationId)} onToggle={(on) => toggle(op.operationId, on)} />
      ))}
    </section>
  );
}
