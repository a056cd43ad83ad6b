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
// its fixed header alone. data begins with it, size is its size. It waits, with nil,
// for the rest of the topic of one that is too large.
func (c *conn) flawed(sc *scratch, data []byte, size int, err error) error {
	e, ok := errors.AsType[*wire.Error](err)
	if !ok || e.Code != wire.CodeTooLarge {
		return c.protest(err)
	}
	name, whole := peekTopic(data)
	if c.known.Load() && !whole {
		return nil
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
		name, _, _ = r.own(name)
		c.b.sink.Refuse(Message{Device: id, Topic: name}, refusedTooLarge, why, size)
	}
	return c.bye(wire.CodeTooLarge, why, causeTooLarge)
}

// peekTopic returns the topic of a PUBLISH from what has come of it, empty when it is
// no topic to show. It says with false that the topic has not come whole.
func peekTopic(data []byte) (name string, whole bool) {
	if data[0]>>4 != wire.Publish {
		return "", true
	}
	_, n := binary.Uvarint(data[1:]) // the remaining length is coded like a varint
	if n <= 0 {
		return "", true
	}
	rest := data[1+n:]
	if len(rest) < 2 {
		return "", false
	}
	size := int(binary.BigEndian.Uint16(rest))
	if size > topic.MaxBytes {
		return "", true
	}
	if size > len(rest)-2 {
		return "", false
	}
	name = string(rest[2 : 2+size])
	if !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return "", true
	}
	return name, true
}
