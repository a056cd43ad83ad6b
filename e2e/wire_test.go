package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

// The first bytes of packets.
const (
	connackPacket    = 0x20
	pubackPacket     = 0x40
	pubrecPacket     = 0x50
	pubrelPacket     = 0x62
	pubcompPacket    = 0x70
	subackPacket     = 0x90
	pingrespPacket   = 0xd0
	disconnectPacket = 0xe0
)

// errRefused is a CONNACK that says no.
var errRefused = errors.New("refused")

// wire is one MQTT connection in bytes, so that a test knows which packets it saw.
type wire struct {
	net.Conn
	in      *bufio.Reader
	version byte // 4 is MQTT 3.1.1
}

func dialWire(ctx context.Context, addr string, version byte) (*wire, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	c, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return newWire(c, version), nil
}

func newWire(c net.Conn, version byte) *wire {
	return &wire{Conn: c, in: bufio.NewReaderSize(c, 64<<10), version: version}
}

// packet returns the next packet, whose body is valid until the next call. A
// deadline that passes takes nothing away.
func (w *wire) packet() (head byte, body []byte, err error) {
	size, n := uint64(0), 0
	for have := 2; n <= 0; have++ {
		b, err := w.in.Peek(have)
		if err != nil {
			return 0, nil, err
		}
		if size, n = binary.Uvarint(b[1:]); have > 5 && n <= 0 {
			return 0, nil, errors.New("a remaining length of more than 4 bytes")
		}
	}
	all := 1 + n + int(size)
	b, err := w.in.Peek(all)
	if err != nil {
		return 0, nil, err
	}
	_, err = w.in.Discard(all)
	return b[0], b[1+n:], err
}

// connect sends CONNECT and returns CONNACK's session present. A session that is
// kept is kept for an hour at least.
func (w *wire) connect(id, user string, keep bool) (present bool, err error) {
	flags := byte(0x80)
	if !keep {
		flags |= 0x02
	}
	b := []byte{0, 4, 'M', 'Q', 'T', 'T', w.version, flags, 0, 60}
	switch {
	case w.version < 5:
	case keep:
		b = append(b, 5, 0x11, 0, 0, 0x0e, 0x10) // session expiry interval
	default:
		b = append(b, 0)
	}
	b = appendString(appendString(b, id), user)
	if err := w.SetDeadline(time.Now().Add(silence)); err != nil {
		return false, err
	}
	if _, err := w.Write(framed(0x10, b)); err != nil {
		return false, err
	}
	head, body, err := w.packet()
	if err != nil {
		return false, err
	}
	if head != connackPacket || len(body) < 2 {
		return false, fmt.Errorf("% x % x is no CONNACK", head, body)
	}
	if body[1] != 0 {
		return false, fmt.Errorf("%w: CONNACK with %#x", errRefused, body[1])
	}
	return body[0] == 1, nil
}

// subscribePacket subscribes to one filter.
func (w *wire) subscribePacket(id uint16, filter string, qos byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	if w.version == 5 {
		b = append(b, 0)
	}
	return framed(0x82, append(appendString(b, filter), qos))
}

// publishPacket publishes; id counts for nothing at QoS 0.
func (w *wire) publishPacket(id uint16, topic, payload string, qos byte, dup, retain bool) []byte {
	head := 0x30 | qos<<1
	if dup {
		head |= 0x08
	}
	if retain {
		head |= 0x01
	}
	b := appendString(nil, topic)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	if w.version == 5 {
		b = append(b, 0)
	}
	return framed(head, append(b, payload...))
}

// publication is a PUBLISH that was received.
type publication struct {
	topic, payload string
	id             uint16
	qos            byte
}

func (w *wire) parsePublish(head byte, body []byte) (publication, error) {
	p := publication{qos: head >> 1 & 3}
	if len(body) < 2 {
		return p, errors.New("a PUBLISH without a topic")
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	need := at
	if p.qos > 0 {
		need += 2
	}
	if len(body) < need {
		return p, errors.New("a PUBLISH that ends in its topic")
	}
	p.topic = string(body[2:at])
	if p.qos > 0 {
		p.id = binary.BigEndian.Uint16(body[at:])
	}
	rest := body[need:]
	if w.version == 5 {
		size, n := binary.Uvarint(rest)
		if n <= 0 || uint64(len(rest)-n) < size {
			return p, errors.New("a PUBLISH that ends in its properties")
		}
		rest = rest[n+int(size):]
	}
	p.payload = string(rest)
	return p, nil
}

// ack is a packet of an id alone: PUBACK and its like, without a reason.
func ack(head byte, id uint16) []byte { return []byte{head, 2, byte(id >> 8), byte(id)} }

func framed(head byte, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{head}, uint64(len(body))), body...)
}

// timedOut says that a deadline passed.
func timedOut(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
