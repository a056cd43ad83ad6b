package control_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/store/control"
	"muster/store/sqlite"
)

// there is a fleet in which every device is there.
type there struct{ at func() time.Time }

func (f there) Facts(*rollout.Rollout, muster.DeviceID) rollout.Facts {
	return rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: true, Local: f.at()}
}

func (there) Is(_ *rollout.Rollout, version string) bool { return version == "2.0.0" }

func (there) Version(*rollout.Rollout, muster.DeviceID) string { return "1.9.0" }

func (there) Knows(string) bool { return true }

func (there) Life(muster.DeviceID) rollout.Life { return rollout.Life{There: true} }

// rolloutOf returns a rollout of n devices, with its devices.
func rolloutOf(id string, n, concurrent int) (*rollout.Rollout, []rollout.Device) {
	r := &rollout.Rollout{ID: id, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1}
	r.Plan.Concurrent, r.Plan.Soak, r.Plan.RetryAfter = concurrent, time.Second, time.Second
	r.Plan.Phases = []rollout.Phase{
		{Name: "canary", Count: n / 10, Success: 50, Failure: rollout.Threshold{Percent: 30, MinSample: 10}, Gate: rollout.Auto},
		{Name: "all", Percent: 100, Success: 50, Failure: rollout.Threshold{Percent: 30, MinSample: 10}, Gate: rollout.Auto},
	}
	devices := make([]rollout.Device, n)
	members := make([]rollout.Member, n)
	for i := range devices {
		devices[i] = rollout.Device{Rollout: id, ID: muster.DeviceID(fmt.Sprintf("dev-%06d", i))}
		devices[i].Rank = rollout.Rank(r.Seed, devices[i].ID)
		members[i].Rank = devices[i].Rank
	}
	slices.SortFunc(members, func(a, b rollout.Member) int { return cmp.Compare(a.Rank, b.Rank) })
	r.Upto, r.Counts = r.Plan.Cuts(members, r.Membership), make([]rollout.Counts, len(r.Plan.Phases))
	for i := range devices {
		devices[i].Phase = r.Plan.Place(rollout.Member{Rank: devices[i].Rank}, r.Upto)
		r.Counts[devices[i].Phase].By[rollout.Queued]++
	}
	return r, devices
}

func TestARolloutIsReadAsItWasKept(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store, err := control.Open(t.Context(), e.open(t), e.dialect)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = store.Close() }()
		r, devices := rolloutOf("it's one", 20, 3)
		if err := store.InsertRollout(t.Context(), r, devices); err != nil {
			t.Fatal(err)
		}
		again, _ := rolloutOf("it's one", 1, 3)
		if err := store.InsertRollout(t.Context(), again, nil); muster.KindOf(err) != muster.Conflict || err == nil {
			t.Errorf("an id is given twice: %v", err)
		}
		err = store.Decide(t.Context(), r.ID, director.Fence{Owner: "nobody", Epoch: 9}, 1, director.Select{}, nil)
		if muster.KindOf(err) != muster.Stale {
			t.Errorf("a fence that is not the lease: %v", err)
		}
		if err := store.Decide(t.Context(), "none", director.Fence{}, 1, director.Select{}, nil); muster.KindOf(err) != muster.NotFound {
			t.Errorf("a rollout that is not there: %v", err)
		}
		ids := []muster.DeviceID{devices[3].ID, devices[4].ID, "nobody"}
		change := func(r *rollout.Rollout, list []*rollout.Device) (out []rollout.Change, _ error) {
			for _, d := range list {
				c, err := rollout.Step(r, d, rollout.Fact{Event: rollout.Offer}, 1_800_000_000_000_000)
				if err != nil {
					return nil, err
				}
				out = append(out, c)
			}
			return out, nil
		}
		if err := store.Decide(t.Context(), r.ID, director.Fence{}, 1, director.Select{IDs: ids}, change); err != nil {
			t.Fatal(err)
		}
		where, err := store.InFlight(t.Context(), ids)
		if err != nil || len(where) != 2 || where[devices[3].ID] != r.ID {
			t.Errorf("in flight are %v, %v", where, err)
		}
		var got []rollout.Device
		err = store.Decide(t.Context(), r.ID, director.Fence{}, 1, director.Select{IDs: ids}, func(_ *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
			for _, d := range list {
				got = append(got, *d)
			}
			return nil, muster.Errorf(muster.Conflict, "and nothing is kept")
		})
		if muster.KindOf(err) != muster.Conflict || len(got) != 2 || got[0].State != rollout.Offered || got[0].Rank != rollout.Rank("s", got[0].ID) || got[0].Attempt != 1 || got[0].Deadline == 0 {
			t.Errorf("%+v, %v", got, err)
		}
		open, err := store.Open(context.Background(), 10)
		if err != nil || len(open) != 1 || open[0].Number != r.Number || open[0].InFlight() != 2 || len(open[0].Plan.Phases) != 2 {
			t.Errorf("%+v, %v", open, err)
		}
	})
}

// BenchmarkRollout offers to 20,000 devices and hears of them, in batches of 500: that the download began, and the
// version that they run then, which is looked for among the actions of each.
func BenchmarkRollout(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		h, err := sqlite.OpenControl(b.Context(), b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		e, err := control.Open(b.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
		if err != nil {
			b.Fatal(err)
		}
		const n = 20_000
		at := time.Unix(1_800_000_000, 0)
		now := func() time.Time { return at }
		r, devices := rolloutOf("r", n, n)
		r.Plan.Phases = r.Plan.Phases[1:]
		r.Upto, r.Counts = make([]uint64, 1), make([]rollout.Counts, 1)
		r.Counts[0].By[rollout.Queued] = n
		for i := range devices {
			devices[i].Phase = 0
		}
		b.StartTimer()
		began := time.Now()
		if err := e.InsertRollout(b.Context(), r, devices); err != nil {
			b.Fatal(err)
		}
		made := time.Since(began)
		d := director.New(e, there{now}, now, director.Options{Owner: "n"})
		began = time.Now()
		if err := d.Tick(b.Context()); err != nil {
			b.Fatal(err)
		}
		offered := time.Since(began)
		began = time.Now()
		reportAll(b, d, devices, director.Report{Fact: rollout.Fact{Event: rollout.SaysDownloading, Seq: 1}})
		heard := time.Since(began)
		began = time.Now()
		reportAll(b, d, devices, director.Report{Version: "2.0.0"})
		b.ReportMetric(n/made.Seconds(), "made/s")
		b.ReportMetric(n/offered.Seconds(), "offers/s")
		b.ReportMetric(n/heard.Seconds(), "reports/s")
		b.ReportMetric(n/time.Since(began).Seconds(), "versions/s")
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// reportAll has each of the devices report p.
func reportAll(b *testing.B, d *director.Director, devices []rollout.Device, p director.Report) {
	b.Helper()
	for part := range slices.Chunk(devices, 500) {
		list := make([]director.Report, len(part))
		for i := range part {
			list[i] = p
			list[i].Device = part[i].ID
		}
		for _, err := range d.Reports(b.Context(), list) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
