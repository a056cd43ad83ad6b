// How severe a notification is and how it stands, as shape, colour and word.

import type { Notification } from "../lib/schema.gen";

export type Severity = Notification["severity"];

export const SEVERITIES: readonly Severity[] = ["info", "warning", "major", "critical"];

const TONE: Record<Severity, string> = { info: "off", warning: "warn", major: "warn", critical: "crit" };

function shape(s: Severity) {
  switch (s) {
    case "critical":
      return <path d="M6 0l6 6-6 6-6-6z" fill="currentColor" />;
    case "major":
      return <path d="M6 .8 11.6 11H.4z" fill="currentColor" />;
    case "warning":
      return <path d="M6 2 10.7 10.4H1.3z" fill="none" stroke="currentColor" stroke-width="1.6" />;
    case "info":
      return <circle cx="6" cy="6" r="4.2" fill="none" stroke="currentColor" stroke-width="1.7" />;
  }
}

export function SeverityGlyph({ of }: { of: Severity }) {
  return <svg class={`g ${TONE[of]}`} viewBox="0 0 12 12" aria-hidden="true">{shape(of)}</svg>;
}

/** The word, in the colour of the shape. */
export function SeverityWord({ of }: { of: Severity }) {
  return <span class={TONE[of]}>{of}</span>;
}
