package broker

import (
	"strings"

	"muster"
	"muster/broker/wire"
)

const (
	maxAliases                    = 16 // inbound topic aliases of one connection
	refusedTooLarge, refusedTopic = "too_large", "topic"
)

// publish handles a PUBLISH. Blocking in it slows that client and no other. An
// error ends the connection, which has been told why.
func (c *conn) publish(sc *scratch, p *wire.PublishPacket, size int) error {
	if err := c.resolveAlias(p); err != nil {
		return err
	}
	c.mu.Lock()
	c.stats.received++
	c.stats.bytesIn += uint64(size)
	c.mu.Unlock()
	c.b.in[p.QoS].Add(1)
	c.traffic.Received(1) // after the sum, which is never less
	if p.QoS == 2 {
		if again, err := c.seenBefore(sc, p.ID); again || err != nil {
			return err
		}
	}
	dst := c.destination(p.Topic)
	if dst.place == placeNone {
		dst = c.brought(sc, p.Topic, dst)
	}
	switch dst.place {
	case placeSink:
		return c.hand(sc, p, dst)
	case placeSpelled:
		return c.translate(sc, p, dst.topic)
	case placeAside:
		return c.handAside(sc, p, dst)
	case placeRelay:
		return c.relay(sc, p, dst.topic)
	default:
		return c.refuse(sc, p, dst.why)
	}
}

// resolveAlias gives a PUBLISH the topic that its alias stands for.
func (c *conn) resolveAlias(p *wire.PublishPacket) error {
	switch {
	case !p.HasAlias:
		return nil
	case p.Alias > maxAliases:
		return c.bye(wire.CodeBadAlias, "a topic alias above the maximum", causeProtocol)
	case p.Topic != "":
		if c.aliases == nil {
			c.aliases = make(map[uint16]string)
		}
		c.aliases[p.Alias] = strings.Clone(p.Topic)
		return nil
	}
	name, ok := c.aliases[p.Alias]
	if !ok {
		return c.bye(wire.CodeProtocolError, "a topic alias that was never set", causeProtocol)
	}
	p.Topic = name
	return nil
}

// seenBefore handles a QoS 2 PUBLISH whose packet id was not released yet.
func (c *conn) seenBefore(sc *scratch, id uint16) (again bool, err error) {
	switch c.sess.received.arrive(id, c) {
	case stagePending, stageFreed: // its PUBREC or PUBCOMP will leave when it is due
		return true, nil
	case stageKept:
		c.ackWith(&sc.kicks, wire.Pubrec, id, wire.CodeSuccess, "")
		return true, nil
	case stageFull:
		return true, c.bye(wire.CodeReceiveMaximum, "too many QoS 2 messages that were not released", causeProtocol)
	default:
		return false, nil
	}
}

// destination asks the rights, unless the topic is the same as last time: most
// devices have one. What an account is bound to may change with each message.
func (c *conn) destination(name string) destination {
	if r := c.allowed.Load(); name != c.lastRaw || name == "" || r != c.lastBy || r.who.May != nil {
		raw := strings.Clone(name) // name aliases its packet
		c.lastRaw, c.lastBy, c.lastDst, c.lastHit = raw, r, r.publish(raw), nil
	}
	return c.lastDst
}

// hand gives a message to the sink, whose answer acknowledges it.
func (c *conn) hand(sc *scratch, p *wire.PublishPacket, dst destination) error {
	m := c.taken(p, dst)
	var copied *message
	if p.Retain || c.wanted(dst.topic) {
		if !c.journalRoom(sc, p, dst.topic) {
			return c.abandon(p)
		}
		copied = c.messageOf(p, dst.topic)
		copied.own()
	}
	if m.QoS == 0 {
		if err := c.b.sink.Accept(life{c}, m); err != nil {
			c.b.metrics.dropped.WithLabelValues("sink").Inc()
		} else if copied != nil {
			c.b.deliver(copied, &sc.kicks, c)
		}
		return nil
	}
	token, ok := c.reserve(sc, p.ID, p.QoS, copied)
	if !ok {
		return c.abandon(p)
	}
	if c.quiet || len(sc.kicks.conns) > 0 { // Accept may block
		sc.kicks.flush(c.b)
		c.quiet = false
	}
	m.From, m.Token = c, token
	if err := c.b.sink.Accept(life{c}, m); err != nil {
		c.settle(&sc.kicks, token, err)
	}
	return nil
}

// taken makes the message that the sink gets. It aliases the packet.
func (c *conn) taken(p *wire.PublishPacket, dst destination) Message {
	m := Message{
		Kind: dst.kind, Device: dst.device, By: dst.by, Topic: dst.topic, Payload: p.Payload,
		ContentType: p.ContentType, QoS: p.QoS, Client: c,
	}
	if dst.kind == KindFirmwareGet {
		m.Correlation = string(wire.Correlation(p.Props))
	}
	return m
}

// abandon gives up a message for which the connection ended too early.
func (c *conn) abandon(p *wire.PublishPacket) error {
	if p.QoS == 2 {
		c.sess.received.abandon(p.ID)
	}
	return errGone
}

// relay delivers a message to subscribers and acknowledges it in its turn: at once,
// or when what was queued for kept sessions is durable.
func (c *conn) relay(sc *scratch, p *wire.PublishPacket, name string) error {
	if !c.journalRoom(sc, p, name) {
		return c.abandon(p)
	}
	if p.QoS == 0 {
		c.b.deliver(c.messageOf(p, name), &sc.kicks, c)
		return nil
	}
	token, ok := c.reserve(sc, p.ID, p.QoS, nil)
	if !ok {
		return c.abandon(p)
	}
	r := route{b: c.b, m: c.messageOf(p, name), kicks: &sc.kicks, now: c.b.clock.Load()}
	if p.QoS == 2 {
		r.in = c.sess.received
		r.id = p.ID
	}
	if !r.run(c, func(err error) { c.settle(nil, token, unavailable(err)) }) {
		c.settle(&sc.kicks, token, nil)
	}
	return nil
}

// journalRoom waits while the journal is full and the message needs it. It says
// false when the connection ends meanwhile. A message that clears a retained one
// makes room, and does not wait.
func (c *conn) journalRoom(sc *scratch, p *wire.PublishPacket, name string) bool {
	clears := p.Retain && len(p.Payload) == 0
	if !c.b.journal.Full() || clears || !p.Retain && (p.QoS == 0 || !c.reachesKept(name)) {
		return true
	}
	sc.kicks.flush(c.b)
	return c.b.journal.Room(life{c}) == nil
}

// reachesKept says whether a message at name may be queued for a kept session.
func (c *conn) reachesKept(name string) bool {
	hit := c.match(name)
	for i := range hit.Plain {
		if hit.Plain[i].Owner.outlives() {
			return true
		}
	}
	for _, g := range hit.Shared {
		for _, m := range g.Members() {
			if m.Owner.outlives() {
				return true
			}
		}
	}
	id, rest, ok := splitDevice(name)
	if !ok || !isDown(rest) {
		return false
	}
	for s := range c.b.sessions.of(ownerOf(id, "")) {
		if s.outlives() {
			return true
		}
	}
	return false
}

// outlives says whether the session outlives its connection.
func (s *session) outlives() bool { return s.state.Load().expiry > 0 }

// unavailable makes of the journal's error one that has the client send again.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return muster.Errorf(muster.Unavailable, "the server cannot keep messages now: %w", err)
}

// refuse keeps a message that must not be published as rejected, and acknowledges
// it so that it is not sent again.
func (c *conn) refuse(sc *scratch, p *wire.PublishPacket, why string) error {
	c.b.refused(c.allowed.Load(), p.Topic, p.Payload, why)
	if p.QoS == 0 {
		return nil
	}
	token, ok := c.reserve(sc, p.ID, p.QoS, nil)
	if !ok {
		return c.abandon(p)
	}
	c.settle(&sc.kicks, token, muster.Errorf(muster.Forbidden, "%s", why))
	return nil
}

// messageOf makes the message that goes to subscribers. It aliases the packet.
func (c *conn) messageOf(p *wire.PublishPacket, name string) *message {
	return &message{
		topic: name, payload: p.Payload, props: p.Props, qos: p.QoS, retain: p.Retain, from: c.sess,
		expires: expiry(p.HasExpiry, p.Expiry, c.b.clock.Load()),
	}
}

// wanted says whether a message for the sink has to be delivered once it is kept.
func (c *conn) wanted(name string) bool {
	hit := c.match(name)
	return len(hit.Plain)+len(hit.Shared) > 0
}

// refused counts a message with a topic that its client may not publish to, and
// keeps it where the device is known.
func (b *Broker) refused(r *rights, name string, payload []byte, why string) {
	b.metrics.refused.WithLabelValues(refusedTopic).Inc()
	if id := r.who.Device; id != "" {
		name, _, _ = r.own(name)
		b.sink.Refuse(Message{Device: id, Topic: name, Payload: payload}, refusedTopic, why, len(payload))
	}
}
