package tasks

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster/internal/lifecycle"
)

// Backoff between restarts of a shared worker, doubling from the first to the last; a
// worker that held out for longer than the last begins anew.
const (
	firstRestart = 100 * time.Millisecond
	lastRestart  = 10 * time.Second
)

// Shared is a worker that lives only while somebody watches: it starts with the first
// viewer and ends a while after the last has left. There is never more than one. One
// that fails, panics or returns too early is started again, with backoff, while there are
// viewers. It is safe for concurrent use.
type Shared struct {
	name   string
	linger time.Duration
	work   func(ctx context.Context) error
	log    *slog.Logger

	mu      sync.Mutex
	viewers int
	alive   bool               // there is a goroutine
	stop    context.CancelFunc // ends it; nil when it is ending already
	timer   *time.Timer        // until it ends for want of viewers; nil while there are some
	round   int                // counts timers, so that one that fired too late is known
	closed  bool
	wg      sync.WaitGroup
	status  SharedStatus
}

// SharedStatus is a shared worker on the System page.
type SharedStatus struct {
	Name     string `json:"name"`
	Viewers  int    `json:"viewers"`
	Running  bool   `json:"running"`
	Starts   int    `json:"starts"` // for want of it, not after a failure
	Restarts int    `json:"restarts"`
	LastErr  string `json:"last_error,omitempty"`
}

// NewShared returns a worker that nobody watches yet. work must end when its context
// does; linger is how long it goes on without viewers.
func NewShared(name string, linger time.Duration, log *slog.Logger, work func(ctx context.Context) error) *Shared {
	return &Shared{name: name, linger: linger, work: work, log: log, status: SharedStatus{Name: name}}
}

// Join adds a viewer. leave takes it away again; calling it twice is calling it once.
// After Stop there is no worker to watch, and leave does nothing.
func (s *Shared) Join() (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return func() {}
	}
	s.viewers++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.wake()
	return sync.OnceFunc(s.leave)
}

// wake starts the worker unless it lives. One that is ending is followed by another: see
// supervise. The lock is held.
func (s *Shared) wake() {
	if s.alive {
		return
	}
	s.alive = true
	s.status.Starts++
	ctx := s.begin()
	s.wg.Go(func() { s.supervise(ctx) })
}

// begin makes the context of a life of the worker, with the lock held.
func (s *Shared) begin() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	return ctx
}

func (s *Shared) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.viewers--; s.viewers > 0 || s.closed {
		return
	}
	s.round++
	round := s.round
	s.timer = time.AfterFunc(s.linger, func() { s.expire(round) })
}

// expire ends the worker when nobody has come since the timer was set.
func (s *Shared) expire(round int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil || s.round != round {
		return
	}
	s.timer = nil
	s.end()
}

// end ends the life under way, with the lock held.
func (s *Shared) end() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// supervise is the worker's one goroutine, from the first viewer until nobody wants it.
func (s *Shared) supervise(first context.Context) {
	for life, ok := first, true; ok; life, ok = s.another() { //nolint:contextcheck // each life has its own
		s.live(life)
	}
}

// live has the work done until ctx ends.
func (s *Shared) live(ctx context.Context) {
	backoff := firstRestart
	for {
		began := time.Now()
		err := lifecycle.Guard(func() error { return s.work(ctx) })
		if ctx.Err() != nil {
			return
		}
		s.failed(err)
		if time.Since(began) > lastRestart {
			backoff = firstRestart
		}
		wait := time.NewTimer(backoff)
		select {
		case <-wait.C:
			backoff = min(2*backoff, lastRestart)
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// another begins the next life when viewers came while the last one was ending.
func (s *Shared) another() (context.Context, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.viewers == 0 || s.closed {
		s.alive = false
		return nil, false
	}
	s.status.Starts++
	return s.begin(), true
}

func (s *Shared) failed(err error) {
	text := "it ended by itself"
	if err != nil {
		text = err.Error()
	}
	s.log.Error("a shared worker failed, restarting", "worker", s.name, "err", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Restarts++
	s.status.LastErr = text
}

// Status returns the worker's state.
func (s *Shared) Status() SharedStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.status
	out.Viewers, out.Running = s.viewers, s.alive
	return out
}

// Stop ends the worker for good and waits for it until ctx ends.
func (s *Shared) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.end()
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the worker %s: %w", s.name, ctx.Err())
	}
}
