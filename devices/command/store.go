package command

import (
	"context"
	"encoding/json"

	"muster"
)

// Journal is the write side of the store. One process at a time writes commands.
type Journal interface {
	// TakeCommandIDs returns the first of n ids that nobody else gets, ever.
	TakeCommandIDs(ctx context.Context, n int64) (first int64, err error)
	// WriteCommands does all of b or nothing, and keeps b.Token. missing are the
	// ids of commands to insert whose device is not there: they are left out.
	WriteCommands(ctx context.Context, b Batch) (missing []int64, err error)
	// CommandsWritten says whether token is the last that was kept. It waits for a
	// WriteCommands that is under way still.
	CommandsWritten(ctx context.Context, token string) (bool, error)
}

// Reader is the read side of the store.
type Reader interface {
	// LoadCommands calls each for every command that is not finished, by id; of one
	// device unless that is empty.
	LoadCommands(ctx context.Context, device muster.DeviceID, each func(Open) error) error
	// CommandTexts returns what the commands with ids say, without those that are gone.
	CommandTexts(ctx context.Context, ids []int64) (map[int64]Text, error)
	// CommandStates returns whose the commands with ids are and their states, without
	// those that are gone.
	CommandStates(ctx context.Context, ids []int64) (map[int64]Ended, error)
	// CommandByKey finds a command by its device and the hash of its key; ok says
	// whether there is one.
	CommandByKey(ctx context.Context, device muster.DeviceID, key string) (k Keyed, ok bool, err error)
	// Command answers NotFound when the device has no such command.
	Command(ctx context.Context, device muster.DeviceID, id int64) (Command, error)
	// Commands returns up to q.Limit commands.
	Commands(ctx context.Context, q Query) ([]Command, error)
}

// JobStore keeps jobs and their targets.
type JobStore interface {
	// InsertJob inserts j with its targets, numbered from 0, or nothing.
	InsertJob(ctx context.Context, j Job, targets []muster.DeviceID) error
	// LoadJobs calls each for every job of which something is unfinished, by id.
	LoadJobs(ctx context.Context, each func(Job) error) error
	// LoadTargets returns up to limit targets of a job from number from on.
	LoadTargets(ctx context.Context, job, from int64, limit int) ([]Target, error)
	// LoadStarted calls each for every target of a job with a number below started that
	// is not final.
	LoadStarted(ctx context.Context, job, started int64, each func(Target) error) error
	// JobByKey finds a job by the hash of its key.
	JobByKey(ctx context.Context, key string) (k Keyed, ok bool, err error)
	// Job answers NotFound when there is none.
	Job(ctx context.Context, id int64) (Job, error)
	// Jobs returns up to limit jobs, newest first, older than before unless that is 0.
	Jobs(ctx context.Context, before int64, limit int) ([]Job, error)
	// JobTargets returns up to q.Limit targets, by number.
	JobTargets(ctx context.Context, q TargetQuery) ([]Target, error)
}

// Pruner removes what is old, a little at a time, and returns how much that was: less
// than limit when nothing is left.
type Pruner interface {
	// PruneCommands deletes commands that were finished before a time.
	PruneCommands(ctx context.Context, before muster.Micros, limit int) (int, error)
	// PruneDevice deletes finished commands of a device but the newest keep and those
	// with a key that were made since keyed.
	PruneDevice(ctx context.Context, device muster.DeviceID, keep int, keyed muster.Micros, limit int) (int, error)
	// PruneJobs deletes targets, and in the end the job, of the oldest finished job
	// that was finished before a time or is not among the newest keep.
	PruneJobs(ctx context.Context, before muster.Micros, keep, limit int) (int, error)
}

// Store is all of it.
type Store interface {
	Journal
	Reader
	JobStore
	Pruner
}

// Open is an unfinished command, without its text.
type Open struct {
	ID          int64
	Device      muster.DeviceID
	Method      string
	State       State
	Attempts    int
	Progress    int
	Expires     muster.Micros
	Job, Target int64 // Job is 0 for none
}

// Text is what a command says to its device.
type Text struct {
	Method string
	Params json.RawMessage
}

// Ended is a command's owner and state.
type Ended struct {
	Device muster.DeviceID
	State  State
}

// Keyed is what was made with an idempotency key.
type Keyed struct {
	ID      int64
	Hash    string // of the body
	Created muster.Micros
}

// Batch is what one transaction writes.
type Batch struct {
	Token   string
	Insert  []Insert
	Changes []Change
	Late    []Late
	Targets []Target // those whose state changed
	Jobs    []JobState
}

// Insert is a command to insert, queued.
type Insert struct {
	ID          int64
	Device      muster.DeviceID
	Method      string
	Params      json.RawMessage // empty for those of its job
	By          string
	Created     muster.Micros
	Expires     muster.Micros
	Job, Target int64
	Key, Hash   string // of the idempotency key and of the body; an older command of the device loses the key
}

// Change is a command's new state. Times that are zero and texts that are empty stay
// as they are.
type Change struct {
	ID                                            int64
	State                                         State
	Attempts, Progress                            int
	Sent, Delivered, Accepted, Reported, Finished muster.Micros
	Result, Error                                 json.RawMessage
}
