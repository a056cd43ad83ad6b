package api

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// maxHeld is the longest answer that is held back for its ETag, in bytes. A longer one is sent as it is written.
const maxHeld = 1 << 20

// recorder remembers how an answer began and, on demand, holds it back: JSON as a whole up to maxHeld, until release.
type recorder struct {
	http.ResponseWriter
	status int    // 0 until the header is written
	route  string // the pattern that matched, for the metrics
	bytes  int64  // of the body
	sent   bool   // the header is on its way
	held   *bytes.Buffer
	pool   *sync.Pool // of held
}

// hold keeps what is written from now on, if nothing has been.
func (w *recorder) hold(pool *sync.Pool) {
	if w.status != 0 || w.held != nil {
		return
	}
	b, ok := pool.Get().(*bytes.Buffer)
	if !ok {
		b = &bytes.Buffer{}
	}
	b.Reset()
	w.held, w.pool = b, pool
}

func (w *recorder) WriteHeader(status int) {
	if status < 200 {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.status == 0 {
		w.status = status
	}
	if w.held != nil && holdable(w.Header()) {
		return
	}
	w.letGo()
	w.sent = true
	w.ResponseWriter.WriteHeader(status)
}

// holdable says whether an answer is one document: JSON without trailers, or nothing.
func holdable(h http.Header) bool {
	kind := h.Get("Content-Type")
	return h.Get("Trailer") == "" && (kind == "" || strings.HasPrefix(kind, "application/json") || strings.HasPrefix(kind, problemType))
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.bytes += int64(len(b))
	if w.held != nil {
		if w.held.Len()+len(b) <= maxHeld {
			return w.held.Write(b)
		}
		if err := w.release(); err != nil {
			return 0, err
		}
	}
	return w.ResponseWriter.Write(b)
}

// ReadFrom hands a file on as it is, so that the connection sends it without that it comes through this process (sendfile):
// what wraps an answer must not hide that.
func (w *recorder) ReadFrom(src io.Reader) (int64, error) {
	if w.held != nil {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(w.ResponseWriter, src)
	w.bytes += n
	return n, err
}

// release sends what was held.
func (w *recorder) release() error {
	b := w.held
	w.held = nil
	if b == nil {
		return nil
	}
	defer w.give(b)
	if w.status == 0 {
		return nil
	}
	w.sent = true
	w.ResponseWriter.WriteHeader(w.status)
	if b.Len() == 0 {
		return nil
	}
	_, err := w.ResponseWriter.Write(b.Bytes())
	return err
}

// whole sets the length of a held answer that is complete.
func (w *recorder) whole() {
	if w.held != nil && w.held.Len() > 0 {
		w.Header()["Content-Length"] = []string{strconv.Itoa(w.held.Len())}
	}
}

// letGo forgets what was held.
func (w *recorder) letGo() {
	if w.held != nil {
		w.give(w.held)
		w.held = nil
	}
}

func (w *recorder) give(b *bytes.Buffer) {
	if b.Cap() <= 256<<10 { // a few long answers shall not stay in memory
		w.pool.Put(b)
	}
}

// FlushError sends all that was written; for http.ResponseController.
func (w *recorder) FlushError() error {
	if err := w.release(); err != nil {
		return err
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
