package server_test

import (
	"net/http"
	"strings"
	"testing"

	"muster/firmware/rollout"
)

// gatedRollout makes a rollout over the API, whose canaries c1 and c2 must not draw more current than
// the others, and returns its id.
func (u *updating) gatedRollout() string {
	u.t.Helper()
	var made struct{ ID string }
	gate := map[string]any{"key": "current", "worse": "up", "percent": 20, "window_s": 10, "min_devices": 2}
	call(u.t, u.Server, http.MethodPost, "/api/v1/rollouts", map[string]any{
		"name": "r", "release": u.release, "q": "id:*", "start": true,
		"plan": map[string]any{"soak_s": 0, "phases": []any{
			map[string]any{"name": "canary", "q": "id:c*", "success": 100, "regression": gate}, map[string]any{"name": "all", "percent": 100},
		}},
	}, &made)
	return made.ID
}

type gatedState struct {
	Progress struct {
		Status, Reason, Telemetry string
		Phase                     int
		Phases                    []struct{ States map[string]int }
	}
}

func (u *updating) gated(id string) (x gatedState) {
	u.t.Helper()
	call(u.t, u.Server, http.MethodGet, "/api/v1/rollouts/"+id, nil, &x)
	return x
}

// draws has devices say what they draw until something is so: readings of before an update do not
// count, and those of more than ten seconds ago neither.
func (u *updating) draws(clients map[string]*firmwareClient, current map[string]string, id string, so func(x gatedState) bool) {
	u.t.Helper()
	var last gatedState
	u.waits(func() bool {
		for id, c := range clients {
			c.say("devices/me/telemetry", `{"current":`+current[id]+`}`)
		}
		last = u.gated(id)
		return so(last)
	}, "it does not come to that")
}

// updatesCanaries has both canaries report the version.
func updatesCanaries(t *testing.T) (*updating, map[string]*firmwareClient, string) {
	t.Helper()
	u, tokens := startUpdating(t, "app", 5_000, "c1", "c2", "d1", "d2", "d3")
	clients := map[string]*firmwareClient{}
	for _, id := range u.ids {
		clients[id] = u.client5(id, tokens[id])
	}
	id := u.gatedRollout()
	for _, canary := range u.ids[:2] {
		o := clients[canary].offer(u.OfferKeyForTest())
		clients[canary].reports(&o, 1, "running", `,"version":"2.0.0"`)
	}
	u.waits(func() bool {
		x := u.gated(id)
		return x.Progress.Phases[0].States["confirmed"] == 2 && strings.Contains(x.Progress.Telemetry, "too little telemetry")
	}, "the canaries are not confirmed, or nothing is said of their telemetry")
	if x := u.gated(id); x.Progress.Phase != 1 || x.Progress.Status != "running" {
		t.Fatalf("without telemetry it goes on: %+v", x)
	}
	return u, clients, id
}

func TestARolloutWhoseDevicesMeasureWorseStopsItself(t *testing.T) {
	t.Parallel()
	u, clients, id := updatesCanaries(t)
	u.draws(clients, map[string]string{"c1": "3", "c2": "3.5", "d1": "2", "d2": "2.1", "d3": "1.9"}, id, func(x gatedState) bool { return x.Progress.Status == "paused" })
	x := u.gated(id)
	said := x.Progress.Telemetry // of two of the others or of all three
	if p := x.Progress; p.Reason != string(rollout.Regression) || p.Phase != 1 || p.Phases[1].States["queued"] != 3 ||
		!strings.HasPrefix(said, `avg of "current" is 3.25 on 2 updated devices and `) || !strings.HasSuffix(said, " others: it went up by more than 20 percent") {
		t.Errorf("%+v", x)
	}
	var why struct{ Words, Held string }
	call(t, u.Server, http.MethodGet, "/api/v1/rollouts/"+id+"/devices/d1/why", nil, &why)
	if why.Held != "rollout_running" || why.Words != "The device waits: the rollout is paused: regression ("+said+")." {
		t.Errorf("%+v", why)
	}
	var records struct {
		Items []struct {
			Action string
			After  struct{ Telemetry string }
		}
	}
	call(t, u.Server, http.MethodGet, "/api/v1/audit?limit=1", nil, &records)
	if len(records.Items) != 1 || records.Items[0].Action != "rollout.stop" || records.Items[0].After.Telemetry != said {
		t.Errorf("%+v", records)
	}
}

func TestARolloutWhoseDevicesMeasureTheSameGoesOn(t *testing.T) {
	t.Parallel()
	u, clients, id := updatesCanaries(t)
	u.draws(clients, map[string]string{"c1": "2.2", "c2": "2.3", "d1": "2", "d2": "2.1", "d3": "1.9"}, id, func(x gatedState) bool {
		return x.Progress.Phase == 2 && x.Progress.Phases[1].States["offered"] == 3
	})
	if x := u.gated(id); x.Progress.Status != "running" || x.Progress.Telemetry != "" {
		t.Errorf("%+v", x)
	}
}
