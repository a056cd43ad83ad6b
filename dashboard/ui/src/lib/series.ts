// One numeric key's points, ready to draw: sorted by time, with a hole wherever
// the device was silent for more than five times its usual interval.

const HOLE = 5; // times the median interval
const SAMPLE = 400; // intervals looked at for the median
const MOST = 60_000; // points kept; the oldest go first

export class Series {
  /** Times in ms, rising; and the values at them. */
  private t: number[] = [];
  private v: number[] = [];
  /** The points with holes (null) between, as the chart wants them. */
  xs: number[] = [];
  ys: (number | null)[] = [];
  /** Where the holes are, in ms. */
  holes: [number, number][] = [];
  private median = 0;
  /** The shortest silence that is a hole; live points come at the server's pace. */
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

  /** Adds a live point; the server sends at most every tick ms. */
  add(t: number, v: number, tick: number): void {
    this.floor = Math.max(this.floor, HOLE * tick);
    if (t <= this.last) return this.merge([t], [v]);
    const hole = this.size > 0 && t - this.last > this.patience;
    if (hole) this.breakBefore(t);
    this.t.push(t);
    this.v.push(v);
    this.xs.push(t);
    this.ys.push(v);
    if (this.size < 8 || this.size % 64 === 0) this.measure();
    if (this.size > MOST) this.trim(this.t[MOST / 10] ?? 0);
  }

  /** Adds points from history, rising in time. Points of a time that is there
   * already are the same reading. */
  merge(t: number[], v: number[]): void {
    const ts: number[] = [];
    const vs: number[] = [];
    let i = 0;
    let j = 0;
    while (i < this.t.length || j < t.length) {
      const a = this.t[i] ?? Infinity;
      const b = t[j] ?? Infinity;
      ts.push(Math.min(a, b));
      vs.push(b <= a ? v[j]! : this.v[i]!);
      if (a <= b) i++;
      if (b <= a) j++;
    }
    this.t = ts.slice(-MOST);
    this.v = vs.slice(-MOST);
    this.measure();
    this.rebuild();
  }

  /** Forgets what is older than from, once that is worth the work. */
  forget(from: number): void {
    const old = this.indexOf(from);
    if (old > 64 && old > this.size / 8) this.trim(from);
  }

  /** The least, greatest and number of values within [from, to]. */
  extent(from: number, to: number): { min: number; max: number; n: number } {
    let min = Infinity;
    let max = -Infinity;
    const i = this.indexOf(from);
    let j = i;
    for (; j < this.size && this.t[j]! <= to; j++) {
      const v = this.v[j]!;
      if (v < min) min = v;
      if (v > max) max = v;
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
    this.v = this.v.slice(i);
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
    this.ys.push(null, null);
  }

  private rebuild(): void {
    const patience = this.patience;
    this.xs = [];
    this.ys = [];
    this.holes = [];
    for (let i = 0; i < this.t.length; i++) {
      const t = this.t[i]!;
      const before = this.t[i - 1];
      if (before !== undefined && t - before > patience) {
        this.holes.push([before, t]);
        this.xs.push(before + 1, t - 1);
        this.ys.push(null, null);
      }
      this.xs.push(t);
      this.ys.push(this.v[i]!);
    }
  }
}
