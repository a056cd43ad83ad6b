// Light or dark: the system's choice unless this browser remembers another.

import { effect, signal } from "@preact/signals";

export type Choice = "system" | "light" | "dark";

const KEY = "muster.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function remembered(): Choice {
  try {
    const v = localStorage.getItem(KEY);
    return v === "light" || v === "dark" ? v : "system";
  } catch {
    return "system"; // storage is forbidden: nothing is remembered
  }
}

export const choice = signal<Choice>(remembered());

/** What is drawn now; canvases redraw when it changes. */
export const theme = signal<"light" | "dark">("light");

const systemDark = signal(system.matches);

export function startTheme(): void {
  system.addEventListener("change", (e) => {
    systemDark.value = e.matches;
  });
  effect(() => {
    const dark = choice.value === "dark" || (choice.value === "system" && systemDark.value);
    document.documentElement.dataset["theme"] = dark ? "dark" : "light";
    theme.value = dark ? "dark" : "light";
  });
}

export function choose(c: Choice): void {
  choice.value = c;
  try {
    if (c === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, c);
  } catch {
    // storage is forbidden: the choice lasts as long as the page
  }
}

/** The value of a colour token, for canvases. */
export function token(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
