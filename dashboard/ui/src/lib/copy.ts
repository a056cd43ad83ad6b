// Lines to be copied into a shell.

/** A word of a POSIX shell command line. */
export function shellWord(s: string): string {
  return /^[A-Za-z0-9_.:@%+=/-]+$/.test(s) ? s : "'" + s.replaceAll("'", `'\\''`) + "'";
}

/** Puts text on the clipboard; false when the browser does not let us. */
export async function copy(text: string, shown: HTMLElement | null): Promise<boolean> {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // no permission: the older way may still work
    }
  }
  if (!shown) return false;
  // Outside https and localhost there is only the older way.
  getSelection()?.selectAllChildren(shown);
  return document.execCommand("copy");
}
