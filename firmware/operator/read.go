package operator

import (
	"context"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// Reader reads rollouts.
type Reader interface {
	RolloutReader
	DeviceReader
	LogReader
	Successions
}

// RolloutReader finds rollouts.
type RolloutReader interface {
	// Rollout returns one; NotFound when there is none.
	Rollout(ctx context.Context, id string) (rollout.Rollout, error)
	// Rollouts returns a page, the newest first.
	Rollouts(ctx context.Context, q Query) ([]rollout.Rollout, error)
	// RolloutReasons counts the devices of a rollout that have a reason, the most frequent first.
	RolloutReasons(ctx context.Context, id string, limit int) ([]ReasonCount, error)
}

// DeviceReader finds the devices of rollouts.
type DeviceReader interface {
	// RolloutMembers returns a page in the order of ids.
	RolloutMembers(ctx context.Context, q DeviceQuery) ([]rollout.Device, error)
	// RolloutSample returns the devices of a rollout in a state and, unless it is -1, a phase, in the
	// order of their ranks, which is one of chance; at most limit.
	RolloutSample(ctx context.Context, id string, state rollout.State, phase, limit int) ([]rollout.Device, error)
	// Standing returns a device as it is in a rollout, with Elsewhere and Secure, and whether it is in it.
	Standing(ctx context.Context, r *rollout.Rollout, device muster.DeviceID) (d rollout.Device, in bool, err error)
	// RolloutsOf returns what waits for a device in rollouts that are open, and then the newest
	// that it was offered; at most limit of each.
	RolloutsOf(ctx context.Context, device muster.DeviceID, limit int) ([]Entry, error)
}

// LogReader reads what happened.
type LogReader interface {
	// RolloutLog returns a page, the oldest first.
	RolloutLog(ctx context.Context, q LogQuery) ([]LogEntry, error)
}

// Successions finds what one rollout has to do with others.
type Successions interface {
	// GotRelease returns the devices of a rollout that have its release, or may come to have it, for they are in
	// flight: a page in the order of ids.
	GotRelease(ctx context.Context, id string, after muster.DeviceID, limit int) ([]muster.DeviceID, error)
	// ConfirmedAbove returns the highest security version over the given one that any of some devices confirmed of a
	// product; 0 for none.
	ConfirmedAbove(ctx context.Context, product string, security int64, devices []muster.DeviceID) (int64, error)
	// OlderRollouts returns the open rollouts of a product with lower numbers, the oldest first.
	OlderRollouts(ctx context.Context, product string, number int32, limit int) ([]rollout.Rollout, error)
	// Overlap returns devices of the older rollout that have not begun to install, and are in the newer.
	Overlap(ctx context.Context, older, newer string, limit int) ([]muster.DeviceID, error)
}

// Never is the Due of a device that is looked at when it comes, and not before.
const Never = director.Asleep

// Query chooses rollouts.
type Query struct {
	Status  rollout.Status // empty for all
	Release string         // empty for all
	Before  int32          // only those with lower numbers; 0 for all
	Limit   int
}

// DeviceQuery chooses devices of a rollout; empty members are for all.
type DeviceQuery struct {
	Rollout string
	State   string
	Phase   int // -1 for all
	Reason  rollout.Reason
	Device  muster.DeviceID // this one alone
	After   muster.DeviceID // those with greater ids
	Limit   int
}

// LogQuery chooses changes of states.
type LogQuery struct {
	Rollout string
	Device  muster.DeviceID // empty for all
	Newest  bool            // the newest first
	After   int64           // those with greater numbers; with Newest, unless 0, those with smaller ones
	Limit   int
}

// LogEntry is a change of a device's state.
type LogEntry struct {
	Number  int64 // in its rollout, from 1, in the order of commits
	Device  muster.DeviceID
	Action  int32
	Attempt int
	Event   string
	From    string
	To      string
	Reason  rollout.Reason
	Detail  string
	At      muster.Micros
}

// Entry is a device in a rollout.
type Entry struct {
	Device  rollout.Device
	Number  int32
	Name    string
	Release string
	Status  rollout.Status
}

// ReasonCount is how many devices of a rollout have a reason, in a state.
type ReasonCount struct {
	State   string
	Reason  rollout.Reason
	Devices int
}
