package intake

import (
	"context"
	"sync"
	"time"

	"muster"
)

// Ledger accounts for every message of a kind since the process started.
// Received = Stored + Rejected + Dropped + Queued holds in each that is handed out.
type Ledger struct {
	Received uint64 `json:"received"`
	Stored   uint64 `json:"stored"`   // kept by the owner
	Rejected uint64 `json:"rejected"` // refused for good and kept with the reason
	Dropped  uint64 `json:"dropped"`  // QoS 0 only: there was no room
	Queued   uint64 `json:"queued"`
}

// queue holds the messages of a kind until they are kept or refused.
type queue struct {
	mu      sync.Mutex
	waiting []Message // oldest first
	taken   int       // how many of them the worker has
	bytes   int
	shares  map[muster.DeviceID]int // how many of them a publisher has
	last    muster.Micros           // the newest arrival time given out
	ledger  Ledger
	stuck   bool // a message of QoS 0 waited for room in vain; over when there is some
	closed  bool
	room    chan struct{} // closed and replaced when room appears
	wake    chan struct{} // one token: there is something to take
}

func newQueue() *queue {
	return &queue{shares: map[muster.DeviceID]int{}, room: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// publisher is who is slowed down for m.
func publisher(m *Message) muster.DeviceID {
	if m.By != "" {
		return m.By
	}
	return m.Device
}

func (q *queue) fits(m *Message) bool {
	return len(q.waiting) == 0 ||
		len(q.waiting) < MaxQueued && q.bytes+len(m.Payload) <= MaxBytes && q.shares[publisher(m)] < maxShare
}

// put queues m, which came at the time at, as soon as there is room.
func (q *queue) put(ctx context.Context, m *Message, at muster.Micros) error {
	room, done, err := q.offer(m, at)
	if done || err != nil {
		return err
	}
	wait := patience
	if m.QoS == 0 {
		wait = patienceQoS0
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-room:
		case <-ctx.Done():
			return errFull()
		case <-timer.C:
			q.setStuck(m.QoS == 0)
			return errFull()
		}
		if room, done, err = q.offer(m, at); done || err != nil {
			return err
		}
	}
}

func errFull() error {
	return muster.Errorf(muster.Busy, "too many messages wait to be stored")
}

// offer queues m if there is room, else it returns what tells of room.
func (q *queue) offer(m *Message, at muster.Micros) (room <-chan struct{}, done bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return nil, false, muster.Errorf(muster.Busy, "the server is stopping")
	case !q.fits(m):
		if m.QoS == 0 && q.stuck {
			return nil, false, errFull()
		}
		return q.room, false, nil
	}
	if at >= q.last-setBack {
		at = max(at, q.last+1)
	}
	q.last = at
	m.Arrival = q.last
	q.waiting = append(q.waiting, *m)
	q.bytes += len(m.Payload)
	q.shares[publisher(m)]++
	q.ledger.Received++
	q.ledger.Queued++
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil, true, nil
}

func (q *queue) setStuck(stuck bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stuck = q.stuck || stuck
}

// drop counts a message for which there was no room.
func (q *queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ledger.Received++
	q.ledger.Dropped++
}

// take returns the oldest messages, the same ones until settle is called.
func (q *queue) take() []Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken == 0 {
		q.taken = min(MaxBatch, len(q.waiting))
	}
	return q.waiting[:q.taken:q.taken]
}

// settle lets go of what take returned.
func (q *queue) settle(stored, rejected int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.waiting[:q.taken] {
		m := &q.waiting[i]
		q.bytes -= len(m.Payload)
		if q.shares[publisher(m)]--; q.shares[publisher(m)] == 0 {
			delete(q.shares, publisher(m))
		}
		*m = Message{}
	}
	q.waiting = q.waiting[q.taken:]
	if len(q.waiting) == 0 {
		q.waiting = nil
	}
	q.ledger.Queued -= uint64(q.taken)
	q.ledger.Stored += uint64(stored)
	q.ledger.Rejected += uint64(rejected)
	q.taken, q.stuck = 0, false
	close(q.room)
	q.room = make(chan struct{})
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	close(q.room)
	q.room = make(chan struct{})
}

func (q *queue) snapshot() Ledger {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ledger
}
