package coding

import (
	"net/http"
	"strings"
)

// minSize is the least answer that is worth compressing, in bytes.
const minSize = 1 << 10

// Writer compresses an answer, or passes it on when it is short, of a type that does not shrink, a stream of
// server-sent events, has a coding or an integrity of its own, or no body. An answer that is flushed before it has
// minSize bytes is compressed too, for more will come. Each answer of a type that could be compressed varies with
// Accept-Encoding, and the strong ETag of a compressed one ends with + and the coding: another one than that of the
// plain answer, as RFC 9110, section 8.8.3.3, has it.
//
// Close must be called unless the answer was broken off, and then Drop.
type Writer struct {
	http.ResponseWriter
	pool   *Pool
	coding string // that the client takes
	status int    // 0 until WriteHeader
	state  state
	first  []byte // what is not yet decided on
	enc    encoder
}

type state byte

const (
	undecided state = iota
	passing
	coded
)

// NewWriter returns a Writer that answers w with coding, one that Choose gave and not empty.
func NewWriter(w http.ResponseWriter, pool *Pool, coding string) *Writer {
	return &Writer{ResponseWriter: w, pool: pool, coding: coding}
}

// Unwrap is for http.ResponseController.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter; what it says is sent with the first of the body.
func (w *Writer) WriteHeader(status int) {
	if status < 200 {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.status != 0 {
		return
	}
	w.status = status
	h := w.Header()
	if !shrinks(h.Get("Content-Type")) {
		w.pass()
		return
	}
	h.Add("Vary", "Accept-Encoding")
	bodyless := status == http.StatusNoContent || status == http.StatusNotModified
	if bodyless || h.Get("Content-Encoding") != "" || h.Get("Content-Range") != "" || h.Get("Content-Digest") != "" ||
		strings.Contains(h.Get("Cache-Control"), "no-transform") {
		w.pass()
	}
}

// shrinks says whether answers of a type are compressed.
func shrinks(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	switch {
	case kind == "text/event-stream":
		return false
	case strings.HasPrefix(kind, "text/"), strings.HasSuffix(kind, "+json"), strings.HasSuffix(kind, "+xml"):
		return true
	}
	switch kind {
	case "application/json", "application/x-ndjson", "application/ndjson", "application/javascript", "application/xml", "application/yaml":
		return true
	}
	return false
}

func (w *Writer) pass() {
	w.state = passing
	w.ResponseWriter.WriteHeader(w.status)
}

// Write implements http.ResponseWriter.
func (w *Writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch w.state {
	case undecided:
	case passing:
		return w.ResponseWriter.Write(b) //nolint:wrapcheck // a writer in the middle
	case coded:
		return w.enc.Write(b) //nolint:wrapcheck // likewise
	}
	if len(w.first)+len(b) < minSize {
		w.first = append(w.first, b...)
		return len(b), nil
	}
	if err := w.begin(); err != nil {
		return 0, err
	}
	return w.enc.Write(b) //nolint:wrapcheck // likewise
}

// begin sends the header and the first of the body, compressed.
func (w *Writer) begin() error {
	enc, err := w.pool.get(w.coding, w.ResponseWriter)
	if err != nil {
		return err
	}
	w.enc, w.state = enc, coded
	h := w.Header()
	h.Set("Content-Encoding", w.coding)
	h.Del("Content-Length")
	h.Del("Accept-Ranges")
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		h.Set("ETag", strings.TrimSuffix(tag, `"`)+"+"+w.coding+`"`)
	}
	w.ResponseWriter.WriteHeader(w.status)
	_, err = w.enc.Write(w.first)
	w.first = nil
	return err //nolint:wrapcheck // a writer in the middle
}

// FlushError sends all that was written; for http.ResponseController.
func (w *Writer) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.state == undecided {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if w.state == coded {
		if err := w.enc.Flush(); err != nil {
			return err //nolint:wrapcheck // a writer in the middle
		}
	}
	return http.NewResponseController(w.ResponseWriter).Flush() //nolint:wrapcheck // likewise
}

// Close ends the answer.
func (w *Writer) Close() error {
	switch w.state {
	case undecided:
		if w.status == 0 {
			return nil // nobody answered
		}
		w.pass()
		_, err := w.ResponseWriter.Write(w.first)
		return err //nolint:wrapcheck // a writer in the middle
	case coded:
		err := w.enc.Close()
		w.Drop()
		return err //nolint:wrapcheck // likewise
	case passing:
	}
	return nil
}

// Drop gives up an answer that was broken off.
func (w *Writer) Drop() {
	if w.enc != nil {
		w.pool.put(w.coding, w.enc)
		w.enc = nil
	}
}

// Plain takes the coding off each of a list of entity tags, so that a tag of a compressed answer counts as that of
// the plain one.
func Plain(tags string) string {
	if !strings.Contains(tags, "+") {
		return tags
	}
	return strings.NewReplacer("+"+Zstd+`"`, `"`, "+"+Gzip+`"`, `"`).Replace(tags)
}
