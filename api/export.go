package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/ingest"
)

// nextTrailer carries the next cursor of ndjson and csv, at the end of the answer.
const nextTrailer = "Next-Cursor"

// export writes a range, a page at a time: memory is bounded by one page.
type export struct {
	api    *API
	q      ingest.RangeQuery
	format string
	left   int // readings still wanted
	page   []placed
	next   *cursor

	// For csv: the place of each key, and of each cell in text while a row is written.
	columns map[string]int
	cells   []span
	text    []byte
}

// span is part of a text.
type span struct{ from, to int }

// export reads the first page, so that what goes wrong there is still a problem.
func (a *API) export(ctx context.Context, in *rangeInput) (*export, error) {
	q, after, err := a.rangeQuery(in)
	if err != nil {
		return nil, err
	}
	e := &export{api: a, q: q, format: in.Format, left: in.Limit, next: after}
	if e.format == "csv" {
		e.cells, e.columns = make([]span, len(q.Keys)), make(map[string]int, len(q.Keys))
		for i, k := range q.Keys {
			e.columns[k] = i
		}
	}
	if q.From >= q.To {
		e.next = nil
		return e, nil
	}
	if err := e.read(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *export) read(ctx context.Context) (err error) {
	e.page, e.next, err = readPage(ctx, e.api.Telemetry, e.q, e.next, min(e.left, pageRows))
	e.left -= len(e.page)
	return err
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// stream writes all of e. When the store fails half way the connection is cut: a
// body that ends as it should is whole.
func (e *export) stream(ctx huma.Context) {
	_, w := humago.Unwrap(ctx)
	contentType := map[string]string{
		"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8; header=present",
	}[e.format]
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	if e.format != "json" {
		w.Header().Set("Trailer", nextTrailer)
	}
	w.WriteHeader(http.StatusOK)
	if err := e.write(ctx.Context(), w); err != nil {
		e.api.logFault(requestOf(ctx.Context()), err)
		panic(http.ErrAbortHandler)
	}
}

func (e *export) write(ctx context.Context, w http.ResponseWriter) error {
	buf := e.head(make([]byte, 0, 64<<10))
	for first := true; ; first = false {
		for i := range e.page {
			if e.format == "json" && (i > 0 || !first) {
				buf = append(buf, ',')
			}
			buf = e.row(buf, &e.page[i].Reading)
		}
		if e.next == nil || e.left == 0 {
			return e.foot(w, buf)
		}
		if err := send(w, buf); err != nil {
			return err
		}
		buf = buf[:0]
		if err := e.read(ctx); err != nil {
			return err
		}
	}
}

// send gives the client another while to take what is written; the clock is the
// socket's, not the injected one.
func send(w http.ResponseWriter, b []byte) error {
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeStall))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err = w.Write(b)
	return err
}

func (e *export) head(b []byte) []byte {
	switch e.format {
	case "json":
		return append(b, `{"items":[`...)
	case "csv":
		b = append(b, "time"...)
		for _, k := range e.q.Keys {
			b = appendCell(append(b, ','), k)
		}
		return append(b, "\r\n"...)
	default:
		return b
	}
}

func (e *export) foot(w http.ResponseWriter, b []byte) error {
	if e.format != "json" {
		if e.next != nil {
			w.Header().Set(nextTrailer, e.next.String())
		}
		return send(w, b)
	}
	b = append(b, `],"next":`...)
	if e.next == nil {
		b = append(b, "null"...)
	} else {
		b = ingest.AppendString(b, e.next.String())
	}
	return send(w, append(b, "}\n"...))
}

func (e *export) row(b []byte, r *muster.Reading) []byte {
	if e.format == "csv" {
		return e.csvRow(b, r)
	}
	b = append(b, `{"time":"`...)
	b = r.Time.Time().AppendFormat(b, stampFormat)
	b = append(b, `","values":`...)
	b = append(ingest.AppendJSON(b, r), '}')
	if e.format == "ndjson" {
		b = append(b, '\n')
	}
	return b
}

// csvRow leaves the cell of an absent key and of a hole empty (RFC 4180).
func (e *export) csvRow(b []byte, r *muster.Reading) []byte {
	clear(e.cells)
	e.text = e.text[:0]
	for v := range r.Values {
		column, ok := e.columns[v.Key.Name]
		if !ok || e.cells[column] != (span{}) {
			continue
		}
		from := len(e.text)
		e.text = ingest.AppendValue(e.text, v)
		if string(e.text[from:]) == "null" {
			e.text = e.text[:from]
			continue
		}
		e.cells[column] = span{from, len(e.text)}
	}
	b = r.Time.Time().AppendFormat(b, stampFormat)
	for _, c := range e.cells {
		b = append(b, ',')
		b = appendCell(b, plainText(e.text[c.from:c.to]))
	}
	return append(b, "\r\n"...)
}

// plainText takes the quotes off a JSON string.
func plainText(j []byte) string {
	var s string
	if len(j) > 0 && j[0] == '"' && json.Unmarshal(j, &s) == nil {
		return s
	}
	return string(j)
}

func appendCell(b []byte, s string) []byte {
	if !strings.ContainsAny(s, ",\"\r\n") && (s == "" || s[0] != ' ') {
		return append(b, s...)
	}
	b = append(b, '"')
	b = append(b, strings.ReplaceAll(s, `"`, `""`)...)
	return append(b, '"')
}
