// How a release stands, as shape, colour and word.

import type { FirmwareRelease } from "../lib/schema.gen";

const T = { not: "not offered" };

const TONE: Record<FirmwareRelease["state"], string> = { draft: "idle", published: "ok", deprecated: "off", revoked: "crit" };

export function ReleaseState({ of: r }: { of: FirmwareRelease }) {
  const held = r.state === "published" && !r.offerable;
  return (
    <>
      <span class={`status ${held ? "warn" : TONE[r.state]}`}><svg class="g" viewBox="0 0 12 12" aria-hidden="true">{shape(r.state, held)}</svg> {r.state}</span>
      {held && <small title={r.problem}> {T.not}</small>}
    </>
  );
}

function shape(s: FirmwareRelease["state"], held: boolean) {
  if (held) return <path d="M6 .8 11.6 11H.4z" fill="currentColor" />;
  switch (s) {
    case "published":
      return <circle cx="6" cy="6" r="5" fill="currentColor" />;
    case "revoked":
      return <path d="M6 0l6 6-6 6-6-6z" fill="currentColor" />;
    case "deprecated":
      return <path d="M1.5 6h9" fill="none" stroke="currentColor" stroke-width="2" />;
    case "draft":
      return <circle cx="6" cy="6" r="4.4" fill="none" stroke="currentColor" stroke-width="1.4" stroke-dasharray="2.1 2.5" />;
  }
}
