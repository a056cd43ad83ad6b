// JSON documents as people see them: leaves by their dotted paths, and text.

/** A leaf of a document, by its path as the API writes it. */
export interface Leaf {
  path: string;
  top: string; // the first key of the path
  value: unknown;
}

const MOST = 2000; // leaves shown of one document

/** A key as it stands in a path: in quotes when a dot or the like is in it. */
function keyOf(key: string): string {
  // eslint-disable-next-line no-control-regex
  return key === "" || /[."\u0000-\u001f]/.test(key) ? JSON.stringify(key) : key;
}

/** The leaves of a document in bytewise order of their paths; arrays are leaves, and so are empty objects. */
export function leavesOf(doc: unknown): Leaf[] {
  const out: Leaf[] = [];
  const walk = (v: unknown, path: string, top: string) => {
    if (out.length >= MOST) return;
    if (v && typeof v === "object" && !Array.isArray(v)) {
      const keys = Object.keys(v).sort();
      for (const k of keys) walk((v as Record<string, unknown>)[k], path ? `${path}.${keyOf(k)}` : keyOf(k), top || k);
      if (keys.length > 0 || path === "") return;
    }
    out.push({ path, top, value: v });
  };
  walk(doc, "", "");
  return out;
}

/** JSON on several lines. */
export function pretty(v: unknown): string {
  return JSON.stringify(v, null, 2) ?? "";
}

/** The value of a text of JSON; an error says what is wrong with it. */
export function parsed(text: string, empty: unknown): unknown {
  return text.trim() === "" ? empty : JSON.parse(text);
}
