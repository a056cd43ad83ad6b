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

/** The text without the terms of a field. */
export function without(text: string, field: string): string {
  const names = field === "firmware" ? ["fw", "firmware"] : [field];
  return tokens(text).some((t) => /^[()]|[()]$/.test(t)) || /[()]|(^|\s)(or|not)(\s|$)/i.test(text)
    ? text
    : tokens(text).filter((t) => !names.some((n) => t.startsWith(n + ":") || t.startsWith(n + "="))).join(" ");
}

/** The text with one more term, which all else must hold beside. */
export function withTerm(text: string, term: string): string {
  const all = text.trim();
  if (all === "") return term;
  return `${/(^|\s)or(\s|$)/i.test(all) ? `(${all})` : all} ${term}`;
}

/** Where the server says that a query is wrong: the column, from 1, and why. */
export function faultOf(detail: string): { column: number; why: string } {
  const m = /column (\d+): (.*)$/s.exec(detail);
  return m ? { column: Number(m[1]), why: m[2]! } : { column: 0, why: detail };
}

/** A query that finds the devices with these ids. */
export function idsQuery(ids: readonly string[]): string {
  return ids.map((id) => `id=${id}`).join(" or ");
}
