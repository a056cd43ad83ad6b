package api_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/ingest"
)

func TestADeviceIsMadeShownListedAndDeleted(t *testing.T) {
	r := newRig(t)
	a := r.as("POST", "/api/v1/devices", map[string]any{"id": "pump:1", "name": "Pump"}).wantStatus(t, 201)
	if a.Header.Get("Location") != "/api/v1/devices/pump:1" {
		t.Errorf("Location is %q", a.Header.Get("Location"))
	}
	c := a.decode(t)["credential"].(map[string]any)
	token, _ := c["token"].(string)
	if id, _, err := r.registry.Authenticate(token, nil); err != nil || id != "pump:1" || c["username"] != token || c["kind"] != "token" {
		t.Errorf("the credential does not work: %v", err)
	}
	if _, ok := c["password"]; ok {
		t.Error("a token has a password")
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	r.registry.Connected(devices.Connection{
		Device: "pump:1", Session: 9, Peer: "127.0.0.1:5", ClientID: "c", Protocol: 5, Transport: "ws", KeepAlive: time.Minute, At: at,
	})
	r.live.ledgers["pump:1"] = ingest.Ledger{Received: 3, Stored: 2, Queued: 1}
	d := r.as("GET", "/api/v1/devices/pump:1", nil).wantStatus(t, 200).decode(t)
	made, _ := d["created_at"].(string)
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`).MatchString(made) {
		t.Errorf("created_at is %q", made)
	}
	const stamp = "2026-01-02T03:04:05.000006Z"
	want := map[string]any{
		"id": "pump:1", "name": "Pump", "profile": "default", "created_at": made,
		"tags": map[string]any{}, "groups": []any{}, "check_in_s": 0.0,
		"status": "online", "presence": map[string]any{"state": "online", "since": stamp, "last_seen": stamp, "reason": ""},
		"connection": map[string]any{
			"peer": "127.0.0.1:5", "client_id": "c", "protocol": 5.0, "transport": "ws", "keep_alive_s": 60.0, "since": stamp,
		},
		"ledger": map[string]any{
			"received": 3.0, "recovered": 0.0, "stored": 2.0, "duplicate": 0.0, "replaced": 0.0, "rejected": 0.0, "dropped": 0.0, "queued": 1.0,
		},
	}
	if diff := cmp.Diff(map[string]any{"sessions": 0.0, "queued": 0.0, "inflight": 0.0, "backlog": 0.0, "dropped": 0.0}, d["mqtt"]); diff != "" {
		t.Error(diff)
	}
	delete(d, "mqtt") // lists have none
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
	l := r.as("GET", "/api/v1/devices"+query("q", "PUMP"), nil).wantStatus(t, 200).decode(t)
	if diff := cmp.Diff(map[string]any{"items": []any{want}, "next": nil, "plan": map[string]any{"index": "scan", "scanned": 1.0}}, l); diff != "" {
		t.Error(diff)
	}
	r.as("DELETE", "/api/v1/devices/pump:1?data=keep", nil).wantStatus(t, 200)
	r.as("DELETE", "/api/v1/devices/pump:1?data=keep", nil).wantProblem(t, 404, "not_found")
	r.as("GET", "/api/v1/devices/pump:1", nil).wantProblem(t, 404, "not_found")
	if l := r.as("GET", "/api/v1/devices", nil).decode(t); !cmp.Equal(l, map[string]any{"items": []any{}, "next": nil, "plan": map[string]any{"index": "order", "scanned": 0.0}}) {
		t.Errorf("the empty list is %v", l)
	}
}

func TestANeverSeenDeviceHasNoLastSeenAndNoConnection(t *testing.T) {
	r := newRig(t)
	r.device("a")
	d := r.as("GET", "/api/v1/devices/a", nil).wantStatus(t, 200).decode(t)
	p := d["presence"].(map[string]any)
	if p["state"] != "never" || p["last_seen"] != nil || p["since"] != d["created_at"] || d["connection"] != nil {
		t.Errorf("got %v", d)
	}
}

func TestWhichCredentialANewDeviceGets(t *testing.T) {
	r := newRig(t)
	token, secret := "token-by-hand-0123456789", "secret-by-hand-0123"
	tests := []struct {
		name string
		body map[string]any
		kind any // nil for none
		code int
	}{
		{"a token when nothing is said", map[string]any{}, "token", 201},
		{"a token", map[string]any{"credential": "token"}, "token", 201},
		{"a secret", map[string]any{"credential": "secret"}, "secret", 201},
		{"none", map[string]any{"credential": "none"}, nil, 201},
		{"a token by hand", map[string]any{"token": token}, "token", 201},
		{"a secret by hand", map[string]any{"secret": secret}, "secret", 201},
		{"a token that is taken", map[string]any{"token": token}, nil, 409},
		{"both by hand", map[string]any{"token": token + "x", "secret": secret}, nil, 422},
		{"none and a token by hand", map[string]any{"credential": "none", "token": token + "x"}, nil, 422},
		{"a short token", map[string]any{"token": "short"}, nil, 422},
		{"a short secret", map[string]any{"secret": "short"}, nil, 422},
		{"an unknown kind", map[string]any{"credential": "x509"}, nil, 422},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := "d" + string(rune('a'+i))
			tt.body["id"] = id
			a := r.as("POST", "/api/v1/devices", tt.body).wantStatus(t, tt.code)
			if tt.code != 201 {
				return
			}
			c, _ := a.decode(t)["credential"].(map[string]any)
			if tt.kind == nil {
				if c != nil {
					t.Errorf("a credential was made: %v", c["kind"])
				}
				return
			}
			if c["kind"] != tt.kind {
				t.Fatalf("kind is %v", c["kind"])
			}
			password, _ := c["password"].(string)
			if got, _, err := r.registry.Authenticate(c["username"].(string), []byte(password)); err != nil || string(got) != id {
				t.Errorf("it does not let the device in: %v", err)
			}
		})
	}
}

func TestCredentialsAreAddedListedWithoutSecretsAndRevoked(t *testing.T) {
	r := newRig(t)
	r.device("a")
	const path = "/api/v1/devices/a/credentials"
	a := r.as("POST", path, map[string]any{"kind": "secret"}).wantStatus(t, 201)
	c := a.decode(t)["credential"].(map[string]any)
	password := c["password"].(string)
	if want := path + "/" + c["id"].(string); a.Header.Get("Location") != want || c["username"] != "a" {
		t.Errorf("Location is %q, user name %v", a.Header.Get("Location"), c["username"])
	}
	l := r.as("GET", path, nil).wantStatus(t, 200)
	item := l.decode(t)["items"].([]any)[0].(map[string]any)
	delete(item, "created_at")
	if d := cmp.Diff(map[string]any{"id": c["id"], "kind": "secret", "state": "active", "label": "", "expires_at": nil, "last_used_at": nil}, item); d != "" || strings.Contains(string(l.body), password) {
		t.Errorf("the list shows %v", item)
	}
	r.as("DELETE", a.Header.Get("Location"), nil).wantStatus(t, 204)
	r.as("DELETE", a.Header.Get("Location"), nil).wantProblem(t, 404, "not_found")
	if _, _, err := r.registry.Authenticate("a", []byte(password)); muster.KindOf(err) != muster.Unauthorized {
		t.Error("a revoked secret still lets in")
	}
	r.as("POST", "/api/v1/devices/nobody/credentials", map[string]any{}).wantProblem(t, 404, "not_found")
}

func TestBodiesAreStrict(t *testing.T) {
	r := newRig(t)
	tests := []struct {
		name, path, body string
		status           int
		code, pointer    string
	}{
		{"an unknown field", "/devices", `{"id":"a","colour":"red"}`, 422, "invalid", "#/colour"},
		{"a missing field", "/devices", `{"name":"a"}`, 422, "invalid", "#"},
		{"a wrong type", "/devices", `{"id":5}`, 422, "invalid", "#/id"},
		{"a long name", "/devices", `{"id":"a","name":"` + strings.Repeat("n", 201) + `"}`, 422, "invalid", "#/name"},
		{"a wrong item", "/api-keys", `{"name":"a","scopes":["devices:read",7]}`, 422, "invalid", "#/scopes/1"},
		{"a wrong time", "/api-keys", `{"name":"a","scopes":["admin"],"expires_at":"tomorrow"}`, 422, "invalid", "#/expires_at"},
		{"an array", "/devices", `[]`, 422, "invalid", "#"},
		{"no JSON", "/devices", `{"id":`, 400, "malformed", ""},
		{"nothing", "/devices", ``, 400, "malformed", ""},
		{"too much", "/devices", `{"id":"` + strings.Repeat("a", 70_000) + `"}`, 413, "too_large", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := r.as("POST", "/api/v1"+tt.path, tt.body).wantProblem(t, tt.status, tt.code)
			if tt.pointer == "" {
				return
			}
			errs, _ := p["errors"].([]any)
			if len(errs) == 0 || errs[0].(map[string]any)["pointer"] != tt.pointer {
				t.Errorf("errors is %v, want pointer %s", errs, tt.pointer)
			}
		})
	}
	a := r.do("POST", "/api/v1/devices", `id: a`, bearer(r.admin), header("Content-Type", "application/yaml"))
	a.wantProblem(t, 415, "unsupported_media_type")
	p := r.as("GET", "/api/v1/devices?limit=0", nil).wantProblem(t, 422, "invalid")
	if e := p["errors"].([]any)[0].(map[string]any); e["parameter"] != "query.limit" {
		t.Errorf("the error is %v", e)
	}
	for _, q := range []string{"limit=1001", "limit=x", "colour=red", "limit=1&Limit=2"} {
		r.as("GET", "/api/v1/devices?"+q, nil).wantProblem(t, 422, "invalid")
	}
	if r.registry.Count() != 0 {
		t.Error("a refused body made a device")
	}
}

func TestIdsInThePathThatAreNoDeviceIds(t *testing.T) {
	r := newRig(t)
	tests := []struct {
		name, id string
		status   int
		code     string
	}{
		{"a slash", "a%2Fb", 422, "invalid"},
		{"an encoded dot", "%2e", 422, "invalid"},
		{"two encoded dots", "%2e%2e", 422, "invalid"},
		{"me", "me", 422, "invalid"},
		{"129 characters", strings.Repeat("a", 129), 422, "invalid"},
		{"128 characters", strings.Repeat("a", 128), 404, "not_found"},
		{"a space", "a%20b", 422, "invalid"},
		{"a NUL", "a%00b", 422, "invalid"},
		{"dots and colons", "a.b:c-d_e", 404, "not_found"},
		{"bytes that are no UTF-8", "%ff", 422, "invalid"},
	}
	for _, tt := range tests {
		for _, tail := range []string{"", "/credentials", "/telemetry", "/telemetry/latest", "/rejected"} {
			t.Run(tt.name+tail, func(t *testing.T) {
				r.as("GET", "/api/v1/devices/"+tt.id+tail, nil).wantProblem(t, tt.status, tt.code)
			})
		}
	}
	for _, id := range []string{"a/b", "..", "me", strings.Repeat("a", 129), "ä", ""} {
		r.as("POST", "/api/v1/devices", map[string]any{"id": id}).wantProblem(t, 422, "invalid")
	}
}

func TestTheCursorOfDevicesIsStableUnderChange(t *testing.T) {
	r := newRig(t)
	for _, id := range []muster.DeviceID{"a", "b", "c", "d", "e"} {
		r.device(id)
	}
	first := r.as("GET", "/api/v1/devices?limit=2", nil).wantStatus(t, 200).decode(t)
	r.as("DELETE", "/api/v1/devices/b?data=keep", nil).wantStatus(t, 200)
	r.device("aa")
	r.device("cc")
	next, _ := first["next"].(string)
	var got []string
	for next != "" {
		l := r.as("GET", "/api/v1/devices?limit=2&cursor="+url.QueryEscape(next), nil).wantStatus(t, 200).decode(t)
		for _, i := range l["items"].([]any) {
			got = append(got, i.(map[string]any)["id"].(string))
		}
		next, _ = l["next"].(string)
	}
	if d := cmp.Diff([]string{"c", "cc", "d", "e"}, got); d != "" {
		t.Error(d)
	}
}
