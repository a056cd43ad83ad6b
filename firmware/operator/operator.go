package operator

import (
	"context"
	"crypto/rand"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// Store keeps rollouts, one transaction for each call.
type Store interface {
	Decider
	Keeper
	Changer
}

// Decider changes rollouts: see director.Store.
type Decider interface {
	Decide(ctx context.Context, id string, f director.Fence, now muster.Micros, s director.Select, decide director.Decide) error
}

// Keeper makes and deletes rollouts.
type Keeper interface {
	// JoinRollout adds devices to a rollout that has not ended; those that are in it already are left as
	// they are. It returns how many have joined.
	JoinRollout(ctx context.Context, id string, devices []rollout.Device) (joined int, err error)
	// RolloutDevices returns the ids of a rollout's devices, all of them.
	RolloutDevices(ctx context.Context, id string) (map[muster.DeviceID]struct{}, error)
	// InsertRollout keeps a new rollout with its devices, and gives it its number; then it calls each of noted,
	// in the transaction. Conflict when the id is taken.
	InsertRollout(ctx context.Context, r *rollout.Rollout, devices []rollout.Device, noted ...func()) error
	// DeleteRollout deletes a rollout with all that is kept of it, if check says nil in the transaction.
	DeleteRollout(ctx context.Context, id string, check func(*rollout.Rollout) error) error
}

// Changer changes rollouts together with what their devices wait for.
type Changer interface {
	// EnlistRollout is Decide without devices, and keeps those of a rollout that had none.
	EnlistRollout(ctx context.Context, id string, devices []rollout.Device, decide director.Decide) error
	// RescheduleRollout is Decide without devices, and has those that wait for a time, but not for
	// a retry, looked at anew, and those that have the offer or the image: see rollout.Relook.
	RescheduleRollout(ctx context.Context, id string, now muster.Micros, decide director.Decide) error
}

// Chooser knows which devices match queries, from memory.
type Chooser interface {
	// Check says what is wrong with a query.
	Check(query string) error
	// MatchAll returns the devices that match now, each once.
	MatchAll(query string) ([]muster.DeviceID, error)
	// Matches says whether a device matches now.
	Matches(query string, device muster.DeviceID) bool
}

// Facts says what a device is to a rollout's release: see director.Fleet.
type Facts interface {
	Facts(r *rollout.Rollout, device muster.DeviceID) rollout.Facts
}

// Releases knows what is in the catalogue.
type Releases interface {
	// Known returns what a rollout keeps of a release; NotFound when there is none.
	Known(ctx context.Context, release string) (Release, error)
	// Startable says why no rollout may begin with a release, nil when one may: it is published, signed
	// as the server asks, and neither deprecated nor revoked.
	Startable(ctx context.Context, release string) error
	// Offerable says the same of a rollout that goes on, for which a deprecated release will do.
	Offerable(ctx context.Context, release string) error
}

// Release is what a rollout keeps of its release.
type Release struct {
	Product  string
	Security int64 // its security version
}

// Parts are what an Operator works with; all are needed.
type Parts struct {
	Store    Store
	Reader   Reader
	Fleet    Chooser
	Facts    Facts
	Releases Releases
	Now      func() time.Time
	// Prepare has Facts know the release of a rollout that is a draft, or over; nil where it knows them all.
	Prepare func(ctx context.Context, rollout string) error
	// Waits says whether people at a device are still to want an action; nil where nobody asks them.
	Waits func(ctx context.Context, device muster.DeviceID, action int32) (bool, error)
}

// Options are an Operator's.
type Options struct {
	// Quorum is what a rollout needs of people before it starts: the director's too.
	Quorum rollout.Quorum
	// Told is called with what was committed, as director.Options.Told. It does not wait.
	Told func(id string, changes []rollout.Change)
}

// Operator does what people ask for. It is safe for concurrent use, and has no goroutine.
type Operator struct {
	p     Parts
	o     Options
	notes *Noting
	board board
}

// New returns an Operator. notes is what the director works through too.
func New(p Parts, notes *Noting, o Options) *Operator {
	if o.Told == nil {
		o.Told = func(string, []rollout.Change) {}
	}
	return &Operator{p: p, o: o, notes: notes, board: board{kept: map[string]*watched{}}}
}

// Changes grows after each change of any rollout in this process, and each second: other processes
// change rollouts too, and an estimate gets old.
func (o *Operator) Changes() uint64 {
	return o.notes.changes.Load() + uint64(max(0, o.p.Now().Unix()))
}

// MaxDevices is how many devices a rollout has at most.
const MaxDevices = 1_000_000

const idPrefix = "rol_"

// newID returns an id that no other rollout has.
func newID() string { return idPrefix + rand.Text() }

func (o *Operator) now() muster.Micros { return muster.MicrosOf(o.p.Now()) }

// Rollout returns one; NotFound when there is none.
func (o *Operator) Rollout(ctx context.Context, id string) (rollout.Rollout, error) {
	return o.p.Reader.Rollout(ctx, id) //nolint:wrapcheck // the store says what it was doing
}

// Read gives what is read without a rule of its own.
func (o *Operator) Read() Reader { return o.p.Reader }
