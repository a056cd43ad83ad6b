package broker

import (
	"encoding/binary"
	"fmt"
	"net"
)

const refusedTooLarge, refusedTopic = "too_large", "topic"

// rejectPacket ends the connection because of a packet that the gate stopped.
func (c *conn) rejectPacket() error {
	v := c.flaw
	switch v.flaw {
	case flawTooLarge:
		c.rejectTooLarge(v)
	case flawMalformed:
		c.bye(codeMalformed, "malformed packet", causeProtocol)
	default:
		c.cut(causeProtocol)
	}
	return net.ErrClosed
}

func (c *conn) rejectTooLarge(v verdict) {
	c.b.metrics.refused.WithLabelValues(refusedTooLarge).Inc()
	limit := c.gate.max
	if !c.known.Load() {
		c.cut(causeTooLarge)
		return
	}
	why := fmt.Sprintf("a packet of %d bytes is over the maximum of %d", v.size, limit)
	if id := c.rights.who.Device; id != "" {
		topic, _, _ := c.rights.own(string(v.body))
		c.b.sink.Refuse(Message{Device: id, Topic: topic}, refusedTooLarge, why, v.size)
	}
	c.bye(codeTooLarge, why, causeTooLarge)
}

// peekTopic returns the topic of a PUBLISH from what has come of it, empty when
// it has not come whole or is no topic to show.
func peekTopic(v verdict) string {
	if v.head&0xf0 != headPublish || len(v.body) < 2 {
		return ""
	}
	n := int(binary.BigEndian.Uint16(v.body))
	if n > len(v.body)-2 || n > maxTopicBytes {
		return ""
	}
	topic := string(v.body[2 : 2+n])
	if !validText(topic) {
		return ""
	}
	return topic
}
