package director_test

import (
	"context"
	"testing"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// still is a fleet of which all devices are alike.
type still struct {
	at        time.Time
	alive     bool
	heard     muster.Micros
	until     muster.Micros
	reachable bool
}

func (f *still) Facts(*rollout.Rollout, muster.DeviceID) rollout.Facts {
	return rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: f.reachable, Local: f.at.UTC()}
}
func (*still) Is(*rollout.Rollout, string) bool                 { return false }
func (*still) Version(*rollout.Rollout, muster.DeviceID) string { return "" }
func (*still) Knows(string) bool                                { return true }
func (f *still) Life(muster.DeviceID) rollout.Life {
	return rollout.Life{There: f.alive, Heard: f.heard, Until: f.until}
}

// failedOnce is a rollout to one device, which has failed once and is to try again.
func failedOnce(t *testing.T, f *still) (m *memory, d *director.Director, dev *rollout.Device) {
	t.Helper()
	m = newMemory()
	plan := rollout.DefaultPlan()
	plan.Phases = []rollout.Phase{{Percent: 100, Success: 90}}
	m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, []muster.DeviceID{"pump"})
	d = director.New(m, f, func() time.Time { return f.at }, director.Options{Owner: "one"})
	tick(t, d)
	dev = m.rollouts["r"].devices["pump"]
	errs := d.Reports(t.Context(), []director.Report{{Device: "pump", Fact: rollout.Fact{Event: rollout.SaysFailed, Action: dev.Action}}})
	if errs[0] != nil || dev.State != rollout.Queued || dev.Failures != 1 {
		t.Fatalf("%v, %+v", errs, dev)
	}
	return m, d, dev
}

func tick(t *testing.T, d *director.Director) {
	t.Helper()
	if err := d.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWhoIsToTryAgainIsNotSilentWhileTheRolloutHasItWait(t *testing.T) {
	monday := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	set := func(m *memory, change func(r *rollout.Rollout)) {
		if err := m.Decide(context.Background(), "r", director.Fence{}, 0, director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
			change(r)
			return nil, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		held func(r *rollout.Rollout)
		free func(r *rollout.Rollout)
	}{
		"it is paused": {
			func(r *rollout.Rollout) { r.Status = rollout.Paused },
			func(r *rollout.Rollout) { r.Status = rollout.Running },
		},
		"its window is on Sunday": {
			func(r *rollout.Rollout) {
				r.Plan.Windows = []rollout.Window{{Days: []time.Weekday{time.Sunday}, From: 0, To: 300}}
			},
			func(*rollout.Rollout) {},
		},
		"all slots are taken": {
			func(r *rollout.Rollout) { r.Plan.Concurrent = 0 },
			func(r *rollout.Rollout) { r.Plan.Concurrent = 1 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &still{at: monday, alive: true, reachable: true}
			m, d, dev := failedOnce(t, f)
			set(m, c.held)
			for range 6 * 24 { // to Sunday 12:00, past the window
				f.at = f.at.Add(time.Hour)
				if dev.State == rollout.Queued && f.at.Weekday() != time.Sunday {
					tick(t, d)
				}
			}
			if dev.State != rollout.Queued {
				t.Fatalf("the device is %s: %s", dev.State, dev.Reason)
			}
			set(m, c.free)
			f.at = time.Date(2026, 11, 29, 1, 0, 0, 0, time.UTC)
			tick(t, d)
			if dev.State != rollout.Offered || dev.Attempt != 2 {
				t.Errorf("it is not offered the release again: %+v", dev)
			}
		})
	}
}

func TestWhoDoesNotComeBackToTryAgainHasTimedOut(t *testing.T) {
	f := &still{at: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), alive: true, reachable: true}
	_, d, dev := failedOnce(t, f)
	f.alive, f.reachable = false, false
	for range 26 {
		f.at = f.at.Add(time.Hour)
		tick(t, d)
	}
	if dev.State != rollout.TimedOut || dev.Reason != rollout.Silent {
		t.Errorf("it is %s: %s", dev.State, dev.Reason)
	}
}

func TestAnOfferThatIsNotTakenUpIsTakenBackWhenItsWindowCloses(t *testing.T) {
	f := &still{at: time.Date(2026, 11, 23, 21, 50, 0, 0, time.UTC), alive: true, reachable: true}
	m := newMemory()
	plan := rollout.DefaultPlan()
	plan.Phases = []rollout.Phase{{Percent: 100, Success: 90}}
	plan.Windows = []rollout.Window{{From: 21 * 60, To: 22 * 60}, {From: 21*60 + 30, To: 23 * 60}}
	m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, []muster.DeviceID{"pump"})
	d := director.New(m, f, func() time.Time { return f.at }, director.Options{Owner: "one"})
	dev := m.rollouts["r"].devices["pump"]
	for _, c := range []struct {
		at      time.Time
		is      rollout.State
		attempt int
	}{
		{f.at, rollout.Offered, 1},
		{time.Date(2026, 11, 23, 22, 30, 0, 0, time.UTC), rollout.Offered, 1},
		{time.Date(2026, 11, 23, 23, 0, 1, 0, time.UTC), rollout.Queued, 1},
		{time.Date(2026, 11, 24, 20, 59, 0, 0, time.UTC), rollout.Queued, 1},
		{time.Date(2026, 11, 24, 21, 0, 1, 0, time.UTC), rollout.Offered, 2},
	} {
		f.at = c.at
		if tick(t, d); dev.State != c.is || dev.Attempt != c.attempt || dev.Failures != 0 {
			t.Fatalf("at %s it is %s in attempt %d, with %d failures; want %s in %d", c.at, dev.State, dev.Attempt, dev.Failures, c.is, c.attempt)
		}
		if n := m.rollouts["r"].r.InFlight(); (n == 1) != c.is.InFlight() {
			t.Errorf("at %s %d slots are taken", c.at, n)
		}
	}
}

// TestASleepingDeviceThatHasTheReleaseIsConfirmedWhenItChecksIn has a device soak that is connected for
// a moment every ten minutes.
func TestASleepingDeviceThatHasTheReleaseIsConfirmedWhenItChecksIn(t *testing.T) {
	for name, comes := range map[string]bool{"it checks in": true, "it does not": false} {
		f := &still{at: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), alive: true, reachable: true}
		m, d, dev := failedOnce(t, f)
		f.at = f.at.Add(time.Hour)
		tick(t, d)
		if errs := d.Reports(t.Context(), []director.Report{{Device: "pump", Fact: rollout.Fact{Event: rollout.SeesTarget, Action: dev.Action}}}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		f.alive, f.heard = false, muster.MicrosOf(f.at)
		f.until = muster.MicrosOf(f.at.Add(20 * time.Minute))
		f.at = f.at.Add(2 * time.Minute) // the soak was over a minute ago
		tick(t, d)
		if dev.State != rollout.Rebooting || !dev.Soaking {
			t.Fatalf("%s: a device that sleeps is %s: %s", name, dev.State, dev.Reason)
		}
		if comes {
			f.at = f.at.Add(8 * time.Minute)
			f.heard, f.until = muster.MicrosOf(f.at), muster.MicrosOf(f.at.Add(20*time.Minute))
			f.at = f.at.Add(time.Minute) // and is away again
			tick(t, d)
			if dev.State != rollout.Confirmed || m.rollouts["r"].r.InFlight() != 0 {
				t.Errorf("it checked in, and is %s: %s", dev.State, dev.Reason)
			}
			continue
		}
		f.at = f.at.Add(19 * time.Minute)
		tick(t, d)
		if dev.State != rollout.Queued || dev.Reason != rollout.Silent {
			t.Errorf("it did not check in, and is %s: %s", dev.State, dev.Reason)
		}
	}
}

// shut is a store of which nobody asks what is open.
type shut struct {
	*memory
	asked int
}

func (s *shut) Open(ctx context.Context, limit int) ([]rollout.Rollout, error) {
	s.asked++
	return s.memory.Open(ctx, limit)
}

func TestARoundReadsOnceWhatIsOpen(t *testing.T) {
	f := &still{at: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), alive: true, reachable: true}
	m := &shut{memory: newMemory()}
	plan := rollout.DefaultPlan()
	plan.Phases = []rollout.Phase{{Percent: 100, Success: 90}}
	m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, []muster.DeviceID{"pump"})
	d := director.New(m, f, func() time.Time { return f.at }, director.Options{Owner: "one"})
	open, err := d.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Look(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	if dev := m.rollouts["r"].devices["pump"]; m.asked != 1 || dev.State != rollout.Offered {
		t.Errorf("the store was asked %d times, and the device is %s", m.asked, dev.State)
	}
}

func TestADeletedDeviceTakesNoSlot(t *testing.T) {
	for _, state := range []rollout.Event{rollout.Offer, rollout.SaysDownloading, rollout.SaysInstalling, rollout.SeesTarget} {
		t.Run(state.String(), func(t *testing.T) {
			f := &still{at: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), alive: true, reachable: true}
			m := newMemory()
			plan := rollout.DefaultPlan()
			plan.Phases, plan.Concurrent = []rollout.Phase{{Percent: 100, Success: 90}}, 1
			m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, []muster.DeviceID{"a", "b"})
			d := director.New(m, f, func() time.Time { return f.at }, director.Options{Owner: "one"})
			tick(t, d)
			k := m.rollouts["r"]
			first, second := k.devices["a"], k.devices["b"]
			if !first.State.InFlight() {
				first, second = second, first
			}
			if state != rollout.Offer {
				if errs := d.Reports(t.Context(), []director.Report{{Device: first.ID, Fact: rollout.Fact{Event: state, Action: first.Action}}}); errs[0] != nil {
					t.Fatal(errs[0])
				}
			}
			if err := d.Leave(t.Context(), []muster.DeviceID{first.ID, "stranger"}); err != nil {
				t.Fatal(err)
			}
			if first.State != rollout.Skipped || first.Reason != rollout.Deleted || k.r.InFlight() != 0 {
				t.Fatalf("%+v, %d in flight", first, k.r.InFlight())
			}
			tick(t, d)
			if second.State != rollout.Offered || k.r.InFlight() != 1 {
				t.Errorf("the slot is not given to the other: %+v", second)
			}
		})
	}
}

func TestARolloutOfAReleaseThatWasWithdrawnIsPausedAndDoesNotBegin(t *testing.T) {
	for _, status := range []rollout.Status{rollout.Running, rollout.Scheduled} {
		m, f, barred := newMemory(), &still{at: time.Unix(1_800_000_000, 0), reachable: true}, false
		plan := rollout.DefaultPlan()
		plan.Phases = []rollout.Phase{{Percent: 100}}
		m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: status, StartAt: muster.MicrosOf(f.at.Add(time.Hour)), Membership: rollout.Snapshot, Plan: plan}, []muster.DeviceID{"pump"})
		d := director.New(m, f, func() time.Time { return f.at }, director.Options{Owner: "one", Barred: func(*rollout.Rollout) bool { return barred }})
		tick(t, d)
		dev := m.rollouts["r"].devices["pump"]
		if started := dev.State == rollout.Offered; started != (status == rollout.Running) {
			t.Fatalf("%s: the device is %s", status, dev.State)
		}
		barred, f.at = true, f.at.Add(2*time.Hour)
		dev.Deadline = 0
		tick(t, d)
		if r := m.rollouts["r"].r; r.Status != rollout.Paused || r.Reason != rollout.ReleaseWithdrawn || dev.State != rollout.Queued {
			t.Errorf("%s: it is %s, %q, the device %s", status, r.Status, r.Reason, dev.State)
		}
	}
}

// TestARolloutThatRunsGoesOnWhenItsReleaseIsDeprecatedAndOneThatIsToBeginDoesNot: at its time it is paused.
func TestARolloutThatRunsGoesOnWhenItsReleaseIsDeprecatedAndOneThatIsToBeginDoesNot(t *testing.T) {
	for status, want := range map[rollout.Status]struct {
		status rollout.Status
		reason rollout.Reason
		device rollout.State
	}{rollout.Running: {rollout.Running, "", rollout.Offered}, rollout.Scheduled: {rollout.Paused, rollout.ReleaseOutdated, rollout.Queued}} {
		m, f := newMemory(), &still{at: time.Unix(1_800_000_000, 0), reachable: true}
		plan := rollout.DefaultPlan()
		plan.Phases = []rollout.Phase{{Percent: 100}}
		m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: status, StartAt: muster.MicrosOf(f.at.Add(time.Hour)), Membership: rollout.Snapshot, Plan: plan}, []muster.DeviceID{"pump"})
		d := director.New(m, f, func() time.Time { return f.at }, director.Options{Owner: "one", Outdated: func(*rollout.Rollout) bool { return true }})
		tick(t, d)
		if r := m.rollouts["r"].r; r.Status != status { // its time has not come
			t.Fatalf("%s: it is %s, %q", status, r.Status, r.Reason)
		}
		f.at = f.at.Add(2 * time.Hour)
		tick(t, d)
		if r, dev := m.rollouts["r"].r, m.rollouts["r"].devices["pump"]; r.Status != want.status || r.Reason != want.reason || dev.State != want.device {
			t.Errorf("%s: it is %s, %q, the device %s", status, r.Status, r.Reason, dev.State)
		}
	}
}
