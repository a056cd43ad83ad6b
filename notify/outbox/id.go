package outbox

import (
	"crypto/rand"

	"muster"
)

// IDPrefix begins the ids of deliveries.
const IDPrefix = "dlv_"

// NewID returns a new id behind prefix. Those of one server sort by age: 11 characters of
// microseconds in the alphabet of base32hex (RFC 4648, section 7), and 16 of 80 random bits.
func NewID(prefix string, at muster.Micros) string {
	const digits = "0123456789abcdefghijklmnopqrstuv"
	var b [11]byte
	for i, v := len(b)-1, uint64(at); i >= 0; i, v = i-1, v>>5 {
		b[i] = digits[v&31]
	}
	return prefix + string(b[:]) + rand.Text()[:16]
}
