// What a browser calls itself, in words: "Firefox 128 on Windows".

/** Tokens of browsers, those that name others beside themselves first. */
const BROWSERS: readonly (readonly [RegExp, string])[] = [
  [/\bEdg(?:A|iOS)?\/(\d+)/, "Edge"],
  [/\bOPR\/(\d+)/, "Opera"],
  [/\bSamsungBrowser\/(\d+)/, "Samsung Internet"],
  [/\b(?:Firefox|FxiOS)\/(\d+)/, "Firefox"],
  [/\bChromium\/(\d+)/, "Chromium"],
  [/\b(?:Headless)?Chrome\/(\d+)|\bCriOS\/(\d+)/, "Chrome"],
  [/\bVersion\/(\d+)[\d.]* (?:Mobile\/\S+ )?Safari\//, "Safari"],
];

const SYSTEMS: readonly (readonly [RegExp, string])[] = [
  [/\biPhone\b/, "iPhone"],
  [/\biPad\b/, "iPad"],
  [/\bAndroid\b/, "Android"],
  [/\bWindows\b/, "Windows"],
  [/\bCrOS\b/, "ChromeOS"],
  [/\bMac OS X\b|\bMacintosh\b/, "macOS"],
  [/\bLinux\b/, "Linux"],
];

/** Browser and system of a User-Agent; what is not known of it is left out, and without a browser it is the text itself. */
export function agentWords(agent: string): string {
  const found = BROWSERS.flatMap(([token, name]) => {
    const m = token.exec(agent);
    return m ? [`${name} ${m[1] ?? m[2]}`] : [];
  })[0];
  if (!found) return agent;
  const system = SYSTEMS.find(([token]) => token.test(agent));
  return system ? `${found} on ${system[1]}` : found;
}
