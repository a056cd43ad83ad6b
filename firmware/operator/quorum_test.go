package operator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/feed"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

// quorate is the rig's server started again, with another quorum.
func (r *rig) quorate(q rollout.Quorum) {
	notes := operator.NewNoting(r.store)
	r.operator = operator.New(operator.Parts{Store: r.store, Reader: r.store, Fleet: r.fleet, Facts: r.fleet, Releases: r.catalogue, Now: r.now}, notes, operator.Options{Quorum: q})
	r.director = director.New(notes, r.fleet, r.now, director.Options{Owner: "n1", Quorum: q})
}

// scheduled has a rollout wait for five seconds.
func (r *rig) scheduled(change ...func(*operator.Spec)) rollout.Rollout {
	r.Helper()
	return r.create(append(change, starting, func(s *operator.Spec) { s.StartAt = muster.MicrosOf(r.at.Add(5 * time.Second)) })...)
}

// is reads a rollout, and says when it is not in a status for a reason.
func (r *rig) is(id string, status rollout.Status, reason rollout.Reason) rollout.Rollout {
	r.Helper()
	x := r.must(r.operator.Rollout(r.Context(), id))
	if x.Status != status || x.Reason != reason {
		r.Errorf("it is %s (%s), want %s (%s)", x.Status, x.Reason, status, reason)
	}
	return x
}

func TestWhatWasScheduledBeforeTheServerAskedForApprovalsIsHeldUntilItHasThem(t *testing.T) {
	onEach(t, 20, operator.Options{}, func(r *rig) {
		d := r.scheduled()
		r.quorate(rollout.Quorum{Least: 2})
		r.tick()
		r.is(d.ID, rollout.Scheduled, "") // its time has not come
		r.at = r.at.Add(5 * time.Second)
		r.tick()
		if x := r.is(d.ID, rollout.Scheduled, rollout.Unapproved); x.MinApprovals != 2 || x.Started != 0 {
			r.Errorf("held it is %+v", x)
		}
		version := r.is(d.ID, rollout.Scheduled, rollout.Unapproved).Version
		if n := r.tickStates(d.ID); n["queued"] != 20 {
			r.Fatalf("held, and offered: %v", n)
		}
		if x := r.is(d.ID, rollout.Scheduled, rollout.Unapproved); x.Version != version {
			r.Errorf("it is written each second: version %d after %d", x.Version, version)
		}
		_, err := r.operator.Agree(r.ctx(), ann, d.ID, "")
		wantKind(r.T, "who made it agrees", err, muster.Forbidden)
		r.must(r.operator.Agree(r.ctx(), bob, d.ID, ""))
		r.tick()
		r.is(d.ID, rollout.Scheduled, rollout.Unapproved)
		r.must(r.operator.Agree(r.ctx(), eve, d.ID, ""))
		if n := r.tickStates(d.ID); n["offered"] != 10 {
			r.Errorf("agreed to it offers nothing: %v", n)
		}
		r.is(d.ID, rollout.Running, "")
		_, err = r.operator.Agree(r.ctx(), rollout.Person{ID: "usr_joe"}, d.ID, "")
		wantKind(r.T, "what runs is agreed to", err, muster.Conflict)
		if diff := cmp.Diff([]string{"create user", "hold system", "agree user", "agree user", "run system"}, r.actions()); diff != "" {
			r.Error(diff)
		}
		if diff := cmp.Diff([]string{feed.RolloutCreated, feed.RolloutHeld, feed.RolloutStarted}, r.events); diff != "" {
			r.Error(diff)
		}
	})
}

func TestWhatWasPausedBeforeItBeganIsNotResumedWithoutTheApprovals(t *testing.T) {
	onEach(t, 20, operator.Options{}, func(r *rig) {
		for _, wait := range []time.Duration{0, 10 * time.Second} { // its time comes before it is resumed, or later
			d := r.scheduled()
			r.must(r.operator.Pause(r.ctx(), d.ID))
			r.quorate(rollout.Quorum{Least: 1})
			r.at = r.at.Add(wait)
			_, err := r.operator.Resume(r.ctx(), d.ID, false)
			wantKind(r.T, "nobody has agreed", err, muster.Conflict)
			r.tick()
			r.is(d.ID, rollout.Paused, rollout.ByOperator)
			r.must(r.operator.Agree(r.ctx(), bob, d.ID, ""))
			r.must(r.operator.Resume(r.ctx(), d.ID, false))
			r.is(d.ID, map[bool]rollout.Status{true: rollout.Running, false: rollout.Scheduled}[wait > 0], "")
			r.quorate(rollout.Quorum{})
		}
	})
}

func TestWhatRanBeforeTheServerAskedForApprovalsGoesOn(t *testing.T) {
	r := sqliteRig(t, 20, operator.Options{})
	d := r.create(starting)
	r.tick()
	r.must(r.operator.Pause(r.ctx(), d.ID))
	r.quorate(rollout.Quorum{Least: 1})
	r.must(r.operator.Resume(r.ctx(), d.ID, false))
	r.tick()
	r.is(d.ID, rollout.Running, "")
}

func TestWhoIsDisabledOrLostTheRightDoesNotCountWhenARolloutStarts(t *testing.T) {
	onEach(t, 20, operator.Options{}, func(r *rig) {
		gone := map[string]bool{}
		q := rollout.Quorum{Least: 1, May: func(p rollout.Person) bool { return !gone[p.ID] }}
		d, later := r.create(), r.create(func(s *operator.Spec) { s.StartAt = muster.MicrosOf(r.at.Add(5 * time.Second)) })
		r.quorate(q)
		for _, x := range []rollout.Rollout{d, later} {
			r.must(r.operator.Agree(r.ctx(), bob, x.ID, ""))
		}
		r.must(r.operator.Start(r.ctx(), ann, later.ID))
		gone[bob.ID] = true
		_, err := r.operator.Start(r.ctx(), ann, d.ID)
		wantKind(r.T, "bob is disabled", err, muster.Conflict)
		if err == nil || !strings.Contains(err.Error(), "without 1 who may not any more") {
			r.Errorf("it is not said why: %v", err)
		}
		r.at = r.at.Add(5 * time.Second)
		r.tick()
		r.is(later.ID, rollout.Scheduled, rollout.Unapproved)
		r.must(r.operator.Agree(r.ctx(), eve, d.ID, ""))
		r.must(r.operator.Start(r.ctx(), ann, d.ID))
		gone[bob.ID] = false
		r.tick()
		r.is(later.ID, rollout.Running, "")
	})
}

func TestWhoMayNotAgreeAnyMoreMakesRoomForAnother(t *testing.T) {
	gone := map[string]bool{}
	r := sqliteRig(t, 20, operator.Options{Quorum: rollout.Quorum{Least: 1, May: func(p rollout.Person) bool { return !gone[p.ID] }}})
	d := r.create()
	for i := range operator.MaxApprovals {
		d = r.must(r.operator.Agree(r.ctx(), rollout.Person{ID: "usr_" + string(rune('a'+i))}, d.ID, ""))
	}
	_, err := r.operator.Agree(r.ctx(), eve, d.ID, "")
	wantKind(t, "one more than may", err, muster.Conflict)
	gone["usr_c"] = true
	d = r.must(r.operator.Agree(r.ctx(), eve, d.ID, ""))
	if len(d.Approvals) != operator.MaxApprovals || slices.ContainsFunc(d.Approvals, func(a rollout.Approval) bool { return a.By.ID == "usr_c" }) {
		t.Errorf("%d have agreed: %+v", len(d.Approvals), d.Approvals)
	}
}

func TestWhatAKeyThatNobodyOwnsWroteNeitherIsAgreedToNorStartsWhereOthersMustAgree(t *testing.T) {
	ownerless, note := rollout.Person{ID: "key_ci", Name: "CI"}, "by a key"
	for name, c := range map[string]struct{ least, own int }{"the server asks": {1, 0}, "the rollout asks": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			onEach(t, 20, operator.Options{Quorum: rollout.Quorum{Least: c.least}}, func(r *rig) {
				asking := func(s *operator.Spec) { s.MinApprovals = c.own }
				made := r.must(r.operator.Create(r.ctx(), ownerless, spec(asking)))
				wrote := r.create(asking)
				r.must(r.operator.Agree(r.ctx(), bob, wrote.ID, ""))
				_, err := r.operator.Start(r.ctx(), ownerless, wrote.ID)
				wantKind(r.T, "such a key starts it", err, muster.Forbidden)
				r.must(r.operator.Edit(r.ctx(), ownerless, wrote.ID, operator.Change{Note: &note}))
				for _, d := range []rollout.Rollout{made, wrote} {
					_, err = r.operator.Agree(r.ctx(), bob, d.ID, "")
					wantKind(r.T, "it is agreed to", err, muster.Forbidden)
					_, err = r.operator.Start(r.ctx(), ann, d.ID)
					wantKind(r.T, "it starts", err, muster.Conflict)
					if err == nil || !strings.Contains(err.Error(), "no user owns") {
						r.Errorf("it is not said why: %v", err)
					}
					r.is(d.ID, rollout.Draft, "")
				}
				_, err = r.operator.Create(r.ctx(), ownerless, spec(asking, starting))
				wantKind(r.T, "made and started by such a key", err, muster.Conflict)
				r.must(r.operator.Edit(r.ctx(), ann, wrote.ID, operator.Change{Note: &note})) // by who is known: it can be agreed to
				r.must(r.operator.Agree(r.ctx(), bob, wrote.ID, ""))
				r.must(r.operator.Start(r.ctx(), ann, wrote.ID))
			})
		})
	}
}

func TestWhatAKeyThatNobodyOwnsScheduledIsHeldWhereTheServerAsksForApprovals(t *testing.T) {
	r := sqliteRig(t, 20, operator.Options{})
	s := spec(starting)
	s.StartAt = muster.MicrosOf(r.at.Add(time.Second))
	d := r.must(r.operator.Create(r.ctx(), rollout.Person{ID: "key_ci"}, s))
	r.quorate(rollout.Quorum{Least: 1})
	r.tick()
	r.is(d.ID, rollout.Scheduled, rollout.Unapproved)
	_, err := r.operator.Agree(r.ctx(), bob, d.ID, "")
	wantKind(t, "it is agreed to", err, muster.Forbidden)
	r.must(r.operator.Abort(r.ctx(), d.ID, false)) // the way out
	r.tick()
	if n := r.states(d.ID); n["canceled"] != 20 {
		t.Errorf("aborted: %v", n)
	}
}
