package tasks

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"muster"
)

// sweepEvery is how often results whose time is over go.
const sweepEvery = 30 * time.Second

// Load reads the durable tasks, removes files that belong to none, and lets what is
// unfinished go on, in the order of creation. Call it once, after Register, when all
// that the kinds need is there.
func (t *Tasks) Load(ctx context.Context) error {
	var lost []Task
	err := t.loader.LoadTasks(ctx, func(task Task, kept Kept) error {
		if !t.take(task, kept) {
			lost = append(lost, task)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load the tasks: %w", err)
	}
	for _, task := range lost { // of kinds that are no more
		task.State, task.Ended = Failed, muster.MicrosOf(t.now())
		task.Code, task.Error = muster.NotFound.String(), "this version has no tasks of its kind"
		if err := t.store.SaveTask(ctx, task); err != nil {
			return fmt.Errorf("end a task of an unknown kind: %w", err)
		}
		t.take(task, Kept{})
	}
	if err := t.files.sweep(t.needs); err != nil {
		return err
	}
	for _, j := range t.orphans() {
		j.Cancelled = true // nobody knows of it yet
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready = true
	t.prune()
	for _, k := range t.kinds {
		for _, j := range slices.Clone(k.queue) {
			if j.Cancelled {
				t.cancelLocked(j) //nolint:contextcheck // tasks outlive whoever started or ended one
			}
		}
		t.dispatch(k) //nolint:contextcheck // tasks outlive whoever started or ended one
	}
	return nil
}

// take puts a stored task into memory; false when it is to go on and cannot.
func (t *Tasks) take(task Task, kept Kept) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastID = max(t.lastID, parseID(task.ID))
	j := newJob(task, t.kinds[task.Kind])
	j.kept = kept
	switch {
	case task.State.Final():
		close(j.ended)
	case j.kind == nil:
		return false
	default:
		j.State, j.Done, j.Total = Queued, kept.Done, kept.Total
		j.kind.queue = append(j.kind.queue, j)
	}
	t.insert(j)
	return true
}

// needs says whether a file of a task is to be there.
func (t *Tasks) needs(id string, result bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	j := t.jobs[id]
	return j != nil && (!j.State.Final() || result && j.Result != nil)
}

// Run forgets results whose time to live is over, until ctx ends.
func (t *Tasks) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		t.Recheck() //nolint:contextcheck // tasks outlive whoever started or ended one
		if err := t.Sweep(ctx); err != nil && ctx.Err() == nil {
			t.log.Warn("old tasks are not forgotten yet", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Sweep forgets the results whose time is over now, and what was dropped for new tasks.
func (t *Tasks) Sweep(ctx context.Context) error {
	for _, task := range t.expired() {
		if err := t.store.SaveTask(ctx, task); err != nil {
			return fmt.Errorf("forget a result: %w", err)
		}
		if err := t.files.drop(task.ID, false); err != nil {
			return err
		}
		t.mu.Lock()
		if j := t.jobs[task.ID]; j != nil {
			j.Result, j.Expires = nil, 0
		}
		t.mu.Unlock()
		t.watch.tell(task.ID)
	}
	return t.forget(ctx)
}

// expired returns the durable tasks whose result is to go, without it, and drops those
// that were in memory only.
func (t *Tasks) expired() (out []Task) {
	now := muster.MicrosOf(t.now())
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, j := range slices.Clone(t.order) {
		switch {
		case !j.State.Final():
		case j.Durable && j.Result != nil && j.Expires <= now:
			task := j.Task
			task.Result, task.Expires = nil, 0
			out = append(out, task)
		case !j.Durable && cmp.Or(j.Expires, j.Ended+micros(j.kind.KeepResult)) <= now:
			t.drop(j)
		}
	}
	return out
}

// forget deletes what prune dropped.
func (t *Tasks) forget(ctx context.Context) error {
	t.mu.Lock()
	gone := t.gone
	t.gone = nil
	t.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	err := t.store.DeleteTasks(ctx, gone)
	for _, id := range gone {
		if err == nil {
			err = t.files.drop(id, false)
		}
	}
	if err != nil {
		t.mu.Lock()
		t.gone = append(gone, t.gone...)
		t.mu.Unlock()
		return fmt.Errorf("forget old tasks: %w", err)
	}
	return nil
}

// prune drops the oldest tasks that have ended while there are too many, with the lock
// held.
func (t *Tasks) prune() {
	for over := len(t.order) - MaxTasks; over > 0; over-- {
		i := slices.IndexFunc(t.order, func(j *job) bool { return j.State.Final() })
		if i < 0 {
			return // as many run and wait: the kinds bound them
		}
		t.drop(t.order[i])
	}
}

// drop forgets a task that has ended, with the lock held.
func (t *Tasks) drop(j *job) {
	delete(t.jobs, j.ID)
	t.watch.changes.Add(1)
	t.order = slices.DeleteFunc(t.order, func(o *job) bool { return o == j })
	t.spend(j)
	if j.Durable {
		t.gone = append(t.gone, j.ID)
	}
}

// spare keeps the results in memory within their bound: the oldest go first. It is
// called with the lock held.
func (t *Tasks) spare() {
	for _, j := range t.order {
		if t.memory <= maxMemory {
			return
		}
		if len(j.memory) > 0 {
			j.Result, j.Expires = nil, 0
			t.watch.changes.Add(1)
			t.spend(j)
		}
	}
}

// spend gives back the memory of a result that nobody can ask for any more.
func (t *Tasks) spend(j *job) {
	t.memory -= int64(len(j.memory))
	j.memory = nil
	if j.key != "" && t.memo[j.key] == j {
		delete(t.memo, j.key)
	}
}
