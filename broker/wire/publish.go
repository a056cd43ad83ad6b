package wire

import "github.com/mochi-mqtt/server/v2/packets"

// PublishPacket is a client's PUBLISH (section 3.3).
type PublishPacket struct {
	Topic       string // empty only with an alias
	ID          uint16 // never 0 with QoS 1 and 2, 0 with QoS 0
	QoS         byte
	Dup, Retain bool
	HasAlias    bool
	Alias       uint16 // never 0 with HasAlias; its maximum is for the session to check
	HasExpiry   bool
	Expiry      uint32 // seconds
	ContentType string

	// Props are the properties to forward, in wire form without their length and
	// in the order they came (MQTT-3.3.2-18): payload format, content type,
	// response topic, correlation data, user properties. Nil when there are none.
	Props   []byte
	Payload []byte
}

// Publish decodes a PUBLISH. It does not allocate, but for a property block from
// whose middle an expiry or alias is cut, when it is the largest so far.
func (d *Decoder) Publish(head byte, body []byte, version byte) (*PublishPacket, error) {
	if head>>4 != Publish {
		return nil, malformed("the packet is not a PUBLISH")
	}
	if e := checkPublishFlags(head & 0x0f); e != nil {
		return nil, e
	}
	qos := head >> 1 & 3
	c := cursor{b: body}
	size := d.walkPublish(&c, qos, version)
	if c.err != nil {
		return nil, c.err
	}
	// The codec reads topic, identifier and payload, as of 3.1.1: the properties are
	// walked already, and stand before the payload.
	d.pk.ProtocolVersion = version5 - 1
	d.pk.FixedHeader = packets.FixedHeader{Type: Publish, Qos: qos}
	d.pk.PacketID = 0
	if e := d.run(Publish, body); e != nil {
		return nil, e
	}
	p := &d.publish
	*p = PublishPacket{
		Topic:   d.pk.TopicName,
		ID:      d.pk.PacketID,
		QoS:     qos,
		Dup:     head&8 != 0,
		Retain:  head&1 != 0,
		Payload: d.pk.Payload[size:],
	}
	if d.props.seen != 0 {
		d.publishValues(p)
	}
	return p, nil
}

// walkPublish checks a PUBLISH up to its payload, but for the topic's UTF-8, which
// the codec checks. It returns the size of the properties with their length.
func (d *Decoder) walkPublish(c *cursor, qos, version byte) int {
	topic := c.block()
	if hasWildcard(topic) {
		c.fail(violation("a topic name holds a wildcard"))
	}
	if qos > 0 {
		c.packetID()
	}
	d.props.reset()
	from := c.off
	if version >= version5 {
		d.props.read(c, publishProps)
		if d.props.has(packets.PropSubscriptionIdentifier) {
			c.fail(violation("a client's PUBLISH carries a subscription identifier"))
		}
	}
	if len(topic) == 0 && !d.props.has(packets.PropTopicAlias) {
		c.fail(violation("a PUBLISH has neither topic nor topic alias"))
	}
	return c.off - from
}

func (d *Decoder) publishValues(p *PublishPacket) {
	from := &d.props
	p.HasAlias = from.has(packets.PropTopicAlias)
	p.Alias = uint16(from.num(packets.PropTopicAlias, 0))
	p.HasExpiry = from.has(packets.PropMessageExpiryInterval)
	p.Expiry = from.num(packets.PropMessageExpiryInterval, 0)
	p.ContentType = from.text(packets.PropContentType)
	p.Props = from.without(packets.PropTopicAlias, packets.PropMessageExpiryInterval)
}
