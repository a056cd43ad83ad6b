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
// whose devices have all ended without enough successes pauses the rollout, the last one too, and so does
// one in which nobody was confirmed and some were not to get the release. The last
// ends when no device is open; with dynamic membership it never does by itself, the
// first waits for the first device, and one that nobody is in yet for a device or a person.
// A gate at which the phase is over no more is closed.
func (r *Rollout) Advance(v Verdict, now muster.Micros) bool {
	if r.Status != Running || r.Membership == Dynamic && r.empty() {
		return false
	}
	if r.Overruled > r.Phase { // somebody has gone on in spite of it
		v = NotAsked
	}
	if v == Worse {
		return r.stop(Regression)
	}
	if r.Phase == len(r.Plan.Phases)-1 {
		return r.end(now)
	}
	if r.Vacant() {
		return r.wait(true)
	}
	switch why := r.short(); {
	case why != "" && r.Counts[r.Phase].Open() == 0:
		return r.stop(why)
	case why != "":
		r.Passed = 0
		return r.wait(false)
	case r.Passed == 0:
		r.Passed = now
	}
	ph := &r.Plan.Phases[r.Phase]
	if v == NotYet || now-r.Passed < micros(ph.Soak) && r.Counts[r.Phase].Asked() > 0 {
		return false
	}
	if ph.Gate == Manual {
		return r.wait(true)
	}
	r.next(now)
	return true
}

// stop pauses the rollout by its own rule.
func (r *Rollout) stop(why Reason) bool {
	r.Status, r.Reason, r.Waiting = Paused, why, false
	return true
}

// wait opens or closes the gate behind the phase, and says whether that is new.
func (r *Rollout) wait(forPerson bool) bool {
	was := r.Waiting
	r.Waiting = forPerson
	return was != forPerson
}

// end completes a rollout in its last phase when no device is open, or pauses it when too few were confirmed.
func (r *Rollout) end(now muster.Micros) bool {
	if r.Membership != Snapshot {
		return false
	}
	for i := range r.Counts {
		if r.Counts[i].Open() > 0 {
			return false
		}
	}
	if why := r.short(); why != "" {
		return r.stop(why)
	}
	r.Status, r.Waiting, r.Ended = Completed, false, now
	return true
}

// Vacant says whether the rollout waits, as at a manual gate, in a phase that no device is in: one that joins it, or
// a person, lets it go on. Of a Snapshot nobody joins, and such a phase is over.
func (r *Rollout) Vacant() bool {
	return r.Membership == Dynamic && r.Phase < len(r.Plan.Phases)-1 && r.Phase < len(r.Counts) && r.Counts[r.Phase].Total() == 0 && !r.empty()
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

// short returns what the phase lacks, as it is now; empty when it has succeeded. What was skipped is no success:
// devices none of which was confirmed have proved nothing, for those that still wait or where some were not to get
// the release. Of the last some may have had it already, or have nothing to do with the rollout any more.
func (r *Rollout) short() Reason {
	c, ph := &r.Counts[r.Phase], &r.Plan.Phases[r.Phase]
	switch confirmed := c.By[Confirmed]; {
	case float64(confirmed)*100 < ph.Success*float64(c.Asked()):
		return TooFewSuccesses
	case confirmed == 0 && c.Open() == 0 && c.Total() > 0 && (c.Asked()+c.Unfit > 0 || r.laterOpen()):
		return NothingProved
	}
	return ""
}

// laterOpen says whether devices of later phases wait for this one.
func (r *Rollout) laterOpen() bool {
	for i := r.Phase + 1; i < len(r.Counts); i++ {
		if r.Counts[i].Open() > 0 {
			return true
		}
	}
	return false
}
