// Which version is whose.

/** The version this page was served with. */
export function pageVersion(): string {
  return document.querySelector<HTMLMetaElement>('meta[name="muster-version"]')?.content ?? "";
}
