package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Backoff between restarts of a loop, doubling from the first to the last.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
)

// Loop is a long-lived function. It returns nil when ctx ended or its work is
// done; an error or a panic has it started again.
type Loop func(ctx context.Context) error

// LoopStatus is one loop's state, for the System page.
type LoopStatus struct {
	Name      string    `json:"name"`
	Running   bool      `json:"running"`
	Restarts  int       `json:"restarts"`
	LastErr   string    `json:"last_error,omitempty"` // without the stack of a panic, which is in the log
	Restarted time.Time `json:"last_restart_at,omitzero"`
}

// running is a loop and what ends its run under way.
type running struct {
	LoopStatus
	fail context.CancelCauseFunc // nil between two runs
}

// Group runs loops and waits for them. The zero Group is not usable.
type Group struct {
	log    *slog.Logger
	cancel context.CancelFunc
	ctx    context.Context //nolint:containedctx // the group's own life, not a request's
	wg     sync.WaitGroup

	mu    sync.Mutex
	loops []*running
}

// NewGroup returns an empty group that lives until Stop.
func NewGroup(log *slog.Logger) *Group {
	ctx, cancel := context.WithCancel(context.Background())
	return &Group{log: log, ctx: ctx, cancel: cancel}
}

// Go starts a loop. After Stop it does nothing.
func (g *Group) Go(name string, loop Loop) {
	if g.ctx.Err() != nil {
		return
	}
	st := &running{LoopStatus: LoopStatus{Name: name, Running: true}}
	g.mu.Lock()
	g.loops = append(g.loops, st)
	g.mu.Unlock()
	g.wg.Go(func() { g.supervise(g.ctx, st, loop) })
}

func (g *Group) supervise(ctx context.Context, st *running, loop Loop) {
	backoff := firstBackoff
	for {
		began := time.Now()
		err := g.run(ctx, st, loop)
		if err == nil || ctx.Err() != nil {
			g.mu.Lock()
			st.Running = false
			g.mu.Unlock()
			return
		}
		g.log.Error("loop failed, restarting", "loop", st.Name, "err", err)
		g.mu.Lock()
		st.Restarts++
		st.LastErr, _, _ = strings.Cut(err.Error(), "\n")
		st.Restarted = time.Now()
		g.mu.Unlock()
		if time.Since(began) > lastBackoff {
			backoff = firstBackoff
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// run runs loop once, until it ends or Fail ends it.
func (g *Group) run(parent context.Context, st *running, loop Loop) error {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	g.mu.Lock()
	st.fail = fail
	g.mu.Unlock()
	return Guard(func() error {
		err := loop(ctx)
		if f, ok := errors.AsType[*fault](context.Cause(ctx)); ok && parent.Err() == nil {
			panic(f)
		}
		return err
	})
}

// fault is a failure that was put into a loop on purpose.
type fault struct{ why string }

func (f *fault) Error() string { return f.why }

// Fail has the loop name end now with a panic of why, as a fault in it would, so that a
// test can see what becomes of the rest: the loop's context ends, and when the loop has
// seen that the panic follows. It says whether a loop of that name runs.
func (g *Group) Fail(name, why string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, st := range g.loops {
		if st.Name == name && st.Running && st.fail != nil {
			st.fail(&fault{why})
			return true
		}
	}
	return false
}

// Stop ends the loops' context and waits for them until ctx ends.
func (g *Group) Stop(ctx context.Context) error {
	g.cancel()
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for loops %v: %w", g.running(), ctx.Err())
	}
}

func (g *Group) running() (names []string) {
	for _, st := range g.Status() {
		if st.Running {
			names = append(names, st.Name)
		}
	}
	return names
}

// Status returns every loop's state in the order they were started.
func (g *Group) Status() []LoopStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]LoopStatus, len(g.loops))
	for i, st := range g.loops {
		out[i] = st.LoopStatus
	}
	return out
}

// PanicError is a panic that was caught.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Guard runs fn and returns its panic, if any, as a *PanicError.
func Guard(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errors.Join(err, &PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	return fn()
}
