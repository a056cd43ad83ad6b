package operator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
	"muster/feed"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/internal/precondition"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestARolloutIsWrittenStartedStoppedByItselfResumedAndRolledBackAndAllOfItIsTold(t *testing.T) {
	onEach(t, 30, operator.Options{}, func(r *rig) {
		d := r.create()
		if d.Status != rollout.Draft || d.Product != "pump" || d.Number == 0 || len(r.devices(d.ID)) != 0 {
			r.Fatalf("a draft is %+v", d)
		}
		d = r.must(r.operator.Start(r.ctx(), ann, d.ID))
		if n := r.states(d.ID); d.Status != rollout.Running || n["queued"] != 30 || d.Counts[0].Total() != 10 || d.Counts[1].Total() != 20 || d.StartedBy != ann {
			r.Fatalf("started it is %+v, %v", d, n)
		}
		r.tick()
		if n := r.states(d.ID); n["offered"] != 10 || n["queued"] != 20 {
			r.Fatalf("the canaries are offered: %v", n)
		}
		r.report(rollout.SaysFailed, r.fleet.ids[0], r.fleet.ids[1])
		if d = r.must(r.operator.Rollout(r.Context(), d.ID)); d.Status != rollout.Paused || d.Reason != rollout.TooManyFailures {
			r.Fatalf("it goes on: %s %s", d.Status, d.Reason)
		}
		r.tick()
		if n := r.states(d.ID); n["offered"] != 0 || n["queued"] != 28 {
			r.Fatalf("what was offered is taken back: %v", n)
		}
		r.must(r.operator.Resume(r.ctx(), d.ID, false))
		r.tick()
		r.report(rollout.SeesTarget, r.fleet.ids[2:10]...)
		r.tick()
		r.tick()
		if d = r.must(r.operator.Rollout(r.Context(), d.ID)); !d.Waiting || d.Phase != 0 {
			r.Fatalf("no gate: %+v", d)
		}
		r.must(r.operator.Approve(r.ctx(), d.ID))
		_, err := r.operator.Approve(r.ctx(), d.ID)
		wantKind(r.T, "a gate is passed twice", err, muster.Conflict)
		r.tick()
		_, err = r.operator.Rollback(r.ctx(), ann, d.ID, operator.Spec{Supersede: rollout.Wait})
		wantKind(r.T, "a rollback while it runs", err, muster.Conflict)
		r.must(r.operator.Abort(r.ctx(), d.ID, false))
		r.tick()
		if n := r.states(d.ID); n["confirmed"] != 8 || n["failed"] != 2 || n["canceled"] != 20 {
			r.Fatalf("aborted: %v", n)
		}
		back := r.must(r.operator.Rollback(r.ctx(), ann, d.ID, operator.Spec{Supersede: rollout.Wait, Start: true}))
		var got []muster.DeviceID
		for _, x := range r.devices(back.ID) {
			got = append(got, x.ID)
		}
		if !slices.Equal(got, r.fleet.ids[2:10]) || back.Release != "rel_1" || back.Name != "Rollback of Pumps" || back.Of != d.ID || back.Status != rollout.Running {
			r.Errorf("the rollback is %+v of %v", back, got)
		}
		want := []string{
			"create user", "start user", "stop system", "resume user", "gate system", "approve user", "abort user", "create user",
		}
		if diff := cmp.Diff(want, r.actions()); diff != "" {
			r.Error(diff)
		}
		if diff := cmp.Diff([]string{
			feed.RolloutCreated, feed.RolloutStarted, feed.RolloutStopped, feed.RolloutPaused, feed.RolloutResumed, feed.RolloutGate, feed.RolloutPhase, feed.RolloutGateClosed, feed.RolloutAborted,
			feed.RolloutCreated, feed.RolloutStarted,
		}, r.events); diff != "" {
			r.Error(diff)
		}
	})
}

func TestWhatIsWrittenWronglyIsRefusedWithItsPlace(t *testing.T) {
	r := sqliteRig(t, 20, operator.Options{})
	for at, change := range map[string]func(*operator.Spec){
		"name":                  func(s *operator.Spec) { s.Name = "" },
		"note":                  func(s *operator.Spec) { s.Note = strings.Repeat("x", 2001) },
		"seed":                  func(s *operator.Spec) { s.Seed = "a\x00" },
		"membership":            func(s *operator.Spec) { s.Membership = "some" },
		"supersede":             func(s *operator.Spec) { s.Supersede = "never" },
		"min_approvals":         func(s *operator.Spec) { s.MinApprovals = 17 },
		"q":                     func(s *operator.Spec) { s.Query = "" },
		"q/0":                   func(s *operator.Spec) { s.Query = "bad(" },
		"plan/phases/0/q/0":     func(s *operator.Spec) { s.Plan.Phases[0].Query = "bad(" },
		"plan/concurrent":       func(s *operator.Spec) { s.Plan.Concurrent = 0 },
		"rollback":              func(s *operator.Spec) { s.Rollback = "rel_x" },
		"plan/phases/1/percent": func(s *operator.Spec) { s.Plan.Phases[1].Percent = 99 },
	} {
		_, err := r.operator.Create(r.ctx(), ann, spec(change))
		if fields := muster.FieldsOf(err); muster.KindOf(err) != muster.Invalid || !slices.Equal(fields, []string{at}) {
			t.Errorf("%s: %v at %v", at, err, fields)
		}
	}
	_, err := r.operator.Create(r.ctx(), ann, spec(func(s *operator.Spec) { s.Release = "rel_9" }))
	wantKind(t, "a release that is not there", err, muster.NotFound)
	if list, err := r.store.Rollouts(t.Context(), operator.Query{Limit: 10}); err != nil || len(list) != 0 || len(r.events) != 0 || len(r.actions()) != 0 {
		t.Errorf("something is kept: %v, %v, %v", list, err, r.events)
	}
}

func TestARolloutStartsOnlyWithDevicesAGoodReleaseAndTheSecondPerson(t *testing.T) {
	onEach(t, 20, operator.Options{Quorum: rollout.Quorum{Least: 1}}, func(r *rig) {
		d := r.create()
		_, err := r.operator.Start(r.ctx(), ann, d.ID)
		wantKind(r.T, "nobody has agreed", err, muster.Conflict)
		_, err = r.operator.Create(r.ctx(), ann, spec(starting))
		wantKind(r.T, "made and started by one", err, muster.Conflict)
		_, err = r.operator.Agree(r.ctx(), ann, d.ID, "")
		wantKind(r.T, "who made it agrees", err, muster.Forbidden)
		if d = r.must(r.operator.Agree(r.ctx(), bob, d.ID, "seen")); len(d.Approvals) != 1 || d.Approvals[0].By != bob || d.Approvals[0].Note != "seen" {
			r.Fatalf("%+v", d.Approvals)
		}
		name := "Other pumps"
		if d = r.must(r.operator.Edit(r.ctx(), eve, d.ID, operator.Change{Name: &name})); len(d.Approvals) != 0 || d.Name != name || d.EditedBy != eve {
			r.Fatalf("what was agreed to is another thing: %+v", d)
		}
		_, err = r.operator.Agree(r.ctx(), eve, d.ID, "")
		wantKind(r.T, "who wrote it agrees", err, muster.Forbidden)
		zero, two, one := 0, 2, 1
		_, err = r.operator.Edit(r.ctx(), eve, d.ID, operator.Change{MinApprovals: &zero})
		wantKind(r.T, "the server's own count is undercut", err, muster.Invalid)
		if d = r.must(r.operator.Edit(r.ctx(), eve, d.ID, operator.Change{MinApprovals: &two})); d.MinApprovals != 2 {
			r.Errorf("more than the server asks for is %d", d.MinApprovals)
		}
		r.must(r.operator.Edit(r.ctx(), eve, d.ID, operator.Change{MinApprovals: &one}))
		r.must(r.operator.Agree(r.ctx(), bob, d.ID, ""))
		r.catalogue.bad["rel_2"] = true
		_, err = r.operator.Start(r.ctx(), ann, d.ID)
		wantKind(r.T, "a release that is not signed", err, muster.Conflict)
		delete(r.catalogue.bad, "rel_2")
		r.must(r.operator.Start(r.ctx(), ann, d.ID))
		_, err = r.operator.Start(r.ctx(), ann, d.ID)
		wantKind(r.T, "started twice", err, muster.Conflict)
		r.must(r.operator.Pause(r.ctx(), d.ID))
		r.catalogue.bad["rel_2"] = true
		_, err = r.operator.Resume(r.ctx(), d.ID, false)
		wantKind(r.T, "the release was withdrawn", err, muster.Conflict)
		none := r.create(func(s *operator.Spec) { s.Query = "none"; s.Release = "rel_1" })
		r.must(r.operator.Agree(r.ctx(), bob, none.ID, ""))
		_, err = r.operator.Start(r.ctx(), ann, none.ID)
		wantKind(r.T, "no devices", err, muster.Conflict)
		_, err = r.operator.Start(r.ctx(), ann, "rol_none")
		wantKind(r.T, "no rollout", err, muster.NotFound)
	})
}

func TestADraftOfBeforeTheServerAskedForApprovalsNeedsThemToo(t *testing.T) {
	r := sqliteRig(t, 20, operator.Options{})
	d := r.create()
	strict := operator.New(operator.Parts{Store: r.store, Reader: r.store, Fleet: r.fleet, Facts: r.fleet, Releases: r.catalogue, Now: r.now}, operator.NewNoting(r.store), operator.Options{Quorum: rollout.Quorum{Least: 1}})
	_, err := strict.Start(r.ctx(), ann, d.ID)
	wantKind(t, "nobody has agreed", err, muster.Conflict)
	r.must(strict.Agree(r.ctx(), bob, d.ID, ""))
	_, err = strict.Agree(r.ctx(), bob, d.ID, "")
	wantKind(t, "one person agrees twice", err, muster.Conflict)
	if d = r.must(strict.Start(r.ctx(), ann, d.ID)); d.Status != rollout.Running {
		t.Errorf("it is %s", d.Status)
	}
}

func TestARolloutStartsByItselfAtItsTime(t *testing.T) {
	r := sqliteRig(t, 20, operator.Options{})
	d := r.create(starting, func(s *operator.Spec) { s.StartAt = muster.MicrosOf(r.at.Add(5 * time.Second)) })
	if d.Status != rollout.Scheduled || len(r.devices(d.ID)) != 20 {
		t.Fatalf("%+v", d)
	}
	r.tick()
	if n := r.states(d.ID); n["queued"] != 20 {
		t.Fatalf("it begins too soon: %v", n)
	}
	r.at = r.at.Add(5 * time.Second)
	r.tick()
	d = r.must(r.operator.Rollout(t.Context(), d.ID))
	if n := r.states(d.ID); d.Status != rollout.Running || n["offered"] != 10 || d.Started == 0 {
		t.Errorf("%s, %v", d.Status, n)
	}
	if diff := cmp.Diff([]string{"create user", "run system"}, r.actions()); diff != "" {
		t.Error(diff)
	}
}

func TestWhileItRunsOnlyTheLimitsChangeAndOnlyDraftsAreDeleted(t *testing.T) {
	onEach(t, 20, operator.Options{}, func(r *rig) {
		d := r.create(starting)
		d = r.must(r.operator.Edit(r.ctx(), bob, d.ID, operator.Change{Plan: func(p *rollout.Plan) { p.Concurrent, p.PerMinute = 3, 60 }}))
		if d.Plan.Concurrent != 3 || d.Plan.PerMinute != 60 || d.EditedBy != ann {
			r.Errorf("%+v", d)
		}
		name := "x"
		_, err := r.operator.Edit(r.ctx(), bob, d.ID, operator.Change{Name: &name})
		wantKind(r.T, "its name", err, muster.Conflict)
		_, err = r.operator.Edit(r.ctx(), bob, d.ID, operator.Change{Plan: func(p *rollout.Plan) { p.Soak = time.Hour }})
		wantKind(r.T, "its soak", err, muster.Conflict)
		_, err = r.operator.Edit(r.ctx(), bob, d.ID, operator.Change{Plan: func(p *rollout.Plan) { p.Concurrent = -1 }})
		wantKind(r.T, "a cap that is none", err, muster.Invalid)
		wantKind(r.T, "deleted while it runs", r.operator.Delete(r.ctx(), d.ID), muster.Conflict)
		draft := r.create()
		stale := precondition.With(r.ctx(), func(any) error { return muster.Errorf(muster.Stale, "changed") })
		wantKind(r.T, "deleted by who has seen another", r.operator.Delete(stale, draft.ID), muster.Stale)
		_, err = r.operator.Pause(stale, d.ID)
		wantKind(r.T, "paused by who has seen another", err, muster.Stale)
		if err := r.operator.Delete(r.ctx(), draft.ID); err != nil {
			r.Fatal(err)
		}
		_, err = r.operator.Rollout(r.Context(), draft.ID)
		wantKind(r.T, "it is gone", err, muster.NotFound)
		if got := r.actions(); !slices.Equal(got, []string{"create user", "update user", "create user", "delete user"}) {
			r.Errorf("%v", got)
		}
	})
}

func TestNothingIsOfferedAfterAPauseAndForceEndsWhoInstalls(t *testing.T) {
	r := sqliteRig(t, 30, operator.Options{})
	d := r.create(starting, func(s *operator.Spec) { s.Plan.Phases = s.Plan.Phases[1:] })
	r.tick()
	r.report(rollout.SaysInstalling, r.fleet.ids[:4]...)
	r.must(r.operator.Abort(r.ctx(), d.ID, false))
	r.tick()
	if n := r.states(d.ID); n["installing"] != 4 || n["canceled"] != 26 {
		t.Fatalf("softly: %v", n)
	}
	r.must(r.operator.Abort(r.ctx(), d.ID, true))
	r.tick()
	if n := r.states(d.ID); n["canceled"] != 30 {
		t.Errorf("by force: %v", n)
	}
	err := r.director.Reports(t.Context(), []director.Report{{Device: r.fleet.ids[0], Fact: rollout.Fact{Event: rollout.SaysDownloading}}})[0]
	wantKind(t, "what it says later", err, muster.NotFound)
	if open, err := r.store.Open(t.Context(), 10); err != nil || len(open) != 0 {
		t.Errorf("it is looked after still: %v, %v", open, err)
	}
}

func TestANewerRolloutTakesItsDevicesFromOlderOnesOfTheProduct(t *testing.T) {
	onEach(t, 30, operator.Options{}, func(r *rig) {
		all := func(s *operator.Spec) { s.Plan.Phases = s.Plan.Phases[1:] }
		old := r.create(starting, all)
		other := r.create(starting, all, func(s *operator.Spec) { s.Release, s.Rollback, s.Plan.Concurrent = "rel_x", "", 1 })
		r.tick()
		r.report(rollout.SaysInstalling, r.fleet.ids[:3]...)
		told := r.told[old.ID]
		waits := r.create(starting, all, func(s *operator.Spec) { s.Release = "rel_3" })
		if n := r.states(old.ID); n["skipped"] != 0 {
			r.Fatalf("one that waits takes: %v", n)
		}
		r.must(r.operator.Supersede(r.ctx(), ann, waits.ID))
		if n := r.states(old.ID); n["skipped"] != 27 || n["installing"] != 3 {
			r.Errorf("the older has %v", n)
		}
		if n := r.states(other.ID); n["skipped"] != 0 {
			r.Errorf("one of another product has %v", n)
		}
		if r.told[old.ID] != told+27 {
			r.Errorf("%d changes are told", r.told[old.ID]-told)
		}
		for _, d := range r.devices(old.ID) {
			if d.State == rollout.Skipped && d.Reason != rollout.Superseded {
				r.Errorf("%+v", d)
			}
		}
		newest := r.create(starting, all, func(s *operator.Spec) { s.Supersede, s.Plan.Concurrent = rollout.Replace, 1 })
		if n := r.states(waits.ID); n["skipped"] != 30 || newest.Replacing {
			r.Errorf("replaced at the start: %v, %v", n, newest.Replacing)
		}
		draft := r.create()
		_, err := r.operator.Supersede(r.ctx(), ann, draft.ID)
		wantKind(r.T, "a draft supersedes", err, muster.Conflict)
	})
}

func TestWhoWaitsForAWindowIsLookedAtAnewWhenItIsAnother(t *testing.T) {
	onEach(t, 20, operator.Options{}, func(r *rig) {
		minute := rollout.Clock(r.at.UTC().Hour()*60 + r.at.UTC().Minute())
		r.fleet.now = func() time.Time { return r.at.UTC() }
		d := r.create(starting, func(s *operator.Spec) {
			s.Plan.Phases = s.Plan.Phases[1:]
			s.Plan.Phases[0].Failure, s.Plan.Attempts, s.Plan.RetryAfter = rollout.Threshold{}, 2, time.Hour
			s.Plan.Concurrent = 1
		})
		r.tick()
		retry := r.devices(d.ID)[slices.IndexFunc(r.devices(d.ID), func(x rollout.Device) bool { return x.State == rollout.Offered })].ID
		windows := func(w ...rollout.Window) {
			r.Helper()
			r.must(r.operator.Edit(r.ctx(), ann, d.ID, operator.Change{Plan: func(p *rollout.Plan) { p.Windows, p.Concurrent = w, 100 }}))
		}
		windows(rollout.Window{From: (minute + 120) % 1440, To: (minute + 180) % 1440})
		r.report(rollout.SaysFailed, retry)
		r.tick()
		if n := r.states(d.ID); n["queued"] != 20 {
			r.Fatalf("the window is closed: %v", n)
		}
		windows()
		r.tick()
		if n := r.states(d.ID); n["offered"] != 19 || n["queued"] != 1 {
			r.Errorf("there is no window any more: %v", n)
		}
		r.at = r.at.Add(time.Hour)
		if n := r.tickStates(d.ID); n["offered"] != 20 {
			r.Errorf("the retry is due: %v", n)
		}
	})
}

func TestASuccessionThatBrokeOffIsEndedByTick(t *testing.T) {
	r := sqliteRig(t, 30, operator.Options{})
	all := func(s *operator.Spec) { s.Plan.Phases = s.Plan.Phases[1:] }
	old := r.create(starting, all, func(s *operator.Spec) { s.Plan.Concurrent = 1 })
	next := r.create(starting, all, func(s *operator.Spec) { s.Plan.Concurrent = 1 })
	err := r.store.Decide(t.Context(), next.ID, director.Fence{}, 1, director.Select{}, func(x *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		x.Replacing = true // and the process ends
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.ticks()
	next = r.must(r.operator.Rollout(t.Context(), next.ID))
	if n := r.states(old.ID); n["skipped"] != 30 || next.Replacing {
		t.Errorf("%v, %v", n, next.Replacing)
	}
}

func TestWhyNamesTheFirstRuleThatHoldsTheReleaseBack(t *testing.T) {
	r := sqliteRig(t, 30, operator.Options{})
	draft := r.create()
	d := r.create(starting, func(s *operator.Spec) { s.Plan.Concurrent = 2 })
	blocked := muster.MicrosOf(r.at.Add(time.Hour))
	r.fleet.held = func(_ *rollout.Rollout, id muster.DeviceID, f *rollout.Facts) {
		if id == "dev-000003" {
			f.Blocked = blocked
		}
	}
	ask := func(id string, device muster.DeviceID) operator.Why {
		t.Helper()
		w, err := r.operator.Why(t.Context(), id, device)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for _, c := range []struct {
		rollout string
		device  muster.DeviceID
		held    string
		words   string
	}{
		{draft.ID, "dev-000001", "in_rollout", "The device does not get the release: the rollout has no devices before it starts; this one matches now."},
		{draft.ID, "else", "in_rollout", "The device does not get the release: the rollout has no devices before it starts; this one does not match now."},
		{d.ID, "else", "in_rollout", "The device does not get the release: the device does not match the rollout's query."},
		{d.ID, "dev-000001", "", "Nothing holds the release back: the device is offered it within a second."},
		{d.ID, "dev-000003", "not_blocked", "The device waits: the device failed too often of late in other rollouts, until 2027-01-15 09:00:00 UTC."},
		{d.ID, "dev-000020", "phase_open", "The device waits: the device is in phase all, the rollout in canary."},
	} {
		if w := ask(c.rollout, c.device); w.Held != c.held || w.Words != c.words || len(w.Rules) != 24 || w.Version != "1.0.0" {
			t.Errorf("%s of %s: %q, %q, %d rules", c.device, c.rollout, w.Held, w.Words, len(w.Rules))
		}
	}
	r.tick()
	offered := r.devices(d.ID)[slices.IndexFunc(r.devices(d.ID), func(x rollout.Device) bool { return x.State == rollout.Offered })]
	if w := ask(d.ID, offered.ID); w.Words != fmt.Sprintf("The device has the offer (action %d), and is offered.", offered.Action) {
		t.Errorf("%q", w.Words)
	}
	r.report(rollout.SaysDenied, offered.ID)
	if w := ask(d.ID, offered.ID); w.Words != "The rollout is through with the device: it is skipped: denied." || w.Held != "not_ended" {
		t.Errorf("%q, %q", w.Words, w.Held)
	}
	_, err := r.operator.Why(t.Context(), "rol_none", "dev-000001")
	wantKind(t, "no rollout", err, muster.NotFound)
}

// A rollout that does not run holds nothing back from a device that has its release, and is no reason for one that it is through with.
func TestWhyOfADeviceThatHasTheReleaseNamesNothingThatHoldsItBack(t *testing.T) {
	r := sqliteRig(t, 30, operator.Options{})
	d := r.create(starting)
	has := muster.DeviceID("")
	r.fleet.held = func(_ *rollout.Rollout, id muster.DeviceID, f *rollout.Facts) {
		if f.Installed = id == has; f.Installed {
			f.Version = "2.0.0"
		}
	}
	r.tick()
	list := r.devices(d.ID)
	denies := list[slices.IndexFunc(list, func(x rollout.Device) bool { return x.State == rollout.Offered })].ID
	waits := list[slices.IndexFunc(list, func(x rollout.Device) bool { return x.State == rollout.Queued })].ID
	r.report(rollout.SaysDenied, denies)
	_, err := r.operator.Pause(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		device, has muster.DeviceID
		held, words string
	}{
		{waits, waits, "", "The device has the release already: it reports 2.0.0."},
		{"else", "else", "", "The device has the release already: it reports 2.0.0. It is not in the rollout: the device does not match the rollout's query."},
		{denies, denies, "", "The device has the release all the same: it reports 2.0.0. The rollout is through with it: it is skipped: denied."},
		{denies, "", "not_ended", "The rollout is through with the device: it is skipped: denied."},
		{waits, "", "rollout_running", "The device waits: the rollout is paused: operator."},
	} {
		has = c.has
		if w, err := r.operator.Why(t.Context(), d.ID, c.device); err != nil || w.Held != c.held || w.Words != c.words {
			t.Errorf("%s: held by %q, %q, %v, want %q, %q", c.device, w.Held, w.Words, err, c.held, c.words)
		}
	}
}

func TestTheRateAndTheEndAreFoundFromWhatEnded(t *testing.T) {
	r := sqliteRig(t, 40, operator.Options{})
	d := r.create(starting, func(s *operator.Spec) { s.Plan.Phases = s.Plan.Phases[1:] })
	look := func() operator.Progress {
		t.Helper()
		p, err := r.operator.Progress(t.Context(), d.ID)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	before := r.operator.Changes()
	if p := look(); p.Total != 40 || p.Ended != 0 || p.PerMinute != 0 || p.ETA != 0 {
		t.Errorf("%+v", p)
	}
	r.tick()
	r.report(rollout.SeesTarget, r.fleet.ids[:10]...)
	r.at = r.at.Add(28 * time.Second)
	r.tick()
	if p := look(); p.Ended != 10 || p.InFlight != 30 || p.PerMinute != 20 || p.ETA != 90*time.Second {
		t.Errorf("%d ended, %d in flight, %v a minute, %v", p.Ended, p.InFlight, p.PerMinute, p.ETA)
	}
	if r.operator.Changes() <= before {
		t.Error("nobody is told that something changed")
	}
	_, err := r.operator.Progress(t.Context(), "rol_none")
	wantKind(t, "no rollout", err, muster.NotFound)
}

func TestWhoDidAVerbSeesAtOnceWhatCameOfIt(t *testing.T) {
	r := sqliteRig(t, 10, operator.Options{})
	d := r.create()
	for _, verb := range []struct {
		do   func() (rollout.Rollout, error)
		want rollout.Status
	}{
		{func() (rollout.Rollout, error) { return r.operator.Start(r.ctx(), ann, d.ID) }, rollout.Running},
		{func() (rollout.Rollout, error) { return r.operator.Pause(r.ctx(), d.ID) }, rollout.Paused},
	} {
		if _, err := r.operator.Progress(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
		r.must(verb.do())
		if p, err := r.operator.Progress(t.Context(), d.ID); err != nil || p.Rollout.Status != verb.want {
			t.Errorf("it is shown as %s, want %s: %v", p.Rollout.Status, verb.want, err)
		}
	}
}

func TestWhyNamesTheWindowThatADeviceWaitsFor(t *testing.T) {
	r := sqliteRig(t, 30, operator.Options{})
	d := r.create(starting, func(s *operator.Spec) {
		s.Plan.Windows = []rollout.Window{{Days: []time.Weekday{(r.at.UTC().Weekday() + 3) % 7}, From: 60, To: 120}}
	})
	r.tick()
	first := r.devices(d.ID)[slices.IndexFunc(r.devices(d.ID), func(x rollout.Device) bool { return x.Phase == 0 })]
	w, err := r.operator.Why(t.Context(), d.ID, first.ID)
	if err != nil || w.Held != "window_open" {
		t.Fatalf("%q holds it back: %s, %v", w.Held, w.Words, err)
	}
	if i := slices.IndexFunc(w.Rules, func(x rollout.Rule) bool { return x.Name == "window_open" }); w.Rules[i].Until == 0 {
		t.Errorf("it is not said until when: %+v", w.Rules[i])
	}
}

// TestWhyNamesTheWindowThatADeviceWaitsForWithTheImage: on both engines, with the slot that it gave back.
func TestWhyNamesTheWindowThatADeviceWaitsForWithTheImage(t *testing.T) {
	onEach(t, 3, operator.Options{}, func(r *rig) {
		d := r.create(starting, allAtOnce, func(s *operator.Spec) { s.Plan.Concurrent = 1 })
		r.tick()
		id := r.devices(d.ID)[slices.IndexFunc(r.devices(d.ID), func(x rollout.Device) bool { return x.State == rollout.Offered })].ID
		r.report(rollout.SaysDownloaded, id)
		r.must(r.operator.Edit(r.ctx(), ann, d.ID, operator.Change{Plan: func(p *rollout.Plan) {
			p.Windows = []rollout.Window{{Days: []time.Weekday{(r.at.UTC().Weekday() + 3) % 7}, From: 60, To: 120}}
		}}))
		r.tick()
		w, err := r.operator.Why(r.Context(), d.ID, id)
		if err != nil || w.Held != "window_open" || !strings.HasPrefix(w.Words, "The device has the image (action ") || !strings.Contains(w.Words, "the maintenance window is closed, until ") {
			r.Fatalf("%q holds it back: %s, %v", w.Held, w.Words, err)
		}
		if p, err := r.operator.Progress(r.Context(), d.ID); err != nil || p.InFlight != 0 {
			r.Fatalf("%d slots are taken, %v", p.InFlight, err)
		}
		r.must(r.operator.Edit(r.ctx(), ann, d.ID, operator.Change{Plan: func(p *rollout.Plan) { p.Windows = nil }}))
		if w, err = r.operator.Why(r.Context(), d.ID, id); err != nil || w.Held != "" {
			r.Errorf("there is no window any more, and %q holds it back: %s, %v", w.Held, w.Words, err)
		}
		r.tick()
		if w, err = r.operator.Why(r.Context(), d.ID, id); err != nil || w.Held != "not_in_flight" || w.Device.State != rollout.Downloaded || w.Device.Parked() {
			r.Errorf("it may install, and is %+v: %s, %v", w.Device, w.Words, err)
		}
	})
}

func TestWhyNamesWhatASleepingDeviceWaitsForAndNoTime(t *testing.T) {
	r := sqliteRig(t, 30, operator.Options{})
	r.fleet.held = func(_ *rollout.Rollout, _ muster.DeviceID, f *rollout.Facts) { f.Reachable = false }
	d := r.create(starting)
	r.tick()
	first := r.devices(d.ID)[slices.IndexFunc(r.devices(d.ID), func(x rollout.Device) bool { return x.Phase == 0 })]
	w, err := r.operator.Why(t.Context(), d.ID, first.ID)
	if err != nil || w.Held != "reachable" || w.Device.Retry != 0 {
		t.Errorf("%q holds it back until %d: %s, %v", w.Held, w.Device.Retry, w.Words, err)
	}
	for _, rule := range w.Rules {
		if rule.Until != 0 {
			t.Errorf("%s holds until %d", rule.Name, rule.Until)
		}
	}
}
