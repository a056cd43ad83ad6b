// A button that opens a panel below itself. Escape and a click elsewhere close it.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props {
  word: ComponentChildren;
  label: string; // of the panel
  name: string; // for tests and styles
  children: (close: () => void) => ComponentChildren;
}

export function Menu({ word, label, name, children }: Props) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!open) return;
    const away = (e: Event) => root.current?.contains(e.target as Node) || setOpen(false);
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, [open]);
  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  return (
    <div class={`menu ${name}`} ref={root} onKeyDown={(e) => {
      if (e.key !== "Escape" || !open) return;
      e.stopPropagation();
      close();
    }}>
      <button ref={button} type="button" class="btn" aria-expanded={open} onClick={() => setOpen(!open)}>
        {word} <svg width="8" height="5" viewBox="0 0 8 5" aria-hidden="true"><path d="M0 0h8L4 5z" fill="currentColor" /></svg>
      </button>
      {open && <div class="panel-menu" role="group" aria-label={label}>{children(close)}</div>}
    </div>
  );
}
