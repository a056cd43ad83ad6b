package wire

import (
	"encoding/binary"
	"unsafe"

	"github.com/mochi-mqtt/server/v2/packets"
)

// shape is how the value of a property is written (section 2.2.2.2).
type shape uint8

const (
	shapeNone  shape = iota // no property of this number is for a client to send
	shapeFlag               // one byte, 0 or 1
	shapeTwo                // two byte integer
	shapeFour               // four byte integer
	shapeCount              // variable byte integer
	shapeText               // UTF-8 string
	shapeTopic              // UTF-8 string that is a topic name
	shapeBlob               // binary data
	shapePair               // two UTF-8 strings
)

// lastProperty is the highest property number that a client may send.
const lastProperty = packets.PropMaximumPacketSize

// shapes says how each property that a client may send is written.
var shapes = [lastProperty + 1]shape{
	packets.PropPayloadFormat:          shapeFlag,
	packets.PropMessageExpiryInterval:  shapeFour,
	packets.PropContentType:            shapeText,
	packets.PropResponseTopic:          shapeTopic,
	packets.PropCorrelationData:        shapeBlob,
	packets.PropSubscriptionIdentifier: shapeCount,
	packets.PropSessionExpiryInterval:  shapeFour,
	packets.PropAuthenticationMethod:   shapeText,
	packets.PropAuthenticationData:     shapeBlob,
	packets.PropRequestProblemInfo:     shapeFlag,
	packets.PropWillDelayInterval:      shapeFour,
	packets.PropRequestResponseInfo:    shapeFlag,
	packets.PropReasonString:           shapeText,
	packets.PropReceiveMaximum:         shapeTwo,
	packets.PropTopicAliasMaximum:      shapeTwo,
	packets.PropTopicAlias:             shapeTwo,
	packets.PropUser:                   shapePair,
	packets.PropMaximumPacketSize:      shapeFour,
}

// The properties that each packet of a client may have (table 2-4), one bit each.
// A subscription identifier belongs to a PUBLISH, but not to a client's, which is
// another error than a property that does not belong there at all.
const (
	messageProps = 1<<packets.PropPayloadFormat | 1<<packets.PropMessageExpiryInterval | 1<<packets.PropContentType |
		1<<packets.PropResponseTopic | 1<<packets.PropCorrelationData | 1<<packets.PropUser
	publishProps = messageProps | 1<<packets.PropTopicAlias | 1<<packets.PropSubscriptionIdentifier
	willProps    = messageProps | 1<<packets.PropWillDelayInterval
	connectProps = 1<<packets.PropSessionExpiryInterval | 1<<packets.PropReceiveMaximum | 1<<packets.PropMaximumPacketSize |
		1<<packets.PropTopicAliasMaximum | 1<<packets.PropRequestResponseInfo | 1<<packets.PropRequestProblemInfo |
		1<<packets.PropAuthenticationMethod | 1<<packets.PropAuthenticationData | 1<<packets.PropUser
	ackProps         = 1<<packets.PropReasonString | 1<<packets.PropUser
	subscribeProps   = 1<<packets.PropSubscriptionIdentifier | 1<<packets.PropUser
	unsubscribeProps = 1 << packets.PropUser
	disconnectProps  = 1<<packets.PropSessionExpiryInterval | 1<<packets.PropReasonString | 1<<packets.PropUser
)

// properties is one property block that has been walked. The codec's own reading
// allocates, takes duplicates, and loses whether a value of zero was there.
type properties struct {
	seen  uint64 // one bit for each property that came
	block []byte // the properties without their length
	slots [lastProperty + 1]slot
	kept  []byte // scratch of without
}

// slot is where a property stands. It holds a value only when seen has its bit.
type slot struct {
	at  uint32 // where its number stands in the block
	val uint32 // its value; of a text, where its length stands in the block
}

func (p *properties) reset() { p.seen, p.block = 0, nil }

// read walks the property block at c. valid has a bit for each property that may
// be there; each at most once, but for user properties, and MaxProperties in all.
func (p *properties) read(c *cursor, valid uint64) {
	p.reset()
	p.block = c.take(c.varint())
	in := cursor{b: p.block}
	for n := 0; in.err == nil && in.left() > 0; n++ {
		if n == MaxProperties {
			in.fail(quota("the packet has too many properties"))
		}
		p.one(&in, valid)
	}
	if in.err != nil {
		c.fail(in.err)
	}
}

func (p *properties) one(c *cursor, valid uint64) {
	at := c.off
	id := c.uint8()
	if id > lastProperty || valid>>id&1 == 0 {
		c.fail(malformed("a property does not belong to this packet"))
		return
	}
	bit := uint64(1) << id
	if p.seen&bit != 0 && id != packets.PropUser {
		c.fail(violation("a property came twice"))
		return
	}
	p.seen |= bit
	val := uint32(c.off)
	switch shapes[id] {
	case shapeFlag:
		val = uint32(c.uint8())
	case shapeTwo:
		val = uint32(c.uint16())
	case shapeFour:
		val = c.uint32()
	case shapeCount:
		val = uint32(c.varint())
	case shapeText:
		c.text()
	case shapeTopic:
		c.topic()
	case shapeBlob:
		c.block()
	case shapePair:
		c.text()
		c.text()
	case shapeNone:
		c.fail(malformed("a property does not belong to this packet"))
	}
	p.slots[id] = slot{at: uint32(at), val: val}
	if c.err == nil {
		c.err = checkValue(id, val)
	}
}

// checkValue refuses the values that sections 3.1.2.11, 3.3.2.3 and 3.8.2.1 exclude.
func checkValue(id byte, val uint32) *Error {
	switch id {
	case packets.PropPayloadFormat, packets.PropRequestProblemInfo, packets.PropRequestResponseInfo:
		if val > 1 {
			return violation("a property of 0 or 1 is neither")
		}
	case packets.PropReceiveMaximum, packets.PropMaximumPacketSize, packets.PropSubscriptionIdentifier:
		if val == 0 {
			return violation("receive maximum, maximum packet size or subscription identifier is 0")
		}
	case packets.PropTopicAlias:
		if val == 0 {
			return &Error{Code: CodeBadAlias, Reason: "the topic alias is 0"}
		}
	}
	return nil
}

func (p *properties) has(id byte) bool { return p.seen>>id&1 != 0 }

// num returns a number, and absent when it did not come.
func (p *properties) num(id byte, absent uint32) uint32 {
	if p.has(id) {
		return p.slots[id].val
	}
	return absent
}

// text returns a text, which aliases the body, and "" when it did not come.
func (p *properties) text(id byte) string {
	if !p.has(id) {
		return ""
	}
	b := p.block[p.slots[id].val:]
	return alias(b[2 : 2+int(binary.BigEndian.Uint16(b))])
}

// without returns the block without two properties that are numbers. It aliases
// the body unless what stays lies in several pieces. It is nil when nothing stays.
func (p *properties) without(one, other byte) []byte {
	if len(p.block) == 0 {
		return nil
	}
	from, to := p.span(one)
	from2, to2 := p.span(other)
	if to2 < to { // an absent span ends at 0, so it comes first
		from, to, from2, to2 = from2, to2, from, to
	}
	before, between, after := p.block[:from:from], p.block[to:from2:from2], p.block[to2:]
	switch {
	case len(before)+len(between)+len(after) == 0:
		return nil
	case len(between)+len(after) == 0:
		return before
	case len(before)+len(after) == 0:
		return between
	case len(before)+len(between) == 0:
		return after
	}
	p.kept = append(append(append(p.kept[:0], before...), between...), after...)
	return p.kept
}

// span returns where a number stands in the block, with its property number; an
// empty span at the front when it did not come.
func (p *properties) span(id byte) (from, to int) {
	if !p.has(id) {
		return 0, 0
	}
	from = int(p.slots[id].at)
	if shapes[id] == shapeTwo {
		return from, from + 3
	}
	return from, from + 5
}

// alias returns b as a string without copying it, as the codec does with all of
// its strings. It is valid as long as the body, as Decoder says.
func alias(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b))
}
