// The OpenAPI document as this page reads it. It is this server's own, so what it always
// has is taken for granted; nothing of it is ever put into the page but as text.

export interface Schema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  format?: string;
  enum?: unknown[];
  default?: unknown;
  examples?: unknown[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: Schema | boolean;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  maxItems?: number;
}

export interface Media {
  schema?: Schema;
  example?: unknown;
}

export interface Parameter {
  name: string;
  in: "path" | "query" | "header" | "cookie";
  description?: string;
  required?: boolean;
  schema?: Schema;
  example?: unknown;
}

export interface Answer {
  description: string;
  content?: Record<string, Media>;
  "x-muster-codes"?: string[];
}

interface RawOperation {
  operationId: string;
  summary?: string;
  description?: string;
  tags?: string[];
  parameters?: Parameter[];
  requestBody?: { required?: boolean; content: Record<string, Media> };
  responses: Record<string, Answer>;
  "x-muster-scope"?: string;
  "x-muster-role"?: string;
}

export interface Operation extends RawOperation {
  method: string;
  path: string;
  tag: string;
  words: string; // what the filter looks at, in lower case
}

export interface Document {
  schemas: Record<string, Schema>;
  operations: Operation[]; // by tag, then path and method
}

const METHODS = ["get", "post", "put", "patch", "delete"] as const;

type RawDocument = {
  paths: Record<string, Partial<Record<(typeof METHODS)[number], RawOperation>>>;
  components: { schemas: Record<string, Schema> };
};

/** Asks this server for its document. */
export async function load(): Promise<Document> {
  const r = await fetch("/api/openapi.json", { signal: AbortSignal.timeout(15_000) });
  if (!r.ok) throw new Error(`The server answered ${r.status}.`);
  const raw = (await r.json()) as RawDocument;
  const operations = Object.entries(raw.paths).flatMap(([path, item]) =>
    METHODS.flatMap((m) => (item[m] ? [read(m.toUpperCase(), path, item[m])] : [])));
  operations.sort((a, b) => compare(a.tag, b.tag) || compare(a.path, b.path));
  return { schemas: raw.components.schemas, operations };
}

function read(method: string, path: string, raw: RawOperation): Operation {
  const tag = raw.tags?.[0] ?? "other";
  const words = [method, path, raw.operationId, tag, raw.summary, raw.description, raw["x-muster-scope"], ...(raw.parameters ?? []).map((p) => p.name)];
  return { ...raw, method, path, tag, words: words.join(" ").toLowerCase() };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** One property of a schema, with its place in it. */
export interface Row {
  name: string;
  type: string;
  required: boolean;
  about: string;
}

const DEEPEST = 3; // of nesting that is shown

/** The properties of a schema and of those below it, as dotted names. */
export function rowsOf(doc: Document, schema: Schema | undefined, prefix = "", depth = 0): Row[] {
  const s = resolved(doc, schema);
  if (!s || depth > DEEPEST) return [];
  if (s.items) return rowsOf(doc, s.items, prefix + "[]", depth);
  const rows: Row[] = [];
  for (const [name, p] of Object.entries(s.properties ?? {})) {
    const at = prefix ? prefix + "." + name : name;
    rows.push({ name: at, type: typeOf(doc, p), required: s.required?.includes(name) ?? false, about: aboutOf(doc, p) });
    rows.push(...rowsOf(doc, p, at, depth + 1));
  }
  if (typeof s.additionalProperties === "object") rows.push(...rowsOf(doc, s.additionalProperties, prefix ? prefix + ".{name}" : "{name}", depth + 1));
  return rows;
}

function resolved(doc: Document, s: Schema | undefined): Schema | undefined {
  return s?.$ref ? doc.schemas[s.$ref.slice(s.$ref.lastIndexOf("/") + 1)] : s;
}

/** What kind of value a schema has, in a word or two. */
export function typeOf(doc: Document, schema: Schema | undefined): string {
  const s = resolved(doc, schema);
  if (!s) return "any";
  const types = Array.isArray(s.type) ? s.type : s.type ? [s.type] : ["any"];
  return types.map((t) => {
    if (t === "array") return "list of " + typeOf(doc, s.items);
    if (t === "object" && typeof s.additionalProperties === "object") return "object of " + typeOf(doc, s.additionalProperties);
    return t === "string" && s.format ? s.format : t;
  }).join(" or ");
}

/** What a schema says of its values: words, choices, limits, what holds when it is absent. */
export function aboutOf(doc: Document, schema: Schema | undefined): string {
  const s = { ...resolved(doc, schema), ...schema };
  const said: string[] = [];
  if (s.description) said.push(s.description + ".");
  if (s.enum) said.push("One of " + s.enum.map(plain).join(", ") + ".");
  if (s.minimum !== undefined && s.maximum !== undefined) said.push(`${s.minimum} to ${s.maximum}.`);
  else if (s.minimum !== undefined) said.push(`At least ${s.minimum}.`);
  else if (s.maximum !== undefined) said.push(`At most ${s.maximum}.`);
  if (s.maxLength !== undefined) said.push(`At most ${s.maxLength} characters.`);
  if (s.maxItems !== undefined) said.push(`At most ${s.maxItems}.`);
  if (s.default !== undefined) said.push(`${plain(s.default)} when absent.`);
  return said.join(" ");
}

function plain(v: unknown): string {
  return typeof v === "string" ? v : JSON.stringify(v);
}

/** An example as it is sent. */
export function textOf(example: unknown): string {
  return typeof example === "string" ? example : JSON.stringify(example, null, 2);
}
