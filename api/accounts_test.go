package api_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/accounts"
	"muster/api"
)

func TestMeTellsWhoIsAsking(t *testing.T) {
	r := newRig(t)
	got := r.do("GET", "/api/v1/me", nil, bearer(r.key(accounts.DevicesRead))).wantStatus(t, 200).decode(t)
	if d := cmp.Diff(map[string]any{"kind": "api_key", "name": "test", "scopes": []any{"devices:read"}}, got); d != "" {
		t.Error(d)
	}
}

func TestAnAPIKeyIsMadeShownOnceAndRevoked(t *testing.T) {
	r := newRig(t)
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	a := r.as("POST", "/api/v1/api-keys", map[string]any{"name": "k", "scopes": []string{"telemetry:read"}, "expires_at": expires}).wantStatus(t, 201)
	made := a.decode(t)
	secret, _ := made["secret"].(string)
	key := made["api_key"].(map[string]any)
	if key["name"] != "k" || key["expires_at"] != expires.Format("2006-01-02T15:04:05.000000Z") || a.Header.Get("Location") != "/api/v1/api-keys/"+key["id"].(string) {
		t.Errorf("made %v", key)
	}
	r.do("GET", "/api/v1/rejected", nil, bearer(secret)).wantStatus(t, 200)
	l := r.as("GET", "/api/v1/api-keys", nil).wantStatus(t, 200)
	items := l.decode(t)["items"].([]any)
	if used := items[1].(map[string]any)["last_used"]; used == nil || key["last_used"] != nil {
		t.Errorf("it was last used at %v, when it was made at %v", used, key["last_used"])
	}
	key["last_used"] = items[1].(map[string]any)["last_used"]
	if len(items) != 2 || !cmp.Equal(items[1], any(key)) || items[0].(map[string]any)["expires_at"] != nil {
		t.Errorf("the list is %v", items)
	}
	if strings.Contains(string(l.body), secret) {
		t.Error("the list shows the secret")
	}
	r.as("DELETE", a.Header.Get("Location"), nil).wantStatus(t, 204)
	r.as("DELETE", a.Header.Get("Location"), nil).wantProblem(t, 404, "not_found")
	r.do("GET", "/api/v1/rejected", nil, bearer(secret)).wantProblem(t, 401, "unauthorized")
	r.as("POST", "/api/v1/api-keys", map[string]any{"name": "k", "scopes": []string{"root"}}).wantProblem(t, 422, "invalid")
	r.as("POST", "/api/v1/api-keys", map[string]any{"name": "k", "scopes": []string{"admin"}, "expires_at": "2020-01-01T00:00:00Z"}).wantProblem(t, 422, "invalid")
}

// signIn returns the session cookie that signing in with key gives.
func signIn(r *rig, key string) *http.Cookie {
	r.Helper()
	a := r.do("POST", "/api/v1/session", map[string]string{"key": key}).wantStatus(r, 200)
	if len(a.Cookies()) != 1 {
		r.Fatalf("signing in sets %d cookies", len(a.Cookies()))
	}
	return a.Cookies()[0]
}

func TestABrowserSignsInUsesItsSessionAndSignsOut(t *testing.T) {
	r := newRig(t)
	c := signIn(r, r.admin)
	if c.Name != "muster" || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.MaxAge != 60*24*3600 {
		t.Errorf("the cookie is %+v", c)
	}
	got := r.do("GET", "/api/v1/me", nil, withCookie(c)).wantStatus(t, 200).decode(t)
	if d := cmp.Diff(map[string]any{"kind": "session", "name": "MUSTER_ADMIN_KEY", "role": "admin", "scopes": []any{"admin"}}, got); d != "" {
		t.Error(d)
	}
	a := r.do("DELETE", "/api/v1/session", nil, withCookie(c)).wantStatus(t, 204)
	if gone := a.Cookies()[0]; gone.Value != "" || gone.MaxAge != -1 {
		t.Errorf("signing out sets %+v", gone)
	}
	r.do("GET", "/api/v1/me", nil, withCookie(c)).wantProblem(t, 401, "unauthorized")
	r.as("DELETE", "/api/v1/session", nil).wantProblem(t, 404, "not_found")
	a = r.do("POST", "/api/v1/session", map[string]string{"key": "mst_wrong-wrong-wrong-wrong"})
	a.wantProblem(t, 401, "unauthorized")
	if a.Header.Get("WWW-Authenticate") == "" {
		t.Error("a refused key gets no WWW-Authenticate")
	}
	r.do("POST", "/api/v1/session", map[string]string{"key": r.key(accounts.DevicesRead)}).wantProblem(t, 403, "forbidden")
}

func TestACookieCountsOnlyFromTheSameOrigin(t *testing.T) {
	r := newRig(t)
	c := signIn(r, r.admin)
	body := map[string]string{"id": "a"}
	for _, o := range []option{header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example"), header("Sec-Fetch-Site", "same-site")} {
		r.do("POST", "/api/v1/devices", body, withCookie(c), o).wantProblem(t, 403, "forbidden")
		r.do("DELETE", "/api/v1/session", nil, withCookie(c), o).wantProblem(t, 403, "forbidden")
		r.do("POST", "/api/v1/session", map[string]string{"key": r.admin}, o).wantProblem(t, 403, "forbidden")
	}
	r.do("POST", "/api/v1/devices", body, withCookie(c), header("Sec-Fetch-Site", "same-origin")).wantStatus(t, 201)
	r.do("POST", "/api/v1/devices", map[string]string{"id": "b"}, bearer(r.admin), header("Sec-Fetch-Site", "cross-site")).wantStatus(t, 201)
}

func TestOverHTTPSTheCookieIsBoundToTheHost(t *testing.T) {
	u, err := url.Parse("https://muster.example")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(d *api.Deps) { d.PublicURL = u })
	c := signIn(r, r.admin)
	if c.Name != "__Host-muster" || !c.Secure || c.Path != "/" || c.Domain != "" {
		t.Errorf("the cookie is %+v", c)
	}
	r.do("GET", "/api/v1/me", nil, withCookie(c)).wantStatus(t, 200)
	c.Name = "muster"
	r.do("GET", "/api/v1/me", nil, withCookie(c)).wantProblem(t, 401, "unauthorized")
}

func TestTheSetupLinkSignsInOnce(t *testing.T) {
	r := newRig(t)
	if a := r.do("GET", "/setup/wrong", nil).wantStatus(t, 404); !strings.Contains(string(a.body), "not valid") || !strings.HasPrefix(a.header(), "text/html") {
		t.Errorf("a wrong link gives %s", a.body)
	}
	r.do("HEAD", "/setup/"+r.setup, nil).wantStatus(t, 405)
	a := r.do("GET", "/setup/"+r.setup, nil).wantStatus(t, 303)
	if a.Header.Get("Location") != "/" || a.Header.Get("Referrer-Policy") != "no-referrer" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the headers are %v", a.Header)
	}
	me := r.do("GET", "/api/v1/me", nil, withCookie(a.Cookies()[0])).wantStatus(t, 200).decode(t)
	if me["role"] != "admin" {
		t.Errorf("signed in as %v", me)
	}
	if a := r.do("GET", "/setup/"+r.setup, nil).wantStatus(t, 410); !strings.Contains(string(a.body), "has been used") || len(a.Cookies()) != 0 {
		t.Errorf("a used link gives %s", a.body)
	}
	if strings.Contains(r.log.String(), r.setup) {
		t.Error("the log has the token")
	}
}

func TestSystemShowsEverySection(t *testing.T) {
	r := newRig(t)
	s := r.as("GET", "/api/v1/system", nil).wantStatus(t, 200).decode(t)
	if s["version"] != "1.2.3" || !cmp.Equal(s["sections"], any(map[string]any{"part": map[string]any{"size": 3.0}})) {
		t.Errorf("system is %v", s)
	}
}

func TestSecretsAreNeverEchoedInErrorsOrLogs(t *testing.T) {
	r := newRig(t)
	const secret = "hunter2hunter2hunter2hunter2"
	answers := []answer{
		r.as("POST", "/api/v1/devices", `{"id":"a","token":"`+secret+` \u0001"}`),
		r.as("POST", "/api/v1/devices", `{"id":"a","token":"`+strings.Repeat(secret, 20)+`"}`),
		r.as("POST", "/api/v1/devices", `{"id":"a","secret":{"x":"`+secret+`"}}`),
		r.as("POST", "/api/v1/devices", `{"id":"a","secret":["`+secret+`"]}`),
		r.as("POST", "/api/v1/devices", `{"id":"a","token":"`+secret),
		r.as("POST", "/api/v1/devices", `"`+secret+`"`),
		r.as("POST", "/api/v1/devices", `{"id":"a","credential":"`+secret+`"}`),
		r.as("POST", "/api/v1/devices", `{"id":"a","credential":"none","token":"`+secret+`"}`),
		r.as("POST", "/api/v1/api-keys", `{"name":"a","scopes":["admin"],"expires_at":"`+secret+`"}`),
		r.as("POST", "/api/v1/api-keys", `{"name":"a","scopes":"`+secret+`"}`),
		r.do("POST", "/api/v1/session", map[string]string{"key": secret}),
		r.do("GET", "/api/v1/me", nil, bearer(secret)),
		r.do("GET", "/api/v1/me", nil, header("Authorization", secret)),
		r.do("GET", "/api/v1/me", nil, withCookie(&http.Cookie{Name: "muster", Value: secret})),
		r.as("GET", "/api/v1/devices?limit="+secret, nil),
		r.as("GET", "/api/v1/devices/x/telemetry?from="+secret, nil),
		r.do("GET", "/setup/"+secret, nil),
	}
	r.as("POST", "/api/v1/devices", `{"id":"a","token":"`+secret+`"}`).wantStatus(t, 201)
	answers = append(answers, r.as("POST", "/api/v1/devices", `{"id":"b","token":"`+secret+`"}`),
		r.as("POST", "/api/v1/devices", `{"id":"`+secret+`"}`))
	for _, a := range answers {
		if a.StatusCode < 400 {
			t.Errorf("%s %s gives %d", a.Request.Method, a.Request.URL.Path, a.StatusCode)
		}
		if strings.Contains(string(a.body), secret) || strings.Contains(string(a.body), "hunter") {
			t.Errorf("%s %s echoes the secret: %s", a.Request.Method, a.Request.URL.Path, a.body)
		}
	}
	if strings.Contains(r.log.String(), "hunter") {
		t.Error("the log has the secret")
	}
}

func TestTheClientsRequestIDIsKeptWhenItIsPlain(t *testing.T) {
	r := newRig(t)
	if a := r.do("GET", "/healthz", nil, header("X-Request-Id", "abc-1.2_3")); a.Header.Get("X-Request-Id") != "abc-1.2_3" {
		t.Errorf("the id is %q", a.Header.Get("X-Request-Id"))
	}
	for _, bad := range []string{"a b", strings.Repeat("x", 65), `"><`} {
		if a := r.do("GET", "/healthz", nil, header("X-Request-Id", bad)); a.Header.Get("X-Request-Id") == bad {
			t.Errorf("the id %q is echoed", bad)
		}
	}
}

func TestTheLiveSocketGetsTheConnectionItself(t *testing.T) {
	r := newRig(t, func(d *api.Deps) {
		d.LiveSocket = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, ok := w.(http.Hijacker); !ok {
				http.Error(w, "no hijacker", http.StatusInternalServerError)
			}
		})
	})
	r.do("GET", "/api/v1/live", nil).wantStatus(t, 200)
}
