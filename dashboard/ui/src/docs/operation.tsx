// One operation: closed it is a line, open it is everything about it.

import { CopyLine } from "../parts/copyline";
import { curlOf } from "./curl";
import { aboutOf, rowsOf, textOf, typeOf, type Answer, type Document, type Media, type Operation, type Parameter, type Row } from "./document";

const T = {
  link: (s: string) => `Link to ${s}`,
  needs: "Needs",
  nobody: "nothing: it is open to everybody",
  anyone: "any API key, or a signed-in user",
  scope: "an API key with the scope",
  role: "or a user who is at least",
  curl: "As a command; the key is in MUSTER_KEY",
  parameters: "Parameters",
  body: "Body",
  answers: "Answers",
  errors: "Errors",
  errorsHint: "As application/problem+json, with one of these codes.",
  required: "required",
  empty: "without a body",
  fields: "Fields",
  example: "Example",
};

export function OperationView({ op, doc, open, onToggle }: { op: Operation; doc: Document; open: boolean; onToggle: (open: boolean) => void }) {
  return (
    <details class="op" id={op.operationId} open={open} onToggle={(e) => onToggle(e.currentTarget.open)}>
      <summary>
        <b class={`verb ${op.method.toLowerCase()}`}>{op.method}</b>
        <code>{op.path}</code>
        <span>{op.summary}</span>
      </summary>
      {open && <Whole op={op} doc={doc} />}
    </details>
  );
}

function Whole({ op, doc }: { op: Operation; doc: Document }) {
  const answers = Object.entries(op.responses);
  const errors = answers.filter(([status]) => Number(status) >= 400);
  return (
    <div class="whole">
      {op.description && <p>{op.description}</p>}
      <Needs op={op} />
      <section>
        <h4>{T.curl}</h4>
        <CopyLine text={curlOf(op, location.origin)} label={`${T.curl}: ${op.operationId}`} />
      </section>
      {op.parameters?.length ? <Parameters list={op.parameters} doc={doc} /> : null}
      {op.requestBody && (
        <section>
          <h4>{T.body}{op.requestBody.required && <small> {T.required}</small>}</h4>
          {Object.entries(op.requestBody.content).map(([kind, media]) => <MediaView key={kind} kind={kind} media={media} doc={doc} of={op} />)}
        </section>
      )}
      <section>
        <h4>{T.answers}</h4>
        {answers.filter(([status]) => Number(status) < 400).map(([status, a]) => <AnswerView key={status} status={status} answer={a} doc={doc} of={op} />)}
      </section>
      {errors.length > 0 && <Errors list={errors} doc={doc} of={op} />}
      <p><a class="link" href={`#${op.operationId}`}>{T.link(op.operationId)}</a></p>
    </div>
  );
}

function Needs({ op }: { op: Operation }) {
  const scope = op["x-muster-scope"];
  if (scope === "public") return <p class="needs">{T.needs} {T.nobody}.</p>;
  if (scope === "anyone" || !scope) return <p class="needs">{T.needs} {T.anyone}.</p>;
  return <p class="needs">{T.needs} {T.scope} <b class="mono">{scope}</b>, {T.role} <b>{op["x-muster-role"]}</b>.</p>;
}

function Parameters({ list, doc }: { list: Parameter[]; doc: Document }) {
  const rows = list.map((p): Row => {
    const about = aboutOf(doc, { ...p.schema, ...(p.description !== undefined && { description: p.description }) });
    const example = p.example === undefined ? "" : ` Such as ${textOf(p.example)}`;
    return { name: p.name, type: `${typeOf(doc, p.schema)}, in the ${p.in}`, required: p.required ?? false, about: about + example };
  });
  return <section><h4>{T.parameters}</h4><Rows rows={rows} /></section>;
}

function Rows({ rows }: { rows: Row[] }) {
  return (
    <dl class="fieldlist">
      {rows.map((r) => (
        <div key={r.name}>
          <dt><code>{r.name}</code> <small>{r.type}{r.required && <>, <b>{T.required}</b></>}</small></dt>
          <dd>{r.about}</dd>
        </div>
      ))}
    </dl>
  );
}

function MediaView({ kind, media, doc, of }: { kind: string; media: Media; doc: Document; of: Operation }) {
  const rows = rowsOf(doc, media.schema);
  return (
    <div class="media">
      <p><code>{kind}</code></p>
      {media.example !== undefined && <pre class="example" tabIndex={0} role="group" aria-label={`${T.example}: ${of.operationId}, ${kind}`}>{textOf(media.example)}</pre>}
      {rows.length > 0 && <details><summary>{T.fields}</summary><Rows rows={rows} /></details>}
    </div>
  );
}

function AnswerView({ status, answer, doc, of }: { status: string; answer: Answer; doc: Document; of: Operation }) {
  const media = Object.entries(answer.content ?? {});
  return (
    <div class="answer">
      <p><b>{status}</b> {answer.description}{media.length === 0 && <small> {T.empty}</small>}</p>
      {media.map(([kind, m]) => <MediaView key={kind} kind={kind} media={m} doc={doc} of={of} />)}
    </div>
  );
}

function Errors({ list, doc, of }: { list: [string, Answer][]; doc: Document; of: Operation }) {
  const foreign = list.filter(([, a]) => !a["x-muster-codes"]); // as others have them: InfluxDB's, a page
  return (
    <section>
      <h4>{T.errors}</h4>
      {foreign.length < list.length && <p>{T.errorsHint}</p>}
      <dl class="fieldlist errors">
        {list.map(([status, a]) => a["x-muster-codes"] && (
          <div key={status}>
            <dt><b>{status}</b> {a.description}</dt>
            <dd>{a["x-muster-codes"].map((c) => <code key={c}>{c}</code>)}</dd>
          </div>
        ))}
      </dl>
      {foreign.map(([status, a]) => <AnswerView key={status} status={status} answer={a} doc={doc} of={of} />)}
    </section>
  );
}
