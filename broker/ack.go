package broker

import (
	"unicode/utf8"

	"muster"
)

// Packet types that the broker writes by itself, as first bytes.
const (
	headConnack    = 0x20
	headPublish    = 0x30
	headPuback     = 0x40
	headPubrec     = 0x50
	headPubcomp    = 0x70
	headSuback     = 0x90
	headDisconnect = 0xe0
)

// Reason codes of MQTT 5 (section 2.4) that the broker gives by itself.
const (
	codeSuccess        = 0x00
	codeUnspecified    = 0x80 // in 3.1.1 the only failure of a SUBACK
	codeMalformed      = 0x81
	codeProtocolError  = 0x82
	codeBadVersion     = 0x84
	codeBadClientID    = 0x85
	codeBadPassword    = 0x86
	codeNotAuthorized  = 0x87
	codeUnavailable    = 0x88
	codeServerBusy     = 0x89
	codeShuttingDown   = 0x8b
	codeBadAuthMethod  = 0x8c
	codeKeepAlive      = 0x8d
	codeTakenOver      = 0x8e
	codeBadFilter      = 0x8f
	codeIDNotFound     = 0x92
	codeReceiveMaximum = 0x93
	codeTooLarge       = 0x95
	codeQuota          = 0x97
	codeAdministrative = 0x98
	codeBadPayload     = 0x99
)

const (
	propReasonString = 0x1f
	maxReason        = 200 // bytes of a reason string
)

// codeOf maps an error's kind to the reason code of a PUBACK or PUBREC. Anything
// that is not refused for good is refused for now: the device sends it again.
func codeOf(err error) byte {
	if err == nil {
		return codeSuccess
	}
	switch muster.KindOf(err) {
	case muster.Invalid, muster.TooLarge:
		return codeBadPayload
	case muster.Forbidden, muster.Unauthorized, muster.NotFound:
		return codeNotAuthorized
	default:
		return codeQuota
	}
}

// dialect is how one client wants its packets.
type dialect struct {
	version byte   // 3, 4 or 5
	terse   bool   // MQTT 5 and Request Problem Information 0: no reason strings
	limit   uint32 // MQTT 5 Maximum Packet Size, 0 for none
}

// appendAck appends a PUBACK, PUBREC or PUBCOMP (its first byte is head).
func (d dialect) appendAck(b []byte, head byte, id uint16, code byte, reason string) []byte {
	if d.version < 5 || code == codeSuccess {
		return append(b, head, 2, byte(id>>8), byte(id))
	}
	fixed := []byte{byte(id >> 8), byte(id), code}
	return d.appendReasoned(b, head, fixed, reason)
}

// appendBye appends a DISCONNECT; 3.1.1 servers send none.
func (d dialect) appendBye(b []byte, code byte, reason string) []byte {
	if d.version < 5 {
		return b
	}
	return d.appendReasoned(b, headDisconnect, []byte{code}, reason)
}

// appendReasoned appends a packet that consists of fixed and, where the client
// takes it, a reason string as its only property.
func (d dialect) appendReasoned(b []byte, head byte, fixed []byte, reason string) []byte {
	props := d.reasonProps(reason)
	if d.limit > 0 && 2+len(fixed)+len(props) > int(d.limit) {
		props = nil
	}
	if props == nil && head == headConnack {
		props = []byte{0} // a CONNACK always carries its property length
	}
	b = append(b, head)
	b = appendVarint(b, len(fixed)+len(props))
	b = append(b, fixed...)
	return append(b, props...)
}

func (d dialect) reasonProps(reason string) []byte {
	reason = cutText(reason, maxReason)
	if reason == "" || d.terse {
		return nil
	}
	p := appendVarint(nil, 3+len(reason))
	p = append(p, propReasonString, byte(len(reason)>>8), byte(len(reason)))
	return append(p, reason...)
}

// appendConnack appends the CONNACK of a refusal. code is MQTT 5's.
func (d dialect) appendConnack(b []byte, code byte, reason string) []byte {
	if d.version < 5 {
		return append(b, headConnack, 2, 0, oldConnackCode(code))
	}
	return d.appendReasoned(b, headConnack, []byte{0, code}, reason)
}

// oldConnackCode maps a reason code to 3.1.1's return codes (section 3.2.2.3).
func oldConnackCode(code byte) byte {
	switch code {
	case codeBadVersion:
		return 1
	case codeBadClientID:
		return 2
	case codeBadPassword:
		return 4
	case codeNotAuthorized, codeBadAuthMethod:
		return 5
	}
	return 3 // server unavailable
}

func appendVarint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// cutText returns s cut to at most n bytes, at a character's end.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// reasonOf returns what a refused client may be told.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return muster.Public(err)
}
