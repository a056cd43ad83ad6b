// A button that asks once more before it does what cannot be undone.

import { useState } from "preact/hooks";

export function Sure({ word, sure, of, onSure }: { word: string; sure: string; of: string; onSure: () => void }) {
  const [asked, ask] = useState(false);
  return asked
    ? <button type="button" class="btn" aria-label={`${sure} ${of}`} onBlur={() => ask(false)} onClick={onSure} ref={(el) => el?.focus()}>{sure}</button>
    : <button type="button" class="btn txt" aria-label={`${word} ${of}`} onClick={() => ask(true)}>{word}</button>;
}
