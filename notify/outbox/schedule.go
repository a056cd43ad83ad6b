package outbox

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"muster"
)

// schedule is the one loop that claims. It is nudged when something is committed, when a
// slot is free, and when something becomes due; it polls for what other processes did.
func (r *runner) schedule(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var poll time.Time
	for ctx.Err() == nil {
		if now := r.c.Now(); !now.Before(poll) {
			r.poll(ctx)
			poll = now.Add(r.c.Poll)
		}
		next := earlier(r.round(ctx), poll)
		timer.Reset(max(0, next.Sub(r.c.Now())))
		select {
		case <-r.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// poll asks the store which queues there are, and forgets those that are empty.
func (r *runner) poll(ctx context.Context) {
	c, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	list, err := r.c.Store.DeliveryQueues(c)
	if r.failed(ctx, "ask for queues", err) {
		return
	}
	now := r.c.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.queues {
		q.listed = false
	}
	for _, l := range list {
		if q := r.queue(l.Name, l.Channel); q != nil {
			q.listed = true
			q.from(Urgent, l.Due.Time())
			q.from(Normal, l.Due.Time())
		}
	}
	for name, q := range r.queues {
		idle := q.running == 0 && q.urgent.IsZero() && q.other.IsZero()
		if !q.listed && idle && q.breaker.state(now) != Opened {
			delete(r.queues, name)
		}
	}
}

// failed counts an error of the store, and logs the first of a row.
func (d *Dispatcher) failed(ctx context.Context, doing string, err error) bool {
	if ctx.Err() != nil {
		return err != nil
	}
	d.mu.Lock()
	first := err != nil && !d.count.failing[doing]
	if err != nil {
		d.count.failing[doing] = true
		d.count.storeErrors++
	} else {
		delete(d.count.failing, doing)
	}
	d.mu.Unlock()
	if first {
		d.c.Logger.Warn("deliveries wait for the store", "doing", doing, "err", err)
	}
	return err != nil
}

// ask is a claim that is to be made.
type ask struct {
	q     *queue
	lanes []Lane
	limit int
	probe bool
}

// round claims once from each queue that has something due and room for it, and returns
// when to look again unless nudged: zero for not before the poll.
func (r *runner) round(ctx context.Context) time.Time {
	for _, name := range r.ready() {
		if ctx.Err() != nil {
			break
		}
		r.mu.Lock()
		a, _ := r.plan(r.queues[name], r.c.Now())
		if a.limit > 0 {
			r.take(a)
		}
		r.mu.Unlock()
		if a.limit > 0 {
			r.claim(ctx, a)
		}
	}
	now := r.c.Now()
	var next time.Time
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.queues {
		a, at := r.plan(q, now)
		if a.limit > 0 {
			return now
		}
		next = earlier(next, at)
	}
	return next
}

// ready returns the queues to claim from, those with urgent deliveries first, then those
// whose last turn is longest ago.
func (r *runner) ready() []string {
	now := r.c.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*queue
	for _, q := range r.queues {
		if a, _ := r.plan(q, now); a.limit > 0 {
			list = append(list, q)
		}
	}
	slices.SortFunc(list, func(a, b *queue) int {
		ua, ub := isDue(a.urgent, now), isDue(b.urgent, now)
		if ua != ub {
			if ua {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.served, b.served)
	})
	names := make([]string, len(list))
	for i, q := range list {
		names[i] = q.name
	}
	return names
}

func isDue(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// plan says what may be claimed from q at now; else when that changes by itself, zero for
// never. It is called with mu held.
func (d *Dispatcher) plan(q *queue, now time.Time) (ask, time.Time) {
	first := earlier(q.urgent, q.other)
	state := q.breaker.state(now)
	switch {
	case first.IsZero() || q.breaker.probing:
		return ask{}, time.Time{}
	case first.After(now):
		return ask{}, first
	case q.retry.After(now):
		return ask{}, q.retry
	case state == Opened:
		return ask{}, q.breaker.until
	}
	s := &q.line.s
	free := min(s.Concurrency-q.line.running, s.PerQueue-q.running)
	slow := min(free, s.Concurrency-s.Reserved-q.line.slow, s.PerQueue-reserve(s.PerQueue)-q.slow)
	if q.limit != nil && free > 0 {
		tokens := q.limit.TokensAt(now)
		if tokens < 1 {
			return ask{}, now.Add(time.Duration((1-tokens)/s.Rate*float64(time.Second)).Round(time.Microsecond) + time.Microsecond)
		}
		free, slow = min(free, int(tokens)), min(slow, int(tokens))
	}
	a := ask{q: q, probe: state == HalfOpen}
	switch {
	case isDue(q.other, now) && slow > 0:
		a.lanes, a.limit = []Lane{Urgent, Normal, Bulk}, slow
	case isDue(q.urgent, now) && free > 0:
		a.lanes, a.limit = []Lane{Urgent}, free
	case free > 0 && q.urgent.After(now):
		return ask{}, q.urgent
	default: // an attempt that ends makes room
		return ask{}, time.Time{}
	}
	if a.probe {
		a.limit = 1
	}
	return a, time.Time{}
}

// take marks a as being made: what is committed meanwhile is seen again. It is called with mu held.
func (d *Dispatcher) take(a ask) {
	d.turn++
	a.q.served = d.turn
	a.q.urgent = time.Time{}
	if len(a.lanes) > 1 {
		a.q.other = time.Time{}
	}
	a.q.breaker.probing = a.probe
}

// claim leases deliveries and begins attempts at them.
func (r *runner) claim(ctx context.Context, a ask) {
	now := r.c.Now()
	until := now.Add(a.q.line.s.Timeout + leaseSpare)
	c := Claim{Queue: a.q.name, Lanes: a.lanes, Now: muster.MicrosOf(now), Until: muster.MicrosOf(until), Worker: r.worker(), Limit: a.limit, Ordered: a.q.line.s.Ordered}
	list, err := r.leased(ctx, c)
	r.mu.Lock()
	switch {
	case err != nil:
		a.q.retry = now.Add(claimAgain)
		a.again(now, true, len(a.lanes) > 1)
	case len(list) >= a.limit: // there may be more
		a.again(now, list[len(list)-1].Lane == Urgent, len(a.lanes) > 1)
	}
	if len(list) == 0 {
		a.q.breaker.nothing(a.probe)
	}
	r.mu.Unlock()
	if r.failed(ctx, "claim deliveries", err) {
		return
	}
	groups := r.fold(ctx, c, list)
	if a.q.limit != nil {
		a.q.limit.AllowN(now, len(groups))
	}
	for i, ds := range groups {
		r.begin(&job{q: a.q, ds: ds, lease: until, lane: ds[0].Lane, probe: a.probe && i == 0}) //nolint:contextcheck // an attempt outlives ctx by Grace
	}
}

// again says that there is more to claim at now. It is called with mu held.
func (a *ask) again(now time.Time, urgent, other bool) {
	if urgent {
		a.q.from(Urgent, now)
	}
	if other {
		a.q.from(Normal, now)
	}
}

func (r *runner) leased(ctx context.Context, c Claim) ([]Delivery, error) {
	limited, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	list, err := r.c.Store.ClaimDeliveries(limited, c)
	if err != nil {
		return nil, fmt.Errorf("claim deliveries of %s: %w", c.Queue, err)
	}
	return list, nil
}

// fold puts together what is sent as one: for each fold among list the rest of it that is due, or
// waits for another try, is leased too. When the store fails meanwhile the rest goes another time.
func (r *runner) fold(ctx context.Context, c Claim, list []Delivery) [][]Delivery {
	var groups [][]Delivery
	folds := map[string]int{}
	for _, d := range list {
		i, known := folds[d.Fold]
		switch {
		case d.Fold == "":
			groups = append(groups, []Delivery{d})
		case known && len(groups[i]) < MaxFold:
			groups[i] = append(groups[i], d)
		default:
			folds[d.Fold] = len(groups)
			groups = append(groups, []Delivery{d})
		}
	}
	for fold, i := range folds {
		rest := c
		if rest.Limit = MaxFold - len(groups[i]); fold == "" || rest.Limit == 0 {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, storeTime)
		more, err := r.c.Store.ClaimFold(limited, rest, fold)
		cancel()
		if !r.failed(ctx, "claim the rest of a fold", err) {
			groups[i] = append(groups[i], more...)
		}
		slices.SortFunc(groups[i], func(a, b Delivery) int { return cmp.Compare(a.ID, b.ID) })
	}
	return groups
}
