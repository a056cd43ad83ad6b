package api_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/devices"
)

func TestThePresenceOfADeviceIsShownWithItsHistory(t *testing.T) {
	r := newRig(t)
	if _, _, err := r.registry.Create(t.Context(), devices.Spec{ID: "a", CheckIn: 90}); err != nil {
		t.Fatal(err)
	}
	r.device("b")
	began := time.Now().Add(time.Minute).Truncate(time.Second)
	c := devices.Connection{Device: "a", Session: 1, At: began}
	r.registry.Connected(c)
	r.registry.Disconnected(c, "disconnected", began.Add(30*time.Second))

	reader := r.key("devices:read")
	a := r.do(http.MethodGet, "/api/v1/devices/a/presence", nil, bearer(reader)).wantStatus(t, http.StatusOK).decode(t)
	stamp := func(d time.Duration) string { return began.Add(d).UTC().Format("2006-01-02T15:04:05.000000Z") }
	if a["state"] != "offline" || a["since"] != stamp(30*time.Second) || a["reason"] != "disconnected" || a["last_seen"] != stamp(0) {
		t.Errorf("it is %v", a)
	}
	if a["rhythm_s"] != nil || a["check_in_s"] != 90.0 || a["flaps"] != 0.0 {
		t.Errorf("it is %v", a)
	}
	want := map[string]any{"online_s": 30.0, "offline_s": 0.0, "unknown_s": 0.0, "percent": 100.0}
	if d := cmp.Diff(want, a["uptime_30d"]); d != "" {
		t.Error(d)
	}
	strip := a["strip"].([]any)
	if len(strip) < 2 || strip[1].(map[string]any)["state"] != "online" || strip[1].(map[string]any)["from"] != stamp(0) {
		t.Errorf("the strip is %v", strip)
	}
	b := r.do(http.MethodGet, "/api/v1/devices/b/presence", nil, bearer(reader)).wantStatus(t, http.StatusOK).decode(t)
	if up := b["uptime_30d"].(map[string]any); b["state"] != "never" || b["last_seen"] != nil || b["check_in_s"] != 600.0 || up["percent"] != nil {
		t.Errorf("one that never was: %v", b)
	}
	r.do(http.MethodGet, "/api/v1/devices/nobody/presence", nil, bearer(reader)).wantProblem(t, http.StatusNotFound, "not_found")
	r.do(http.MethodGet, "/api/v1/devices/a/presence", nil, bearer(r.key("telemetry:read"))).wantProblem(t, http.StatusForbidden, "forbidden")
}
