package outbox_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"muster"
	"muster/feed"
	"muster/notify/outbox"
)

// memory is a store in memory, for tests whose clock is a bubble's. The real one does the
// same in dispatcher_store_test.go.
type memory struct {
	mu     sync.Mutex
	list   []*outbox.Delivery // in order of id
	bodies map[string][]byte
	events []feed.Event
	claims int                     // that found something
	fail   func(call string) error // nil for none; called without the lock
	after  func(call string)       // likewise, after what was written
}

var _ outbox.Store = (*memory)(nil)

func newMemory() *memory { return &memory{bodies: map[string][]byte{}} }

func (m *memory) enter(ctx context.Context, call string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	fail := m.fail
	m.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(call)
}

func (m *memory) left(call string) {
	m.mu.Lock()
	after := m.after
	m.mu.Unlock()
	if after != nil {
		after(call)
	}
}

func (m *memory) failing(fail func(call string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

func (m *memory) told() []feed.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

func (m *memory) claimed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claims
}

func (m *memory) lease(d *outbox.Delivery, c outbox.Claim) outbox.Delivery {
	d.State, d.Attempts, d.Worker, d.Due = outbox.StateSending, d.Attempts+1, c.Worker, c.Until
	out := *d
	out.Body = m.bodies[d.Content]
	return out
}

func (m *memory) ClaimDeliveries(ctx context.Context, c outbox.Claim) ([]outbox.Delivery, error) {
	if err := m.enter(ctx, "claim"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	var due []*outbox.Delivery
	for _, d := range m.list {
		if c.Ordered && m.behind(d, c.Now) {
			continue
		}
		if d.Queue == c.Queue && d.State.Open() && d.Due <= c.Now && slices.Contains(c.Lanes, d.Lane) {
			due = append(due, d)
		}
	}
	slices.SortStableFunc(due, func(a, b *outbox.Delivery) int {
		return cmp.Or(cmp.Compare(slices.Index(c.Lanes, a.Lane), slices.Index(c.Lanes, b.Lane)), cmp.Compare(a.Due, b.Due))
	})
	var out []outbox.Delivery
	for _, d := range due[:min(len(due), c.Limit)] {
		out = append(out, m.lease(d, c))
	}
	if len(out) > 0 {
		m.claims++
	}
	m.mu.Unlock()
	m.left("claim")
	return out, nil
}

// behind says whether d waits for an older one of its target and lane.
func (m *memory) behind(d *outbox.Delivery, now muster.Micros) bool {
	return slices.ContainsFunc(m.list, func(o *outbox.Delivery) bool {
		return o.Queue == d.Queue && o.Target == d.Target && o.Lane == d.Lane && o.ID < d.ID && o.State.Open() && (o.Expires == 0 || o.Expires > now) &&
			(o.Due <= now || o.State == outbox.StateSending || o.Error != "")
	})
}

func (m *memory) ClaimFold(ctx context.Context, c outbox.Claim, fold string) ([]outbox.Delivery, error) {
	if err := m.enter(ctx, "fold"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []outbox.Delivery
	for _, d := range m.list {
		if d.Queue == c.Queue && d.Fold == fold && d.State == outbox.StateQueued && (d.Due <= c.Now || !d.Held) && len(out) < c.Limit {
			out = append(out, m.lease(d, c))
		}
	}
	return out, nil
}

func (m *memory) SettleDeliveries(ctx context.Context, list []outbox.Settlement) ([]string, error) {
	if err := m.enter(ctx, "settle"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	var lost []string
	for _, s := range list {
		d := m.find(s.ID)
		if d == nil || d.State != outbox.StateSending || d.Worker != s.Worker {
			lost = append(lost, s.ID)
			continue
		}
		d.State, d.Attempts, d.Due, d.Ended, d.Error, d.Reference, d.Tries, d.Worker = s.State, s.Attempts, s.Due, s.Ended, s.Error, s.Reference, s.Tries, ""
		d.Refused, d.Held = s.Refused, s.Held
		m.events = append(m.events, s.Events...)
	}
	m.mu.Unlock()
	m.left("settle")
	return lost, nil
}

func (m *memory) FreeDeliveries(ctx context.Context, worker string, now muster.Micros) (n int, err error) {
	if err := m.enter(ctx, "free"); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.list {
		if d.State == outbox.StateSending && strings.HasPrefix(d.Worker, worker) {
			d.State, d.Due, d.Worker = outbox.StateQueued, now, ""
			n++
		}
	}
	return n, nil
}

func (m *memory) find(id string) *outbox.Delivery {
	i, ok := slices.BinarySearchFunc(m.list, id, func(d *outbox.Delivery, id string) int { return cmp.Compare(d.ID, id) })
	if !ok {
		return nil
	}
	return m.list[i]
}

func (m *memory) DeliveryQueues(ctx context.Context) ([]outbox.Queue, error) {
	if err := m.enter(ctx, "queues"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	first := map[string]outbox.Queue{}
	for _, d := range m.list {
		if q, ok := first[d.Queue]; d.State.Open() && (!ok || d.Due < q.Due) {
			first[d.Queue] = outbox.Queue{Name: d.Queue, Channel: d.Channel, Due: d.Due}
		}
	}
	var out []outbox.Queue
	for _, q := range first {
		out = append(out, q)
	}
	return out, nil
}

func (m *memory) AddDeliveries(ctx context.Context, b outbox.Batch) error {
	if err := m.enter(ctx, "add"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range b.Contents {
		m.bodies[c.ID] = c.Body
	}
	for _, d := range b.Deliveries {
		m.list = append(m.list, &d)
	}
	slices.SortFunc(m.list, func(a, b *outbox.Delivery) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}

func (m *memory) Deliveries(context.Context, outbox.Query) ([]outbox.Delivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]outbox.Delivery, len(m.list))
	for i, d := range m.list {
		out[i] = *d
	}
	return out, nil
}

func (m *memory) Delivery(_ context.Context, id string) (outbox.Delivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.find(id); d != nil {
		return *d, nil
	}
	return outbox.Delivery{}, muster.Errorf(muster.NotFound, "there is no such delivery")
}

func (m *memory) RequeueDeliveries(context.Context, []string, muster.Micros) ([]outbox.Delivery, error) {
	return nil, errors.New("not needed")
}

func (m *memory) HastenDeliveries(ctx context.Context, channel, target string, now muster.Micros) (int, error) {
	if err := m.enter(ctx, "hasten"); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, d := range m.list {
		if d.Channel == channel && d.Target == target && d.State == outbox.StateQueued && d.Due > now && d.Error != "" {
			d.Due = now
			n++
		}
	}
	return n, nil
}

func (m *memory) DropDeliveries(context.Context, string, string, muster.Micros, int) (int, error) {
	return 0, errors.New("not needed")
}

func (m *memory) TrimDeliveries(ctx context.Context, ended, dead muster.Micros, limit int) (int, error) {
	if err := m.enter(ctx, "trim"); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.list)
	m.list = slices.DeleteFunc(m.list, func(d *outbox.Delivery) bool {
		until := ended
		if d.State == outbox.StateDead {
			until = dead
		}
		if d.State.Open() || d.Ended >= until || limit == 0 {
			return false
		}
		limit--
		return true
	})
	return before - len(m.list), nil
}

func (m *memory) DeliveryDepths(context.Context) ([]outbox.Depth, error) { return nil, nil }
