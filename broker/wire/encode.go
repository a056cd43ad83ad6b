package wire

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
)

// maxReason is the longest reason string that is sent, in bytes.
const maxReason = 200

// Dialect is how one client wants its packets. Its methods append whole packets,
// fixed header included. Where Limit leaves no room they leave out reason strings
// first, and append nothing at all when that is not enough (MQTT-3.1.2-24): a
// caller that must answer sees the length unchanged, and closes.
type Dialect struct {
	Version byte   // 3, 4 or 5, as in ConnectPacket
	Terse   bool   // MQTT 5, Request Problem Information 0: no reason strings but in CONNACK and DISCONNECT (MQTT-3.1.2-29)
	Limit   uint32 // Maximum Packet Size in bytes, fixed header included; 0 is none
}

func (d Dialect) five() bool { return d.Version >= version5 }

// fits tells whether a packet with so many bytes after its fixed header may be sent.
func (d Dialect) fits(remaining int) bool {
	size := packetSize(remaining)
	return remaining <= maxRemaining && (d.Limit == 0 || uint64(size) <= uint64(d.Limit))
}

func packetSize(remaining int) int { return 1 + varintSize(remaining) + remaining }

func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

// appendVarint appends n, at most maxRemaining, in its shortest form.
func appendVarint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// cut shortens a reason to maxReason bytes at a rune, and drops what may not
// stand in a string (section 1.5.4).
func cut(reason string) string {
	if len(reason) > maxReason {
		end := maxReason
		for end > 0 && !utf8.RuneStart(reason[end]) {
			end--
		}
		reason = reason[:end]
	}
	if !utf8.ValidString(reason) || strings.IndexByte(reason, 0) >= 0 {
		return ""
	}
	return reason
}

// reasonSize is the size of a reason string as a property.
func reasonSize(reason string) int {
	if reason == "" {
		return 0
	}
	return 1 + 2 + len(reason)
}

func appendReason(b []byte, reason string) []byte {
	if reason == "" {
		return b
	}
	return appendText(append(b, packets.PropReasonString), reason)
}

// AppendAck appends PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7). Code
// and reason are for MQTT 5 only, where a success without reason is left out too.
// The reason is cut to 200 bytes, and dropped when the dialect is terse or it would
// not fit. It does not allocate when b has room.
func (d Dialect) AppendAck(b []byte, packetType byte, id uint16, code byte, reason string) []byte {
	head := packetType << 4
	if packetType == Pubrel {
		head |= 2
	}
	if d.five() && reason != "" && !d.Terse {
		reason = cut(reason)
		size := reasonSize(reason)
		remaining := 2 + 1 + varintSize(size) + size
		if reason != "" && d.fits(remaining) {
			b = appendVarint(append(b, head), remaining)
			b = append(binary.BigEndian.AppendUint16(b, id), code)
			return appendReason(appendVarint(b, size), reason)
		}
	}
	switch {
	case d.five() && code != CodeSuccess && d.fits(3):
		return append(b, head, 3, byte(id>>8), byte(id), code)
	case !d.five(), code == CodeSuccess && d.fits(2):
		return append(b, head, 2, byte(id>>8), byte(id))
	}
	return b
}

// AppendSuback appends a SUBACK (section 3.9) with one code for each filter, in
// their order. Before MQTT 5 every failure is 0x80.
func (d Dialect) AppendSuback(b []byte, id uint16, codes []byte, reason string) []byte {
	if !d.five() {
		b = appendVarint(append(b, Suback<<4), 2+len(codes))
		b = binary.BigEndian.AppendUint16(b, id)
		for _, code := range codes {
			b = append(b, min(code, CodeUnspecified))
		}
		return b
	}
	if d.Terse {
		reason = ""
	}
	return d.appendCodes(b, Suback, id, codes, cut(reason))
}

// AppendUnsuback appends an UNSUBACK (section 3.11), before MQTT 5 without codes.
func (d Dialect) AppendUnsuback(b []byte, id uint16, codes []byte) []byte {
	if !d.five() {
		return append(b, Unsuback<<4, 2, byte(id>>8), byte(id))
	}
	return d.appendCodes(b, Unsuback, id, codes, "")
}

func (d Dialect) appendCodes(b []byte, packetType byte, id uint16, codes []byte, reason string) []byte {
	size := reasonSize(reason)
	remaining := 2 + varintSize(size) + size + len(codes)
	if !d.fits(remaining) {
		if reason == "" {
			return b
		}
		return d.appendCodes(b, packetType, id, codes, "")
	}
	b = appendVarint(append(b, packetType<<4), remaining)
	b = binary.BigEndian.AppendUint16(b, id)
	return append(appendReason(appendVarint(b, size), reason), codes...)
}

// AppendDisconnect appends a DISCONNECT (section 3.14); nothing before MQTT 5,
// where a server only closes.
func (d Dialect) AppendDisconnect(b []byte, code byte, reason string) []byte {
	reason = cut(reason)
	size := reasonSize(reason)
	remaining := 1 + varintSize(size) + size
	switch {
	case !d.five():
		return b
	case d.fits(remaining):
		b = append(appendVarint(append(b, Disconnect<<4), remaining), code)
		return appendReason(appendVarint(b, size), reason)
	case reason != "":
		return d.AppendDisconnect(b, code, "")
	}
	return b
}

// AppendPingresp appends a PINGRESP (section 3.13), the same in every dialect.
func AppendPingresp(b []byte) []byte { return append(b, Pingresp<<4, 0) }

// Connack is the answer to a CONNECT (section 3.2). Properties that are zero or
// nil are not written, and none before MQTT 5.
type Connack struct {
	SessionPresent bool // written only with CodeSuccess (MQTT-3.2.2-6)
	Code           byte // MQTT 5's
	Reason         string
	SessionExpiry  *uint32 // seconds
	ReceiveMaximum uint16
	MaximumPacket  uint32 // bytes
	AssignedID     string // at most 65,535 bytes
	AliasMaximum   uint16
	KeepAlive      *uint16 // seconds
	ResponseInfo   string  // at most 65,535 bytes
}

// AppendConnack appends a CONNACK. Before MQTT 5 its code becomes a return code of
// 3.1.1 (MQTT 3.1.1, table 3.1), and nothing is appended when none says it: then
// the connection is to be closed without an answer (MQTT 3.1.1, MQTT-3.2.2-6). 3.1
// knows no session present. Response information and reason are left out when
// they would not fit.
func (d Dialect) AppendConnack(b []byte, c *Connack) []byte {
	var present byte
	if c.SessionPresent && c.Code == CodeSuccess && d.Version > version31 {
		present = 1
	}
	if !d.five() {
		code, ok := returnCode(c.Code)
		if !ok {
			return b
		}
		return append(b, ConnackType<<4, 2, present, code)
	}
	must := c.appendNeeded(nil)
	full := appendReason(slices.Clone(must), cut(c.Reason))
	if c.ResponseInfo != "" && len(c.ResponseInfo) <= math.MaxUint16 {
		full = appendText(append(full, packets.PropResponseInfo), c.ResponseInfo)
	}
	for _, props := range [][]byte{full, must} {
		if remaining := 2 + varintSize(len(props)) + len(props); d.fits(remaining) {
			b = append(appendVarint(append(b, ConnackType<<4), remaining), present, c.Code)
			return append(appendVarint(b, len(props)), props...)
		}
	}
	return b
}

// appendNeeded appends the properties that a client must know to go on.
func (c *Connack) appendNeeded(b []byte) []byte {
	if c.SessionExpiry != nil {
		b = binary.BigEndian.AppendUint32(append(b, packets.PropSessionExpiryInterval), *c.SessionExpiry)
	}
	if c.ReceiveMaximum > 0 {
		b = binary.BigEndian.AppendUint16(append(b, packets.PropReceiveMaximum), c.ReceiveMaximum)
	}
	if c.MaximumPacket > 0 {
		b = binary.BigEndian.AppendUint32(append(b, packets.PropMaximumPacketSize), c.MaximumPacket)
	}
	if c.AssignedID != "" && len(c.AssignedID) <= math.MaxUint16 {
		b = appendText(append(b, packets.PropAssignedClientID), c.AssignedID)
	}
	if c.AliasMaximum > 0 {
		b = binary.BigEndian.AppendUint16(append(b, packets.PropTopicAliasMaximum), c.AliasMaximum)
	}
	if c.KeepAlive != nil {
		b = binary.BigEndian.AppendUint16(append(b, packets.PropServerKeepAlive), *c.KeepAlive)
	}
	return b
}

// returnCode maps a reason code to a return code of 3.1.1, where one says it.
func returnCode(code byte) (byte, bool) {
	switch code {
	case CodeSuccess:
		return 0, true
	case CodeBadVersion:
		return 1, true
	case CodeBadClientID:
		return 2, true
	case CodeUnspecified, CodeImplementation, CodeUnavailable, CodeServerBusy, CodeShuttingDown, CodeQuota,
		CodeRate, CodeUseAnother, CodeServerMoved, CodeConnectionRate:
		return 3, true
	case CodeBadPassword, CodeBadAuthMethod:
		return 4, true
	case CodeNotAuthorized, CodeBanned:
		return 5, true
	}
	return 0, false
}
