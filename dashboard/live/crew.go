package live

import (
	"context"
	"sync"
	"time"
)

const maxCrew = 128 // flushes that the wake loop has under way at a time

// crew bounds the flushes that the wake loop starts: however many are woken, few run at a
// time. When none of them has ended for a while all hang in their writes. Then they are not
// counted any more: each hangs alone, with all its news, until its deadline.
type crew struct {
	freed chan struct{} // holds one

	mu      sync.Mutex
	running int
	shift   uint64 // those that began in an earlier one are not counted
}

func (c *crew) enter() (shift uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
	return c.shift
}

func (c *crew) leave(shift uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if shift != c.shift {
		return
	}
	c.running--
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

func (c *crew) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running >= maxCrew
}

func (c *crew) writeOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = 0
	c.shift++
}

// wait returns when one more may be started, which is at the latest when none has ended for stall; false when ctx has ended.
func (c *crew) wait(ctx context.Context, patience *time.Timer, stall time.Duration) bool {
	for c.full() {
		patience.Reset(stall)
		select {
		case <-c.freed:
		case <-patience.C:
			c.writeOff()
		case <-ctx.Done():
			return false
		}
	}
	return true
}
