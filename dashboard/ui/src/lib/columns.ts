// The columns of the list of devices, as the address has them: their names with commas
// between. State and device are always there; no name at all is what the page chooses.

/** Columns that every device has. */
export const PLAIN = ["seen", "reason", "profile", "parent", "firmware", "groups", "tags"] as const;

const MOST = 24;

export interface Column {
  name: string;
  kind: (typeof PLAIN)[number] | "tag" | "v" | "spark";
  key: string; // of tag, v and spark
}

const KEYED = [["tag:", "tag"], ["v.", "v"], ["spark.", "spark"]] as const;

/** Reads columns; what is none, and status and id, which are always there, are left out. */
export function parseColumns(cols: string): Column[] {
  const out: Column[] = [];
  for (const name of new Set(cols.split(","))) {
    const c = columnOf(name);
    if (c && out.length < MOST) out.push(c);
  }
  return out;
}

function columnOf(name: string): Column | undefined {
  const plain = PLAIN.find((p) => p === name);
  if (plain) return { name, kind: plain, key: "" };
  for (const [prefix, kind] of KEYED) {
    if (name.startsWith(prefix) && name.length > prefix.length) return { name, kind, key: name.slice(prefix.length) };
  }
  return undefined;
}

/** What the address has for columns; "id" when none but state and device are wanted. */
export function columnsText(names: readonly string[]): string {
  return names.length > 0 ? names.join(",") : "id";
}

/** The columns of a table for people, as the server writes it. */
export function exportColumns(columns: readonly Column[]): string {
  return ["id", "name", "status", ...columns.filter((c) => c.kind !== "spark").map((c) => c.name)].join(",");
}
