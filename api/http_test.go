package api_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"muster/accounts"
	"muster/api"
)

func keyed(key string) option { return header("Idempotency-Key", key) }

func (r *rig) total() int {
	r.Helper()
	n, ok := r.as("GET", "/api/v1/devices?total=true", nil).wantStatus(r, 200).decode(r)["total"].(float64)
	if !ok {
		r.Fatal("no total")
	}
	return int(n)
}

func TestARequestWithAnIdempotencyKeyIsDoneOnceAndAnsweredAlike(t *testing.T) {
	r := newRig(t)
	admin := bearer(r.admin)
	first := r.do("POST", "/api/v1/devices", `{"id":"d1"}`, admin, keyed("k1")).wantStatus(t, 201)
	again := r.do("POST", "/api/v1/devices", `{"id":"d1"}`, admin, keyed("k1")).wantStatus(t, 201)
	if !bytes.Equal(first.body, again.body) || again.Header.Get("Location") != "/api/v1/devices/d1" || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("again: %s, %v", again.body, again.Header)
	}
	if first.Header.Get("Idempotency-Replayed") != "" || first.Header.Get("X-Request-Id") == again.Header.Get("X-Request-Id") {
		t.Error("the first answer is marked, or the second has its request id")
	}
	r.do("POST", "/api/v1/devices", `{"id":"d2"}`, admin, keyed("k1")).wantProblem(t, 409, "idempotency_mismatch")
	r.do("POST", "/api/v1/devices", `{"id":"d1"}`, admin, keyed("k2")).wantProblem(t, 409, "conflict")
	other := bearer(r.key(accounts.DevicesWrite))
	r.do("POST", "/api/v1/devices", `{"id":"d1"}`, other, keyed("k1")).wantProblem(t, 409, "conflict")
	r.do("DELETE", "/api/v1/devices/d1?data=keep", nil, admin, keyed("k1")).wantStatus(t, 200)
	r.do("DELETE", "/api/v1/devices/d1?data=keep", nil, admin, keyed("k1")).wantStatus(t, 200)
	r.do("DELETE", "/api/v1/devices/d1?data=delete", nil, admin, keyed("k1")).wantProblem(t, 409, "idempotency_mismatch")
	r.do("POST", "/api/v1/devices", `{"id":"d3"`, admin, keyed("k3")).wantProblem(t, 400, "malformed")
	r.do("POST", "/api/v1/devices", `{"id":"d3"}`, admin, keyed("k3")).wantStatus(t, 201) // what failed is not kept
	for _, bad := range []string{strings.Repeat("k", 257), "k\x01"} {
		req := func(q *http.Request) { q.Header["Idempotency-Key"] = []string{strings.ReplaceAll(bad, "\x01", "é")} }
		r.do("POST", "/api/v1/devices", `{"id":"d4"}`, admin, req).wantProblem(t, 422, "invalid")
	}
	if n := r.total(); n != 1 {
		t.Errorf("there are %d devices", n)
	}
	if log := r.log.String(); strings.Contains(log, "not kept") {
		t.Error(log)
	}
}

func TestManyAtOnceWithOneKeyMakeOneDevice(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	seen := map[string]int{}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/api/v1/devices", strings.NewReader(`{"id":"d1"}`))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer "+r.admin)
			req.Header.Set("Idempotency-Key", "k")
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			var p struct{ Code string }
			if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			seen[strconv.Itoa(res.StatusCode)+p.Code]++
		})
	}
	all.Wait()
	if seen["201"]+seen["409idempotency_in_flight"] != 16 || seen["201"] == 0 || r.total() != 1 {
		t.Errorf("answers %v, %d devices", seen, r.total())
	}
}

func TestDocumentsHaveAnETagThatBindsChanges(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	docs := []struct{ path, put, patch, other string }{
		{"/api/v1/devices/d1", "", `{"name":"one"}`, `{"name":"two"}`},
		{"/api/v1/profiles/p1", `{"level":"stored"}`, "", `{"level":"durable"}`},
		{"/api/v1/groups/g1", `{"description":"a"}`, "", `{"description":"b"}`},
	}
	made := r.as("POST", "/api/v1/service-accounts", `{"name":"svc"}`).wantStatus(t, 201)
	docs = append(docs, struct{ path, put, patch, other string }{made.Header.Get("Location"), "", `{"disabled":true}`, `{"disabled":false}`})
	for _, d := range docs {
		t.Run(d.path, func(t *testing.T) {
			method, text := "PATCH", d.patch
			if d.put != "" {
				method, text = "PUT", d.put
				r.do("PUT", d.path, text, bearer(r.admin), header("If-Match", "*")).wantProblem(t, 412, "stale")
				r.do("PUT", d.path, text, bearer(r.admin), header("If-None-Match", "*")).wantStatus(t, 200)
				r.do("PUT", d.path, d.other, bearer(r.admin), header("If-None-Match", "*")).wantProblem(t, 412, "stale")
			}
			changed := r.as(method, d.path, text).wantStatus(t, 200)
			got := r.as("GET", d.path, nil).wantStatus(t, 200)
			old := got.Header.Get("ETag")
			if old == "" || strings.HasPrefix(old, "W/") || strings.Split(old, ".")[0] != strings.Split(changed.Header.Get("ETag"), ".")[0] {
				t.Errorf("ETag %s, after the change %s", old, changed.Header.Get("ETag"))
			}
			same := r.do("GET", d.path, nil, bearer(r.admin), header("If-None-Match", `"x", W/`+old)).wantStatus(t, 304)
			if len(same.body) != 0 || same.Header.Get("ETag") != old || same.Header.Get("Content-Type") != "" {
				t.Errorf("304 has %q %v", same.body, same.Header)
			}
			r.do("GET", d.path, nil, bearer(r.admin), header("If-None-Match", `"x"`)).wantStatus(t, 200)
			r.do(method, d.path, d.other, bearer(r.admin), header("If-Match", `"zzz.`+strings.Split(old, ".")[1])).wantProblem(t, 412, "stale")
			r.do(method, d.path, d.other, bearer(r.admin), header("If-Match", "W/"+old)).wantProblem(t, 412, "stale")
			r.do(method, d.path, d.other, bearer(r.admin), header("If-Match", "x")).wantProblem(t, 422, "invalid")
			r.do(method, d.path, d.other, bearer(r.admin), header("If-Match", `"x", `+old)).wantStatus(t, 200)
			r.do(method, d.path, text, bearer(r.admin), header("If-Match", old)).wantProblem(t, 412, "stale")
			gone := d.path
			if strings.Contains(d.path, "/devices/") {
				gone += "?data=keep"
			}
			r.do("DELETE", gone, nil, bearer(r.admin), header("If-Match", old)).wantProblem(t, 412, "stale")
			if a := r.do("DELETE", gone, nil, bearer(r.admin), header("If-Match", "*")); a.StatusCode/100 != 2 {
				t.Errorf("DELETE gives %d %s", a.StatusCode, a.body)
			}
			if a := r.do("DELETE", gone, nil, bearer(r.admin), header("If-Match", "*")); a.StatusCode != http.StatusNotFound {
				t.Errorf("DELETE again gives %d %s", a.StatusCode, a.body)
			}
		})
	}
	r.do("POST", "/api/v1/devices", `{"id":"x"}`, bearer(r.admin), header("If-Match", `"a"`)).wantProblem(t, 412, "stale")
	list := r.as("GET", "/api/v1/profiles", nil).wantStatus(t, 200)
	r.do("GET", "/api/v1/profiles", nil, bearer(r.admin), header("If-None-Match", list.Header.Get("ETag"))).wantStatus(t, 304)
}

func TestOfManyChangesBoundToOneVersionOneIsMade(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	tag := r.as("GET", "/api/v1/devices/d1", nil).Header.Get("ETag")
	var mu sync.Mutex
	done := map[int]int{}
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, r.url+"/api/v1/devices/d1", strings.NewReader(`{"name":"n`+strconv.Itoa(i)+`"}`))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer "+r.admin)
			req.Header.Set("If-Match", tag)
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = res.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			done[res.StatusCode]++
		})
	}
	all.Wait()
	if d := cmp.Diff(map[int]int{200: 1, 412: 11}, done); d != "" {
		t.Error(d)
	}
}

func TestRequestsAreLimitedByCallerAndTheHeadersSayHow(t *testing.T) {
	at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	now := func() time.Time { mu.Lock(); defer mu.Unlock(); return at }
	r := newRig(t, func(d *api.Deps) {
		d.Now, d.Limits = now, api.Limits{Rate: 2, Burst: 4, SignIn: 3, Nobody: 2}
		d.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	one, two := bearer(r.key(accounts.DevicesRead)), bearer(r.key(accounts.TelemetryRead))
	for i := range 4 {
		a := r.do("GET", "/api/v1/me", nil, one).wantStatus(t, 200)
		if a.Header.Get("RateLimit-Policy") != `"key";q=4;w=2` || !strings.HasPrefix(a.Header.Get("RateLimit"), `"key";r=`+strconv.Itoa(3-i)+";t=") {
			t.Errorf("request %d: %s, %s", i, a.Header.Get("RateLimit-Policy"), a.Header.Get("RateLimit"))
		}
	}
	a := r.do("GET", "/api/v1/me", nil, one)
	a.wantProblem(t, 429, "busy")
	if detail := a.decode(t)["detail"]; detail != "there were too many requests: try again in 1 s" {
		t.Errorf("people are told: %v", detail)
	}
	if a.Header.Get("Retry-After") != "1" || a.Header.Get("RateLimit") != `"key";r=0;t=1` {
		t.Errorf("429 with %v", a.Header)
	}
	r.do("GET", "/api/v1/me", nil, two).wantStatus(t, 200)
	if a := r.as("GET", "/api/v1/me", nil).wantStatus(t, 200); a.Header.Get("RateLimit-Policy") != `"admin";q=40;w=2` {
		t.Errorf("an admin has %s", a.Header.Get("RateLimit-Policy"))
	}
	mu.Lock()
	at = at.Add(500 * time.Millisecond)
	mu.Unlock()
	r.do("GET", "/api/v1/me", nil, one).wantStatus(t, 200)
	r.do("GET", "/api/v1/me", nil, one).wantProblem(t, 429, "busy")
	from := func(addr string) option { return header("X-Forwarded-For", addr) }
	for range 3 {
		r.do("POST", "/api/v1/session", `{"key":"mst_wrong"}`, from("198.51.100.1")).wantProblem(t, 401, "unauthorized")
	}
	r.do("POST", "/api/v1/session", `{"key":"`+r.admin+`"}`, from("198.51.100.1")).wantProblem(t, 429, "busy")
	r.do("POST", "/api/v1/session", `{"key":"`+r.admin+`"}`, from("198.51.100.2")).wantStatus(t, 200)
	for range 2 {
		r.do("GET", "/api/v1/me", nil, bearer("mst_guessed"), from("2001:db8::1")).wantProblem(t, 401, "unauthorized")
	}
	r.do("GET", "/api/v1/me", nil, bearer("mst_guessed"), from("2001:db8::ffff")).wantProblem(t, 429, "busy")
	r.do("GET", "/api/v1/me", nil, two, from("2001:db8::1")).wantStatus(t, 200) // who has a key is not in it
	r.do("GET", "/api/v1/me", nil, bearer("mst_guessed"), from("2001:db8:0:1::1")).wantProblem(t, 401, "unauthorized")
	if text := string(r.do("GET", "/metrics", nil).body); !strings.Contains(text, `muster_http_limited_total{policy="key"} 2`) {
		t.Error("the metrics do not count what was limited")
	}
}

func TestAnswersAreCompressedAndTheETagSaysSo(t *testing.T) {
	r := newRig(t)
	plain := r.do("GET", "/api/openapi.json", nil, header("Accept-Encoding", "identity")).wantStatus(t, 200)
	for _, coding := range []string{"gzip", "zstd"} {
		a := r.do("GET", "/api/openapi.json", nil, header("Accept-Encoding", coding)).wantStatus(t, 200)
		if a.Header.Get("Content-Encoding") != coding || a.Header.Get("Vary") != "Accept-Encoding" || len(a.body) > len(plain.body)/4 {
			t.Errorf("%s: %d of %d bytes, %v", coding, len(a.body), len(plain.body), a.Header)
		}
		var text []byte
		var err error
		if coding == "gzip" {
			z, zerr := gzip.NewReader(bytes.NewReader(a.body))
			r.must(zerr)
			text, err = io.ReadAll(z)
		} else {
			z, zerr := zstd.NewReader(bytes.NewReader(a.body))
			r.must(zerr)
			text, err = io.ReadAll(z)
			z.Close()
		}
		if err != nil || !bytes.Equal(text, plain.body) {
			t.Errorf("%s: %d bytes, %v", coding, len(text), err)
		}
		r.do("GET", "/api/openapi.json", nil, header("If-None-Match", a.Header.Get("ETag")), header("Accept-Encoding", coding)).wantStatus(t, 304)
	}
	r.device("d1")
	r.as("PATCH", "/api/v1/devices/d1", `{"notes":"`+strings.Repeat("words ", 300)+`"}`).wantStatus(t, 200)
	a := r.do("GET", "/api/v1/devices/d1", nil, bearer(r.admin), header("Accept-Encoding", "gzip")).wantStatus(t, 200)
	tag := a.Header.Get("ETag")
	if !strings.HasSuffix(tag, `+gzip"`) {
		t.Fatalf("ETag %s", tag)
	}
	r.do("PATCH", "/api/v1/devices/d1", `{"name":"n"}`, bearer(r.admin), header("If-Match", tag)).wantStatus(t, 200)
	if short := r.do("GET", "/api/v1/me", nil, bearer(r.admin), header("Accept-Encoding", "gzip")); short.Header.Get("Content-Encoding") != "" {
		t.Error("a short answer is compressed")
	}
}

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestBodiesMayBeCompressedAndBombsAreRefused(t *testing.T) {
	r := newRig(t)
	post := func(coding, body string) answer {
		return r.do("POST", "/api/v1/devices", body, bearer(r.admin), header("Content-Encoding", coding))
	}
	post("gzip", packed(t, `{"id":"d1"}`)).wantStatus(t, 201)
	e, err := zstd.NewWriter(nil)
	r.must(err)
	post("zstd", string(e.EncodeAll([]byte(`{"id":"d2"}`), nil))).wantStatus(t, 201)
	post("gzip", packed(t, `{"id":"d3","notes":"`+strings.Repeat("a", 8<<20)+`"}`)).wantProblem(t, 413, "too_large")
	post("gzip", `{"id":"d3"}`).wantProblem(t, 400, "malformed")
	a := post("br", `{"id":"d3"}`)
	a.wantProblem(t, 415, "unsupported_media_type")
	if a.Header.Get("Accept-Encoding") != "gzip, zstd" {
		t.Errorf("Accept-Encoding is %q", a.Header.Get("Accept-Encoding"))
	}
	list := packed(t, "id\n"+strings.Repeat("d9\n", 4))
	a = r.do("POST", "/api/v1/devices:import?dry_run=true", list, bearer(r.admin), header("Content-Encoding", "gzip"), header("Content-Type", "text/csv")).wantStatus(t, 200)
	if !strings.Contains(string(a.body), `"report"`) {
		t.Errorf("a compressed list gives %s", a.body)
	}
}

func TestWhatProgramsReadDifferentlyIsRefusedWithAPointer(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		name, body, pointer string
		status              int
		code                string
	}{
		{"a member twice", `{"id":"a","tags":{"x":"1","x":"2"}}`, "#/tags/x", 400, "malformed"},
		{"something after it", `{"id":"a"}{"id":"b"}`, "#", 400, "malformed"},
		{"no UTF-8", "{\"id\":\"a\xff\"}", "#/id", 400, "malformed"},
		{"too deep", `{"id":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, "#/id" + strings.Repeat("/0", 31), 400, "malformed"},
		{"a number beyond all", `{"id":"a","location":{"lat":1e999,"lon":0}}`, "#/location/lat", 422, "invalid"},
		{"an unknown member", `{"id":"a","namely":"b"}`, "#/namely", 422, "invalid"},
		{"a member in other letters", `{"ID":"a"}`, "", 422, "invalid"},
		{"a whole number beyond all", `{"id":"a","check_in_s":99999999999999999999}`, "#/check_in_s", 422, "invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := r.as("POST", "/api/v1/devices", tt.body).wantProblem(t, tt.status, tt.code)
			text, err := json.Marshal(p["errors"])
			r.must(err)
			if !strings.Contains(string(text), `"pointer":"`+tt.pointer) {
				t.Errorf("errors %s, want %s", text, tt.pointer)
			}
		})
	}
	if n := r.total(); n != 0 {
		t.Errorf("%d devices were made", n)
	}
}

func TestEveryAnswerHasItsSecurityHeaders(t *testing.T) {
	public, err := url.Parse("https://muster.example")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(d *api.Deps) { d.PublicURL = public })
	for _, path := range []string{"/api/v1/me", "/api/none", "/healthz", "/metrics", "/setup/x", "/api/openapi.json", "/"} {
		h := r.do("GET", path, nil).Header
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin", "Strict-Transport-Security": "max-age=31536000",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q", path, name, h.Get(name))
			}
		}
		if !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: policy %q", path, h.Get("Content-Security-Policy"))
		}
		if h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: CORS is on", path)
		}
	}
}

func TestPagesOfListedOriginsMayUseTheAPIWithAKeyAndNeverWithACookie(t *testing.T) {
	const app, evil = "https://app.example", "https://evil.example"
	preflight := []option{header("Access-Control-Request-Method", "POST"), header("Access-Control-Request-Headers", "authorization,idempotency-key")}
	off := newRig(t)
	off.do("OPTIONS", "/api/v1/devices", nil, append(preflight, header("Origin", app))...).wantProblem(t, 405, "method_not_allowed")
	for _, listed := range []string{app, "*"} {
		r := newRig(t, func(d *api.Deps) { d.CORSOrigins = []string{listed} })
		a := r.do("OPTIONS", "/api/v1/devices", nil, append(preflight, header("Origin", app))...).wantStatus(t, 204)
		if a.Header.Get("Access-Control-Allow-Origin") != listed || !strings.Contains(a.Header.Get("Access-Control-Allow-Headers"), "Idempotency-Key") {
			t.Errorf("preflight: %v", a.Header)
		}
		a = r.do("GET", "/api/v1/me", nil, bearer(r.admin), header("Origin", app)).wantStatus(t, 200)
		if a.Header.Get("Access-Control-Allow-Origin") != listed || a.Header.Get("Vary") == "" || !strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), "ETag") {
			t.Errorf("an answer: %v", a.Header)
		}
		for _, h := range []http.Header{a.Header, r.do("OPTIONS", "/api/v1/me", nil, append(preflight, header("Origin", app))...).Header} {
			if h.Get("Access-Control-Allow-Credentials") != "" {
				t.Error("credentials are allowed")
			}
		}
		if h := r.do("GET", "/api/v1/me", nil, bearer(r.admin), header("Origin", evil)).Header; listed != "*" && h.Get("Access-Control-Allow-Origin") != "" {
			t.Error("an origin that is not listed is allowed")
		}
	}
}

func TestTheClientIsWhomTrustedProxiesSayAndNobodyElse(t *testing.T) {
	const key = `{"name":"n","scopes":["devices:read"]}`
	for _, tt := range []struct{ name, trusted, forwarded, want string }{
		{"nobody is trusted", "", "198.51.100.7", "127.0.0.1"},
		{"one proxy", "127.0.0.0/8", "203.0.113.9, 198.51.100.7", "198.51.100.7"},
		{"two proxies", "127.0.0.0/8,198.51.100.0/24", "10.0.0.1, 203.0.113.9, 198.51.100.7", "203.0.113.9"},
		{"nonsense", "127.0.0.0/8", "203.0.113.9, what", "127.0.0.1"},
		{"with a port", "127.0.0.0/8", "[2001:db8::1]:443", "2001:db8::1"},
		{"an IPv4 address as IPv6", "127.0.0.0/8", "::ffff:203.0.113.9", "203.0.113.9"},
		{"none", "127.0.0.0/8", "", "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := &logBuffer{}
			r := newRig(t, func(d *api.Deps) {
				d.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				for p := range strings.SplitSeq(tt.trusted, ",") {
					if p != "" {
						d.TrustedProxies = append(d.TrustedProxies, netip.MustParsePrefix(p))
					}
				}
			})
			r.do("POST", "/api/v1/api-keys", key, bearer(r.admin), header("X-Forwarded-For", tt.forwarded)).wantStatus(t, 201)
			if !strings.Contains(log.String(), "address="+tt.want+" ") {
				t.Errorf("the address is not %q: %s", tt.want, log)
			}
			a := r.do("POST", "/api/v1/session", `{"key":"`+r.admin+`"}`, header("X-Forwarded-Proto", "https")).wantStatus(t, 200)
			if secure := strings.Contains(a.Header.Get("Set-Cookie"), "; Secure"); secure != (tt.trusted != "") {
				t.Errorf("the cookie is %s", a.Header.Get("Set-Cookie"))
			}
		})
	}
}

func TestEveryLogLineOfARequestHasItsID(t *testing.T) {
	log := &logBuffer{}
	r := newRig(t, func(d *api.Deps) {
		d.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		d.System = []api.Section{func() (string, any) { panic("here") }}
	})
	r.do("GET", "/api/v1/system?x=1", nil, bearer(r.admin), header("X-Request-Id", "req-1")).wantStatus(t, 422)
	r.do("GET", "/api/v1/system", nil, bearer(r.admin), header("X-Request-Id", "req-2")).wantProblem(t, 500, "internal")
	r.do("GET", "/setup/the-secret-token", nil, header("X-Request-Id", "req-3"))
	text := log.String()
	for _, want := range []string{`msg=request method=GET route="GET /api/v1/system" status=422`, "request=req-1", `status=500`, "request=req-2", "request=req-3", "address=127.0.0.1"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if strings.Count(line, "request=req-") != 1 {
			t.Errorf("not one id in %s", line)
		}
	}
	if strings.Contains(text, "secret-token") || strings.Contains(text, r.admin) {
		t.Error("a secret is in the log")
	}
}
