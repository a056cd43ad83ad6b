package ddi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// link is one of HAL.
type link struct {
	Href string `json:"href"`
}

// deadlined sets the time in which an answer that is no image must be taken. A test's writer
// has none.
func deadlined(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
}

// encode returns v as JSON, in which addresses are readable: Zephyr's client decodes no \u0026.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode an answer: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// document answers with v, by its ETag if the device has it already. The length is told:
// Zephyr's client takes nothing in chunks.
func (h *Handler) document(w http.ResponseWriter, q *request, v any) {
	body, err := encode(v)
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	sum := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(sum[:12]) + `"`
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "private, no-cache")
	w.Header().Set("Vary", "Accept")
	deadlined(w)
	if matches(q.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", contentType(q.Header.Get("Accept")))
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the device is gone: nobody is left to tell
}

// contentType is that of HAL, which hawkBit answers too, for who does not ask for plain JSON.
func contentType(accept string) string {
	if strings.Contains(accept, "application/json") && !strings.Contains(accept, "application/hal+json") {
		return "application/json;charset=UTF-8"
	}
	return "application/hal+json;charset=UTF-8"
}

// matches says whether If-None-Match names a tag.
func matches(lines []string, tag string) bool {
	for one := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == tag || one == "*" {
			return true
		}
	}
	return false
}

// done answers 200 without a body, as hawkBit does.
func done(w http.ResponseWriter) {
	deadlined(w)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// problem answers as RFC 9457 says.
func problem(w http.ResponseWriter, status int, detail string) {
	body, err := encode(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(status), status, detail})
	if err != nil { // of three plain members: never
		body = nil
	}
	deadlined(w)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the device is gone: nobody is left to tell
}

// recorder remembers the status of an answer and the bytes of its body. What sends files finds
// the connection through it: sendfile is kept.
type recorder struct {
	http.ResponseWriter
	status int
	sent   int64
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.sent += int64(n)
	return n, err //nolint:wrapcheck // as it is
}

// ReadFrom implements io.ReaderFrom.
func (w *recorder) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	var n int64
	var err error
	if to, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		n, err = to.ReadFrom(src)
	} else {
		n, err = io.Copy(struct{ io.Writer }{w.ResponseWriter}, src)
	}
	w.sent += n
	return n, err //nolint:wrapcheck // as it is
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// metrics counts.
type metrics struct {
	requests  *prometheus.CounterVec
	coalesced prometheus.Counter
}

func (m *metrics) register(r prometheus.Registerer) error {
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_ddi_requests_total", Help: "Requests of devices to hawkBit's DDI, by resource and status.",
	}, []string{"resource", "status"})
	m.coalesced = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_ddi_coalesced_total", Help: "Progress that devices told by DDI and that was not kept, since another was a moment before.",
	})
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.coalesced} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register the metrics of DDI: %w", err)
		}
	}
	return nil
}

func (m *metrics) count(resource string, status int) {
	if status == 0 {
		status = http.StatusOK
	}
	m.requests.WithLabelValues(resource, strconv.Itoa(status)).Inc()
}
