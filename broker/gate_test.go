package broker

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"
)

const testFirst, testMax = 40, 200

func TestGateStopsAtTheFirstFlawedPacket(t *testing.T) {
	connect := []byte{0x10, 2, 0, 0}
	after := func(p ...byte) []byte { return append(bytes.Clone(connect), p...) }
	tests := []struct {
		name string
		in   []byte
		pass int
		want verdict
	}{
		{"valid packets pass", after(0xc0, 0, 0x30, 3, 0, 1, 'a'), 11, verdict{}},
		{"the first must be CONNECT", []byte{0xc0, 0}, 0, verdict{flaw: flawNotConnect, head: 0xc0, body: []byte{0}}},
		{"a CONNECT over its own maximum", []byte{0x10, 39, 1}, 0, verdict{flaw: flawTooLarge, head: 0x10, size: 41, body: []byte{1}}},
		{"a CONNECT of just its maximum", append([]byte{0x10, 38}, make([]byte, 38)...), 40, verdict{}},
		{"a packet over the maximum", after(0x30, 0xc6, 0x01, 9), 4, verdict{flaw: flawTooLarge, head: 0x30, size: 201, body: []byte{9}}},
		{"a packet of just the maximum", after(0x30, 0xc5, 0x01, 9), 8, verdict{}},
		{"a length of five bytes", after(0x30, 0xff, 0xff, 0xff, 0xff, 0x7f), 4, verdict{flaw: flawMalformed, head: 0x30, body: []byte{0x7f}}},
		{"the longest length", after(0x30, 0xff, 0xff, 0xff, 0x7f), 4, verdict{flaw: flawTooLarge, head: 0x30, size: 268435460, body: []byte{}}},
		{"a reserved type", after(0x01), 4, verdict{flaw: flawMalformed, head: 0x01, body: []byte{}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := gate{first: testFirst, max: testMax}
			pass, v := g.scan(tt.in)
			if d := cmp.Diff(tt.want, v, cmp.AllowUnexported(verdict{}), cmpopts.EquateEmpty()); d != "" || pass != tt.pass {
				t.Errorf("passes %d, want %d; verdict (-want +got):\n%s", pass, tt.pass, d)
			}
		})
	}
}

// whole is the specification of the gate: it looks at the entire input at once.
func whole(p []byte) (pass int, f flaw, size int) {
	limit := testFirst
	for pass < len(p) {
		h := p[pass]
		if limit == testFirst && h>>4 != 1 {
			return pass, flawNotConnect, 0
		}
		if err := new(packets.FixedHeader).Decode(h); err != nil || bytes.IndexByte([]byte{0, 2, 9, 11, 13}, h>>4) >= 0 {
			return pass, flawMalformed, 0
		}
		n, shift, i := 0, 0, pass+1
		for {
			if i >= len(p) {
				return len(p), flawNone, 0
			}
			n |= int(p[i]&0x7f) << shift
			shift += 7
			i++
			if p[i-1]&0x80 == 0 {
				break
			}
			if shift == 28 {
				return pass, flawMalformed, 0
			}
		}
		if i-pass+n > limit {
			return pass, flawTooLarge, i - pass + n
		}
		limit = testMax
		pass = i + n
	}
	return len(p), flawNone, 0
}

// FuzzGate checks that a gate that is fed in pieces says the same as one look at
// everything, lets no byte of a flawed packet's body pass, and never panics.
func FuzzGate(f *testing.F) {
	f.Add([]byte{0x10, 2, 0, 0, 0x30, 3, 0, 1, 'a'}, uint8(3))
	f.Add([]byte{0x10, 2, 0, 0, 0x30, 0xff, 0xff, 0xff, 0x7f}, uint8(1))
	for _, bad := range malformed() {
		f.Add(append([]byte{0x10, 0}, bad...), uint8(2))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		wantPass, wantFlaw, wantSize := whole(in)
		g := gate{first: testFirst, max: testMax}
		passed, piece := 0, int(step)%17+1
		for rest := in; len(rest) > 0; {
			n := min(piece, len(rest))
			pass, v := g.scan(rest[:n])
			passed += pass
			if v.flaw != flawNone {
				if v.flaw != wantFlaw || v.size != wantSize {
					t.Fatalf("verdict %d size %d, want %d size %d", v.flaw, v.size, wantFlaw, wantSize)
				}
				// Bytes of the header may have passed in earlier pieces, of the body none.
				if passed < wantPass || passed > wantPass+5 {
					t.Fatalf("passed %d bytes, want %d and at most a header", passed, wantPass)
				}
				return
			}
			if pass != n {
				t.Fatalf("passed %d of %d bytes without a flaw", pass, n)
			}
			rest = rest[n:]
		}
		if wantFlaw != flawNone {
			t.Fatalf("flaw %d not found", wantFlaw)
		}
	})
}

func TestVarintsAreThoseOfTheCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 268435455).Draw(t, "n")
		got, used, err := packets.DecodeLength(bytes.NewReader(appendVarint(nil, n)))
		if err != nil || got != n || used != len(appendVarint(nil, n)) {
			t.Fatalf("%d became %d (%v)", n, got, err)
		}
	})
}

func TestAcksAreThoseOfTheCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Uint16().Draw(t, "id")
		code := rapid.SampledFrom([]byte{0, 0x87, 0x97, 0x99}).Draw(t, "code")
		reason := rapid.String().Draw(t, "reason")
		d := dialect{version: 5}
		raw := d.appendAck(nil, headPuback, id, code, reason)
		pk := packets.Packet{ProtocolVersion: 5}
		n, used, err := packets.DecodeLength(bytes.NewReader(raw[1:]))
		if err != nil || 1+used+n != len(raw) {
			t.Fatalf("remaining length %d of %d bytes (%v)", n, len(raw), err)
		}
		pk.FixedHeader = packets.FixedHeader{Type: packets.Puback, Remaining: n}
		if err := pk.PubackDecode(raw[1+used:]); err != nil && !bytes.Contains([]byte(reason), []byte{0}) {
			t.Fatal(err)
		} else if err == nil && (pk.PacketID != id || pk.ReasonCode != code || code != 0 && pk.Properties.ReasonString != cutText(reason, maxReason)) {
			t.Fatalf("decoded %d %#x %q", pk.PacketID, pk.ReasonCode, pk.Properties.ReasonString)
		}
	})
}
