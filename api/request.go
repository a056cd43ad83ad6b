package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"muster/accounts"
	"muster/devices/query"
)

const requestIDHeader = "X-Request-Id"

// request is what a handler may need to know of its request beside its input.
type request struct {
	*http.Request
	id    string
	route string             // the pattern that matched
	who   accounts.Principal // set by the middleware of routes that need someone
	only  *query.Expr        // the devices that who is bound to, nil for all; see within
}

type requestKey struct{}

func withRequest(ctx context.Context, r *http.Request, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, &request{Request: r, id: id})
}

// requestOf returns the request that ServeHTTP put into ctx.
func requestOf(ctx context.Context) *request {
	return ctx.Value(requestKey{}).(*request) //nolint:forcetypeassert // ServeHTTP is the only way in
}

// requestID returns the client's own request id when it is plain, else a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get(requestIDHeader)
	if id == "" || len(id) > 64 {
		return rand.Text()
	}
	for i := range len(id) {
		c := id[i]
		if c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return rand.Text()
		}
	}
	return id
}

// recorder remembers how an answer began.
type recorder struct {
	http.ResponseWriter
	status int    // 0 until the header is written
	route  string // the pattern that matched, for the metrics
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// finish counts the request and ends a panic: with a bare 500 when nothing has
// been sent, else by cutting the connection, so that no half answer looks whole.
func (a *API) finish(w *recorder, r *http.Request, id string) {
	p := recover()
	if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is this very value
		a.metrics.panics.Inc()
		a.Log.Error("a request panicked", "request", id, "route", w.route, "method", r.Method,
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
	begun := w.status != 0
	if p != nil && !begun {
		writeProblem(w, newProblem(http.StatusInternalServerError, "internal error"))
	}
	a.metrics.requests.WithLabelValues(routeLabel(w.route), strconv.Itoa(max(w.status, 200))).Inc()
	if p != nil && begun {
		panic(http.ErrAbortHandler)
	}
}

// routeLabel keeps the metric's labels few: unknown paths are one.
func routeLabel(route string) string {
	if route == "" {
		return "none"
	}
	return route
}

type metrics struct {
	requests  *prometheus.CounterVec
	panics    prometheus.Counter
	unaudited prometheus.Counter
	unkept    prometheus.Counter
}

func (m *metrics) register(r prometheus.Registerer, streams func() int) error {
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_http_requests_total", Help: "HTTP requests answered, by route and status.",
	}, []string{"route", "code"})
	m.panics = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_http_panics_total", Help: "HTTP requests that ended in a panic.",
	})
	m.unaudited = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_audit_failed_total", Help: "Changes whose record could not be written to the audit log.",
	})
	m.unkept = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_http_refused_unkept_total", Help: "Messages written over HTTP that were refused and only counted: those after the first 1,000 of a request.",
	})
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_http_streams", Help: "Streams of server-sent events that are open.",
	}, func() float64 { return float64(streams()) })
	for _, c := range []prometheus.Collector{m.requests, m.panics, m.unaudited, m.unkept, open} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register HTTP metrics: %w", err)
		}
	}
	return nil
}
