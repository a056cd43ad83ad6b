package operator_test

import (
	"slices"
	"testing"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

// allAtOnce has one phase of all devices.
func allAtOnce(s *operator.Spec) { s.Plan.Phases = s.Plan.Phases[1:] }

// says has a device say something, and returns the error.
func (r *rig) says(id muster.DeviceID, f rollout.Fact, version string) error {
	return r.director.Reports(r.Context(), []director.Report{{Device: id, Fact: f, Version: version}})[0]
}

// lateOf is what a device did late in a rollout, and in which state it is.
func (r *rig) lateOf(id string, device muster.DeviceID) (rollout.Late, rollout.State) {
	r.Helper()
	for _, d := range r.devices(id) {
		if d.ID == device {
			return d.Late, d.State
		}
	}
	r.Fatalf("%s is not in the rollout", device)
	return "", 0
}

func TestADeviceThatFinishesAfterAnAbortByForceIsTakenBackWithTheOthers(t *testing.T) {
	onEach(t, 6, operator.Options{}, func(r *rig) {
		d := r.create(starting, allAtOnce)
		r.tick()
		r.report(rollout.SaysInstalling, r.fleet.ids[:3]...)
		r.must(r.operator.Abort(r.ctx(), d.ID, true))
		r.tick()
		if n := r.states(d.ID); n["canceled"] != 6 {
			r.Fatalf("by force: %v", n)
		}
		late := r.fleet.ids[1]
		if err := r.says(late, rollout.Fact{}, "2.0.0"); err != nil {
			r.Fatalf("it reports the release: %v", err)
		}
		if did, state := r.lateOf(d.ID, late); did != rollout.LateInstalled || state != rollout.Canceled {
			r.Errorf("it is %s, and late %q", state, did)
		}
		if err := r.says(late, rollout.Fact{}, "2.0.0"); err != nil {
			r.Errorf("the same again: %v", err)
		}
		now := r.must(r.operator.Rollout(r.Context(), d.ID))
		if now.Counts[0].Late != 1 || now.Counts[0].By[rollout.Canceled] != 6 {
			r.Errorf("it counts %+v", now.Counts[0])
		}
		if wrong, err := r.store.RecountRollout(r.Context(), d.ID); err != nil || wrong {
			r.Errorf("the counts are not those of the rows: %v, %v", wrong, err)
		}
		log, err := r.store.RolloutLog(r.Context(), operator.LogQuery{Rollout: d.ID, Device: late, Limit: 100})
		if err != nil || len(log) == 0 {
			r.Fatalf("its log is %v, %v", log, err)
		}
		if e := log[len(log)-1]; e.Event != "target_version" || e.From != "canceled" || e.To != "canceled" || e.Reason != rollout.Afterwards {
			r.Errorf("the log ends with %+v", e)
		}
		back := r.must(r.operator.Rollback(r.ctx(), ann, d.ID, operator.Spec{Supersede: rollout.Wait, Start: true}))
		var got []muster.DeviceID
		for _, x := range r.devices(back.ID) {
			got = append(got, x.ID)
		}
		if !slices.Equal(got, []muster.DeviceID{late}) {
			r.Errorf("the rollback has %v", got)
		}
	})
}

func TestWhatADeviceDoesThatGoesOnAfterASoftAbortIsFollowed(t *testing.T) {
	r := sqliteRig(t, 4, operator.Options{})
	d := r.create(starting, allAtOnce)
	r.tick()
	r.must(r.operator.Abort(r.ctx(), d.ID, false))
	r.tick()
	action := r.devices(d.ID)[0].Action
	for i, c := range []struct {
		says []rollout.Fact
		want rollout.Late
	}{
		{[]rollout.Fact{{Event: rollout.SaysInstalling}, {Event: rollout.SaysFailed, Detail: "flash"}}, rollout.LateFailed},
		{[]rollout.Fact{{Event: rollout.SaysInstalling}, {Event: rollout.SeesTarget}}, rollout.LateInstalled},
		{[]rollout.Fact{{Event: rollout.SaysRebooting}, {Event: rollout.SeesOther}}, rollout.LateBack},
		{[]rollout.Fact{{Event: rollout.SaysInstalling}}, rollout.LateInstalling},
	} {
		id := r.fleet.ids[i]
		for _, f := range c.says {
			f.Action = action
			if err := r.says(id, f, ""); err != nil {
				t.Errorf("%s: %s: %v", id, f.Event, err)
			}
		}
		if did, state := r.lateOf(d.ID, id); did != c.want || state != rollout.Canceled {
			t.Errorf("%s is %s, and late %q; want %q", id, state, did, c.want)
		}
		log, err := r.store.RolloutLog(t.Context(), operator.LogQuery{Rollout: d.ID, Device: id, Limit: 100})
		if err != nil || len(log) != 2+len(c.says) { // offered and canceled before
			t.Errorf("%s has %d rows of log, %v", id, len(log), err)
		}
	}
	wantKind(t, "another action", r.says(r.fleet.ids[3], rollout.Fact{Event: rollout.SeesTarget, Action: action + 1}, ""), muster.Stale)
	wantKind(t, "what it fetches", r.says(r.fleet.ids[3], rollout.Fact{Event: rollout.SaysDownloading, Action: action}, ""), muster.NotFound)
	if now := r.must(r.operator.Rollout(t.Context(), d.ID)); now.Counts[0].Late != 1 || now.Counts[0].Failing != 0 {
		t.Errorf("it counts %+v", now.Counts[0])
	}
	found := 0
	if _, err := r.store.VerifyRollouts(t.Context(), func(string, string) { found++ }); err != nil || found > 0 {
		t.Errorf("the chain of the log is broken: %d, %v", found, err)
	}
}

func TestADeviceThatWaitsForItsWindowAfterAFailureIsSaidToWaitForTheWindow(t *testing.T) {
	r := sqliteRig(t, 4, operator.Options{})
	d := r.create(starting, allAtOnce, func(s *operator.Spec) {
		s.Plan.Attempts, s.Plan.RetryAfter = 3, 0
		s.Plan.Phases[0].Failure = rollout.Threshold{}
	})
	r.tick()
	r.report(rollout.SaysFailed, r.fleet.ids[0])
	r.must(r.operator.Edit(r.ctx(), ann, d.ID, operator.Change{Plan: func(p *rollout.Plan) {
		p.Windows = []rollout.Window{{Days: []time.Weekday{(r.at.UTC().Weekday() + 3) % 7}, From: 60, To: 120}}
	}}))
	r.tick()
	w, err := r.operator.Why(t.Context(), d.ID, r.fleet.ids[0])
	if err != nil || w.Held != "window_open" || w.Device.Failures != 1 || w.Device.Due <= muster.MicrosOf(r.at) {
		t.Errorf("%q holds it back (looked at again at %d): %s, %v", w.Held, w.Device.Due, w.Words, err)
	}
}

func TestADeviceThatSaysAgainThatItHasItsOldVersionIsNoFault(t *testing.T) {
	r := sqliteRig(t, 2, operator.Options{})
	d := r.create(starting, allAtOnce, func(s *operator.Spec) { s.Plan.Attempts = 1 })
	r.tick()
	id := r.fleet.ids[0]
	r.report(rollout.SaysRebooting, id)
	twice := r.director.Reports(r.Context(), []director.Report{{Device: id, Version: "1.0.0"}, {Device: id, Version: "1.0.0"}})
	for i, err := range twice {
		if err != nil {
			r.Errorf("the old version, word %d: %v", i+1, err)
		}
	}
	if did, state := r.lateOf(d.ID, id); state != rollout.RolledBack || did != "" {
		r.Fatalf("it is %s, and late %q", state, did)
	}
	if err := r.says(id, rollout.Fact{}, "1.0.0"); err != nil {
		r.Errorf("the old version later: %v", err)
	}
	if err := r.says(id, rollout.Fact{Event: rollout.SaysRebooting}, ""); err != nil {
		r.Errorf("how it came to it, heard later: %v", err)
	}
	if err := r.says(id, rollout.Fact{Event: rollout.SaysDownloading}, ""); muster.KindOf(err) != muster.NotFound {
		r.Errorf("a download after the end: %v", err)
	}
}

// inRollback makes the rollback of a rollout that was stopped, and returns who is in it.
func (r *rig) inRollback(id string) (got []muster.DeviceID) {
	r.Helper()
	back := r.must(r.operator.Rollback(r.ctx(), ann, id, operator.Spec{Supersede: rollout.Wait, Start: true}))
	for _, x := range r.devices(back.ID) {
		got = append(got, x.ID)
	}
	slices.Sort(got)
	return got
}

func TestWhoSoakedWhenItsAttemptEndedHasTheReleaseAndIsTakenBack(t *testing.T) {
	onEach(t, 7, operator.Options{}, func(r *rig) {
		d := r.create(starting, allAtOnce, func(s *operator.Spec) {
			s.Plan.Phases[0].Failure = rollout.Threshold{}
			s.Plan.Attempts, s.Plan.RetryAfter, s.Plan.Soak = 2, time.Hour, time.Hour
		})
		r.tick()
		ids := r.fleet.ids
		has := func(id muster.DeviceID) director.Report { return director.Report{Device: id, Version: "2.0.0"} }
		says := func(id muster.DeviceID, e rollout.Event) director.Report {
			return director.Report{Device: id, Fact: rollout.Fact{Event: e}}
		}
		for i, list := range [][]director.Report{
			{has(ids[0])}, // given up by force
			{has(ids[1]), says(ids[1], rollout.SaysFailed)},                                        // waits for a retry
			{says(ids[2], rollout.SaysInstalling), says(ids[2], rollout.SaysFailed), has(ids[2])},  // reports it with its failure
			{has(ids[3]), says(ids[3], rollout.SaysDownloading), says(ids[3], rollout.SaysFailed)}, // began again
			{says(ids[4], rollout.SaysRebooting), {Device: ids[4], Version: "1.0.0"}},              // came back with the old one
			{has(ids[5]), says(ids[5], rollout.SaysFailed), {Device: ids[5], Version: "1.0.0"}},    // after the failure
		} {
			for k, err := range r.director.Reports(r.Context(), list) {
				if err != nil {
					r.Fatalf("device %d, report %d: %v", i, k, err)
				}
			}
		}
		r.must(r.operator.Abort(r.ctx(), d.ID, true))
		r.tick()
		want := []rollout.Late{rollout.LateInstalled, rollout.LateInstalled, rollout.LateInstalled, rollout.LateInstalled, "", rollout.LateBack, ""}
		for i, late := range want {
			if did, state := r.lateOf(d.ID, ids[i]); did != late || state.InFlight() {
				r.Errorf("device %d is %s, and late %q, want %q", i, state, did, late)
			}
		}
		if now := r.must(r.operator.Rollout(r.Context(), d.ID)); now.Counts[0].Late != 4 {
			r.Errorf("it counts %+v", now.Counts[0])
		}
		if wrong, err := r.store.RecountRollout(r.Context(), d.ID); err != nil || wrong {
			r.Errorf("the counts are not those of the rows: %v, %v", wrong, err)
		}
		if got := r.inRollback(d.ID); !slices.Equal(got, ids[:4]) {
			r.Errorf("the rollback has %v, want %v", got, ids[:4])
		}
	})
}

func TestWhoWaitsForARetrySaysNothingNewWithItsOldVersionOrItsFailure(t *testing.T) {
	onEach(t, 2, operator.Options{}, func(r *rig) {
		d := r.create(starting, allAtOnce, func(s *operator.Spec) {
			s.Plan.Phases[0].Failure = rollout.Threshold{}
			s.Plan.Attempts, s.Plan.RetryAfter = 3, time.Hour
		})
		r.tick()
		id := r.fleet.ids[0]
		failed := director.Report{Device: id, Fact: rollout.Fact{Event: rollout.SaysFailed, Action: r.devices(d.ID)[0].Action}}
		old := director.Report{Device: id, Version: "1.0.0"}
		for _, list := range [][]director.Report{{failed, failed, old}, {failed}, {old}} { // in the group of the failure, and later
			for k, err := range r.director.Reports(r.Context(), list) {
				if err != nil {
					r.Errorf("word %d of %d: %v", k+1, len(list), err)
				}
			}
		}
		if did, state := r.lateOf(d.ID, id); state != rollout.Queued || did != "" {
			r.Errorf("it is %s, and late %q", state, did)
		}
		if err := r.says(id, rollout.Fact{}, "2.0.0"); err != nil {
			r.Errorf("that it has the release is news: %v", err)
		}
		if did, _ := r.lateOf(d.ID, id); did != rollout.LateInstalled {
			r.Errorf("it has the release, and is late %q", did)
		}
	})
}

func TestAVersionOfAnotherProductIsNotLate(t *testing.T) {
	r := sqliteRig(t, 2, operator.Options{})
	d := r.create(starting, allAtOnce)
	r.tick()
	r.must(r.operator.Abort(r.ctx(), d.ID, true))
	r.tick()
	id := r.fleet.ids[0]
	for _, c := range []struct {
		product string
		want    rollout.Late
	}{{d.Product + "-boot", ""}, {d.Product, rollout.LateInstalled}} {
		_ = r.director.Reports(r.Context(), []director.Report{{Device: id, Version: "2.0.0", Product: c.product}}) // it may be about nothing
		if did, _ := r.lateOf(d.ID, id); did != c.want {
			t.Errorf("2.0.0 of %s: late %q, want %q", c.product, did, c.want)
		}
	}
}

func TestARollbackTakesAlongWhoInstalledWhatANewerRolloutHadTakenFromIt(t *testing.T) {
	onEach(t, 3, operator.Options{}, func(r *rig) {
		r.fleet.of = map[string]string{"rel_3": "3.0.0"}
		older := r.create(starting, allAtOnce)
		r.tick()
		id := r.fleet.ids[0]
		r.report(rollout.SaysDownloading, id)
		action := r.devices(older.ID)[0].Action
		newer := r.create(starting, allAtOnce, func(s *operator.Spec) { s.Release, s.Supersede = "rel_3", rollout.Replace })
		r.tick()
		if _, state := r.lateOf(newer.ID, id); state != rollout.Offered {
			r.Fatalf("the newer rollout has it %s", state)
		}
		for i, p := range []director.Report{
			{Device: id, Fact: rollout.Fact{Event: rollout.SaysInstalling, Action: action}},
			{Device: id, Fact: rollout.Fact{Action: action}, Version: "2.0.0"},
			{Device: id, Version: "2.0.0"},
		} {
			if err := r.director.Reports(r.Context(), []director.Report{p})[0]; err != nil {
				r.Fatalf("word %d: %v", i+1, err)
			}
		}
		if did, state := r.lateOf(older.ID, id); did != rollout.LateInstalled || state != rollout.Skipped {
			r.Errorf("the older rollout has it %s, and late %q", state, did)
		}
		if did, state := r.lateOf(newer.ID, id); did != "" || state != rollout.Offered {
			r.Errorf("the newer rollout has it %s, and late %q", state, did)
		}
		if wrong, err := r.store.RecountRollout(r.Context(), older.ID); err != nil || wrong {
			r.Errorf("the counts are not those of the rows: %v, %v", wrong, err)
		}
		r.must(r.operator.Abort(r.ctx(), newer.ID, false))
		r.tick()
		if got := r.inRollback(older.ID); !slices.Equal(got, []muster.DeviceID{id}) {
			r.Errorf("the rollback has %v", got)
		}
	})
}
