package wire

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// cursor reads a body from its front. The first rule that is broken stays in err,
// and every read after it answers zero values, so that a walk asks once, at its end.
type cursor struct {
	b   []byte
	off int
	err *Error
}

func (c *cursor) left() int { return len(c.b) - c.off }

func (c *cursor) fail(e *Error) {
	if c.err == nil {
		c.err = e
	}
}

// take returns the next n bytes, which alias the body.
func (c *cursor) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n > c.left() {
		c.err = malformed("the packet ends too early")
		return nil
	}
	from := c.off
	c.off += n
	return c.b[from:c.off:c.off]
}

func (c *cursor) uint8() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// varint reads a variable byte integer (section 1.5.5).
func (c *cursor) varint() int {
	if c.err != nil {
		return 0
	}
	value, width := varint(c.b[c.off:])
	if width <= 0 {
		c.err = malformed("a variable byte integer is not valid")
		return 0
	}
	c.off += width
	return value
}

// block reads binary data: two bytes of length and so many bytes (section 1.5.6).
func (c *cursor) block() []byte { return c.take(int(c.uint16())) }

// text reads a UTF-8 string (section 1.5.4): no surrogates, no U+0000.
func (c *cursor) text() []byte {
	b := c.block()
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		c.fail(malformed("a string is not valid UTF-8 or holds U+0000"))
	}
	return b
}

// topic reads a topic name that must stand: a string of at least
// one character (MQTT-4.7.3-1) without wildcards (MQTT-3.3.2-2, 3.3.2-14).
func (c *cursor) topic() {
	b := c.text()
	if c.err == nil && len(b) == 0 {
		c.fail(violation("a topic name is empty"))
	}
	if hasWildcard(b) {
		c.fail(violation("a topic name holds a wildcard"))
	}
}

// end refuses what follows the packet's last field.
func (c *cursor) end() {
	if c.err == nil && c.left() > 0 {
		c.err = malformed("bytes follow the packet's last field")
	}
}

func hasWildcard(b []byte) bool {
	return bytes.IndexByte(b, '+') >= 0 || bytes.IndexByte(b, '#') >= 0
}
