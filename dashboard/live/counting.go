package live

import (
	"context"
	"sync"

	"muster/notify"
)

const countsAtOnce = 200 // inboxes that are counted in one tick

// counting are the inboxes whose figures may have changed since they were told: counted
// anew at a tick, each once for all who watch it, at most countsAtOnce in one tick and the
// others in the next ones.
type counting struct {
	signal chan struct{} // holds one

	mu   sync.Mutex
	owed map[notify.Subject]map[*sub]struct{}
}

// owe notes that s was told of a change.
func (c *counting) owe(s *sub) {
	c.mu.Lock()
	defer c.mu.Unlock()
	subs := c.owed[s.inbox.subject]
	if subs == nil {
		subs = map[*sub]struct{}{}
		c.owed[s.inbox.subject] = subs
	}
	subs[s] = struct{}{}
}

// forget takes back what is owed to s, which is closed.
func (c *counting) forget(s *sub) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if subs := c.owed[s.inbox.subject]; subs != nil {
		delete(subs, s)
		if len(subs) == 0 {
			delete(c.owed, s.inbox.subject)
		}
	}
}

// take returns some inbox and those who watch it; nobody when nothing is owed.
func (c *counting) take() (notify.Subject, map[*sub]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for subject, subs := range c.owed {
		delete(c.owed, subject)
		return subject, subs
	}
	return "", nil
}

// tick lets the loop count.
func (c *counting) tick() {
	select {
	case c.signal <- struct{}{}:
	default: // it counts still
	}
}

// countLoop counts inboxes, until ctx ends.
func (g *Gateway) countLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.counting.signal:
			for range countsAtOnce {
				subject, subs := g.counting.take()
				if len(subs) == 0 || !g.countOne(ctx, subject, subs) {
					break
				}
			}
		}
	}
}

// countOne counts an inbox for those who watch it; false when the store does not answer:
// then they are owed still.
func (g *Gateway) countOne(ctx context.Context, subject notify.Subject, subs map[*sub]struct{}) bool {
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	n, err := g.deps.Inbox.Counts(ctx, subject)
	if err != nil {
		g.stats.inboxFaults.Add(1)
		g.deps.Log.Debug("live: count an inbox", "err", err)
	}
	for s := range subs {
		if err != nil {
			g.counting.owe(s)
			continue
		}
		s.inbox.counted.Store(&n)
		g.woken.add(s)
	}
	return err == nil
}
