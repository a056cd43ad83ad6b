// A list of devices from a file: dropped, checked line by line, then made as a task.

import { useEffect, useRef, useState } from "preact/hooks";
import { message } from "../lib/api";
import { bytes, count, plural } from "../lib/format";
import { checkList, resultOf, startImport, tooLarge, typeOf, type ImportOptions, type Report } from "../lib/import";
import { search, setSearch } from "../lib/route";
import { cancelTask, getTask, type TaskBody } from "../lib/schema.gen";
import { mayWriteDevices } from "../lib/session";
import { Done } from "../parts/bar";
import { Scroll } from "../parts/scroll";

const T = {
  title: "Import a list",
  how: "A list of devices as CSV or NDJSON. Every line is checked before the first device is made.",
  needs: "This needs the role operator.",
  drop: "Drop a list here", or: "or", choose: "choose a file",
  columns: "The column id is needed. Others: name, profile, parent, tags, tag.KEY, groups, lat, lon, location, check_in_s, notes, credential, token, secret.",
  export: "The list of what there is",
  options: "What to do", update: "Change devices that exist", partial: "Make what can be made when lines are refused",
  kind: "A list is a file that ends in .csv, .ndjson or .jsonl.",
  large: "The server takes lists of up to 256 MiB.",
  file: (f: File) => `${f.name}, ${bytes(f.size)}`,
  checking: "The server checks it.", checked: (done: number, lines: number) => `The server checks it: ${count(done)} of ${count(lines)} lines.`,
  result: "What the list would do", did: "What the list did",
  lines: "Lines", created: "New devices", updated: "Changed", same: "As they are", refused: "Refused",
  line: "Line", id: "Device", why: "Why it is refused",
  first: (n: number) => `The first ${count(n)} are shown.`,
  stops: "One refused line keeps all others back, unless what can be made is made.",
  submit: (r: Report) => `Import: ${plural(r.created, "new device", "new devices")}${r.updated > 0 ? `, ${count(r.updated)} changed` : ""}`,
  nothing: "There is nothing to be done.",
  other: "Another list",
  task: "The import", cancel: "Stop it",
  far: (t: TaskBody) => (t.total > 0 ? `${count(t.done)} of ${count(t.total)} lines` : "It begins."),
  states: { queued: "It waits for others.", running: "It runs, also when this page is closed.", succeeded: "Done.", failed: "It failed.", cancelled: "It was stopped. What was done stays done.", timed_out: "It took too long." } satisfies Record<TaskBody["state"], string>,
  credentials: "The credentials of the new devices",
  once: "They can be fetched for an hour, by who started the import.",
};

export function ImportPage() {
  const task = search.value.get("task") ?? "";
  return (
    <section class="sec import" aria-labelledby="import-title">
      <header><h1 id="import-title">{T.title}</h1><p class="long">{T.how}</p></header>
      {task ? <Running key={task} id={task} /> : <Choosing />}
    </section>
  );
}

function Choosing() {
  const [file, setFile] = useState<File | null>(null);
  const [o, setOptions] = useState<ImportOptions>({ update: false, partial: false });
  const [fault, setFault] = useState("");
  const [said, say] = useState("");
  const [report, setReport] = useState<Report | null>(null);
  const [busy, setBusy] = useState(false);
  const entitled = mayWriteDevices();
  useEffect(() => {
    setReport(null);
    if (!file) return;
    setFault("");
    const stop = new AbortController();
    say(T.checking);
    checkList(file, o, (done, lines) => say(T.checked(done, lines)), stop.signal).then(setReport, (e: unknown) => stop.signal.aborted || setFault(message(e))).finally(() => stop.signal.aborted || say(""));
    return () => stop.abort();
  }, [file, o]);
  const take = (f: File | undefined) => {
    if (!f) return;
    setFile(null);
    setFault("");
    if (!typeOf(f.name)) return setFault(T.kind);
    if (tooLarge(f)) return setFault(T.large);
    setFile(f);
  };
  const start = async () => {
    if (!file) return;
    setBusy(true);
    try {
      setSearch({ task: (await startImport(file, o, new AbortController().signal)).id });
    } catch (e) {
      setFault(message(e));
      setBusy(false);
    }
  };
  return (
    <>
      <fieldset class="stack" disabled={!entitled} title={entitled ? undefined : T.needs}>
        <DropZone disabled={!entitled} onFile={take} />
        <fieldset>
          <legend>{T.options}</legend>
          <label class="check"><input type="checkbox" name="update" checked={o.update} onChange={() => setOptions({ ...o, update: !o.update })} /> {T.update}</label>
          <label class="check"><input type="checkbox" name="partial" checked={o.partial} onChange={() => setOptions({ ...o, partial: !o.partial })} /> {T.partial}</label>
        </fieldset>
        {!entitled && <p class="hint">{T.needs}</p>}
      </fieldset>
      <p class="error" role="alert">{fault}</p>
      <p class="taken" role="status">{file && T.file(file)} {said}</p>
      {report && <Found report={report} partial={o.partial} busy={busy} onStart={() => void start()} />}
    </>
  );
}

function DropZone({ disabled, onFile }: { disabled: boolean; onFile: (f: File | undefined) => void }) {
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const onDrop = (e: DragEvent) => {
    e.preventDefault();
    setOver(false);
    if (!disabled) onFile(e.dataTransfer?.files[0]);
  };
  return (
    <div class={`drop ${over ? "over" : ""}`} onDragOver={(e) => { e.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)} onDrop={onDrop}>
      <p><b>{T.drop}</b> {T.or} <button type="button" class="btn" onClick={() => input.current?.click()}>{T.choose}</button></p>
      <p class="hint">{T.columns}</p>
      <p class="hint"><a class="link" href="/api/v1/devices:export?format=csv" download>{T.export}</a></p>
      <input ref={input} type="file" hidden accept=".csv,.ndjson,.jsonl" aria-label={T.choose} onChange={(e) => {
        onFile(e.currentTarget.files?.[0]);
        e.currentTarget.value = "";
      }} />
    </div>
  );
}

function Found({ report, partial, busy, onStart }: { report: Report; partial: boolean; busy: boolean; onStart: () => void }) {
  const change = report.created + report.updated;
  const stopped = report.refused > 0 && !partial;
  return (
    <div class="found">
      <h2>{T.result}</h2>
      <Figures of={report} />
      {stopped && <p class="warn">{T.stops}</p>}
      {change === 0 && !stopped && <p class="quiet-note">{T.nothing}</p>}
      <p class="act"><button type="button" class="btn pri" disabled={busy || stopped || change === 0} onClick={onStart}>{T.submit(report)}</button></p>
      <Refusals of={report} />
    </div>
  );
}

function Figures({ of: r }: { of: Report }) {
  const facts = [["lines", r.lines], ["created", r.created], ["updated", r.updated], ["same", r.same], ["refused", r.refused]] as const;
  return <dl class="facts few">{facts.map(([k, n]) => <div key={k} data-figure={k}><dt>{T[k]}</dt><dd class={k === "refused" && n > 0 ? "crit" : ""}>{count(n)}</dd></div>)}</dl>;
}

function Refusals({ of: r }: { of: Report }) {
  if (r.refusals.length === 0) return null;
  return (
    <>
      <Scroll label={T.refused}>
        <table class="plain refusals">
          <thead><tr><th scope="col">{T.line}</th><th scope="col">{T.id}</th><th scope="col">{T.why}</th></tr></thead>
          <tbody>{r.refusals.map((x, i) => <tr key={i} data-line={x.line}><th scope="row">{count(x.line)}</th><td class="mono">{x.id}</td><td>{x.detail}</td></tr>)}</tbody>
        </table>
      </Scroll>
      {r.refusals.length < r.refused && <p class="hint">{T.first(r.refusals.length)}</p>}
    </>
  );
}

const LOOK_MS = 700;

/** An import under way, by the id of its task in the address. */
function Running({ id }: { id: string }) {
  const [t, setT] = useState<TaskBody | null>(null);
  const [report, setReport] = useState<Report | null>(null);
  const [fault, setFault] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const turn = async () => {
      try {
        const now = await getTask(id, undefined, stop.signal);
        setT(now);
        setFault("");
        if (!["queued", "running"].includes(now.state)) return void (now.result && resultOf(now.result.url, stop.signal).then(setReport, (e: unknown) => stop.signal.aborted || setFault(message(e))));
      } catch (e) {
        if (!stop.signal.aborted) setFault(message(e));
      }
      if (!stop.signal.aborted) timer = window.setTimeout(() => void turn(), LOOK_MS);
    };
    void turn();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [id]);
  const over = t !== null && !["queued", "running"].includes(t.state);
  return (
    <div class="running" data-state={t?.state}>
      <h2>{over ? T.did : T.task}</h2>
      <p class="error" role="alert">{fault}</p>
      {t && <p role="status">{T.states[t.state]} {t.error?.detail}</p>}
      {t && !over && <><Done done={t.done} total={t.total} label={T.far(t)} /><p class="val">{T.far(t)}</p><button type="button" class="btn" disabled={t.cancel_requested} onClick={() => void cancelTask(id).catch((e: unknown) => setFault(message(e)))}>{T.cancel}</button></>}
      {report && <Figures of={report} />}
      {report && report.created > 0 && t?.result && <p><a class="link" href={t.result.url} download={`${id}.ndjson`}>{T.credentials}</a> <small>{T.once}</small></p>}
      {report && <Refusals of={report} />}
      {over && <p class="act"><button type="button" class="btn" onClick={() => setSearch({ task: "" })}>{T.other}</button></p>}
    </div>
  );
}
