package broker

import (
	"context"
	"fmt"
	"slices"

	"muster/broker/journal"
)

// restorer reads the journal back into sessions, queues and retained messages.
type restorer struct {
	b        *Broker
	sessions map[uint64]*session
	stored   map[uint64]*stored
	queued   map[uint64]map[uint64]*entry // by session and n
}

// restore makes of the journal what the last process knew.
func (b *Broker) restore(ctx context.Context) error {
	r := &restorer{b: b, sessions: map[uint64]*session{}, stored: map[uint64]*stored{}, queued: map[uint64]map[uint64]*entry{}}
	if err := b.journal.Replay(ctx, r.apply); err != nil {
		return err
	}
	r.finish()
	return nil
}

// apply takes one record in.
func (r *restorer) apply(seq uint64, record []byte) error {
	in := recordReader{b: record}
	kind := in.byte()
	switch kind {
	case recordNothing:
	case recordSession:
		r.session(&in, seq)
	case recordEnded:
		r.end(in.uint())
	case recordMessage:
		r.message(&in, seq)
	case recordDone:
		r.done(in.uint(), in.uint())
	case recordReleased:
		if e := r.queued[in.uint()][in.uint()]; e != nil {
			e.state, e.durable = entryReleased, true
			e.target.state.Store(targetReleased)
		}
	case recordRetained:
		x := &retained{by: string(in.text())}
		x.m = in.body()
		if _, rest, _ := splitDevice(x.m.topic); !in.bad && !isState(rest) { // States knows those
			r.b.retained.restore(x.m.topic, x, seq)
		}
	case recordCleared:
		r.b.retained.restore(string(in.text()), nil, seq)
	case recordReceived:
		r.receive(in.uint(), uint16(in.uint()), seq)
	case recordFreed:
		r.free(in.uint(), uint16(in.uint()))
	case recordPair:
		r.receive(in.uint(), uint16(in.uint()), seq)
		if in.byte() == recordMessage {
			r.message(&in, seq)
		}
	default:
		return fmt.Errorf("a record of unknown kind %d: the data is of a later version", kind)
	}
	return in.err(kind)
}

func (r *restorer) session(in *recordReader, seq uint64) {
	saved := in.session()
	if in.bad {
		return
	}
	s := r.of(saved.num)
	s.device, s.account, s.clientID = saved.device, saved.account, saved.clientID
	s.key = sessionKey(s.device, s.account, s.clientID)
	s.kept = true
	s.state.Store(saved.state)
	r.b.journal.Place(&s.item, seq)
}

// of returns the session with a number. What belongs to it may come before its own
// record, which then has been written anew since; one whose record never comes has
// ended.
func (r *restorer) of(num uint64) *session {
	if s, ok := r.sessions[num]; ok {
		return s
	}
	s := r.b.newSession("", "", "")
	s.num, s.received.num = num, num
	r.sessions[num] = s
	r.b.lastSession.Store(max(r.b.lastSession.Load(), num))
	return s
}

func (r *restorer) end(num uint64) {
	s, ok := r.sessions[num]
	if !ok {
		return
	}
	delete(r.sessions, num)
	r.b.journal.Unplace(&s.item)
	for n := range r.queued[num] {
		r.done(num, n)
	}
	delete(r.queued, num)
	for _, item := range s.received.all() {
		r.b.journal.Unplace(item)
	}
}

func (r *restorer) message(in *recordReader, seq uint64) {
	num := in.uint()
	m := in.body()
	k, again := r.stored[num]
	if !again {
		k = &stored{num: num, m: m}
		k.item.Owner = k
	}
	for len(in.b) > 0 && !in.bad {
		r.target(in, k)
	}
	r.b.lastStored.Store(max(r.b.lastStored.Load(), num))
	if k.left.Load() == 0 {
		return
	}
	r.stored[num] = k
	r.b.journal.Place(&k.item, seq)
}

func (r *restorer) target(in *recordReader, k *stored) {
	num, n := in.uint(), in.uint()
	qos, flags := in.byte(), in.byte()
	var ids []uint32 //nolint:prealloc // how many is what a record says, which may be wrong
	for range min(in.uint(), uint64(len(in.b))) {
		ids = append(ids, uint32(in.uint()))
	}
	if in.bad || r.queued[num][n] != nil {
		return
	}
	s := r.of(num)
	t := &target{of: k, s: s, n: n, qos: qos, flags: flags &^ flagReleased, ids: ids}
	e := &entry{m: k.m, target: t, ids: ids, n: n, qos: qos, retain: flags&flagRetain != 0, me: flags&flagMe != 0, dup: true}
	if flags&flagReleased != 0 {
		e.state, e.durable = entryReleased, true
		t.state.Store(targetReleased)
	}
	k.targets = append(k.targets, t)
	k.left.Add(1)
	if r.queued[num] == nil {
		r.queued[num] = map[uint64]*entry{}
	}
	r.queued[num][n] = e
}

func (r *restorer) done(num, n uint64) {
	e := r.queued[num][n]
	if e == nil {
		return
	}
	delete(r.queued[num], n)
	e.target.state.Store(targetDone)
	k := e.target.of
	if k.left.Add(-1) == 0 {
		r.b.journal.Unplace(&k.item)
		delete(r.stored, k.num)
	}
}

func (r *restorer) receive(num uint64, id uint16, seq uint64) {
	s := r.of(num)
	x := s.received.ids[id]
	if x == nil {
		x = s.received.put(id)
	}
	x.saved, x.stage = true, stageKept
	r.b.journal.Place(&x.item, seq)
}

func (r *restorer) free(num uint64, id uint16) {
	s := r.sessions[num]
	if s == nil {
		return
	}
	if x := s.received.ids[id]; x != nil {
		r.b.journal.Unplace(&x.item)
		s.received.abandon(id)
	}
}

// finish puts the sessions into their tables. Those that had a connection lost it
// now, as far as their expiry goes.
func (r *restorer) finish() {
	now := r.b.clock.Load()
	for num, s := range r.sessions {
		if !s.kept {
			r.end(num)
			continue
		}
		r.refill(s, r.queued[num])
		st := *s.state.Load()
		if st.gone == 0 {
			st.gone = now
		}
		s.state.Store(&st)
		r.b.sessions.open(s)
		for i := range st.subs {
			s.enter(&st.subs[i])
		}
		s.alarm = r.b.wheel.add(s, s.due())
	}
}

// refill makes a session's queue of its entries. What may have been sent is sent
// again as a duplicate, since nobody wrote down whether it was.
func (r *restorer) refill(s *session, entries map[uint64]*entry) {
	if len(entries) == 0 {
		return
	}
	order := make([]*entry, 0, len(entries))
	for _, e := range entries {
		order = append(order, e)
	}
	slices.SortFunc(order, func(a, b *entry) int { return int(int64(a.n - b.n)) })
	s.q = new(queue)
	for _, e := range order {
		s.next = max(s.next, e.n+1)
		if e.state != entryReleased {
			s.q.push(*e)
			continue
		}
		if s.q.inflight.len() == 0 {
			s.q.low, s.q.mixed = e.n, true
		}
		s.q.bytes += e.m.size()
		s.q.inflight.push(*e)
		s.q.open++
	}
}

var _ journal.Encoder = (*session)(nil)
