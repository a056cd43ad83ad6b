// Where each dot lies, and how dots are painted: into one image, of which only what
// changed is put on the canvas.

import type { Section } from "../lib/dots";

/** A section's rectangle of dots, in CSS pixels; its name stands above it. */
export interface Block {
  section: Section;
  x: number;
  y: number;
  cols: number;
  rows: number;
  width: number;
}

export interface Grid {
  pitch: number; // CSS pixels from one dot to the next
  width: number;
  height: number;
  blocks: Block[];
}

export const LABEL = 20; // px for the name of a section
const GAP = 12; // px between sections
const NARROWEST = 92; // px, so that a name has room
const PITCHES = [16, 14, 12, 10, 8, 7, 6, 5, 4, 3, 2.5, 2, 1.5, 1];

/** Lays the sections out within width, as large as target px of height allow. */
export function arrange(sections: Section[], width: number, target: number, ratio: number): Grid {
  let grid: Grid | undefined;
  for (const wish of PITCHES) {
    const pitch = Math.max(1, Math.round(wish * ratio)) / ratio;
    grid = layOut(sections, width, pitch);
    if (grid.height <= target) return grid;
  }
  return grid ?? { pitch: 1, width, height: 0, blocks: [] };
}

function layOut(sections: Section[], width: number, pitch: number): Grid {
  const blocks: Block[] = [];
  let y = 0;
  for (const shelf of shelves(sections, Math.max(1, Math.floor(width / NARROWEST)))) {
    const room = Math.floor((width - GAP * (shelf.length - 1)) / pitch);
    const cols = share(shelf.map((s) => s.count), room, Math.ceil((NARROWEST - GAP) / pitch));
    let x = 0;
    let rows = 0;
    shelf.forEach((section, i) => {
      const b = { section, x, y: y + LABEL, cols: cols[i]!, rows: Math.ceil(section.count / cols[i]!), width: cols[i]! * pitch };
      blocks.push(b);
      rows = Math.max(rows, b.rows);
      x += b.width + GAP;
    });
    y += LABEL + rows * pitch + GAP;
  }
  return { pitch, width, height: Math.max(0, y - GAP), blocks };
}

/** Cuts the sections, the largest first, into rows of about as many devices. */
function shelves(sections: Section[], most: number): Section[][] {
  const total = sections.reduce((n, s) => n + s.count, 0);
  const rows = Math.max(Math.ceil(sections.length / most), Math.round(Math.sqrt(sections.length / 2)), 1);
  const out: Section[][] = [];
  let shelf: Section[] = [];
  let sum = 0;
  for (const s of sections) {
    if (shelf.length === most || (shelf.length > 0 && sum >= total / rows)) {
      out.push(shelf);
      shelf = [];
      sum = 0;
    }
    shelf.push(s);
    sum += s.count;
  }
  if (shelf.length > 0) out.push(shelf);
  return out;
}

/** Divides columns by what sections have, with at least some for each. */
function share(counts: number[], room: number, least: number): number[] {
  const floor = Math.min(least, Math.floor(room / counts.length));
  const total = counts.reduce((a, b) => a + b, 0);
  const spare = room - floor * counts.length;
  return counts.map((n) => Math.max(1, floor + Math.floor((spare * n) / total)));
}

/** The place of the dot at a point, -1 where there is none. */
export function placeAt(g: Grid, x: number, y: number): number {
  for (const b of g.blocks) {
    const col = Math.floor((x - b.x) / g.pitch);
    const row = Math.floor((y - b.y) / g.pitch);
    if (col < 0 || row < 0 || col >= b.cols || row >= b.rows) continue;
    const at = row * b.cols + col;
    return at < b.section.count ? b.section.first + at : -1;
  }
  return -1;
}

/** The block that a place lies in. */
export function blockOf(g: Grid, place: number): Block | undefined {
  return g.blocks.find((b) => place >= b.section.first && place < b.section.first + b.section.count);
}

/** The left upper corner of a dot, in CSS pixels. */
export function spotOf(g: Grid, place: number): { x: number; y: number } {
  const b = blockOf(g, place);
  if (!b) return { x: 0, y: 0 };
  const at = place - b.section.first;
  return { x: b.x + (at % b.cols) * g.pitch, y: b.y + Math.floor(at / b.cols) * g.pitch };
}

/** #rrggbb as a pixel of an image. */
function pixel(hex: string): number {
  const n = parseInt(hex.slice(1), 16);
  return (0xff000000 | ((n & 255) << 16) | (n & 0xff00) | (n >> 16)) >>> 0;
}

export interface Colours {
  codes: string[]; // #rrggbb for each code
  ground: string;
  chosen: string;
}

/** The image of all dots. It paints what it is told to, and puts the part that changed. */
export class Painter {
  private readonly image: ImageData;
  private readonly pixels: Uint32Array;
  private readonly mask: boolean[]; // of one dot
  private readonly size: number; // of a dot, in device pixels
  private readonly paint = new Uint32Array(256);
  private readonly ground: number;
  private readonly accent: number;
  private dirty = { left: Infinity, top: Infinity, right: 0, bottom: 0 };
  chosen: [number, number] | null = null;

  constructor(private readonly canvas: HTMLCanvasElement, readonly grid: Grid, private readonly ratio: number, colours: Colours) {
    canvas.width = Math.max(1, Math.round(grid.width * ratio));
    canvas.height = Math.max(1, Math.round(grid.height * ratio));
    this.image = new ImageData(canvas.width, canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.ground = pixel(colours.ground);
    this.accent = pixel(colours.chosen);
    this.paint.fill(this.ground);
    colours.codes.forEach((c, code) => (this.paint[code] = pixel(c)));
    const pitch = Math.round(grid.pitch * ratio);
    const gap = grid.pitch >= 10 ? 3 : grid.pitch >= 6 ? 2 : grid.pitch >= 3 ? 1 : 0;
    this.size = Math.max(1, pitch - Math.round(gap * ratio));
    this.mask = disc(this.size, grid.pitch >= 6);
    this.pixels.fill(this.ground);
  }

  /** Paints all dots. */
  all(codes: Uint8Array): void {
    this.pixels.fill(this.ground);
    for (const b of this.grid.blocks) {
      for (let at = 0; at < b.section.count; at++) this.dot(b, at, codes[b.section.first + at] ?? 255);
    }
    this.dirty = { left: 0, top: 0, right: this.canvas.width, bottom: this.canvas.height };
  }

  /** Paints the dots at some places. */
  some(places: Iterable<number>, codes: Uint8Array): void {
    for (const place of places) {
      const b = blockOf(this.grid, place);
      if (b) this.dot(b, place - b.section.first, codes[place] ?? 255);
    }
  }

  private dot(b: Block, at: number, code: number): void {
    const place = b.section.first + at;
    const c = this.chosen;
    const colour = c && place >= c[0] && place <= c[1] ? this.accent : this.paint[code]!;
    const x = Math.round((b.x + (at % b.cols) * this.grid.pitch) * this.ratio);
    const y = Math.round((b.y + Math.floor(at / b.cols) * this.grid.pitch) * this.ratio);
    const { width } = this.image;
    for (let dy = 0; dy < this.size; dy++) {
      for (let dx = 0; dx < this.size; dx++) {
        if (this.mask[dy * this.size + dx]) this.pixels[(y + dy) * width + x + dx] = colour;
      }
    }
    const d = this.dirty;
    d.left = Math.min(d.left, x);
    d.top = Math.min(d.top, y);
    d.right = Math.max(d.right, x + this.size);
    d.bottom = Math.max(d.bottom, y + this.size);
  }

  /** Puts what was painted since the last time on the canvas. */
  flush(): void {
    const { left, top, right, bottom } = this.dirty;
    if (right <= left) return;
    this.dirty = { left: Infinity, top: Infinity, right: 0, bottom: 0 };
    this.canvas.getContext("2d", { alpha: false })?.putImageData(this.image, 0, 0, left, top, right - left, bottom - top);
  }
}

/** Which pixels of a square dot are painted: all of a small one, a disc of a large one. */
function disc(size: number, round: boolean): boolean[] {
  const mid = (size - 1) / 2;
  return Array.from({ length: size * size }, (_, i) => !round || Math.hypot((i % size) - mid, Math.floor(i / size) - mid) <= size / 2);
}
