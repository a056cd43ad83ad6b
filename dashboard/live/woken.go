package live

import (
	"context"
	"sync"
	"time"
)

// woken are the inbox channels that have news, each once. The loop that takes them has
// them written at once, without a tick.
type woken struct {
	signal chan struct{} // holds one

	mu    sync.Mutex
	subs  []*sub
	spare []*sub
}

// add waits for nobody: it is called by those who commit.
func (w *woken) add(s *sub) {
	if s.inbox.queued.Load() || !s.inbox.queued.CompareAndSwap(false, true) {
		return
	}
	w.mu.Lock()
	w.subs = append(w.subs, s)
	w.mu.Unlock()
	select {
	case w.signal <- struct{}{}:
	default: // the loop will look anyway
	}
}

// take returns the woken. The slice is good until the next take.
func (w *woken) take() []*sub {
	w.mu.Lock()
	defer w.mu.Unlock()
	subs := w.subs
	clear(w.spare[:cap(w.spare)])
	w.subs, w.spare = w.spare[:0], subs
	return subs
}

// wakeLoop tells those who are woken, until ctx ends.
func (g *Gateway) wakeLoop(ctx context.Context) error {
	patience := time.NewTicker(g.cfg.StallWait)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.woken.signal:
			for _, s := range g.woken.take() {
				s.inbox.queued.Store(false) // before the look: what comes after it wakes again
				s.c.tell()
			}
		case <-patience.C:
			g.urgent.relieve()
		}
	}
}

// tell has the news of c's inbox written, by the flush that runs or a new one.
func (c *client) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.byeCode != 0 {
		return
	}
	c.news = true
	if !c.flushing {
		c.flushBy(c.g.urgent)
	}
}
