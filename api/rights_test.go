package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
)

type object = map[string]any

func TestAProfileIsMadeShownReplacedAndDeleted(t *testing.T) {
	r := newRig(t)
	full := object{"publish": []any{"fleet/{id}/#"}, "subscribe": []any{"fleet/#"}, "level": "stored", "message_rate": 5.0, "byte_rate": 1024.0, "create_children": true}
	made := r.as("PUT", "/api/v1/profiles/p", full).wantStatus(t, 200).decode(t)
	full["name"] = "p"
	if d := cmp.Diff(full, made); d != "" {
		t.Error(d)
	}
	standard := object{"name": "default", "publish": []any{}, "subscribe": []any{}, "message_rate": 0.0, "byte_rate": 0.0, "create_children": false}
	l := r.as("GET", "/api/v1/profiles", nil).wantStatus(t, 200).decode(t)
	if d := cmp.Diff(object{"items": []any{standard, full}, "next": nil}, l); d != "" {
		t.Error(d)
	}
	bare := r.as("PUT", "/api/v1/profiles/p", object{}).wantStatus(t, 200).decode(t)
	got := r.as("GET", "/api/v1/profiles/p", nil).wantStatus(t, 200).decode(t)
	standard["name"] = "p"
	if d := cmp.Diff(standard, bare) + cmp.Diff(standard, got); d != "" {
		t.Error(d)
	}
	r.as("POST", "/api/v1/devices", object{"id": "d", "profile": "p"}).wantStatus(t, 201)
	r.as("DELETE", "/api/v1/profiles/p", nil).wantProblem(t, 409, "conflict")
	r.as("DELETE", "/api/v1/devices/d?data=keep", nil).wantStatus(t, 200)
	r.as("DELETE", "/api/v1/profiles/p", nil).wantStatus(t, 204)
	r.as("DELETE", "/api/v1/profiles/p", nil).wantProblem(t, 404, "not_found")
	r.as("GET", "/api/v1/profiles/p", nil).wantProblem(t, 404, "not_found")
	r.as("PUT", "/api/v1/profiles/default", object{}).wantProblem(t, 409, "conflict")
	r.as("DELETE", "/api/v1/profiles/default", nil).wantProblem(t, 409, "conflict")
}

func TestWhatAProfileMayNotSay(t *testing.T) {
	r := newRig(t)
	r.as("PUT", "/api/v1/profiles/p", object{"level": "stored"}).wantStatus(t, 200)
	for _, tt := range []struct {
		name, path string
		body       any
		status     int
		code       string
	}{
		{"rights over other devices", "p", object{"publish": []string{"devices/+/telemetry"}}, 422, "invalid"},
		{"rights over all", "p", object{"publish": []string{"#"}}, 422, "invalid"},
		{"rights over the server", "p", object{"publish": []string{"$SYS/x"}}, 422, "invalid"},
		{"a filter of 2 KiB", "p", object{"subscribe": []string{strings.Repeat("x", 2048)}}, 422, "invalid"},
		{"33 filters", "p", object{"subscribe": make([]string, 33)}, 422, "invalid"},
		{"a filter that is a number", "p", object{"subscribe": []int{1}}, 422, "invalid"},
		{"an unknown level", "p", object{"level": "maybe"}, 422, "invalid"},
		{"a negative rate", "p", object{"message_rate": -1}, 422, "invalid"},
		{"a huge rate", "p", `{"byte_rate":1e30}`, 422, "invalid"},
		{"another name than the path's", "p", object{"name": "q"}, 422, "invalid"},
		{"a name with a space", "a%20b", object{}, 422, "invalid"},
		{"a name with a slash", "a%2Fb", object{}, 422, "invalid"},
		{"a name of 65 letters", strings.Repeat("n", 65), object{}, 422, "invalid"},
		{"no JSON", "p", "{", 400, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.as("PUT", "/api/v1/profiles/"+tt.path, tt.body).wantProblem(t, tt.status, tt.code)
			if p, err := r.registry.Profile("p"); err != nil || p.Level != "stored" || len(r.registry.Profiles()) != 2 {
				t.Errorf("the profiles changed: %+v, %v", p, err)
			}
		})
	}
}

func TestADeviceChangesNameProfileAndParentAndNothingElse(t *testing.T) {
	r := newRig(t)
	r.as("PUT", "/api/v1/profiles/p", object{}).wantStatus(t, 200)
	r.device("g")
	a := r.as("POST", "/api/v1/devices", object{"id": "d", "name": "D", "profile": "p", "parent": "g", "credential": "none"}).wantStatus(t, 201)
	d := a.decode(t)["device"].(object)
	if d["profile"] != "p" || d["parent"] != "g" {
		t.Errorf("made %v", d)
	}
	want := d
	for _, step := range []object{
		{}, {"name": "E"}, {"name": nil, "parent": nil}, {"profile": "default"}, {"profile": "p", "parent": ""}, {"profile": "", "parent": "g", "name": ""},
	} {
		for k, v := range step {
			if v == nil {
				continue
			}
			want[k] = v
			if k == "profile" && v == "" {
				want[k] = "default"
			}
			if k == "parent" && v == "" {
				delete(want, k)
			}
		}
		got := r.as("PATCH", "/api/v1/devices/d", step).wantStatus(t, 200).decode(t)
		shown := r.as("GET", "/api/v1/devices/d", nil).wantStatus(t, 200).decode(t)
		if diff := cmp.Diff(want, got) + cmp.Diff(want, shown); diff != "" {
			t.Errorf("after %v: %s", step, diff)
		}
	}
	for _, tt := range []struct {
		body   any
		status int
		code   string
	}{
		{object{"id": "x"}, 422, "invalid"},
		{object{"created_at": "2020-01-01T00:00:00Z"}, 422, "invalid"},
		{object{"presence": object{}}, 422, "invalid"},
		{object{"token": "a-token-given-by-hand"}, 422, "invalid"},
		{object{"profile": "nothing", "name": "changed"}, 422, "invalid"},
		{object{"parent": "nobody", "name": "changed"}, 422, "invalid"},
		{object{"parent": "d"}, 409, "conflict"},
		{object{"parent": "../g"}, 422, "invalid"},
		{object{"name": "a\nb"}, 422, "invalid"},
		{object{"parent": 1}, 422, "invalid"},
		{"[]", 422, "invalid"},
	} {
		r.as("PATCH", "/api/v1/devices/d", tt.body).wantProblem(t, tt.status, tt.code)
	}
	r.as("PATCH", "/api/v1/devices/g", object{"parent": "d"}).wantProblem(t, 409, "conflict")
	r.as("PATCH", "/api/v1/devices/nobody", object{"name": "x"}).wantProblem(t, 404, "not_found")
	r.as("PATCH", "/api/v1/devices/me", object{"name": "x"}).wantProblem(t, 422, "invalid")
	if diff := cmp.Diff(want, r.as("GET", "/api/v1/devices/d", nil).decode(t)); diff != "" {
		t.Errorf("a refused change changed something: %s", diff)
	}
	for _, body := range []object{{"id": "n", "profile": "nothing"}, {"id": "n", "parent": "nobody"}, {"id": "n", "parent": "n", "x": 1}} {
		r.as("POST", "/api/v1/devices", body).wantProblem(t, 422, "invalid")
	}
}

func TestAServiceAccountIsMadeShownOnceChangedAndDeleted(t *testing.T) {
	r := newRig(t)
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	a := r.as("POST", "/api/v1/service-accounts", object{"name": "grafana", "subscribe": []string{"devices/+/telemetry/#"}, "expires_at": expires})
	made := a.wantStatus(t, 201).decode(t)
	secret, _ := made["secret"].(string)
	s := made["service_account"].(object)
	at := a.Header.Get("Location")
	want := object{
		"id": s["id"], "name": "grafana", "publish": []any{}, "subscribe": []any{"devices/+/telemetry/#"}, "disabled": false,
		"created_at": s["created_at"], "expires_at": expires.Format("2006-01-02T15:04:05.000000Z"),
	}
	if d := cmp.Diff(want, s); d != "" || at != "/api/v1/service-accounts/"+s["id"].(string) {
		t.Errorf("at %s: %s", at, d)
	}
	if c, err := r.accounts.AuthenticateMQTT("grafana", []byte(secret)); err != nil || c.ID != s["id"] {
		t.Errorf("the secret does not work: %v", err)
	}
	r.as("POST", "/api/v1/service-accounts", object{"name": "grafana"}).wantProblem(t, 409, "conflict")
	want["disabled"], want["publish"], want["subscribe"] = true, []any{"x"}, []any{}
	got := r.as("PATCH", at, object{"disabled": true, "publish": []string{"x"}, "subscribe": []string{}}).wantStatus(t, 200)
	one := r.as("GET", at, nil).wantStatus(t, 200)
	l := r.as("GET", "/api/v1/service-accounts", nil).wantStatus(t, 200)
	if d := cmp.Diff(want, got.decode(t)) + cmp.Diff(want, one.decode(t)) + cmp.Diff(object{"items": []any{want}, "next": nil}, l.decode(t)); d != "" {
		t.Error(d)
	}
	for _, shown := range []answer{got, one, l} {
		if strings.Contains(string(shown.body), "mss_") {
			t.Error("a secret is shown again")
		}
	}
	if strings.Contains(r.log.String(), secret) {
		t.Error("the log has the secret")
	}
	_, err := r.accounts.AuthenticateMQTT(secret, nil)
	if muster.KindOf(err) != muster.Unauthorized {
		t.Errorf("a disabled account gives %v", err)
	}
	for _, body := range []object{{"name": "other"}, {"id": "svc_y"}, {"expires_at": expires}, {"publish": []string{"a#"}}, {"disabled": "yes"}, {"publish": "x"}} {
		r.as("PATCH", at, body).wantProblem(t, 422, "invalid")
	}
	for _, body := range []object{
		{"name": ""}, {"name": "a b"}, {}, {"name": "n", "publish": []string{"devices/me/x"}}, {"name": "n", "secret": "given"}, {"name": "n", "expires_at": "2020-01-01T00:00:00Z"},
	} {
		r.as("POST", "/api/v1/service-accounts", body).wantProblem(t, 422, "invalid")
	}
	r.as("DELETE", at, nil).wantStatus(t, 204)
	r.as("DELETE", at, nil).wantProblem(t, 404, "not_found")
	r.as("GET", at, nil).wantProblem(t, 404, "not_found")
	r.as("PATCH", at, object{"disabled": false}).wantProblem(t, 404, "not_found")
}

func TestNobodyGetsRightsThroughTheAPIThatAreNotTheirsToGive(t *testing.T) {
	r := newRig(t)
	r.device("d")
	_, secret, err := r.accounts.CreateServiceAccount(t.Context(), accounts.ServiceSpec{Name: "svc", Publish: []string{"#"}, Subscribe: []string{"#"}})
	r.must(err)
	reader := signIn(r, r.key(accounts.DevicesRead, accounts.TelemetryRead, accounts.FirmwareRead, accounts.TopicsRead, accounts.AlertsRead))
	writer := bearer(r.key(accounts.DevicesRead, accounts.DevicesWrite, accounts.MQTT, accounts.CommandsSend))
	profile, change, service := object{"subscribe": []string{"#"}}, object{"profile": "p"}, object{"name": "n", "subscribe": []string{"#"}}
	tests := []struct {
		name         string
		who          option
		method, path string
		body         any
		status       int
	}{
		{"a viewer's browser makes no profile", withCookie(reader), "PUT", "/profiles/p", profile, 403},
		{"a viewer's browser deletes no profile", withCookie(reader), "DELETE", "/profiles/default", nil, 403},
		{"a viewer's browser changes no device", withCookie(reader), "PATCH", "/devices/d", change, 403},
		{"a viewer's browser sees no service accounts", withCookie(reader), "GET", "/service-accounts", nil, 403},
		{"a key that reads devices makes no profile", bearer(r.key(accounts.DevicesRead)), "PUT", "/profiles/p", profile, 403},
		{"a key that reads telemetry sees no profile", bearer(r.key(accounts.TelemetryRead)), "GET", "/profiles", nil, 403},
		{"a key that writes devices makes no service account", writer, "POST", "/service-accounts", service, 403},
		{"a key that writes devices sees none", writer, "GET", "/service-accounts", nil, 403},
		{"a key that writes devices changes none", writer, "PATCH", "/service-accounts/svc_x", object{"disabled": false}, 403},
		{"a key that writes devices deletes none", writer, "DELETE", "/service-accounts/svc_x", nil, 403},
		{"a service account is nobody here", bearer(secret), "GET", "/devices", nil, 401},
		{"a service account makes no other", bearer(secret), "POST", "/service-accounts", service, 401},
		{"a page of another site makes no profile", func(q *http.Request) { withCookie(signIn(r, r.admin))(q); header("Sec-Fetch-Site", "cross-site")(q) }, "PUT", "/profiles/p", profile, 403},
		{"a page of another site changes no device", func(q *http.Request) { withCookie(signIn(r, r.admin))(q); header("Sec-Fetch-Site", "cross-site")(q) }, "PATCH", "/devices/d", change, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code := map[int]string{401: "unauthorized", 403: "forbidden"}[tt.status]
			r.do(tt.method, "/api/v1"+tt.path, tt.body, tt.who).wantProblem(t, tt.status, code)
		})
	}
	d, err := r.registry.Get("d")
	r.must(err)
	if len(r.registry.Profiles()) != 1 || len(r.accounts.ServiceAccounts()) != 1 || d.Profile != "default" {
		t.Errorf("something changed: %v", fmt.Sprint(d, r.registry.Profiles(), len(r.accounts.ServiceAccounts())))
	}
}
