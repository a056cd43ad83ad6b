package tasks

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"muster"
)

// maxWatchers bounds those who watch at a time; the next is told Busy.
const maxWatchers = 10_000

// watchers are those who are told that tasks changed.
type watchers struct {
	changes atomic.Uint64

	mu  sync.Mutex
	all map[*Watcher]struct{}
}

func newWatchers() *watchers { return &watchers{all: map[*Watcher]struct{}{}} }

// tell says that a task changed. It never waits for who watches.
func (w *watchers) tell(id string) {
	w.changes.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		if one.id == "" || one.id == id {
			one.pend(id)
		}
	}
}

// Changes returns a number that grows after each change of a task, and after one is
// dropped: who remembers it from before a look knows when to look again.
func (t *Tasks) Changes() uint64 { return t.watch.changes.Load() }

// Watcher follows one task, or all. However fast tasks change, it holds the id of each
// that did once.
type Watcher struct {
	// C yields when something changed since the last Take.
	C     <-chan struct{}
	c     chan struct{}
	tasks *Tasks
	id    string // empty for all

	mu      sync.Mutex
	pending map[string]struct{} // as many as there are tasks at most
}

// Watch follows the task id, or all when id is empty, from now on: see what is there
// after it, by Task or List. NotFound when there is no such task, Busy when too many
// watch.
func (t *Tasks) Watch(id string) (*Watcher, error) {
	if id != "" {
		if _, err := t.find(id); err != nil {
			return nil, err
		}
	}
	c := make(chan struct{}, 1)
	w := &Watcher{C: c, c: c, tasks: t, id: id, pending: map[string]struct{}{}}
	t.watch.mu.Lock()
	defer t.watch.mu.Unlock()
	if len(t.watch.all) >= maxWatchers {
		return nil, muster.Errorf(muster.Busy, "too many watch tasks")
	}
	t.watch.all[w] = struct{}{}
	return w, nil
}

func (w *Watcher) pend(id string) {
	w.mu.Lock()
	if len(w.pending) < MaxTasks {
		w.pending[id] = struct{}{}
	}
	w.mu.Unlock()
	select {
	case w.c <- struct{}{}:
	default: // it knows already
	}
}

// Take returns the tasks that changed since the last Take, as they stand now, by id.
// Those that were dropped meanwhile are left out.
func (w *Watcher) Take() []Task {
	w.mu.Lock()
	ids := slices.Sorted(maps.Keys(w.pending))
	clear(w.pending)
	w.mu.Unlock()
	out := make([]Task, 0, len(ids))
	for _, id := range ids {
		if j, err := w.tasks.find(id); err == nil {
			out = append(out, w.tasks.snapshot(j))
		}
	}
	return out
}

// Close ends the watch; C yields no more.
func (w *Watcher) Close() {
	w.tasks.watch.mu.Lock()
	delete(w.tasks.watch.all, w)
	w.tasks.watch.mu.Unlock()
}
