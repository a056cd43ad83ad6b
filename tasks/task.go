package tasks

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"muster"
)

// The bounds of the room.
const (
	// MaxTasks is how many tasks are kept; beyond, the oldest that ended is dropped.
	MaxTasks = 10_000
	// MaxInput is the longest input, in bytes of JSON.
	MaxInput = 16 << 10
	// MaxCheckpoint is the longest checkpoint, in bytes of JSON.
	MaxCheckpoint = 1 << 20
	// MaxAttempts is how often a durable task is begun without keeping a step in
	// between; then it has failed, since it may be what ends the process.
	MaxAttempts = 5
	// MaxJoined is how many may join a task; one more takes the place of who joined first,
	// who does not know of it any more.
	MaxJoined = 1000
	// MaxWait is the longest wait for the end of a task.
	MaxWait = 60 * time.Second

	maxMemory  = 64 << 20 // bytes of results in memory; the oldest go first
	maxInBytes = 1 << 20  // of one of them
	maxWaits   = 1000     // callers that wait at a time; the next is told Busy
	maxNote    = 200      // bytes of a progress note; the rest is cut
)

// State is where a task stands.
type State string

// The states of a task. Succeeded and those after it are final.
const (
	Queued    State = "queued"
	Running   State = "running"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	TimedOut  State = "timed_out" // it took longer than its kind allows
)

// States returns every state there is.
func States() []State { return []State{Queued, Running, Succeeded, Failed, Cancelled, TimedOut} }

// Final says whether nothing comes after s.
func (s State) Final() bool { return s != Queued && s != Running }

// Owner is who started a task.
type Owner struct {
	Kind string // of audit.Actor
	ID   string // of the user, or of the key or session that stands for nobody else
	Name string // at the time
}

// Task is a long request as it stands.
type Task struct {
	ID    string // tsk_ and 11 characters, in the order of creation
	Kind  string
	State State
	Owner Owner
	// Joined are those who asked for the same as the owner of a shared task, and want it as he
	// does: at most MaxJoined, never changed in place. When the owner leaves, the first of them
	// is the owner.
	Joined  []Owner
	Input   json.RawMessage // an object
	Durable bool

	Created, Started, Ended muster.Micros // zero for not yet
	Expires                 muster.Micros // when the result goes; zero without one

	// Done of Total units; Total is zero while it is not known. Note is for people.
	Done, Total int64
	Note        string

	Attempts  int  // begun since the last step that was kept
	Cancelled bool // somebody asked for its end; it comes soon

	// Code is the muster.Kind of what went wrong and Error says it for people; empty
	// unless it failed or timed out.
	Code, Error string
	Result      *Result // nil for none, or none any more
}

// Result describes what a task gave.
type Result struct {
	Type string // its media type
	Size int64  // in bytes
}

// Viewer is who looks at tasks.
type Viewer struct {
	ID    string // as in Owner
	Admin bool
	// Allows says whether he has a scope; nil for none.
	Allows func(scope string) bool
}

func (v Viewer) allows(scope string) bool { return scope == "" || v.Allows != nil && v.Allows(scope) }

// Sees says whether v may know of t and end it: its owner may, who joined it, and admins.
func (v Viewer) Sees(t *Task) bool { return v.Admin || v.wants(t) }

// wants says whether t is done for v.
func (v Viewer) wants(t *Task) bool {
	return v.ID != "" && (v.ID == t.Owner.ID || slices.ContainsFunc(t.Joined, v.is))
}

func (v Viewer) is(o Owner) bool { return o.ID == v.ID }

// view returns t as v sees it: who joined it owns it.
func (v Viewer) view(t Task) Task {
	if v.ID != t.Owner.ID {
		if i := slices.IndexFunc(t.Joined, v.is); i >= 0 {
			t.Owner = t.Joined[i]
		}
	}
	t.Joined = nil // whom else it is done for is nobody's business
	return t
}

// join adds o to those whom t is done for.
func (t *Task) join(o Owner) {
	if (Viewer{ID: o.ID}).wants(t) {
		return
	}
	first := max(0, len(t.Joined)+1-MaxJoined)
	t.Joined = append(slices.Clone(t.Joined[first:]), o)
}

// leave takes away who an id is, and says whether somebody else wants t still.
func (t *Task) leave(id string) bool {
	joined := slices.DeleteFunc(slices.Clone(t.Joined), Viewer{ID: id}.is)
	if id == t.Owner.ID {
		if len(joined) == 0 {
			return false
		}
		t.Owner, joined = joined[0], joined[1:]
	}
	t.Joined = joined
	return true
}

// Kind is a sort of task. Name, Timeout, Concurrency and Run must be set.
type Kind struct {
	Name    string
	Summary string // for people
	// Timeout is how long one attempt may take.
	Timeout time.Duration
	// Concurrency is how many run at a time; Queue is how many wait beside them, the next
	// is refused with Busy.
	Concurrency, Queue int
	// Durable tasks are in the store and go on after a restart. Others are in memory.
	Durable bool
	// KeepResult is how long a result can be had after the end.
	KeepResult time.Duration
	// KeepPartial keeps what was written when the task did not succeed, up to its last
	// step that was kept.
	KeepPartial bool
	// Private results hold secrets: they are for the owner alone, not for admins either,
	// while he has Scope.
	Private bool
	// Scope is what the API asks of those who start one. A task of who has it no more is
	// cancelled, unless its kind is shared.
	Scope string
	// Door is how a task of this kind is started when its input alone does not do, in
	// words; empty when it does.
	Door string
	// Check returns an Invalid error for an input that cannot be; nil takes all.
	Check func(input json.RawMessage) error
	// Key makes a task that asks for the same as one that runs, or whose result is still
	// there, be that one: it returns the same text for both. Only for kinds that are not
	// durable; nil for never.
	Key func(input json.RawMessage) string
	// Run does the work. It must end soon when ctx does, and may panic. Of a durable kind
	// it is begun again when it fails with Unavailable, and after a restart; Run.Resume
	// tells then what was done.
	Run func(ctx context.Context, r *Run) error
}

func (k *Kind) check() error {
	switch {
	case k.Name == "" || k.Run == nil || k.Timeout <= 0 || k.Concurrency < 1 || k.Queue < 0:
		return muster.Errorf(muster.Invalid, "the kind of task %q is not complete", k.Name)
	case k.Key != nil && k.Durable:
		return muster.Errorf(muster.Invalid, "tasks of kind %s are durable and cannot be shared", k.Name)
	}
	return nil
}

// Kept is what of a running task survives the process: the last step.
type Kept struct {
	Checkpoint  json.RawMessage // nil before the first
	Size        int64           // bytes of the result that belong to it
	Done, Total int64
}

// Store keeps durable tasks.
type Store interface {
	// SaveTask inserts a task, or replaces what is kept of it but its Kept.
	SaveTask(ctx context.Context, t Task) error
	// KeepStep keeps the step that ctx carries, in a transaction of its own.
	KeepStep(ctx context.Context) error
	// DeleteTasks forgets tasks; one that is not there is no error.
	DeleteTasks(ctx context.Context, ids []string) error
}

// Loader reads durable tasks.
type Loader interface {
	// LoadTasks calls each for every task, in the order of their ids.
	LoadTasks(ctx context.Context, each func(Task, Kept) error) error
	// KeptOf returns the last step of a task, NotFound when there is no such task.
	KeptOf(ctx context.Context, id string) (Kept, error)
}
