// Who is signed in. "out" shows the sign-in page; nothing else is then shown.

import { signal } from "@preact/signals";
import type { Me } from "./schema.gen";

export const session = signal<"checking" | "in" | "out">("checking");
export const me = signal<Me | null>(null);

/** Whether the signed-in user may add devices. The server decides again. */
export function mayWriteDevices(): boolean {
  const m = me.value;
  if (!m) return false;
  if (m.role === "admin" || m.role === "operator") return true;
  return (m.scopes ?? []).some((s) => s === "admin" || s === "devices:write");
}

/** Whether the signed-in user may do what needs the scope. The server decides again. */
export function may(scope: Scope): boolean {
  const m = me.value;
  if (!m) return false;
  if (m.role === "viewer") return scope.endsWith(":read");
  return m.role === "admin" || (m.role === "operator" && scope !== "admin") || (m.scopes ?? []).some((s) => s === "admin" || s === scope);
}

export type Scope = "topics:read" | "topics:write" | "notify:send" | "devices:read" | "devices:write" | "telemetry:write" | "commands:send" | "firmware:read" | "firmware:write" | "admin";

/** Whether the signed-in user may do everything. */
export function isAdmin(): boolean {
  return me.value?.role === "admin";
}
