package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/api"
	"muster/devices"
	"muster/traffic"
)

// figures are a fleet's that a test sets.
type figures struct {
	api.FleetFigures
	minutes traffic.Minutes
}

func (f *figures) Figures() api.FleetFigures { return f.FleetFigures }

func (f *figures) Minutes(from time.Time) (time.Time, []traffic.Minute) { return f.minutes.From(from) }

func TestTheFleetsFiguresAndTheCauseOfAChange(t *testing.T) {
	r := newRig(t)
	r.figures.FleetFigures = api.FleetFigures{
		Total: 20, Counts: api.FleetCounts{Online: 8, Offline: 11, Never: 1}, Rates: api.FleetRates{Received: 1.5}, Queued: 3, LogBytes: 99, StoreDown: true,
		Storing: api.FleetStoring{Batches: 12, P99: 8.5}, Commands: api.FleetCommands{Ended: 4, Acked: 3},
		Since: 1_767_222_000_000_000, Change: api.PresenceCounts{Online: -11, Offline: 11}, Silent: 11,
	}
	want := object{
		"total": 20.0, "counts": object{"online": 8.0, "offline": 11.0, "never": 1.0, "unknown": 0.0, "quiet": 0.0, "updating": 0.0},
		"rates": object{"received": 1.5, "stored": 0.0}, "queued": 3.0, "log_bytes": 99.0, "store": "down",
		"storing": object{"batches": 12.0, "p99_ms": 8.5}, "commands": object{"ended": 4.0, "acked": 3.0},
		"change": object{
			"since": "2025-12-31T23:00:00.000000Z", "silent": 11.0,
			"counts": object{"online": -11.0, "offline": 11.0, "never": 0.0, "unknown": 0.0, "quiet": 0.0},
		},
	}
	if d := cmp.Diff(want, r.as("GET", "/api/v1/fleet", nil).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	r.figures.Cause = devices.Cause{Kind: devices.CauseGateway, Name: "gw-7", State: "offline", Devices: 9, Together: 7, At: 1_767_224_000_000_000}
	got := r.as("GET", "/api/v1/fleet", nil).wantStatus(t, 200).decode(t)["change"].(object)["cause"]
	if d := cmp.Diff(object{"kind": "gateway", "name": "gw-7", "state": "offline", "devices": 9.0, "together": 7.0, "at": "2025-12-31T23:33:20.000000Z"}, got); d != "" {
		t.Error(d)
	}
}

func TestTheFleetsTrafficSaysSinceWhenItIsKnown(t *testing.T) {
	r := newRig(t)
	for s := range 100 { // up to the rig's time
		r.figures.minutes.Note(time.Date(2026, 1, 1, 0, 0, s-99, 0, time.UTC), traffic.Totals{Received: uint64(3 * s), Stored: uint64(2 * s)})
	}
	got := r.as("GET", "/api/v1/fleet/traffic?from=2025-12-31T00:00:00Z", nil).wantStatus(t, 200).decode(t)
	want := object{"since": "2025-12-31T23:58:21.000000Z", "items": []any{
		object{"at": "2025-12-31T23:58:00.000000Z", "seconds": 38.0, "received": 114.0, "stored": 76.0},
		object{"at": "2025-12-31T23:59:00.000000Z", "seconds": 60.0, "received": 180.0, "stored": 120.0},
		object{"at": "2026-01-01T00:00:00.000000Z", "seconds": 1.0, "received": 3.0, "stored": 2.0},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := len(r.as("GET", "/api/v1/fleet/traffic?from=2026-01-01T00:00:00Z", nil).wantStatus(t, 200).items(t)); n != 1 {
		t.Errorf("%d minutes", n)
	}
	r.as("GET", "/api/v1/fleet/traffic?from=yesterday", nil).wantStatus(t, 422)
}
