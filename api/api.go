package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"muster/api/coding"
	"muster/api/ddi"
	"muster/internal/logctx"
)

const (
	prefix     = "/api/v1"
	livePath   = prefix + "/live"
	mqttPath   = "/mqtt" // MQTT over WebSocket
	docsPath   = "/api/docs"
	imagePath  = "/fw/blob/{sha256}" // as deliver.Path has it
	writeStall = 60 * time.Second    // a client that takes no byte for so long is cut
)

// API serves everything under /api, /healthz, /readyz, /metrics and /setup, and
// hands all else to the dashboard. It is an http.Handler for the root.
type API struct {
	Deps
	huma    huma.API
	mux     *router // of /api
	plain   *router // of the other paths that are ours
	origin  *http.CrossOriginProtection
	metrics metrics
	streams streams
	bodies  bodies // that are being read

	policies policies
	buckets  *buckets
	headers  http.Header // of every answer
	encoders coding.Pool
	buffers  sync.Pool // of *bytes.Buffer: answers that are held
}

// New returns the API over d.
func New(d Deps) (*API, error) {
	useOwnProblems()
	a := &API{Deps: d, mux: &router{}, plain: &router{}, origin: http.NewCrossOriginProtection()}
	a.Log = slog.New(logctx.Handler(d.Log.Handler()))
	a.headers = secureHeaders(d.PublicURL)
	a.policies, a.buckets = newPolicies(d.Limits), newBuckets(d.Now)
	if err := a.metrics.register(d.Registerer, a.streams.size); err != nil {
		return nil, err
	}
	if d.PublicURL != nil {
		if err := a.origin.AddTrustedOrigin(d.PublicURL.Scheme + "://" + d.PublicURL.Host); err != nil {
			return nil, fmt.Errorf("public URL: %w", err)
		}
	}
	a.huma = humago.New(a.mux, humaConfig(d.Version))
	a.accountRoutes()
	a.sessionRoutes()
	a.userRoutes()
	a.meRoutes()
	a.passwordRoutes()
	a.oidcRoutes()
	a.serviceRoutes()
	a.profileRoutes()
	a.groupRoutes()
	a.viewRoutes()
	a.bulkRoutes()
	a.taskRoutes()
	a.deviceRoutes()
	a.twinRoutes()
	a.presenceRoutes()
	a.fleetRoutes()
	a.identityRoutes()
	a.joinRoutes()
	a.inboxRoutes()
	a.commandRoutes()
	a.messageRoutes()
	a.simulationRoutes()
	a.jobRoutes()
	a.telemetryRoutes()
	a.writeRoutes()
	a.trailRoutes()
	a.clientRoutes()
	a.auditRoutes()
	a.streamRoutes()
	a.webhookRoutes()
	a.topicRoutes()
	a.notificationRoutes()
	a.deliveryRoutes()
	a.firmwareRoutes()
	a.rolloutRoutes()
	a.systemRoutes()
	a.completeDocument()
	a.mux.HandleFunc("GET /api/openapi.json", a.document())
	a.mux.HandleFunc("GET "+docsPath, a.docs)
	if err := a.asyncRoute(); err != nil {
		return nil, err
	}
	a.plain.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeBody(w, "application/json", []byte(`{"status":"ok"}`+"\n"))
	})
	a.plain.HandleFunc("GET /readyz", a.readyz)
	a.plain.HandleFunc("GET /setup/{token}", a.redeemSetup)
	a.plain.Handle("GET /metrics", promhttp.HandlerFor(d.Gatherer, promhttp.HandlerOpts{Timeout: 10 * time.Second}))
	return a, nil
}

func humaConfig(version string) huma.Config {
	c := huma.DefaultConfig("Muster", version)
	c.Info.Description = "Devices, their credentials, telemetry and MQTT clients, and the keys of those who use them."
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", "" // the document is served by New
	c.CreateHooks = nil                                   // no $schema in answers
	c.RejectUnknownQueryParameters = true
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		schemeKey:     {Type: "http", Scheme: "bearer", Description: "An API key, mst_..."},
		schemeSession: {Type: "apiKey", In: "cookie", Name: cookieName, Description: "A signed-in browser (__Host-" + cookieName + " over https)"},
	}
	return c
}

// ServeHTTP gives the request an id, tells /api from the page by the first
// segment of the path, and ends a panic here.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.DDI != nil && ddi.Serves(r.URL.Path) { // none of what is for browsers and programs: its clients have buffers of 640 bytes
		a.DDI.ServeHTTP(w, r)
		return
	}
	id := requestID(r)
	w.Header().Set(requestIDHeader, id)
	maps.Copy(w.Header(), a.headers)
	if h := a.socket(r.URL.Path); h != nil {
		h.ServeHTTP(w, r) // needs the connection itself
		return
	}
	// A socket's deadline is on the machine's clock. Writers without one (a test's
	// recorder) have no client that stalls.
	began := time.Now()
	_ = http.NewResponseController(w).SetWriteDeadline(began.Add(writeStall))
	paced(w, r)
	rec := &recorder{ResponseWriter: w}
	r = a.withRequest(r, id, rec)
	defer a.finish(rec, r, began)
	a.dispatch(rec, r)
}

// socket returns what serves the WebSocket at a path, nil when there is none.
func (a *API) socket(path string) http.Handler {
	switch path {
	case livePath:
		return a.LiveSocket
	case mqttPath:
		return a.MQTTSocket
	}
	return nil
}

func (a *API) dispatch(w *recorder, r *http.Request) {
	switch firstSegment(r.URL.Path) {
	case "api":
		if !a.cors(w, r) {
			a.coded(w, r, a.serveAPI)
		}
	case "setup":
		if p := a.limited(w.Header(), byAddress(a.policies.signIn, requestOf(r.Context()).addr)); p != nil {
			writeProblem(w, p)
			return
		}
		serveMux(a.plain, w, r)
	case "n":
		a.serveAck(w, r)
	case "fw":
		a.serveImage(w, r)
	case "healthz", "readyz", "metrics":
		serveMux(a.plain, w, r)
	case "write":
		a.coded(w, r, func(w *recorder, r *http.Request) { serveMux(a.plain, w, r) })
	default:
		w.route = "page"
		if a.Page == nil {
			http.NotFound(w, r)
			return
		}
		a.Page.ServeHTTP(w, r)
	}
}

// serveImage sends firmware to devices. Its addresses are signed, and it has limits of its own: those of requests would cut
// off who fetches an image in small ranges.
func (a *API) serveImage(w *recorder, r *http.Request) {
	if name, ok := strings.CutPrefix(r.URL.Path, strings.TrimSuffix(imagePath, "{sha256}")); !ok || a.Images == nil || name == "" || unclean(r) {
		writeProblem(w, newProblem(http.StatusNotFound, "there is no such path"))
		return
	}
	w.route, requestOf(r.Context()).route = imagePath, imagePath // never the signature
	a.Images.ServeHTTP(w, r)
}

// docs hands the page about the API to the dashboard, whose it is: its policy lets it load
// its own script.
func (a *API) docs(w http.ResponseWriter, r *http.Request) {
	if a.Page == nil {
		writeProblem(w, newProblem(http.StatusNotFound, "there is no such path"))
		return
	}
	a.Page.ServeHTTP(w, r)
}

func firstSegment(p string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	return first
}

// serveAPI answers unknown paths and methods itself: ServeMux would redirect or
// answer in plain text.
func (a *API) serveAPI(w *recorder, r *http.Request) {
	if _, pattern := a.mux.Handler(r); unclean(r) || pattern == "" {
		if p := a.countLost(w.Header(), r); p != nil {
			writeProblem(w, p)
			return
		}
	}
	serveMux(a.mux, w, r)
}

// countLost counts a request for which there is no operation against who sends it, as the
// operations do.
func (a *API) countLost(h http.Header, r *http.Request) *Problem {
	who, err := a.Authenticate(r)
	if err != nil {
		return a.limited(h, byAddress(a.policies.stranger, requestOf(r.Context()).addr))
	}
	requestOf(r.Context()).who = who
	return a.limited(h, a.bucketOf(&who))
}

// unclean says whether ServeMux would redirect r.
func unclean(r *http.Request) bool {
	p := r.URL.EscapedPath()
	return path.Clean(p) != p
}

// serveMux serves r by a mux, whose refusals become problems.
func serveMux(m *router, w *recorder, r *http.Request) {
	h, pattern := m.Handler(r)
	switch {
	case unclean(r):
		writeProblem(w, newProblem(http.StatusNotFound, "there is no such path"))
	case pattern == "":
		noRoute(w, r, h)
	default:
		w.route, requestOf(r.Context()).route = pattern, pattern
		m.ServeHTTP(w, r)
	}
}

// noRoute asks the mux's own refusal whether it is a 404 or a 405, and which
// methods there are.
func noRoute(w http.ResponseWriter, r *http.Request, refusal http.Handler) {
	probe := &refused{header: http.Header{}}
	refusal.ServeHTTP(probe, r)
	if probe.status != http.StatusMethodNotAllowed {
		writeProblem(w, newProblem(http.StatusNotFound, "there is no such path"))
		return
	}
	allow := probe.header.Get("Allow")
	w.Header().Set("Allow", allow)
	writeProblem(w, newProblem(http.StatusMethodNotAllowed, "this path takes "+allow))
}

// refused keeps the status and headers of an answer.
type refused struct {
	header http.Header
	status int
}

func (p *refused) Header() http.Header         { return p.header }
func (p *refused) Write(b []byte) (int, error) { return len(b), nil }
func (p *refused) WriteHeader(status int)      { p.status = status }

func (a *API) readyz(w http.ResponseWriter, r *http.Request) {
	reasons := a.Ready(r.Context())
	status := http.StatusOK
	if len(reasons) > 0 {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "5")
	}
	body, err := json.Marshal(struct {
		Ready   bool     `json:"ready"`
		Reasons []Reason `json:"reasons"`
	}{len(reasons) == 0, append([]Reason{}, reasons...)})
	if err != nil {
		panic(errors.Join(errors.New("write readiness"), err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone: nobody is left to tell
}

func writeBody(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(body) // the client is gone: nobody is left to tell
}
