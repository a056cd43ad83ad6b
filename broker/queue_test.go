package broker

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// queueModel is a queue as the specification has it: messages in order, those in
// flight with a state.
type queueModel struct {
	waiting, flying []uint64 // by n, in the order they go out
	released        map[uint64]bool
	dup             map[uint64]bool
}

func (m *queueModel) rewind() {
	var stay, back []uint64
	for _, n := range m.flying {
		if m.released[n] {
			stay = append(stay, n)
		} else {
			back = append(back, n)
			m.dup[n] = true
		}
	}
	m.flying, m.waiting = stay, append(back, m.waiting...)
}

func (m *queueModel) check(t *rapid.T, q *queue, cost, window int) {
	if q.open != len(m.flying) || q.waiting.len() != len(m.waiting) || q.len() != len(m.flying)+len(m.waiting) ||
		q.bytes != cost*q.len() || len(m.flying) > window+len(m.released) {
		t.Fatalf("open %d waiting %d bytes %d, want %d %d %d", q.open, q.waiting.len(), q.bytes, len(m.flying), len(m.waiting), cost*q.len())
	}
	for _, x := range m.flying {
		if e := q.find(uint16(x%maxPacketIDs) + 1); e == nil || e.n != x || e.n < q.low {
			t.Fatalf("%d is not found in flight (low %d)", x, q.low)
		}
	}
}

func TestAQueueKeepsOrderPacketIDsAndItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const cost = 210
		var q queue
		m := queueModel{released: map[uint64]bool{}, dup: map[uint64]bool{}}
		n := rapid.Uint64Range(0, 70_000).Draw(t, "first")
		window := rapid.IntRange(1, 9).Draw(t, "window")
		one := func(t *rapid.T) uint64 {
			if len(m.flying) == 0 {
				t.Skip("nothing in flight")
			}
			return rapid.SampledFrom(m.flying).Draw(t, "n")
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(*rapid.T) {
				q.push(entry{m: &message{topic: "0123456789", owned: true}, n: n, qos: 2})
				m.waiting = append(m.waiting, n)
				n++
			},
			"send": func(t *rapid.T) {
				if !q.maySend(window) {
					if len(m.waiting) > 0 && len(m.flying) == 0 {
						t.Fatal("nothing may be sent, though nothing is in flight")
					}
					t.Skip("no window")
				}
				e := q.next()
				if e.n != m.waiting[0] || e.state != entrySent || e.dup != m.dup[e.n] {
					t.Fatalf("sends %d (dup %v), want %d", e.n, e.dup, m.waiting[0])
				}
				for _, f := range m.flying {
					if f%maxPacketIDs == e.n%maxPacketIDs {
						t.Fatalf("packet id %d is in use twice", e.packetID())
					}
				}
				m.flying, m.waiting = append(m.flying, e.n), m.waiting[1:]
			},
			"drop": func(t *rapid.T) {
				if len(m.waiting) == 0 {
					t.Skip("empty")
				}
				if e := q.dropOldest(); e.n != m.waiting[0] {
					t.Fatalf("drops %d, want %d", e.n, m.waiting[0])
				}
				m.waiting = m.waiting[1:]
			},
			"release": func(t *rapid.T) {
				x := one(t)
				q.find(uint16(x%maxPacketIDs) + 1).state = entryReleased
				m.released[x] = true
			},
			"finish": func(t *rapid.T) {
				x := one(t)
				q.finish(q.find(uint16(x%maxPacketIDs) + 1))
				m.flying = slices.DeleteFunc(m.flying, func(v uint64) bool { return v == x })
			},
			"reconnect": func(*rapid.T) { q.rewind(); m.rewind() },
			"take": func(t *rapid.T) {
				odd := func(e *entry) bool { return e.n%2 == 1 }
				var want []uint64
				m.waiting = slices.DeleteFunc(m.waiting, func(v uint64) bool {
					if v%2 == 1 {
						want = append(want, v)
					}
					return v%2 == 1
				})
				for i, e := range q.takeIf(odd) {
					if i >= len(want) || e.n != want[i] {
						t.Fatalf("takes %d, want %v", e.n, want)
					}
				}
			},
			"": func(t *rapid.T) { m.check(t, &q, cost, window) },
		})
	})
}

func TestAnUnansweredMessageNeverSharesItsPacketID(t *testing.T) {
	var q queue
	var stuck uint64
	q.push(entry{m: &message{owned: true}, n: stuck, qos: 1})
	q.next()
	sent := 0
	for n := uint64(1); n <= 3*maxPacketIDs; n++ {
		q.push(entry{m: &message{owned: true}, n: n, qos: 1})
		for q.maySend(20_000) {
			e := q.next()
			if e.packetID() == 1 {
				t.Fatalf("message %d has the packet id of one that is not acknowledged", e.n)
			}
			sent++
			q.finish(e)
		}
	}
	if sent != maxPacketIDs-1 || q.find(1).n != stuck {
		t.Errorf("%d messages sent behind one that is never acknowledged, want %d", sent, maxPacketIDs-1)
	}
	q.finish(q.find(1))
	if !q.maySend(20_000) || q.inflight.len() != 0 {
		t.Error("the queue stays blocked")
	}
}

func TestPacketIDsAreOneTo65535(t *testing.T) {
	for n, want := range map[uint64]uint16{0: 1, 1: 2, 65534: 65535, 65535: 1, 1<<64 - 1: 1} {
		e := entry{n: n}
		if got := e.packetID(); got != want {
			t.Errorf("message %d has packet id %d, want %d", n, got, want)
		}
	}
}
