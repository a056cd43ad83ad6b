package director_test

import (
	"context"
	"testing"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// started is a fleet of a process that was just started: it knows no release before it learns one,
// and nobody has come yet.
type started struct {
	known map[string]bool
	there map[muster.DeviceID]bool
	at    time.Time
}

func (s *started) Knows(id string) bool { return s.known[id] }
func (s *started) Is(r *rollout.Rollout, version string) bool {
	return s.known[r.ID] && version == "2.0.0"
}
func (*started) Version(*rollout.Rollout, muster.DeviceID) string { return "2.0.0" }
func (s *started) Life(id muster.DeviceID) rollout.Life           { return rollout.Life{There: s.there[id]} }

func (s *started) Facts(*rollout.Rollout, muster.DeviceID) rollout.Facts {
	return rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: true, Local: s.at}
}

// startedRig has devices that restart into the release when the process ends, and the process after.
func startedRig(t *testing.T, o director.Options) (*memory, *started, *director.Director, []muster.DeviceID) {
	t.Helper()
	ids := []muster.DeviceID{"a", "b"}
	m, f := newMemory(), &started{known: map[string]bool{}, there: map[muster.DeviceID]bool{}, at: time.Unix(1_800_000_000, 0)}
	plan := rollout.DefaultPlan()
	plan.Phases = []rollout.Phase{{Percent: 100, Gate: rollout.Auto}}
	m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, ids)
	now := func() time.Time { return f.at }
	before := director.New(m, f, now, director.Options{Owner: "before"})
	if err := before.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, err := range before.Reports(t.Context(), []director.Report{{Device: "a", Fact: rollout.Fact{Event: rollout.SaysRebooting}}, {Device: "b", Fact: rollout.Fact{Event: rollout.SaysRebooting}}}) {
		if err != nil {
			t.Fatalf("%s: %v", ids[i], err)
		}
	}
	f.at = f.at.Add(plan.Deadlines.Rebooting + time.Minute)
	o.Owner = "after"
	return m, f, director.New(m, f, now, o), ids
}

func (m *memory) state(id muster.DeviceID) rollout.State { return m.rollouts["r"].devices[id].State }

func TestAVersionOfAReleaseThatIsNotKnownIsNoOtherVersion(t *testing.T) {
	m, f, d, _ := startedRig(t, director.Options{})
	said := []director.Report{{Device: "a", Version: "2.0.0"}}
	if err := d.Reports(t.Context(), said)[0]; muster.KindOf(err) != muster.Unavailable || err == nil {
		t.Errorf("a version said: %v", err)
	}
	if err := d.Reports(t.Context(), []director.Report{director.SeenReport("a")})[0]; muster.KindOf(err) != muster.Unavailable || err == nil {
		t.Errorf("a version seen: %v", err)
	}
	if s := m.state("a"); s != rollout.Rebooting {
		t.Fatalf("the device is %s", s)
	}
	f.known["r"] = true
	if err := d.Reports(t.Context(), said)[0]; err != nil || !m.rollouts["r"].devices["a"].Soaking {
		t.Errorf("the release is known, and it is %s: %v", m.state("a"), err)
	}
}

func TestTheReleaseIsLookedUpBeforeAReport(t *testing.T) {
	asked := ""
	var f *started
	m, fleet, d, _ := startedRig(t, director.Options{Prepare: func(_ context.Context, id string) error {
		if asked = id; f == nil {
			return muster.Errorf(muster.Unavailable, "the store is away")
		}
		f.known[id] = true
		return nil
	}})
	if err := d.Reports(t.Context(), []director.Report{director.SeenReport("a")})[0]; muster.KindOf(err) != muster.Unavailable || asked != "r" || m.state("a") != rollout.Rebooting {
		t.Errorf("the store is away: %v", err)
	}
	f = fleet
	if err := d.Reports(t.Context(), []director.Report{director.SeenReport("a")})[0]; err != nil || !m.rollouts["r"].devices["a"].Soaking {
		t.Errorf("it is %s: %v", m.state("a"), err)
	}
}

func TestNobodyIsSilentWhoCouldNotBeHeardSinceTheStart(t *testing.T) {
	m, f, d, ids := startedRig(t, director.Options{Grace: 2 * time.Minute})
	f.known["r"] = true
	tick := func() {
		t.Helper()
		if err := d.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.at = f.at.Add(11 * time.Second) // the lease of the process before has ended
	tick()
	for _, id := range ids {
		if s := m.state(id); s != rollout.Rebooting {
			t.Fatalf("%s is %s as soon as the process is there", id, s)
		}
	}
	if err := d.Reports(t.Context(), []director.Report{director.SeenReport(ids[0])})[0]; err != nil {
		t.Fatal(err)
	}
	f.there["a"] = true
	f.at = f.at.Add(100 * time.Second)
	tick()
	if a, b := m.state("a"), m.state("b"); a != rollout.Confirmed || b != rollout.Rebooting {
		t.Errorf("who came back is %s, who did not %s", a, b)
	}
	f.at = f.at.Add(time.Minute)
	tick()
	if dev := m.rollouts["r"].devices["b"]; dev.Failures != 1 || dev.Reason != rollout.Silent {
		t.Errorf("who does not come back is %s: %+v", dev.State, dev)
	}
}

func TestADeviceThatNeverComesBackHasTimedOutAndStopsTheRollout(t *testing.T) {
	m, f := newMemory(), &started{known: map[string]bool{"r": true}, there: map[muster.DeviceID]bool{}, at: time.Unix(1_800_000_000, 0)}
	plan := rollout.DefaultPlan()
	plan.Phases, plan.Attempts = []rollout.Phase{{Percent: 100, Failure: rollout.Threshold{Absolute: 1}, Gate: rollout.Auto}}, 1
	m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, []muster.DeviceID{"a"})
	d := director.New(m, f, func() time.Time { return f.at }, director.Options{Owner: "n", Grace: time.Minute})
	for _, after := range []time.Duration{0, plan.Deadlines.Offered - time.Second, time.Second} {
		if s := m.rollouts["r"].r.Status; s != rollout.Running {
			t.Fatalf("it is %s %v before the time", s, after)
		}
		f.at = f.at.Add(after)
		if err := d.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r := m.rollouts["r"].r; m.state("a") != rollout.TimedOut || r.Status != rollout.Paused || r.Reason != rollout.TooManyFailures || r.InFlight() != 0 {
		t.Errorf("the device is %s, the rollout %s: %s, %d in flight", m.state("a"), r.Status, r.Reason, r.InFlight())
	}
}

// choosy is a fleet in which the release is not for some devices, and some are blocked.
type choosy struct {
	started
	unfit   map[muster.DeviceID]bool
	blocked map[muster.DeviceID]muster.Micros
}

func (c *choosy) Facts(r *rollout.Rollout, id muster.DeviceID) rollout.Facts {
	facts := c.started.Facts(r, id)
	facts.Hardware, facts.Blocked = !c.unfit[id], c.blocked[id]
	return facts
}

func TestWhoMayNotHaveTheReleaseTakesNoSlot(t *testing.T) {
	m, f := newMemory(), &choosy{started{known: map[string]bool{"r": true}, at: time.Unix(1_800_000_000, 0)}, map[muster.DeviceID]bool{}, nil}
	ids := []muster.DeviceID{"a", "b", "c", "d", "e"}
	for _, id := range ids[:4] {
		f.unfit[id] = true
	}
	plan := rollout.DefaultPlan()
	plan.Phases, plan.Concurrent = []rollout.Phase{{Percent: 100, Gate: rollout.Auto}}, 1
	m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, ids)
	d := director.New(m, f, func() time.Time { return f.at }, director.Options{Owner: "n"})
	if err := d.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := m.rollouts["r"].r; m.state("e") != rollout.Offered || r.InFlight() != 1 || r.Counts[0].By[rollout.Skipped] != 4 {
		t.Errorf("the one that may have it is %s, %v", m.state("e"), r.Counts[0].By)
	}
}

func TestABlockedDeviceWaitsForTheEndOfItsBlockAndTakesNoSlot(t *testing.T) {
	m, f := newMemory(), &choosy{started{known: map[string]bool{"r": true}, at: time.Unix(1_800_000_000, 0)}, nil, map[muster.DeviceID]muster.Micros{}}
	ids := []muster.DeviceID{"a", "b", "c"}
	until := f.at.Add(23 * time.Hour)
	f.blocked["a"], f.blocked["b"] = muster.MicrosOf(until), muster.MicrosOf(until)
	plan := rollout.DefaultPlan()
	plan.Phases, plan.Concurrent = []rollout.Phase{{Percent: 100, Gate: rollout.Auto}}, 2
	m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, ids)
	d := director.New(m, f, func() time.Time { return f.at }, director.Options{Owner: "n"})
	tick(t, d)
	if a := m.rollouts["r"].devices["a"]; m.state("c") != rollout.Offered || m.rollouts["r"].r.InFlight() != 1 || a.State != rollout.Queued || a.Due != muster.MicrosOf(until) {
		t.Fatalf("it is %s, due at %d, with %d in flight", a.State, a.Due, m.rollouts["r"].r.InFlight())
	}
	if err := d.Reports(t.Context(), []director.Report{{Device: "c", Fact: rollout.Fact{Event: rollout.SeesTarget}}})[0]; err != nil {
		t.Fatal(err)
	}
	f.there = map[muster.DeviceID]bool{"c": true}
	for f.at = f.at.Add(time.Hour); f.at.Before(until); f.at = f.at.Add(time.Hour) {
		if tick(t, d); m.state("a") != rollout.Queued {
			t.Fatalf("%v before the end of its block it is %s", until.Sub(f.at), m.state("a"))
		}
	}
	if r := m.rollouts["r"].r; r.Status != rollout.Running || r.InFlight() != 0 {
		t.Errorf("with two that are blocked it is %s: %s, %d in flight", r.Status, r.Reason, r.InFlight())
	}
	if tick(t, d); m.state("a") != rollout.Offered || m.state("b") != rollout.Offered {
		t.Errorf("at the end of their block they are %s and %s", m.state("a"), m.state("b"))
	}
}
