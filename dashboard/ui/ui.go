package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"fmt"
	"html"
	"net/http"
	"path"
	"regexp"
	"strings"
	"time"
)

//go:embed dist
var dist embed.FS

// policy lets the page load and connect to its own origin only, with no inline
// script or style.
const policy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

const (
	indexName = "index.html"
	docsName  = "docs.html"
	// DocsPath is where the page about the HTTP API is.
	DocsPath = "/api/docs"
)

// contentType returns a file's media type by its name; the operating system's
// table differs from machine to machine.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		return "text/plain; charset=utf-8"
	}
}

// file is one file of the page in both encodings.
type file struct {
	name         string
	plain, small []byte // as it is, and gzipped
	tag          string // of plain, without quotes
}

// Handler serves the dashboard's page: index.html at / and at the page's own
// routes, the page about the API at DocsPath, and their assets by name, gzipped for whoever takes that. Any other path is 404, of which a browser that opens it as a page gets
// index.html, which says so; any method but GET and HEAD is 405. The page shows version and offers to reload when the live gateway's differs.
//
// It panics when the embedded files cannot be read, which no input can cause.
func Handler(version string) http.Handler {
	files, err := load(version)
	if err != nil {
		panic("dashboard/ui: " + err.Error())
	}
	mux := http.NewServeMux()
	index := servePage(files[indexName])
	for _, route := range []string{
		"/{$}", "/devices", "/devices/{id}", "/devices/{id}/{tab}", "/groups", "/groups/{id}", "/claim/{code}", "/inbox", "/inbox/{id}", "/topics", "/topics/{id}", "/webhooks", "/webhooks/{id}",
		"/adoption", "/profiles", "/profiles/{id}", "/import", "/service-accounts",
		"/firmware", "/firmware/{id}", "/rollouts", "/rollouts/{id}", "/dashboard", "/audit", "/tasks", "/account", "/users", "/keys", "/forgot", "/invite", "/reset", "/confirm",
	} {
		mux.HandleFunc("GET "+route, index)
	}
	for _, route := range []string{"/invite/{token}", "/reset/{token}", "/confirm/{token}"} {
		mux.HandleFunc("GET "+route, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Referrer-Policy", "no-referrer") // the address is a secret until the page has taken it out
			index(w, r)
		})
	}
	mux.HandleFunc("GET "+DocsPath, servePage(files[docsName]))
	for name, f := range files {
		if name != indexName && name != docsName {
			mux.HandleFunc("GET /"+name, serveAsset(f))
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		if _, pattern := mux.Handler(r); pattern == "" && opensPage(r) {
			serveNowhere(w, r, files[indexName])
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// opensPage reports whether a browser asks for a page, and no script, picture or file of another kind.
func opensPage(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	dest := r.Header.Get("Sec-Fetch-Dest") // absent where the page is not served over TLS
	return (dest == "" || dest == "document") && strings.Contains(r.Header.Get("Accept"), "text/html") && path.Ext(r.URL.Path) == ""
}

// serveNowhere gives the page for a path that it has not, by which it says so, with the status of that.
func serveNowhere(w http.ResponseWriter, r *http.Request, f file) {
	w.Header().Set("Cache-Control", "no-store")
	body := f.encoded(w.Header(), r)
	w.WriteHeader(http.StatusNotFound)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // a browser that has gone needs no answer
	}
}

// secure sets the headers that every answer carries.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

// load reads the embedded files and compresses them once.
func load(version string) (map[string]file, error) {
	entries, err := dist.ReadDir("dist")
	if err != nil {
		return nil, fmt.Errorf("list the embedded page: %w", err)
	}
	files := make(map[string]file, len(entries))
	for _, e := range entries {
		b, err := dist.ReadFile("dist/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("read the embedded page: %w", err)
		}
		if e.Name() == indexName || e.Name() == docsName {
			b = bytes.ReplaceAll(b, []byte("{{version}}"), []byte(html.EscapeString(version)))
		}
		small, err := compress(b)
		if err != nil {
			return nil, fmt.Errorf("compress %s: %w", e.Name(), err)
		}
		files[e.Name()] = file{name: e.Name(), plain: b, small: small, tag: fmt.Sprintf("%x", sha256.Sum256(b))[:20]}
	}
	return files, nil
}

func compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// servePage never lets a browser keep the page: after an update the next load
// must be the new one.
func servePage(f file) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		serve(w, r, f, false)
	}
}

// hashed is what the name of a script that is loaded later looks like: it is of its
// contents, so a browser may keep it for good.
var hashed = regexp.MustCompile(`-[0-9A-Z]{8}\.js$`)

// serveAsset lets a browser keep an asset, and ask each time whether it is still
// the right one, unless its name carries a hash.
func serveAsset(f file) http.HandlerFunc {
	cache := "no-cache"
	if hashed.MatchString(f.name) {
		cache = "public, max-age=31536000, immutable"
	}
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", cache)
		serve(w, r, f, true)
	}
}

func serve(w http.ResponseWriter, r *http.Request, f file, tagged bool) {
	h := w.Header()
	body := f.encoded(h, r)
	tag := f.tag
	if h.Get("Content-Encoding") != "" {
		tag += "-gz"
	}
	if tagged {
		h.Set("ETag", `"`+tag+`"`)
	}
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(body))
}

// encoded returns the file as the request takes it, and says in h what it is.
func (f file) encoded(h http.Header, r *http.Request) []byte {
	h.Set("Content-Type", contentType(f.name))
	h.Set("Vary", "Accept-Encoding")
	if !takesGzip(r.Header.Get("Accept-Encoding")) {
		return f.plain
	}
	h.Set("Content-Encoding", "gzip")
	return f.small
}

// takesGzip reports whether an Accept-Encoding header (RFC 9110, section 12.5.3)
// names gzip with a weight other than zero.
func takesGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		coding, weight, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		q, found := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
		return !found || strings.Trim(q, "0.") != ""
	}
	return false
}
