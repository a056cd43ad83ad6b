// Auto, light or dark.

import { choice, choose, type Choice } from "../lib/theme";

const T = { theme: "Theme" };

const THEMES: [Choice, string][] = [["system", "Auto"], ["light", "Light"], ["dark", "Dark"]];

export function ThemeSwitch() {
  return (
    <div class="tabs" role="group" aria-label={T.theme}>
      {THEMES.map(([key, word]) => (
        <button key={key} type="button" aria-pressed={choice.value === key} onClick={() => choose(key)}>{word}</button>
      ))}
    </div>
  );
}
