// What a map shows: which part of the world, and the places of devices in clusters. Degrees
// are drawn as they are, as far apart to the east as to the north.

import type { Layout } from "../lib/dots";
import type { Status } from "../lib/types";

/** The part of the world that is shown. */
export interface View {
  lat: number; // of the middle
  lon: number;
  scale: number; // px to a degree
}

/** The devices of some cells beside one another, within a square that begins at lat and lon. */
export interface Cluster {
  lat: number; // hundredths of a degree, as side
  lon: number;
  side: number;
  at: { lat: number; lon: number }; // degrees, the middle of its devices
  count: number;
  first: number; // the place of one of its dots
  by: Partial<Record<Status, number>>;
  worst: Status;
}

/** States, the worst first. */
export const WORST: readonly Status[] = ["offline", "quiet", "unknown", "never", "updating", "online"];

const NEAREST = 40; // px to a degree, at most, of a view that is fitted
const CLOSEST = 400; // px to a degree
const APART = 18; // px between clusters

/** The whole world within width and height, or the places alone, with room around them. */
export function fit(l: Layout, width: number, height: number): View {
  const p = l.places ?? [];
  const half = (l.cell ?? 1) / 200;
  let [south, north, west, east] = [90, -90, 180, -180];
  for (let i = 0; i < p.length; i += 3) {
    south = Math.min(south, p[i]! / 100 + half);
    north = Math.max(north, p[i]! / 100 + half);
    west = Math.min(west, p[i + 1]! / 100 + half);
    east = Math.max(east, p[i + 1]! / 100 + half);
  }
  if (south > north) [south, north, west, east] = [-58, 84, -180, 180];
  const room = Math.min((width - 60) / Math.max(east - west, 0.01), (height - 60) / Math.max(north - south, 0.01), NEAREST);
  return bounded({ lat: (south + north) / 2, lon: (west + east) / 2, scale: room }, width, height);
}

/** A view that shows no more than the world. */
export function bounded(v: View, width: number, height: number): View {
  const scale = Math.min(Math.max(v.scale, width / 360, height / 180), CLOSEST);
  const lat = 90 - Math.min(90, height / scale / 2);
  const lon = 180 - Math.min(180, width / scale / 2);
  return { scale, lat: Math.min(Math.max(v.lat, -lat), lat), lon: Math.min(Math.max(v.lon, -lon), lon) };
}

/** The view zoomed by a factor, with what is dx and dy px from the middle where it is. */
export function zoomed(v: View, factor: number, dx: number, dy: number, width: number, height: number): View {
  const scale = bounded({ ...v, scale: v.scale * factor }, width, height).scale;
  const kept = 1 / v.scale - 1 / scale;
  return bounded({ lat: v.lat - dy * kept, lon: v.lon + dx * kept, scale }, width, height);
}

/** Where degrees lie, in px from the left upper corner. */
export function spot(v: View, lat: number, lon: number, width: number, height: number): [number, number] {
  return [width / 2 + (lon - v.lon) * v.scale, height / 2 - (lat - v.lat) * v.scale];
}

/** The least side of squares, a whole number of cells that doubles, of which each is apart px wide. */
export function sideFor(cell: number, scale: number, apart = APART): number {
  let side = cell;
  while ((side / 100) * scale < apart) side *= 2;
  return side;
}

/** The places put together in squares of a side, with the states of their devices. */
export function clusters(l: Layout, codes: Uint8Array, side: number): Cluster[] {
  const p = l.places ?? [];
  const half = (l.cell ?? 1) / 200;
  const found = new Map<string, Cluster>();
  let place = 0;
  for (let i = 0; i < p.length; i += 3) {
    const [lat, lon, count] = [Math.floor(p[i]! / side) * side, Math.floor(p[i + 1]! / side) * side, p[i + 2]!];
    const key = `${lat},${lon}`;
    let c = found.get(key);
    if (!c) found.set(key, (c = { lat, lon, side, at: { lat: 0, lon: 0 }, count: 0, first: place, by: {}, worst: "online" }));
    c.at.lat += count * (p[i]! / 100 + half);
    c.at.lon += count * (p[i + 1]! / 100 + half);
    c.count += count;
    for (const end = place + count; place < end; place++) {
      const state = l.states[codes[place] ?? 255];
      if (state) c.by[state] = (c.by[state] ?? 0) + 1;
    }
  }
  const out = [...found.values()];
  for (const c of out) {
    c.at = { lat: c.at.lat / c.count, lon: c.at.lon / c.count };
    c.worst = WORST.find((s) => c.by[s]) ?? "unknown";
  }
  return out;
}

/** Chooses just the devices of a cluster. */
export function queryOf(c: Cluster): string {
  const terms = [...edges("lat", c.lat, c.side, 9000), ...edges("lon", c.lon, c.side, 18000)];
  return terms.length === 0 ? "has:location" : terms.join(" ");
}

function edges(name: string, from: number, side: number, most: number): string[] {
  const out: string[] = [];
  if (from >= -most) out.push(`${name}>=${from / 100}`);
  if (from + side <= most) out.push(`${name}<${(from + side) / 100}`);
  return out;
}

/** Half the width of a cluster's mark, in px. */
export function radiusOf(c: Cluster): number {
  return Math.min(4 + 2.2 * Math.log10(c.count), 11);
}

/** The view as the address has it, and back; null when it is none. */
export function viewText(v: View): string {
  return [v.lat, v.lon, v.scale].map((n) => Number(n.toFixed(3))).join(",");
}

export function viewOf(text: string): View | null {
  const [lat, lon, scale, ...more] = text.split(",").map(Number);
  if (more.length > 0 || !Number.isFinite(lat) || !Number.isFinite(lon) || !(scale! > 0 && Number.isFinite(scale))) return null;
  return { lat: lat!, lon: lon!, scale: scale! };
}
