// What every page has: the keys that lead to other pages, their sheet, and the palette.

import { signal } from "@preact/signals";
import { useLayoutEffect } from "preact/hooks";
import { pause, paused } from "../lib/live";
import { PLACES } from "../lib/pages";
import { go } from "../lib/route";
import { useKeys } from "./keys";
import { KeySheet } from "./keysheet";
import { lazy } from "./lazy";

const Palette = lazy(() => import("./palette").then((m) => m.Palette));

const T = { title: "Everywhere", jump: "jump to a page, a device, a topic, a rollout", sheet: "this sheet", pause: "pause what is live, and go on", to: (word: string) => `go to ${word}` };

export const palette = signal(false);
export const sheet = signal(false);

export function Everywhere() {
  useLayoutEffect(() => {
    const onKey = (e: KeyboardEvent) => {
      if (!(e.ctrlKey || e.metaKey) || e.altKey || e.shiftKey || e.key.toLowerCase() !== "k") return;
      e.preventDefault();
      palette.value = !palette.value;
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  const places = PLACES.filter((p) => p.key && p.shown());
  useKeys(T.title, [
    { keys: "/, Ctrl K", what: T.jump, run: () => { palette.value = true; } },
    ...places.map((p) => ({ keys: `g ${p.key}`, what: T.to(p.word), run: () => go(p.path) })),
    { keys: "p", what: T.pause, run: () => pause(!paused.value) },
    { keys: "?", what: T.sheet, run: () => { sheet.value = true; } },
  ]);
  return (
    <>
      {palette.value && <Palette onClose={() => { palette.value = false; }} />}
      {sheet.value && <KeySheet onClose={() => { sheet.value = false; }} />}
    </>
  );
}
