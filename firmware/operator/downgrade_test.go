package operator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/audit"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

// versions has devices report what they run, and release rel_1 be 1.0.0; rel_2 is 2.0.0.
func (r *rig) versions(runs map[muster.DeviceID]string) {
	r.fleet.of = map[string]string{"rel_1": "1.0.0"}
	r.fleet.held = func(x *rollout.Rollout, id muster.DeviceID, f *rollout.Facts) {
		if v, ok := runs[id]; ok {
			f.Version = v
		}
		f.Installed = r.fleet.Is(x, f.Version)
		f.Newer = f.Version == "2.0.0" && x.Release == "rel_1"
	}
}

// confirms has devices report the release of what is in flight at them, and soak.
func (r *rig) confirms(runs map[muster.DeviceID]string, version string, ids ...muster.DeviceID) {
	r.Helper()
	for _, id := range ids {
		runs[id] = version
		if err := r.says(id, rollout.Fact{}, version); err != nil {
			r.Fatalf("%s reports %s: %v", id, version, err)
		}
	}
	r.tick()
}

// isIn is a device of a rollout, with what holds it back by its why.
func (r *rig) isIn(id string, device muster.DeviceID) (d rollout.Device, held string) {
	r.Helper()
	w, err := r.operator.Why(r.Context(), id, device)
	if err != nil {
		r.Fatal(err)
	}
	return w.Device, w.Held
}

// wakes has those looked at who sleep, as the server does when another rollout is through with them.
func (r *rig) wakes(ids ...muster.DeviceID) {
	r.Helper()
	if _, err := r.store.WakeDevices(r.Context(), ids, muster.MicrosOf(r.at)); err != nil {
		r.Fatal(err)
	}
}

func TestARollbackWaitsForWhoInstallsAndTakesItBackWhenItHasTheRelease(t *testing.T) {
	onEach(t, 3, operator.Options{}, func(r *rig) {
		runs := map[muster.DeviceID]string{}
		r.versions(runs)
		d := r.create(starting, allAtOnce)
		r.tick()
		busy, done := r.fleet.ids[0], r.fleet.ids[1]
		r.confirms(runs, "2.0.0", done)
		r.report(rollout.SaysInstalling, busy)
		for what, stop := range map[string]func() rollout.Rollout{
			"a rollback": func() rollout.Rollout {
				r.must(r.operator.Pause(r.ctx(), d.ID))
				return r.must(r.operator.Rollback(r.ctx(), ann, d.ID, operator.Spec{Supersede: rollout.Wait, Start: true}))
			},
			"a rollout of the release before": func() rollout.Rollout {
				return r.create(starting, allAtOnce, func(s *operator.Spec) { s.Release, s.Rollback, s.Downgrade = "rel_1", "", true })
			},
		} {
			back := stop()
			r.tick()
			if x, held := r.isIn(back.ID, busy); x.State != rollout.Queued || held != "no_other_rollout" {
				r.Fatalf("%s: who installs is %s (%s), held by %q", what, x.State, x.Reason, held)
			}
			if what != "a rollback" {
				r.must(r.operator.Abort(r.ctx(), back.ID, false)) // one of them is enough for the rest
				r.tick()
			}
		}
		backs, err := r.store.Rollouts(r.Context(), operator.Query{Release: "rel_1", Status: rollout.Running, Limit: 9})
		if err != nil || len(backs) != 1 {
			r.Fatalf("%d rollouts go back, %v", len(backs), err)
		}
		r.confirms(runs, "2.0.0", busy)
		r.wakes(busy)
		r.tick()
		if x, held := r.isIn(backs[0].ID, busy); x.State != rollout.Offered {
			r.Fatalf("confirmed, it is %s (%s), held by %q", x.State, x.Reason, held)
		}
		r.confirms(runs, "1.0.0", busy)
		if x, _ := r.isIn(backs[0].ID, busy); x.State != rollout.Confirmed {
			r.Errorf("it is not taken back: %+v", x)
		}
	})
}

// TestARollbackTakesBackWhoBeginsToInstallJustAfterItsStart has a device hear of the pause when it has begun.
func TestARollbackTakesBackWhoBeginsToInstallJustAfterItsStart(t *testing.T) {
	onEach(t, 3, operator.Options{}, func(r *rig) {
		runs := map[muster.DeviceID]string{}
		r.versions(runs)
		d := r.create(starting, allAtOnce)
		r.tick()
		done, busy, idle := r.fleet.ids[0], r.fleet.ids[1], r.fleet.ids[2]
		r.confirms(runs, "2.0.0", done)
		r.report(rollout.SaysDownloaded, busy, idle)
		r.must(r.operator.Pause(r.ctx(), d.ID))
		back := r.must(r.operator.Rollback(r.ctx(), ann, d.ID, operator.Spec{Supersede: rollout.Wait, Start: true}))
		r.report(rollout.SaysInstalling, busy)
		r.tick()
		if x, held := r.isIn(back.ID, busy); x.State != rollout.Queued || held != "no_other_rollout" {
			r.Fatalf("who installs is %s (%s), held by %q", x.State, x.Reason, held)
		}
		r.wakes(idle)
		r.tick()
		if x, _ := r.isIn(back.ID, idle); x.State != rollout.Skipped || x.Reason != rollout.AlreadyInstalled {
			r.Errorf("who was recalled is %s (%s)", x.State, x.Reason)
		}
		r.confirms(runs, "2.0.0", busy)
		r.wakes(busy)
		r.tick()
		if x, held := r.isIn(back.ID, busy); x.State != rollout.Offered {
			r.Errorf("confirmed, it is %s (%s), held by %q", x.State, x.Reason, held)
		}
	})
}

// TestASecondRollbackTakesBackWhoGotTheReleaseAfterTheFirstHadSkippedIt: an end is never left.
func TestASecondRollbackTakesBackWhoGotTheReleaseAfterTheFirstHadSkippedIt(t *testing.T) {
	onEach(t, 3, operator.Options{}, func(r *rig) {
		runs := map[muster.DeviceID]string{}
		r.versions(runs)
		d := r.create(starting, allAtOnce, func(s *operator.Spec) { s.Plan.Phases[0].Failure = rollout.Threshold{} })
		r.tick()
		slow, done := r.fleet.ids[0], r.fleet.ids[1]
		r.confirms(runs, "2.0.0", done)
		r.report(rollout.SaysInstalling, slow)
		r.must(r.operator.Pause(r.ctx(), d.ID))
		first := r.must(r.operator.Rollback(r.ctx(), ann, d.ID, operator.Spec{Supersede: rollout.Wait, Start: true}))
		r.tick()
		r.at = r.at.Add(d.Plan.Deadlines.Installing)
		r.tick()
		if x, _ := r.isIn(d.ID, slow); x.State != rollout.TimedOut {
			r.Fatalf("silent, it is %s", x.State)
		}
		r.wakes(slow)
		r.tick()
		if x, _ := r.isIn(first.ID, slow); x.State != rollout.Skipped || x.Reason != rollout.AlreadyInstalled {
			r.Fatalf("with the old version it is %s (%s)", x.State, x.Reason)
		}
		r.confirms(runs, "1.0.0", done)
		r.is(first.ID, rollout.Completed, "")
		runs[slow] = "2.0.0"
		if err := r.says(slow, rollout.Fact{}, "2.0.0"); err != nil {
			r.Fatalf("it has the release late: %v", err)
		}
		if late, state := r.lateOf(d.ID, slow); late != rollout.LateInstalled || state != rollout.TimedOut {
			r.Errorf("it is %s, late %q", state, late)
		}
		if x := r.must(r.operator.Rollout(r.Context(), d.ID)); x.Counts[0].Late != 1 {
			r.Errorf("it counts %+v", x.Counts[0])
		}
		second := r.must(r.operator.Rollback(r.ctx(), ann, d.ID, operator.Spec{Supersede: rollout.Wait, Start: true}))
		if n := r.tickStates(second.ID); n["offered"] != 1 || n["skipped"] != 1 {
			r.Fatalf("the second has %v", n)
		}
		r.confirms(runs, "1.0.0", slow)
		if x, _ := r.isIn(second.ID, slow); x.State != rollout.Confirmed {
			r.Errorf("it is not taken back: %+v", x)
		}
		r.is(second.ID, rollout.Completed, "")
	})
}

func TestARolloutWhoseReleaseWasDeprecatedDoesNotBeginAtItsTimeNorIsResumed(t *testing.T) {
	onEach(t, 20, operator.Options{}, func(r *rig) {
		waits, runs := r.scheduled(), r.create(starting, allAtOnce)
		r.tick()
		r.catalogue.outdated["rel_2"] = true
		r.must(r.operator.Pause(r.ctx(), runs.ID))
		r.must(r.operator.Resume(r.ctx(), runs.ID, false)) // what has begun goes on
		r.at = r.at.Add(5 * time.Second)
		r.tick()
		r.is(runs.ID, rollout.Running, "")
		if x := r.is(waits.ID, rollout.Paused, rollout.ReleaseOutdated); x.Started != 0 {
			r.Errorf("it began: %+v", x)
		}
		_, err := r.operator.Resume(r.ctx(), waits.ID, false)
		wantKind(r.T, "it is resumed", err, muster.Conflict)
		if n := r.states(waits.ID); n["queued"] != 20 {
			r.Errorf("it has %v", n)
		}
		if got := r.actions(); got[len(got)-1] != "stop system" {
			r.Errorf("the audit log has %v", got)
		}
	})
}

func TestAChangeOfWhatIsScheduledTakesTheApprovalsBack(t *testing.T) {
	onEach(t, 20, operator.Options{Quorum: rollout.Quorum{Least: 1}}, func(r *rig) {
		faster := operator.Change{Plan: func(p *rollout.Plan) { p.Concurrent, p.Windows = 1_000_000, nil }}
		agreed := func() rollout.Rollout {
			d := r.create(func(s *operator.Spec) { s.StartAt = muster.MicrosOf(r.at.Add(5 * time.Second)) })
			r.must(r.operator.Agree(r.ctx(), bob, d.ID, ""))
			return r.must(r.operator.Start(r.ctx(), ann, d.ID))
		}
		for what, change := range map[string]func(id string) (rollout.Rollout, error){
			"its plan": func(id string) (rollout.Rollout, error) { return r.operator.Edit(r.ctx(), eve, id, faster) },
			"its plan, paused": func(id string) (rollout.Rollout, error) {
				r.must(r.operator.Pause(r.ctx(), id))
				r.must(r.operator.Edit(r.ctx(), eve, id, faster))
				_, err := r.operator.Resume(r.ctx(), id, false)
				wantKind(r.T, "resumed without the approvals", err, muster.Conflict)
				return r.operator.Rollout(r.ctx(), id)
			},
			"what becomes of older ones": func(id string) (rollout.Rollout, error) { return r.operator.Supersede(r.ctx(), eve, id) },
		} {
			d := agreed()
			d, err := change(d.ID)
			if err != nil || len(d.Approvals) != 0 || d.EditedBy != eve {
				r.Fatalf("%s: %+v by %v, %v", what, d.Approvals, d.EditedBy, err)
			}
			_, err = r.operator.Agree(r.ctx(), eve, d.ID, "")
			wantKind(r.T, "who changed it agrees", err, muster.Forbidden)
			r.at = r.at.Add(5 * time.Second)
			r.tick()
			want := rollout.Unapproved
			if d.Status == rollout.Paused {
				want = rollout.ByOperator
			}
			r.is(d.ID, d.Status, want)
			r.must(r.operator.Agree(r.ctx(), bob, d.ID, ""))
			if d.Status == rollout.Paused {
				r.must(r.operator.Resume(r.ctx(), d.ID, false))
			}
			r.tick()
			r.is(d.ID, rollout.Running, "")
			d = r.must(r.operator.Edit(r.ctx(), eve, d.ID, faster)) // what runs stays agreed to
			if d = r.must(r.operator.Supersede(r.ctx(), eve, d.ID)); len(d.Approvals) != 1 || d.EditedBy != eve {
				r.Errorf("%s: once it runs it is %+v by %v", what, d.Approvals, d.EditedBy)
			}
			r.must(r.operator.Abort(r.ctx(), d.ID, true))
			r.tick()
		}
		records, err := r.store.AuditAfter(r.Context(), 0, 1000)
		if err != nil {
			r.Fatal(err)
		}
		i := slices.IndexFunc(records, func(x audit.Record) bool { return x.Action == "rollout.update" || x.Action == "rollout.supersede" })
		if i < 0 || !strings.Contains(string(records[i].Before), "usr_bob") || strings.Contains(string(records[i].After), "usr_bob") {
			r.Errorf("the audit log does not say what was taken back: %+v", records[max(i, 0)])
		}
	})
}

// lower has 2.0.0, of a security version of 8, confirmed by two devices, and release 1.0.0 have 7.
func (r *rig) lower() (d rollout.Rollout, runs map[muster.DeviceID]string) {
	r.Helper()
	runs = map[muster.DeviceID]string{}
	r.versions(runs)
	r.catalogue.security["rel_2"] = 8
	d = r.create(starting, allAtOnce)
	r.tick()
	r.confirms(runs, "2.0.0", r.fleet.ids[:2]...)
	if d = r.must(r.operator.Rollout(r.Context(), d.ID)); d.Status == rollout.Running {
		r.must(r.operator.Abort(r.ctx(), d.ID, true))
		r.tick()
	}
	return d, runs
}

func TestWhoReportsANewerVersionIsSkippedUnlessTheRolloutIsADowngrade(t *testing.T) {
	onEach(t, 3, operator.Options{}, func(r *rig) {
		runs := map[muster.DeviceID]string{r.fleet.ids[0]: "2.0.0", r.fleet.ids[1]: "0.9.0", r.fleet.ids[2]: "2.0.0"}
		r.versions(runs)
		older := func(s *operator.Spec) { s.Release, s.Rollback = "rel_1", "" }
		d := r.create(starting, allAtOnce, older)
		if n := r.tickStates(d.ID); n["skipped"] != 2 || n["offered"] != 1 {
			r.Fatalf("it has %v", n)
		}
		w, err := r.operator.Why(r.Context(), d.ID, r.fleet.ids[0])
		if err != nil || w.Device.Reason != rollout.Ineligible || !strings.Contains(w.Words, "newer than the release's, and the rollout is no downgrade") {
			r.Errorf("%s, %v", w.Words, err)
		}
		r.must(r.operator.Abort(r.ctx(), d.ID, true))
		r.tick()
		down := r.create(allAtOnce, older)
		yes := true
		if down = r.must(r.operator.Edit(r.ctx(), ann, down.ID, operator.Change{Downgrade: &yes})); !down.Downgrade {
			r.Fatal("it is not kept")
		}
		r.must(r.operator.Start(r.ctx(), ann, down.ID))
		if n := r.tickStates(down.ID); n["offered"] != 3 {
			r.Errorf("a downgrade has %v", n)
		}
		if r.must(r.operator.Rollout(r.Context(), d.ID)).Downgrade {
			r.Error("it is one by itself")
		}
		_, err = r.operator.Edit(r.ctx(), ann, down.ID, operator.Change{Downgrade: &yes})
		wantKind(r.T, "what runs becomes one", err, muster.Conflict)
	})
}

func TestBelowTheSecurityVersionThatDevicesConfirmedNothingGoesWithoutASecondPerson(t *testing.T) {
	one, plain := 1, operator.Change{}
	for name, start := range map[string]func(r *rig, of string, needs int, begin bool) (rollout.Rollout, error){
		"by a rollback": func(r *rig, of string, needs int, begin bool) (rollout.Rollout, error) {
			return r.operator.Rollback(r.ctx(), ann, of, operator.Spec{Supersede: rollout.Wait, MinApprovals: needs, Start: begin})
		},
		"by a downgrade": func(r *rig, _ string, needs int, begin bool) (rollout.Rollout, error) {
			return r.operator.Create(r.ctx(), ann, spec(allAtOnce, func(s *operator.Spec) {
				s.Release, s.Rollback, s.Downgrade, s.MinApprovals, s.Start = "rel_1", "", true, needs, begin
			}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, 2, operator.Options{}, func(r *rig) {
				of, _ := r.lower()
				refused := func(err error) {
					r.Helper()
					wantKind(r.T, "nobody agrees", err, muster.Conflict)
					if err == nil || !strings.Contains(err.Error(), "min_approvals 1 or more") || !slices.Equal(muster.FieldsOf(err), []string{"min_approvals"}) {
						r.Errorf("it is not said what to set: %v at %v", err, muster.FieldsOf(err))
					}
				}
				_, err := start(r, of.ID, 0, true)
				refused(err)
				_, err = start(r, of.ID, 1, true)
				wantKind(r.T, "made and started by one", err, muster.Conflict)
				d := r.must(start(r, of.ID, 0, false))
				r.must(r.operator.Agree(r.ctx(), bob, d.ID, ""))
				_, err = r.operator.Start(r.ctx(), ann, d.ID) // who agreed may be gone, and nobody is asked for
				refused(err)
				plain.MinApprovals = &one
				r.must(r.operator.Edit(r.ctx(), ann, d.ID, plain))
				_, err = r.operator.Start(r.ctx(), ann, d.ID)
				wantKind(r.T, "nobody has agreed to the change", err, muster.Conflict)
				r.must(r.operator.Agree(r.ctx(), bob, d.ID, ""))
				r.must(r.operator.Start(r.ctx(), ann, d.ID))
				if n := r.tickStates(d.ID); n["offered"] != 2 {
					r.Errorf("agreed to it has %v", n)
				}
			})
		})
	}
}

// TestADraftOfBeforeTheServerAskedForApprovalsKeepsThatItNeedsThemWhenItStarts, or starts at its time: a downgrade
// that somebody agreed to then goes below the security version.
func TestADraftOfBeforeTheServerAskedForApprovalsKeepsThatItNeedsThemWhenItStarts(t *testing.T) {
	for _, wait := range []time.Duration{0, 5 * time.Second} {
		r := sqliteRig(t, 2, operator.Options{})
		r.lower()
		down := r.create(allAtOnce, func(s *operator.Spec) {
			s.Release, s.Rollback, s.Downgrade = "rel_1", "", true
			if wait > 0 {
				s.StartAt = muster.MicrosOf(r.at.Add(wait))
			}
		})
		r.quorate(rollout.Quorum{Least: 1})
		r.must(r.operator.Agree(r.ctx(), bob, down.ID, ""))
		r.must(r.operator.Start(r.ctx(), ann, down.ID))
		r.at = r.at.Add(wait)
		if n := r.tickStates(down.ID); n["offered"] != 2 || r.is(down.ID, rollout.Running, "").MinApprovals != 1 {
			t.Errorf("after %s it has %v", wait, n)
		}
	}
}

func TestARollbackOfWhatSomeInstallStillNeedsASecondPersonToo(t *testing.T) {
	r := sqliteRig(t, 2, operator.Options{})
	r.versions(map[muster.DeviceID]string{})
	r.catalogue.security["rel_2"] = 8
	d := r.create(starting, allAtOnce)
	r.tick()
	r.report(rollout.SaysInstalling, r.fleet.ids...) // nobody has confirmed the security version yet
	r.must(r.operator.Pause(r.ctx(), d.ID))
	_, err := r.operator.Rollback(r.ctx(), ann, d.ID, operator.Spec{Supersede: rollout.Wait, Start: true})
	wantKind(t, "nobody agrees", err, muster.Conflict)
}

// TestWhoConfirmedAHigherSecurityVersionSinceIsSkippedByADowngradeThatNobodyAgreedTo: who joins is asked by the rule.
func TestWhoConfirmedAHigherSecurityVersionSinceIsSkippedByADowngradeThatNobodyAgreedTo(t *testing.T) {
	onEach(t, 2, operator.Options{}, func(r *rig) {
		runs := map[muster.DeviceID]string{}
		r.versions(runs)
		r.catalogue.security["rel_2"] = 8
		down := r.create(starting, allAtOnce, func(s *operator.Spec) {
			s.Release, s.Rollback, s.Downgrade, s.StartAt = "rel_1", "", true, muster.MicrosOf(r.at.Add(time.Hour))
		})
		up := r.create(starting, allAtOnce)
		r.tick()
		r.confirms(runs, "2.0.0", r.fleet.ids...)
		r.is(up.ID, rollout.Completed, "")
		r.at = r.at.Add(time.Hour)
		if n := r.tickStates(down.ID); n["skipped"] != 2 {
			r.Fatalf("it has %v", n)
		}
		w, err := r.operator.Why(r.Context(), down.ID, r.fleet.ids[0])
		if err != nil || !strings.Contains(w.Words, "security version is 7, the device confirmed 8; to go below that takes a downgrade that another person has agreed to") {
			r.Errorf("%s, %v", w.Words, err)
		}
	})
}

func TestConfirmedAboveKnowsTheDevicesAndTheProduct(t *testing.T) {
	onEach(t, 4, operator.Options{}, func(r *rig) {
		r.lower()
		for what, c := range map[string]struct {
			product  string
			security int64
			ids      []muster.DeviceID
			want     int64
		}{
			"those who confirmed it":      {"pump", 7, r.fleet.ids, 8},
			"others":                      {"pump", 7, r.fleet.ids[2:], 0},
			"nobody":                      {"pump", 7, nil, 0},
			"as high":                     {"pump", 8, r.fleet.ids, 0},
			"another product":             {"valve", 0, r.fleet.ids, 0},
			"more than one query's worth": {"pump", 7, append(make([]muster.DeviceID, 1000), r.fleet.ids[1]), 8},
		} {
			if got, err := r.store.ConfirmedAbove(r.Context(), c.product, c.security, c.ids); err != nil || got != c.want {
				r.Errorf("%s: %d, %v; want %d", what, got, err, c.want)
			}
		}
	})
}
