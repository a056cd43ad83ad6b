// What the query box knows of the language: where a term begins and which part of it is
// being written. What a term means, and whether it is right, the server decides.

/** The term at a place of a text. */
export interface Token {
  from: number;
  to: number; // the end of the term
  text: string; // up to the place
}

/** The term in which the caret is, empty between terms. */
export function tokenAt(text: string, caret: number): Token {
  let from = 0;
  let quoted = false;
  let i = 0;
  for (; i < text.length; i++) {
    const c = text[i]!;
    if (quoted && c === "\\") i++;
    else if (c === '"') quoted = !quoted;
    else if (!quoted && /[\s()]/.test(c)) {
      if (i >= caret) break;
      from = i + 1;
    }
  }
  return { from, to: Math.max(Math.min(i, text.length), caret), text: text.slice(from, caret) };
}

/** The terms of a text, as they are written. */
export function tokens(text: string): string[] {
  const out: string[] = [];
  for (let at = 0; at < text.length; at++) {
    const t = tokenAt(text, at);
    const term = text.slice(t.from, t.to);
    if (term && t.from >= at) {
      out.push(term);
      at = t.to;
    }
  }
  return out;
}

/** What a term that is being written asks for. */
export type Wish =
  | { what: "field"; match: string }
  | { what: "value"; field: string; match: string } // of a facet
  | { what: "word"; words: readonly string[]; prefix: string; match: string }
  | { what: "nothing" };

const WORDS: Record<string, readonly string[]> = {
  has: ["parent", "children", "tags", "location", "notes", "twin", "credential", "connection"],
  converged: ["true", "false"],
  seen: ["5m", "1h", "1d", "7d"],
  created: ["1h", "1d", "7d", "30d"],
};

export function wishOf(term: string): Wish {
  const tag = /^tag:([\w.-]*)(?:(?:=|!=)"?(.*))?$/.exec(term);
  if (tag) return tag[2] === undefined ? { what: "value", field: "tag", match: tag[1]! } : { what: "value", field: `tag:${tag[1]}`, match: tag[2] };
  const key = /^v\.([^:=<>!~"]*)$/.exec(term);
  if (key) return { what: "value", field: "key", match: key[1]! };
  const m = /^([a-z]+)(!=|[<>]=?|[:=])"?(.*)$/.exec(term);
  if (!m) return /^[\w.-]*$/.test(term) ? { what: "field", match: term } : { what: "nothing" };
  const [, name = "", op = "", match = ""] = m;
  const field = name === "fw" ? "firmware" : name;
  if (["status", "group", "profile", "firmware", "parent"].includes(field)) return { what: "value", field, match };
  const words = WORDS[field];
  return words ? { what: "word", words, prefix: name + op, match } : { what: "nothing" };
}

/** Whether a text ends in the middle of a term, so that it is no query yet. */
export function unfinished(text: string): boolean {
  const quotes = text.replace(/\\./g, "").split('"').length - 1;
  return quotes % 2 === 1 || /(^|\s)(tag:|v\.|twin\.\S*\.)$/.test(text) || /[:=<>~!(]$/.test(text) || /(^|\s)(and|or|not)$/i.test(text.trimEnd());
}

/** What stands in a text outside of parentheses: its terms that are not denied, and whether there is an or between them. */
function atTop(text: string): { terms: Token[]; or: boolean } {
  const terms: Token[] = [];
  let [depth, denied, or] = [0, false, false];
  for (let at = 0; at < text.length; at++) {
    const c = text[at]!;
    if (c === "(") depth++;
    if (c === ")") depth--;
    if (c === ")" && depth === 0) denied = false;
    if (/[\s()]/.test(c)) continue;
    const to = tokenAt(text, at).to;
    const term = text.slice(at, to);
    const word = /^(and|or|not)$/i.exec(term)?.[0].toLowerCase();
    if (depth === 0) {
      if (!word && !denied) terms.push({ from: at, to, text: term });
      if (word !== "and") denied = word === "not";
      or ||= word === "or";
    }
    at = to - 1;
  }
  return { terms, or };
}

/** The terms that must hold whatever else does. */
export function conjuncts(text: string): Token[] {
  const { terms, or } = atTop(text);
  return or ? [] : terms;
}

/** The text without those of its conjuncts that are out; all else stays as it is written. */
export function leaveOut(text: string, out: (term: string) => boolean): string {
  for (const t of conjuncts(text).reverse()) {
    if (!out(t.text)) continue;
    const before = text.slice(0, t.from).trimEnd();
    const after = text.slice(t.to).trimStart();
    const bare = before.replace(/(^|[\s)])and$/i, "$1").trimEnd();
    text = [bare, bare === before ? after.replace(/^and(?=[\s(]|$)/i, "").trimStart() : after].filter(Boolean).join(" ");
  }
  return text;
}

/** The text without the terms of a field. */
export function without(text: string, field: string): string {
  const names = field === "firmware" ? ["fw", "firmware"] : [field];
  return leaveOut(text, (t) => names.some((n) => t.startsWith(n + ":") || t.startsWith(n + "=")));
}

/** The text with one more term, which all else must hold beside. */
export function withTerm(text: string, term: string): string {
  const all = text.trim();
  if (all === "") return term;
  return `${atTop(all).or ? `(${all})` : all} ${term}`;
}

/** Where the server says that a query is wrong: the column, from 1, and why. */
export function faultOf(detail: string): { column: number; why: string } {
  const m = /column (\d+): (.*)$/s.exec(detail);
  return m ? { column: Number(m[1]), why: m[2]! } : { column: 0, why: detail };
}

const MOST_TERMS = 64; // of one query
const LONGEST = 2048; // bytes of one query, as the API takes it; an id has ASCII only

/** Queries that find the devices with these ids together, each as long as one may be. */
export function idsQueries(ids: readonly string[]): string[] {
  const out: string[] = [];
  for (let from = 0; from < ids.length;) {
    let to = Math.min(from + MOST_TERMS, ids.length);
    while (to - from > 1 && idsQuery(ids.slice(from, to)).length > LONGEST) to--;
    out.push(idsQuery(ids.slice(from, to)));
    from = to;
  }
  return out;
}

/** A query that finds the devices with these ids, which are few. */
export function idsQuery(ids: readonly string[]): string {
  return ids.map((id) => `id=${id}`).join(" or ");
}
