package broker

import (
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/broker/journal"
	"muster/broker/topic"
	"muster/broker/wire"
)

// sessionShards spreads the locks of the session table; a power of two.
const sessionShards = 64

// sessions finds sessions by their key and by their owner. It holds at most
// Config.MaxSessions that are kept.
type sessions struct {
	seed   maphash.Seed
	count  atomic.Int64
	keys   [sessionShards]sessionKeys
	owners [sessionShards]sessionOwners
}

type sessionKeys struct {
	mu sync.RWMutex
	m  map[string]*session
}

type sessionOwners struct {
	mu sync.RWMutex
	m  map[string]*session // the first; the others are its siblings
}

func newSessions() *sessions {
	t := &sessions{seed: maphash.MakeSeed()}
	for i := range sessionShards {
		t.keys[i].m = make(map[string]*session)
		t.owners[i].m = make(map[string]*session)
	}
	return t
}

func (t *sessions) shard(s string) int { return int(maphash.String(t.seed, s) % sessionShards) }

// ownerOf names a device, or an account. No MQTT string and no device id has the byte
// that tells them apart.
func ownerOf(device muster.DeviceID, account string) string {
	if device != "" {
		return string(device)
	}
	return "\x00" + account
}

// sessionKey names a session: clients of different identities never share one.
func sessionKey(device muster.DeviceID, account, clientID string) string {
	return ownerOf(device, account) + "\x00" + clientID
}

// open returns the session with fresh's key, which is fresh itself when there was
// none.
func (t *sessions) open(fresh *session) *session {
	k := &t.keys[t.shard(fresh.key)]
	k.mu.Lock()
	if s, ok := k.m[fresh.key]; ok {
		k.mu.Unlock()
		return s
	}
	k.m[fresh.key] = fresh
	k.mu.Unlock()
	t.count.Add(1)
	owner := fresh.owner()
	d := &t.owners[t.shard(owner)]
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh.sibling = d.m[owner]
	d.m[owner] = fresh
	return fresh
}

func (t *sessions) has(key string) bool {
	k := &t.keys[t.shard(key)]
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, ok := k.m[key]
	return ok
}

// close removes a session that has ended.
func (t *sessions) close(s *session) {
	k := &t.keys[t.shard(s.key)]
	k.mu.Lock()
	if k.m[s.key] != s {
		k.mu.Unlock()
		return
	}
	delete(k.m, s.key)
	k.mu.Unlock()
	t.count.Add(-1)
	owner := s.owner()
	d := &t.owners[t.shard(owner)]
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m[owner] == s {
		if s.sibling == nil {
			delete(d.m, owner)
		} else {
			d.m[owner] = s.sibling
		}
		return
	}
	for x := d.m[owner]; x != nil; x = x.sibling {
		if x.sibling == s {
			x.sibling = s.sibling
			return
		}
	}
}

// of yields the sessions of an owner.
func (t *sessions) of(owner string) iter.Seq[*session] {
	return func(yield func(*session) bool) {
		var few [4]*session
		all := few[:0]
		d := &t.owners[t.shard(owner)]
		d.mu.RLock()
		for s := d.m[owner]; s != nil; s = s.sibling {
			all = append(all, s)
		}
		d.mu.RUnlock()
		for _, s := range all {
			if !yield(s) {
				return
			}
		}
	}
}

// ownSessions is how many sessions an account may have for each that a device may.
const ownSessions = 32

// makeRoom lets an owner have one more session: when it has as many as it may, the
// one whose client has been away longest ends. It says false when all are connected.
func (b *Broker) makeRoom(fresh *session) bool {
	limit := b.cfg.MaxOwnSessions
	if fresh.device == "" {
		limit *= ownSessions
	}
	n := 0
	var oldest *session
	for s := range b.sessions.of(fresh.owner()) {
		if s.key == fresh.key {
			return true
		}
		n++
		gone := s.state.Load().gone
		if gone != 0 && (oldest == nil || gone < oldest.state.Load().gone) {
			oldest = s
		}
	}
	if n < limit {
		return true
	}
	if oldest == nil {
		return false
	}
	oldest.mu.Lock()
	if oldest.ended || oldest.conn != nil {
		oldest.mu.Unlock()
		return true
	}
	after := oldest.end()
	oldest.mu.Unlock()
	after()
	b.metrics.evicted.Inc()
	return true
}

func (s *session) owner() string { return ownerOf(s.device, s.account) }

// each yields every session.
func (t *sessions) each(yield func(*session) bool) {
	for i := range t.keys {
		k := &t.keys[i]
		k.mu.RLock()
		all := make([]*session, 0, len(k.m))
		for _, s := range k.m {
			all = append(all, s)
		}
		k.mu.RUnlock()
		for _, s := range all {
			if !yield(s) {
				return
			}
		}
	}
}

// newSession makes a session that is in no table yet.
func (b *Broker) newSession(device muster.DeviceID, account, clientID string) *session {
	s := &session{b: b, clientID: clientID, device: device, account: account, key: sessionKey(device, account, clientID)}
	s.item.Owner = s
	s.state.Store(&sessionState{})
	s.received = &received{limit: 2 * b.cfg.Window}
	return s
}

// attach makes c the connection of its session and says whether that existed. The
// connection that had it before is cut.
func (b *Broker) attach(c *conn, fresh *session, clean bool, expiry time.Duration, greet func(present bool)) {
	for {
		s := b.sessions.open(fresh)
		s.mu.Lock()
		if s.ended {
			s.mu.Unlock()
			b.sessions.close(s)
			if s == fresh { // another connection of the client has ended it before this one had it
				fresh = b.newSession(s.device, s.account, s.clientID)
			}
			continue
		}
		old := s.conn
		// A session that ends with its connection is not taken over with it (MQTT-3.1.2-6).
		if s != fresh && (clean || s.state.Load().expiry == 0) {
			after := s.end()
			s.mu.Unlock()
			takeOver(old)
			after()
			continue
		}
		s.resume(c, s != fresh, expiry, greet)
		s.mu.Unlock()
		takeOver(old)
		return
	}
}

// resume connects c, sends CONNACK through greet and then what waits for the client.
// The session's lock must be held.
func (s *session) resume(c *conn, present bool, expiry time.Duration, greet func(present bool)) {
	if s.conn != nil {
		s.park()
	}
	s.b.wheel.remove(s.alarm)
	if in := s.showing; in != nil {
		in.told, in.absent = nil, nil
		s.shown()
	}
	s.alarm, s.will = nil, nil // a will that waited for its delay is not sent: the client is back
	if expiry > 0 && !s.kept {
		s.kept, s.num = true, s.b.lastSession.Add(1)
		s.received.num = s.num
	}
	c.mu.Lock()
	c.sess = s
	c.mu.Unlock()
	s.conn = c
	st := *s.state.Load()
	st.expiry, st.gone = expiry, 0
	s.loseRights(c.allowed.Load(), &st)
	s.setState(&st, nil)
	greet(present)
	if s.q != nil {
		for i := range s.q.inflight.len() {
			if e := s.q.inflight.at(i); e.state == entryReleased && e.durable {
				s.again(c, e)
			}
		}
	}
	s.pump(nil)
}

// loseRights ends the subscriptions that the client may not have any more, which
// nobody asked about while it was away, and what waits because of them.
func (s *session) loseRights(r *rights, st *sessionState) {
	var left []subscription
	for i := range st.subs {
		if r.holds(&st.subs[i]) {
			left = append(left, st.subs[i])
			continue
		}
		s.leave(&st.subs[i])
	}
	less := len(left) < len(st.subs)
	if less {
		st.subs = left
	}
	if s.q == nil {
		return
	}
	lost := s.q.takeIf(func(e *entry) bool {
		gone := less
		for i := range left {
			if s.gets(&left[i], e.m.topic) {
				return false
			}
			gone = gone || left[i].kids && topic.Matches(left[i].filter, e.m.topic) // of who is no child any more
		}
		return gone
	})
	for _, e := range lost {
		s.forget(e)
	}
}

// again sends PUBREL again.
func (s *session) again(c *conn, e *entry) {
	id := e.packetID()
	c.add(nil, func(b []byte) []byte { return c.dialect.AppendAck(b, wire.Pubrel, id, wire.CodeSuccess, "") })
}

// takeOver ends the connection that another one takes the session from. It accepts
// nil.
func takeOver(old *conn) {
	if old != nil {
		_ = old.bye(wire.CodeTakenOver, "another connection has taken the session over", causeTaken)
	}
}

// park makes the queue ready for the next connection. The session's lock must be
// held.
func (s *session) park() {
	if s.q != nil {
		s.q.rewind()
		if s.q.len() == 0 {
			s.q = nil
		}
	}
}

// detach ends the connection of c with its session. It says what is to be done when
// no lock is held; nil when the session has another connection.
func (s *session) detach(c *conn, w *will) (after func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return nil
	}
	s.conn = nil
	if s.relief != nil {
		close(s.relief)
		s.relief = nil
	}
	s.park()
	st := *s.state.Load()
	if st.expiry == 0 {
		return s.end()
	}
	st.gone = s.b.clock.Load()
	s.setState(&st, nil)
	if w != nil {
		s.will = w
		w.due = st.gone + min(w.delay, st.expiry).Milliseconds()
	}
	s.alarm = s.b.wheel.add(s, s.due())
	shared := s.shared()
	return func() {
		if len(shared) > 0 {
			s.b.redirect(s, shared)
		}
	}
}

// shared takes out the copies of shared subscriptions that another member can have:
// all but QoS 2 copies that were sent (MQTT 5, 4.8.2), and only while there is one
// that is connected.
func (s *session) shared() []entry {
	if s.q == nil {
		return nil
	}
	return s.q.takeIf(func(e *entry) bool {
		if e.group == nil || e.qos == 2 && e.dup {
			return false
		}
		g := s.b.groupNow(e)
		if g == nil {
			return false
		}
		for _, m := range g.Members() {
			if m.Owner != s && m.Owner.online() {
				return true
			}
		}
		return false
	})
}

// end ends the session for good. The lock must be held; what it returns is to be
// done without it.
func (s *session) end() (after func()) {
	s.ended, s.conn = true, nil
	s.b.wheel.remove(s.alarm)
	st := s.state.Load()
	for i := range st.subs {
		s.leave(&st.subs[i])
	}
	s.state.Store(&sessionState{gone: 1})
	var drop []*journal.Item
	var shared []entry
	if s.q != nil {
		drop, shared = s.giveUp()
		s.q = nil
	}
	if s.kept {
		drop = append(append(drop, &s.item), s.received.all()...)
		num := s.num
		s.b.journal.WriteFunc(func(p []byte) []byte { return appendEnded(p, num) }, nil, drop, nil)
	}
	w := s.will
	s.will = nil
	return func() {
		s.b.sessions.close(s)
		if len(shared) > 0 {
			s.b.redirect(s, shared)
		}
		if w != nil {
			s.b.publishWill(w)
		}
	}
}

// giveUp ends every copy in the queue and returns the records that end with them,
// and the copies that other members of a shared subscription are to have.
func (s *session) giveUp() (drop []*journal.Item, shared []entry) {
	s.q.rewind()
	for _, d := range []*deque[entry]{&s.q.inflight, &s.q.waiting} {
		for d.len() > 0 {
			e := d.pop()
			if t := e.target; t != nil && t.state.Swap(targetDone) != targetDone && t.of.left.Add(-1) == 0 {
				drop = append(drop, &t.of.item)
			}
			e.target = nil
			if e.group != nil && (e.qos == 1 || !e.dup && e.state != entryReleased) {
				shared = append(shared, e)
			}
		}
	}
	return drop, shared
}

// changeExpiry sets how long the session outlives this connection, in seconds. It
// says false when that is not allowed (MQTT 5, 3.14.2.2.2).
func (s *session) changeExpiry(c *conn, seconds uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return true // another connection has it by now
	}
	st := *s.state.Load()
	if st.expiry == 0 {
		return seconds == 0
	}
	st.expiry = min(time.Duration(seconds)*time.Second, s.b.cfg.MaxSessionExpiry)
	s.setState(&st, nil)
	return true
}

// due returns when the session has to be looked at again: when its will is due, or
// it is over. It is 0 while a client is connected.
func (s *session) due() int64 {
	st := s.state.Load()
	if st.gone == 0 {
		return 0
	}
	over := st.gone + st.expiry.Milliseconds()
	if s.will != nil && s.will.due < over {
		return s.will.due
	}
	return over
}

// tick implements ticker: it sends a will that is due, and ends a session that is
// over.
func (s *session) tick(now int64) (next int64) {
	s.mu.Lock()
	if s.ended || s.conn != nil {
		s.mu.Unlock()
		return 0
	}
	var after func()
	st := s.state.Load()
	if now >= st.gone+st.expiry.Milliseconds() {
		after = s.end()
	} else if w := s.will; w != nil && now >= w.due {
		s.will = nil
		after = func() { s.b.publishWill(w) }
		next = s.due()
	} else {
		next = s.due()
	}
	s.mu.Unlock()
	if after != nil {
		s.b.work.start(after)
	}
	return next
}
