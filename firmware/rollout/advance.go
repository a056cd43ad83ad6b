package rollout

import (
	"muster"
	"muster/firmware/regression"
)

// Budget returns how many devices may be offered the release now, at most n, and takes that
// from the rate: none when the rollout does not run, as many as there are free slots.
func (r *Rollout) Budget(n int, now muster.Micros) int {
	if r.Status != Running {
		return 0
	}
	return r.Tokens.take(max(0, min(n, r.Plan.Concurrent-r.InFlight())), r.Plan.PerMinute, now)
}

// Verdict is what the telemetry of updated devices says, for a phase that asks.
type Verdict = regression.Verdict

// The verdicts.
const (
	NotAsked = regression.NotAsked
	NotYet   = regression.NotYet
	Good     = regression.Good
	Worse    = regression.Worse
)

// Hear keeps what the telemetry of the phase says, in a sentence. What a rollout heard before it
// stopped stays.
func (r *Rollout) Hear(sentence string) {
	if r.Status == Running {
		r.Telemetry = sentence
	}
}

// Advance looks whether the phase is over: enough of its devices are confirmed, for long
// enough, its telemetry is not worse, and a person agrees where one must. It goes on to the
// next then, and returns true; several calls may be needed for several empty phases. A phase
// whose devices have all ended without enough successes pauses the rollout, the last one too. That
// ends when no device is open; with dynamic membership it never does by itself, and the
// first waits for the first device.
func (r *Rollout) Advance(v Verdict, now muster.Micros) bool {
	if r.Status != Running || r.Membership == Dynamic && r.empty() {
		return false
	}
	if r.Overruled > r.Phase { // somebody has gone on in spite of it
		v = NotAsked
	}
	if v == Worse {
		r.Status, r.Reason = Paused, Regression
		return true
	}
	ph, last := &r.Plan.Phases[r.Phase], r.Phase == len(r.Plan.Phases)-1
	open := 0
	for i := range r.Counts[:r.Phase+1] {
		open += r.Counts[i].Open()
	}
	if last && open == 0 && r.Membership == Snapshot {
		if !r.succeeded(ph) {
			r.Status, r.Reason = Paused, TooFewSuccesses
			return true
		}
		r.Status, r.Waiting, r.Ended = Completed, false, now
		return true
	}
	if last {
		return false
	}
	switch passed := r.succeeded(ph); {
	case passed && r.Passed == 0:
		r.Passed = now
	case !passed:
		r.Passed = 0
		if r.Counts[r.Phase].Open() > 0 {
			return false
		}
		r.Status, r.Reason = Paused, TooFewSuccesses
		return true
	}
	if v == NotYet || now-r.Passed < micros(ph.Soak) && r.asked() > 0 {
		return false
	}
	if ph.Gate == Manual {
		was := r.Waiting
		r.Waiting = true
		return !was
	}
	r.next(now)
	return true
}

// Approve lets the next phase begin at a manual gate. It is a Conflict where none waits.
func (r *Rollout) Approve(now muster.Micros) error {
	if r.Status != Running || !r.Waiting {
		return muster.Errorf(muster.Conflict, "no phase of the rollout waits for an approval")
	}
	r.next(now)
	return nil
}

// empty says whether the rollout has no device yet.
func (r *Rollout) empty() bool {
	for i := range r.Counts {
		if r.Counts[i].Total() > 0 {
			return false
		}
	}
	return true
}

func (r *Rollout) next(now muster.Micros) {
	r.Phase++
	r.PhaseAt, r.Passed, r.Waiting, r.Telemetry = now, 0, false, ""
}

// succeeded says whether enough devices of the phase are confirmed. What was skipped counts
// neither way.
func (r *Rollout) succeeded(ph *Phase) bool {
	return float64(r.Counts[r.Phase].By[Confirmed])*100 >= ph.Success*float64(r.asked())
}

// asked returns how many devices of the phase are to get the release.
func (r *Rollout) asked() int {
	c := &r.Counts[r.Phase]
	return c.Total() - c.By[Skipped]
}
