package rollout_test

import (
	"strings"
	"testing"

	"muster"
	"muster/firmware/rollout"
)

func TestWhatWasSkippedCountsAsItsReasonSays(t *testing.T) {
	for _, c := range []struct {
		fact          rollout.Fact
		missed, unfit int
	}{
		{rollout.Fact{Event: rollout.SaysDenied}, 1, 0},
		{rollout.Fact{Event: rollout.Exclude, Reason: rollout.Blocked}, 1, 0},
		{rollout.Fact{Event: rollout.Exclude, Reason: rollout.Ineligible}, 0, 1},
		{rollout.Fact{Event: rollout.Exclude, Reason: rollout.AlreadyInstalled}, 0, 0},
		{rollout.Fact{Event: rollout.Exclude, Reason: rollout.Deleted}, 0, 0},
		{rollout.Fact{Event: rollout.Replaced}, 0, 0},
	} {
		r, ds := flight(t, 2, nil)
		got := step(t, r, ds[0], c.fact, rollout.Skipped)
		if n := r.Counts[0]; n.Missed != c.missed || n.Unfit != c.unfit || n.Asked() != 1+c.missed {
			t.Errorf("%s: %d are missed, %d unfit, %d asked", got.Reason, n.Missed, n.Unfit, n.Asked())
		}
	}
}

// TestFiveOfTenThatAreBlockedOrDenyAreNoSuccess has the others confirmed: half of those that were to get it.
func TestFiveOfTenThatAreBlockedOrDenyAreNoSuccess(t *testing.T) {
	r, ds := flight(t, 10, nil)
	r.Plan.Phases = append(r.Plan.Phases, rollout.Phase{Percent: 100})
	r.Counts = append(r.Counts, rollout.Counts{})
	r.Membership = rollout.Snapshot
	for i, d := range ds {
		switch {
		case i < 3:
			step(t, r, d, rollout.Fact{Event: rollout.SaysDenied}, rollout.Skipped)
		case i < 5:
			step(t, r, d, rollout.Fact{Event: rollout.Exclude, Reason: rollout.Blocked}, rollout.Skipped)
		default:
			step(t, r, d, rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting)
			step(t, r, d, rollout.Fact{Event: rollout.Soaked}, rollout.Confirmed)
		}
	}
	if !r.Advance(rollout.NotAsked, began) || r.Status != rollout.Paused || r.Reason != rollout.TooFewSuccesses || r.Phase != 0 {
		t.Errorf("half of ten have it, 90 %% are asked for, and it is %s (%s) in phase %d", r.Status, r.Reason, r.Phase)
	}
}

func TestAPhaseThatProvedNothingPausesTheRolloutAndAPersonGoesOnOnce(t *testing.T) {
	r := draftOf(func(r *rollout.Rollout) {
		r.Status, r.Started, r.Membership = rollout.Running, began, rollout.Snapshot
		for i := range r.Counts {
			r.Counts[i].By[rollout.Skipped], r.Counts[i].Unfit = 3, 3
		}
	})
	for phase, name := range []string{"canary", "tenth", "last phase"} {
		if !r.Advance(rollout.NotAsked, began) || r.Status != rollout.Paused || r.Reason != rollout.NothingProved || r.Phase != phase || r.Ended != 0 {
			t.Fatalf("phase %d is for nobody, and it is %s (%s) in phase %d", phase, r.Status, r.Reason, r.Phase)
		}
		_, err := r.Resume(false, rollout.Quorum{}, began)
		if muster.KindOf(err) != muster.Conflict || err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "without a device that was confirmed") {
			t.Errorf("it goes on in phase %d: %v", phase, err)
		}
		if _, err := r.Resume(true, rollout.Quorum{}, began); (err == nil) != (phase < 2) {
			t.Errorf("a person goes on from phase %d: %v", phase, err)
		}
	}
}

// TestCanariesThatAreTakenAwayProveNothingForThoseThatWait has all canaries skipped for reasons that count neither way.
func TestCanariesThatAreTakenAwayProveNothingForThoseThatWait(t *testing.T) {
	for name, f := range map[string]rollout.Fact{
		"superseded": {Event: rollout.Replaced}, "deleted": {Event: rollout.Exclude, Reason: rollout.Deleted},
		"not asked": {Event: rollout.Exclude, Reason: rollout.AlreadyInstalled},
	} {
		for waiting, want := range map[int]rollout.Status{0: rollout.Completed, 3: rollout.Paused} {
			r, ds := flight(t, 2, nil)
			r.Plan.Phases = append(r.Plan.Phases, rollout.Phase{Percent: 100})
			r.Counts = append(r.Counts, rollout.Counts{})
			r.Counts[1].By[rollout.Queued] = waiting
			r.Membership = rollout.Snapshot
			for _, d := range ds {
				step(t, r, d, f, rollout.Skipped)
			}
			for r.Advance(rollout.NotAsked, began) {
				if r.Status != rollout.Running {
					break
				}
			}
			if r.Status != want || want == rollout.Paused && r.Reason != rollout.NothingProved {
				t.Errorf("canaries are %s, %d devices wait: it is %s (%s)", name, waiting, r.Status, r.Reason)
			}
		}
	}
}

func TestADynamicPhaseWithoutDevicesWaitsForOneOrForAPerson(t *testing.T) {
	dynamic := func() *rollout.Rollout {
		return draftOf(func(r *rollout.Rollout) {
			r.Status, r.Started, r.Membership = rollout.Running, began, rollout.Dynamic
			r.Counts[2].By[rollout.Queued] = 5
		})
	}
	r := dynamic()
	if !r.Advance(rollout.NotAsked, began) || !r.Waiting || !r.Vacant() || r.Phase != 0 || r.Advance(rollout.NotAsked, began) {
		t.Fatalf("nobody is in its first phase, and it is in phase %d, waits %v", r.Phase, r.Waiting)
	}
	rules := rollout.Explain(r, &rollout.Device{Phase: 2}, &rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: true}, began)
	if first, _ := rollout.First(rules); first.Name != "phase_open" || !strings.Contains(first.Detail, "no device is in that yet") {
		t.Errorf("why a device of the last phase waits is %q: %s", first.Name, first.Detail)
	}
	r.Counts[0].By[rollout.Queued] = 1 // one joins
	if !r.Advance(rollout.NotAsked, began) || r.Waiting || r.Vacant() || r.Phase != 0 || r.Approve(began) == nil {
		t.Errorf("a device has joined, and it is in phase %d, waits %v", r.Phase, r.Waiting)
	}
	r = dynamic()
	for phase := range 2 {
		r.Advance(rollout.NotAsked, began)
		if err := r.Approve(began); err != nil || r.Phase != phase+1 || r.Waiting {
			t.Fatalf("a person goes on, and it is in phase %d, waits %v: %v", r.Phase, r.Waiting, err)
		}
	}
	if r.Advance(rollout.NotAsked, began) || r.Waiting || r.Status != rollout.Running {
		t.Errorf("in its last phase it waits %v, and is %s", r.Waiting, r.Status)
	}
}

func TestAGateClosesWhenItsPhaseFallsShortAfterwards(t *testing.T) {
	r := draftOf(func(r *rollout.Rollout) {
		r.Status, r.Started, r.Membership = rollout.Running, began, rollout.Dynamic
		r.Plan.Phases[0].Gate, r.Plan.Phases[0].Soak = rollout.Manual, 0
		r.Counts[0].By[rollout.Confirmed] = 4
	})
	if !r.Advance(rollout.NotAsked, began) || !r.Waiting {
		t.Fatal("it does not wait for a person")
	}
	r.Counts[0].By[rollout.Queued] = 3 // three join
	if !r.Advance(rollout.NotAsked, began) || r.Waiting || r.Passed != 0 {
		t.Errorf("four of seven have it, and it waits for a person")
	}
	if err := r.Approve(began); muster.KindOf(err) != muster.Conflict || err == nil || r.Phase != 0 {
		t.Errorf("a person opens a gate that is closed: %v", err)
	}
	r.Counts[0].By[rollout.Queued], r.Counts[0].By[rollout.Confirmed] = 0, 7
	if !r.Advance(rollout.NotAsked, began) || !r.Waiting {
		t.Error("all have it, and it does not wait")
	}
	if r.Advance(rollout.Worse, began); r.Status != rollout.Paused || r.Waiting {
		t.Errorf("its telemetry got worse: it is %s, and waits %v", r.Status, r.Waiting)
	}
}
