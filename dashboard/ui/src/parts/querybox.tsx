// The box for a query: it suggests fields, then the values there are with how many devices
// have them, and shows what the server does not understand where it stands.

import { useEffect, useId, useRef, useState } from "preact/hooks";
import { count } from "../lib/format";
import { faultOf, tokenAt, unfinished, wishOf, type Wish } from "../lib/query";
import { listDeviceFacets } from "../lib/schema.gen";
import { Glyph, STATES } from "./glyph";
import type { Status } from "../lib/types";

const T = {
  label: "Search devices",
  placeholder: "Search, or group: status: fw: v.key<15",
  suggestions: "Suggestions",
  clear: "Clear the search",
  at: (column: number) => `Column ${column}: `,
  some: (n: number) => `${n} suggestions`,
};

const FIELDS: readonly (readonly [string, string])[] = [
  ["status:", "online, updating, quiet, offline, never, unknown or silent"],
  ["group:", "in a group"],
  ["tag:", "has a tag, or tag:site=berlin"],
  ["fw:", "the firmware that it reports"],
  ["profile:", "of a profile"],
  ["parent:", "behind a gateway"],
  ["seen>", "not heard of for longer than, as in seen>10m"],
  ["v.", "the latest value of a key, as in v.battery<15"],
  ["id:", "begins so, with a * at the end"],
  ["name~", "the name contains"],
  ["has:", "has a location, a twin, a credential"],
  ["converged:", "does what it is wanted to do: true or false"],
  ["created>", "older than, as in created>30d"],
];

const TYPING_MS = 250; // typing pauses this long before the list follows
const ASKING_MS = 120; // and this long before values are asked for
const MOST = 9;
const MOST_SENT = 100;

/** One line of the list of suggestions. */
interface Offer {
  text: string; // what takes the place of the term
  label: string;
  note: string;
  glyph?: Status;
  open?: boolean; // a value is still to come
}

interface Props {
  value: string;
  fault: string; // what the server says of value
  onQuery: (q: string) => void;
  label?: string;
  name?: string;
}

export function QueryBox({ value, fault, onQuery, label = T.label, name }: Props) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useState(value);
  const [caret, setCaret] = useState(value.length);
  const [open, setShown] = useState(false);
  const [forced, force] = useState(false); // by a key, also where no term is begun
  const setOpen = (on: boolean, asked = false) => {
    setShown(on);
    force(asked);
  };
  const [active, show] = useState(-1);
  const at = useRef(-1); // active, for keys that come faster than the page is drawn
  const setActive = (i: number) => {
    at.current = i;
    show(i);
  };
  const timer = useRef(0);
  const sent = useRef([value]); // what was said to the page and did not come back yet, after what did
  useEffect(() => {
    const i = sent.current.lastIndexOf(value);
    if (i < 0) setText(value); // somebody else's, and not an echo that comes while one types on
    sent.current = i < 0 ? [value] : sent.current.slice(i);
  }, [value]);
  const token = tokenAt(text, caret);
  const rest = (text.slice(0, token.from) + text.slice(token.to)).trim();
  const offers = useOffers(token.text, rest, open);
  // Between two terms nothing is in the way of what is below, unless it is asked for.
  const shown = open && offers.length > 0 && (token.text !== "" || text.trim() === "" || forced);
  const send = (q: string) => {
    clearTimeout(timer.current);
    sent.current = [...sent.current.slice(-MOST_SENT), q];
    onQuery(q);
  };
  const typed = (next: string, at: number, pause: boolean) => {
    setText(next);
    setCaret(at);
    setActive(-1);
    clearTimeout(timer.current);
    const q = next.trim();
    if (!pause || name) send(q);
    else if (!unfinished(next)) timer.current = window.setTimeout(() => send(q), TYPING_MS);
  };
  const take = (o: Offer) => {
    const next = text.slice(0, token.from) + o.text + (o.open ? "" : " ") + text.slice(token.to).trimStart();
    const at = token.from + o.text.length + (o.open ? 0 : 1);
    typed(next, at, o.open === true);
    setOpen(true);
    requestAnimationFrame(() => {
      input.current?.focus();
      input.current?.setSelectionRange(at, at);
    });
  };
  const onKeyDown = (e: KeyboardEvent) => {
    const n = offers.length;
    if (e.key === "Escape") {
      if (shown) e.preventDefault(); // a search box would empty itself
      return setOpen(false);
    }
    if (e.key === "ArrowDown" || e.key === "ArrowUp") {
      e.preventDefault();
      setOpen(true, true);
      if (n > 0) setActive((at.current + (e.key === "ArrowDown" ? 1 : at.current < 0 ? 0 : -1) + n) % n);
      return;
    }
    if (e.key !== "Enter") return;
    const o = shown ? offers[at.current] : undefined;
    if (o) {
      e.preventDefault();
      return take(o);
    }
    setOpen(false);
    if (!name) send(text.trim());
  };
  return (
    <div class="querybox" onFocusOut={(e) => e.currentTarget.contains(e.relatedTarget as Node | null) || setOpen(false)}>
      <label class="search">
        <svg width="13" height="13" viewBox="0 0 14 14" fill="none" stroke="currentColor" stroke-width="1.6" aria-hidden="true"><circle cx="6" cy="6" r="4.5" /><path d="m9.5 9.5 3.5 3.5" /></svg>
        <input ref={input} {...({ type: "search", role: "combobox" } as { type: "search" })} name={name} value={text} placeholder={T.placeholder} aria-label={label} autocomplete="off" autocapitalize="off" spellcheck={false}
          aria-expanded={shown} aria-controls={id} aria-autocomplete="list" aria-activedescendant={shown && active >= 0 ? `${id}-${active}` : undefined}
          aria-invalid={fault !== ""} aria-describedby={id + "-fault"}
          onFocus={() => setOpen(true)} onClick={() => setOpen(true)} onKeyDown={onKeyDown} onSelect={(e) => setCaret(e.currentTarget.selectionStart ?? text.length)}
          onInput={(e) => {
            setOpen(true);
            typed(e.currentTarget.value, e.currentTarget.selectionStart ?? e.currentTarget.value.length, true);
          }} />
      </label>
      <ul id={id} role="listbox" class="offers" aria-label={T.suggestions} hidden={!shown}>
        {offers.map((o, i) => (
          <li key={o.text + o.label} id={`${id}-${i}`} role="option" aria-selected={i === active} onPointerDown={(e) => { e.preventDefault(); take(o); }}>
            {o.glyph && <Glyph state={o.glyph} />}<span class="mono">{o.label}</span><small>{o.note}</small>
          </li>
        ))}
      </ul>
      <Fault id={id + "-fault"} q={value} fault={fault} />
      <span class="vh" role="status">{shown ? T.some(offers.length) : ""}</span>
    </div>
  );
}

/** What is wrong with a query, at its place. */
function Fault({ id, q, fault }: { id: string; q: string; fault: string }) {
  const { column, why } = faultOf(fault);
  const chars = [...q];
  const at = column - 1;
  const end = at + Math.max(1, chars.slice(at).join("").search(/\s|$/));
  return (
    <p class="error query-fault" id={id} role="alert">
      {fault && column > 0 && <code aria-hidden="true">{chars.slice(0, at).join("")}<mark>{chars.slice(at, end).join("") || " "}</mark>{chars.slice(end).join("")}</code>}
      {fault && <span>{column > 0 && <b>{T.at(column)}</b>}{why}</span>}
    </p>
  );
}

/** What can stand where the term is. */
function useOffers(term: string, rest: string, open: boolean): Offer[] {
  const wish = wishOf(term);
  const [values, setValues] = useState<{ of: string; list: Offer[] }>({ of: "", list: [] });
  const of = wish.what === "value" ? `${wish.field}\n${wish.match}\n${rest}` : "";
  useEffect(() => {
    if (!open || wish.what !== "value") return;
    const stop = new AbortController();
    const timer = setTimeout(() => {
      void valuesOf(wish.field, wish.match, rest, stop.signal).then((list) => stop.signal.aborted || setValues({ of, list }));
    }, ASKING_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [of, open]);
  if (wish.what === "value") return values.of.split("\n")[0] === wish.field ? values.list.filter((o) => o.text !== term) : [];
  return offersOf(wish);
}

function offersOf(wish: Wish): Offer[] {
  if (wish.what === "field") return FIELDS.filter(([f]) => f.startsWith(wish.match) && f !== wish.match).slice(0, MOST).map(([text, note]) => ({ text, label: text, note, open: true }));
  if (wish.what === "word") return wish.words.filter((w) => w.startsWith(wish.match) && w !== wish.match).map((w) => ({ text: wish.prefix + w, label: wish.prefix + w, note: "" }));
  return [];
}

/** Asks which values there are among what the rest of the query finds; of all devices when
 * the rest is no query by itself. */
async function valuesOf(field: string, match: string, rest: string, stop: AbortSignal): Promise<Offer[]> {
  const ask = (q: string) => listDeviceFacets({ fields: field, limit: MOST, ...(q && { q }), ...(match && { match: match.slice(0, 64) }) }, stop);
  try {
    const got = await ask(rest).catch((e: unknown) => {
      if (rest === "" || stop.aborted) throw e;
      return ask("");
    });
    return (got.items[0]?.values ?? []).map((v) => {
      const open = field === "tag" || field === "key";
      const glyph = field === "status" ? STATES.find((s) => s === v.value) : undefined;
      return { text: open && field === "tag" ? v.term + "=" : v.term, label: v.term, note: count(v.devices), open, ...(glyph && { glyph }) };
    });
  } catch {
    return []; // without suggestions one can type
  }
}

