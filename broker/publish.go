package broker

import (
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
	"muster/internal/lifecycle"
)

// delivery is a message on its way to subscribers.
type delivery struct {
	topic   string
	payload []byte
	qos     byte
	retain  bool
	props   *packets.Properties // MQTT 5, else nil
	origin  string              // the publishing session's key, for No Local
	version byte
}

// publish handles a PUBLISH. It runs on the connection's own goroutine, so that
// blocking in it slows that client and no other. An error ends the connection,
// which has been told why.
func (c *conn) publish(pk *packets.Packet) error {
	if v := pk.PublishValidate(maxAliases); v != packets.CodeSuccess {
		c.bye(v.Code, v.Reason, causeProtocol)
		return packets.ErrRejectPacket
	}
	if !c.resolveAlias(pk) {
		c.bye(codeProtocolError, "a topic alias that was never set", causeProtocol)
		return packets.ErrRejectPacket
	}
	c.b.in[pk.FixedHeader.Qos].Add(1)
	if pk.FixedHeader.Qos == 2 {
		if again, err := c.seenBefore(pk.PacketID); again || err != nil {
			return err
		}
	}
	dst := c.destination(pk.TopicName)
	switch dst.place {
	case placeSink:
		return c.hand(pk, dst)
	case placeRelay:
		return c.relay(pk, dst.topic)
	default:
		return c.refuse(pk, dst.why)
	}
}

// resolveAlias gives a PUBLISH the topic that its alias stands for.
func (c *conn) resolveAlias(pk *packets.Packet) bool {
	p := &pk.Properties
	if !p.TopicAliasFlag {
		return true
	}
	if pk.TopicName == "" {
		pk.TopicName = c.aliases[p.TopicAlias]
		return pk.TopicName != ""
	}
	if c.aliases == nil {
		c.aliases = make(map[uint16]string)
	}
	c.aliases[p.TopicAlias] = strings.Clone(pk.TopicName)
	return true
}

// seenBefore handles a QoS 2 PUBLISH whose packet id was not released yet.
func (c *conn) seenBefore(id uint16) (again bool, err error) {
	switch c.qos2.arrive(id, c) {
	case stagePending: // its PUBREC will leave when it is due
		return true, nil
	case stageKept:
		c.out.add(c.dialect.appendAck(nil, headPubrec, id, codeSuccess, ""))
		return true, nil
	case stageFull:
		c.bye(codeReceiveMaximum, "too many QoS 2 messages that were not released", causeProtocol)
		return true, packets.ErrRejectPacket
	default:
		return false, nil
	}
}

// destination asks the rights, unless the topic is the same as last time: most
// devices have one.
func (c *conn) destination(topic string) destination {
	if topic != c.lastRaw || topic == "" {
		raw := strings.Clone(topic) // topic aliases its packet
		c.lastRaw, c.lastDst = raw, c.rights.publish(raw)
	}
	return c.lastDst
}

// hand gives a message to the sink, whose answer acknowledges it.
func (c *conn) hand(pk *packets.Packet, dst destination) error {
	m := Message{
		Device: dst.device, Topic: dst.topic, Payload: pk.Payload,
		ContentType: pk.Properties.ContentType, QoS: pk.FixedHeader.Qos,
	}
	var d *delivery
	if c.b.wanted(pk.FixedHeader.Retain) {
		d = c.copyOf(pk, dst.topic)
	}
	if m.QoS == 0 {
		if err := c.b.sink.Accept(c.ctx, m); err != nil {
			c.b.metrics.dropped.WithLabelValues("sink").Inc()
		} else if d != nil {
			c.b.deliver(d)
		}
		return nil
	}
	token, err := c.reserve(pk, d)
	if err != nil {
		return err
	}
	m.From, m.Token = c, token
	if err := c.b.sink.Accept(c.ctx, m); err != nil {
		c.Acked(token, err)
	}
	return nil
}

// relay delivers a message to subscribers and acknowledges it in its turn.
func (c *conn) relay(pk *packets.Packet, topic string) error {
	d := c.copyOf(pk, topic)
	if d.qos == 0 {
		c.b.deliver(d)
		return nil
	}
	token, err := c.reserve(pk, nil)
	if err != nil {
		return err
	}
	c.b.deliver(d)
	c.Acked(token, nil)
	return nil
}

// refuse keeps a message that must not be published as rejected, and acknowledges
// it so that it is not sent again.
func (c *conn) refuse(pk *packets.Packet, why string) error {
	c.b.refused(&c.rights, pk.TopicName, pk.Payload, why)
	if pk.FixedHeader.Qos == 0 {
		return nil
	}
	token, err := c.reserve(pk, nil)
	if err != nil {
		return err
	}
	c.Acked(token, muster.Errorf(muster.Forbidden, "%s", why))
	return nil
}

// reserve gives a QoS 1 or 2 message its place among the acknowledgements. d goes
// to subscribers once it is kept.
func (c *conn) reserve(pk *packets.Packet, d *delivery) (uint64, error) {
	token, ok := c.out.reserve(pk.PacketID, pk.FixedHeader.Qos, d)
	if ok {
		return token, nil
	}
	if pk.FixedHeader.Qos == 2 {
		c.qos2.abandon(pk.PacketID)
	}
	return 0, packets.ErrRejectPacket
}

// released handles a PUBREL.
func (c *conn) released(id uint16) {
	code := byte(codeIDNotFound)
	if c.qos2.release(id) {
		code = codeSuccess
	}
	c.out.add(c.dialect.appendAck(nil, headPubcomp, id, code, ""))
}

func (c *conn) copyOf(pk *packets.Packet, topic string) *delivery {
	d := &delivery{
		topic: topic, payload: pk.Payload, qos: pk.FixedHeader.Qos, retain: pk.FixedHeader.Retain,
		origin: c.key, version: c.dialect.version,
	}
	if c.dialect.version == 5 {
		props := pk.Properties
		props.TopicAlias, props.TopicAliasFlag = 0, false
		d.props = &props
	}
	return d
}

// refused counts a message with a topic that its client may not publish to, and
// keeps it where the device is known.
func (b *Broker) refused(r *rights, topic string, payload []byte, why string) {
	b.metrics.refused.WithLabelValues(refusedTopic).Inc()
	if id := r.who.Device; id != "" {
		topic, _, _ = r.own(topic)
		b.sink.Refuse(Message{Device: id, Topic: topic, Payload: payload}, refusedTopic, why, len(payload))
	}
}

// wanted says whether a message at a telemetry topic has to be delivered once it
// is kept: someone has a wide enough subscription, or it is to be retained.
func (b *Broker) wanted(retain bool) bool { return retain || b.taps.any.Load() }

// deliver hands a message to the sessions that subscribe to its topic. It never
// waits for a client.
func (b *Broker) deliver(d *delivery) {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: d.qos, Retain: d.retain && b.mayRetain(d)},
		TopicName:   d.topic,
		Payload:     d.payload,
	}
	if d.qos > 0 {
		pk.PacketID = standIn // checked by mochi, used by nobody
	}
	if d.props != nil {
		pk.Properties = *d.props
	}
	from := b.shadows.Get().(*mqtt.Client)
	defer b.shadows.Put(from)
	from.ID, from.Properties.ProtocolVersion = d.origin, d.version
	if err := b.srv.InjectPacket(from, pk); err != nil {
		b.metrics.dropped.WithLabelValues("invalid").Inc()
	}
}

// deliverSafely is deliver for goroutines that nothing else guards.
func (b *Broker) deliverSafely(d *delivery) {
	if err := lifecycle.Guard(func() error { b.deliver(d); return nil }); err != nil {
		b.panicked(err)
	}
}

// mayRetain says whether there is room to retain a message: at most MaxRetained
// topics have one. A message over that is delivered, and not retained.
func (b *Broker) mayRetain(d *delivery) bool {
	if len(d.payload) == 0 || b.srv.Topics.Retained.Len() < b.cfg.MaxRetained {
		return true
	}
	if _, ok := b.srv.Topics.Retained.Get(d.topic); ok {
		return true
	}
	b.metrics.dropped.WithLabelValues("retained").Inc()
	return false
}
