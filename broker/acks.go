package broker

import (
	"errors"

	"muster"
	"muster/broker/wire"
)

// pending is a QoS 1 or 2 message from the client that has not been acknowledged.
type pending struct {
	id   uint16
	qos  byte
	done bool
	err  error    // when done: why it is refused
	copy *message // goes to subscribers once it is kept; nil when nobody wants it
}

// codeOf maps an error's kind to the reason code of a PUBACK or PUBREC. Anything
// that is not refused for good is refused for now: the device sends it again.
func codeOf(err error) byte {
	if err == nil {
		return wire.CodeSuccess
	}
	if _, ok := errors.AsType[*exceeded](err); ok {
		return wire.CodeQuota
	}
	switch muster.KindOf(err) {
	case muster.Invalid, muster.TooLarge:
		return wire.CodeBadPayload
	case muster.Forbidden, muster.Unauthorized, muster.NotFound:
		return wire.CodeNotAuthorized
	default:
		return wire.CodeQuota
	}
}

// exceeded is an error that Exceeded made.
type exceeded struct{ error }

func (e *exceeded) Unwrap() error { return e.error }

// Exceeded marks an error by which a message is refused for good since its sender sends too
// many of its kind. MQTT 5 clients are told 0x97 (quota exceeded); earlier ones get their
// acknowledgement, as for all that is refused for good, and are not cut.
func Exceeded(err error) error { return &exceeded{err} }

// forNow says whether a message is refused for now, to be sent again.
func forNow(err error) bool {
	_, good := errors.AsType[*exceeded](err)
	return !good && codeOf(err) == wire.CodeQuota
}

// reserve gives a QoS 1 or 2 message its place among the acknowledgements and
// returns its token. It waits while the window is full or the client does not read,
// and says false when the connection ends meanwhile. copied goes to subscribers
// once the message is kept.
func (c *conn) reserve(sc *scratch, id uint16, qos byte, copied *message) (uint64, bool) {
	if c.overWindow() {
		_ = c.bye(wire.CodeReceiveMaximum, "more messages than the Receive Maximum without an acknowledgement", causeProtocol)
		return 0, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.acks.len() >= c.b.cfg.Window || c.backlog() > softOut/4 {
		if c.closed.Load() || c.out.broken || c.out.sealed {
			return 0, false
		}
		c.await(sc)
	}
	c.acks.push(pending{id: id, qos: qos, copy: copied})
	return c.base + uint64(c.acks.len()-1), true
}

// overWindow says whether a MQTT 5 client sends more than it was told it may (4.9).
// 3.x clients are not told, and wait.
func (c *conn) overWindow() bool {
	if c.dialect.Version < v5 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acks.len() >= c.b.cfg.Window
}

// await waits for a change of acks or of the outbox. conn.mu must be held, and is
// let go of meanwhile.
func (c *conn) await(sc *scratch) {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	changed := c.changed
	c.mu.Unlock()
	sc.kicks.flush(c.b) // nobody else would, while this waits
	select {
	case <-changed:
	case <-c.ended():
	}
	c.mu.Lock()
}

// announce tells the reader of a change. conn.mu must be held.
func (c *conn) announce() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// Acked implements Acker. A message that subscribers want is acknowledged when it
// has been routed.
func (c *conn) Acked(token uint64, err error) {
	if err == nil {
		if m := c.takeCopy(token); m != nil {
			c.b.deliverLater(copied{m, c, token})
			return
		}
	}
	c.settle(nil, token, err)
}

// takeCopy takes the copy for subscribers of a message that is not decided yet.
func (c *conn) takeCopy(token uint64) (m *message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := token - c.base; i < uint64(c.acks.len()) {
		p := c.acks.at(int(i))
		m, p.copy = p.copy, nil
	}
	return m
}

// settle marks token's message as decided and lets every acknowledgement leave that
// is now first in order.
func (c *conn) settle(k *kicks, token uint64, err error) {
	c.mu.Lock()
	i := token - c.base
	if i >= uint64(c.acks.len()) || c.acks.at(int(i)).done {
		c.mu.Unlock()
		return // told twice, which an Acker need not survive but should
	}
	p := c.acks.at(int(i))
	p.done, p.err = true, err
	var left settled
	if i == 0 {
		left = c.advance(k)
	}
	c.mu.Unlock()
	for _, id := range left.received {
		c.recordReceived(id)
	}
	for _, r := range left.foreign {
		r.c.ackWith(k, wire.Pubrec, r.id, r.code, r.why)
	}
	if left.cut {
		c.cut(causeRefused)
	}
}

// settled is what has to be done, without the connection's lock, after messages
// were acknowledged.
type settled struct {
	received []uint16 // QoS 2 ids of a kept session, whose PUBREC waits until they are durable
	foreign  []foreign
	cut      bool // 3.1.1 has no other way to refuse for now
}

// foreign is a PUBREC for the connection that took the session over.
type foreign struct {
	c    *conn
	id   uint16
	code byte
	why  string
}

// advance takes decided messages off the front.
func (c *conn) advance(k *kicks) (left settled) {
	for c.acks.len() > 0 && c.acks.at(0).done {
		p := c.acks.pop()
		c.base++
		code := codeOf(p.err)
		if forNow(p.err) && c.dialect.Version < 5 {
			c.denied, left.cut = true, true
		}
		if p.qos == 2 {
			c.settleTwo(k, &p, code, &left)
			continue
		}
		if !c.denied {
			c.addLocked(k, func(b []byte) []byte { return c.dialect.AppendAck(b, wire.Puback, p.id, code, reasonOf(p.err)) })
		}
	}
	c.announce()
	return left
}

// settleTwo sends the PUBREC of a message, or has it sent where and when it is due.
func (c *conn) settleTwo(k *kicks, p *pending, code byte, left *settled) {
	// 3.1.1 cannot refuse for good: its client goes on to PUBREL.
	kept := code == wire.CodeSuccess || !forNow(p.err) && c.dialect.Version < 5
	to, write := c.sess.received.settle(p.id, kept)
	switch {
	case to == nil, c.denied:
	case write, kept && c.recording.Load() > 0: // PUBRECs keep their order (MQTT-4.6.0-3)
		c.recording.Add(1)
		left.received = append(left.received, p.id)
	case to != c:
		left.foreign = append(left.foreign, foreign{to, p.id, code, reasonOf(p.err)})
	default:
		c.addLocked(k, func(b []byte) []byte { return c.dialect.AppendAck(b, wire.Pubrec, p.id, code, reasonOf(p.err)) })
	}
}

// ackWith sends an acknowledgement.
func (c *conn) ackWith(k *kicks, kind byte, id uint16, code byte, why string) {
	c.add(k, func(b []byte) []byte { return c.dialect.AppendAck(b, kind, id, code, why) })
}

// acknowledge handles what the client says of messages that were sent to it, and
// its PUBREL.
func (c *conn) acknowledge(sc *scratch, kind byte, id uint16, code byte) {
	c.quiet = true
	s := c.sess
	switch kind {
	case wire.Puback:
		s.acked(id, false, code, &sc.kicks)
	case wire.Pubcomp:
		s.acked(id, true, code, &sc.kicks)
	case wire.Pubrec:
		release, known := s.got(id, code, &sc.kicks)
		switch {
		case release:
			c.ackWith(&sc.kicks, wire.Pubrel, id, wire.CodeSuccess, "")
		case !known && code < wire.CodeUnspecified:
			c.ackWith(&sc.kicks, wire.Pubrel, id, wire.CodeIDNotFound, "")
		}
	case wire.Pubrel:
		c.freed(sc, id)
	}
}

// reasonOf returns what a refused client may be told.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return muster.Public(err)
}
