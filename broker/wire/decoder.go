package wire

import (
	"github.com/mochi-mqtt/server/v2/packets"
)

// maxKept is how many bytes of scratch a Decoder keeps over a Reset.
const maxKept = 4096

// Decoder decodes bodies, as Split returns them. Everything that it returns
// aliases the body and the Decoder, and is valid until the next call or until the
// body is overwritten: clone what stays longer. The zero Decoder is ready.
//
// It is about 2 KB and not for concurrent use: lend one to a connection while it
// has bytes to decode, and not to an idle one. Every error it returns is an *Error.
type Decoder struct {
	pk    packets.Packet
	props properties

	connect     ConnectPacket
	will        Will
	publish     PublishPacket
	subscribe   SubscribePacket
	unsubscribe UnsubscribePacket
	disconnect  DisconnectPacket
}

// Reset forgets the last body, so that a Decoder that waits for its next use
// holds no buffer of another's; it also lets go of scratch that grew large.
func (d *Decoder) Reset() {
	kept, subs, filters := d.props.kept[:0], d.subscribe.Subs, d.unsubscribe.Filters
	clear(subs[:cap(subs)])
	clear(filters[:cap(filters)])
	*d = Decoder{}
	if cap(kept) <= maxKept {
		d.props.kept = kept
	}
	if cap(subs) <= maxKept/32 {
		d.subscribe.Subs = subs[:0]
	}
	if cap(filters) <= maxKept/32 {
		d.unsubscribe.Filters = filters[:0]
	}
}

// run lets the codec decode a body of a packet type into d.pk. The guards come
// first; what the codec refuses or panics over all the same is malformed.
func (d *Decoder) run(packetType byte, body []byte) (err *Error) {
	defer func() {
		if recover() != nil {
			err = malformed("the codec cannot decode the packet")
		}
	}()
	var cause error
	switch packetType {
	case Connect:
		cause = d.pk.ConnectDecode(body)
	case Publish:
		cause = d.pk.PublishDecode(body)
	case Puback, Pubrec, Pubrel, Pubcomp:
		cause = d.pk.PubackDecode(body) // all four have one form
	case Subscribe:
		cause = d.pk.SubscribeDecode(body)
	case Unsubscribe:
		cause = d.pk.UnsubscribeDecode(body)
	case Disconnect:
		cause = d.pk.DisconnectDecode(body)
	}
	if cause != nil {
		return malformed(cause.Error())
	}
	return nil
}

// Ack decodes PUBACK, PUBREC, PUBREL and PUBCOMP. code is CodeSuccess when the
// packet carries none, and always before MQTT 5. A packet identifier of 0
// (MQTT-2.2.1-3) and a code that the type does not have (MQTT-3.4.2-1, 3.5.2-1,
// 3.6.2-1, 3.7.2-1) are protocol errors.
func (d *Decoder) Ack(head byte, body []byte, version byte) (id uint16, code byte, err error) {
	packetType := head >> 4
	if packetType < Puback || packetType > Pubcomp {
		return 0, 0, malformed("the packet is not an acknowledgement")
	}
	if e := checkHead(head); e != nil {
		return 0, 0, e
	}
	c := cursor{b: body}
	c.packetID()
	if version >= version5 && c.left() > 0 {
		code = c.uint8()
		if !ackHas(packetType, code) {
			c.fail(violation("the reason code is not one of this acknowledgement"))
		}
		if c.left() > 0 {
			d.props.read(&c, ackProps)
		}
	}
	c.end()
	if c.err != nil {
		return 0, 0, c.err
	}
	d.pk.ProtocolVersion = version
	d.pk.ReasonCode = CodeSuccess
	// Remaining 3 at most: the properties are walked, and nothing is wanted of them.
	d.pk.FixedHeader = packets.FixedHeader{Type: packetType, Remaining: min(len(body), 3)}
	if e := d.run(packetType, body); e != nil {
		return 0, 0, e
	}
	return d.pk.PacketID, d.pk.ReasonCode, nil
}

// packetID checks a packet identifier, which is never 0 (MQTT-2.2.1-3).
func (c *cursor) packetID() {
	if c.uint16() == 0 {
		c.fail(violation("the packet identifier is 0"))
	}
}

// ackHas tells whether an acknowledgement of a type may carry code.
func ackHas(packetType, code byte) bool {
	if packetType == Pubrel || packetType == Pubcomp {
		return code == CodeSuccess || code == CodeIDNotFound
	}
	switch code {
	case CodeSuccess, CodeNoMatchingSubscribers, CodeUnspecified, CodeImplementation, CodeNotAuthorized,
		CodeBadTopic, CodeIDInUse, CodeQuota, CodeBadPayload:
		return true
	}
	return false
}

// DisconnectPacket is a client's DISCONNECT (section 3.14). SessionExpiry is in
// seconds and holds when HasExpiry is set; that it may not be other than 0 when
// CONNECT's was 0 is for the session to check (section 3.14.2.2.2).
type DisconnectPacket struct {
	Code          byte
	HasExpiry     bool
	SessionExpiry uint32
}

// Disconnect decodes a DISCONNECT. A reason code that only a server sends is a
// protocol error.
func (d *Decoder) Disconnect(body []byte, version byte) (*DisconnectPacket, error) {
	d.props.reset()
	c := cursor{b: body}
	if version >= version5 && c.left() > 0 {
		if !clientMayEndWith(c.uint8()) {
			c.fail(violation("the reason code is not one that a client disconnects with"))
		}
		if c.left() > 0 {
			d.props.read(&c, disconnectProps)
		}
	}
	c.end()
	if c.err != nil {
		return nil, c.err
	}
	d.disconnect = DisconnectPacket{}
	if len(body) == 0 {
		return &d.disconnect, nil
	}
	d.pk.ProtocolVersion = version
	// Remaining 2, whatever it is: the codec overlooks a code that stands alone, and
	// the properties are walked.
	d.pk.FixedHeader = packets.FixedHeader{Type: Disconnect, Remaining: 2}
	if e := d.run(Disconnect, body); e != nil {
		return nil, e
	}
	d.disconnect = DisconnectPacket{
		Code:          d.pk.ReasonCode,
		HasExpiry:     d.props.has(packets.PropSessionExpiryInterval),
		SessionExpiry: d.props.num(packets.PropSessionExpiryInterval, 0),
	}
	return &d.disconnect, nil
}

// clientMayEndWith tells whether a client may send DISCONNECT with code (section
// 3.14.2.1).
func clientMayEndWith(code byte) bool {
	switch code {
	case CodeSuccess, CodeDisconnectWithWill, CodeUnspecified, CodeMalformed, CodeProtocolError, CodeImplementation,
		CodeBadTopic, CodeReceiveMaximum, CodeBadAlias, CodeTooLarge, CodeRate, CodeQuota, CodeAdministrative, CodeBadPayload:
		return true
	}
	return false
}

// CheckPing checks the body of a PINGREQ, which has none.
func CheckPing(body []byte) error {
	if len(body) > 0 {
		return malformed("a PINGREQ has a body")
	}
	return nil
}
