package broker

// A packet's fixed header: one byte of type and flags, then the remaining length
// in one to four bytes of seven bits each (MQTT 5, section 2.1).
const (
	maxLengthBytes = 4
	packetConnect  = 1
)

// flaw is what is wrong with a packet, seen from its fixed header alone.
type flaw uint8

const (
	flawNone       flaw = iota
	flawTooLarge        // longer than the gate lets through
	flawMalformed       // no such type, flags or length
	flawNotConnect      // the first packet is not a CONNECT
)

// verdict is what a gate says of the packet that it does not let through.
type verdict struct {
	flaw flaw
	head byte   // the packet's first byte
	size int    // bytes of the whole packet, 0 when its length is not known
	body []byte // what has come of the packet behind its fixed header
}

// gate watches the bytes of one connection pass and stops at the first packet
// that must not be read, by its fixed header alone, so that no packet over the
// maximum is ever buffered. The zero gate with both maxima set is ready.
type gate struct {
	first int // the longest first packet, in bytes with its header
	max   int // the longest later packet

	skip   int  // bytes of the passing packet's body still to come
	head   byte // the first byte of the header being read
	length int  // what is known of its remaining length
	bytes  int  // how many of its bytes have been read: 0 is between packets
	opened bool // the CONNECT has begun to pass
}

// scan looks at p, the next bytes of the connection, and returns how many of them
// may pass. With a flaw, that is up to where the flawed packet begins, or 0 when
// it began in an earlier call; the gate must not be used any more then.
func (g *gate) scan(p []byte) (int, verdict) {
	begin := 0 // of the header being read, when it begins in p
	for i := 0; i < len(p); {
		if g.skip > 0 {
			n := min(g.skip, len(p)-i)
			g.skip -= n
			i += n
			continue
		}
		if g.bytes == 0 {
			begin = i
		}
		done, f := g.header(p[i])
		i++
		if f == flawNone && done {
			f = g.admit()
		}
		if f != flawNone {
			return begin, verdict{flaw: f, head: g.head, size: g.size(done), body: p[i:]}
		}
	}
	return len(p), verdict{}
}

// header takes the next byte of a fixed header and says whether it is complete.
func (g *gate) header(c byte) (bool, flaw) {
	g.bytes++
	if g.bytes == 1 {
		g.head, g.length = c, 0
		return false, g.checkFirst()
	}
	g.length |= int(c&0x7f) << (7 * (g.bytes - 2))
	if c&0x80 == 0 {
		return true, flawNone
	}
	if g.bytes == 1+maxLengthBytes {
		return false, flawMalformed
	}
	return false, flawNone
}

func (g *gate) checkFirst() flaw {
	if !g.opened && g.head>>4 != packetConnect {
		return flawNotConnect
	}
	if !headByteValid(g.head) {
		return flawMalformed
	}
	return flawNone
}

// headByteValid says whether a client may send a packet that begins with h.
func headByteValid(h byte) bool {
	flags := h & 0x0f
	switch h >> 4 {
	case 3: // PUBLISH: QoS 3 does not exist, QoS 0 is never a duplicate
		qos := flags >> 1 & 3
		return qos != 3 && (qos != 0 || flags&8 == 0)
	case 6, 8, 10: // PUBREL, SUBSCRIBE, UNSUBSCRIBE
		return flags == 2
	case 1, 4, 5, 7, 12, 14, 15: // CONNECT, PUBACK, PUBREC, PUBCOMP, PINGREQ, DISCONNECT, AUTH
		return flags == 0
	}
	return false // reserved, or sent by servers only
}

// admit decides on a packet whose header is complete.
func (g *gate) admit() flaw {
	limit := g.max
	if !g.opened {
		limit = g.first
	}
	if g.bytes+g.length > limit {
		return flawTooLarge
	}
	g.opened = true
	g.skip, g.bytes = g.length, 0
	return flawNone
}

func (g *gate) size(complete bool) int {
	if !complete {
		return 0
	}
	return g.bytes + g.length
}
