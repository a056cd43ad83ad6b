package rollout_test

import (
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware/rollout"
)

const began = muster.Micros(1_700_000_000_000_000)

// flight is a rollout of one phase with n devices, the first of which has the offer.
func flight(t *testing.T, n int, change func(*rollout.Plan)) (*rollout.Rollout, []*rollout.Device) {
	t.Helper()
	r := &rollout.Rollout{Number: 1, Status: rollout.Running, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 1)}
	r.Plan.Phases = r.Plan.Phases[:1]
	r.Plan.Phases[0].Failure = rollout.Threshold{}
	if change != nil {
		change(&r.Plan)
	}
	list := make([]*rollout.Device, n)
	for i := range list {
		list[i] = &rollout.Device{}
		r.Counts[0].By[rollout.Queued]++
		step(t, r, list[i], rollout.Fact{Event: rollout.Offer}, rollout.Offered)
	}
	return r, list
}

func step(t *testing.T, r *rollout.Rollout, d *rollout.Device, f rollout.Fact, want rollout.State) rollout.Change {
	t.Helper()
	c, err := rollout.Step(r, d, f, began)
	if err != nil || d.State != want {
		t.Fatalf("%s leads to %s, want %s: %v", f.Event, d.State, want, err)
	}
	return c
}

func TestAReportThatCameBeforeOrIsOfAnotherAttemptIsStale(t *testing.T) {
	r, ds := flight(t, 1, nil)
	d := ds[0]
	step(t, r, d, rollout.Fact{Event: rollout.SaysInstalling, Action: 257, Attempt: 1, Seq: 3}, rollout.Installing)
	for name, f := range map[string]rollout.Fact{
		"the same again":     {Event: rollout.SaysFailed, Action: 257, Attempt: 1, Seq: 3},
		"one from before":    {Event: rollout.SaysDownloading, Action: 257, Attempt: 1, Seq: 2},
		"of another action":  {Event: rollout.SaysFailed, Action: 258, Attempt: 1, Seq: 4},
		"of another attempt": {Event: rollout.SaysFailed, Action: 257, Attempt: 2, Seq: 4},
	} {
		before := *d
		if _, err := rollout.Step(r, d, f, began); muster.KindOf(err) != muster.Stale || *d != before {
			t.Errorf("%s: %v, %+v", name, err, d)
		}
	}
}

func TestASuccessThatCompletesTheSampleStopsToo(t *testing.T) {
	r, ds := flight(t, 4, func(p *rollout.Plan) {
		p.Phases[0].Failure = rollout.Threshold{Percent: 50, MinSample: 4}
	})
	for i, e := range []rollout.Event{rollout.SaysFailed, rollout.SeesTarget, rollout.SaysFailed, rollout.SeesTarget} {
		c, err := rollout.Step(r, ds[i], rollout.Fact{Event: e}, began)
		if err != nil || (c.Stops != "") != (i == 3) {
			t.Fatalf("result %d: %+v, %v", i+1, c, err)
		}
	}
	if r.Status != rollout.Paused || r.Reason != rollout.TooManyFailures {
		t.Errorf("it goes on: %s %s, %+v", r.Status, r.Reason, r.Counts[0])
	}
}

func TestADeviceCountsAsFailingFromItsFirstFailureUntilItIsConfirmed(t *testing.T) {
	r, ds := flight(t, 1, nil)
	d := ds[0]
	c := step(t, r, d, rollout.Fact{Event: rollout.SaysFailed, Detail: strings.Repeat("x", 9000)}, rollout.Queued)
	if c.Reason != rollout.DeviceError || len(c.Detail) != rollout.MaxDetail || r.Counts[0].Failing != 1 || d.Due != began+muster.Micros(5*time.Minute/time.Microsecond) {
		t.Errorf("%+v, %+v", c, d)
	}
	step(t, r, d, rollout.Fact{Event: rollout.Offer}, rollout.Offered)
	if c = step(t, r, d, rollout.Fact{Event: rollout.Silence}, rollout.Queued); c.Reason != rollout.Silent || d.Due != began+muster.Micros(10*time.Minute/time.Microsecond) {
		t.Errorf("%+v, %+v", c, d)
	}
	step(t, r, d, rollout.Fact{Event: rollout.Offer}, rollout.Offered)
	step(t, r, d, rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting)
	if r.Counts[0].Failing != 1 {
		t.Errorf("it is good before it has soaked: %+v", r.Counts[0])
	}
	step(t, r, d, rollout.Fact{Event: rollout.Soaked}, rollout.Confirmed)
	if r.Counts[0].Failing != 0 || r.Counts[0].Results() != 1 || d.Attempt != 3 {
		t.Errorf("%+v, %+v", r.Counts[0], d)
	}
}

func TestAttemptsEndAndARollbackIsNotTriedAgain(t *testing.T) {
	r, ds := flight(t, 2, func(p *rollout.Plan) { p.Attempts = 2 })
	step(t, r, ds[0], rollout.Fact{Event: rollout.SaysFailed}, rollout.Queued)
	step(t, r, ds[0], rollout.Fact{Event: rollout.Offer}, rollout.Offered)
	step(t, r, ds[0], rollout.Fact{Event: rollout.Silence}, rollout.TimedOut)
	step(t, r, ds[1], rollout.Fact{Event: rollout.SaysRebooting}, rollout.Rebooting)
	if c := step(t, r, ds[1], rollout.Fact{Event: rollout.SeesOther}, rollout.RolledBack); c.Reason != rollout.OldVersion {
		t.Errorf("%+v", c)
	}
}

func TestAnInstallLoopIsStopped(t *testing.T) {
	r, ds := flight(t, 1, nil)
	d := ds[0]
	for range 4 {
		step(t, r, d, rollout.Fact{Event: rollout.SaysDownloading}, rollout.Downloading)
		step(t, r, d, rollout.Fact{Event: rollout.SaysInstalling}, rollout.Installing)
	}
	if c := step(t, r, d, rollout.Fact{Event: rollout.SaysDownloading}, rollout.Failed); c.Reason != rollout.Looping {
		t.Errorf("%+v", c)
	}
}

func TestWhoSleepsWhenItsSoakIsOverIsWaitedForByItsOwnRhythm(t *testing.T) {
	const second = muster.Micros(1_000_000)
	for name, c := range map[string]struct {
		until muster.Micros // by its rhythm, after the soak's end
		want  muster.Micros // until when it is waited for in all; 0 for not at all
	}{
		"silent by its rhythm already":          {until: 0},
		"silent in 25 seconds":                  {until: 25 * second, want: 25 * second},
		"silent later than an offer would wait": {until: 1_000 * second, want: 60 * second},
	} {
		r, ds := flight(t, 1, func(p *rollout.Plan) { p.Soak, p.Deadlines.Offered = time.Minute, time.Minute })
		d := ds[0]
		step(t, r, d, rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting)
		end := d.Deadline
		life, now := rollout.Life{Heard: began + second, Until: end + c.until}, end
		for d.Sleeps(&r.Plan, life, now) {
			if d.Deadline <= now || d.Deadline > now+10*second || d.Soaked != end {
				t.Fatalf("%s: at %d it is looked at again at %d: %+v", name, now-end, d.Deadline-end, d)
			}
			if e, due := d.Overdue(rollout.Life{Heard: end, Until: life.Until}, d.Deadline); !due || e != rollout.Soaked {
				t.Errorf("%s: who checked in since has %s, %v", name, e, due)
			}
			now = d.Deadline
		}
		if now-end != c.want {
			t.Errorf("%s: it is waited for %d, want %d", name, now-end, c.want)
		}
		if e, due := d.Overdue(life, now); !due || e != rollout.Silence {
			t.Errorf("%s: then it has %s, %v", name, e, due)
		}
	}
	r, ds := flight(t, 1, func(*rollout.Plan) {})
	step(t, r, ds[0], rollout.Fact{Event: rollout.SaysInstalling}, rollout.Installing)
	if now := ds[0].Deadline; ds[0].Sleeps(&r.Plan, rollout.Life{Until: now + second}, now) {
		t.Error("who installs is waited for beyond its deadline")
	}
}

func TestASoakIsNotBegunAnewByTheSameReportAndEndsOnlyForTheLiving(t *testing.T) {
	r, ds := flight(t, 1, func(p *rollout.Plan) { p.Soak = time.Minute })
	d := ds[0]
	step(t, r, d, rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting)
	end := d.Deadline
	if end != began+60_000_000 || !d.Soaking {
		t.Fatalf("%+v", d)
	}
	if _, err := rollout.Step(r, d, rollout.Fact{Event: rollout.SeesTarget}, began+30_000_000); err != nil || d.Deadline != end {
		t.Errorf("the soak ends at %d, want %d: %v", d.Deadline, end, err)
	}
	if e, due := d.Overdue(rollout.Life{There: true}, end-1); due {
		t.Errorf("%s before its time", e)
	}
	if e, due := d.Overdue(rollout.Life{There: true}, end); !due || e != rollout.Soaked {
		t.Errorf("%s, %v", e, due)
	}
	if e, due := d.Overdue(rollout.Life{}, end); !due || e != rollout.Silence {
		t.Errorf("a device that is gone: %s, %v", e, due)
	}
	if _, err := rollout.Step(r, d, rollout.Fact{Event: rollout.SaysRebooting}, began+40_000_000); err != nil || d.Deadline != began+100_000_000 {
		t.Errorf("who restarts does not soak anew: %+v, %v", d, err)
	}
}

func TestWhatHasNotBegunToInstallWaitsAgainWhenARolloutIsPaused(t *testing.T) {
	r, ds := flight(t, 2, nil)
	step(t, r, ds[0], rollout.Fact{Event: rollout.SaysDownloading, Progress: 250}, rollout.Downloading)
	if ds[0].Progress != 100 {
		t.Errorf("the progress is %d", ds[0].Progress)
	}
	step(t, r, ds[0], rollout.Fact{Event: rollout.Recall}, rollout.Queued)
	if ds[0].Failing || ds[0].Failures != 0 || ds[0].Deadline != 0 || r.InFlight() != 1 {
		t.Errorf("%+v", ds[0])
	}
	step(t, r, ds[1], rollout.Fact{Event: rollout.SaysInstalling}, rollout.Installing)
	if _, err := rollout.Step(r, ds[1], rollout.Fact{Event: rollout.Recall}, began); muster.KindOf(err) != muster.Conflict {
		t.Errorf("what installs is recalled: %v", err)
	}
}

func TestARolloutWhoseLastDevicesFailedIsNotCompleted(t *testing.T) {
	for name, c := range map[string]struct {
		confirmed, failed, moot, missed, unfit int
		why                                    rollout.Reason // empty for completed
	}{
		"all have failed":                             {0, 3, 0, 0, 0, rollout.TooFewSuccesses},
		"too few succeeded":                           {8, 2, 5, 0, 0, rollout.TooFewSuccesses},
		"enough succeeded":                            {9, 1, 5, 0, 5, ""},
		"all had it already":                          {0, 0, 7, 0, 0, ""},
		"nobody was there":                            {0, 0, 0, 0, 0, ""},
		"one of one has died":                         {0, 1, 0, 0, 0, rollout.TooFewSuccesses},
		"it is for nobody":                            {0, 0, 0, 0, 7, rollout.NothingProved},
		"it is for none of those that had it not yet": {0, 0, 7, 0, 1, rollout.NothingProved},
		"all denied it":                               {0, 0, 0, 7, 0, rollout.TooFewSuccesses},
		"too many denied it":                          {8, 0, 0, 2, 0, rollout.TooFewSuccesses},
		"few denied it":                               {9, 0, 0, 1, 0, ""},
	} {
		r := &rollout.Rollout{Status: rollout.Running, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3), Phase: 2, Membership: rollout.Snapshot, Record: rollout.Record{Started: 1}}
		by := &r.Counts[2].By
		by[rollout.Confirmed], by[rollout.Failed], by[rollout.Skipped] = c.confirmed, c.failed, c.moot+c.missed+c.unfit
		r.Counts[2].Failing, r.Counts[2].Missed, r.Counts[2].Unfit = c.failed, c.missed, c.unfit
		r.Advance(rollout.NotAsked, began)
		if (r.Status == rollout.Completed) != (c.why == "") {
			t.Errorf("%s: it is %s", name, r.Status)
		}
		if c.why == "" {
			continue
		}
		if r.Status != rollout.Paused || r.Reason != c.why || r.Ended != 0 {
			t.Errorf("%s: it is paused for %s, ended %d", name, r.Reason, r.Ended)
		}
		for _, skip := range []bool{false, true} {
			if _, err := r.Resume(skip, rollout.Quorum{}, began); muster.KindOf(err) != muster.Conflict {
				t.Errorf("%s: it is resumed: %v", name, err)
			}
		}
		if changed, err := r.Abort(false, rollout.ByOperator, began); !changed || err != nil {
			t.Errorf("%s: it cannot be aborted: %v", name, err)
		}
	}
}

func TestAPhaseIsOverWhen(t *testing.T) {
	plan := rollout.Plan{Concurrent: 9, Phases: []rollout.Phase{{Count: 10, Success: 90, Soak: time.Minute, Gate: rollout.Auto}, {Percent: 100}}}
	counts := func(confirmed, failed, skipped, queued int) []rollout.Counts {
		c := make([]rollout.Counts, 2)
		c[0].By[rollout.Confirmed], c[0].By[rollout.Failed], c[0].By[rollout.Skipped], c[0].By[rollout.Queued] = confirmed, failed, skipped, queued
		c[0].Failing = failed
		return c
	}
	const minute = muster.Micros(60_000_000)
	for name, c := range map[string]struct {
		counts  []rollout.Counts
		passed  muster.Micros
		verdict rollout.Verdict
		manual  bool
		phase   int
		status  rollout.Status
		waiting bool
	}{
		"enough are confirmed, not yet for long": {counts(9, 0, 0, 1), 0, rollout.NotAsked, false, 0, rollout.Running, false},
		"enough are confirmed, for long enough":  {counts(9, 0, 0, 1), began - minute, rollout.NotAsked, false, 1, rollout.Running, false},
		"skipped ones do not count":              {counts(9, 1, 40, 0), began - minute, rollout.NotAsked, false, 1, rollout.Running, false},
		"too few, and some are open":             {counts(8, 1, 0, 1), began - minute, rollout.NotAsked, false, 0, rollout.Running, false},
		"too few, and none is open":              {counts(8, 2, 0, 0), 0, rollout.NotAsked, false, 0, rollout.Paused, false},
		"its telemetry is worse":                 {counts(9, 0, 0, 1), began - minute, rollout.Worse, false, 0, rollout.Paused, false},
		"its telemetry is not known yet":         {counts(9, 0, 0, 1), began - minute, rollout.NotYet, false, 0, rollout.Running, false},
		"a person has to agree":                  {counts(9, 0, 0, 1), began - minute, rollout.Good, true, 0, rollout.Running, true},
		"nobody is in it":                        {counts(0, 0, 0, 0), 0, rollout.NotAsked, false, 1, rollout.Running, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rollout.Rollout{Status: rollout.Running, Plan: plan, Counts: c.counts, Passed: c.passed, Membership: rollout.Snapshot}
			r.Plan.Phases = append([]rollout.Phase(nil), plan.Phases...)
			if c.manual {
				r.Plan.Phases[0].Gate = rollout.Manual
			}
			r.Advance(c.verdict, began)
			if r.Phase != c.phase || r.Status != c.status || r.Waiting != c.waiting {
				t.Fatalf("phase %d, %s %s, waiting %v", r.Phase, r.Status, r.Reason, r.Waiting)
			}
			err := r.Approve(began)
			if c.waiting != (err == nil) || c.waiting && (r.Phase != 1 || r.Waiting) {
				t.Errorf("approved: phase %d, %v", r.Phase, err)
			}
		})
	}
}

func TestARateIsKeptOverAnyPattern(t *testing.T) {
	r := &rollout.Rollout{Status: rollout.Running, Plan: rollout.Plan{Concurrent: 1 << 30, PerMinute: 90}, Counts: make([]rollout.Counts, 1)}
	given, now := 0, began
	for i := range 6000 { // ten minutes, unevenly
		given += r.Budget(1+i%7, now)
		now += muster.Micros(100_000)
	}
	if given < 900 || given > 900+15 { // what may be saved up in ten seconds
		t.Errorf("%d offers in ten minutes at 90 a minute", given)
	}
	r.Status = rollout.Paused
	if n := r.Budget(10, now+60_000_000); n != 0 {
		t.Errorf("%d offers while it is paused", n)
	}
}

// TestARolloutStopsItselfWithoutBeingTold has the plan that nobody wrote.
func TestARolloutStopsItselfWithoutBeingTold(t *testing.T) {
	r, ds := flight(t, 10, func(p *rollout.Plan) { p.Phases[0].Failure = rollout.DefaultPlan().Phases[0].Failure })
	for i, d := range ds[:2] {
		c := step(t, r, d, rollout.Fact{Event: rollout.SaysFailed}, rollout.Queued)
		if want := []rollout.Status{"", rollout.Paused}[i]; c.Stops != want || (r.Status == rollout.Paused) != (want != "") {
			t.Fatalf("failure %d of ten canaries: %q, it is %s", i+1, c.Stops, r.Status)
		}
	}
	for i, ph := range rollout.DefaultPlan().Phases {
		if ph.Failure == (rollout.Threshold{}) {
			t.Errorf("phase %d never stops", i)
		}
	}
}

func TestAnAttemptThatEndsWhileTheDeviceSoaksLeavesTheReleaseOnIt(t *testing.T) {
	for _, c := range []struct {
		end   rollout.Fact
		state rollout.State
		late  rollout.Late
	}{
		{rollout.Fact{Event: rollout.Quit}, rollout.Canceled, rollout.LateInstalled},
		{rollout.Fact{Event: rollout.SaysFailed}, rollout.Failed, rollout.LateInstalled},
		{rollout.Fact{Event: rollout.Silence}, rollout.TimedOut, rollout.LateInstalled},
		{rollout.Fact{Event: rollout.SeesOther}, rollout.RolledBack, ""},
		{rollout.Fact{Event: rollout.Soaked}, rollout.Confirmed, ""},
		{rollout.Fact{Event: rollout.Exclude, Reason: rollout.Deleted}, rollout.Skipped, ""},
	} {
		r, ds := flight(t, 1, func(p *rollout.Plan) { p.Attempts = 1 })
		step(t, r, ds[0], rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting)
		got := step(t, r, ds[0], c.end, c.state)
		if ds[0].Late != c.late || got.Late != c.late || (r.Counts[0].Late == 1) != (c.late != "") {
			t.Errorf("%s: late %q, told %q, counted %d", c.end.Event, ds[0].Late, got.Late, r.Counts[0].Late)
		}
	}
}
