package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"muster/accounts"
	"muster/devices/query"
	"muster/internal/logctx"
)

const requestIDHeader = "X-Request-Id"

// request is what a handler may need to know of its request beside its input.
type request struct {
	*http.Request
	id    string
	route string             // the pattern that matched
	op    *huma.Operation    // its operation; nil before it is known, and beside huma
	who   accounts.Principal // set by the middleware of routes that need someone
	only  *query.Expr        // the devices that who is bound to, nil for all; see within
	addr  netip.Addr         // of the client, as far as proxies are trusted
	rec   *recorder
	body  []byte // of an operation that takes one, once it is read
	// document is the tag of what is written in the document that is answered: see documented.
	document string
}

type requestKey struct{}

// withRequest returns r with what is known of it in its context.
func (a *API) withRequest(r *http.Request, id string, rec *recorder) *http.Request {
	req := &request{id: id, addr: a.client(r), rec: rec}
	req.Request = r.WithContext(context.WithValue(logctx.With(r.Context(), id), requestKey{}, req))
	return req.Request
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

// finish counts the request and ends a panic: with a bare 500 when nothing has
// been sent, else by cutting the connection, so that no half answer looks whole.
func (a *API) finish(w *recorder, r *http.Request, began time.Time) {
	p := recover()
	if p != nil {
		w.letGo()
	}
	if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is this very value
		a.metrics.panics.Inc()
		a.Log.ErrorContext(r.Context(), "a request panicked", "route", w.route, "method", r.Method,
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
	begun := w.sent
	if p != nil && !begun {
		w.status = 0
		w.Header().Del("ETag")
		writeProblem(w, newProblem(http.StatusInternalServerError, "internal error"))
	}
	a.metrics.requests.WithLabelValues(routeLabel(w.route), strconv.Itoa(max(w.status, 200))).Inc()
	if a.Log.Enabled(r.Context(), slog.LevelDebug) {
		req := requestOf(r.Context())
		a.Log.DebugContext(r.Context(), "request", "method", r.Method, "route", routeLabel(w.route), "status", max(w.status, 200),
			"bytes", w.bytes, "took", time.Since(began), "who", req.who.ID, "address", req.addr)
	}
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
	limited   *prometheus.CounterVec
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
	m.limited = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_http_limited_total", Help: "HTTP requests answered 429 for there were too many, by the limit.",
	}, []string{"policy"})
	m.unkept = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "muster_http_refused_unkept_total", Help: "Messages written over HTTP that were refused and only counted: those after the first 1,000 of a request.",
	})
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_http_streams", Help: "Streams of server-sent events that are open.",
	}, func() float64 { return float64(streams()) })
	for _, c := range []prometheus.Collector{m.requests, m.panics, m.unaudited, m.unkept, m.limited, open} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register HTTP metrics: %w", err)
		}
	}
	return nil
}
