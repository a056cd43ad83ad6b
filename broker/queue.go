package broker

import (
	"slices"

	"muster/broker/topic"
)

// entryCost is what a queued message costs beside its bytes, about.
const entryCost = 200

// maxPacketIDs is how many packet ids there are.
const maxPacketIDs = 65535

// entryState is how far a QoS 1 or 2 message to one session is.
type entryState uint8

const (
	entryQueued   entryState = iota
	entryHeld                // QoS 2 and not durable yet: it may not be sent before
	entrySent                // PUBLISH has left; PUBACK or PUBREC is awaited
	entryReleased            // PUBREC came; PUBREL has left, or will when that is durable; PUBCOMP is awaited
	entryDone
)

// entry is one QoS 1 or 2 message in a session's queue. Its packet id follows from
// n, so that it survives a restart without being written down.
type entry struct {
	m      *message
	target *target // the durable record of it, nil for a session that is not kept
	group  *topic.Group[*session]
	ids    []uint32 // subscription identifiers
	parcel *parcel  // whose outcome somebody waits for, else nil
	n      uint64
	qos    byte
	state  entryState
	retain bool
	me     bool // goes out spelled devices/me/...
	dup    bool // has been sent before
	stored bool // a retained message, sent because of a SUBSCRIBE: beside the bounds of the queue
	life   span
	// durable says, of a released message, that it is written down: PUBREL may leave.
	durable bool
}

func (e *entry) packetID() uint16 { return uint16(e.n%maxPacketIDs) + 1 }

// queue holds the QoS 1 and 2 messages of one session. waiting are not sent,
// inflight are, both in the order they go out. The session's lock guards it.
type queue struct {
	waiting  deque[entry]
	inflight deque[entry]
	open     int    // of inflight, those not done
	bytes    int    // of all messages but stored ones, which others keep
	shown    int    // of waiting, stored ones
	low      uint64 // no n of inflight is below it
	mixed    bool   // inflight is not in order of n: it began with messages that were released before a reconnect
}

func (q *queue) len() int { return q.waiting.len() + q.open }

func (q *queue) push(e entry) {
	q.count(&e, 1)
	q.waiting.push(e)
	q.wait(&e, 1)
}

// count takes an entry into the queue's bytes, or out of them.
func (q *queue) count(e *entry, n int) {
	if !e.stored {
		q.bytes += n * e.m.size()
	}
}

// wait takes an entry into what waits, or out of it.
func (q *queue) wait(e *entry, n int) {
	if e.stored {
		q.shown += n
	}
}

// dropOldest takes the oldest message out that has not been sent.
func (q *queue) dropOldest() entry {
	e := q.waiting.pop()
	q.wait(&e, -1)
	q.count(&e, -1)
	return e
}

// maySend says whether one more message may be in flight.
func (q *queue) maySend(window int) bool {
	if q.waiting.len() == 0 || q.open >= window {
		return false
	}
	if q.inflight.len() == 0 {
		return true
	}
	// A client that leaves its oldest unacknowledged must not make the ring grow or
	// meet a packet id that is in use.
	ahead := int64(q.waiting.at(0).n - q.low)
	return q.inflight.len() < 4*window && ahead < maxPacketIDs
}

// next moves the first waiting message to those in flight.
func (q *queue) next() *entry {
	e := q.waiting.pop()
	q.wait(&e, -1)
	e.state = entrySent
	if q.inflight.len() == 0 {
		q.low, q.mixed = e.n, false
	}
	q.low = min(q.low, e.n)
	q.inflight.push(e)
	q.open++
	return q.inflight.at(q.inflight.len() - 1)
}

// find returns the message in flight with packet id, nil when there is none. Most
// clients acknowledge in order, so that it is the first.
func (q *queue) find(id uint16) *entry {
	for i := range q.inflight.len() {
		if e := q.inflight.at(i); e.state != entryDone && e.packetID() == id {
			return e
		}
	}
	return nil
}

// finish ends a message in flight.
func (q *queue) finish(e *entry) {
	q.count(e, -1)
	e.state = entryDone
	e.m, e.target, e.parcel = nil, nil, nil
	q.open--
	for q.inflight.len() > 0 && q.inflight.at(0).state == entryDone {
		q.inflight.pop()
	}
	if q.inflight.len() > 0 && !q.mixed {
		q.low = q.inflight.at(0).n
	}
}

// renew puts a message in the place of an older one of its topic that waits. It says
// false when there is none.
func (q *queue) renew(m *message, o *copyOf) bool {
	for i := range q.waiting.len() {
		e := q.waiting.at(i)
		if e.life != liveState || e.m.topic != m.topic {
			continue
		}
		q.count(e, -1)
		e.m, e.ids, e.qos, e.retain, e.me = m, o.ids, o.qos, o.retain, o.me
		q.count(e, 1)
		return true
	}
	return false
}

// rewind makes ready for the next connection: what was sent and not answered waits
// again, in order, to be sent as a duplicate. What is live is lost.
func (q *queue) rewind() {
	for _, e := range q.takeIf(func(e *entry) bool { return e.life != lasting }) {
		e.parcel.end(Lost)
	}
	var stay deque[entry]
	var back []entry
	for q.inflight.len() > 0 {
		e := q.inflight.pop()
		if e.state == entryReleased {
			stay.push(e)
		}
		if e.state == entrySent && e.life != lasting {
			q.count(&e, -1)
			e.parcel.end(Lost)
			continue
		}
		if e.state == entrySent {
			e.state, e.dup = entryQueued, true
			back = append(back, e)
		}
	}
	for _, e := range slices.Backward(back) {
		q.waiting.pushFront(e)
		q.wait(&e, 1)
	}
	q.inflight, q.open, q.mixed = stay, stay.len(), true
	for i := range stay.len() {
		if n := stay.at(i).n; i == 0 || n < q.low {
			q.low = n
		}
	}
}

// takeIf removes the waiting messages that want says, in order.
func (q *queue) takeIf(want func(*entry) bool) (taken []entry) {
	for range q.waiting.len() {
		e := q.waiting.pop()
		if want(&e) {
			q.wait(&e, -1)
			q.count(&e, -1)
			taken = append(taken, e)
			continue
		}
		q.waiting.push(e)
	}
	return taken
}
