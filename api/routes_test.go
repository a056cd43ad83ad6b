package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/api"
)

type operation struct {
	ID        string                `json:"operationId"`
	Says      string                `json:"description"`
	Security  []map[string][]string `json:"security"`
	Responses map[string]struct {
		Content map[string]any `json:"content"`
	} `json:"responses"`
	method, path string
}

// operations reads the OpenAPI document.
func operations(r *rig) []operation {
	r.Helper()
	var doc struct {
		OpenAPI    string                          `json:"openapi"`
		Paths      map[string]map[string]operation `json:"paths"`
		Components struct {
			Schemas         map[string]any `json:"schemas"`
			SecuritySchemes map[string]any `json:"securitySchemes"`
		} `json:"components"`
	}
	a := r.do("GET", "/api/openapi.json", nil).wantStatus(r, 200)
	r.must(json.Unmarshal(a.body, &doc))
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		r.Errorf("the document is OpenAPI %s", doc.OpenAPI)
	}
	for _, s := range []string{"key", "session"} {
		if doc.Components.SecuritySchemes[s] == nil {
			r.Errorf("there is no security scheme %s", s)
		}
	}
	if strings.Contains(string(a.body), "$schema") || strings.Contains(string(a.body), `"value":{"description":"The value at`) {
		r.Error("the document has huma's $schema or value")
	}
	var ops []operation
	for path, methods := range doc.Paths {
		if !strings.HasPrefix(path, "/api/v1/") {
			continue // InfluxDB's, in its own ways: influx_test.go
		}
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
			if strings.HasPrefix(path, "/api/v1/") && op.ID != "live" { // the others: TestEveryRouteOfTheMuxIsInTheDocument
				ops = append(ops, op)
			}
		}
	}
	slices.SortFunc(ops, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return ops
}

func (o operation) at() string {
	return strings.NewReplacer("{device}", "d1", "{credential}", "cred_x", "{key}", "key_x", "{profile}", "p", "{account}", "svc_x", "{group}", "g", "{authority}", "ca_x", "{candidate}", "c", "{block}", "b", "{command}", "1", "{job}", "1", "{seq}", "1", "{webhook}", "whk_x", "{task}", "tsk_1", "{user}", "usr_x", "{topic}", "top_x", "{principal}", "usr_x", "{subject}", "me", "{notification}", "ntf_x", "{delivery}", "dlv_x", "{session}", "ses_x", "{sha256}", strings.Repeat("0", 64), "{upload}", strings.Repeat("0", 64), "{release}", "rel_x", "{signing_key}", "sig_x", "/stream/{stream}", "/stream/"+talkID, "/stream", "/stream?channel=none").Replace(o.path)
}

func TestTheOpenAPIDocumentListsEveryRoute(t *testing.T) {
	r := newRig(t)
	var got []string
	for _, o := range operations(r) {
		got = append(got, o.method+" "+strings.TrimPrefix(o.path, "/api/v1"))
		if o.ID == "" || len(o.Security) == 0 {
			t.Errorf("%s %s has no id or no security", o.method, o.path)
		}
	}
	list, err := os.ReadFile("testdata/routes.txt")
	r.must(err)
	want := strings.Split(strings.TrimSpace(string(list)), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestEveryRouteRefusesStrangersAndKeysWithoutItsScope(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	for _, o := range operations(r) {
		t.Run(o.method+" "+o.path, func(t *testing.T) {
			if slices.Contains(publicOperations(), o.ID) {
				if !cmp.Equal(o.Security, []map[string][]string{{}}) {
					t.Errorf("%s has security %v", o.ID, o.Security)
				}
				return
			}
			a := r.do(o.method, o.at(), "not even JSON")
			a.wantProblem(t, 401, "unauthorized")
			if a.Header.Get("WWW-Authenticate") != `Bearer realm="muster"` {
				t.Errorf("WWW-Authenticate is %q", a.Header.Get("WWW-Authenticate"))
			}
			a = r.do(o.method, o.at(), nil, bearer("mst_nobodys-key-0123456789"))
			a.wantProblem(t, 401, "unauthorized")
			if !strings.Contains(a.Header.Get("WWW-Authenticate"), "invalid_token") {
				t.Errorf("WWW-Authenticate is %q", a.Header.Get("WWW-Authenticate"))
			}
			r.do(o.method, o.at(), nil, header("Authorization", "Basic eDp5")).wantProblem(t, 401, "unauthorized")
			wantScope(t, r, o)
		})
	}
	if !strings.Contains(r.do("GET", "/metrics", nil).wantStatus(t, 200).header(), "text/plain") {
		t.Error("/metrics is not text")
	}
}

// publicOperations need nobody.
func publicOperations() []string {
	return []string{"sign-in", "provision", "get-sign-in-methods", "accept-invitation", "forgot-password", "reset-password", "confirm-email"}
}

// ownOperations need no scope: they are about who is asking, or look themselves who it is.
func ownOperations() []string {
	return []string{
		"get-me", "sign-out", "list-users", "get-user", "get-user-identicon", "list-sessions", "end-session", "end-sessions", "change-me", "change-my-password",
		"change-my-email", "request-confirmation", "begin-totp", "confirm-totp", "delete-totp", "set-up",
		"delete-member", "get-subscription", "put-subscription", "delete-subscription", "list-my-subscriptions", "ack-notification", "mark-notifications",
		"list-inbox", "count-inbox", "read-inbox", "test-email", "test-inbox", "list-views", "create-view", "put-view", "delete-view",
	}
}

func (a answer) header() string { return a.Header.Get("Content-Type") }

// wantScope tries o with every scope but the one it names.
func wantScope(t *testing.T, r *rig, o operation) {
	t.Helper()
	scopes := o.Security[0]["key"]
	if !cmp.Equal(scopes, o.Security[1]["session"]) {
		t.Errorf("key and session need different scopes: %v", o.Security)
	}
	if len(scopes) == 0 {
		if !slices.Contains(ownOperations(), o.ID) {
			t.Error("it needs no scope")
		}
		return
	}
	others := slices.DeleteFunc(accounts.Scopes(), func(s string) bool { return s == scopes[0] || s == accounts.Admin })
	a := r.do(o.method, o.at(), "not even JSON", bearer(r.key(others...)))
	p := a.wantProblem(t, 403, "forbidden")
	if detail, _ := p["detail"].(string); !strings.Contains(detail, scopes[0]) {
		t.Errorf("the problem does not name %s: %s", scopes[0], detail)
	}
	if !strings.Contains(a.Header.Get("WWW-Authenticate"), scopes[0]) {
		t.Errorf("WWW-Authenticate is %q", a.Header.Get("WWW-Authenticate"))
	}
	enough := scopes[:1:1]
	if o.path == "/api/v1/stream" { // all of its channels show telemetry too
		enough = append(enough, accounts.TelemetryRead)
	}
	for _, key := range []string{r.key(enough...), r.admin} {
		if a := r.do(o.method, o.at(), "not even JSON", bearer(key)); a.StatusCode == http.StatusUnauthorized || a.StatusCode == http.StatusForbidden {
			t.Errorf("with the scope it gives %d", a.StatusCode)
		}
	}
}

func TestEveryAnswerOfARouteIsDocumented(t *testing.T) {
	r := newRig(t)
	for _, o := range operations(r) {
		for status, res := range o.Responses {
			if _, ok := res.Content["application/problem+json"]; !ok && status >= "4" {
				t.Errorf("%s %s: %s is not problem+json", o.method, o.path, status)
			}
		}
		for _, status := range []string{"429", "503", "500"} {
			if _, ok := o.Responses[status]; !ok {
				t.Errorf("%s %s does not document %s", o.method, o.path, status)
			}
		}
		a := r.as(o.method, o.at(), nil) // d1, cred_x and key_x are not there
		if _, ok := o.Responses[strconv.Itoa(a.StatusCode)]; !ok {
			t.Errorf("%s %s gives %d, which is not documented", o.method, o.path, a.StatusCode)
		}
	}
}

func TestUnknownPathsAndMethodsUnderAPIAreProblems(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/api", "/api/", "/api/v1", "/api/v1/nothing", "/api/v2/devices", "/api/v1/devices/", "/api/v1//devices", "/api/v1/devices/.", "/api/v1/x/../devices"} {
		r.as("GET", path, nil).wantProblem(t, 404, "not_found")
	}
	a := r.as("PUT", "/api/v1/devices", nil)
	a.wantProblem(t, 405, "method_not_allowed")
	if allow := a.Header.Get("Allow"); allow != "GET, HEAD, POST" {
		t.Errorf("Allow is %q", allow)
	}
	for _, path := range []string{"/", "/devices/x", "/apix", "/anything"} {
		if a := r.do("GET", path, nil).wantStatus(t, 200); string(a.body) != "the page" {
			t.Errorf("%s gives %q", path, a.body)
		}
	}
}

func TestHealthAndReadiness(t *testing.T) {
	r := newRig(t)
	r.do("GET", "/healthz", nil).wantStatus(t, 200)
	if got := r.do("GET", "/readyz", nil).wantStatus(t, 200).decode(t); !cmp.Equal(got, map[string]any{"ready": true, "reasons": []any{}}) {
		t.Errorf("readyz gives %v", got)
	}
	r.reasons = []api.Reason{{Part: "store", Detail: "migrations are running"}}
	want := map[string]any{"ready": false, "reasons": []any{map[string]any{"part": "store", "detail": "migrations are running"}}}
	if d := cmp.Diff(want, r.do("GET", "/readyz", nil).wantStatus(t, 503).decode(t)); d != "" {
		t.Error(d)
	}
	r.do("GET", "/healthz", nil).wantStatus(t, 200)
}

func TestMetricsCountRequestsByRouteAndNotByPath(t *testing.T) {
	r := newRig(t)
	r.as("GET", "/api/v1/devices/d-in-the-path", nil).wantStatus(t, 404)
	r.as("GET", "/api/v1/nothing-here", nil).wantStatus(t, 404)
	text := string(r.do("GET", "/metrics", nil).wantStatus(t, 200).body)
	for _, want := range []string{
		`muster_http_requests_total{code="404",route="GET /api/v1/devices/{device}"} 1`,
		`muster_http_requests_total{code="404",route="none"} 1`,
		`muster_http_panics_total 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "d-in-the-path") {
		t.Error("a device id is a label")
	}
}

func TestAPanicEndsOneRequestOnly(t *testing.T) {
	r := newRig(t, func(d *api.Deps) {
		d.System = []api.Section{func() (string, any) { panic("secret-of-the-panic") }}
	})
	a := r.as("GET", "/api/v1/system", nil)
	a.wantProblem(t, 500, "internal")
	if strings.Contains(string(a.body), "secret-of-the-panic") {
		t.Error("the answer tells what panicked")
	}
	if log := r.log.String(); !strings.Contains(log, "secret-of-the-panic") || !strings.Contains(log, "goroutine") {
		t.Errorf("the log has no stack: %s", log)
	}
	if text := r.do("GET", "/metrics", nil).body; !strings.Contains(string(text), "muster_http_panics_total 1") {
		t.Error("the panic is not counted")
	}
	r.as("GET", "/api/v1/me", nil).wantStatus(t, 200)
}

func TestKindsOfErrorBecomeStatuses(t *testing.T) {
	tests := []struct {
		err    error
		status int
		code   string
		retry  string
	}{
		{muster.Errorf(muster.Invalid, "words"), 422, "invalid", ""},
		{muster.Errorf(muster.NotFound, "words"), 404, "not_found", ""},
		{muster.Errorf(muster.Conflict, "words"), 409, "conflict", ""},
		{muster.Errorf(muster.Unauthorized, "words"), 401, "unauthorized", ""},
		{muster.Errorf(muster.Forbidden, "words"), 403, "forbidden", ""},
		{muster.Errorf(muster.Busy, "words"), 429, "busy", "1"},
		{muster.Errorf(muster.Unavailable, "words"), 503, "unavailable", "5"},
		{muster.Errorf(muster.TooLarge, "words"), 413, "too_large", ""},
		{muster.Errorf(muster.Internal, "words"), 500, "internal", ""},
		{errors.New("words"), 500, "internal", ""},
	}
	for _, tt := range tests {
		t.Run(tt.code, func(t *testing.T) {
			r := newRig(t, func(d *api.Deps) { d.Telemetry = broken{d.Telemetry, tt.err} })
			a := r.as("GET", "/api/v1/rejected", nil)
			p := a.wantProblem(t, tt.status, tt.code)
			if a.Header.Get("Retry-After") != tt.retry {
				t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
			}
			if detail := p["detail"]; (detail == "words") == (tt.status == 500) {
				t.Errorf("detail is %q", detail)
			}
			if logged := strings.Contains(r.log.String(), "words"); logged != (tt.status == 500 || tt.status == 503) {
				t.Errorf("logged: %v", logged)
			}
		})
	}
}
