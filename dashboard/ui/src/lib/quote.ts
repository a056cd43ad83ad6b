// Words of command lines, as each shell wants them.

import { shellWord } from "./copy";

export type Shell = "sh" | "powershell" | "cmd";

export const SHELLS: readonly (readonly [Shell, string])[] = [["sh", "sh"], ["powershell", "PowerShell"], ["cmd", "cmd"]];

const PLAIN = /^[A-Za-z0-9_.:+=/-]+$/;

/** A word of a PowerShell command line: what is in single quotes is taken as it is. A
 * word with a double quote must not be given to a program: PowerShell 5 loses it. */
export function powershellWord(s: string): string {
  return PLAIN.test(s) ? s : "'" + s.replace(/['\u2018\u2019\u201a\u201b]/g, (c) => c + c) + "'";
}

/** A word of a command line of cmd.exe, for a program that splits its line as C does: quotes
 * with a backslash before them, and a caret before all that cmd itself would understand. */
export function cmdWord(s: string): string {
  if (PLAIN.test(s)) return s;
  const word = '"' + s.replace(/(\\*)"/g, '$1$1\\"').replace(/(\\+)$/, "$1$1") + '"';
  return /["%!]/.test(s) ? word.replace(/[()%!^"<>&|]/g, "^$&") : word;
}

export function wordOf(shell: Shell): (s: string) => string {
  return { sh: shellWord, powershell: powershellWord, cmd: cmdWord }[shell];
}
