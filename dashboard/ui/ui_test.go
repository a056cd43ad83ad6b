package ui

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func get(t *testing.T, h http.Handler, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("read the body: %v", err)
	}
	return b
}

func TestEveryPathGetsItsOwnAnswer(t *testing.T) {
	h := Handler("1.2.3")
	for _, c := range []struct {
		method, path, mediaType, cache string
		status                         int
	}{
		{"GET", "/", "text/html; charset=utf-8", "no-store", 200},
		{"HEAD", "/", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/devices", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/devices/pump-1", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/devices/pump-1/twin", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/devices/a%3Ab", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/inbox", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/inbox/ntf_1", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/topics/top_1", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/webhooks/wh_1", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/firmware/rel_1", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/rollouts/rol_1", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/dashboard", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/audit", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/tasks", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/rollouts/a/b", "text/plain; charset=utf-8", "", 404},
		{"GET", "/inbox/a/b", "text/plain; charset=utf-8", "", 404},
		{"GET", "/users", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/invite", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/reset/TOKEN", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/app.js", "text/javascript; charset=utf-8", "no-cache", 200},
		{"GET", "/app.css", "text/css; charset=utf-8", "no-cache", 200},
		{"GET", "/icon.svg", "image/svg+xml", "no-cache", 200},
		{"GET", "/licenses.txt", "text/plain; charset=utf-8", "no-cache", 200},
		{"GET", "/api/docs", "text/html; charset=utf-8", "no-store", 200},
		{"GET", "/docs.js", "text/javascript; charset=utf-8", "no-cache", 200},
		{"GET", "/docs.css", "text/css; charset=utf-8", "no-cache", 200},
		{"GET", "/docs.html", "text/plain; charset=utf-8", "", 404},
		{"GET", "/index.html", "text/plain; charset=utf-8", "", 404},
		{"GET", "/app.mjs", "text/plain; charset=utf-8", "", 404},
		{"GET", "/devices/", "text/plain; charset=utf-8", "", 404},
		{"GET", "/devices/a/b/c", "text/plain; charset=utf-8", "", 404},
		{"GET", "/dist/app.js", "text/plain; charset=utf-8", "", 404},
		{"POST", "/devices", "text/plain; charset=utf-8", "", 405},
		{"DELETE", "/app.js", "text/plain; charset=utf-8", "", 405},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			r := get(t, h, c.method, c.path)
			if r.StatusCode != c.status {
				t.Errorf("status is %d, want %d", r.StatusCode, c.status)
			}
			if got := r.Header.Get("Content-Type"); got != c.mediaType {
				t.Errorf("Content-Type is %q, want %q", got, c.mediaType)
			}
			if got := r.Header.Get("Cache-Control"); got != c.cache {
				t.Errorf("Cache-Control is %q, want %q", got, c.cache)
			}
			if got := r.Header.Get("Content-Security-Policy"); got != policy {
				t.Errorf("Content-Security-Policy is %q", got)
			}
			if got := r.Header.Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("X-Content-Type-Options is %q", got)
			}
		})
	}
}

func TestAScriptThatIsLoadedLaterIsKeptForGoodByItsName(t *testing.T) {
	name := laterScript(t, "set-people-")
	r := get(t, Handler("1"), "GET", "/"+name)
	if got := r.Header.Get("Cache-Control"); r.StatusCode != http.StatusOK || got != "public, max-age=31536000, immutable" {
		t.Errorf("status %d, Cache-Control %q", r.StatusCode, got)
	}
}

// laterScript returns the name in dist of the script that begins with prefix.
func laterScript(t *testing.T, prefix string) string {
	t.Helper()
	entries, err := dist.ReadDir("dist")
	if err != nil {
		t.Fatalf("list dist: %v", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			return e.Name()
		}
	}
	t.Fatalf("dist has no %s", prefix)
	return ""
}

func TestThePagesOfLinksTellNobodyTheirAddress(t *testing.T) {
	h := Handler("1")
	for path, want := range map[string]string{
		"/invite/X": "no-referrer", "/reset/X": "no-referrer", "/confirm/X": "no-referrer", "/devices": "same-origin",
	} {
		if got := get(t, h, "GET", path).Header.Get("Referrer-Policy"); got != want {
			t.Errorf("%s has the Referrer-Policy %q, want %q", path, got, want)
		}
	}
}

func TestTheVersionIsEscapedInThePage(t *testing.T) {
	b := body(t, get(t, Handler(`1.0"><script>`), "GET", "/"))
	if !bytes.Contains(b, []byte(`content="1.0&#34;&gt;&lt;script&gt;"`)) {
		t.Errorf("the version is not there, or not escaped:\n%s", b)
	}
	if bytes.Contains(b, []byte("{{")) {
		t.Error("a placeholder is left in the page")
	}
}

func TestThePageHasNothingInlineAndNothingForeign(t *testing.T) {
	b := string(body(t, get(t, Handler("1"), "GET", "/")))
	for _, bad := range []string{"<style", "style=", "onload=", "http:", "https:", "//"} {
		if strings.Contains(b, bad) {
			t.Errorf("index.html contains %q", bad)
		}
	}
	if strings.Count(b, "<script") != 1 || !strings.Contains(b, `<script src="/app.js"`) {
		t.Error("index.html has another script than /app.js")
	}
}

func TestAnAssetIsSentGzippedToWhoeverTakesIt(t *testing.T) {
	h := Handler("1")
	plain := body(t, get(t, h, "GET", "/app.js"))
	for _, c := range []struct {
		accept string
		want   bool
	}{
		{"", false},
		{"gzip", true},
		{"br, gzip;q=0.5", true},
		{"GZIP", true},
		{"gzip; q=0.001", true},
		{"gzip;q=0", false},
		{"gzip; q=0.000", false},
		{"br", false},
		{"x-gzip-2", false},
	} {
		r := get(t, h, "GET", "/app.js", "Accept-Encoding", c.accept)
		if got := r.Header.Get("Content-Encoding") == "gzip"; got != c.want {
			t.Errorf("with Accept-Encoding %q gzipped is %v, want %v", c.accept, got, c.want)
			continue
		}
		if r.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("Vary is %q", r.Header.Get("Vary"))
		}
		if !c.want {
			continue
		}
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Fatalf("open gzip: %v", err)
		}
		unpacked, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(unpacked, plain) {
			t.Errorf("the gzipped app.js is not app.js (%v)", err)
		}
	}
}

func TestAnAssetThatTheBrowserHasIsNotSentAgain(t *testing.T) {
	h := Handler("1")
	for _, accept := range []string{"", "gzip"} {
		first := get(t, h, "GET", "/app.css", "Accept-Encoding", accept)
		tag := first.Header.Get("ETag")
		if len(tag) < 10 {
			t.Fatalf("ETag is %q", tag)
		}
		again := get(t, h, "GET", "/app.css", "Accept-Encoding", accept, "If-None-Match", tag)
		if again.StatusCode != http.StatusNotModified || len(body(t, again)) != 0 {
			t.Errorf("status is %d, want 304 without a body", again.StatusCode)
		}
	}
	plain := get(t, h, "GET", "/app.css").Header.Get("ETag")
	if small := get(t, h, "GET", "/app.css", "Accept-Encoding", "gzip").Header.Get("ETag"); small == plain {
		t.Error("both encodings have one ETag")
	}
}

var tokenLine = regexp.MustCompile(`--([a-z0-9-]+): (#[0-9a-f]{6});`)

// tokens returns the colours of each theme by name; dark ones fall back to light.
func tokens(t *testing.T) map[string]map[string]string {
	t.Helper()
	css, err := os.ReadFile("src/css/tokens.css")
	if err != nil {
		t.Fatalf("read the tokens: %v", err)
	}
	light, dark, found := strings.Cut(string(css), `[data-theme="dark"]`)
	if !found {
		t.Fatal("tokens.css has no dark theme")
	}
	themes := map[string]map[string]string{"light": {}, "dark": {}}
	for name, text := range map[string]string{"light": light, "dark": dark} {
		for _, m := range tokenLine.FindAllStringSubmatch(text, -1) {
			themes[name][m[1]] = m[2]
		}
	}
	return themes
}

// luminance is the relative luminance of WCAG 2.2 of a colour like #1a2b3c.
func luminance(hex string) float64 {
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		if err != nil {
			return math.NaN()
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

func TestTextStandsOutFromItsGroundInBothThemes(t *testing.T) {
	for theme, colour := range tokens(t) {
		for _, pair := range []struct {
			text, ground string
			least        float64
		}{
			{"ink", "paper", 7},
			{"ink-2", "paper", 4.5},
			{"ink-3", "paper", 4.5},
			{"accent", "paper", 4.5},
			{"ok", "paper", 4.5},
			{"warn", "paper", 4.5},
			{"crit", "paper", 4.5},
			{"off", "paper", 4.5},
			{"ink", "sunken", 7},
			{"ink-2", "sunken", 4.5},
			{"ink-3", "sunken", 4.5},
			{"ink", "surface", 7},
			{"ink-3", "surface", 4.5},
			{"paper", "ink", 7},
			{"ink-3", "off-w", 4.5},
			{"ink", "heat", 4.5},
			{"series-1", "paper", 3},
			{"series-2", "paper", 3},
			{"series-3", "paper", 3},
		} {
			t.Run(fmt.Sprintf("%s: %s on %s", theme, pair.text, pair.ground), func(t *testing.T) {
				a, b := luminance(colour[pair.text]), luminance(colour[pair.ground])
				ratio := (math.Max(a, b) + 0.05) / (math.Min(a, b) + 0.05)
				if ratio < pair.least || math.IsNaN(ratio) {
					t.Errorf("contrast is %.2f, want at least %.1f", ratio, pair.least)
				}
			})
		}
	}
}
