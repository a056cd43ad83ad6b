// Who else has the page of this thing open, and who is writing in its forms.

import { useEffect, useState } from "preact/hooks";
import { subscribe, type Frame } from "../lib/live";
import { me } from "../lib/session";
import type { Viewer } from "../lib/device";

const T = {
  one: (name: string, edits: boolean) => (edits ? `${name} (editing)` : name),
  here: (names: string[]) => (names.length === 1 ? `${names[0]} is here too` : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]} are here too`),
};

const SHOWN = 3; // named; the rest is a number

/** at is kind/id as the page's path has it. */
export function Here({ at }: { at: string }) {
  const [viewers, setViewers] = useState<Viewer[]>([]);
  const [editing, setEditing] = useState(false);
  const user = me.value?.user?.id ?? "";
  useEffect(() => {
    setEditing(false);
    // What is written in a form of the page, and not sent yet, is an edit.
    const write = (e: Event) => (e.target as Element).closest("main form") && setEditing(true);
    const done = (e: Event) => (e.target as Element).closest("main form") && setEditing(false);
    document.addEventListener("input", write);
    document.addEventListener("submit", done);
    return () => {
      document.removeEventListener("input", write);
      document.removeEventListener("submit", done);
    };
  }, [at]);
  useEffect(() => {
    setViewers([]);
    if (!user) return;
    const take = (f: Frame) => {
      const item = (f["item"] ?? f["set"]) as { viewers?: Viewer[] } | undefined;
      setViewers(item?.viewers ?? []);
    };
    return subscribe("here:" + at, editing ? { edits: "settings" } : {}, { snapshot: take, delta: take, refused: () => setViewers([]) });
  }, [at, user, editing]);
  const others = viewers.filter((v) => !v.you);
  const names = others.slice(0, SHOWN).map((v) => T.one(v.name, v.edits !== ""));
  if (others.length > SHOWN) names.push(String(others.length - SHOWN));
  return (
    <span class="here" role="status">
      {others.length > 0 && <><span class="long">{T.here(names)}</span><b class="ava" aria-hidden="true" title={T.here(names)}>{others.length > 1 ? others.length : names[0]!.slice(0, 1).toUpperCase()}</b></>}
    </span>
  );
}
