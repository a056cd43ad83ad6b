package operator_test

import (
	"slices"
	"strings"
	"testing"

	"muster"
	"muster/feed"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

func TestARolloutThatEverybodyIsIneligibleForIsNotCompleted(t *testing.T) {
	onEach(t, 30, operator.Options{}, func(r *rig) {
		r.fleet.held = func(_ *rollout.Rollout, id muster.DeviceID, f *rollout.Facts) {
			f.Hardware = false
			f.Installed = id < "dev-000005" // these have it already
		}
		d := r.create(starting)
		r.tick()
		r.tick()
		d = r.must(r.operator.Rollout(r.Context(), d.ID))
		if n := r.states(d.ID); d.Status != rollout.Paused || d.Reason != rollout.NothingProved || d.Phase != 0 || n["skipped"] != 10 || d.Counts[0].Unfit != 5 {
			r.Fatalf("it is %s (%s) in phase %d, %v, %+v", d.Status, d.Reason, d.Phase, n, d.Counts[0])
		}
		if wrong, err := r.store.RecountRollout(r.Context(), d.ID); err != nil || wrong {
			r.Errorf("its counts are not those of the rows: %v", err)
		}
		_, err := r.operator.Resume(r.ctx(), d.ID, false)
		wantKind(r.T, "it goes on in a phase that proved nothing", err, muster.Conflict)
		r.must(r.operator.Resume(r.ctx(), d.ID, true))
		r.tick()
		r.tick()
		if d = r.must(r.operator.Rollout(r.Context(), d.ID)); d.Status != rollout.Paused || d.Reason != rollout.NothingProved || d.Phase != 1 {
			r.Fatalf("it is %s (%s) in phase %d", d.Status, d.Reason, d.Phase)
		}
		_, err = r.operator.Resume(r.ctx(), d.ID, true)
		wantKind(r.T, "there is no phase to go on with", err, muster.Conflict)
		if slices.Contains(r.events, feed.RolloutCompleted) || !slices.Contains(r.events, feed.RolloutStopped) || !strings.Contains(r.stopped, "nothing_proved") {
			r.Errorf("it is told %v, %s", r.events, r.stopped)
		}
	})
}

func TestWhoDeniesTheReleaseCountsAgainstItsSuccessAfterCountingAnewToo(t *testing.T) {
	onEach(t, 30, operator.Options{}, func(r *rig) {
		d := r.create(starting)
		r.tick()
		r.report(rollout.SaysDenied, r.fleet.ids[:6]...)
		r.report(rollout.SeesTarget, r.fleet.ids[6:10]...)
		if wrong, err := r.store.RecountRollout(r.Context(), d.ID); err != nil || wrong {
			r.Errorf("its counts are not those of the rows: %v", err)
		}
		r.tick()
		r.tick()
		d = r.must(r.operator.Rollout(r.Context(), d.ID))
		if c := d.Counts[0]; d.Status != rollout.Paused || d.Reason != rollout.TooFewSuccesses || c.Missed != 6 || c.Asked() != 10 {
			r.Errorf("four of ten have it, and it is %s (%s): %+v", d.Status, d.Reason, c)
		}
	})
}

func TestASnapshotWithAPhaseByAQueryThatNobodyIsInDoesNotStart(t *testing.T) {
	r := sqliteRig(t, 30, operator.Options{})
	nobody := func(s *operator.Spec) { s.Plan.Phases[0].Name, s.Plan.Phases[0].Query = "brave", "none" }
	draft := r.create(nobody)
	_, err := r.operator.Start(r.ctx(), ann, draft.ID)
	wantKind(t, "a draft", err, muster.Conflict)
	if err == nil || !strings.Contains(err.Error(), "brave") {
		t.Errorf("it does not name the phase: %v", err)
	}
	if d := r.must(r.operator.Rollout(t.Context(), draft.ID)); d.Status != rollout.Draft || len(r.devices(d.ID)) != 0 {
		t.Errorf("it is %s, with %d devices", d.Status, len(r.devices(d.ID)))
	}
	_, err = r.operator.Create(r.ctx(), ann, spec(starting, nobody))
	wantKind(t, "one that starts at once", err, muster.Conflict)
	r.create(starting, nobody, func(s *operator.Spec) { s.Membership = rollout.Dynamic }) // one may join
}

func TestOfFewDevicesAPercentIsOneAndTheRolloutBeginsWithIt(t *testing.T) {
	r := sqliteRig(t, 12, operator.Options{})
	d := r.create(starting, func(s *operator.Spec) {
		s.Plan.Phases[0] = rollout.Phase{Name: "canary", Percent: 0.01, Success: 100, Gate: rollout.Auto}
	})
	r.tick()
	list := r.devices(d.ID)
	first := slices.MinFunc(list, func(a, b rollout.Device) int {
		if a.Rank < b.Rank {
			return -1
		}
		return 1
	})
	if n := r.states(d.ID); d.Counts[0].Total() != 1 || n["offered"] != 1 || first.State != rollout.Offered || first.Phase != 0 {
		t.Errorf("%d canaries, %v, the first is %s in phase %d", d.Counts[0].Total(), n, first.State, first.Phase)
	}
}

// TestWhatWaitsForAPersonWaitsNoMoreWhenItsPhaseFallsShort has devices join a phase that nobody is in, and one that was over.
func TestWhatWaitsForAPersonWaitsNoMoreWhenItsPhaseFallsShort(t *testing.T) {
	onEach(t, 30, operator.Options{}, func(r *rig) {
		r.fleet.ids = r.fleet.ids[10:] // the canaries come later
		canaries := make([]muster.DeviceID, 10)
		for i := range canaries {
			canaries[i] = muster.DeviceID("new-" + string(rune('a'+i)))
		}
		r.fleet.canaries = canaries
		d := r.create(starting, func(s *operator.Spec) { s.Membership = rollout.Dynamic })
		waits := func(want bool, last string) {
			r.Helper()
			r.tick()
			r.tick()
			if x := r.must(r.operator.Rollout(r.Context(), d.ID)); x.Waiting != want || x.Phase != 0 || r.events[len(r.events)-1] != last {
				r.Fatalf("it waits %v in phase %d, told were %v", x.Waiting, x.Phase, r.events)
			}
		}
		join := func(ids ...muster.DeviceID) {
			r.Helper()
			list := make([]rollout.Device, len(ids))
			for i, id := range ids {
				list[i] = rollout.Device{Rollout: d.ID, ID: id, Rank: rollout.Rank(d.Seed, id)}
			}
			if n, err := r.store.JoinRollout(r.Context(), d.ID, list); err != nil || n != len(ids) {
				r.Fatalf("%d joined, %v", n, err)
			}
		}
		waits(true, feed.RolloutGate)
		if n := r.states(d.ID); n["queued"] != 20 {
			r.Errorf("without canaries the devices are %v", n)
		}
		join(canaries[0])
		waits(false, feed.RolloutGateClosed)
		r.report(rollout.SeesTarget, canaries[0])
		waits(true, feed.RolloutGate)
		join(canaries[1:4]...)
		waits(false, feed.RolloutGateClosed)
		_, err := r.operator.Approve(r.ctx(), d.ID)
		wantKind(r.T, "a gate that is closed is passed", err, muster.Conflict)
		got := r.actions()
		if want := []string{"create user", "gate system", "gate_closed system", "gate system", "gate_closed system"}; !slices.Equal(got, want) {
			r.Errorf("the audit log has %v", got)
		}
	})
}
