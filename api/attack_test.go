package api_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"muster"
	"muster/accounts"
)

// injections are what ends a statement, a text or a pattern somewhere.
var injections = []string{
	`'; DROP TABLE devices; --`, `" OR ""="`, `%' OR '1'='1`, `\'; SELECT 1; --`, `$1`, `?`, `{{7*7}}`, "x\x00y", `_%`, `../../etc/passwd`, "a\r\nSet-Cookie: x=1",
}

// parameters reads of the OpenAPI document which text parameters each operation takes.
func parameters(r *rig) map[string][]struct{ Name, In string } {
	r.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string
			Parameters  []struct{ Name, In string }
		}
	}
	r.must(json.Unmarshal(r.do("GET", "/api/openapi.json", nil).wantStatus(r, 200).body, &doc))
	out := map[string][]struct{ Name, In string }{}
	for _, methods := range doc.Paths {
		for _, op := range methods {
			for _, p := range op.Parameters {
				out[op.OperationID] = append(out[op.OperationID], struct{ Name, In string }{p.Name, p.In})
			}
		}
	}
	return out
}

func TestSQLInAnyParameterOfAnyRouteIsTextAndNothingElse(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) { textIsText(newRig(t)) })
}

func textIsText(r *rig) {
	for _, id := range []muster.DeviceID{"d1", "d2"} {
		r.device(id)
	}
	takes, asked := parameters(r), 0
	for _, o := range operations(r) {
		if o.ID == "sign-out" || o.ID == "stream" { // a stream does not end; what it takes is compiled as a query
			continue
		}
		for _, p := range takes[o.ID] {
			for _, text := range injections {
				at := o.at()
				extra := option(func(*http.Request) {})
				switch p.In {
				case "path":
					at = strings.Replace(o.path, "{"+p.Name+"}", url.PathEscape(text), 1)
					at = operation{path: at}.at()
				case "query":
					at, _, _ = strings.Cut(at, "?")
					at += query(p.Name, text)
				case "header":
					if strings.ContainsAny(text, "\x00\r\n") {
						continue // a client cannot send it
					}
					extra = header(p.Name, text)
				}
				asked++
				a := r.do(o.method, at, nil, bearer(r.admin), extra)
				if a.StatusCode >= 500 || a.Header.Get("Set-Cookie") != "" && o.ID != "sign-in" || a.StatusCode >= 400 && strings.Contains(strings.ToLower(string(a.body)), "sql") && !strings.Contains(strings.ToLower(text), "sql") {
					r.Errorf("%s %s gives %d %s", o.method, at, a.StatusCode, a.body)
				}
			}
		}
	}
	if asked < 500 {
		r.Errorf("only %d requests were made", asked)
	}
	for _, id := range []muster.DeviceID{"d1", "d2"} {
		if _, err := r.registry.Get(id); err != nil {
			r.Errorf("%s: %v", id, err)
		}
	}
	if got := r.as("GET", "/api/v1/devices?total=true", nil).wantStatus(r, 200).decode(r)["total"]; got != 2.0 {
		r.Errorf("there are %v devices", got)
	}
}

func TestAViewerChangesNothingByAnyRoute(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	reads := []string{accounts.DevicesRead, accounts.TelemetryRead, accounts.FirmwareRead, accounts.TopicsRead, accounts.AlertsRead}
	viewer := withCookie(signIn(r, r.key(reads...)))
	lastUsed := regexp.MustCompile(`"last_used":("[^"]*"|null)`) // looking uses a key
	look := func() (all string) {
		for _, path := range []string{"devices/d1", "api-keys", "profiles"} {
			all += lastUsed.ReplaceAllString(string(r.as("GET", "/api/v1/"+path, nil).body), "")
		}
		return all
	}
	before := look()
	own := map[string]bool{ // a user's own things, and what needs nobody
		"sign-out":       true,
		"send-to-stream": true, // what the page says in its own stream; each channel asks for its rights
	}
	mutating := 0
	for _, o := range operations(r) {
		if o.method == "GET" || len(o.Security) < 2 || own[o.ID] {
			continue
		}
		scopes := o.Security[0]["key"]
		if len(scopes) == 0 {
			continue // of the caller's own account: there is none behind this session
		}
		mutating++
		for _, body := range []any{nil, "{}", "not even JSON"} {
			r.do(o.method, o.at(), body, viewer).wantProblem(t, 403, "forbidden")
		}
	}
	if after := look(); before != after || mutating < 50 {
		t.Errorf("after %d requests it is\n%s, it was\n%s", mutating, after, before)
	}
}

func TestIdsAndCredentialsCannotBeGuessedFromAnswers(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	// What is wrong with a credential is not told: not its form, its length, nor how much of
	// it is right.
	want := ""
	for _, guess := range []string{"mst_x", "mst_nobodys-key-0123456789", r.admin[:len(r.admin)-1], r.admin + "0", strings.ToUpper(r.admin), "x", strings.Repeat("k", 200)} {
		for _, path := range []string{"/devices/d1", "/devices/nobody", "/system", "/api-keys"} {
			a := r.do("GET", "/api/v1"+path, nil, bearer(guess))
			p := a.wantProblem(t, 401, "unauthorized")
			if detail, _ := p["detail"].(string); want == "" {
				want = detail
			} else if detail != want {
				t.Errorf("%.20s: %q instead of %q", guess, detail, want)
			}
		}
	}
}
