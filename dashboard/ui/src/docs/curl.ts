// The line that does an operation from a shell.

import { shellWord } from "../lib/copy";
import type { Operation, Parameter } from "./document";

/** A curl line for the server at origin, with the document's examples. The key comes from the
 * environment, so that it is in no history. */
export function curlOf(op: Operation, origin: string): string {
  const words = ["curl"];
  const body = Object.entries(op.requestBody?.content ?? {})[0];
  const stream = op.responses["200"]?.content?.["text/event-stream"];
  if (stream) words.push("-N");
  if (op.method !== (body ? "POST" : "GET")) words.push("-X", op.method);
  words.push(shellWord(origin + pathOf(op)));
  if (op["x-muster-scope"] !== "public") words.push("-H", '"Authorization: Bearer $MUSTER_KEY"');
  if (body) {
    const [kind, media] = body;
    words.push("-H", shellWord("Content-Type: " + kind));
    const text = typeof media.example === "string" ? media.example : JSON.stringify(media.example ?? {});
    words.push(text.includes("\n") ? "--data-binary" : "-d", shellWord(text));
  }
  return words.join(" ");
}

/** The path with its parameters filled in, and the query parameters that must be there. */
function pathOf(op: Operation): string {
  const all = op.parameters ?? [];
  const path = op.path.replace(/\{([^}]+)\}/g, (_, name: string) => {
    const p = all.find((x) => x.in === "path" && x.name === name);
    return encodeURIComponent(p ? exampleOf(p) : name.toUpperCase());
  });
  const q = new URLSearchParams(all.filter((p) => p.in === "query" && p.required).map((p) => [p.name, exampleOf(p)]));
  return q.size ? path + "?" + q.toString() : path;
}

function exampleOf(p: Parameter): string {
  const v = p.example ?? p.schema?.examples?.[0] ?? p.schema?.enum?.[0] ?? p.schema?.default ?? p.name.toUpperCase();
  return typeof v === "object" ? JSON.stringify(v) : String(v);
}
