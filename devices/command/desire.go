package command

import (
	"context"
	"sync"
	"time"

	"muster"
)

const (
	desireBatch   = 100
	desireTimeout = 20 * time.Second
	desireRetry   = time.Second
)

// wants are the targets that wait for the Desirer, at most maxBatch of each job.
type wants struct {
	bell chan struct{}
	mu   sync.Mutex
	list []wanted
}

func (w *wants) init() { w.bell = make(chan struct{}, 1) }

func (w *wants) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = nil
}

func (w *wants) put(list ...wanted) {
	w.mu.Lock()
	w.list = append(w.list, list...)
	w.mu.Unlock()
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

// take returns the first targets of one job.
func (w *wants) take() []wanted {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < min(len(w.list), desireBatch) && w.list[n].run == w.list[0].run {
		n++
	}
	out := w.list[:n:n]
	w.list = w.list[n:]
	return out
}

// RunDesired applies the patches of jobs of kind desired until ctx ends. What the
// Desirer cannot do now is tried again.
func (c *Commands) RunDesired(ctx context.Context) error {
	for {
		list := c.wants.take()
		wait := time.Duration(-1)
		if len(list) > 0 {
			wait = c.desire(ctx, list)
		}
		if wait == 0 {
			continue
		}
		var again <-chan time.Time
		var timer *time.Timer
		if wait > 0 {
			timer = time.NewTimer(wait)
			again = timer.C
		}
		select {
		case <-ctx.Done():
		case <-c.wants.bell:
		case <-again:
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// desire returns how long to wait before the next.
func (c *Commands) desire(ctx context.Context, list []wanted) time.Duration {
	ids := make([]muster.DeviceID, len(list))
	for i, w := range list {
		ids[i] = w.device
	}
	r := list[0].run
	call, cancel := context.WithTimeout(ctx, desireTimeout)
	defer cancel()
	errs := c.Desirer.Desire(call, ids, r.Patch, r.CreatedBy)
	var done []settled
	var again []wanted
	for i, w := range list {
		s := settled{job: r.ID, number: w.number, device: w.device}
		if err := errs[i]; err != nil {
			switch muster.KindOf(err) {
			case muster.Unavailable, muster.Busy:
				again = append(again, w)
				continue
			}
			s.err = muster.Public(err)
		}
		done = append(done, s)
	}
	if len(done) > 0 {
		c.inbox.settle(done)
	}
	if len(again) == 0 {
		return 0
	}
	c.wants.put(again...)
	return desireRetry
}
