package control_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"muster"
	"muster/devices"
	"muster/firmware"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/store/control"
)

// shelf has one release of every id, which may be withdrawn.
type shelf struct{ withdrawn *bool }

func (s shelf) Release(_ context.Context, id string) (desk.Release, error) {
	return desk.Release{ID: id, Withdrawn: *s.withdrawn, Manifest: &firmware.Manifest{Product: "pump", Version: "2.0.0"}}, nil
}

// counter is a desk with a director whose clock the test moves.
type counter struct {
	*desk.Desk
	t        *testing.T
	handles  control.Handles
	store    *control.Control
	director *director.Director
	at       time.Time

	withdrawn bool // the release
}

func openCounter(t *testing.T, e engine, concurrent int) *counter {
	t.Helper()
	h := e.open(t)
	store, err := control.Open(t.Context(), h, e.dialect)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	x := &counter{t: t, handles: h, store: store, at: time.Unix(1_800_000_000, 0)}
	now := func() time.Time { return x.at }
	x.director = director.New(store, there{now}, now, director.Options{Owner: "n"})
	x.Desk = desk.New(store, x.director, shelf{&x.withdrawn}, nil, unheard{}, nil, func(muster.DeviceID, string) time.Time { return x.at })
	r, devices := rolloutOf("r", 10, concurrent)
	r.Release, r.Product, r.Plan.Phases = "rel", "pump", r.Plan.Phases[1:]
	r.Plan.Windows, r.Plan.Zone = []rollout.Window{{From: 60, To: 60}}, "Europe/Berlin"
	r.Plan.Phases[0].Failure = rollout.Threshold{}
	r.Upto, r.Counts = []uint64{0}, make([]rollout.Counts, 1)
	r.Counts[0].By[rollout.Queued] = len(devices)
	for i := range devices {
		devices[i].Phase = 0
	}
	if err := store.InsertRollout(t.Context(), r, devices); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	x.tick()
	return x
}

func (x *counter) tick() {
	x.t.Helper()
	if err := x.director.Tick(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
}

// is fails the test unless the offer of a device has a state, or is to be stopped; an empty
// state means that there is none.
func (x *counter) is(device muster.DeviceID, state string, stop bool) desk.Offer {
	x.t.Helper()
	o, err := x.Offer(x.t.Context(), device)
	switch {
	case state == "" && muster.KindOf(err) != muster.NotFound:
		x.t.Fatalf("%s has %v, %v; nothing is to be offered", device, o, err)
	case state != "" && (err != nil || o.State.String() != state || o.Stop != stop):
		x.t.Fatalf("%s has %s, stop %v, %v; not %s, stop %v", device, o.State, o.Stop, err, state, stop)
	}
	return o
}

func (x *counter) says(device muster.DeviceID, f rollout.Fact) {
	x.t.Helper()
	if err := x.Report(x.t.Context(), director.Report{Device: device, Fact: f}); err != nil {
		x.t.Fatal(err)
	}
}

// pause is an operator's.
func (x *counter) pause() {
	x.t.Helper()
	err := x.store.Decide(x.t.Context(), "r", director.Fence{}, muster.MicrosOf(x.at), director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		r.Status = rollout.Paused
		return nil, nil
	})
	if err != nil {
		x.t.Fatal(err)
	}
	x.tick()
}

func TestADeviceIsToldWhatItIsToDoNow(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		const dev = "dev-000003"
		x := openCounter(t, e, 10)
		x.is("stranger", "", false)
		o := x.is(dev, "offered", false)
		if o.Release.ID != "rel" || o.Action == 0 || o.Attempt != 1 || o.Release.Manifest.Version != "2.0.0" || !o.Hours.Bound || !o.Hours.Open || o.Shut || o.Parked {
			t.Errorf("the offer is %+v", o)
		}
		x.says(dev, rollout.Fact{Event: rollout.SaysDownloading, Action: o.Action, Progress: 40})
		x.is(dev, "downloading", false)

		x.pause()
		if o = x.is(dev, "queued", true); o.Action == 0 {
			t.Error("what is to be stopped has no action")
		}
		for name, action := range map[string]int32{"none": 0, "a later one": o.Action + 1} {
			if err := x.Stopped(t.Context(), dev, action); muster.KindOf(err) != muster.NotFound {
				t.Errorf("the end of %s: %v", name, err)
			}
		}
		if err := x.Stopped(t.Context(), dev, o.Action); err != nil {
			t.Fatal(err)
		}
		x.is(dev, "", false)
		err := x.Report(t.Context(), director.Report{Device: dev, Fact: rollout.Fact{Event: rollout.SaysDownloaded, Action: o.Action}})
		if k := muster.KindOf(err); k != muster.NotFound {
			t.Errorf("a report of what was stopped: %v", err)
		}
	})
}

func TestWhoSaidThatItFailedIsNotToldToStop(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		const dev = "dev-000004"
		x := openCounter(t, e, 10)
		o := x.is(dev, "offered", false)
		x.says(dev, rollout.Fact{Event: rollout.SaysFailed, Action: o.Action, Detail: "no space"})
		x.is(dev, "", false) // queued for its next attempt
		x.at = x.at.Add(time.Minute)
		x.tick()
		if again := x.is(dev, "offered", false); again.Action <= o.Action {
			t.Errorf("action %d comes after %d", again.Action, o.Action)
		}
		list, err := x.store.FailuresSince(t.Context(), muster.MicrosOf(x.at.Add(-time.Hour)), 10)
		if err != nil || len(list) != 1 || list[0].Device != dev || list[0].Rollout != "r" {
			t.Errorf("failures are %v, %v", list, err)
		}
		if list, err = x.store.FailuresSince(t.Context(), muster.MicrosOf(x.at), 10); err != nil || len(list) != 0 {
			t.Errorf("failures from now on are %v, %v", list, err)
		}
	})
}

func TestWhatADeviceDoesLateIsNoFurtherFailure(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		const dev = "dev-000004"
		x := openCounter(t, e, 10)
		o := x.is(dev, "offered", false)
		x.says(dev, rollout.Fact{Event: rollout.SaysRebooting, Action: o.Action})
		for _, seen := range []rollout.Event{rollout.SeesOther, rollout.SeesTarget} {
			if errs := x.director.Reports(t.Context(), []director.Report{{Device: dev, Fact: rollout.Fact{Event: seen, Action: o.Action}}}); errs[0] != nil {
				t.Fatal(errs[0])
			}
		}
		d, _, err := x.store.Standing(t.Context(), &rollout.Rollout{ID: "r", Product: "pump"}, dev)
		if err != nil || d.State != rollout.RolledBack || d.Late != rollout.LateInstalled {
			t.Fatalf("it is %s, late %q; %v", d.State, d.Late, err)
		}
		list, err := x.store.FailuresSince(t.Context(), muster.MicrosOf(x.at.Add(-time.Hour)), 10)
		if err != nil || len(list) != 1 {
			t.Errorf("failures are %v, %v, want one", list, err)
		}
	})
}

func TestADeletedDeviceKnowsOfTheEndOfAllThatItWasOffered(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		const dev = "dev-000005"
		x := openCounter(t, e, 10)
		again := func() {
			t.Helper()
			if err := x.store.InsertDevices(t.Context(), []devices.Device{{ID: dev}}, nil); err != nil {
				t.Fatal(err)
			}
		}
		again()
		o := x.is(dev, "offered", false)
		deleted := func(want int, has bool) {
			t.Helper()
			list, err := x.store.DeletedInFlight(t.Context(), "r")
			if err != nil || len(list) != want || slices.Contains(list, dev) != has {
				t.Fatalf("in flight, and deleted, are %v, %v", list, err)
			}
		}
		deleted(9, false) // the others never were
		if err := x.store.DeleteDevices(t.Context(), []muster.DeviceID{dev}); err != nil {
			t.Fatal(err)
		}
		deleted(10, true)
		if err := x.director.Leave(t.Context(), []muster.DeviceID{dev}); err != nil {
			t.Fatal(err)
		}
		again()
		x.is(dev, "", false)
		if a, err := x.store.LastAction(t.Context(), dev); err != nil || a.Closed != o.Action || a.Device.Reason != rollout.Deleted {
			t.Errorf("its last action is %+v, %v", a, err)
		}
		deleted(9, false)
	})
}

// away is a fleet of a process that knows none of the devices.
type away struct{ there }

func (away) Facts(*rollout.Rollout, muster.DeviceID) rollout.Facts {
	return rollout.Facts{Gone: true, Hardware: true, Source: true, Signed: true}
}

func TestADeviceThatAnotherProcessMadeIsNotSkippedAsDeleted(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		const made = "dev-000002"
		x := openCounter(t, e, 10)
		if err := x.store.InsertDevices(t.Context(), []devices.Device{{ID: made}}, nil); err != nil {
			t.Fatal(err)
		}
		r, list := rolloutOf("later", 10, 10)
		for i := range list {
			list[i].ID = "new-" + list[i].ID
		}
		list[3].ID = made
		r.Phase = 1 // the last: all are looked at
		if err := x.store.InsertRollout(t.Context(), r, list); err != nil {
			t.Fatal(err)
		}
		now := func() time.Time { return x.at.Add(time.Hour) } // the other's lease is over
		if err := director.New(x.store, away{there{now}}, now, director.Options{Owner: "other"}).Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		for want, q := range map[int]operator.DeviceQuery{
			1: {Rollout: "later", Phase: -1, Device: made, State: "queued", Limit: 99},
			9: {Rollout: "later", Phase: -1, State: "skipped", Reason: rollout.Deleted, Limit: 99},
		} {
			got, err := x.store.RolloutMembers(t.Context(), q)
			if err != nil || len(got) != want {
				t.Errorf("%+v: %d devices, want %d, %v", q, len(got), want, err)
			}
		}
	})
}

// unheard keeps no versions.
type unheard struct{}

func (unheard) Say(_ context.Context, list []desk.Runs) []error { return make([]error, len(list)) }

func TestAnOfferOfAReleaseThatWasWithdrawnIsToBeLeftUnlessTheDeviceInstalls(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 2)
		var offered []muster.DeviceID
		for i := range 10 {
			id := muster.DeviceID(fmt.Sprintf("dev-%06d", i))
			if o, err := x.Offer(t.Context(), id); err == nil && o.State == rollout.Offered {
				offered = append(offered, id)
			}
		}
		if len(offered) != 2 {
			t.Fatalf("%v have an offer", offered)
		}
		a, b := offered[0], offered[1]
		x.says(b, rollout.Fact{Event: rollout.SaysInstalling})
		x.withdrawn = true
		o := x.is(a, "offered", true)
		x.is(b, "installing", false)
		if err := x.Stopped(t.Context(), a, o.Action); err != nil {
			t.Fatal(err)
		}
		x.is(a, "", false)
	})
}

func TestAVersionOfAnotherProductOrOfBeforeTheOfferSaysNothingOfTheRelease(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := openCounter(t, e, 10)
		id := muster.DeviceID("dev-000003")
		x.says(id, rollout.Fact{Event: rollout.SaysRebooting})
		o := x.is(id, "rebooting", false)
		if o.Offered != muster.MicrosOf(x.at) {
			t.Errorf("it was offered at %d, want %d", o.Offered, muster.MicrosOf(x.at))
		}
		for name, r := range map[string]desk.Runs{ // the fleet knows 1.9.0 of it
			"another product":  {Device: id, Version: "0.9.0", Product: "bootloader"},
			"before the offer": {Device: id, Version: "1.9.0", Product: "pump", At: o.Offered - 1},
		} {
			if err := x.Runs(t.Context(), r); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			x.is(id, "rebooting", false)
		}
		if err := x.Runs(t.Context(), desk.Runs{Device: id, Version: "1.9.0", Product: "pump", At: o.Offered}); err != nil {
			t.Fatal(err)
		}
		x.is(id, "", false)
	})
}

// TestWhatIsInFlightIsTheNewestThoughANewerRolloutIsThroughWithTheDevice: an older rollout goes on behind it.
func TestWhatIsInFlightIsTheNewestThoughANewerRolloutIsThroughWithTheDevice(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		const dev = "dev-000003"
		x := openCounter(t, e, 10)
		old := x.is(dev, "offered", false)
		x.pause()
		newer, devices := rolloutOf("newer", 10, 10)
		newer.Release, newer.Product, newer.Plan.Phases, newer.Plan.Soak = "boot", "loader", newer.Plan.Phases[1:], 0
		newer.Upto, newer.Counts = []uint64{0}, make([]rollout.Counts, 1)
		newer.Counts[0].By[rollout.Queued] = len(devices)
		for i := range devices {
			devices[i].Phase = 0
		}
		if err := x.store.InsertRollout(t.Context(), newer, devices); err != nil {
			t.Fatal(err)
		}
		x.tick()
		o := x.is(dev, "offered", false)
		if o.Rollout != "newer" || o.Action <= old.Action {
			t.Fatalf("it is offered %+v", o)
		}
		x.says(dev, rollout.Fact{Event: rollout.SeesTarget, Action: o.Action})
		x.at = x.at.Add(time.Minute)
		x.tick()
		x.is(dev, "", false)
		err := x.store.Decide(t.Context(), "r", director.Fence{}, muster.MicrosOf(x.at), director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
			r.Status = rollout.Running
			return nil, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		x.tick()
		if again := x.is(dev, "offered", false); again.Rollout != "r" || again.Action >= o.Action {
			t.Errorf("it is offered %+v, which is not what is in flight", again)
		}
		actions, err := x.store.Actions(t.Context(), []muster.DeviceID{dev, "stranger"})
		if err != nil || len(actions) != 1 || len(actions[dev]) != 2 || actions[dev][0].Rollout != "r" || actions[dev][1].State != rollout.Confirmed || actions[dev][1].Product != "loader" {
			t.Errorf("its actions are %+v, %v", actions, err)
		}
	})
}
