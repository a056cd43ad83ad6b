package wire

import (
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

// The subscription options (section 3.8.3.1).
const (
	optionQoS       = 0x03
	optionNoLocal   = 0x04
	optionReserved  = 0xc0
	optionReserved3 = 0xfc // before MQTT 5 there is only the QoS
)

// Sub is one subscription that a client asks for. Filter is not empty and valid
// UTF-8; that its wildcards stand where they may is for the topic index to check.
type Sub struct {
	Filter                     string
	QoS                        byte // 0 to 2
	NoLocal, RetainAsPublished bool
	RetainHandling             byte // 0 to 2
}

// SubscribePacket is a SUBSCRIBE (section 3.8). Identifier is 0 when it has none.
// Subs holds 1 to MaxFilters.
type SubscribePacket struct {
	ID         uint16
	Identifier uint32
	Subs       []Sub
}

// UnsubscribePacket is an UNSUBSCRIBE (section 3.10), with 1 to MaxFilters
// filters.
type UnsubscribePacket struct {
	ID      uint16
	Filters []string
}

// Subscribe decodes a SUBSCRIBE.
func (d *Decoder) Subscribe(body []byte, version byte) (*SubscribePacket, error) {
	c := cursor{b: body}
	c.packetID()
	d.props.reset()
	if version >= version5 {
		d.props.read(&c, subscribeProps)
	}
	n := 0
	for ; c.err == nil && c.left() > 0; n++ {
		filter := c.filter(n)
		if e := checkOptions(c.uint8(), filter, version); e != nil {
			c.fail(e)
		}
	}
	if n == 0 {
		c.fail(violation("a SUBSCRIBE has no filter"))
	}
	if c.err != nil {
		return nil, c.err
	}
	d.pk = packets.Packet{ProtocolVersion: version, FixedHeader: packets.FixedHeader{Type: Subscribe, Qos: 1, Remaining: len(body)}}
	if e := d.run(Subscribe, body); e != nil {
		return nil, e
	}
	p := &d.subscribe
	p.ID, p.Identifier, p.Subs = d.pk.PacketID, d.props.num(packets.PropSubscriptionIdentifier, 0), p.Subs[:0]
	for i := range d.pk.Filters {
		f := &d.pk.Filters[i]
		p.Subs = append(p.Subs, Sub{
			Filter: f.Filter, QoS: f.Qos, NoLocal: f.NoLocal,
			RetainAsPublished: f.RetainAsPublished, RetainHandling: f.RetainHandling,
		})
	}
	d.pk.Filters = nil
	return p, nil
}

// filter reads the topic filter that follows n others: a string of at least one
// character (MQTT-4.7.3-1).
func (c *cursor) filter(n int) string {
	if n == MaxFilters {
		c.fail(quota("the packet has too many topic filters"))
	}
	b := c.text()
	if len(b) == 0 {
		c.fail(violation("a topic filter is empty"))
	}
	return alias(b)
}

// checkOptions checks one filter's options (section 3.8.3.1; MQTT-3.8.3-4 and -5).
func checkOptions(options byte, filter string, version byte) *Error {
	reserved := byte(optionReserved)
	if version < version5 {
		reserved = optionReserved3
	}
	switch {
	case options&reserved != 0:
		return malformed("reserved bits of the subscription options are set")
	case options&optionQoS == 3:
		return violation("a subscription asks for QoS 3")
	case options>>4&3 == 3:
		return violation("the retain handling is 3")
	case options&optionNoLocal != 0 && strings.HasPrefix(filter, "$share/"):
		return violation("a shared subscription asks for No Local")
	}
	return nil
}

// Unsubscribe decodes an UNSUBSCRIBE.
func (d *Decoder) Unsubscribe(body []byte, version byte) (*UnsubscribePacket, error) {
	c := cursor{b: body}
	c.packetID()
	if version >= version5 {
		d.props.read(&c, unsubscribeProps)
	}
	n := 0
	for ; c.err == nil && c.left() > 0; n++ {
		c.filter(n)
	}
	if n == 0 {
		c.fail(violation("an UNSUBSCRIBE has no filter"))
	}
	if c.err != nil {
		return nil, c.err
	}
	d.pk = packets.Packet{ProtocolVersion: version, FixedHeader: packets.FixedHeader{Type: Unsubscribe, Qos: 1, Remaining: len(body)}}
	if e := d.run(Unsubscribe, body); e != nil {
		return nil, e
	}
	p := &d.unsubscribe
	p.ID, p.Filters = d.pk.PacketID, p.Filters[:0]
	for i := range d.pk.Filters {
		p.Filters = append(p.Filters, d.pk.Filters[i].Filter)
	}
	d.pk.Filters = nil
	return p, nil
}
