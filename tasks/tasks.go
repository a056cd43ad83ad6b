package tasks

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"muster"
	"muster/audit"
)

// Config is what New needs. Store, Loader, Dir, Now and Logger must be set.
type Config struct {
	Store  Store
	Loader Loader
	Dir    string // of inputs and results; made when it is missing
	// MaxBytes is how much the files in Dir may have together; 4 GiB when zero.
	MaxBytes int64
	// Retry is how long a durable task that finds the store away waits at first before it
	// tries again, and then ever longer; 100 ms when zero.
	Retry time.Duration
	// May says whether an owner may come in now and has the scope, which is empty when that
	// does not matter: the tasks of one who may not are cancelled, at Load, by Recheck and
	// before they begin. It must not block; nil is for everybody.
	May    func(o Owner, scope string) bool
	Now    func() time.Time
	Logger *slog.Logger
}

// Tasks runs tasks. It is safe for concurrent use.
type Tasks struct {
	store  Store
	loader Loader
	files  *files
	retry  time.Duration
	may    func(Owner, string) bool // nil for everybody
	now    func() time.Time
	log    *slog.Logger
	watch  *watchers

	ctx    context.Context //nolint:containedctx // the life of what runs, not a request's
	cancel context.CancelFunc
	wg     sync.WaitGroup
	panics atomic.Int64
	waits  atomic.Int64
	halt   chan struct{} // closed by EndWaits
	halted sync.Once

	mu     sync.Mutex
	kinds  map[string]*kind
	jobs   map[string]*job
	order  []*job          // by id
	memo   map[string]*job // by kind and key: shared ones that run or have a result
	gone   []string        // dropped durable tasks that the store still has
	lastID int64
	memory int64 // bytes of results in memory
	ready  bool  // Load was called
	closed bool  // Stop was called
}

// kind is a Kind with what goes on of it.
type kind struct {
	Kind
	running  int
	starting int // being stored
	queue    []*job
}

// job is a task with what it takes to run it. What of Task changes is guarded by
// Tasks.mu; its id, kind, input and time of creation never do.
type job struct {
	Task
	kind   *kind
	kept   Kept
	key    string // in memo, empty for none
	memory []byte // the result of one that is not durable
	cancel context.CancelCauseFunc
	freed  bool          // its place is another's
	ended  chan struct{} // closed when the task is final
	turn   chan struct{} // held by who decides its end, and while that is stored
}

func newJob(t Task, k *kind) *job {
	return &job{Task: t, kind: k, ended: make(chan struct{}), turn: make(chan struct{}, 1)}
}

// New returns a room without kinds: Register and Load come first.
func New(c Config) *Tasks {
	ctx, cancel := context.WithCancel(context.Background())
	return &Tasks{
		store: c.Store, loader: c.Loader, may: c.May, now: c.Now, log: c.Logger, watch: newWatchers(),
		retry: cmp.Or(c.Retry, firstBackoff),
		files: &files{dir: c.Dir, max: cmp.Or(c.MaxBytes, 4<<30)},
		ctx:   ctx, cancel: cancel, halt: make(chan struct{}),
		kinds: map[string]*kind{}, jobs: map[string]*job{}, memo: map[string]*job{},
	}
}

// Register adds a kind. Call it before Load. Invalid when it is not complete or its name
// is taken.
func (t *Tasks) Register(k Kind) error {
	if err := k.check(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kinds[k.Name] != nil || t.ready {
		return muster.Errorf(muster.Invalid, "the kind of task %s comes twice or too late", k.Name)
	}
	t.kinds[k.Name] = &kind{Kind: k}
	return nil
}

// Kinds returns every kind, by name.
func (t *Tasks) Kinds() []Kind {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Kind, 0, len(t.kinds))
	for _, k := range t.kinds {
		out = append(out, k.Kind)
	}
	slices.SortFunc(out, func(a, b Kind) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Start starts a task; a durable one is stored when it returns. A shared one that runs
// already, or whose result is still there, is joined and returned as it stands. NotFound when there
// is no such kind, Invalid for its input, TooLarge for a longer one than MaxInput, and
// Busy when as many run and wait as may.
func (t *Tasks) Start(ctx context.Context, kind string, input json.RawMessage, owner Owner) (Task, error) {
	return t.StartWith(ctx, kind, input, owner, nil)
}

// StartWith is Start with a file, which is read to its end. It is for durable kinds.
func (t *Tasks) StartWith(ctx context.Context, kind string, input json.RawMessage, owner Owner, file io.Reader) (Task, error) {
	j, err := t.start(ctx, kind, input, owner, file)
	if err != nil {
		return Task{}, err
	}
	return Viewer{ID: owner.ID}.view(t.snapshot(j)), nil
}

func (t *Tasks) start(ctx context.Context, kind string, input json.RawMessage, owner Owner, file io.Reader) (*job, error) {
	j, joined, err := t.begin(kind, input, owner)
	if err != nil {
		return nil, err
	}
	if joined {
		audit.Nothing(ctx)
		return j, nil
	}
	audit.Note(ctx, "task.start", "tasks/"+j.ID, nil, map[string]any{"kind": j.Kind, "input": j.Input})
	if j.Durable {
		err = t.keepNew(ctx, j, file)
	}
	if err == nil {
		t.admit(j) //nolint:contextcheck // tasks outlive whoever started or ended one
		return j, nil
	}
	t.mu.Lock()
	j.kind.starting--
	t.mu.Unlock()
	if dropErr := t.files.drop(j.ID, false); dropErr != nil {
		t.log.Warn("a file of a task that did not start stays until the next start", "task", j.ID, "err", dropErr)
	}
	return nil, err
}

// begin checks what was asked for and takes a place, or finds the task to join.
func (t *Tasks) begin(name string, input json.RawMessage, owner Owner) (j *job, joined bool, err error) {
	if input, err = compact(input); err != nil {
		return nil, false, err
	}
	t.mu.Lock()
	k := t.kinds[name]
	t.mu.Unlock()
	if k == nil {
		return nil, false, muster.Errorf(muster.NotFound, "there is no kind of task %.64q", name)
	}
	if k.Check != nil {
		if err := k.Check(input); err != nil {
			return nil, false, muster.At(err, "input")
		}
	}
	key := ""
	if k.Key != nil {
		key = k.Name + "\x00" + k.Key(input)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ready || t.closed {
		return nil, false, muster.Errorf(muster.Unavailable, "the server is starting or stopping")
	}
	if there := t.memo[key]; key != "" && there != nil && !there.Cancelled {
		there.join(owner)
		return there, true, nil
	}
	if waiting := k.starting + len(k.queue); k.running+waiting >= k.Concurrency+k.Queue {
		return nil, false, muster.Errorf(muster.Busy, "%d tasks of kind %s run and %d wait: try again later", k.running, name, waiting)
	}
	now := muster.MicrosOf(t.now())
	t.lastID = max(int64(now), t.lastID+1)
	j = newJob(Task{ID: formatID(t.lastID), Kind: name, State: Queued, Owner: owner, Input: input, Durable: k.Durable, Created: now}, k)
	k.starting++
	if j.key = key; key != "" {
		t.memo[key] = j
	}
	return j, false, nil
}

func (t *Tasks) keepNew(ctx context.Context, j *job, file io.Reader) error {
	if file != nil {
		if err := t.files.put(j.ID, inputFile, file); err != nil {
			return err
		}
	}
	if err := t.store.SaveTask(ctx, j.Task); err != nil {
		return fmt.Errorf("store a task: %w", err)
	}
	return nil
}

// admit lets j run as soon as its kind has room.
func (t *Tasks) admit(j *job) {
	t.mu.Lock()
	j.kind.starting--
	t.insert(j)
	t.prune()
	j.kind.queue = append(j.kind.queue, j)
	t.dispatch(j.kind)
	t.mu.Unlock()
	t.watch.tell(j.ID)
}

// insert is called with the lock held.
func (t *Tasks) insert(j *job) {
	t.jobs[j.ID] = j
	i, _ := slices.BinarySearchFunc(t.order, j.ID, func(a *job, id string) int { return strings.Compare(a.ID, id) })
	t.order = slices.Insert(t.order, i, j)
}

// dispatch starts what may run, with the lock held.
func (t *Tasks) dispatch(k *kind) {
	for k.running < k.Concurrency && len(k.queue) > 0 && !t.closed {
		j := k.queue[0]
		k.queue = slices.Delete(k.queue, 0, 1)
		k.running++
		j.State, j.Started = Running, muster.MicrosOf(t.now())
		j.Attempts++
		ctx, cancel := context.WithCancelCause(t.ctx)
		j.cancel = cancel
		t.wg.Go(func() { t.execute(ctx, j) })
	}
}

// Stop ends what runs and waits for it until ctx ends. Durable tasks go on at the next
// start, others are cancelled.
func (t *Tasks) Stop(ctx context.Context) error {
	t.EndWaits()
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	done := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for tasks: %w", ctx.Err())
	}
}

// EndWaits ends every Wait, so that the listeners can be closed. Tasks go on.
func (t *Tasks) EndWaits() { t.halted.Do(func() { close(t.halt) }) }

// compact checks that input is a JSON object of at most MaxInput bytes; nothing is {}.
func compact(input json.RawMessage) (json.RawMessage, error) {
	if len(input) == 0 {
		return json.RawMessage("{}"), nil
	}
	if len(input) > MaxInput {
		return nil, muster.Errorf(muster.TooLarge, "the input of a task has at most %d bytes", MaxInput)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, input); err != nil || b.Bytes()[0] != '{' || !utf8.Valid(input) {
		return nil, muster.InvalidAt("input", "the input of a task is a JSON object")
	}
	return b.Bytes(), nil
}

const (
	idPrefix = "tsk_"
	idDigits = 11 // in base 36: microseconds until the year 6000
)

// formatID writes n so that ids sort as their numbers do.
func formatID(n int64) string {
	s := strconv.FormatInt(n, 36)
	return idPrefix + strings.Repeat("0", max(0, idDigits-len(s))) + s
}

// parseID returns 0 for what is no id.
func parseID(id string) int64 {
	n, err := strconv.ParseInt(strings.TrimPrefix(id, idPrefix), 36, 64)
	if err != nil {
		return 0
	}
	return n
}
