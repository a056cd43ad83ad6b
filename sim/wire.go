package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MQTT 3.1.1, section 2.2.1: the packet types a publishing client meets, in the
// high four bits of the first byte.
const (
	typeConnack  = 0x20
	typePublish  = 0x30
	typePuback   = 0x40
	typePingresp = 0xd0

	flagDup = 0x08
)

var (
	pingreq    = []byte{0xc0, 0}
	disconnect = []byte{0xe0, 0}

	errProtocol = errors.New("the server broke the protocol")
)

// maxAnswer is the longest packet the server may send: a fleet subscribes to
// nothing, so only acks and ping answers come.
const maxAnswer = 16

// appendConnect appends a CONNECT packet (section 3.1). clean asks the server
// for no session.
func appendConnect(b []byte, clientID, user, pass string, clean bool, keepAlive uint16) []byte {
	flags := byte(0)
	if clean {
		flags |= 0x02
	}
	size := 10 + 2 + len(clientID)
	if user != "" {
		flags |= 0x80
		size += 2 + len(user)
	}
	if pass != "" {
		flags |= 0x40
		size += 2 + len(pass)
	}
	b = append(b, 0x10)
	b = binary.AppendUvarint(b, uint64(size)) // section 2.2.3 is the same code
	b = appendString(b, "MQTT")
	b = append(b, 4, flags)
	b = binary.BigEndian.AppendUint16(b, keepAlive)
	b = appendString(b, clientID)
	if user != "" {
		b = appendString(b, user)
	}
	if pass != "" {
		b = appendString(b, pass)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendPublish appends a PUBLISH packet (section 3.3). topic carries its length
// in front, as appendString writes it; id is left out at QoS 0.
func appendPublish(b []byte, qos byte, topic []byte, id uint16, payload []byte) []byte {
	size := len(topic) + len(payload)
	if qos > 0 {
		size += 2
	}
	b = append(b, typePublish|qos<<1)
	b = binary.AppendUvarint(b, uint64(size))
	b = append(b, topic...)
	if qos > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return append(b, payload...)
}

// answer is one packet from the server; body aliases the read buffer.
type answer struct {
	kind byte
	body []byte
}

// nextAnswer takes the first packet off b. ok is false when b holds only a part
// of it.
func nextAnswer(b []byte) (a answer, rest []byte, ok bool, err error) {
	if len(b) < 2 {
		return answer{}, b, false, nil
	}
	if b[1] > maxAnswer {
		return answer{}, b, false, fmt.Errorf("packet of type %#x with more than %d bytes: %w", b[0], maxAnswer, errProtocol)
	}
	end := 2 + int(b[1])
	if len(b) < end {
		return answer{}, b, false, nil
	}
	return answer{kind: b[0] & 0xf0, body: b[2:end]}, b[end:], true, nil
}

// connackError returns why a CONNACK (section 3.2) is not a welcome, nil when it
// is one.
func connackError(a answer) error {
	if a.kind != typeConnack || len(a.body) != 2 {
		return fmt.Errorf("packet of type %#x in place of CONNACK: %w", a.kind, errProtocol)
	}
	reasons := [...]string{
		1: "protocol version refused",
		2: "client id refused",
		3: "server unavailable",
		4: "bad user name or password",
		5: "not authorized",
	}
	switch code := int(a.body[1]); {
	case code == 0:
		return nil
	case code < len(reasons):
		return errors.New("connection refused: " + reasons[code])
	default:
		return fmt.Errorf("connection refused with code %d: %w", code, errProtocol)
	}
}
