// The sheet of keys, opened with ?.

import { useEffect, useRef } from "preact/hooks";
import { keysOn, setKeys } from "../lib/keys";

const T = {
  title: "Keys of the inbox",
  close: "Close",
  on: "Single keys are on",
};

const KEYS: readonly (readonly [string, string])[] = [
  ["j k", "next, previous"],
  ["o", "open"],
  ["e a", "acknowledge"],
  ["u", "mark as read"],
  ["Esc", "close what is open"],
  ["?", "this sheet"],
];

export function KeySheet({ onClose }: { onClose: () => void }) {
  const el = useRef<HTMLDialogElement>(null);
  useEffect(() => el.current?.showModal(), []);
  return (
    <dialog ref={el} class="sheet" aria-labelledby="sheet-title" onClose={onClose}>
      <h2 id="sheet-title">{T.title}</h2>
      <dl>
        {KEYS.map(([keys, what]) => <div key={keys}><dt>{keys.split(" ").map((k) => <kbd key={k}>{k}</kbd>)}</dt><dd>{what}</dd></div>)}
      </dl>
      <label class="check"><input type="checkbox" checked={keysOn.value} onChange={(e) => setKeys(e.currentTarget.checked)} /> {T.on}</label>
      <form method="dialog"><button class="btn">{T.close}</button></form>
    </dialog>
  );
}
