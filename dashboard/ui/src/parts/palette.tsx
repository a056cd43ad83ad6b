// The palette: jump to a page or a thing, or do something, by typing a part of its name.

import { useEffect, useId, useRef, useState } from "preact/hooks";
import { message } from "../lib/api";
import { pause, paused } from "../lib/live";
import { PLACES } from "../lib/pages";
import { releaseName, releasePath } from "../lib/firmware";
import { devicePath, go, listPath } from "../lib/route";
import { rolloutPath } from "../lib/rollouts";
import { listDevices, listGroups, listReleases, listRollouts } from "../lib/schema.gen";
import { may } from "../lib/session";
import { choose } from "../lib/theme";
import { readTopics, topicName, topicPath, topics } from "../lib/topics";
import { sheet } from "./everywhere";

const T = {
  label: "Jump",
  placeholder: "Jump to a page, a device, a group, a topic, a rollout",
  kinds: { page: "page", device: "device", group: "group", topic: "topic", rollout: "rollout", release: "release", action: "action" } as Record<Kind, string>,
  none: "Nothing is called so.",
  found: (n: number) => (n === 1 ? "1 result" : `${n} results`),
  keys: "Show the keys",
  pause: "Pause what is live",
  goOn: "Go on live",
  dark: "Dark theme",
  light: "Light theme",
  system: "The system's theme",
  rollout: "Make a rollout",
  upload: "Upload firmware",
  import: "Import a list of devices",
};

type Kind = "page" | "device" | "group" | "topic" | "rollout" | "release" | "action";

interface Hit {
  kind: Kind;
  id: string;
  word: string;
  more?: string;
  run: () => void;
}

const ORDER: readonly Kind[] = ["page", "rollout", "release", "group", "topic", "device", "action"];
const TYPING_MS = 150;
const DEVICES = 8; // that are asked for
const KEPT = 200; // of groups, topics, rollouts and releases: among them is looked here
const SHOWN = 12;

export function Palette({ onClose }: { onClose: () => void }) {
  const el = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const id = useId();
  const { hits, fault } = useHits(text);
  useEffect(() => el.current?.showModal(), []);
  useEffect(() => setAt(0), [text]);
  const chosen = Math.min(at, hits.length - 1);
  const run = (h: Hit | undefined) => {
    if (!h) return;
    el.current?.close();
    h.run();
  };
  const onKeyDown = (e: KeyboardEvent) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (by && hits.length > 0) setAt((chosen + by + hits.length) % hits.length);
    else if (e.key === "Enter") run(hits[chosen]);
    else return;
    e.preventDefault();
  };
  return (
    <dialog ref={el} class="palette" aria-label={T.label} onClose={onClose} onClick={(e) => e.target === el.current && el.current?.close()}>
      <input role="combobox" aria-expanded="true" aria-controls={id} aria-activedescendant={hits.length > 0 ? `${id}-${chosen}` : undefined} aria-autocomplete="list" aria-label={T.placeholder}
        placeholder={T.placeholder} autocomplete="off" spellcheck={false} value={text} onInput={(e) => setText(e.currentTarget.value)} onKeyDown={onKeyDown} />
      {fault && <p class="error" role="alert">{fault}</p>}
      <ul id={id} role="listbox" aria-label={T.label}>
        {hits.map((h, i) => (
          <li key={h.kind + h.id} id={`${id}-${i}`} role="option" aria-selected={i === chosen} data-kind={h.kind} onPointerMove={() => setAt(i)} onClick={() => run(h)}>
            <span>{h.word} {h.more && <small>{h.more}</small>}</span><small>{T.kinds[h.kind]}</small>
          </li>
        ))}
      </ul>
      <p class="hint" role="status">{hits.length === 0 ? T.none : <span class="vh">{T.found(hits.length)}</span>}</p>
    </dialog>
  );
}

/** What fits: what is known here at once, devices as the server finds them. */
function useHits(text: string): { hits: Hit[]; fault: string } {
  const [known, setKnown] = useState<Hit[]>([]);
  const [devices, setDevices] = useState<Hit[]>([]);
  const [fault, setFault] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    for (const ask of asks(stop.signal)) ask.then((more) => setKnown((old) => [...old, ...more]), () => undefined); // what cannot be asked is not found
    return () => stop.abort();
  }, []);
  const word = text.trim();
  useEffect(() => {
    setFault("");
    if (!word) return setDevices([]);
    const stop = new AbortController();
    const timer = setTimeout(() => {
      listDevices({ q: quoted(word), limit: DEVICES }, stop.signal).then(
        (p) => setDevices(p.items.map((d) => ({ kind: "device", id: d.id, word: d.id, more: d.name, run: () => go(devicePath(d.id)) }))),
        (e: unknown) => stop.signal.aborted || setFault(message(e)),
      );
    }, TYPING_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [word]);
  const low = word.toLowerCase();
  const here = [...pages(), ...known, ...actions()].filter((h) => !low || `${h.word} ${h.more ?? ""}`.toLowerCase().includes(low));
  const starts = (h: Hit) => (h.word.toLowerCase().startsWith(low) ? 0 : 1);
  const found = low ? [...here, ...devices].sort((a, b) => starts(a) - starts(b) || ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind)) : here;
  return { hits: found.slice(0, SHOWN), fault };
}

/** A word of the query language that is looked for anywhere in id and name. */
function quoted(word: string): string {
  return '"' + word.replaceAll("\\", "\\\\").replaceAll('"', '\\"') + '"';
}

function pages(): Hit[] {
  return PLACES.filter((p) => p.shown()).map((p) => ({ kind: "page", id: p.path, word: p.word, run: () => go(p.path) }));
}

function actions(): Hit[] {
  const act = (word: string, run: () => void): Hit => ({ kind: "action", id: word, word, run });
  return [
    ...(may("firmware:write") ? [act(T.rollout, () => go("/rollouts?new=rollout")), act(T.upload, () => go("/firmware"))] : []),
    ...(may("devices:write") ? [act(T.import, () => go("/import"))] : []),
    act(paused.value ? T.goOn : T.pause, () => pause(!paused.value)),
    act(T.keys, () => { sheet.value = true; }),
    act(T.dark, () => choose("dark")), act(T.light, () => choose("light")), act(T.system, () => choose("system")),
  ];
}

/** What is asked once, when the palette opens. */
function asks(stop: AbortSignal): Promise<Hit[]>[] {
  return [
    listGroups({ limit: KEPT }, stop).then((p) => p.items.map((g) => ({ kind: "group", id: g.name, word: g.name, run: () => go(listPath(`group:${quotedName(g.name)}`, "id", "")) }))),
    readTopics(stop).then(() => [...(topics.peek()?.values() ?? [])].slice(0, KEPT).map((t) => ({ kind: "topic", id: t.id, word: topicName(t), more: t.name, run: () => go(topicPath(t.id)) }))),
    ...(may("firmware:read") ? [
      listRollouts({ limit: KEPT }, stop).then((p) => p.items.map((r): Hit => ({ kind: "rollout", id: r.id, word: r.name, more: r.progress.status, run: () => go(rolloutPath(r.id)) }))),
      listReleases({ limit: KEPT }, stop).then((p) => p.items.map((r): Hit => ({ kind: "release", id: r.id, word: releaseName(r), more: r.state, run: () => go(releasePath(r.id)) }))),
    ] : []),
  ];
}

function quotedName(name: string): string {
  return /^[A-Za-z0-9._-]+$/.test(name) ? name : quoted(name);
}
