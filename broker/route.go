package broker

import (
	"context"

	"muster"
	"muster/broker/topic"
	"muster/internal/lifecycle"
)

// route takes one message to the sessions that subscribe to its topic. It never
// waits for a client.
type route struct {
	b     *Broker
	m     *message
	now   int64
	kicks *kicks
	kept  *stored   // nil while no kept session has it
	in    *received // where the QoS 2 id of the message is kept
	id    uint16
}

// run delivers and retains the message. It says whether done will be told when what
// was queued for kept sessions, and retained, is durable; else nothing was.
func (r *route) run(c *conn, done func(error)) bool {
	// Retained first: who subscribes meanwhile then finds it here or there.
	kept := r.m.retain && r.b.retained.keep(r.m, nil)
	r.toDevice()
	var hit *topic.Result[*session]
	if c != nil {
		hit = c.match(r.m.topic)
	} else {
		hit = r.b.index.Match(r.m.topic)
	}
	for i := range hit.Plain {
		r.toTarget(&hit.Plain[i])
	}
	for _, g := range hit.Shared {
		r.toGroup(g, nil)
	}
	return r.commit(kept, done)
}

// commit has written down what was queued for kept sessions and retained.
func (r *route) commit(kept bool, done func(error)) bool {
	var in *receipt
	if r.in != nil && r.kept != nil {
		in = r.in.save(r.id)
	}
	if r.kept != nil {
		r.b.commit(r.kept, in, done)
	} else if kept && done != nil {
		r.b.journal.Write(nothing(), nil, nil, done) // answers are in order
	}
	return r.kept != nil || kept
}

// match returns the subscriptions to name in the general index, remembering the
// last answer: most clients publish to one topic.
func (c *conn) match(name string) *topic.Result[*session] {
	if c.lastHit == nil || name != c.lastDst.topic || !c.b.index.Fresh(c.lastHit) {
		hit := c.b.index.Match(name)
		if name != c.lastDst.topic {
			return hit
		}
		c.lastHit = hit
	}
	return c.lastHit
}

// toDevice delivers to the device whose topic it is, and to its gateway, past the
// general index.
func (r *route) toDevice() {
	id, rest, ok := splitDevice(r.m.topic)
	if !ok || !isDown(rest) {
		return
	}
	for s := range r.b.sessions.of(ownerOf(id, "")) {
		s.deliverOwn(r, rest)
	}
	r.toGateway(id, rest)
}

// deliverOwn delivers a message at a topic of the session's own device, once.
func (s *session) deliverOwn(r *route, rest string) {
	o, hit := copyOf{}, false
	subs := s.state.Load().subs
	for i := range subs {
		x := &subs[i]
		if !x.own || x.group != "" || !topic.Matches(x.filter, rest) {
			continue
		}
		if x.tb != nil {
			s.deliverSpelled(r, x, copyOf{})
			continue
		}
		o.take(x, r.m)
		hit = true
	}
	if hit {
		s.deliver(r, o)
	}
}

// take makes a copy one for a subscription too.
func (o *copyOf) take(x *subscription, m *message) {
	o.qos = max(o.qos, min(x.QoS, m.qos))
	o.retain = o.retain || x.RetainAsPublished && m.retain
	o.me = o.me || x.me
	if x.Identifier > 0 {
		o.ids = append(o.ids, x.Identifier)
	}
}

func (r *route) toTarget(t *topic.Target[*session]) {
	if t.Owner == r.m.from && r.m.from != nil {
		own, ok := t.ForPublisher()
		if !ok {
			return
		}
		t = &own
	}
	t.Owner.deliver(r, copyOf{
		qos: min(t.QoS, r.m.qos), retain: t.RetainAsPublished && r.m.retain, ids: t.Identifiers,
	})
}

// toGroup delivers to one member of a shared subscription: the next that is
// connected, else the next whose session is kept. It never goes to except.
func (r *route) toGroup(g *topic.Group[*session], except *session) {
	members := g.Members()
	start, ok := g.Next(), false
	for _, online := range []bool{true, false} {
		for i := range members {
			m := &members[(start+i)%len(members)]
			if m.Owner == except || m.Owner.online() != online || !online && min(m.QoS, r.m.qos) == 0 {
				continue
			}
			o := copyOf{qos: min(m.QoS, r.m.qos), retain: m.RetainAsPublished && r.m.retain, group: g}
			if o.me, ok = m.Owner.shares(g, r.m.topic); !ok {
				continue
			}
			if m.Identifier > 0 {
				o.ids = []uint32{m.Identifier}
			}
			if m.Owner.deliver(r, o) {
				return
			}
		}
	}
	r.b.metrics.dropped.WithLabelValues("no_member").Inc()
}

// shares says whether a message at name may go to the session as a member of g, and
// whether it is spelled devices/me/... then.
func (s *session) shares(g *topic.Group[*session], name string) (me, ok bool) {
	subs := s.state.Load().subs
	for i := range subs {
		x := &subs[i]
		if x.group != g.Name() || !x.own || s.fullFilter(x) != g.Filter() {
			continue
		}
		_, rest, _ := splitDevice(name)
		return x.me, isDown(rest)
	}
	return false, true
}

// deliver routes a message nobody waits for. c is its publisher's connection, or
// nil.
func (b *Broker) deliver(m *message, k *kicks, c *conn) {
	r := route{b: b, m: m, kicks: k, now: b.clock.Load()}
	r.run(c, nil)
}

// deliverSafely is deliver for goroutines that nothing else guards and that wait
// for no client.
func (b *Broker) deliverSafely(m *message) {
	var k kicks
	if err := lifecycle.Guard(func() error { b.deliver(m, &k, nil); return nil }); err != nil {
		b.panicked(err)
	}
	k.flush(b)
}

// redirect gives copies of a shared subscription that a session could not deliver to
// other members. Those that nobody takes are dropped and counted.
func (b *Broker) redirect(from *session, entries []entry) {
	var k kicks
	for i := range entries {
		e := &entries[i]
		r := route{b: b, m: e.m, kicks: &k, now: b.clock.Load()}
		if g := b.groupNow(e); g != nil {
			r.toGroup(g, from)
		} else {
			b.metrics.dropped.WithLabelValues("no_member").Inc()
		}
		if r.kept != nil {
			b.commit(r.kept, nil, nil)
		}
		b.settleTarget(e.target)
	}
	k.flush(b)
}

// groupNow returns e's shared subscription as it is now, nil when it has no members.
func (b *Broker) groupNow(e *entry) *topic.Group[*session] {
	for _, g := range b.index.Match(e.m.topic).Shared {
		if g.Name() == e.group.Name() && g.Filter() == e.group.Filter() {
			return g
		}
	}
	return nil
}

// copied is telemetry that the sink has kept and subscribers are to get. Its PUBACK
// waits until what kept sessions get of it is durable too.
type copied struct {
	m     *message
	to    settler // nil for a last will
	token uint64
}

// maxLater is how many of them wait to be routed, so that the sink's goroutine never
// routes. A publisher whose message finds no room sends it again.
const maxLater = 65_536

func (b *Broker) deliverLater(x copied) {
	select {
	case b.later <- x:
	default:
		b.metrics.dropped.WithLabelValues("later").Inc()
		if x.to != nil {
			x.to.settle(nil, x.token, muster.Errorf(muster.Busy, "too many messages wait for subscribers"))
		}
	}
}

// laterBatch is how many are routed before their receivers are written to.
const laterBatch = 256

// routeLater is the loop that routes them.
func (b *Broker) routeLater(ctx context.Context) error {
	var k kicks
	for {
		select {
		case <-ctx.Done():
			return nil
		case x := <-b.later:
			if err := b.journal.Room(ctx); err != nil {
				return nil //nolint:nilerr // this is how the loop ends
			}
			b.routeCopied(x, &k)
		}
		for range min(len(b.later), laterBatch) {
			b.routeCopied(<-b.later, &k)
		}
		k.flush(b)
		clear(k.behind)
		k.behind = k.behind[:0]
	}
}

func (b *Broker) routeCopied(x copied, k *kicks) {
	settle := func(k *kicks, err error) {
		if x.to != nil {
			x.to.settle(k, x.token, unavailable(err))
		}
	}
	waits := false
	err := lifecycle.Guard(func() error {
		r := route{b: b, m: x.m, kicks: k, now: b.clock.Load()}
		waits = r.run(nil, func(err error) { settle(nil, err) })
		return nil
	})
	if err != nil {
		b.panicked(err)
	}
	if !waits {
		settle(k, nil)
	}
}
