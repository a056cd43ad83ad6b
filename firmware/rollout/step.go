package rollout

import (
	"cmp"
	"math"
	"time"

	"muster"
)

// Fact is an event with what belongs to it.
type Fact struct {
	Event    Event
	Action   int32  // that it is about; 0 for facts that name none
	Attempt  int    // likewise
	Seq      int64  // of a device's reports; they count up from 1 in each attempt, 0 for unnumbered ones
	Progress int    // percent, of SaysDownloading
	Reason   Reason // of Exclude
	Detail   string // of SaysFailed and SaysDenied
}

// Change is what a fact did to a device, for the audit log and for who watches. It is a
// change of state only if From and To differ.
type Change struct {
	Device  muster.DeviceID
	Action  int32
	Attempt int // in which it happened
	Event   Event
	From    State
	To      State
	Reason  Reason
	Detail  string
	Stops   Status // what this did to the rollout: Paused or Aborted; empty for nothing
	Late    Late   // what the device did though the attempt is over: see After, and installed of one that ended while it soaked; empty for nothing new
	Known   Late   // what is known after it of what the device did late
	At      muster.Micros
}

// Moved says whether the state changed.
func (c *Change) Moved() bool { return c.From != c.To }

// Logged says whether the log has a row of this.
func (c *Change) Logged() bool { return c.Moved() || c.Late != "" }

// Failed says whether an attempt of the device failed by this.
func (c *Change) Failed() bool {
	switch c.To {
	case Failed, RolledBack, TimedOut:
		return c.Moved()
	case Queued:
		return c.Moved() && (c.Event == SaysFailed || c.Event == Silence)
	default:
		return false
	}
}

// Step applies a fact to a device and its rollout, at a time. A stale report, one of another
// action or attempt and one that came before, is a Stale error; a fact that cannot happen in
// the device's state is a Conflict. Neither changes anything. A failure that crosses the
// threshold of the device's phase stops the rollout in the same call.
func Step(r *Rollout, d *Device, f Fact, now muster.Micros) (Change, error) {
	if err := d.isOf(f); err != nil {
		return Change{}, err
	}
	next, ok := Next(d.State, f.Event)
	if !ok || f.Event == Park && d.Parked() || f.Event == Unpark && !d.Parked() {
		return Change{}, muster.Errorf(muster.Conflict, "%s does not happen to a device that is %s", f.Event, d.State)
	}
	c := Change{Device: d.ID, Action: d.Action, Attempt: d.Attempt, Event: f.Event, From: d.State, At: now}
	if f.Seq > 0 {
		d.Seq = f.Seq
	}
	before := *d
	if d.beginsAgain(f.Event, next) { // as after a power cut
		if d.Repeats++; d.Repeats > mostRepeats {
			next, f.Reason = Failed, Looping
		}
	}
	d.enter(r, next, f, now)
	c.Late = d.left(&before, f)
	r.count(&before, d)
	c.Known = d.Late
	c.To, c.Reason, c.Detail, c.Action, c.Attempt = d.State, d.Reason, d.Detail, d.Action, d.Attempt
	if before.Failing != d.Failing || before.good() != d.good() { // a success may complete the sample
		c.Stops = r.judge(d.Phase, now)
	}
	return c, nil
}

// beginsAgain says whether a device goes back by what it says, or restarts once more though it had the version.
func (d *Device) beginsAgain(e Event, next State) bool {
	return e <= SaysRebooting && next < d.State || e == SaysRebooting && d.Soaking
}

// isOf says whether a fact is about what the device is doing now.
func (d *Device) isOf(f Fact) error {
	switch {
	case f.Action != 0 && f.Action != d.Action:
		return muster.Errorf(muster.Stale, "the action is not the device's current one")
	case f.Attempt != 0 && f.Attempt != d.Attempt:
		return muster.Errorf(muster.Stale, "the attempt is not the device's current one")
	case f.Seq != 0 && f.Seq <= d.Seq:
		return muster.Errorf(muster.Stale, "the report came before, or a later one did")
	}
	return nil
}

// enter puts the device into a state, and what belongs to it.
func (d *Device) enter(r *Rollout, next State, f Fact, now muster.Micros) {
	was, further := d.State, true
	d.State, d.Updated = next, now
	switch next {
	case Failed, RolledBack, TimedOut:
		d.fail(r, was, next, f, now)
		return
	case Confirmed:
		d.Failing, d.Reason, d.Detail = false, "", ""
	case Skipped:
		d.Reason, d.Detail = skippedFor(f), cut(f.Detail)
	case Queued: // recalled: it is no attempt that failed
		d.Due, d.Retry = now, 0
	case Offered:
		d.Attempt++
		d.Action = r.actionOf(d.Attempt)
		d.Seq, d.Repeats, d.Progress, d.Soaking, d.Retry = 0, 0, 0, false, 0
		d.Late = ""
	case Downloading:
		said := min(max(f.Progress, 0), 100)
		further = was != Downloading || said > d.Progress
		if further {
			d.Progress = said
		}
	case Downloaded, Installing, Rebooting, Canceled, states:
	}
	d.wait(&r.Plan, was, further, f.Event, now)
}

// left notes of a device that had the release, for it soaked, that it has it though the rollout does not count
// it as updated: a rollback takes it along. It returns what is news of that. What is deleted has nothing.
func (d *Device) left(before *Device, f Fact) Late {
	switch {
	case d.Soaking || d.State == Confirmed || d.State == RolledBack:
		d.Late = ""
	case before.Soaking && f.Reason != Deleted:
		d.Late = LateInstalled
	}
	if d.late() && !before.late() {
		return LateInstalled
	}
	return ""
}

// wait sets until when the device may be silent, or for how long it soaks. Who reports the
// version a second time soaks on; who restarts in between begins to soak anew. Who says again where it
// was has no more time for that, unless it downloads and is further.
func (d *Device) wait(p *Plan, was State, further bool, e Event, now muster.Micros) {
	switch {
	case e == Park:
		d.Deadline = AtWindow
	case e == Unpark:
		d.Deadline = now + micros(p.Deadlines.Of(d.State))
	case d.State == Rebooting && e == SeesTarget && d.Soaking:
	case d.State == Rebooting && (e == SeesTarget || d.Soaking):
		d.Soaking, d.Soaked, d.Deadline = true, 0, now+micros(p.Soak)
	case d.State == was && (d.State != Downloading || !further):
	default:
		d.Soaking, d.Soaked, d.Deadline = false, 0, 0
		if limit := p.Deadlines.Of(d.State); limit > 0 {
			d.Deadline = now + micros(limit)
		}
	}
}

// Life is what is known of whether a device lives.
type Life struct {
	There bool          // it is connected, or asked of late
	Heard muster.Micros // its last sign of life; 0 for none
	Until muster.Micros // when a device that is away is silent by its own rhythm; 0 where that is not known
}

// Overdue returns what has become of a device whose deadline has passed: it has soaked, if
// it is there or checked in since the soak was over, or it was silent. False when it is not due.
func (d *Device) Overdue(l Life, now muster.Micros) (Event, bool) {
	switch {
	case d.State.Ended() || d.Deadline == 0 || now < d.Deadline:
		return 0, false
	case d.Soaking && (l.There || d.Soaked > 0 && l.Heard >= d.Soaked):
		return Soaked, true
	default:
		return Silence, true
	}
}

// sleepLook is after how long it is looked again whether a device that sleeps has checked in.
const sleepLook = 10 * time.Second

// Sleeps has a device waited for that is away when its soak is over, and not silent by its own
// rhythm: until it checks in, and at most for as long as an offer may wait. It says whether it is.
func (d *Device) Sleeps(p *Plan, l Life, now muster.Micros) bool {
	if !d.Soaking {
		return false
	}
	over := cmp.Or(d.Soaked, d.Deadline)
	until := min(l.Until, over+micros(p.Deadlines.Offered))
	if until <= now {
		return false
	}
	d.Soaked, d.Deadline = over, min(until, now+micros(sleepLook))
	return true
}

func skippedFor(f Fact) Reason {
	switch f.Event {
	case SaysDenied:
		return Denied
	case Replaced:
		return Superseded
	default:
		return f.Reason
	}
}

// fail ends an attempt. What failed, or was silent, is tried again while there are attempts;
// what came back with its old version has shown that the release is not for it.
// Who does not come back for the next attempt within the time of an offer has had his last.
func (d *Device) fail(r *Rollout, was, end State, f Fact, now muster.Micros) {
	d.Failing, d.Soaking, d.Soaked, d.Deadline = true, false, 0, 0
	d.Reason, d.Detail = reasonOf(end, f), cut(f.Detail)
	d.Failures++
	if was == Queued || end == RolledBack || d.Reason == Looping || d.Failures >= r.Plan.Attempts {
		return
	}
	d.State = Queued
	d.Retry = now + micros(r.Plan.RetryAfter)<<min(d.Failures-1, 10)
	d.Due, d.Deadline = d.Retry, d.Retry+micros(r.Plan.Deadlines.Offered)
}

func reasonOf(end State, f Fact) Reason {
	switch {
	case f.Reason == Looping:
		return Looping
	case end == TimedOut:
		return Silent
	case end == RolledBack:
		return OldVersion
	default:
		return DeviceError
	}
}

// count moves a device between the counts of its phase.
func (r *Rollout) count(before, after *Device) {
	c := &r.Counts[after.Phase]
	c.By[before.State]--
	c.By[after.State]++
	c.Failing += one(after.Failing) - one(before.Failing)
	if before.Failing && !after.Failing {
		r.unforgive(after.Phase)
	}
	c.Soaking += one(after.soaks()) - one(before.soaks())
	c.Late += one(after.late()) - one(before.late())
	c.Parked += one(after.Parked()) - one(before.Parked())
	c.Missed += one(after.Missed()) - one(before.Missed())
	c.Unfit += one(after.Unfit()) - one(before.Unfit())
}

// Missed says whether the device was skipped though it was to get the release.
func (d *Device) Missed() bool {
	return d.State == Skipped && (d.Reason == Denied || d.Reason == Blocked)
}

// Unfit says whether the device was skipped since the release is not for it.
func (d *Device) Unfit() bool { return d.State == Skipped && d.Reason == Ineligible }

// AtWindow is the Deadline of a device that is parked: no time runs for it.
const AtWindow = muster.Micros(math.MaxInt64)

// Parked says whether the device has the image, waits with it for its maintenance window, or for a slot once that has
// opened, and takes none. What it says that it does all the same counts at once.
func (d *Device) Parked() bool { return d.State == Downloaded && d.Deadline == AtWindow }

// soaks says whether the device counts as soaking.
func (d *Device) soaks() bool { return d.State == Rebooting && d.Soaking && !d.Failing }

// late says whether the device has the release though the rollout is through with it, or took it back.
func (d *Device) late() bool { return d.Late == LateInstalled && !d.State.InFlight() }

// good says whether the device is a good result so far.
func (d *Device) good() bool { return d.State == Confirmed || d.soaks() }

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// judge stops the rollout when a phase has too many failures.
func (r *Rollout) judge(phase int, now muster.Micros) Status {
	if r.Status != Running {
		return ""
	}
	c := &r.Counts[phase]
	old := r.forgiven(phase)
	if !r.Plan.Phases[phase].Failure.Crossed(c.Failing-old, c.Results()-old) {
		return ""
	}
	r.Status, r.Reason = Paused, TooManyFailures
	if r.Plan.OnFailure == Aborts {
		r.Status, r.Ended = Aborted, now
	}
	return r.Status
}

// cut is what is kept of a text.
func cut(s string) string { return s[:min(len(s), MaxDetail)] }

func micros(d time.Duration) muster.Micros { return muster.Micros(d / time.Microsecond) }
