// A small line of the values seen since the page opened, one a second.

import { useEffect, useRef } from "preact/hooks";
import { TRACE, traced } from "../lib/fleet";
import { theme, token } from "../lib/theme";

const WIDTH = 92;
const HEIGHT = 16;

export function Spark({ line }: { line: number[] }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const at = traced.value;
  const colours = theme.value;
  useEffect(() => {
    if (canvas.current) draw(canvas.current, line);
  }, [at, colours]);
  return <canvas ref={canvas} aria-hidden="true" />;
}

function draw(c: HTMLCanvasElement, line: number[]): void {
  const ratio = devicePixelRatio || 1;
  c.width = WIDTH * ratio;
  c.height = HEIGHT * ratio;
  const g = c.getContext("2d");
  const known = line.filter((v) => !Number.isNaN(v));
  if (!g || known.length === 0) return;
  const lo = Math.min(...known);
  const span = Math.max(...known) - lo;
  const y = (v: number) => (span === 0 ? HEIGHT / 2 : HEIGHT - 2 - ((v - lo) / span) * (HEIGHT - 4));
  const step = WIDTH / (TRACE - 1);
  const left = WIDTH - (line.length - 1) * step;
  g.scale(ratio, ratio);
  g.beginPath();
  let pen = false;
  line.forEach((v, i) => {
    if (Number.isNaN(v)) {
      pen = false;
      return;
    }
    if (pen) g.lineTo(left + i * step, y(v));
    else g.moveTo(left + i * step, y(v));
    pen = true;
  });
  g.strokeStyle = token("--ink-2");
  g.lineWidth = 1.4;
  g.lineJoin = "round";
  g.stroke();
  const newest = line[line.length - 1]!;
  if (Number.isNaN(newest)) return;
  g.beginPath();
  g.arc(WIDTH - 1.8, y(newest), 1.8, 0, 7);
  g.fillStyle = token("--ink-2");
  g.fill();
}
