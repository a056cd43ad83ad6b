package ui

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// asked is a request that changes something, as the fake server got it.
type asked struct {
	method, path, match string
	body                string
}

// shipServer is a fake server with firmware and rollouts. What is asked of it is in changes.
type shipServer struct {
	*fakeServer
	changes chan asked
}

func ago(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339Nano) }

func shipFixture(t *testing.T) *shipServer {
	t.Helper()
	f := &shipServer{fakeServer: fleetOf25(t), changes: make(chan asked, 16)}
	f.items["rollout:rol_1"], f.items["rollout:rol_2"] = progress("rol_1", "running"), progress("rol_2", "draft")
	f.items["rollout:rol_3"] = progress("rol_3", "completed")
	give := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, v) }
	}
	list := func(items ...object) object {
		if items == nil {
			items = []object{}
		}
		return object{"items": items, "next": nil}
	}
	one := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"3"`)
		writeJSON(w, 200, rolloutBody(r.PathValue("id"), f.items["rollout:"+r.PathValue("id")].(object)))
	}
	f.extra = map[string]http.HandlerFunc{
		"GET /api/v1/rollouts":               give(list(rolloutBody("rol_1", progress("rol_1", "running")), rolloutBody("rol_2", progress("rol_2", "draft")), rolloutBody("rol_3", progress("rol_3", "completed")))),
		"GET /api/v1/rollouts/{id}":          one,
		"GET /api/v1/rollouts/{id}/log":      give(list(object{"number": 8, "device": "mtr-1", "event": "failed", "from": "installing", "to": "failed", "reason": "device_error", "attempt": 1, "at": ago(time.Minute)})),
		"GET /api/v1/rollouts/{id}/devices":  func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 200, list(membersOf(r)...)) },
		"GET /api/v1/firmware/releases":      give(list(release("rel_2", "2.1.0", "draft"), release("rel_1", "2.0.0", "published"))),
		"GET /api/v1/firmware/releases/{id}": give(release("rel_2", "2.1.0", "draft")),
		"GET /api/v1/firmware/artifacts":     give(list(image("pump.swu"))),
		"GET /api/v1/firmware/keys":          give(list(object{"id": "k1", "name": "build server", "pem": "PEM", "created_by": "", "created_at": ago(time.Hour), "revoked_at": nil})),
		"GET /api/v1/firmware/policy":        give(object{"threshold": 1, "least": 1, "unsigned": false, "keys": 1}),
		"GET /api/v1/firmware/uploads":       give(list()),
		"GET /api/v1/devices":                give(object{"items": []object{}, "next": nil, "total": 1204, "plan": object{"index": "scan", "scanned": 1}}),
		"GET /api/v1/devices:facets":         give(object{"total": 25, "plan": object{"index": "scan", "scanned": 25}, "items": []object{versions()}}),
		"GET /api/v1/groups":                 give(list(object{"name": "cold-chain", "description": "", "query": nil, "members": 3})),
		"GET /api/v1/topics":                 give(list()),
		"GET /api/v1/rollouts/{id}/devices/{device}/why": give(object{
			"rollout": "rol_1", "device": "mtr-7", "words": "The device waits: the maintenance window is closed.", "held": "window_open", "version": "1.9.0",
			"rules": []object{{"name": "in_rollout", "holds": true, "detail": "the device is in phase 2 of 2"}, {"name": "window_open", "holds": false, "detail": "the maintenance window is closed", "until": ago(-time.Hour)}, {"name": "reachable", "holds": false, "detail": "the device is away"}},
		}),
	}
	f.record("POST /api/v1/rollouts", 201, rolloutBody("rol_2", progress("rol_2", "draft")))
	for _, verb := range []string{"pause", "abort", "start", "resume"} {
		f.record("POST /api/v1/rollouts/{id}/"+verb, 200, rolloutBody("rol_1", progress("rol_1", map[string]string{"pause": "paused", "abort": "aborted"}[verb])))
	}
	f.record("POST /api/v1/firmware/releases", 201, release("rel_2", "2.1.0", "draft"))
	signed := release("rel_2", "2.1.0", "draft")
	signed["signatures"] = []object{{"key": "k1", "sig": "c2ln"}}
	f.record("POST /api/v1/firmware/releases/{id}/signatures", 200, signed)
	f.record("POST /api/v1/firmware/releases/{id}/publish", 200, release("rel_2", "2.1.0", "published"))
	return f
}

// openAllPlaces opens a tab for somebody who may go to every place, of whose lists most are empty.
func openAllPlaces(t *testing.T) *tab {
	t.Helper()
	f := shipFixture(t)
	f.user = object{"id": "usr_1", "name": "Ada Kern"}
	f.faultless()
	b := open(t, f.fakeServer)
	b.expect("Failed to load resource") // of what no test says anything
	return b
}

// openShip opens an address of the server with firmware and rollouts.
func openShip(t *testing.T, path string) (*shipServer, *tab) {
	t.Helper()
	f := shipFixture(t)
	b := open(t, f.fakeServer)
	b.visit(path)
	return f, b
}

// record answers a request and keeps what it asked for.
func (f *shipServer) record(pattern string, status int, answer any) {
	f.extra[pattern] = func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			f.t.Error(err)
		}
		f.changes <- asked{r.Method, strings.TrimPrefix(r.URL.Path, "/api/v1"), r.Header.Get("If-Match"), string(b)}
		writeJSON(w, status, answer)
	}
}

// wants takes the next change and holds it against what it should be; body is JSON, or empty.
func (f *shipServer) wants(method, path, match, body string) {
	f.t.Helper()
	select {
	case got := <-f.changes:
		same := got.body == body
		if body != "" {
			var a, b bytes.Buffer
			same = json.Compact(&a, []byte(got.body)) == nil && json.Compact(&b, []byte(body)) == nil && a.String() == b.String()
		}
		if got.method != method || got.path != path || got.match != match || !same {
			f.t.Errorf("the page asked for %+v, want %s %s If-Match %q with %s", got, method, path, match, body)
		}
	case <-time.After(patience):
		f.t.Fatalf("the page did not ask for %s %s", method, path)
	}
}

func membersOf(r *http.Request) []object {
	all := []object{
		{"rollout": "rol_1", "device": "mtr-1", "phase": 1, "state": "failed", "reason": "device_error", "detail": "the flash cannot be written", "attempt": 1, "failures": 1, "progress": 0, "updated_at": ago(time.Minute)},
		{"rollout": "rol_1", "device": "mtr-7", "phase": 2, "state": "queued", "attempt": 0, "failures": 0, "progress": 0, "updated_at": ago(time.Hour)},
	}
	if r.URL.Query().Get("state") == "failed" {
		return all[:1]
	}
	return all
}

func progress(id, status string) object {
	p := object{
		"id": id, "status": status, "phase": 2, "waiting": false, "in_flight": 2, "concurrent": 4, "devices": 25, "ended": 14, "per_minute": 6.5, "eta_s": 120,
		"phases": []object{
			{"name": "canary", "devices": 4, "states": object{"confirmed": 3, "failed": 1}, "failing": 1, "soaking": 0, "late": 1},
			{"name": "all", "devices": 21, "states": object{"confirmed": 10, "installing": 2, "queued": 9}, "failing": 0, "soaking": 1, "late": 0},
		},
	}
	if status == "draft" {
		p["devices"], p["ended"], p["phase"], p["in_flight"], p["phases"] = 0, 0, 1, 0, []object{{"name": "canary", "devices": 0, "states": object{}, "failing": 0, "soaking": 0, "late": 0}, {"name": "all", "devices": 0, "states": object{}, "failing": 0, "soaking": 0, "late": 0}}
	}
	return p
}

func rolloutBody(id string, p object) object {
	person := object{"id": "usr_1", "name": "Ada Kern"}
	return object{
		"id": id, "name": "Pumps " + id, "number": 1, "product": "pump-controller", "release": "rel_1", "q": "tag:site=berlin", "membership": "snapshot", "supersede": "wait", "seed": "s",
		"plan": object{
			"phases": []object{
				{"name": "canary", "count": 4, "success": 25, "failure": object{"absolute": 3}, "soak_s": 60, "gate": "auto"},
				{"name": "all", "percent": 100, "success": 90, "failure": object{"percent": 10, "min_sample": 20}, "gate": "manual"},
			},
			"concurrent": 4, "per_minute": 0, "windows": []object{{"from": "22:00", "to": "04:00"}}, "zone": "", "attempts": 3, "retry_s": 300, "soak_s": 60, "on_failure": "pause",
			"deadlines": object{"offered_s": 86400, "downloading_s": 7200, "installing_s": 1800, "rebooting_s": 900},
		},
		"approvals": []object{}, "created_by": person, "created_at": ago(time.Hour), "edited_by": person, "started_by": person, "started_at": ago(time.Hour), "ended_at": nil,
		"progress": p, "reasons": []object{{"state": "failed", "reason": "device_error", "devices": 1}},
	}
}

func release(id, version, state string) object {
	r := object{
		"id": id, "product": "pump-controller", "version": version, "channel": "stable", "state": state, "notes": "", "offerable": state == "published", "revision": 1, "created_by": "",
		"created_at": ago(time.Hour), "published_at": nil, "ended_at": nil, "signatures": []object{},
		"manifest": object{
			"schema": 1, "product": "pump-controller", "version": version, "security_version": 3, "type": "app", "hw_compat": []object{{"board": "pc-1", "revisions": []string{"1.0"}}}, "created": "2026-01-01T00:00:00Z",
			"artifacts": []object{{"filename": "pump.swu", "sha256": strings.Repeat("ab", 32), "size": 4 << 20, "format": "swupdate"}},
		},
	}
	if state == "published" {
		r["published_at"], r["signatures"] = ago(time.Hour), []object{{"key": "k1", "sig": "c2ln"}}
	}
	return r
}

func image(name string) object {
	return object{
		"sha256": strings.Repeat("ab", 32), "sha1": "", "md5": "", "size": 4 << 20, "filename": name, "created_by": "", "created_at": ago(time.Hour),
		"image": object{"format": "swupdate", "version": "2.1.0", "hardware": []string{"1.0"}, "signed": true},
	}
}

func versions() object {
	return object{"field": "firmware", "more": 0, "other": 0, "values": []object{{"value": "2.0.0", "term": "fw:2.0.0", "devices": 17}, {"value": "1.9.0", "term": "fw:1.9.0", "devices": 5}, {"value": "", "term": `fw:""`, "devices": 3}}}
}

// inspect has the accessibility engine look at the page in both themes, wide and narrow, sees that nothing
// is wider than the page, and keeps pictures.
func (b *tab) inspect(name string) {
	b.t.Helper()
	b.loadAxe()
	b.everyLook(func(theme string, width int64) {
		for _, v := range engine(b) {
			b.t.Errorf("%s, %s, %d px: %s", name, theme, width, v)
		}
		if over := evaluate[int](b, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); over > 0 {
			b.t.Errorf("%s is %d px too wide at %d px", name, over, width)
		}
		if n := evaluate[int](b, `document.querySelectorAll("h1").length`); n != 1 {
			b.t.Errorf("%s has %d of h1", name, n)
		}
	})
	b.shootAll(name)
}
