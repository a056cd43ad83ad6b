package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"muster/broker/topic"
	"muster/broker/wire"
)

// flawed ends the connection because of a packet that must not be read, seen from
// its fixed header alone. data begins with it, size is its size.
func (c *conn) flawed(sc *scratch, data []byte, size int, err error) error {
	e, ok := errors.AsType[*wire.Error](err)
	if !ok || e.Code != wire.CodeTooLarge {
		return c.protest(err)
	}
	sc.kicks.flush(c.b)
	c.b.metrics.refused.WithLabelValues(refusedTooLarge).Inc()
	if !c.known.Load() {
		c.cut(causeTooLarge)
		return errGone
	}
	why := fmt.Sprintf("a packet of %d bytes is over the maximum of %d", size, c.limit())
	r := c.allowed.Load()
	if id := r.who.Device; id != "" {
		name, _, _ := r.own(peekTopic(data))
		c.b.sink.Refuse(Message{Device: id, Topic: name}, refusedTooLarge, why, size)
	}
	return c.bye(wire.CodeTooLarge, why, causeTooLarge)
}

// peekTopic returns the topic of a PUBLISH from what has come of it, empty when it
// has not come whole or is no topic to show.
func peekTopic(data []byte) string {
	if data[0]>>4 != wire.Publish {
		return ""
	}
	_, n := binary.Uvarint(data[1:]) // the remaining length is coded like a varint
	if n <= 0 || len(data) < 3+n {
		return ""
	}
	rest := data[1+n:]
	size := int(binary.BigEndian.Uint16(rest))
	if size > len(rest)-2 || size > topic.MaxBytes {
		return ""
	}
	name := string(rest[2 : 2+size])
	if !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return ""
	}
	return name
}
