package director

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"muster"
	"muster/firmware/rollout"
)

// Asleep is the Due of a device that is not there: Wake makes it due again.
const Asleep = muster.Micros(math.MaxInt64)

// Select says which devices of a rollout a decision is about: those of one of the fields.
type Select struct {
	Due     bool              // queued, due, and of a phase that is open; in the order of their ranks, with Elsewhere, Deleted and Secure
	Overdue bool              // with a deadline that has passed
	In      []rollout.State   // in one of these states
	IDs     []muster.DeviceID // these, whatever their state
	Limit   int               // at most so many; 0 for all of IDs
}

// Fence is the lease that a coordinator acts under. The zero Fence is that of reports, which
// any process may hand in.
type Fence struct {
	Owner string
	Epoch int64
}

// Decide is called with a locked rollout and its selected devices, changes them, and returns
// what it did for the log.
type Decide func(r *rollout.Rollout, devices []*rollout.Device) ([]rollout.Change, error)

// Store keeps rollouts.
type Store interface {
	// Open returns the rollouts that have something to do: those that have not ended, and
	// ended ones with devices in flight or queued. At most limit.
	Open(ctx context.Context, limit int) ([]rollout.Rollout, error)
	// Decide runs decide in one transaction in which the rollout's row is locked, and keeps
	// all that it changed with one row of the log for each change, or nothing. A fence that
	// is not the rollout's lease is Stale; a rollout that is not there NotFound.
	Decide(ctx context.Context, id string, f Fence, now muster.Micros, s Select, decide Decide) error
	// InFlight returns the rollouts that devices are in flight in; others are left out.
	InFlight(ctx context.Context, devices []muster.DeviceID) (map[muster.DeviceID]string, error)
	// Actions returns what devices were offered, what is in flight first and then by number, the newest first:
	// of each product from the newest on that they confirmed, at most MostActions of a device. Who never was
	// offered anything is left out.
	Actions(ctx context.Context, devices []muster.DeviceID) (map[muster.DeviceID][]Action, error)
}

// MostActions bounds the actions of a device that a report may be news of.
const MostActions = 8

// Action is something that a device was offered, as its rollout has it now.
type Action struct {
	Number  int32
	Rollout string
	Release string
	Product string // of the release
	State   rollout.State
	Retries bool // it waits for another attempt, after one that failed
	Late    rollout.Late
	Updated muster.Micros // when the rollout heard of the device last
}

// Fleet knows the devices.
type Fleet interface {
	// Knows says whether the release of a rollout is known. Where it is not, nothing can be said of
	// a version.
	Knows(rollout string) bool
	// Is says whether what a device reports is the version of a rollout's release.
	Is(r *rollout.Rollout, version string) bool
	// Version returns what a device reports of the release's product; empty for nothing.
	Version(r *rollout.Rollout, device muster.DeviceID) string
	// Facts returns what a device is to a rollout's release, as of now. It is asked within
	// transactions, and answers from memory.
	Facts(r *rollout.Rollout, device muster.DeviceID) rollout.Facts
	// Life says what is known of whether a device that has the release is well.
	Life(device muster.DeviceID) rollout.Life
}

// Options are a Director's.
type Options struct {
	Owner string        // names the process; unique among those that share a store
	Lease time.Duration // after which another process takes over; 10 s when 0
	Batch int           // devices in one transaction; 1000 when 0
	// Verdict is what the telemetry of a rollout's phase says, and that in a sentence; nil for never
	// asked. It is called within transactions, and answers from memory.
	Verdict func(r *rollout.Rollout) (rollout.Verdict, string)
	// Barred says that the release of a rollout may be offered to nobody any more: revoked, out of date, or
	// signed by too few keys that are good; nil for never. It is called within transactions, and answers
	// from memory.
	Barred func(r *rollout.Rollout) bool
	// Outdated says that no rollout begins with the release of this one any more: deprecated; nil for never. It
	// is called as Barred is. What runs goes on.
	Outdated func(r *rollout.Rollout) bool
	// Quorum is what a rollout needs of people before it begins. It is asked within transactions, and answers
	// from memory.
	Quorum rollout.Quorum
	// Prepare has the fleet know a rollout, before reports about it are looked at; nil where it
	// always does. It may read the store.
	Prepare func(ctx context.Context, rollout string) error
	// Grace is for how long after New nobody is silent who was not heard since: devices come back
	// one by one, and what they said while no process was there is lost. 0 for none.
	Grace time.Duration
	// Told is called with what was committed, in the caller's goroutine. It does not wait.
	Told func(id string, changes []rollout.Change)
}

// Director looks after rollouts. It has no goroutine: who owns it calls Tick.
type Director struct {
	store Store
	fleet Fleet
	now   func() time.Time
	o     Options
	began muster.Micros
}

// New returns a Director.
func New(store Store, fleet Fleet, now func() time.Time, o Options) *Director {
	if o.Lease == 0 {
		o.Lease = 10 * time.Second
	}
	if o.Batch == 0 {
		o.Batch = 1000
	}
	if o.Verdict == nil {
		o.Verdict = func(*rollout.Rollout) (rollout.Verdict, string) { return rollout.NotAsked, "" }
	}
	if o.Barred == nil {
		o.Barred = func(*rollout.Rollout) bool { return false }
	}
	if o.Outdated == nil {
		o.Outdated = func(*rollout.Rollout) bool { return false }
	}
	if o.Told == nil {
		o.Told = func(string, []rollout.Change) {}
	}
	if o.Prepare == nil {
		o.Prepare = func(context.Context, string) error { return nil }
	}
	return &Director{store: store, fleet: fleet, now: now, o: o, began: muster.MicrosOf(now())}
}

// mostOpen bounds the rollouts that are looked after at a time.
const mostOpen = 10_000

// mostRounds bounds the transactions of one kind for a rollout in a Tick, so that one large
// rollout does not hold up the others.
const mostRounds = 20

// Open returns the rollouts that have something to do, for Look.
func (d *Director) Open(ctx context.Context) ([]rollout.Rollout, error) {
	list, err := d.store.Open(ctx, mostOpen)
	if err != nil {
		return nil, fmt.Errorf("look for rollouts: %w", err)
	}
	return list, nil
}

// Tick is Look at what is open.
func (d *Director) Tick(ctx context.Context) error {
	list, err := d.Open(ctx)
	if err != nil {
		return err
	}
	return d.Look(ctx, list)
}

// Look does what is due in the rollouts that are open: in each whose lease it has, or can take, who is silent has
// timed out, phases end, stopped rollouts take back what they offered, and free slots are
// filled. What fails in one rollout does not hold up the others; the error has all.
func (d *Director) Look(ctx context.Context, list []rollout.Rollout) error {
	var errs []error
	for i := range list {
		if list[i].Status == rollout.Draft {
			continue
		}
		if err := d.look(ctx, &list[i]); err != nil && !lostLease(err) {
			errs = append(errs, fmt.Errorf("rollout %s: %w", list[i].ID, err))
		}
	}
	return errors.Join(errs...)
}

func lostLease(err error) bool { return muster.KindOf(err) == muster.Stale }

// look is Tick for one rollout.
func (d *Director) look(ctx context.Context, r *rollout.Rollout) error {
	f, err := d.lease(ctx, r)
	if err != nil {
		return err
	}
	if err := d.sweep(ctx, r.ID, f); err != nil {
		return err
	}
	status, forced, err := d.advance(ctx, r.ID, f)
	if err != nil {
		return err
	}
	switch status {
	case rollout.Running:
		return d.offer(ctx, r.ID, f)
	case rollout.Paused:
		return d.drain(ctx, r.ID, f, rollout.Recall, rollout.Offered, rollout.Downloading, rollout.Downloaded)
	case rollout.Aborted:
		if err := d.drain(ctx, r.ID, f, rollout.Abort, rollout.Queued, rollout.Offered, rollout.Downloading, rollout.Downloaded); err != nil || !forced {
			return err
		}
		return d.drain(ctx, r.ID, f, rollout.Quit, rollout.Installing, rollout.Rebooting)
	case rollout.Draft, rollout.Scheduled, rollout.Completed:
	}
	return nil
}

func (d *Director) micros() muster.Micros { return muster.MicrosOf(d.now()) }

// lease takes or renews the lease of a rollout; Stale when another process has it.
func (d *Director) lease(ctx context.Context, r *rollout.Rollout) (Fence, error) {
	now := d.micros()
	half := muster.Micros(d.o.Lease/time.Microsecond) / 2
	if r.Owner == d.o.Owner && r.Expires-now > half {
		return Fence{r.Owner, r.Epoch}, nil
	}
	var got Fence
	err := d.store.Decide(ctx, r.ID, Fence{}, now, Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		if r.Owner != d.o.Owner && r.Expires > now {
			return nil, muster.Errorf(muster.Stale, "another process looks after the rollout")
		}
		if r.Owner != d.o.Owner || r.Expires <= now { // who lost it meanwhile must not go on under it
			r.Epoch++
		}
		r.Owner, r.Expires = d.o.Owner, now+2*half
		got = Fence{r.Owner, r.Epoch}
		return nil, nil
	})
	return got, err //nolint:wrapcheck // look's caller says which rollout
}

// decide runs one decision, and tells of it after it is committed.
func (d *Director) decide(ctx context.Context, id string, f Fence, s Select, decide Decide) (devices, moved int, err error) {
	var changes []rollout.Change
	err = d.store.Decide(ctx, id, f, d.micros(), s, func(r *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
		var err error
		devices = len(list)
		changes, err = decide(r, list)
		return changes, err
	})
	if err != nil {
		return 0, 0, err //nolint:wrapcheck // look's caller says which rollout
	}
	if len(changes) > 0 {
		d.o.Told(id, changes)
	}
	return devices, len(changes), nil
}

// step applies a fact to a device where it can happen, and appends what came of it.
func step(r *rollout.Rollout, dev *rollout.Device, f rollout.Fact, now muster.Micros, changes []rollout.Change) []rollout.Change {
	c, err := rollout.Step(r, dev, f, now)
	if err != nil {
		return changes
	}
	return append(changes, c)
}

// sweep ends what was silent for too long, and confirms what has soaked.
func (d *Director) sweep(ctx context.Context, id string, f Fence) error {
	for range mostRounds {
		n, _, err := d.decide(ctx, id, f, Select{Overdue: true, Limit: d.o.Batch}, func(r *rollout.Rollout, list []*rollout.Device) (out []rollout.Change, _ error) {
			now := d.micros()
			for _, dev := range list {
				life := d.fleet.Life(dev.ID)
				switch e, due := dev.Overdue(life, now); {
				case !due:
				case kept(r, dev, life.There, now):
					dev.Deadline = now + muster.Micros(r.Plan.Deadlines.Offered/time.Microsecond)
				case e == rollout.Silence && dev.Sleeps(&r.Plan, life, now):
				case e == rollout.Silence && dev.State.InFlight() && dev.State <= rollout.Downloaded:
					out = d.unanswered(r, dev, now, out)
				case e == rollout.Silence && d.away(dev, now):
					dev.Deadline = now + lookAgain
				default:
					out = step(r, dev, rollout.Fact{Event: e}, now, out)
				}
			}
			return out, nil
		})
		if err != nil || n < d.o.Batch {
			return err
		}
	}
	return nil
}

// kept says whether a device that is to try again is not silent: it is there, or the rollout
// itself has it wait, since it does not run or for a window.
func kept(r *rollout.Rollout, dev *rollout.Device, alive bool, now muster.Micros) bool {
	return dev.State == rollout.Queued && (alive || r.Status != rollout.Running || dev.Due > now && dev.Due != Asleep)
}

// lookAgain is when it is looked again whether a device has come back since the process began.
const lookAgain = muster.Micros(2 * time.Second / time.Microsecond)

// away says whether a device had no chance yet to be heard by this process.
func (d *Director) away(dev *rollout.Device, now muster.Micros) bool {
	return dev.Updated < d.began && now < d.began+muster.Micros(d.o.Grace/time.Microsecond)
}

// advance begins the next phase when this one is over, and returns the rollout's status, and
// whether it was aborted by force.
func (d *Director) advance(ctx context.Context, id string, f Fence) (status rollout.Status, forced bool, err error) {
	_, _, err = d.decide(ctx, id, f, Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		now := d.micros()
		switch due := r.Status == rollout.Scheduled && r.StartAt <= now; {
		case (due || r.Status == rollout.Running) && d.o.Barred(r):
			r.Withdraw(rollout.ReleaseWithdrawn)
		case due && d.o.Outdated(r):
			r.Withdraw(rollout.ReleaseOutdated)
		case due:
			r.Run(d.o.Quorum, now)
		}
		for range r.Plan.Phases {
			verdict, sentence := d.o.Verdict(r) // of each phase its own
			r.Hear(sentence)
			if !r.Advance(verdict, now) {
				break
			}
		}
		status, forced = r.Status, r.Forced
		return nil, nil
	})
	return status, forced, err
}

// offer fills free slots, in the order of the ranks. A device for which a rule does not hold
// waits, or is skipped, and takes no slot. Who has the image comes first.
func (d *Director) offer(ctx context.Context, id string, f Fence) error {
	for range mostRounds {
		full := false
		n, _, err := d.decide(ctx, id, f, Select{Due: true, Limit: d.o.Batch}, func(r *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
			out, rest := d.offerTo(r, list)
			full = rest
			return out, nil
		})
		if err != nil || n == 0 || full {
			return err
		}
	}
	return nil
}

// offerTo offers the release to those of the devices that may have it, and has those that are parked with its image
// install; full says that some may and there is no slot for them.
func (d *Director) offerTo(r *rollout.Rollout, list []*rollout.Device) (out []rollout.Change, full bool) {
	now := d.micros()
	for _, dev := range list {
		if r.Status != rollout.Running {
			return out, true
		}
		facts := d.fleet.Facts(r, dev.ID)
		held, holds := rollout.Held(r, dev, &facts, now)
		switch {
		case !holds && dev.Parked():
			out = unpark(r, dev, facts.Local, now, out)
		case !holds && r.Budget(1, now) == 1:
			dev.From = facts.Version
			out = step(r, dev, rollout.Fact{Event: rollout.Offer}, now, out)
			hours := rollout.HoursAt(r.Plan.Windows, facts.Local)
			dev.Deadline = byClosing(dev.Deadline, &hours)
		case !holds || held.ForAll:
			return out, true
		case held.Excludes != "":
			out = step(r, dev, rollout.Fact{Event: rollout.Exclude, Reason: held.Excludes, Detail: held.Detail}, now, out)
		case held.Until > now:
			dev.Due = held.Until
		default:
			dev.Due = Asleep
		}
	}
	return out, false
}

// drain applies an event to all devices in some states.
func (d *Director) drain(ctx context.Context, id string, f Fence, e rollout.Event, in ...rollout.State) error {
	for range mostRounds {
		n, moved, err := d.decide(ctx, id, f, Select{In: in, Limit: d.o.Batch}, func(r *rollout.Rollout, list []*rollout.Device) (out []rollout.Change, _ error) {
			if r.Status == rollout.Running { // resumed meanwhile
				return nil, nil
			}
			now := d.micros()
			for _, dev := range list {
				out = step(r, dev, rollout.Fact{Event: e}, now, out)
			}
			return out, nil
		})
		if err != nil || n < d.o.Batch || moved == 0 {
			return err
		}
	}
	return nil
}

// Wake makes devices that were asleep due, in a rollout: they have come.
func (d *Director) Wake(ctx context.Context, id string, devices []muster.DeviceID) error {
	_, _, err := d.decide(ctx, id, Fence{}, Select{IDs: devices}, func(_ *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
		now := d.micros()
		for _, dev := range list {
			if (dev.State == rollout.Queued || dev.Parked()) && dev.Due == Asleep {
				dev.Due = now
			}
		}
		return nil, nil
	})
	return err
}

// Leave has devices that were deleted skip what is in flight at them: their slots are free, and
// what is made again with their ids has nothing to do with it.
func (d *Director) Leave(ctx context.Context, devices []muster.DeviceID) error {
	where, err := d.store.InFlight(ctx, devices)
	if err != nil {
		return fmt.Errorf("look for the rollouts of deleted devices: %w", err)
	}
	by := map[string][]muster.DeviceID{}
	for device, id := range where {
		by[id] = append(by[id], device)
	}
	var errs []error
	for id, gone := range by {
		_, _, err := d.decide(ctx, id, Fence{}, Select{IDs: gone}, func(r *rollout.Rollout, list []*rollout.Device) (out []rollout.Change, _ error) {
			now := d.micros()
			for _, dev := range list {
				if dev.State.InFlight() {
					out = step(r, dev, rollout.Fact{Event: rollout.Exclude, Reason: rollout.Deleted}, now, out)
				}
			}
			return out, nil
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
