package rollout

import (
	"reflect"
	"slices"

	"muster"
)

// Supersede says what becomes of devices that are in older rollouts of the same product too.
type Supersede string

// The ways.
const (
	Wait    Supersede = "wait"    // they are offered this release when the older rollout is through with them
	Replace Supersede = "replace" // the older rollout skips those that have not begun to install
)

// Record is what people did to a rollout, and what they decided.
type Record struct {
	Of        string    `json:"of,omitempty"` // a rollback: the rollout whose devices go back
	Note      string    `json:"note,omitempty"`
	Supersede Supersede `json:"supersede,omitempty"`
	Downgrade bool      `json:"downgrade,omitempty"` // devices that report a newer version get the release too
	Replacing bool      `json:"replacing,omitempty"` // devices are being taken from older rollouts

	CreatedBy Person        `json:"created_by"`
	Created   muster.Micros `json:"created"`
	EditedBy  Person        `json:"edited_by"` // who wrote the draft last
	StartedBy Person        `json:"started_by"`
	Started   muster.Micros `json:"started,omitempty"` // when it began to run; 0 before
	Ended     muster.Micros `json:"ended,omitempty"`   // when it was completed or aborted; 0 before

	MinApprovals int        `json:"min_approvals,omitempty"` // that it needs before it starts
	Approvals    []Approval `json:"approvals,omitempty"`

	Forced    bool  `json:"forced,omitempty"`    // aborted by force: who installs counts as canceled
	Forgiven  []int `json:"forgiven,omitempty"`  // by phase: failing devices that somebody went on in spite of
	Overruled int   `json:"overruled,omitempty"` // so many phases go on in spite of their telemetry

	Telemetry string `json:"telemetry,omitempty"` // what the phase's says, in a sentence; empty where nobody asks
}

// Start makes a draft run, or wait for its time. Its devices are placed and counted before.
// Conflict when it is no draft, or q is not met.
func (r *Rollout) Start(by Person, q Quorum, now muster.Micros) error {
	if r.Status != Draft {
		return muster.Errorf(muster.Conflict, "the rollout is %s, and was started before", r.Status)
	}
	if err := q.Met(r); err != nil {
		return err
	}
	r.StartedBy, r.MinApprovals = by, q.Needs(r)
	if r.StartAt > now {
		r.Status = Scheduled
		return nil
	}
	r.Run(q, now)
	return nil
}

// Run lets a rollout begin whose time has come. Where q is not met it is held: Scheduled with the
// reason approvals, until it is.
func (r *Rollout) Run(q Quorum, now muster.Micros) {
	r.MinApprovals = q.Needs(r)
	if q.Met(r) != nil {
		r.Status, r.Reason = Scheduled, Unapproved
		return
	}
	r.Status, r.Reason, r.PhaseAt, r.Started = Running, "", now, now
}

// Pause stops offers until somebody resumes the rollout; what was offered and does not
// install yet is taken back. It says whether anything changed: one that is paused already
// keeps its reason. Conflict for a draft, and for one that has ended.
func (r *Rollout) Pause() (bool, error) {
	switch r.Status {
	case Paused:
		return false, nil
	case Running, Scheduled:
		r.Status, r.Reason = Paused, ByOperator
		return true, nil
	case Draft, Completed, Aborted:
	}
	return false, muster.Errorf(muster.Conflict, "the rollout is %s", r.Status)
}

// Withdraw pauses a rollout that runs, or is to, for what became of its release: ReleaseWithdrawn, or ReleaseOutdated.
func (r *Rollout) Withdraw(why Reason) {
	if r.Status == Running || r.Status == Scheduled {
		r.Status, r.Reason = Paused, why
	}
}

// Resume lets a paused rollout go on, in spite of what paused it: the failures of phases that
// have too many, also since it was paused, are not counted again, and telemetry that got worse in this phase is not looked at again. skip begins
// the next phase though this one has not succeeded. It says whether anything changed. Conflict
// when the rollout is not paused, when there is no next phase, without skip for a phase that
// cannot succeed any more, and for one that did not begin yet when q is not met.
func (r *Rollout) Resume(skip bool, q Quorum, now muster.Micros) (bool, error) {
	switch {
	case r.Status == Running && !skip:
		return false, nil
	case r.Status != Paused:
		return false, muster.Errorf(muster.Conflict, "the rollout is %s", r.Status)
	case skip && (r.Started == 0 || r.Phase == len(r.Plan.Phases)-1):
		return false, muster.Errorf(muster.Conflict, "there is no next phase to skip to")
	case !skip && r.Reason.fellShort() && r.Phase == len(r.Plan.Phases)-1:
		return false, muster.Errorf(muster.Conflict, "the last phase has ended %s: abort it, or roll back", r.Reason.shortWords())
	case !skip && r.Reason.fellShort():
		return false, muster.Errorf(muster.Conflict, "phase %s has ended %s: go on with the next one (skip_phase), or abort", r.PhaseName(r.Phase), r.Reason.shortWords())
	}
	if r.Started == 0 {
		if err := q.Met(r); err != nil {
			return false, err
		}
	}
	r.forgive()
	if r.Reason == Regression {
		r.Overruled = r.Phase + 1
	}
	r.Reason = ""
	switch {
	case r.Started == 0 && r.StartAt > now:
		r.Status = Scheduled
	case r.Started == 0:
		r.Run(q, now)
	default:
		r.Status = Running
	}
	if skip {
		r.next(now)
	}
	return true, nil
}

// fellShort says whether a rollout paused since a phase was over without what it asks for.
func (r Reason) fellShort() bool { return r == TooFewSuccesses || r == NothingProved }

func (r Reason) shortWords() string {
	if r == NothingProved {
		return "without a device that was confirmed"
	}
	return "with too few successes"
}

// Abort ends a rollout for good: nothing more is offered, and what does not install yet is
// taken back. By force those that install count as canceled too, and what they report is not
// heard any more: for releases that devices never come back from. It says whether anything
// changed: force may be added later. Conflict for a draft, which is deleted instead, and for a
// completed one.
func (r *Rollout) Abort(force bool, why Reason, now muster.Micros) (bool, error) {
	switch r.Status {
	case Aborted:
		changed := force && !r.Forced
		r.Forced = r.Forced || force
		return changed, nil
	case Running, Scheduled, Paused:
		r.Status, r.Reason, r.Waiting, r.Forced, r.Ended = Aborted, why, false, force, now
		return true, nil
	case Draft, Completed:
	}
	return false, muster.Errorf(muster.Conflict, "the rollout is %s", r.Status)
}

// Replan gives the rollout another plan, which was checked. While it runs only Concurrent,
// PerMinute and Windows may be others; who is in flight beyond a smaller Concurrent stays so.
// Conflict when more differs, and for a rollout that has ended.
func (r *Rollout) Replan(p Plan) error {
	if r.Status.Ended() {
		return muster.Errorf(muster.Conflict, "the rollout is %s", r.Status)
	}
	if r.Status != Draft {
		same := p
		same.Concurrent, same.PerMinute, same.Windows = r.Plan.Concurrent, r.Plan.PerMinute, r.Plan.Windows
		if !reflect.DeepEqual(same, r.Plan) {
			return muster.Errorf(muster.Conflict, "the rollout is %s: of its plan only concurrent, per_minute and windows may change", r.Status)
		}
	}
	r.Plan = p
	return nil
}

// forgive goes on in spite of the failures of phases that have too many of them.
func (r *Rollout) forgive() {
	forgiven := make([]int, len(r.Counts))
	for i := range r.Counts {
		c := &r.Counts[i]
		forgiven[i] = r.forgiven(i)
		if r.Plan.Phases[i].Failure.Crossed(c.Failing-forgiven[i], c.Results()-forgiven[i]) {
			forgiven[i] = c.Failing
		}
	}
	r.Forgiven = forgiven
}

// forgiven returns how many failing devices of a phase do not count, for a person has gone on
// in spite of them.
func (r *Rollout) forgiven(phase int) int {
	if phase >= len(r.Forgiven) {
		return 0
	}
	return min(r.Forgiven[phase], r.Counts[phase].Failing)
}

// unforgive is called when a device of a phase does not fail any more. Which it was is not known:
// taken for one of the forgiven, it can only stop the rollout sooner.
func (r *Rollout) unforgive(phase int) {
	if phase < len(r.Forgiven) && r.Forgiven[phase] > 0 {
		r.Forgiven = slices.Clone(r.Forgiven)
		r.Forgiven[phase]--
	}
}
