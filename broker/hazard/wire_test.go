package hazard

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Packet types (MQTT 5, section 2.1.2).
const (
	connect = 1 + iota
	connack
	publish
	puback
	pubrec
	pubrel
	pubcomp
	subscribe
	suback
	unsubscribe
	unsuback
	pingreq
	pingresp
	disconnect
)

// Properties that the tests write or look at (MQTT 5, section 2.2.2.2).
const (
	propSessionExpiry  = 0x11
	propAssignedID     = 0x12
	propWillDelay      = 0x18
	propReason         = 0x1f
	propReceiveMaximum = 0x21
	propAliasMaximum   = 0x22
	propAlias          = 0x23
	propMaximumPacket  = 0x27
)

// maxServerPacket bounds what a test reads into memory at once.
const maxServerPacket = 1 << 20

var errWire = errors.New("the server sent what is no MQTT")

// packet is what a server sent.
type packet struct {
	kind, flags byte
	size        int // bytes with the fixed header
	id          uint16
	topic       string
	payload     []byte
	code        byte   // of CONNACK, DISCONNECT and the acknowledgements
	codes       []byte // of SUBACK and UNSUBACK
	present     bool
	numbers     map[byte]uint32 // properties, nil without
	texts       map[byte]string
}

func (p packet) qos() byte    { return p.flags >> 1 & 3 }
func (p packet) dup() bool    { return p.flags&8 != 0 }
func (p packet) retain() bool { return p.flags&1 != 0 }

func (p packet) String() string {
	return fmt.Sprintf("packet of type %d, flags %#x, id %d, code %#x %#x, topic %q, %d bytes", p.kind, p.flags, p.id, p.code, p.codes, p.topic, p.size)
}

// readPacket reads one packet of a server that speaks version to us.
func readPacket(r *bufio.Reader, version byte) (packet, error) {
	head, err := r.ReadByte()
	if err != nil {
		return packet{}, err
	}
	length, header := 0, 1
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return packet{}, err
		}
		header++
		length |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
		if shift == 21 {
			return packet{}, fmt.Errorf("%w: a length of five bytes", errWire)
		}
	}
	if length > maxServerPacket {
		return packet{}, fmt.Errorf("%w: a packet of %d bytes", errWire, length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return packet{}, err
	}
	p := packet{kind: head >> 4, flags: head & 0x0f, size: header + length}
	rest := &cursor{b: body}
	p.decode(rest, version)
	if rest.bad {
		return p, fmt.Errorf("%w: %v of %x", errWire, p, body)
	}
	return p, nil
}

func (p *packet) decode(c *cursor, version byte) {
	switch p.kind {
	case connack:
		p.present, p.code = c.byte() == 1, c.byte()
		p.properties(c, version)
	case publish:
		p.topic = string(c.bytes(int(c.uint16())))
		if p.qos() > 0 {
			p.id = c.uint16()
		}
		p.properties(c, version)
		p.payload = c.rest()
	case puback, pubrec, pubrel, pubcomp:
		p.id = c.uint16()
		if version == 5 && len(c.b) > 0 {
			p.code = c.byte()
		}
		if version == 5 && len(c.b) > 0 {
			p.properties(c, version)
		}
	case suback, unsuback:
		p.id = c.uint16()
		p.properties(c, version)
		p.codes = c.rest()
	case disconnect:
		if len(c.b) > 0 {
			p.code = c.byte()
		}
		if len(c.b) > 0 {
			p.properties(c, version)
		}
	case pingresp:
	default:
		c.bad = true
	}
	c.bad = c.bad || len(c.b) > 0
}

// properties reads a property list (MQTT 5, section 2.2.2).
func (p *packet) properties(c *cursor, version byte) {
	if version < 5 {
		return
	}
	list := &cursor{b: c.bytes(c.varint())}
	if len(list.b) > 0 {
		p.numbers, p.texts = make(map[byte]uint32), make(map[byte]string)
	}
	for len(list.b) > 0 && !list.bad {
		switch id := list.byte(); id {
		case 0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2a:
			p.numbers[id] = uint32(list.byte())
		case 0x13, propReceiveMaximum, propAliasMaximum, propAlias:
			p.numbers[id] = uint32(list.uint16())
		case 0x02, propSessionExpiry, propWillDelay, propMaximumPacket:
			p.numbers[id] = binary.BigEndian.Uint32(append(list.bytes(4), 0, 0, 0, 0))
		case 0x0b:
			p.numbers[id] = uint32(list.varint())
		case 0x03, 0x08, 0x09, propAssignedID, 0x15, 0x16, 0x1a, 0x1c, propReason:
			p.texts[id] = string(list.bytes(int(list.uint16())))
		case 0x26:
			key := string(list.bytes(int(list.uint16())))
			p.texts[id] += key + "=" + string(list.bytes(int(list.uint16()))) + ";"
		default:
			list.bad = true
		}
	}
	c.bad = c.bad || list.bad
}

// cursor takes bytes off a body; bad says that there were too few.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) bytes(n int) []byte {
	if n > len(c.b) {
		c.bad, n = true, len(c.b)
	}
	taken := c.b[:n:n]
	c.b = c.b[n:]
	return taken
}

func (c *cursor) byte() byte {
	if b := c.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 { return uint16(c.byte())<<8 | uint16(c.byte()) }
func (c *cursor) rest() []byte   { return c.bytes(len(c.b)) }

func (c *cursor) varint() int {
	n := 0
	for shift := 0; shift <= 21; shift += 7 {
		b := c.byte()
		n |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			return n
		}
	}
	c.bad = true
	return 0
}

// frame puts a fixed header before body.
func frame(head byte, body []byte) []byte {
	return append(varint([]byte{head}, len(body)), body...)
}

func varint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// props appends a property list, when version has them.
func props(b []byte, version byte, list []byte) []byte {
	if version < 5 {
		return b
	}
	return append(varint(b, len(list)), list...)
}

// login is a CONNECT.
type login struct {
	id, user       string
	keep           bool // the session outlives its connection
	keepAlive      uint16
	receiveMaximum uint16 // MQTT 5, 0 for none; so are the next
	maximumPacket  uint32
	aliasMaximum   uint16
	will           *will
}

type will struct {
	topic, payload string
	qos            byte
	retain         bool
	delay          uint32 // seconds, MQTT 5
}

func (l login) bytes(version byte) []byte {
	flags := byte(0x80)
	if !l.keep {
		flags |= 0x02
	}
	if w := l.will; w != nil {
		flags |= 0x04 | w.qos<<3
		if w.retain {
			flags |= 0x20
		}
	}
	b := append(text(nil, "MQTT"), version, flags)
	b = binary.BigEndian.AppendUint16(b, l.keepAlive)
	var list []byte
	if l.keep {
		list = binary.BigEndian.AppendUint32(append(list, propSessionExpiry), 600)
	}
	if l.receiveMaximum > 0 {
		list = binary.BigEndian.AppendUint16(append(list, propReceiveMaximum), l.receiveMaximum)
	}
	if l.maximumPacket > 0 {
		list = binary.BigEndian.AppendUint32(append(list, propMaximumPacket), l.maximumPacket)
	}
	if l.aliasMaximum > 0 {
		list = binary.BigEndian.AppendUint16(append(list, propAliasMaximum), l.aliasMaximum)
	}
	b = text(props(b, version, list), l.id)
	if w := l.will; w != nil {
		var list []byte
		if w.delay > 0 {
			list = binary.BigEndian.AppendUint32(append(list, propWillDelay), w.delay)
		}
		b = text(text(props(b, version, list), w.topic), w.payload)
	}
	return frame(connect<<4, text(b, l.user))
}

// message is a PUBLISH of a client.
type message struct {
	topic, payload string
	qos            byte
	id             uint16
	dup, retain    bool
	alias          int // MQTT 5; -1 for alias 0, 0 for none
}

func (m message) bytes(version byte) []byte {
	head := byte(publish<<4) | m.qos<<1
	if m.dup {
		head |= 8
	}
	if m.retain {
		head |= 1
	}
	b := text(nil, m.topic)
	if m.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, m.id)
	}
	var list []byte
	if m.alias != 0 {
		list = binary.BigEndian.AppendUint16([]byte{propAlias}, uint16(max(m.alias, 0)))
	}
	return frame(head, append(props(b, version, list), m.payload...))
}

// ack returns a PUBACK, PUBREC, PUBREL or PUBCOMP, the same in all versions.
func ack(kind byte, id uint16) []byte {
	head := kind << 4
	if kind == pubrel {
		head |= 2
	}
	return []byte{head, 2, byte(id >> 8), byte(id)}
}

func subscribeBytes(version byte, id uint16, qos byte, filters ...string) []byte {
	b := props(binary.BigEndian.AppendUint16(nil, id), version, nil)
	for _, f := range filters {
		b = append(text(b, f), qos)
	}
	return frame(subscribe<<4|2, b)
}

func unsubscribeBytes(version byte, id uint16, filters ...string) []byte {
	b := props(binary.BigEndian.AppendUint16(nil, id), version, nil)
	for _, f := range filters {
		b = text(b, f)
	}
	return frame(unsubscribe<<4|2, b)
}

func pingBytes() []byte    { return []byte{pingreq << 4, 0} }
func goodbyeBytes() []byte { return []byte{disconnect << 4, 0} }
