package rollout_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware/rollout"
)

func draftOf(change func(*rollout.Rollout)) *rollout.Rollout {
	r := &rollout.Rollout{
		Status: rollout.Draft, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3),
		Record: rollout.Record{CreatedBy: rollout.Person{ID: "usr_ann"}, EditedBy: rollout.Person{ID: "usr_bob"}},
	}
	if change != nil {
		change(r)
	}
	return r
}

func TestAVerbIsDoneWhereItMayBeAndRefusedElsewhere(t *testing.T) {
	type verb = func(*rollout.Rollout) (bool, error)
	verbs := map[string]verb{
		"start": func(r *rollout.Rollout) (bool, error) {
			return true, r.Start(rollout.Person{ID: "usr_ann"}, rollout.Quorum{}, began)
		},
		"pause":  (*rollout.Rollout).Pause,
		"resume": func(r *rollout.Rollout) (bool, error) { return r.Resume(false, rollout.Quorum{}, began) },
		"skip":   func(r *rollout.Rollout) (bool, error) { return r.Resume(true, rollout.Quorum{}, began) },
		"abort":  func(r *rollout.Rollout) (bool, error) { return r.Abort(false, rollout.ByOperator, began) },
		"force":  func(r *rollout.Rollout) (bool, error) { return r.Abort(true, rollout.ByOperator, began) },
	}
	const refused, same = "refused", "same"
	for from, want := range map[rollout.Status]map[string]string{
		rollout.Draft:     {"start": "running", "pause": refused, "resume": refused, "skip": refused, "abort": refused, "force": refused},
		rollout.Scheduled: {"start": refused, "pause": "paused", "resume": refused, "skip": refused, "abort": "aborted", "force": "aborted"},
		rollout.Running:   {"start": refused, "pause": "paused", "resume": same, "skip": refused, "abort": "aborted", "force": "aborted"},
		rollout.Paused:    {"start": refused, "pause": same, "resume": "running", "skip": "running", "abort": "aborted", "force": "aborted"},
		rollout.Completed: {"start": refused, "pause": refused, "resume": refused, "skip": refused, "abort": refused, "force": refused},
		rollout.Aborted:   {"start": refused, "pause": refused, "resume": refused, "skip": refused, "abort": same, "force": "aborted"},
	} {
		for name, do := range verbs {
			r := draftOf(func(r *rollout.Rollout) {
				r.Status = from
				if from != rollout.Draft && from != rollout.Scheduled {
					r.Started = began - 1
				}
			})
			changed, err := do(r)
			got := string(r.Status)
			switch {
			case err != nil && muster.KindOf(err) == muster.Conflict && r.Status == from:
				got = refused
			case err == nil && !changed && r.Status == from:
				got = same
			}
			if got != want[name] {
				t.Errorf("%s of one that is %s: %s, want %s (%v)", name, from, got, want[name], err)
			}
		}
	}
}

func TestARolloutWaitsForItsTimeAlsoAfterAPause(t *testing.T) {
	r := draftOf(func(r *rollout.Rollout) { r.StartAt = began + 10 })
	if err := r.Start(rollout.Person{ID: "usr_ann"}, rollout.Quorum{}, began); err != nil || r.Status != rollout.Scheduled || r.Started != 0 {
		t.Fatalf("%s, %v", r.Status, err)
	}
	for at, want := range map[muster.Micros]rollout.Status{began: rollout.Scheduled, began + 10: rollout.Running} {
		again := *r
		if _, err := again.Pause(); err != nil {
			t.Fatal(err)
		}
		if _, err := again.Resume(false, rollout.Quorum{}, at); err != nil || again.Status != want || (again.Started != 0) != (want == rollout.Running) {
			t.Errorf("resumed at %d it is %s: %v", at, again.Status, err)
		}
	}
}

func TestASecondPersonAgreesAndNobodyTwice(t *testing.T) {
	r := draftOf(func(r *rollout.Rollout) { r.MinApprovals = 2 })
	for _, c := range []struct {
		who  string
		want muster.Kind
	}{{"usr_ann", muster.Forbidden}, {"usr_bob", muster.Forbidden}, {"usr_eve", 0}, {"usr_eve", muster.Conflict}} {
		if err := r.Agree(rollout.Person{ID: c.who}, "", rollout.Quorum{}, began); (err == nil) != (c.want == 0) || err != nil && muster.KindOf(err) != c.want {
			t.Errorf("%s agrees: %v", c.who, err)
		}
	}
	if err := r.Start(rollout.Person{ID: "usr_ann"}, rollout.Quorum{}, began); muster.KindOf(err) != muster.Conflict || err == nil {
		t.Errorf("one of two has agreed: %v", err)
	}
	if err := r.Agree(rollout.Person{ID: "usr_kim"}, "looks good", rollout.Quorum{}, began); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(rollout.Person{ID: "usr_ann"}, rollout.Quorum{}, began); err != nil || r.Status != rollout.Running || r.StartedBy.ID != "usr_ann" {
		t.Errorf("%s, %v", r.Status, err)
	}
	if err := r.Agree(rollout.Person{ID: "usr_joe"}, "", rollout.Quorum{}, began); muster.KindOf(err) != muster.Conflict || err == nil {
		t.Errorf("it runs, and somebody agrees: %v", err)
	}
}

func TestAResumedRolloutStopsAtNewFailuresAndNotAtTheOldOnes(t *testing.T) {
	r, ds := flight(t, 8, func(p *rollout.Plan) { p.Phases[0].Failure = rollout.Threshold{Absolute: 2}; p.Attempts = 1 })
	r.Started = began
	fail := func(i int) rollout.Status {
		return step(t, r, ds[i], rollout.Fact{Event: rollout.SaysFailed}, rollout.Failed).Stops
	}
	if fail(0) != "" || fail(1) != rollout.Paused {
		t.Fatalf("it is %s after two failures", r.Status)
	}
	if _, err := r.Resume(false, rollout.Quorum{}, began); err != nil {
		t.Fatal(err)
	}
	step(t, r, ds[2], rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting)
	if fail(3) != "" || r.Status != rollout.Running {
		t.Fatalf("it is %s at the first new failure", r.Status)
	}
	if fail(4) != rollout.Paused || r.Reason != rollout.TooManyFailures {
		t.Errorf("it is %s at the second", r.Status)
	}
}

func TestAForgivenDeviceThatIsConfirmedIsNotForgivenTwice(t *testing.T) {
	r, ds := flight(t, 4, func(p *rollout.Plan) { p.Phases[0].Failure = rollout.Threshold{Absolute: 1} })
	r.Started = began
	if c := step(t, r, ds[0], rollout.Fact{Event: rollout.SaysFailed}, rollout.Queued); c.Stops != rollout.Paused {
		t.Fatal("it goes on")
	}
	if _, err := r.Resume(false, rollout.Quorum{}, began); err != nil {
		t.Fatal(err)
	}
	step(t, r, ds[0], rollout.Fact{Event: rollout.Offer}, rollout.Offered)
	step(t, r, ds[0], rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting)
	step(t, r, ds[0], rollout.Fact{Event: rollout.Soaked}, rollout.Confirmed)
	if r.Forgiven[0] != 0 {
		t.Errorf("%d are forgiven", r.Forgiven[0])
	}
	if c := step(t, r, ds[1], rollout.Fact{Event: rollout.SaysFailed}, rollout.Queued); c.Stops != rollout.Paused {
		t.Error("a failure is taken for the one before")
	}
}

func TestAPhaseThatCannotSucceedIsSkippedAndOneWhoseTelemetryGotWorseIsOverruled(t *testing.T) {
	r := draftOf(func(r *rollout.Rollout) {
		r.Status, r.Reason, r.Started = rollout.Paused, rollout.TooFewSuccesses, began
	})
	if _, err := r.Resume(false, rollout.Quorum{}, began); muster.KindOf(err) != muster.Conflict || err == nil || !strings.Contains(err.Error(), "canary") {
		t.Errorf("it goes on in the phase: %v", err)
	}
	if _, err := r.Resume(true, rollout.Quorum{}, began); err != nil || r.Phase != 1 || r.Status != rollout.Running {
		t.Errorf("phase %d, %s, %v", r.Phase, r.Status, err)
	}
	r = draftOf(func(r *rollout.Rollout) {
		r.Status, r.Started = rollout.Running, began
		r.Counts[0].By[rollout.Queued], r.Counts[1].By[rollout.Queued] = 1, 1
	})
	if !r.Advance(rollout.Worse, began) || r.Reason != rollout.Regression {
		t.Fatalf("%s %s", r.Status, r.Reason)
	}
	if _, err := r.Resume(false, rollout.Quorum{}, began); err != nil {
		t.Fatal(err)
	}
	if r.Advance(rollout.Worse, began); r.Status != rollout.Running {
		t.Errorf("it is %s for what somebody went on in spite of", r.Status)
	}
	r.Phase = 1
	if r.Advance(rollout.Worse, began); r.Status != rollout.Paused {
		t.Errorf("the next phase is not looked at")
	}
}

func TestForceMayComeAfterASoftAbortAndEndsWhoInstalls(t *testing.T) {
	r, ds := flight(t, 2, nil)
	step(t, r, ds[0], rollout.Fact{Event: rollout.SaysInstalling}, rollout.Installing)
	if _, err := r.Abort(false, rollout.ByOperator, began); err != nil || r.Forced || r.Ended != began {
		t.Fatalf("%+v, %v", r.Record, err)
	}
	if _, err := rollout.Step(r, ds[0], rollout.Fact{Event: rollout.Abort}, began); muster.KindOf(err) != muster.Conflict || err == nil {
		t.Errorf("a soft abort reaches who installs: %v", err)
	}
	if changed, err := r.Abort(true, rollout.ByOperator, began); err != nil || !changed || !r.Forced {
		t.Errorf("force changes %v, %v", changed, err)
	}
	step(t, r, ds[0], rollout.Fact{Event: rollout.Quit}, rollout.Canceled)
	step(t, r, ds[1], rollout.Fact{Event: rollout.Quit}, rollout.Canceled)
	if r.InFlight() != 0 || r.Counts[0].By[rollout.Canceled] != 2 {
		t.Errorf("%+v", r.Counts)
	}
}

func TestOfAPlanThatRunsOnlyTheLimitsChange(t *testing.T) {
	edit := func(change func(*rollout.Plan)) rollout.Plan {
		p := rollout.DefaultPlan()
		change(&p)
		return p
	}
	limits := edit(func(p *rollout.Plan) {
		p.Concurrent, p.PerMinute, p.Windows = 7, 9, []rollout.Window{{From: 60, To: 120}}
	})
	soak := edit(func(p *rollout.Plan) { p.Soak = time.Hour })
	for _, c := range []struct {
		status rollout.Status
		plan   rollout.Plan
		ok     bool
	}{
		{rollout.Draft, soak, true},
		{rollout.Running, limits, true},
		{rollout.Paused, limits, true},
		{rollout.Scheduled, limits, true},
		{rollout.Running, soak, false},
		{rollout.Running, edit(func(p *rollout.Plan) { p.Phases[0].Count = 11 }), false},
		{rollout.Aborted, limits, false},
		{rollout.Completed, limits, false},
	} {
		r := draftOf(func(r *rollout.Rollout) { r.Status = c.status })
		if err := r.Replan(c.plan); (err == nil) != c.ok || err != nil && muster.KindOf(err) != muster.Conflict {
			t.Errorf("%s: %v", c.status, err)
		}
	}
}

func TestAPlanIsRefusedWithThePlaceOfWhatIsWrong(t *testing.T) {
	query := func(q string) error {
		if q == "bad(" {
			return muster.Errorf(muster.Invalid, "what is %s?", q)
		}
		return nil
	}
	plan := rollout.DefaultPlan()
	if err := plan.Check(query); err != nil {
		t.Errorf("the default: %v", err)
	}
	plan.Phases[0] = rollout.Phase{Name: "canary", Query: "tag:canary", Success: 100, Gate: rollout.Manual}
	plan.Windows, plan.Zone = []rollout.Window{{Days: []time.Weekday{time.Sunday, time.Saturday}, From: 1439, To: 0}}, "Europe/Berlin"
	if err := plan.Check(query); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for at, change := range map[string]func(*rollout.Plan){
		"plan/phases":                      func(p *rollout.Plan) { p.Phases = nil },
		"plan/phases/1":                    func(p *rollout.Plan) { p.Phases[1].Count = 3 },
		"plan/phases/0":                    func(p *rollout.Plan) { p.Phases[0].Count = 0 },
		"plan/phases/1/percent":            func(p *rollout.Plan) { p.Phases[1].Percent = 101 },
		"plan/phases/2/percent":            func(p *rollout.Plan) { p.Phases[2].Percent = 10 },
		"plan/phases/0/count":              func(p *rollout.Plan) { p.Phases[0].Count = -1 },
		"plan/phases/0/name":               func(p *rollout.Plan) { p.Phases[0].Name = strings.Repeat("x", 65) },
		"plan/phases/0/q":                  func(p *rollout.Plan) { p.Phases[0] = rollout.Phase{Query: "bad(", Gate: rollout.Auto} },
		"plan/phases/1/success":            func(p *rollout.Plan) { p.Phases[1].Success = math.NaN() },
		"plan/phases/1/soak_s":             func(p *rollout.Plan) { p.Phases[1].Soak = -1 },
		"plan/phases/1/gate":               func(p *rollout.Plan) { p.Phases[1].Gate = "maybe" },
		"plan/phases/1/failure/percent":    func(p *rollout.Plan) { p.Phases[1].Failure.Percent = 101 },
		"plan/phases/1/failure/absolute":   func(p *rollout.Plan) { p.Phases[1].Failure.Absolute = -1 },
		"plan/phases/1/failure/min_sample": func(p *rollout.Plan) { p.Phases[1].Failure.MinSample = -1 },
		"plan/concurrent":                  func(p *rollout.Plan) { p.Concurrent = 0 },
		"plan/per_minute":                  func(p *rollout.Plan) { p.PerMinute = 1_000_001 },
		"plan/attempts":                    func(p *rollout.Plan) { p.Attempts = 11 },
		"plan/deadlines/offered_s":         func(p *rollout.Plan) { p.Deadlines.Offered = 0 },
		"plan/deadlines/rebooting_s":       func(p *rollout.Plan) { p.Deadlines.Rebooting = 31 * 24 * time.Hour },
		"plan/soak_s":                      func(p *rollout.Plan) { p.Soak = -time.Second },
		"plan/retry_s":                     func(p *rollout.Plan) { p.RetryAfter = 31 * 24 * time.Hour },
		"plan/on_failure":                  func(p *rollout.Plan) { p.OnFailure = "" },
		"plan/zone":                        func(p *rollout.Plan) { p.Zone = "Mars/Olympus" },
		"plan/windows":                     func(p *rollout.Plan) { p.Windows = make([]rollout.Window, 65) },
		"plan/windows/0":                   func(p *rollout.Plan) { p.Windows = []rollout.Window{{From: 1440}} },
		"plan/windows/0/days":              func(p *rollout.Plan) { p.Windows = []rollout.Window{{Days: []time.Weekday{7}}} },
	} {
		p := rollout.DefaultPlan()
		change(&p)
		err := p.Check(query)
		if fields := muster.FieldsOf(err); muster.KindOf(err) != muster.Invalid || len(fields) != 1 || fields[0] != at {
			t.Errorf("%s: %v at %v", at, err, fields)
		}
	}
	many := rollout.DefaultPlan()
	many.Phases = make([]rollout.Phase, 33)
	if err := many.Check(query); muster.KindOf(err) != muster.Invalid || err == nil {
		t.Errorf("33 phases: %v", err)
	}
}
