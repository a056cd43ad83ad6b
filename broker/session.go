package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/broker/journal"
	"muster/broker/thingsboard"
	"muster/broker/topic"
	"muster/broker/wire"
)

// subscription is one of a session's.
type subscription struct {
	group  string // of a shared subscription
	filter string // canonical; of the device's own topics only what stands behind devices/{id}/
	topic.Options
	tb    *thingsboard.Subscription // as ThingsBoard spells it, else nil
	own   bool                      // of the device's own topics: not in the general index
	me    bool                      // spelled devices/me/...
	apart bool                      // not in the general index either: it hears replies, or what is for its children
	kids  bool                      // devices/+/... of a gateway: of its children. It stands apart
}

// sessionState is what of a session is written down as one record. It is replaced,
// never changed, so that it can be read without the session's lock.
type sessionState struct {
	subs   []subscription
	expiry time.Duration // how long the session outlives its connection; 0: it ends with it
	gone   int64         // when the connection ended, in unix milliseconds; 0 while there is one
}

// session is what MQTT 5, section 4.1 calls the session state of one client. Its
// client comes and goes; a session that ended never comes back.
type session struct {
	b        *Broker
	key      string // identity and client id: clients of different identities never share one
	clientID string
	device   muster.DeviceID // whose it is, or
	account  string          // the service account's or key's name
	num      uint64          // names it in the journal
	item     journal.Item    // its record
	state    atomic.Pointer[sessionState]
	sibling  *session // the next of the same device; guarded by sessions

	mu        sync.Mutex
	conn      *conn // nil while the client is away
	q         *queue
	next      uint64 // of queued messages
	received  *received
	will      *will // waits for its delay
	alarm     *alarm
	dropped   uint64
	finished  uint64        // messages that have arrived
	rest      time.Duration // that publishers do not wait after they have given up
	slowUntil int64         // until then, in unix milliseconds, no publisher waits for it
	relief    chan struct{} // closed when publishers that wait for it may go on
	showing   *showing      // of state topics; nil while there is nothing to tell
	kept      bool          // it is in the journal
	ended     bool
}

// options of one copy of a message.
type copyOf struct {
	qos    byte
	retain bool
	me     bool
	ids    []uint32
	group  *topic.Group[*session]
	stored bool // a retained message, sent because of a SUBSCRIBE

	life   span    // how long it is kept
	parcel *parcel // whose outcome somebody waits for
}

// span says how long a copy is kept for its client.
type span uint8

const (
	lasting    span = iota // as long as the session; it is written down when that is kept
	live                   // as long as the connection
	liveState              // likewise, and until there is a newer one of its topic
	liveUpdate             // likewise, and says what has changed of a state: when it is lost the next one tells all
)

// deliver gives the session a copy of r's message. It never waits. It says whether
// the session took it.
func (s *session) deliver(r *route, o copyOf) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	if o.qos == 0 {
		if s.conn == nil {
			return false
		}
		s.sendOnce(r, &o)
		return true
	}
	s.enqueue(r, &o)
	s.pump(r.kicks)
	return true
}

// sendOnce sends a QoS 0 copy to the client, which is connected, or drops it.
func (s *session) sendOnce(r *route, o *copyOf) sent {
	c := s.conn
	if !c.allowed.Load().reaches(r.m.topic) {
		return sentNever
	}
	out := wire.Out{Retain: o.retain, Identifiers: o.ids}
	r.m.fill(&out, r.now)
	if o.me {
		c.spellOwn(&out, r.m)
	}
	became := c.send(&out, r.kicks, true)
	switch became {
	case sentOK, sentNever:
	case sentPressed:
		s.press(r)
	case sentFull:
		s.drop("slow")
	case sentTooLarge:
		s.drop("too_large")
	}
	return became
}

// enqueue puts a QoS 1 or 2 copy at the end of the queue. When that is full the
// oldest copy that was not sent is dropped.
func (s *session) enqueue(r *route, o *copyOf) {
	if s.q == nil {
		s.q = new(queue)
	}
	if o.life == liveState && s.q.renew(r.m, o) {
		return
	}
	size := r.m.size()
	messages, bytes := s.bounds()
	for !o.stored && s.q.waiting.len() > s.q.shown && (s.q.waiting.len()-s.q.shown >= messages || s.q.bytes+size > bytes) {
		s.forget(s.q.dropOldest())
		s.drop("queue")
	}
	r.m.own()
	e := entry{
		m: r.m, group: o.group, ids: o.ids, n: s.next, qos: o.qos, retain: o.retain, me: o.me, stored: o.stored,
		life: o.life, parcel: o.parcel,
	}
	s.next++
	if s.kept && o.life == lasting {
		e.target = r.remember(s, &e)
		if e.qos == 2 {
			e.state = entryHeld
		}
	}
	s.q.push(e)
	if !o.stored && s.q.waiting.len()-s.q.shown > messages/2 {
		s.press(r)
	}
}

// tightBy is how much smaller the queues of kept sessions are while the log of
// sessions is more than half full of what is still wanted: then the oldest messages
// of many absent clients give way, before everybody has to wait for room.
const tightBy = 16

// bounds are how many messages may wait, and their bytes.
func (s *session) bounds() (messages, bytes int) {
	messages, bytes = s.b.cfg.MaxQueued, s.b.cfg.MaxQueuedBytes
	if s.kept && s.b.tight.Load() {
		messages, bytes = max(messages/tightBy, 1), bytes/tightBy
	}
	return messages, bytes
}

// pump sends what the client's window has room for.
func (s *session) pump(k *kicks) {
	c := s.conn
	if c == nil || s.q == nil {
		return
	}
	now := s.b.clock.Load()
	for s.q.maySend(c.window) && s.q.waiting.at(0).state != entryHeld {
		if !c.room() {
			return
		}
		if e := s.q.waiting.at(0); e.m.expired(now) || e.m.topic == "" {
			s.forget(s.q.dropOldest())
			s.b.metrics.dropped.WithLabelValues("expired").Inc()
			continue
		} else if !c.allowed.Load().reaches(e.m.topic) { // asked late: a kept session may have been away
			s.forget(s.q.dropOldest())
			continue
		}
		e := s.q.next()
		if !s.transmit(c, e, now, k) {
			e.parcel.end(Lost)
			s.finish(e)
		}
	}
}

// transmit sends a copy. It says false when the client cannot take it: then it
// counts as sent (MQTT 5, 3.1.2.11.4).
func (s *session) transmit(c *conn, e *entry, now int64, k *kicks) bool {
	out := wire.Out{ID: e.packetID(), QoS: e.qos, Dup: e.dup, Retain: e.retain, Identifiers: e.ids}
	e.m.fill(&out, now)
	if e.me {
		c.spellOwn(&out, e.m)
	}
	if c.send(&out, k, false) != sentTooLarge {
		return true
	}
	s.drop("too_large")
	return false
}

// finish ends a copy in flight.
func (s *session) finish(e *entry) {
	s.b.settleTarget(e.target)
	s.q.finish(e)
	s.finished++
	s.relieve()
}

// forget ends a copy that has been taken out of the queue.
func (s *session) forget(e entry) {
	e.parcel.end(Lost)
	if e.life == liveUpdate {
		s.untell()
	}
	s.b.settleTarget(e.target)
}

func (s *session) drop(reason string) {
	s.dropped++
	s.b.metrics.dropped.WithLabelValues(reason).Inc()
}

// acked handles PUBACK and PUBCOMP: the copy has arrived, or the client refuses it.
func (s *session) acked(id uint16, comp bool, code byte, k *kicks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.q == nil {
		return
	}
	e := s.q.find(id)
	if e == nil || comp != (e.qos == 2) || comp && e.state != entryReleased {
		return
	}
	if code < wire.CodeUnspecified {
		e.parcel.end(Acked)
	} else {
		e.parcel.end(Lost)
	}
	s.finish(e)
	s.pump(k)
}

// got handles PUBREC. With a failure code the copy ends; else PUBREL is due, once
// it is durable that PUBLISH must not be sent again. known is false when there is
// no such copy.
func (s *session) got(id uint16, code byte, k *kicks) (release, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.q == nil {
		return false, false
	}
	e := s.q.find(id)
	switch {
	case e == nil || e.qos != 2:
		return false, false
	case code >= wire.CodeUnspecified:
		s.finish(e)
		s.pump(k)
		return false, true
	case e.state == entryReleased:
		return e.durable, true
	}
	e.state = entryReleased
	if e.target == nil {
		e.durable = true
		return true, true
	}
	n := e.n
	s.b.releaseTarget(e.target, func() { s.releaseNow(id, n) })
	return false, true
}

// releaseNow sends the PUBREL of a message that is written down as released, to
// whoever has the session; the next connection gets it otherwise.
func (s *session) releaseNow(id uint16, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.q == nil {
		return
	}
	e := s.q.find(id)
	if e == nil || e.n != n {
		return
	}
	e.durable = true
	if s.conn != nil {
		s.again(s.conn, e)
	}
}

// press notes that the client is behind, for the publisher to wait a little.
func (s *session) press(r *route) {
	if r.kicks == nil || s.conn == nil || s.slowUntil > r.now {
		return
	}
	if s.relief == nil {
		s.relief = make(chan struct{})
	}
	r.kicks.press(s)
}

// relieve lets publishers go on that wait for the client.
func (s *session) relieve() {
	if s.relief == nil || s.q != nil && s.q.waiting.len() > s.b.cfg.MaxQueued/4 {
		return
	}
	if s.conn != nil && s.conn.pressed() {
		return
	}
	close(s.relief)
	s.relief = nil
}

// wait waits for a client that is behind, for as long as it keeps up: as it takes
// graceBytes or graceMessages in each graceTime. One that does not is not waited for
// again for graceRest, twice as long each time up to graceMost.
func (s *session) wait(done <-chan struct{}) {
	s.mu.Lock()
	s.relieve()
	relief, bytes, taken := s.relief, s.taken(), s.finished
	s.mu.Unlock()
	for relief != nil {
		t := time.NewTimer(graceTime)
		select {
		case <-relief:
			t.Stop()
			return
		case <-done:
			t.Stop()
			return
		case <-t.C:
		}
		s.mu.Lock()
		b, f := s.taken(), s.finished
		if b-bytes < graceBytes && f-taken < graceMessages && s.relief != nil {
			s.giveUpOn()
		}
		relief, bytes, taken = s.relief, b, f
		s.mu.Unlock()
	}
}

// giveUpOn lets publishers go on although the client is behind.
func (s *session) giveUpOn() {
	s.rest = min(max(2*s.rest, graceRest), graceMost)
	s.slowUntil = s.b.clock.Load() + s.rest.Milliseconds()
	close(s.relief)
	s.relief = nil
}

// taken returns how many bytes the connection has taken.
func (s *session) taken() uint64 {
	if s.conn == nil {
		return 0
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.conn.stats.bytesOut
}

// unhold lets a QoS 2 copy be sent that is durable now.
func (s *session) unhold(n uint64, k *kicks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.q == nil {
		return
	}
	for i := range s.q.waiting.len() {
		if e := s.q.waiting.at(i); e.n == n {
			if e.state == entryHeld {
				e.state = entryQueued
			}
			break
		}
	}
	s.pump(k)
}

// online says whether a client is connected, without the session's lock.
func (s *session) online() bool { return s.state.Load().gone == 0 }

// setState replaces the state and has it written down when the session is kept.
// done may be nil. The session's lock must be held.
func (s *session) setState(st *sessionState, done func(error)) {
	s.state.Store(st)
	if s.kept {
		s.b.journal.WriteFunc(s.AppendRecord, &s.item, nil, done)
		return
	}
	if done != nil {
		done(nil)
	}
}
