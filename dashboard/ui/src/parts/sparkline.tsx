// A line of what one key of one device was, least to greatest of each point; where nothing
// was read there is a gap.

import type { Sparkline as Line } from "../lib/schema.gen";

const WIDTH = 96;
const HEIGHT = 18;

export function Sparkline({ line, name }: { line: Line | undefined; name: string }) {
  const known = line ? [...line.min, ...line.max].filter((v): v is number => v !== null) : [];
  if (!line || known.length === 0) return <span class="none" aria-label="no value">·</span>;
  const lo = Math.min(...known);
  const hi = Math.max(...known);
  const step = WIDTH / line.min.length;
  const y = (v: number) => (hi === lo ? HEIGHT / 2 : HEIGHT - 2 - ((v - lo) / (hi - lo)) * (HEIGHT - 4));
  let path = "";
  let pen = false;
  line.min.forEach((min, i) => {
    const max = line.max[i];
    if (min === null || max === null || max === undefined) {
      pen = false;
      return;
    }
    const x = ((i + 0.5) * step).toFixed(1);
    path += `${pen ? "L" : "M"}${x} ${y(max).toFixed(1)}L${x} ${y(min).toFixed(1)}`;
    pen = true;
  });
  return (
    <svg class="sparkline" width={WIDTH} height={HEIGHT} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${name}: ${lo} to ${hi} in the last hour`}>
      <path d={path} fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round" />
    </svg>
  );
}
