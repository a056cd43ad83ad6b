package wire

// maxRemaining is the largest Remaining Length, and the largest variable byte
// integer (section 1.5.5).
const maxRemaining = 268_435_455

// Split finds the first packet of buf. It returns the packet's first byte, its
// body, which aliases buf, and its size n with the fixed header.
//
// n == 0 without an error says that more bytes are needed; need is then the size
// of the whole packet as far as its header tells it, else 0. limit is the largest
// packet to take, fixed header included, in bytes; 0 or less sets none.
//
// The error is an *Error: CodeMalformed for a packet type that no client sends,
// flags that its type may not have (section 2.1.3) and a length that is not written
// in its shortest form of at most four bytes (MQTT-1.5.5-1); CodeTooLarge when the
// packet is over limit, told from its header alone, with its size in need.
func Split(buf []byte, limit int) (head byte, body []byte, n, need int, err error) {
	if len(buf) == 0 {
		return 0, nil, 0, 0, nil
	}
	head = buf[0]
	if e := checkHead(head); e != nil {
		return head, nil, 0, 0, e
	}
	remaining, width := varint(buf[1:])
	switch {
	case width < 0:
		return head, nil, 0, 0, malformed("the packet's length is not a valid variable byte integer")
	case width == 0:
		return head, nil, 0, 0, nil
	}
	need = 1 + width + remaining
	switch {
	case limit > 0 && need > limit:
		return head, nil, 0, need, &Error{Code: CodeTooLarge, Reason: "the packet is over the maximum packet size"}
	case len(buf) < need:
		return head, nil, 0, need, nil
	}
	return head, buf[1+width : need : need], need, need, nil
}

// varint reads a variable byte integer. width is 0 when b ends within it, and -1
// when it has more than four bytes or more than it needs (MQTT-1.5.5-1).
func varint(b []byte) (value, width int) {
	for i, v := range b {
		value |= int(v&0x7f) << (7 * i)
		switch {
		case v&0x80 == 0 && v == 0 && i > 0:
			return 0, -1
		case v&0x80 == 0:
			return value, i + 1
		case i == 3:
			return 0, -1
		}
	}
	return 0, 0
}

// checkHead checks a packet's first byte, as a client may send it.
func checkHead(head byte) *Error {
	flags := head & 0x0f
	switch head >> 4 {
	case Publish:
		return checkPublishFlags(flags)
	case Pubrel, Subscribe, Unsubscribe:
		if flags == 2 {
			return nil
		}
	case Connect, Puback, Pubrec, Pubcomp, Pingreq, Disconnect, Auth:
		if flags == 0 {
			return nil
		}
	default:
		return malformed("no client sends a packet of this type")
	}
	return malformed("reserved flags of the fixed header are not as they must be")
}

// checkPublishFlags checks DUP, QoS and RETAIN (sections 3.3.1.1 and 3.3.1.2).
func checkPublishFlags(flags byte) *Error {
	switch qos := flags >> 1 & 3; {
	case qos == 3:
		return malformed("QoS 3 does not exist")
	case qos == 0 && flags&8 != 0:
		return malformed("DUP is set with QoS 0")
	}
	return nil
}
