package broker

import (
	"context"
	"sync"

	"muster/broker/topic"
	"muster/internal/lifecycle"
)

// deliverLive gives the session's connection a copy that ends with it: it is neither
// written down nor kept for the next connection. only, when not nil, is the connection
// it is for. It says whether there was one.
func (s *session) deliverLive(r *route, o copyOf, only *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.conn == nil || only != nil && s.conn != only {
		return false
	}
	if o.life == liveState {
		s.pass(r.m.topic)
	}
	s.putLive(r, o)
	return true
}

// pass notes that the session is told of a change of a topic.
func (s *session) pass(name string) {
	if s.showing == nil {
		return
	}
	for _, l := range s.showing.looks {
		l.passed = l.passed || l.topic == name
	}
}

// putLive is deliverLive for a session that is locked and connected.
func (s *session) putLive(r *route, o copyOf) {
	o.life = max(o.life, live)
	o.parcel.hold()
	if o.qos > 0 {
		s.enqueue(r, &o)
		s.pump(r.kicks)
		return
	}
	switch s.sendOnce(r, &o) {
	case sentOK, sentPressed:
		o.parcel.end(Sent)
	default:
		o.parcel.end(Lost)
		if o.life == liveUpdate {
			s.untell()
		}
	}
}

// deliverOwnLive is deliverLive for a message at a topic of the session's own device.
// o says what the copy has beside its subscriptions' options.
func (s *session) deliverOwnLive(r *route, rest string, o copyOf) bool {
	subs := s.state.Load().subs
	hit, took := false, false
	for i := range subs {
		x := &subs[i]
		switch {
		case !x.own || x.group != "" || !topic.Matches(x.filter, rest) && !x.tells(rest):
		case x.tb != nil:
			took = s.deliverSpelled(r, x, o) || took
		default:
			o.take(x, r.m)
			hit = true
		}
	}
	if hit {
		took = s.deliverLive(r, o, nil) || took
	}
	return took
}

// liveCopy makes of o the copy for a subscriber in the general index.
func (r *route) liveCopy(t *topic.Target[*session], o copyOf) copyOf {
	o.qos, o.retain, o.ids = min(t.QoS, r.m.qos), t.RetainAsPublished && r.m.retain, t.Identifiers
	return o
}

// toGroupLive delivers to one connected member of a shared subscription that may have
// it. It says whether there was one.
func (r *route) toGroupLive(g *topic.Group[*session], o copyOf, may func(*session) bool) bool {
	members := g.Members()
	start := g.Next()
	for i := range members {
		m := &members[(start+i)%len(members)]
		me, ok := m.Owner.shares(g, r.m.topic)
		if !ok || !may(m.Owner) {
			continue
		}
		o.me, o.qos, o.retain, o.ids = me, min(m.QoS, r.m.qos), m.RetainAsPublished && r.m.retain, nil
		if m.Identifier > 0 {
			o.ids = []uint32{m.Identifier}
		}
		if m.Owner.deliverLive(r, o, nil) {
			return true
		}
	}
	return false
}

// parcel is a delivery whose outcome somebody waits for: the best that became of its
// copies, told when the first is acknowledged or the last has ended. A nil parcel is
// nobody's.
type parcel struct {
	to   *outcomes
	done func(Outcome)

	mu   sync.Mutex
	open int // copies that have not ended, and the sender's own hold
	best Outcome
	told bool
}

// hold takes one more share.
func (p *parcel) hold() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open++
}

// end gives up a share of which this became. It may be called under locks.
func (p *parcel) end(became Outcome) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.open--
	p.best = max(p.best, became)
	tell := !p.told && (p.open == 0 || p.best == Acked)
	p.told = p.told || tell
	best := p.best
	p.mu.Unlock()
	if tell && p.done != nil {
		p.to.add(outcome{p.done, best})
	}
}

// outcome is what somebody is to be told.
type outcome struct {
	done   func(Outcome)
	became Outcome
}

// outcomes has them told by a loop of its own, since what becomes of a message is
// found out under locks. There are never more than deliveries under way, which the
// queues of sessions bound.
type outcomes struct {
	wake chan struct{}

	mu  sync.Mutex
	all []outcome
}

func newOutcomes() *outcomes { return &outcomes{wake: make(chan struct{}, 1)} }

func (o *outcomes) add(x outcome) {
	o.mu.Lock()
	o.all = append(o.all, x)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default: // the loop has been woken and not looked yet
	}
}

func (o *outcomes) take() []outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.all
	o.all = nil
	return all
}

// runOutcomes is the loop that tells them.
func (b *Broker) runOutcomes(ctx context.Context) error {
	for {
		b.tellOutcomes()
		select {
		case <-ctx.Done():
			return nil
		case <-b.outcomes.wake:
		}
	}
}

func (b *Broker) tellOutcomes() {
	for _, x := range b.outcomes.take() {
		if err := lifecycle.Guard(func() error { x.done(x.became); return nil }); err != nil {
			b.panicked(err)
		}
	}
}
