// Where images are dropped, what is being sent, and uploads that somebody left open.

import { useEffect, useRef, useState } from "preact/hooks";
import { now } from "../lib/clock";
import { ago, bytes, count } from "../lib/format";
import { useList } from "../lib/list";
import { deleteUpload, listUploads, type FirmwareUpload } from "../lib/schema.gen";
import { dropSending, sendAgain, sendFiles, sendings, type Sending } from "../lib/upload";
import { Done } from "../parts/bar";
import { CopyLine } from "../parts/copyline";
import { Fault } from "../parts/fault";
import { Sure } from "../parts/sure";

const T = {
  title: "Upload an image",
  drop: "Drop images here",
  or: "or",
  choose: "choose files",
  how: "They are sent in pieces. After a cut they go on by themselves; after a reload give the same file again.",
  cli: "On the command line",
  line: "muster firmware upload image.swu",
  phases: {
    checking: (s: Sending) => `Computing its SHA-256: ${percent(s)} %`,
    sending: (s: Sending) => `Sending: ${bytes(s.done)} of ${bytes(s.size)}, ${percent(s)} %`,
    waiting: (s: Sending) => `Waiting at ${percent(s)} %: ${s.fault}`,
    done: (s: Sending) => `It is here: ${bytes(s.size)}`,
    failed: (s: Sending) => s.fault,
  } satisfies Record<Sending["phase"], (s: Sending) => string>,
  stop: "End it",
  again: "Try again",
  clear: "Take off the list",
  of: (word: string, name: string) => `${word}: ${name}`,
  open: "Open uploads",
  openHow: "Somebody began these and left. Give the same file to go on with one.",
  end: "End",
  sure: "Really end?",
  far: (u: FirmwareUpload) => `${bytes(u.offset)} of ${bytes(u.size)}`,
  more: (n: number) => `and ${count(n)} more`,
};

function percent(s: Sending): number {
  return s.size === 0 ? 100 : Math.floor((100 * s.done) / s.size);
}

export function Uploads({ first }: { first: boolean }) {
  return (
    <section class="sec uploads" aria-labelledby="uploads-title">
      <header><h2 id="uploads-title">{T.title}</h2></header>
      <DropZone />
      {sendings.value.length > 0 && <ul class="sendings">{sendings.value.map((s) => <Line key={s.key} s={s} />)}</ul>}
      {first && <div class="stack"><p class="hint">{T.cli}</p><CopyLine text={T.line} label={T.cli} /></div>}
      <Left />
    </section>
  );
}

function DropZone() {
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const onDrop = (e: DragEvent) => {
    e.preventDefault();
    setOver(false);
    sendFiles(e.dataTransfer?.files ?? []);
  };
  return (
    <div class={`drop ${over ? "over" : ""}`} onDragOver={(e) => { e.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)} onDrop={onDrop}>
      <p><b>{T.drop}</b> {T.or} <button type="button" class="btn" onClick={() => input.current?.click()}>{T.choose}</button></p>
      <p class="hint">{T.how}</p>
      <input ref={input} type="file" multiple hidden aria-label={T.choose} onChange={(e) => {
        sendFiles(e.currentTarget.files ?? []);
        e.currentTarget.value = "";
      }} />
    </div>
  );
}

function Line({ s }: { s: Sending }) {
  const over = s.phase === "done" || s.phase === "failed";
  return (
    <li data-phase={s.phase}>
      <div class="h">
        <b class="mono">{s.name}</b>
        <span class={s.phase === "failed" ? "crit" : ""} role={s.phase === "failed" ? "alert" : undefined}>{T.phases[s.phase](s)}</span>
        <span class="r">
          {s.phase === "failed" && <button type="button" class="btn txt" aria-label={T.of(T.again, s.name)} onClick={() => sendAgain(s.key)}>{T.again}</button>}
          <button type="button" class="btn txt" aria-label={T.of(over ? T.clear : T.stop, s.name)} onClick={() => dropSending(s.key)}>{over ? T.clear : T.stop}</button>
        </span>
      </div>
      {!over && <Done done={s.done} total={s.size} label={T.phases[s.phase](s)} />}
    </li>
  );
}

/** Uploads that are open on the server and not sent from here. */
function Left() {
  const list = useList<FirmwareUpload>((_, stop) => listUploads(stop));
  const over = sendings.value.filter((s) => s.phase === "done").length;
  useEffect(() => {
    if (over > 0) list.reload();
  }, [over]);
  const mine = new Set(sendings.value.map((s) => s.sha256));
  const open = list.items?.filter((u) => !mine.has(u.sha256)) ?? [];
  if (open.length === 0 && !list.fault) return null;
  return (
    <div class="left" role="group" aria-labelledby="left-title">
      <h3 id="left-title">{T.open}</h3>
      <p class="hint">{T.openHow}</p>
      <Fault of={list} />
      <ul>
        {open.map((u) => (
          <li key={u.id}>
            <span class="mono">{u.filename}</span> {T.far(u)} {u.created_at && <small>{ago(Date.parse(u.created_at), now.value)}</small>}
            <Sure word={T.end} sure={T.sure} of={u.filename} onSure={() => void list.run(() => deleteUpload(u.id))} />
          </li>
        ))}
      </ul>
    </div>
  );
}
