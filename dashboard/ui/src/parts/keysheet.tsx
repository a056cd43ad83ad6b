// The sheet of keys, opened with ?: what each does just now.

import { useEffect, useRef } from "preact/hooks";
import { keymap } from "../lib/keymap";
import { keysOn, setKeys } from "../lib/keys";

const T = {
  title: "Keys",
  close: "Close",
  on: "Single keys are on",
  or: "or",
};

export function KeySheet({ onClose }: { onClose: () => void }) {
  const el = useRef<HTMLDialogElement>(null);
  useEffect(() => el.current?.showModal(), []);
  return (
    <dialog ref={el} class="sheet" aria-labelledby="sheet-title" onClose={onClose}>
      <h2 id="sheet-title">{T.title}</h2>
      <div class="groups">
        {[...keymap.value].reverse().map((g) => (
          <section key={g.title} aria-label={g.title}>
            <h3>{g.title}</h3>
            <dl>{g.list.map((k) => <div key={k.keys}><dt><Presses keys={k.keys} /></dt><dd>{k.what}</dd></div>)}</dl>
          </section>
        ))}
      </div>
      <label class="check"><input type="checkbox" checked={keysOn.value} onChange={(e) => setKeys(e.currentTarget.checked)} /> {T.on}</label>
      <form method="dialog"><button class="btn">{T.close}</button></form>
    </dialog>
  );
}

function Presses({ keys }: { keys: string }) {
  return <>{keys.split(", ").map((one, i) => <span key={one}>{i > 0 && <small>{T.or} </small>}{one.split(" ").map((k) => <kbd key={k}>{k}</kbd>)}</span>)}</>;
}
