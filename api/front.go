package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"muster/api/coding"
)

// apiPolicy is the Content-Security-Policy of all but the page, which has its own: nothing here is to be shown.
const apiPolicy = "default-src 'none'; frame-ancestors 'none'"

// secureHeaders returns what every answer carries; handlers that serve pages replace the policy. The values are shared
// by all answers: each has no room to be appended to in place.
func secureHeaders(public *url.URL) http.Header {
	h := http.Header{
		"X-Content-Type-Options": {"nosniff"}, "Content-Security-Policy": {apiPolicy}, "X-Frame-Options": {"DENY"}, "Referrer-Policy": {"no-referrer"},
		"Cross-Origin-Opener-Policy": {"same-origin"}, "Cross-Origin-Resource-Policy": {"same-origin"},
	}
	if public != nil && public.Scheme == "https" {
		h["Strict-Transport-Security"] = []string{"max-age=31536000"}
	}
	return h
}

// What pages of listed origins may send and see.
const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	corsHeaders = "Authorization, Content-Type, Content-Encoding, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, Upload-Offset, X-Request-Id"
	corsExposed = "Content-Disposition, ETag, Idempotency-Replayed, Link, Location, RateLimit, RateLimit-Policy, Retry-After, Upload-Offset, X-Request-Id"
)

// cors lets pages of listed origins use the API with a key, and never with a cookie: Access-Control-Allow-Credentials
// is never sent. It answers preflights and says whether it did.
func (a *API) cors(w http.ResponseWriter, r *http.Request) (answered bool) {
	if len(a.CORSOrigins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	all := slices.Contains(a.CORSOrigins, "*")
	if origin == "" || !all && !slices.Contains(a.CORSOrigins, origin) {
		return false
	}
	if all {
		origin = "*"
	}
	h.Set("Access-Control-Allow-Origin", origin)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		h.Set("Access-Control-Expose-Headers", corsExposed)
		return false
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// bodyTime is how long a request's body may take, unless it streams: whoever sends it slower is cut.
const bodyTime = 30 * time.Second

// paced gives the client bodyTime for its body. The clock is the socket's; a test's recorder has none.
func paced(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	}
}

// coded serves r with its body decoded and the answer compressed, as both headers say.
func (a *API) coded(w *recorder, r *http.Request, serve func(w *recorder, r *http.Request)) {
	if e := r.Header.Values("Content-Encoding"); len(e) > 0 {
		body, err := coding.Body(strings.Join(e, ","), r.Body)
		if err != nil {
			w.Header().Set("Accept-Encoding", "gzip, zstd")
			writeProblem(w, newProblem(http.StatusUnsupportedMediaType, err.Error()))
			return
		}
		if body != r.Body {
			defer func() { _ = body.Close() }() // its decoder's memory
			r.Body, r.ContentLength = body, -1
			r.Header.Del("Content-Encoding")
		}
	}
	for _, name := range []string{"If-Match", "If-None-Match"} {
		if v := r.Header[name]; len(v) > 0 {
			r.Header.Set(name, coding.Plain(strings.Join(v, ",")))
		}
	}
	choice := coding.Choose(strings.Join(r.Header["Accept-Encoding"], ","))
	if choice == "" {
		serve(w, r)
		return
	}
	plain := w.ResponseWriter
	cw := coding.NewWriter(plain, &a.encoders, choice)
	defer func() { // also when serve panics
		w.ResponseWriter = plain
		cw.Drop()
	}()
	w.ResponseWriter = cw
	serve(w, r)
	if err := cw.Close(); err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
}
