package control_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/notify/outbox"
	"muster/store/control"
)

func TestLeasesAreNeverDoubledAndNothingIsLost(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c, round := e.control(t), 0
		rapid.Check(t, func(t *rapid.T) {
			round++
			m := &leaseModel{t: t, c: c, queue: fmt.Sprintf("q%d", round), held: map[string]outbox.Delivery{}}
			t.Repeat(map[string]func(*rapid.T){
				"":        m.check,
				"add":     m.add,
				"claim":   m.claim,
				"fold":    m.fold,
				"settle":  m.settle,
				"drop":    m.drop,
				"requeue": m.requeue,
				"time":    func(t *rapid.T) { m.now += muster.Micros(rapid.IntRange(1, 50).Draw(t, "time")) },
			})
		})
	})
}

// leaseModel is what the store must hold.
type leaseModel struct {
	t     *rapid.T
	c     *control.Control
	queue string
	now   muster.Micros
	list  []outbox.Delivery          // as they must be, in order of id
	held  map[string]outbox.Delivery // what workers believe they hold, by worker and id
}

func (m *leaseModel) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *leaseModel) check(*rapid.T) {
	got, err := m.c.Deliveries(context.Background(), outbox.Query{Queue: m.queue, Limit: 10_000})
	m.must(err)
	slices.Reverse(got)
	if !cmp.Equal(m.list, got) && len(m.list)+len(got) > 0 {
		m.t.Fatal(cmp.Diff(m.list, got))
	}
}

func (m *leaseModel) add(t *rapid.T) {
	b := outbox.Batch{Contents: []outbox.Content{aContent}}
	for range rapid.IntRange(1, 5).Draw(t, "how many") {
		d := deliveryTo(len(m.list)+len(b.Deliveries), m.queue, rapid.SampledFrom(allLanes).Draw(t, "lane"), m.now+muster.Micros(rapid.IntRange(-9, 30).Draw(t, "due")))
		d.ID, d.Fold = m.queue+d.ID, rapid.SampledFrom([]string{"", "f"}).Draw(t, "fold")
		b.Deliveries = append(b.Deliveries, d)
	}
	m.must(m.c.AddDeliveries(context.Background(), b))
	m.list = append(m.list, b.Deliveries...)
}

func (m *leaseModel) claimBy(t *rapid.T) outbox.Claim {
	q := claimOf(m.queue, m.now, rapid.IntRange(1, 6).Draw(t, "limit"))
	q.Worker = rapid.SampledFrom([]string{"w1", "w2", "w3"}).Draw(t, "worker")
	q.Until = m.now + muster.Micros(rapid.IntRange(1, 40).Draw(t, "lease"))
	return q
}

// leased compares what was claimed with what had to be: those of places, which are in order.
func (m *leaseModel) leased(q outbox.Claim, got []outbox.Delivery, err error, places []int) {
	m.must(err)
	var want []outbox.Delivery
	for _, i := range places[:min(len(places), q.Limit)] {
		d := &m.list[i]
		d.State, d.Attempts, d.Worker, d.Due = outbox.StateSending, d.Attempts+1, q.Worker, q.Until
		m.held[q.Worker+d.ID] = *d
		want = append(want, *d)
		want[len(want)-1].Body = aContent.Body
	}
	if d := cmp.Diff(want, got); d != "" {
		m.t.Fatal(d)
	}
}

func (m *leaseModel) places(which func(outbox.Delivery) bool, less func(a, b outbox.Delivery) int) (places []int) {
	for i, d := range m.list {
		if which(d) {
			places = append(places, i)
		}
	}
	slices.SortStableFunc(places, func(a, b int) int { return less(m.list[a], m.list[b]) })
	return places
}

func (m *leaseModel) claim(t *rapid.T) {
	q := m.claimBy(t)
	places := m.places(func(d outbox.Delivery) bool { return d.State.Open() && d.Due <= m.now }, func(a, b outbox.Delivery) int {
		if a.Lane != b.Lane {
			return int(a.Lane - b.Lane)
		}
		return int(a.Due - b.Due)
	})
	got, err := m.c.ClaimDeliveries(context.Background(), q)
	m.leased(q, got, err, places)
}

func (m *leaseModel) fold(t *rapid.T) {
	q := m.claimBy(t)
	places := m.places(func(d outbox.Delivery) bool { return d.State == outbox.StateQueued && d.Fold == "f" }, func(a, b outbox.Delivery) int { return 0 })
	got, err := m.c.ClaimFold(context.Background(), q, "f")
	m.leased(q, got, err, places)
}

// settle is of one worker, for all that it believes to hold: what others took meanwhile is lost.
func (m *leaseModel) settle(t *rapid.T) {
	worker := rapid.SampledFrom([]string{"w1", "w2", "w3"}).Draw(t, "worker")
	var list []outbox.Settlement
	var want []string
	for i := range m.list {
		d := &m.list[i]
		if _, ok := m.held[worker+d.ID]; !ok {
			continue
		}
		delete(m.held, worker+d.ID)
		s := outbox.Settlement{ID: d.ID, Worker: worker, Attempts: d.Attempts, Refused: d.Refused, Due: m.now + 5, State: rapid.SampledFrom([]outbox.State{
			outbox.StateQueued, outbox.StateSent, outbox.StateDead,
		}).Draw(t, "state")}
		if !s.State.Open() {
			s.Ended = m.now + 1
		}
		list = append(list, s)
		if d.State != outbox.StateSending || d.Worker != worker {
			want = append(want, d.ID)
			continue
		}
		d.State, d.Due, d.Ended, d.Worker = s.State, s.Due, s.Ended, ""
	}
	lost, err := m.c.SettleDeliveries(context.Background(), list)
	m.must(err)
	if d := cmp.Diff(want, lost); d != "" {
		m.t.Fatal(d)
	}
}

func (m *leaseModel) drop(t *rapid.T) {
	if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
		return
	}
	n, err := m.c.DropDeliveries(context.Background(), m.queue, "gone", m.now, 1000)
	m.must(err)
	for i := range m.list {
		if d := &m.list[i]; d.State.Open() {
			d.State, d.Ended, d.Error, d.Worker = outbox.StateDropped, m.now, "gone", ""
			n--
		}
	}
	if n != 0 {
		m.t.Fatalf("%d too many were dropped", n)
	}
}

func (m *leaseModel) requeue(t *rapid.T) {
	if len(m.list) == 0 {
		return
	}
	d := &m.list[rapid.IntRange(0, len(m.list)-1).Draw(t, "which")]
	got, err := m.c.RequeueDeliveries(context.Background(), []string{d.ID}, m.now)
	m.must(err)
	if may := d.State == outbox.StateDead || d.State == outbox.StateSent; may != (len(got) == 1) {
		m.t.Fatalf("%+v was queued again: %v", *d, got)
	}
	if len(got) == 1 {
		d.State, d.Attempts, d.Refused, d.Due, d.Ended, d.Worker = outbox.StateQueued, 0, -1, m.now, 0, ""
	}
}
