package broker

import (
	"context"
	"sync"
	"time"
)

// Two clients that fight over one client id take each other's session over for
// ever. After Config.MaxTakeovers within a minute a CONNECT of that id waits.
const (
	flapWindow = time.Minute
	maxFlaps   = 10_000 // client ids remembered; more are let through
)

var flapWaits = [...]time.Duration{time.Second, 5 * time.Second, 30 * time.Second}

// flaps counts takeovers by session key.
type flaps struct {
	free int // takeovers within flapWindow that cost nothing

	mu  sync.Mutex
	ids map[string]*flap
}

type flap struct {
	takeovers int
	first     int64 // of this window, unix milliseconds
}

func newFlaps(free int) *flaps { return &flaps{free: free, ids: make(map[string]*flap)} }

// ended notes how a connection ended.
func (f *flaps) ended(key string, taken bool, now int64) {
	if !taken {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.ids[key]
	if !ok {
		if len(f.ids) >= maxFlaps {
			f.sweep(now)
		}
		if len(f.ids) >= maxFlaps {
			return
		}
		x = &flap{first: now}
		f.ids[key] = x
	}
	if now-x.first > flapWindow.Milliseconds() {
		x.takeovers, x.first = 0, now
	}
	x.takeovers++
}

func (f *flaps) sweep(now int64) {
	for key, x := range f.ids {
		if now-x.first > flapWindow.Milliseconds() {
			delete(f.ids, key)
		}
	}
}

// delay returns how long a CONNECT with this key has to wait.
func (f *flaps) delay(key string, now int64) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.ids[key]
	if !ok {
		return 0
	}
	if now-x.first > flapWindow.Milliseconds() {
		delete(f.ids, key)
		return 0
	}
	if x.takeovers <= f.free {
		return 0
	}
	return flapWaits[min(x.takeovers-f.free, len(flapWaits))-1]
}

// wait waits as long as a CONNECT has to. It says false when ctx ends first.
func (f *flaps) wait(ctx context.Context, b *Broker, key string) bool {
	d := f.delay(key, b.clock.Load())
	if d == 0 {
		return true
	}
	b.metrics.flapping.Inc()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
