// What holds a table. At a phone's width each row becomes a block whose cells name themselves.

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

interface Props {
  labelledby?: string;
  label?: string;
  children: ComponentChildren;
}

/** A table that may be wider than the page. On a phone it is not: its rows are stacked, and each cell has
 * the words of its column before it. */
export function Scroll({ labelledby, label, children }: Props) {
  const el = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const table = el.current?.querySelector("table");
    if (table) nameCells(table);
  });
  return <div ref={el} class="scroll stacks" tabIndex={0} role="region" aria-labelledby={labelledby} aria-label={label}>{children}</div>;
}

/** Gives each cell the words of its column, where they are not given. */
function nameCells(table: HTMLTableElement): void {
  const words = [...(table.tHead?.rows[0]?.cells ?? [])].map((c) => c.textContent ?? "");
  for (const body of table.tBodies) {
    for (const row of body.rows) {
      for (const cell of row.cells) {
        const word = cell.colSpan > 1 ? "" : words[cell.cellIndex] ?? "";
        if (word && cell.tagName === "TD" && cell.dataset["label"] !== word) cell.dataset["label"] = word;
      }
    }
  }
}
