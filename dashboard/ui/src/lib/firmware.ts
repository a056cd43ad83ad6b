// Firmware: what a manifest says, and what a release may still need.

import { numberIn } from "./form";
import type { FirmwareArtifact, FirmwareKey, FirmwareRelease } from "./schema.gen";

/** What a manifest has, as docs/firmware.md says. */
export interface Manifest {
  schema: number;
  product: string;
  version: string;
  release?: string;
  type?: string;
  security_version?: number;
  hw_compat?: { board: string; revisions?: string[] }[];
  min_from_version?: string;
  depends?: { product: string; version: string }[];
  artifacts: { filename: string; sha256: string; size: number; format: string }[];
  created?: string;
  expires?: string;
}

export function manifestOf(r: FirmwareRelease): Manifest {
  return r.manifest as Manifest;
}

export function releaseName(r: FirmwareRelease): string {
  return `${r.product} ${r.version}`;
}

export function releasePath(id: string): string {
  return "/firmware/" + encodeURIComponent(id);
}

/** The boards that a release is for, in words; empty for all. */
export function hardwareText(m: Manifest): string {
  return (m.hw_compat ?? []).map((h) => h.board + (h.revisions?.length ? ` ${h.revisions.join(", ")}` : "")).join("; ");
}

/** The file that a release is signed in. */
export function fileName(r: { product: string; version: string }): string {
  return `${r.product}-${r.version}.json`.replace(/[^A-Za-z0-9._+-]/g, "-");
}

/** Who signed a release, by the names of the keys; revoked is of keys that count no more. */
export function signers(r: FirmwareRelease, keys: readonly FirmwareKey[]): { key: string; name: string; revoked: boolean }[] {
  return r.signatures.map((s) => {
    const k = keys.find((x) => x.id === s.key);
    return { key: s.key, name: k?.name ?? s.key.slice(0, 8), revoked: !k || k.revoked_at !== null };
  });
}

/** The manifest of a release of one image, as muster firmware manifest writes it. */
export function newManifest(a: FirmwareArtifact, v: { product: string; version: string; type: string; security: string; hardware: string; min_from: string }, now: number): Manifest {
  const boards = v.hardware.split(";").map((b) => b.trim()).filter(Boolean).map((b) => {
    const [board, revisions] = b.split(":");
    return { board: board!.trim(), ...(revisions && { revisions: revisions.split(",").map((r) => r.trim()) }) };
  });
  return {
    schema: 1, product: v.product.trim(), version: v.version.trim(), security_version: numberIn("security", v.security || "0"), type: v.type.trim(),
    ...(boards.length > 0 && { hw_compat: boards }), ...(v.min_from.trim() && { min_from_version: v.min_from.trim() }),
    artifacts: [{ filename: a.filename, sha256: a.sha256, size: a.size, format: a.image.format }],
    created: new Date(Math.floor(now / 1000) * 1000).toISOString().replace(".000Z", "Z"),
  };
}

/** Has the browser save a text as a file. */
export function saveFile(name: string, text: string): void {
  const a = document.createElement("a");
  a.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
}
