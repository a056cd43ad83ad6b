package command

import (
	"context"
	"sync"
	"time"

	"muster"
)

const (
	desireBatch   = maxBatch // targets that share a transaction
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

func (w *wants) add(list []wanted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, list...)
}

func (w *wants) put(list ...wanted) {
	w.add(list)
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
	timer := time.NewTimer(soonest)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wants.bell:
		case <-timer.C:
		}
		for list := c.wants.take(); len(list) > 0 && ctx.Err() == nil; list = c.wants.take() {
			if !c.desire(ctx, list) {
				timer.Reset(desireRetry)
				break
			}
		}
	}
}

// desire applies the patch to some targets of one job. It says false when some are to be
// tried again.
func (c *Commands) desire(ctx context.Context, list []wanted) bool {
	ids := make([]muster.DeviceID, len(list))
	for i, w := range list {
		ids[i] = w.device
	}
	r := list[0].run
	call, cancel := context.WithTimeout(ctx, desireTimeout)
	defer cancel()
	errs := c.Desirer.Desire(call, ids, r.Patch, r.CreatedBy)
	done := make([]settled, 0, len(list))
	var again []wanted
	for i, w := range list {
		s := settled{job: r.ID, number: w.number, device: w.device}
		if err := errs[i]; err != nil {
			if k := muster.KindOf(err); k == muster.Unavailable || k == muster.Busy {
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
	c.wants.add(again)
	return len(again) == 0
}
