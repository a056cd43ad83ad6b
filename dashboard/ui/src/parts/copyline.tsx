// A command line with its copy button.

import { useRef, useState } from "preact/hooks";
import { copy } from "../lib/copy";

const T = { copy: "Copy", copied: "Copied", failed: "Selected: press Ctrl C" };

export function CopyLine({ text, label }: { text: string; label: string }) {
  const code = useRef<HTMLElement>(null);
  const [said, say] = useState("");
  const onClick = async () => {
    say((await copy(text, code.current)) ? T.copied : T.failed);
    setTimeout(() => say(""), 3000);
  };
  return (
    <div class="copyline">
      <pre tabIndex={0} aria-label={label}><code ref={code}>{text}</code></pre>
      <button type="button" class="btn" onClick={onClick}>{said || T.copy}</button>
      <span class="vh" role="status">{said}</span>
    </div>
  );
}
