// The bell of the top bar: how many notifications are open or unread, as it is now.

import { counts } from "../lib/inbox";
import { counted } from "../lib/format";
import { route } from "../lib/route";

const T = {
  inbox: "Inbox",
  open: (n: number) => `${n === 1 ? "1 needs" : `${counted(n)} need`} an ack`,
  unread: (n: number) => `${counted(n)} unread`,
};

const SHOWN = 99; // more than so many are 99+

export function Bell() {
  const n = counts.value;
  if (!n) return null;
  const words = [n.open > 0 && T.open(n.open), n.unread > 0 && T.unread(n.unread)].filter(Boolean).join(", ");
  const most = n.open || n.unread;
  return (
    <a class="bell" href="/inbox" title={words} aria-label={words ? `${T.inbox}: ${words}` : T.inbox} aria-current={route.value.page === "inbox" ? "page" : undefined}>
      <svg width="17" height="17" viewBox="0 0 18 18" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round" aria-hidden="true">
        <path d="M9 1.8a5 5 0 0 0-5 5c0 4-1.8 5.2-1.8 6.4h13.6c0-1.2-1.8-2.4-1.8-6.4a5 5 0 0 0-5-5z" /><path d="M7.3 15.6a1.8 1.8 0 0 0 3.4 0" />
      </svg>
      {most > 0 && <b class={n.open > 0 ? "open" : undefined}>{most > SHOWN ? `${SHOWN}+` : most}</b>}
    </a>
  );
}
