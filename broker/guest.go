package broker

import (
	"strconv"
	"sync/atomic"
	"time"

	"muster/broker/topic"
	"muster/broker/wire"
)

// Bounds on guests, who are nobody's device yet (Identity.Place).
const (
	maxGuests   = 1000        // connected at once
	maxRequests = 8           // provisioning requests of one connection
	guestIdle   = time.Minute // without a request, after which who connects to be provisioned is cut
	sampleRate  = 10          // samples of one connection that are kept, per second
)

var causeIdle = cause{"idle", "no provisioning request for a minute"}

// guest is what a connection in a place other than Normal has.
type guest struct {
	samples  bucket       // of the reader
	requests int          // of the reader
	asked    atomic.Int64 // when it connected or asked last, unix milliseconds
}

// admitGuest lets one more guest in. It says false when there are enough.
func (c *conn) admitGuest() bool {
	if c.b.guests.Add(1) > maxGuests {
		c.b.guests.Add(-1)
		return false
	}
	c.guest = new(guest)
	c.guest.asked.Store(c.b.clock.Load())
	return true
}

// alone gives the session of a guest a key that no other connection has: guests share
// a name, and must not take each other's session over by a client id.
func (s *session) alone(n uint64) { s.key += "\x00" + strconv.FormatUint(n, 10) }

// handAside gives a request or a sample to the sink and acknowledges it, whatever
// becomes of it: the answer to a request is a reply, and a client in quarantine is to
// go on.
func (c *conn) handAside(sc *scratch, p *wire.PublishPacket, dst destination) error {
	why, over := c.guestLimit(dst.kind)
	if over != nil {
		return over
	}
	if why == "" {
		sc.kicks.flush(c.b) // Accept may block
		m := c.taken(p, dst)
		if p.Topic == provisionRequestTB && dst.kind == KindRequest {
			m.Ask = provisionAsked(p.Payload)
		}
		if err := c.b.sink.Accept(life{c}, m); err != nil {
			why = "sink"
		}
	}
	if why != "" {
		c.b.metrics.dropped.WithLabelValues(why).Inc()
	}
	if p.QoS == 0 {
		return nil
	}
	token, ok := c.reserve(sc, p.ID, p.QoS, nil)
	if !ok {
		return c.abandon(p)
	}
	c.settle(&sc.kicks, token, nil)
	return nil
}

// guestLimit says why a guest's message is dropped, or ends the connection of one that
// asks too often.
func (c *conn) guestLimit(kind Kind) (why string, over error) {
	g := c.guest
	if g == nil {
		return "", nil
	}
	if kind == KindSample {
		if g.samples.take(c.b, Rate{Messages: sampleRate, Bytes: defaultBytes}, wire.Publish<<4, 0, 0) > 0 {
			g.samples.messages++ // what is dropped takes nothing
			return "quarantine", nil
		}
		return "", nil
	}
	g.asked.Store(c.b.clock.Load())
	if g.requests++; g.requests > maxRequests {
		return "", c.bye(wire.CodeQuota, "too many provisioning requests on one connection", causeRate)
	}
	return "", nil
}

// idleDue returns when a guest that does not ask is cut, 0 for never.
func (c *conn) idleDue() int64 {
	if c.guest == nil || c.allowed.Load().who.Place != Provisioning {
		return 0
	}
	return c.guest.asked.Load() + guestIdle.Milliseconds()
}

// Origin implements Remote.
func (c *conn) Origin() Origin {
	return Origin{Identity: c.allowed.Load().who, ClientID: c.sess.clientID, Peer: c.login.Peer, Listener: c.login.Listener}
}

// Reply implements Remote.
func (c *conn) Reply(name string, payload []byte) bool {
	canonical, rest, own := c.allowed.Load().own(name)
	m := &message{topic: canonical, payload: payload, qos: 1}
	m.own()
	o, hit := copyOf{}, false
	subs := c.sess.state.Load().subs
	for i := range subs {
		x := &subs[i]
		if x.group != "" || !x.hears(name, canonical, rest, own) {
			continue
		}
		o.take(x, m)
		hit = true
	}
	if !hit {
		return false
	}
	var k kicks
	r := route{b: c.b, m: m, kicks: &k, now: c.b.clock.Load()}
	took := c.sess.deliverLive(&r, o, c)
	k.flush(c.b)
	return took
}

// Answer implements Remote.
func (c *conn) Answer(a Answer) Answered {
	if c.pressed() {
		return AnswerLater
	}
	rights := c.allowed.Load()
	canonical, rest, own := rights.own(a.Topic)
	m := &message{topic: canonical, payload: a.Payload, owned: true} // QoS 0: nobody keeps it
	m.props = wire.AppendUser(wire.AppendRequest(nil, "", "", []byte(a.Correlation)), a.User)
	o, hit := copyOf{}, false
	for _, x := range c.sess.state.Load().subs {
		if x.group != "" || !x.hears(a.Topic, canonical, rest, own) && !x.hearsFor(rights, canonical) {
			continue
		}
		o.take(&x, m)
		hit = true
	}
	if !hit {
		return AnswerGone
	}
	var k kicks
	r := route{b: c.b, m: m, kicks: &k, now: c.b.clock.Load()}
	became := c.sess.answer(&r, &o, c)
	k.flush(c.b)
	switch became {
	case sentOK, sentPressed:
		return AnswerSent
	case sentFull:
		return AnswerLater
	case sentTooLarge:
		return AnswerTooLarge
	default:
		return AnswerGone
	}
}

// answer sends a copy of QoS 0 to the session's connection, if that is only.
func (s *session) answer(r *route, o *copyOf, only *conn) sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.conn != only {
		return sentNever
	}
	return s.sendOnce(r, o)
}

// hearsFor says whether a gateway's subscription to topics of all its children is for a
// topic of one of them.
func (x *subscription) hearsFor(r *rights, canonical string) bool {
	id, rest, ok := splitDevice(canonical)
	return ok && x.kids && r.isParentOf(id) && x.meansChild(rest)
}

// hears says whether a reply at a topic, which own has split, is for the subscription.
func (x *subscription) hears(name, canonical, rest string, own bool) bool {
	switch {
	case x.tb != nil:
		return topic.Matches(x.tb.Filter, name) || x.tb.HearsPart(name)
	case x.kids: // replies are for who asked
		return false
	case x.own:
		return own && topic.Matches(x.filter, rest)
	}
	return topic.Matches(x.filter, canonical)
}
