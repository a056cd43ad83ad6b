package rollout

import (
	"slices"

	"muster"
)

// Late is what a device did after its attempt was over, or taken back. It changes no state: what a
// rollout counted stays, and this is counted apart.
type Late string

// What devices do late.
const (
	LateInstalling Late = "installing"  // it installs all the same
	LateInstalled  Late = "installed"   // it reported the release's version
	LateFailed     Late = "failed"      // it said so
	LateBack       Late = "rolled_back" // it had begun, and reported another version
)

// Lates returns what there is.
func Lates() []Late { return []Late{LateInstalling, LateInstalled, LateFailed, LateBack} }

// Follows returns what a device did late, of which was is known, when f happens whose attempt is not in
// flight any more: it is in s, and retries says that it waits there for another attempt after one that failed.
// False when f is not looked at then. Who was confirmed is not followed.
func Follows(s State, retries bool, was Late, f Event) (next Late, ok bool) {
	if s.InFlight() || s == Confirmed || s >= states {
		return was, false
	}
	told := slices.Contains([]State{Queued, Canceled, Skipped, TimedOut}, s) // to leave it, or nothing more: it may go on
	switch {
	case f == SeesTarget:
		return LateInstalled, true
	case f == SeesOther && was != "" && was != LateFailed:
		return LateBack, true
	case (f == SaysInstalling || f == SaysRebooting) && told && was == "":
		return LateInstalling, true
	case (f == SaysInstalling || f == SaysRebooting) && told:
		return was, true
	case f == SaysFailed && told && !retries && (was == "" || was == LateInstalling || was == LateFailed):
		return LateFailed, true
	}
	return was, false
}

// Known says whether f tells nothing new of a device that came to s: that it still has another version
// while it installs, or when it did not get the release, once more that it failed, or how it came to be rolled back: what a
// device says of its version goes another way than its reports, and may be heard first. retries is as for Follows.
func Known(s State, retries bool, f Event) bool {
	if s == Installing {
		return f == SeesOther
	}
	if s.InFlight() || s == Confirmed || s == Queued && !retries || s >= states {
		return false
	}
	switch f {
	case SeesOther:
		return true
	case SaysFailed:
		return s == Failed || s == RolledBack || s == Queued
	case SaysInstalling, SaysRebooting:
		return s == RolledBack
	default:
		return false
	}
}

// Retries says whether the device waits for another attempt, after one that failed.
func (d *Device) Retries() bool { return d.State == Queued && d.Retry > 0 }

// After notes what a device did whose attempt is not in flight any more: that it installed all the
// same, or failed to. Stale for what is about another attempt, Conflict for what does not happen then.
func After(r *Rollout, d *Device, f Fact, now muster.Micros) (Change, error) {
	if d.Action == 0 {
		return Change{}, muster.Errorf(muster.Conflict, "the device was offered nothing")
	}
	if err := d.isOf(f); err != nil {
		return Change{}, err
	}
	late, ok := Follows(d.State, d.Retries(), d.Late, f.Event)
	if !ok {
		return Change{}, muster.Errorf(muster.Conflict, "%s does not happen to a device that is %s", f.Event, d.State)
	}
	before := *d
	if f.Seq > 0 {
		d.Seq = f.Seq
	}
	d.Late, d.Updated = late, now
	r.count(&before, d)
	c := Change{Device: d.ID, Action: d.Action, Attempt: d.Attempt, Event: f.Event, From: d.State, To: d.State, Reason: Afterwards, Detail: cut(f.Detail), Known: late, At: now}
	if late != before.Late {
		c.Late = late
	}
	return c, nil
}
