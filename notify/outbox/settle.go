package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"muster/feed"
)

const (
	maxSettling = 1000                 // that wait to be written
	maxGroup    = 100                  // in one transaction
	gatherTime  = 2 * time.Millisecond // that one transaction waits for more
	firstPause  = 50 * time.Millisecond
	lastPause   = 2 * time.Second
	lastFlush   = 3 * time.Second // for what is left when Run ends
)

// settled is what is to be written of one delivery.
type settled struct {
	Settlement
	job   *job
	d     Delivery
	later bool // the target could not take it
}

// settleLoop writes what came of attempts, many in one transaction, until the channel is
// closed and empty. What the store does not take is tried again, in smaller and smaller
// groups, until its lease ends; then it will be sent again.
func (r *runner) settleLoop(ctx context.Context) error {
	var pending []*settled
	limit, pause := maxGroup, firstPause
	closed := false
	var end time.Time // when the last of it must be written, zero while attempts are under way
	for {
		if pending, closed = r.gather(pending, limit, closed); len(pending) == 0 && closed {
			return nil
		}
		if end.IsZero() && r.ended() {
			end = r.c.Now().Add(lastFlush)
		}
		pending = r.overdue(pending, end)
		n := min(limit, len(pending))
		if n == 0 {
			continue
		}
		err := r.commit(ctx, pending[:n], end)
		if !r.failed(ctx, "write what came of deliveries", err) {
			pending = slices.Delete(pending, 0, n)
			limit, pause = min(2*limit, maxGroup), firstPause
			continue
		}
		pending = append(pending[n:], pending[:n]...) // one that the store refuses holds nobody up
		limit = max(1, limit/2)
		wait(ctx, pause)
		pause = min(2*pause, lastPause)
	}
}

func (r *runner) ended() bool {
	select {
	case <-r.ending:
		return true
	default:
		return false
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// drain takes what is still sent after a settleLoop that failed, so that workers end.
func (r *runner) drain() {
	for range r.settling {
		continue
	}
}

// gather waits for the first to be written, and a moment for more.
func (r *runner) gather(pending []*settled, limit int, closed bool) ([]*settled, bool) {
	if closed {
		return pending, true
	}
	if len(pending) == 0 {
		s, ok := <-r.settling
		if !ok {
			return nil, true
		}
		pending = append(pending, s)
	}
	t := time.NewTimer(gatherTime)
	defer t.Stop()
	for len(pending) < limit {
		select {
		case s, ok := <-r.settling:
			if !ok {
				return pending, true
			}
			pending = append(pending, s)
		case <-t.C:
			return pending, false
		}
	}
	return pending, false
}

// overdue takes out those whose lease has ended, and all when the time of the end has come.
func (r *runner) overdue(pending []*settled, end time.Time) []*settled {
	now := r.c.Now()
	all := !end.IsZero() && now.After(end)
	var late []*settled
	pending = slices.DeleteFunc(pending, func(s *settled) bool {
		over := all || !now.Before(s.job.lease)
		if over {
			late = append(late, s)
		}
		return over
	})
	r.abandon(late)
	return pending
}

// abandon forgets what cannot be written: when the leases have ended it is sent again.
func (r *runner) abandon(list []*settled) {
	if len(list) == 0 {
		return
	}
	r.mu.Lock()
	r.count.abandoned += int64(len(list))
	r.mu.Unlock()
	for _, s := range list {
		r.settledOne(s)
	}
	r.c.Logger.Warn("what came of deliveries could not be written: they will be sent again", "count", len(list))
}

// commit writes list, with an event for each that dies in the same transaction, and tells
// what follows.
func (r *runner) commit(parent context.Context, list []*settled, end time.Time) error {
	until := r.c.Now().Add(storeTime)
	for _, s := range list {
		until = earlier(until, s.job.lease)
	}
	ctx, cancel := context.WithTimeout(parent, max(earlier(until, end).Sub(r.c.Now()), time.Millisecond))
	defer cancel()
	batch := make([]Settlement, len(list))
	for i, s := range list {
		batch[i] = s.Settlement
		if s.State == StateDead {
			batch[i].Events = []feed.Event{deadEvent(s)}
		}
	}
	lost, err := r.c.Store.SettleDeliveries(ctx, batch)
	if err != nil {
		return fmt.Errorf("settle %d deliveries: %w", len(batch), err)
	}
	r.told(parent, list, lost)
	return nil
}

// deadEvent is what third parties are told of a delivery that died.
func deadEvent(s *settled) feed.Event {
	return feed.NewEvent(feed.DeliveryDead, "", s.Ended, map[string]string{
		"delivery": s.ID, "channel": s.d.Channel, "target": s.d.Target, "notification": s.d.Notification, "error": s.Error,
	})
}

// told counts what was written, and has what waits again found when it is due.
func (r *runner) told(ctx context.Context, list []*settled, lost []string) {
	gone := make(map[string]bool, len(lost))
	for _, id := range lost {
		gone[id] = true
	}
	var ended []Delivery
	type place struct{ channel, target string }
	back := map[place]bool{}
	r.mu.Lock()
	r.count.lost += int64(len(lost))
	for _, s := range list {
		if s.job.hastened && s.later {
			back[place{s.d.Channel, s.d.Target}] = true
		}
		if q := s.job.q; q.line.s.Ordered { // those behind it may go now
			q.from(s.d.Lane, r.c.Now())
		}
		switch {
		case gone[s.ID]:
		case s.State == StateQueued:
			if q := r.queue(s.d.Queue, s.d.Channel); q != nil {
				q.from(s.d.Lane, s.Due.Time())
			}
		default:
			s.job.q.line.count.end(s.State)
			ended = append(ended, s.result())
		}
	}
	r.mu.Unlock()
	for _, s := range list {
		r.settledOne(s)
	}
	r.nudge()
	for p := range back { // it came back when nothing was queued that could be hastened
		c, cancel := context.WithTimeout(ctx, storeTime)
		r.failed(ctx, "hasten deliveries", r.hasten(c, p.channel, p.target))
		cancel()
	}
	if r.c.OnEnded != nil && len(ended) > 0 {
		r.c.OnEnded(ended)
	}
}

// result is the delivery as it is now.
func (s *settled) result() Delivery {
	d := s.d
	d.State, d.Attempts, d.Refused, d.Due, d.Ended, d.Error, d.Worker = s.State, s.Attempts, s.Refused, s.Due, s.Ended, s.Error, ""
	return d
}

// settledOne forgets the job when all of it is settled.
func (d *Dispatcher) settledOne(s *settled) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.job.open--; s.job.open == 0 {
		delete(d.jobs, s.job)
	}
}
