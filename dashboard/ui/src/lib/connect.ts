// The line that sends a device's first value, and the credentials made by this
// page: they are shown once by the server and kept nowhere but here.

import { signal } from "@preact/signals";
import { shellWord } from "./copy";
import { welcome } from "./live";
import type { Issued } from "./schema.gen";

const fresh = signal<ReadonlyMap<string, Issued>>(new Map());

/** Remembers a new credential of a device for as long as the page is open. */
export function remember(device: string, c: Issued): void {
  fresh.value = new Map(fresh.peek()).set(device, c);
}

export function credentialOf(device: string): Issued | undefined {
  return fresh.value.get(device);
}

/** The mosquitto_pub line that sends one value as device, empty while the MQTT
 * port is not known. Without a credential the line says TOKEN in its place. */
export function publishLine(device: string, c: Issued | undefined): string {
  const port = welcome.value?.mqtt_port ?? 0;
  if (port === 0) return "";
  const host = location.hostname.replace(/^\[(.*)\]$/, "$1");
  const words = ["mosquitto_pub", "-h", host, "-p", String(port), "-u", c?.username || c?.token || "TOKEN"];
  if (c?.password) words.push("-P", c.password);
  words.push("-q", "1", "-t", `devices/${device}/telemetry`, "-m", '{"temperature":21.5}');
  return words.map(shellWord).join(" ");
}
