// A short word about what is urgent, in a corner where neither the pointer nor the
// focus is; and the same, with all that is new, for whoever listens to the page.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { calm, news, urgent } from "../lib/inbox";
import { inboxPath } from "../lib/route";
import { SeverityGlyph, SeverityWord } from "./severity";

const T = {
  more: (n: number) => `and ${n} more`,
  open: "Open",
  close: "Not now",
  title: "Urgent notifications",
  said: (topic: string, title: string) => `New notification in ${topic}: ${title}`,
};

const SHORT_MS = 8_000; // that it is shown, unless somebody is at it
const SAY_MS = 5_000; // between two announcements
const CORNERS = ["se", "ne", "sw"] as const;
type Corner = (typeof CORNERS)[number];
const ROOM = { width: 392, height: 132, edge: 8 }; // that it takes at most, in px

let pointer = { x: -1, y: -1 };

/** Follows the pointer; called once. */
export function startToast(): void {
  addEventListener("pointermove", (e) => {
    pointer = { x: e.clientX, y: e.clientY };
  }, { passive: true });
}

/** The first corner that covers neither the pointer nor what has the focus. */
function freeCorner(): Corner {
  const other = document.querySelector<HTMLElement>(".undoing"); // on a phone its corner is as wide as the page
  if (other) return other.dataset["at"] === "ne" ? "se" : "ne";
  const focus = document.activeElement;
  const at = focus && focus !== document.body && focus.id !== "main" ? focus.getBoundingClientRect() : null;
  const clear = CORNERS.find((c) => {
    const top = c === "ne" ? 0 : innerHeight - ROOM.height;
    const left = c === "sw" ? 0 : innerWidth - ROOM.width;
    const inside = (x: number, y: number) => x >= left - ROOM.edge && x <= left + ROOM.width + ROOM.edge && y >= top - ROOM.edge && y <= top + ROOM.height + ROOM.edge;
    const covers = at && at.right > left && at.left < left + ROOM.width && at.bottom > top && at.top < top + ROOM.height;
    return !inside(pointer.x, pointer.y) && !covers;
  });
  return clear ?? "se";
}

export function Toast() {
  const all = urgent.value;
  const first = all[0];
  const corner = useMemo(freeCorner, [first?.id, first?.count]);
  const held = useRef(false);
  useEffect(() => {
    if (!first) return;
    const timer = setInterval(() => held.current || calm(), SHORT_MS);
    return () => clearInterval(timer);
  }, [first?.id, first?.count]);
  return (
    <>
      <Announcer />
      {first && (
        <aside class="toast" data-at={corner} aria-label={T.title}
          onPointerEnter={() => { held.current = true; }} onPointerLeave={() => { held.current = false; }}
          onFocusCapture={() => { held.current = true; }} onBlurCapture={() => { held.current = false; }}>
          <SeverityGlyph of={first.severity} />
          <div>
            <p><strong>{first.title}</strong></p>
            <p class="sub"><SeverityWord of={first.severity} /> · {first.topic_name} {all.length > 1 && <b>{T.more(all.length - 1)}</b>}</p>
            <p class="act">
              <a class="btn" href={inboxPath("all", "", first.id)} onClick={calm}>{T.open}</a>
              <button type="button" class="btn txt" onClick={calm}>{T.close}</button>
            </p>
          </div>
        </aside>
      )}
    </>
  );
}

/** Says the newest, at most once in SAY_MS. */
function Announcer() {
  const n = news.value;
  const [said, say] = useState("");
  const next = useRef(0);
  useEffect(() => {
    if (!n) return;
    const wait = Math.max(0, next.current - Date.now());
    const timer = setTimeout(() => {
      next.current = Date.now() + SAY_MS;
      say(T.said(n.topic_name, n.title));
    }, wait);
    return () => clearTimeout(timer);
  }, [n?.id, n?.count]);
  return <div class="vh" role="status">{said}</div>;
}
