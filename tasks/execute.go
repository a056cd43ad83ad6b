package tasks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster"
	"muster/audit"
	"muster/feed"
	"muster/internal/lifecycle"
)

// How long a durable task that finds the store away waits before it tries again.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 15 * time.Second
	saveTime     = 30 * time.Second // for one call of the store
)

// Why the context of a task ended.
var (
	errTimeout   = errors.New("the task took too long")
	errCancelled = errors.New("the task was cancelled")
)

// execute runs j from the beginning or its last step to its end, or until the room is
// stopped, and lets the next of its kind run.
func (t *Tasks) execute(ctx context.Context, j *job) {
	defer t.release(j) //nolint:contextcheck // tasks outlive whoever started or ended one
	ctx, cancel := context.WithTimeoutCause(ctx, j.kind.Timeout, errTimeout)
	defer cancel()
	if !t.mayGoOn(j) { // since it was asked for
		t.cancelNow(j) //nolint:contextcheck // tasks outlive whoever started or ended one
	}
	r := t.newRun(j)
	err := t.enter(ctx, j)
	if err == nil {
		actor := audit.Actor{Kind: r.Owner.Kind, ID: r.Owner.ID, Name: r.Owner.Name}
		err = t.attempt(feed.With(audit.With(ctx, actor, t.now)), j, r)
	}
	if j.Durable && t.ctx.Err() != nil && err != nil && !t.isCancelled(j) {
		if err := r.close(); err != nil {
			t.log.Warn("a task was left with its result open", "task", j.ID, "err", err)
		}
		return // it goes on at the next start
	}
	t.end(ctx, j, r, err)
}

func (t *Tasks) newRun(j *job) *Run {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &Run{Task: j.ID, Input: j.Input, Owner: j.Owner, Resume: j.kept.Checkpoint, tasks: t, job: j, kept: j.kept}
}

// enter keeps that a durable task was begun once more.
func (t *Tasks) enter(ctx context.Context, j *job) error {
	t.watch.tell(j.ID)
	if err := ctx.Err(); err != nil || !j.Durable {
		return err
	}
	if t.snapshot(j).Attempts > MaxAttempts {
		return muster.Errorf(muster.Unavailable, "it was begun %d times without getting any further", MaxAttempts)
	}
	return t.patiently(ctx, func() error { return t.save(ctx, j) })
}

// attempt runs j. While the store is away it waits, and goes on from what was kept.
func (t *Tasks) attempt(ctx context.Context, j *job, r *Run) error {
	if !j.Durable {
		return t.guard(ctx, j, r)
	}
	return t.patiently(ctx, func() error {
		err := t.guard(ctx, j, r)
		if err == nil || muster.KindOf(err) != muster.Unavailable || ctx.Err() != nil {
			return err
		}
		if err := r.close(); err != nil {
			return err
		}
		kept, keptErr := t.loader.KeptOf(ctx, j.ID) // a commit may have arrived whose answer did not
		if keptErr != nil {
			return keptErr
		}
		r.kept, r.Resume = kept, kept.Checkpoint
		t.mu.Lock()
		j.kept = kept
		t.mu.Unlock()
		return err
	})
}

// patiently calls do again while it fails with Unavailable, until ctx ends.
func (t *Tasks) patiently(ctx context.Context, do func() error) error {
	for backoff := t.retry; ; backoff = min(2*backoff, lastBackoff) {
		err := do()
		if err == nil || muster.KindOf(err) != muster.Unavailable {
			return err
		}
		wait := time.NewTimer(backoff)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return err
		}
	}
}

// guard runs the work once and turns a panic into an error.
func (t *Tasks) guard(ctx context.Context, j *job, r *Run) error {
	err := lifecycle.Guard(func() error { return j.kind.Run(ctx, r) })
	if _, panicked := errors.AsType[*lifecycle.PanicError](err); panicked {
		t.panics.Add(1)
		return fmt.Errorf("do the work of a task: %w", err)
	}
	return err
}

// end decides how j ended, keeps it, and only then shows it.
func (t *Tasks) end(ctx context.Context, j *job, r *Run, err error) {
	j.turn <- struct{}{} // who cancels it holds it for one call of the store
	defer func() { <-j.turn }()
	out := t.verdict(ctx, j, err)
	if out.Code == muster.Internal.String() {
		t.log.Error("a task failed", "task", j.ID, "kind", j.Kind, "err", err)
	}
	if j.Durable && out.State != Succeeded && !t.recall(j, r) { //nolint:contextcheck // the task's own has ended
		return // it goes on at the next start
	}
	memory, sealErr := r.seal(&out)
	if sealErr != nil {
		t.log.Error("the result of a task was lost", "task", j.ID, "kind", j.Kind, "err", sealErr)
		out.State, out.Code, out.Error = Failed, muster.Internal.String(), muster.Public(sealErr)
	}
	out.Ended = muster.MicrosOf(t.now())
	if out.Result != nil {
		out.Expires = out.Ended + micros(j.kind.KeepResult)
	}
	if j.Durable && !t.keepEnd(out) { //nolint:contextcheck // likewise
		return // it goes on at the next start, from its last step
	}
	if j.Durable {
		if err := t.files.drop(j.ID, out.Result != nil); err != nil {
			t.log.Warn("files of a task stay until the next start", "task", j.ID, "err", err)
		}
	}
	t.show(j, out, memory) //nolint:contextcheck // tasks outlive whoever started or ended one
}

// recall asks the store for the last step: one whose answer was lost counts.
func (t *Tasks) recall(j *job, r *Run) bool {
	err := t.patiently(t.ctx, func() (err error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), saveTime)
		defer cancel()
		r.kept, err = t.loader.KeptOf(ctx, j.ID)
		if err != nil && muster.KindOf(err) == muster.NotFound { // somebody took it out of the store
			return nil
		}
		return err
	})
	if err != nil {
		t.log.Error("the last step of a task could not be read", "task", j.ID, "kind", j.Kind, "err", err)
	}
	return err == nil
}

func micros(d time.Duration) muster.Micros { return muster.Micros(d / time.Microsecond) }

// verdict returns the task as it ended.
func (t *Tasks) verdict(ctx context.Context, j *job, err error) Task {
	out := t.snapshot(j)
	switch cause := context.Cause(ctx); {
	case err == nil && !out.Cancelled:
		out.State = Succeeded
		if out.Total > 0 {
			out.Done = out.Total
		}
	case out.Cancelled, t.ctx.Err() != nil:
		out.State = Cancelled
	case errors.Is(cause, errTimeout):
		out.State, out.Code, out.Error = TimedOut, muster.Timeout.String(), fmt.Sprintf("it took longer than %s", j.kind.Timeout)
	default:
		out.State, out.Code, out.Error = Failed, muster.KindOf(err).String(), muster.Public(err)
	}
	return out
}

// keepEnd stores the end of a durable task, as long as it takes; false when the room
// was stopped before.
func (t *Tasks) keepEnd(out Task) bool {
	err := t.patiently(t.ctx, func() error {
		ctx := feed.With(context.WithoutCancel(t.ctx))
		feed.Note(ctx, feed.NewEvent(feed.TaskFinished, "", out.Ended, map[string]string{"task": out.ID, "kind": out.Kind, "state": string(out.State)}))
		return t.store.SaveTask(ctx, out)
	})
	if err != nil {
		t.log.Error("the end of a task was not kept", "task", out.ID, "kind", out.Kind, "err", err)
	}
	return err == nil
}

// show makes the end visible.
func (t *Tasks) show(j *job, out Task, memory []byte) {
	t.mu.Lock()
	j.State, j.Ended, j.Expires, j.Done, j.Total = out.State, out.Ended, out.Expires, out.Done, out.Total
	j.Code, j.Error, j.Result, j.memory = out.Code, out.Error, out.Result, memory
	t.memory += int64(len(memory))
	if j.key != "" && out.State != Succeeded {
		if t.memo[j.key] == j {
			delete(t.memo, j.key) // the next who asks begins anew
		}
		j.key = ""
	}
	t.spare()
	t.free(j) // who waited for the end finds its place free
	t.mu.Unlock()
	close(j.ended)
	t.watch.tell(j.ID)
}

func (t *Tasks) release(j *job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free(j)
}

// free gives back j's place and lets the next run, once. The lock is held.
func (t *Tasks) free(j *job) {
	if j.freed {
		return
	}
	j.freed = true
	j.cancel(nil)
	j.kind.running--
	t.dispatch(j.kind)
}

func (t *Tasks) snapshot(j *job) Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	return j.Task
}

func (t *Tasks) isCancelled(j *job) bool { return t.snapshot(j).Cancelled }

// save stores j as it stands.
func (t *Tasks) save(ctx context.Context, j *job) error {
	select {
	case j.turn <- struct{}{}:
		defer func() { <-j.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	return t.store.SaveTask(ctx, t.snapshot(j))
}

// seal ends the result: all of it when the task succeeded, what belongs to its last step
// when its kind keeps that, else nothing.
func (r *Run) seal(t *Task) (memory []byte, err error) {
	kind := r.job.kind
	partial := kind.KeepPartial && r.kept.Size > 0
	if r.out == nil && partial && t.State != Succeeded { // it was cancelled before it went on
		if _, err := r.Result("application/octet-stream"); err != nil {
			return nil, err
		}
	}
	if r.out == nil {
		return nil, nil
	}
	o := r.out
	if t.State != Succeeded {
		if !partial {
			return nil, r.close()
		}
		if err := o.cut(r.kept.Size); err != nil {
			return nil, err
		}
	}
	if err := o.sync(); err != nil {
		return nil, err
	}
	t.Result = &Result{Type: o.Type, Size: o.size}
	return o.buf, r.close()
}

// close lets go of the result's file.
func (r *Run) close() error {
	o := r.out
	r.out = nil
	if o == nil || o.file == nil {
		return nil
	}
	if err := o.file.Close(); err != nil {
		return fmt.Errorf("close a result: %w", err)
	}
	return nil
}
