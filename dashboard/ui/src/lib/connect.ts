// Where devices connect to, and the credentials made by this
// page: they are shown once by the server and kept nowhere but here.

import { signal } from "@preact/signals";
import { welcome } from "./live";
import type { Issued } from "./schema.gen";
import type { Place } from "./snippets";

const fresh = signal<ReadonlyMap<string, Issued>>(new Map());

/** Remembers a new credential of a device for as long as the page is open. */
export function remember(device: string, c: Issued): void {
  fresh.value = new Map(fresh.peek()).set(device, c);
}

export function credentialOf(device: string): Issued | undefined {
  return fresh.value.get(device);
}

/** Where devices reach the server: as the browser does, at the port that the server says;
 * null while that is not known, or when there is none. */
export function placeOf(): Place | null {
  const port = welcome.value?.mqtt_port ?? 0;
  if (port === 0) return null;
  return { host: location.hostname.replace(/^\[(.*)\]$/, "$1"), port, origin: location.origin };
}
