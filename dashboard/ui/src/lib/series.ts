// One numeric key ready to draw: for each pixel the least and the greatest value, as the
// server folded them, then the live points; with a hole wherever it was silent.

import type { ChartKey } from "./schema.gen";

const HOLE = 5; // times the median interval
const SAMPLE = 400; // intervals looked at for the median
const MOST = 20_000; // points kept; the oldest go first

export class Series {
  /** Times in ms, rising, with the least and greatest value at each. */
  private t: number[] = [];
  private lo: number[] = [];
  private hi: number[] = [];
  /** The silences that the server told of, in ms. */
  private told: [number, number][] = [];
  /** The points with holes (null) between, as the chart wants them. */
  xs: number[] = [];
  low: (number | null)[] = [];
  high: (number | null)[] = [];
  /** Where the holes are, in ms. */
  holes: [number, number][] = [];
  private median = 0;
  /** The shortest silence that is a hole: pixels and live points come no closer. */
  private floor = 0;

  constructor(readonly key: string) {}

  get size(): number {
    return this.t.length;
  }

  get last(): number {
    return this.t[this.t.length - 1] ?? 0;
  }

  /** The silence in ms from which on it counts as a hole; Infinity when the rhythm
   * is not known yet. */
  get patience(): number {
    return this.median > 0 ? Math.max(HOLE * this.median, this.floor) : Infinity;
  }

  /** Takes what the server folded; with live the points that came after it stay. */
  replace(k: ChartKey, live: boolean, stepMS: number): void {
    const i = live ? this.indexOf((k.t[k.t.length - 1] ?? 0) + 1) : this.size;
    this.t = [...k.t, ...this.t.slice(i)];
    this.lo = [...k.min, ...this.lo.slice(i)];
    this.hi = [...k.max, ...this.hi.slice(i)];
    this.told = k.gaps.map((g) => [g![0]!, g![1]!] as [number, number]);
    this.floor = HOLE * stepMS;
    this.measure();
    this.rebuild();
  }

  /** Forgets all points. */
  clear(): void {
    this.t = [];
    this.lo = [];
    this.hi = [];
    this.told = [];
    this.floor = 0;
    this.rebuild();
  }

  /** Adds a point; the server sends at most every tick ms. One that is older than the
   * newest is put where it belongs, and one of a time that is there widens it. */
  add(t: number, v: number, tick: number): void {
    this.floor = Math.max(this.floor, HOLE * tick);
    if (t <= this.last) return this.insert(t, v);
    if (this.size > 0 && t - this.last > this.patience) this.breakBefore(t);
    this.t.push(t);
    this.lo.push(v);
    this.hi.push(v);
    this.xs.push(t);
    this.low.push(v);
    this.high.push(v);
    if (this.size < 8 || this.size % 64 === 0) this.measure();
    if (this.size > MOST) this.trim(this.t[MOST / 10] ?? 0);
  }

  private insert(t: number, v: number): void {
    const i = this.indexOf(t);
    if (this.t[i] === t) {
      if (v >= this.lo[i]! && v <= this.hi[i]!) return;
      this.lo[i] = Math.min(this.lo[i]!, v);
      this.hi[i] = Math.max(this.hi[i]!, v);
    } else {
      this.t.splice(i, 0, t);
      this.lo.splice(i, 0, v);
      this.hi.splice(i, 0, v);
    }
    this.rebuild();
  }

  /** Forgets what is older than from, once that is worth the work. */
  forget(from: number): void {
    const old = this.indexOf(from);
    if (old > 64 && old > this.size / 8) this.trim(from);
  }

  /** The least and greatest value within [from, to], and how many points there are. */
  extent(from: number, to: number): { min: number; max: number; n: number } {
    let min = Infinity;
    let max = -Infinity;
    const i = this.indexOf(from);
    let j = i;
    for (; j < this.size && this.t[j]! <= to; j++) {
      min = Math.min(min, this.lo[j]!);
      max = Math.max(max, this.hi[j]!);
    }
    return { min, max, n: j - i };
  }

  private indexOf(t: number): number {
    let lo = 0;
    let hi = this.t.length;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if (this.t[mid]! < t) lo = mid + 1;
      else hi = mid;
    }
    return lo;
  }

  private trim(from: number): void {
    const i = this.indexOf(from);
    this.t = this.t.slice(i);
    this.lo = this.lo.slice(i);
    this.hi = this.hi.slice(i);
    this.told = this.told.filter(([, end]) => end >= from);
    this.rebuild();
  }

  private measure(): void {
    const steps: number[] = [];
    for (let i = Math.max(1, this.size - SAMPLE); i < this.size; i++) steps.push(this.t[i]! - this.t[i - 1]!);
    steps.sort((a, b) => a - b);
    this.median = steps.length < 3 ? 0 : steps[steps.length >> 1]!;
  }

  private breakBefore(t: number): void {
    this.holes.push([this.last, t]);
    this.xs.push(this.last + 1, t - 1);
    this.low.push(null, null);
    this.high.push(null, null);
  }

  private rebuild(): void {
    const patience = this.patience;
    this.xs = [];
    this.low = [];
    this.high = [];
    this.holes = [];
    let g = 0;
    for (let i = 0; i < this.t.length; i++) {
      const t = this.t[i]!;
      const before = this.t[i - 1];
      while (g < this.told.length && this.told[g]![1] < t) g++;
      const told = this.told[g];
      if (before !== undefined && ((told && told[1] === t) || t - before > patience)) {
        const from = told && told[1] === t && told[0] > before ? told[0] : before;
        this.holes.push([from, t]);
        this.xs.push(Math.min(from, t - 2) + 1, t - 1);
        this.low.push(null, null);
        this.high.push(null, null);
      }
      this.xs.push(t);
      this.low.push(this.lo[i]!);
      this.high.push(this.hi[i]!);
    }
  }
}
