package wire

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Out is one PUBLISH to a client (section 3.3).
type Out struct {
	Topic       string // at most 65,535 bytes; empty only with an alias the client knows
	ID          uint16 // written with QoS 1 and 2
	QoS         byte
	Dup, Retain bool   // Dup is written with QoS 1 and 2
	Alias       uint16 // 0 is none
	HasExpiry   bool
	Expiry      uint32   // seconds that are left
	Identifiers []uint32 // of the subscriptions that match, 1 to 268,435,455 each
	Props       []byte   // as PublishPacket has them
	Payload     []byte
}

// AppendPublish appends a PUBLISH, before MQTT 5 without properties. Limit is not
// looked at: the caller asks PublishSize first, and drops what is over it
// (MQTT-3.1.2-25). It appends nothing when the topic is over 65,535 bytes or the
// packet larger than any may be. It does not allocate when b has room.
func (d Dialect) AppendPublish(b []byte, o *Out) []byte {
	props, remaining := d.publishLengths(o)
	if remaining < 0 {
		return b
	}
	b = slices.Grow(b, packetSize(remaining))
	b = appendVarint(append(b, o.head()), remaining)
	b = appendText(b, o.Topic)
	if o.QoS > 0 {
		b = binary.BigEndian.AppendUint16(b, o.ID)
	}
	if d.five() {
		b = o.appendProps(b, props)
	}
	return append(b, o.Payload...)
}

// PublishSize returns how many bytes AppendPublish appends.
func (d Dialect) PublishSize(o *Out) int {
	if _, remaining := d.publishLengths(o); remaining >= 0 {
		return packetSize(remaining)
	}
	return 0
}

func (o *Out) head() byte {
	head := Publish<<4 | o.QoS<<1
	if o.Dup && o.QoS > 0 {
		head |= 8
	}
	if o.Retain {
		head |= 1
	}
	return head
}

// publishLengths returns the size of the properties without their length, and the
// Remaining Length; the latter is -1 when the packet cannot be written.
func (d Dialect) publishLengths(o *Out) (props, remaining int) {
	if len(o.Topic) > math.MaxUint16 {
		return 0, -1
	}
	remaining = 2 + len(o.Topic) + len(o.Payload)
	if o.QoS > 0 {
		remaining += 2
	}
	if d.five() {
		props = len(o.Props)
		if o.Alias > 0 {
			props += 3
		}
		if o.HasExpiry {
			props += 5
		}
		for _, id := range o.Identifiers {
			props += 1 + varintSize(int(id))
		}
		remaining += varintSize(props) + props
	}
	if remaining > maxRemaining {
		return 0, -1
	}
	return props, remaining
}

func (o *Out) appendProps(b []byte, size int) []byte {
	b = appendVarint(b, size)
	if o.Alias > 0 {
		b = binary.BigEndian.AppendUint16(append(b, packets.PropTopicAlias), o.Alias)
	}
	if o.HasExpiry {
		b = binary.BigEndian.AppendUint32(append(b, packets.PropMessageExpiryInterval), o.Expiry)
	}
	for _, id := range o.Identifiers {
		b = appendVarint(append(b, packets.PropSubscriptionIdentifier), int(id))
	}
	return append(b, o.Props...)
}

// AppendUser appends user properties (section 3.3.2.3.7), in the form of Out.Props. No text
// may have more than 65,535 bytes.
func AppendUser(b []byte, pairs [][2]string) []byte {
	for _, p := range pairs {
		b = appendText(appendText(append(b, packets.PropUser), p[0]), p[1])
	}
	return b
}

// Correlation returns the correlation data among properties in the form of
// PublishPacket.Props, nil when there is none.
func Correlation(props []byte) []byte {
	c := cursor{b: props}
	for c.err == nil && c.left() > 0 {
		switch c.uint8() {
		case packets.PropPayloadFormat:
			c.uint8()
		case packets.PropCorrelationData:
			return c.block()
		case packets.PropUser:
			c.block()
			c.block()
		default: // content type and response topic
			c.block()
		}
	}
	return nil
}

// AppendRequest appends the properties of a message that wants an answer (sections
// 3.3.2.3.5 to 3.3.2.3.9), in the form of Out.Props: content type, response topic and
// correlation data, those that are not empty. None may have more than 65,535 bytes.
func AppendRequest(b []byte, contentType, response string, correlation []byte) []byte {
	if contentType != "" {
		b = appendText(append(b, packets.PropContentType), contentType)
	}
	if response != "" {
		b = appendText(append(b, packets.PropResponseTopic), response)
	}
	if len(correlation) > 0 {
		b = appendText(append(b, packets.PropCorrelationData), string(correlation))
	}
	return b
}
