package tasks

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/audit"
)

func (t *Tasks) find(id string) (*job, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	j := t.jobs[id]
	if j == nil {
		return nil, errNoTask()
	}
	return j, nil
}

func errNoTask() error { return muster.Errorf(muster.NotFound, "there is no such task") }

// seen returns the task id when by may see it.
func (t *Tasks) seen(id string, by Viewer) (*job, error) {
	j, err := t.find(id)
	if err != nil {
		return nil, err
	}
	if task := t.snapshot(j); !by.Sees(&task) {
		return nil, errNoTask() // whether it is there is nobody else's business
	}
	return j, nil
}

// Task returns a task as it stands; NotFound when there is none that by may see.
func (t *Tasks) Task(id string, by Viewer) (Task, error) {
	j, err := t.seen(id, by)
	if err != nil {
		return Task{}, err
	}
	return by.view(t.snapshot(j)), nil
}

// Query chooses tasks.
type Query struct {
	By    Viewer
	State State  // empty for all
	Kind  string // likewise
	After string // the id of the last task of the page before, empty for the first
	Limit int    // at most so many
}

// List returns tasks, the newest first, and where the next page begins, empty at the end.
func (t *Tasks) List(q Query) (page []Task, next string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := len(t.order)
	if q.After != "" {
		from, _ = slices.BinarySearchFunc(t.order, q.After, func(a *job, id string) int { return strings.Compare(a.ID, id) })
	}
	for i := from - 1; i >= 0; i-- {
		j := t.order[i]
		if !q.By.Sees(&j.Task) || q.State != "" && j.State != q.State || q.Kind != "" && j.Kind != q.Kind {
			continue
		}
		if len(page) == q.Limit {
			return page, page[len(page)-1].ID
		}
		page = append(page, q.By.view(j.Task))
	}
	return page, ""
}

// Wait returns the task when it has ended. Timeout when it has not after d, at most
// MaxWait; Busy when too many wait, Unavailable when the server stops.
func (t *Tasks) Wait(ctx context.Context, id string, by Viewer, d time.Duration) (Task, error) {
	j, err := t.seen(id, by)
	if err != nil {
		return Task{}, err
	}
	out, err := t.wait(ctx, j, d)
	return by.view(out), err
}

func (t *Tasks) wait(ctx context.Context, j *job, d time.Duration) (Task, error) {
	defer t.waits.Add(-1)
	if t.waits.Add(1) > maxWaits {
		return Task{}, muster.Errorf(muster.Busy, "%d requests wait for tasks", maxWaits)
	}
	select {
	case <-j.ended: // also when there is no time to wait
		return t.snapshot(j), nil
	default:
	}
	timer := time.NewTimer(min(d, MaxWait))
	defer timer.Stop()
	select {
	case <-j.ended:
		return t.snapshot(j), nil
	case <-timer.C:
		return t.snapshot(j), muster.Errorf(muster.Timeout, "the task has not ended after %s", min(d, MaxWait))
	case <-t.halt:
		return t.snapshot(j), muster.Errorf(muster.Unavailable, "the server stops")
	case <-ctx.Done():
		return t.snapshot(j), muster.Errorf(muster.Timeout, "waiting for a task: %w", ctx.Err())
	}
}

// Get is Start, Wait and OpenResult of a shared task in one: the result of kind for
// input, made now or earlier. Besides their errors it fails as the task did: Timeout when
// it took longer than its kind allows. A task that somebody cancels is begun anew, once.
func (t *Tasks) Get(ctx context.Context, kind string, input []byte, owner Owner, d time.Duration) (Result, []byte, error) {
	for again := true; ; again = false {
		j, err := t.start(ctx, kind, input, owner, nil)
		if err != nil {
			return Result{}, nil, err
		}
		task, err := t.wait(ctx, j, d)
		if err != nil {
			return Result{}, nil, err
		}
		if task.State == Cancelled && again {
			continue
		}
		return t.gotten(j)
	}
}

func (t *Tasks) gotten(j *job) (Result, []byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := j.failure(); err != nil {
		return Result{}, nil, err
	}
	if j.Result == nil || j.Durable {
		return Result{}, nil, muster.Errorf(muster.Unavailable, "the result is not there any more")
	}
	return *j.Result, j.memory, nil
}

// failure returns why a task has no result for good, nil when it has succeeded.
func (j *job) failure() error {
	switch j.State {
	case Failed:
		return muster.Errorf(kindOf(j.Code), "the task failed: %s", j.Error)
	case TimedOut:
		return muster.Errorf(muster.Timeout, "the task timed out: %s", j.Error)
	case Cancelled:
		return muster.Errorf(muster.Conflict, "the task was cancelled")
	default:
		return nil
	}
}

// kindOf returns the kind of that name; Conflict stands for what its starter could not
// help.
func kindOf(code string) muster.Kind {
	for _, k := range []muster.Kind{muster.Invalid, muster.NotFound, muster.TooLarge, muster.Unavailable, muster.Busy} {
		if k.String() == code {
			return k
		}
	}
	return muster.Conflict
}

// OpenResult opens the result of a task that by may see, to be closed by the caller; of
// a private kind it is the owner's alone, while he has the kind's scope. Conflict when the task has not ended or has no
// result, NotFound when its time to live is over.
func (t *Tasks) OpenResult(id string, by Viewer) (Task, io.ReadSeekCloser, error) {
	j, err := t.seen(id, by)
	if err != nil {
		return Task{}, nil, err
	}
	t.mu.Lock()
	task, memory, failure := by.view(j.Task), j.memory, j.failure()
	t.mu.Unlock()
	switch {
	case (j.kind == nil || j.kind.Private) && by.ID != task.Owner.ID:
		return task, nil, muster.Errorf(muster.Forbidden, "the result is for who started the task alone")
	case j.kind != nil && j.kind.Private && !by.allows(j.kind.Scope):
		return task, nil, muster.Errorf(muster.Forbidden, "the result has secrets: this needs the scope %s", j.kind.Scope)
	case !task.State.Final():
		return task, nil, muster.Errorf(muster.Conflict, "the task has not ended")
	case task.Result == nil && failure != nil:
		return task, nil, failure
	case task.Result == nil, task.Expires <= muster.MicrosOf(t.now()):
		return task, nil, muster.Errorf(muster.NotFound, "the task has no result, or none any more")
	case !task.Durable:
		return task, nopCloser{bytes.NewReader(memory)}, nil
	}
	f, err := t.files.open(id, resultFile)
	if err != nil {
		return task, nil, err
	}
	return task, f, nil
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// Cancel asks for the end of a task that by may see and returns it as it stands: one
// that waited has ended, one that runs ends soon, and will not succeed any more. Who shares
// it with others leaves it, and it goes on for them. Conflict when it has ended.
func (t *Tasks) Cancel(ctx context.Context, id string, by Viewer) (Task, error) {
	j, err := t.seen(id, by)
	if err != nil {
		return Task{}, err
	}
	select {
	case j.turn <- struct{}{}:
		defer func() { <-j.turn }()
	case <-ctx.Done():
		return Task{}, muster.Errorf(muster.Busy, "the task is just ending: %w", ctx.Err())
	}
	out := t.snapshot(j)
	if out.State.Final() {
		return by.view(out), muster.Errorf(muster.Conflict, "the task has ended already")
	}
	if left, goesOn := t.leave(j, by); goesOn {
		audit.Note(ctx, "task.leave", "tasks/"+id, nil, nil)
		t.watch.tell(id)
		return by.view(left), nil
	}
	audit.Note(ctx, "task.cancel", "tasks/"+id, map[string]any{"state": out.State}, map[string]any{"cancelled": true})
	if out.Durable { // so that it is not begun again when the server dies now
		out.Cancelled = true
		if err := t.store.SaveTask(ctx, out); err != nil {
			return out, err
		}
	}
	t.cancelNow(j) //nolint:contextcheck // tasks outlive whoever started or ended one
	t.watch.tell(id)
	return by.view(t.snapshot(j)), nil
}

// leave takes by away from those whom j is done for, and returns what he left; goesOn is false when nobody else
// wants it, or he is none of them.
func (t *Tasks) leave(j *job, by Viewer) (left Task, goesOn bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !by.wants(&j.Task) {
		return j.Task, false
	}
	left = j.Task
	return left, j.leave(by.ID)
}

// cancelNow ends j's context; one that waits is run with it ended, which ends it in the
// one way there is.
func (t *Tasks) cancelNow(j *job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancelLocked(j)
}

func (t *Tasks) cancelLocked(j *job) {
	j.Cancelled = true
	if j.cancel != nil {
		j.cancel(errCancelled)
		return
	}
	k := j.kind
	k.queue = slices.DeleteFunc(k.queue, func(q *job) bool { return q == j })
	if t.closed {
		return
	}
	k.running++ // for the moment that it takes
	j.State = Running
	ctx, cancel := context.WithCancelCause(t.ctx)
	j.cancel = cancel
	cancel(errCancelled)
	t.wg.Go(func() { t.execute(ctx, j) })
}
