package server_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"muster/firmware/rollout"
	"muster/sim"
)

// simulate runs a virtual fleet of the rig's devices until the test ends.
func (u *updating) simulate(tokens map[string]string, failures float64, byDDI int) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	cfg := sim.Config{
		Addr: u.BrokerAddr(), Devices: len(u.ids), Rate: 0.1, Firmware: true, FirmwareFailures: failures, FirmwareHTTP: u.HTTPAddr(), FirmwareDDI: byDDI, Seed: 3,
		Credentials: func(i int) (string, string) { return tokens[u.ids[i]], "" },
	}
	go func() { ended <- sim.Run(ctx, cfg, nil) }()
	u.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			u.t.Error(err)
		}
	})
}

func TestAVirtualFleetInstallsWhatItIsOffered(t *testing.T) {
	u, tokens := startUpdating(t, "app", 200_000, "sim-0001", "sim-0002")
	u.simulate(tokens, 0, 0)
	u.begin()
	for _, id := range u.ids { // one over MQTT, one over HTTP
		u.becomes(id, rollout.Rebooting)
		u.waits(func() bool { return u.row(id).Soaking }, id+" does not say that it runs the version")
	}
}

func TestARolloutToAVirtualFleetThatFailsStopsItself(t *testing.T) {
	u, tokens := startUpdating(t, "app", 20_000, "sim-0001", "sim-0002", "sim-0003", "sim-0004", "sim-0005", "sim-0006", "sim-0007", "sim-0008")
	u.simulate(tokens, 1, 0)
	u.begin()
	u.waits(func() bool {
		open, err := u.ControlForTest().Open(t.Context(), 10)
		return err == nil && len(open) == 1 && open[0].Status == rollout.Paused && open[0].Reason == rollout.TooManyFailures
	}, "the rollout goes on")
}

func TestAVirtualFleetInstallsByDDIBesideMQTT(t *testing.T) {
	u, tokens := startUpdating(t, "app", 200_000, "sim-0001", "sim-0002", "sim-0003")
	u.simulate(tokens, 0, 2)
	u.begin()
	for _, id := range u.ids {
		u.waits(func() bool { d := u.row(id); return d.State == rollout.Rebooting && d.Soaking }, id+" does not say that it runs the version")
	}
	for i, want := range []string{"2.0.0", "2.0.0", ""} { // where it came by tells by which door
		var twin struct {
			Reported struct {
				State struct{ DDI struct{ FW string } }
			}
		}
		call(t, u.Server, http.MethodGet, "/api/v1/devices/"+u.ids[i]+"/twin", nil, &twin)
		if got := twin.Reported.State.DDI.FW; got != want {
			t.Errorf("%s has told %q by DDI, want %q", u.ids[i], got, want)
		}
	}
}

func TestARolloutToAVirtualFleetThatFailsByDDIStopsItself(t *testing.T) {
	u, tokens := startUpdating(t, "app", 20_000, "sim-0001", "sim-0002", "sim-0003", "sim-0004", "sim-0005")
	u.simulate(tokens, 1, len(u.ids))
	u.begin(func(p *rollout.Plan) { p.Deadlines.Installing = time.Second })
	u.waits(func() bool {
		open, err := u.ControlForTest().Open(t.Context(), 10)
		return err == nil && len(open) == 1 && open[0].Status == rollout.Paused && open[0].Reason == rollout.TooManyFailures
	}, "the rollout goes on")
}

func TestAVirtualFleetFailsByDDIInEachWay(t *testing.T) {
	t.Parallel()
	u, tokens := startUpdating(t, "app", 20_000, "sim-0001", "sim-0002", "sim-0003", "sim-0004", "sim-0005", "sim-0006", "sim-0007", "sim-0008", "sim-0009")
	u.simulate(tokens, 1, len(u.ids))
	u.begin(func(p *rollout.Plan) {
		p.Phases[0].Failure, p.Attempts, p.Deadlines.Installing = rollout.Threshold{}, 1, 5*time.Second
	})
	ways := map[rollout.State]int{}
	u.waits(func() bool {
		clear(ways)
		for _, id := range u.ids {
			ways[u.row(id).State]++
		}
		return ways[rollout.Failed]+ways[rollout.RolledBack]+ways[rollout.TimedOut] == len(u.ids)
	}, "some do not fail")
	if ways[rollout.Failed] == 0 || ways[rollout.RolledBack] == 0 || ways[rollout.TimedOut] == 0 {
		t.Errorf("they failed as %v", ways)
	}
}

// waits waits until something is so.
func (u *updating) waits(so func() bool, otherwise string) {
	u.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(soon); !so(); {
		select {
		case <-tick.C:
		case <-end:
			u.t.Fatal(otherwise)
		}
	}
}
