package control_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// picky is a fleet in which only those of there can be reached.
type picky struct {
	there
	reachable map[muster.DeviceID]bool
}

func (f picky) Facts(r *rollout.Rollout, id muster.DeviceID) rollout.Facts {
	facts := f.there.Facts(r, id)
	facts.Reachable = f.reachable[id]
	return facts
}

func (x *counter) offered(id string) (n int) {
	x.t.Helper()
	list, err := x.store.Open(x.t.Context(), 10)
	if err != nil {
		x.t.Fatal(err)
	}
	for i := range list {
		if list[i].ID == id {
			n = list[i].InFlight()
		}
	}
	return n
}

// add keeps a rollout of the devices that openCounter has, under another id.
func (x *counter) add(id, product string, security int64) {
	x.t.Helper()
	r, devices := rolloutOf(id, 10, 10)
	r.Product, r.Security, r.Plan.Phases = product, security, r.Plan.Phases[1:]
	r.Plan.Phases[0].Failure = rollout.Threshold{}
	r.Upto, r.Counts = []uint64{0}, make([]rollout.Counts, 1)
	r.Counts[0].By[rollout.Queued] = len(devices)
	for i := range devices {
		devices[i].Phase = 0
	}
	if err := x.store.InsertRollout(x.t.Context(), r, devices); err != nil {
		x.t.Fatal(err)
	}
}

func TestADeviceIsInFlightOnceAtMost(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 10)
		x.add("second", "pump", 0)
		x.tick()
		if a, b := x.offered("r"), x.offered("second"); a != 10 || b != 0 {
			t.Fatalf("%d and %d are in flight", a, b)
		}
		for i := range 10 {
			dev := muster.DeviceID(fmt.Sprintf("dev-%06d", i))
			o := x.is(dev, "offered", false)
			x.says(dev, rollout.Fact{Event: rollout.SaysDenied, Action: o.Action})
		}
		if err := x.store.WakeRollout(t.Context(), "second", muster.MicrosOf(x.at)); err != nil {
			t.Fatal(err)
		}
		x.tick()
		if n := x.offered("second"); n != 10 {
			t.Errorf("%d are in flight when they are free", n)
		}
	})
}

func TestASecurityVersionNeverGoesBack(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 10)
		x.pause() // what is offered is taken back
		x.add("new", "pump", 7)
		x.tick()
		confirm := func(dev muster.DeviceID) {
			t.Helper()
			if err := x.Report(t.Context(), director.Report{Device: dev, Version: "1.9.0"}); muster.KindOf(err) != muster.Conflict {
				t.Fatalf("the old version before it installs: %v", err)
			}
			if errs := x.director.Reports(t.Context(), []director.Report{director.SeenReport(dev)}); muster.KindOf(errs[0]) != muster.Conflict {
				t.Fatalf("the old version, seen before it installs: %v", errs)
			}
			x.says(dev, rollout.Fact{Event: rollout.SaysInstalling})
			if err := x.Report(t.Context(), director.Report{Device: dev, Version: "2.0.0"}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 10 {
			confirm(muster.DeviceID(fmt.Sprintf("dev-%06d", i)))
		}
		x.at = x.at.Add(time.Minute)
		x.tick()
		x.add("old", "pump", 6)
		x.add("same", "pump", 7)
		x.add("other", "boot", 1)
		x.tick()
		want := map[string]int{"old": 0, "same": 10, "other": 0} // other waits for same
		for id, n := range want {
			if got := x.offered(id); got != n {
				t.Errorf("%s: %d in flight, want %d", id, got, n)
			}
		}
		if _, err := x.store.RecountRollout(t.Context(), "old"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWhoComesIsWokenWhereHeWaits(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 10)
		x.pause()
		x.add("second", "pump", 0)
		reachable := map[muster.DeviceID]bool{}
		now := func() time.Time { return x.at }
		x.director = director.New(x.store, picky{there{now}, reachable}, now, director.Options{Owner: "n"})
		x.tick()
		if n := x.offered("second"); n != 0 {
			t.Fatalf("%d in flight, and nobody is there", n)
		}
		reachable["dev-000002"] = true
		x.tick()
		if n := x.offered("second"); n != 0 {
			t.Fatal("who sleeps is looked at in every round")
		}
		n, err := x.store.WakeDevices(t.Context(), []muster.DeviceID{"dev-000002", "dev-000003", "stranger"}, muster.MicrosOf(x.at))
		if err != nil || n != 2 {
			t.Fatalf("%d wait, %v", n, err)
		}
		x.tick()
		if n := x.offered("second"); n != 1 {
			t.Errorf("%d in flight, one is there", n)
		}
	})
}

func TestJoinersComeOnceAndAreCounted(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 12)
		joiners := func() (out []rollout.Device) {
			for i := 8; i < 15; i++ {
				id := muster.DeviceID(fmt.Sprintf("dev-%06d", i))
				out = append(out, rollout.Device{Rollout: "r", ID: id, Rank: rollout.Rank("s", id)})
			}
			return out
		}
		for _, want := range []int{5, 0} {
			n, err := x.store.JoinRollout(t.Context(), "r", joiners())
			if err != nil || n != want {
				t.Fatalf("%d joined, %v; want %d", n, err, want)
			}
		}
		tx, err := x.handles.Write.BeginTx(t.Context(), nil) // somebody else writes: what is right is read only
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), `UPDATE rollout SET version = version WHERE id = 'r'`); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if wrong, err := x.store.RecountRollout(ctx, "r"); err != nil || wrong {
			t.Errorf("the counts are wrong: %v, %v", wrong, err)
		}
		cancel()
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		all, err := x.store.RolloutDevices(t.Context(), "r")
		if err != nil || len(all) != 15 {
			t.Errorf("%d devices, %v", len(all), err)
		}
		x.tick()
		if n := x.offered("r"); n != 12 {
			t.Errorf("%d in flight of 15, 12 are allowed", n)
		}
		if _, err := x.handles.Write.ExecContext(t.Context(), `UPDATE rollout SET counts = '[{"by":[0,0,0,0,0,0,0,0,0,0,0,0]}]'`); err != nil {
			t.Fatal(err)
		}
		if wrong, err := x.store.RecountRollout(t.Context(), "r"); err != nil || !wrong {
			t.Errorf("wrong counts are right: %v, %v", wrong, err)
		}
		if n := x.offered("r"); n != 12 {
			t.Errorf("after counting anew %d are in flight", n)
		}
	})
}

func TestThoseWhoJoinFillTheCanariesAndNoMore(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 12)
		r, _ := rolloutOf("late", 0, 12)
		r.Membership, r.Plan.Phases[0].Count = rollout.Dynamic, 4
		r.Upto, r.Counts = r.Plan.Cuts(nil, r.Membership), make([]rollout.Counts, 2)
		if err := x.store.InsertRollout(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
		x.tick()
		for _, first := range []int{100, 103} { // three, then nine
			var joiners []rollout.Device
			for i := first; i < 100+(first-100)*4+3; i++ {
				id := muster.DeviceID(fmt.Sprintf("dev-%06d", i))
				d := rollout.Device{Rollout: "late", ID: id, Rank: rollout.Rank("s", id)}
				d.Phase = r.Plan.Place(rollout.Member{Rank: d.Rank}, r.Upto)
				joiners = append(joiners, d)
			}
			if n, err := x.store.JoinRollout(t.Context(), "late", joiners); err != nil || n != len(joiners) {
				t.Fatalf("%d joined, %v; want %d", n, err, len(joiners))
			}
		}
		got, err := x.store.Rollout(t.Context(), "late")
		if err != nil || got.Phase != 0 || got.Counts[0].Total() != 4 || got.Counts[1].Total() != 11 {
			t.Errorf("in phase %d, of 4 canaries and 11 others there are %d and %d, %v", got.Phase, got.Counts[0].Total(), got.Counts[1].Total(), err)
		}
	})
}

// replan gives the rollout another plan, as an operator does.
func (x *counter) replan(concurrent int, windows ...rollout.Window) {
	x.t.Helper()
	err := x.store.RescheduleRollout(x.t.Context(), "r", muster.MicrosOf(x.at), func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		r.Plan.Concurrent, r.Plan.Windows = concurrent, windows
		return nil, nil
	})
	if err != nil {
		x.t.Fatal(err)
	}
}

// counted fails the test unless so many slots are taken, so many devices parked, and the rows say so too.
func (x *counter) counted(slots, parked int) {
	x.t.Helper()
	r, err := x.store.Rollout(x.t.Context(), "r")
	if err != nil {
		x.t.Fatal(err)
	}
	if r.InFlight() != slots || r.Counts[0].Parked != parked {
		x.t.Fatalf("%d slots are taken and %d are parked, want %d and %d", r.InFlight(), r.Counts[0].Parked, slots, parked)
	}
	if wrong, err := x.store.RecountRollout(x.t.Context(), "r"); wrong || err != nil {
		x.t.Fatalf("the counts are wrong: %t, %v", wrong, err)
	}
}

// TestWhoIsParkedTakesNoSlotAndGoesOnInTheOrderOfRanks has two devices with the image wait for their window.
func TestWhoIsParkedTakesNoSlotAndGoesOnInTheOrderOfRanks(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 2)
		reachable := map[muster.DeviceID]bool{}
		now := func() time.Time { return x.at }
		var two []muster.DeviceID
		for i := range 10 {
			dev := muster.DeviceID(fmt.Sprintf("dev-%06d", i))
			if o, err := x.Offer(t.Context(), dev); err == nil {
				two = append(two, dev)
				x.says(dev, rollout.Fact{Event: rollout.SaysDownloaded, Action: o.Action})
			}
		}
		if len(two) != 2 {
			t.Fatalf("%v have the image", two)
		}
		if rollout.Rank("s", two[0]) > rollout.Rank("s", two[1]) {
			two[0], two[1] = two[1], two[0]
		}
		in := func(d time.Duration) rollout.Clock {
			at := x.at.Add(d)
			return rollout.Clock(at.Hour()*60 + at.Minute())
		}
		later := rollout.Window{From: in(2 * time.Hour), To: in(4 * time.Hour)}
		x.replan(2, later)
		x.tick()
		x.counted(0, 2)
		if o := x.is(two[0], "downloaded", false); !o.Parked || o.Shut || o.Hours.Open || !o.Hours.Opens.After(x.at) {
			t.Errorf("it is to do %+v", o)
		}
		x.add("second", "pump", 0) // which has to wait for them
		x.director = director.New(x.store, picky{there{now}, reachable}, now, director.Options{Owner: "n"})
		x.at = x.at.Add(2 * time.Hour)
		x.tick() // it is open, and nobody is there
		x.counted(0, 2)
		reachable[two[0]], reachable[two[1]] = true, true
		x.tick()
		x.counted(0, 2)
		if n, err := x.store.WakeDevices(t.Context(), append(two, "stranger"), muster.MicrosOf(x.at)); n != 4 || err != nil {
			t.Fatalf("%d wait, in two rollouts, %v", n, err)
		}
		x.replan(1, later)
		x.tick()
		x.counted(1, 1)
		if first, second := x.is(two[0], "downloaded", false), x.is(two[1], "downloaded", false); first.Parked || !second.Parked || !second.Hours.Open {
			t.Errorf("there is one slot, and they have %+v and %+v", first, second)
		}
		reachable[two[1]] = false
		x.says(two[0], rollout.Fact{Event: rollout.SaysDenied})
		x.tick()
		x.counted(0, 1)
		reachable[two[1]] = true
		if err := x.store.WakeRollout(t.Context(), "r", muster.MicrosOf(x.at)); err != nil {
			t.Fatal(err)
		}
		x.tick()
		x.counted(1, 0)
		x.replan(1, rollout.Window{From: in(6 * time.Hour), To: in(7 * time.Hour)}) // which does not wait for its deadline
		x.tick()
		x.counted(0, 1)
		x.replan(1)
		x.tick()
		x.counted(1, 0)
		if o := x.is(two[1], "downloaded", false); o.Attempt != 1 || o.Parked || o.Hours.Bound {
			t.Errorf("after all windows it is %+v", o)
		}
	})
}
