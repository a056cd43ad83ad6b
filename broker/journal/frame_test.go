package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"

	"muster"
)

func sealedFrame(records ...string) []byte {
	f := newFrame()
	for _, r := range records {
		f.buf = binary.LittleEndian.AppendUint32(f.buf, uint32(len(r)))
		f.buf = append(f.buf, r...)
		f.records++
	}
	f.number = 7
	f.seal(5, 3, 2)
	return f.buf
}

func TestAFrameGivesBackItsRecords(t *testing.T) {
	p, err := parse(sealedFrame("one", "", "three"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r, ok := p.next(); ok; r, ok = p.next() {
		got = append(got, string(r))
	}
	if fmt.Sprintf("%q", got) != `["one" "" "three"]` || p.boot != 5 || p.number != 7 || p.prev != 3 || p.floor != 2 || p.count != 3 {
		t.Errorf("records %q of %+v", got, p)
	}
}

func TestAFrameSealedAgainHasOneChecksum(t *testing.T) {
	f := newFrame()
	f.buf = append(f.buf, 1, 0, 0, 0, 'x')
	f.records = 1
	f.seal(1, 1, 1)
	size := f.bytes()
	f.seal(1, 9, 4)
	p, err := parse(f.buf)
	if err != nil || p.prev != 9 || p.floor != 4 || f.bytes() != size || size != 5 {
		t.Errorf("%+v, %v, %d bytes then %d", p, err, size, f.bytes())
	}
}

func TestADamagedFrameIsRefused(t *testing.T) {
	resum := func(b []byte) []byte {
		n := len(b) - trailerSize
		binary.LittleEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli()))
		return b
	}
	for _, tt := range []struct {
		name string
		make func(b []byte) []byte
	}{
		{"empty", func(b []byte) []byte { return nil }},
		{"cut in the header", func(b []byte) []byte { return b[:20] }},
		{"cut in a record", func(b []byte) []byte { return b[:len(b)-6] }},
		{"another magic", func(b []byte) []byte { b[0] = 'X'; return resum(b) }},
		{"another version", func(b []byte) []byte { b[2] = 9; return resum(b) }},
		{"one bit turned", func(b []byte) []byte { b[45] ^= 1; return b }},
		{"more records than there are", func(b []byte) []byte { b[4]++; return resum(b) }},
		{"fewer records than there are", func(b []byte) []byte { b[4]--; return resum(b) }},
		{"a record longer than the frame", func(b []byte) []byte { b[40] = 0xff; return resum(b) }},
		{"a record over the limit", func(b []byte) []byte { b[43] = 0x7f; return resum(b) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parse(tt.make(sealedFrame("one", "two"))); muster.KindOf(err) != muster.Invalid || err == nil {
				t.Errorf("answered %v", err)
			}
		})
	}
}

// FuzzParse: no input makes parse or next panic, and a frame that is taken is the
// one that its records make again.
func FuzzParse(f *testing.F) {
	f.Add(sealedFrame())
	f.Add(sealedFrame("one", "", "three"))
	f.Add([]byte("MJ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= trailerSize { // let the fuzzer past the checksum
			n := len(b) - trailerSize
			b = binary.LittleEndian.AppendUint32(bytes.Clone(b[:n]), crc32.Checksum(b[:n], castagnoli()))
		}
		p, err := parse(b)
		if err != nil {
			return
		}
		g := newFrame()
		g.number = p.number
		boot, prev, floor := p.boot, p.prev, p.floor
		for r, ok := p.next(); ok; r, ok = p.next() {
			g.buf = binary.LittleEndian.AppendUint32(g.buf, uint32(len(r)))
			g.buf = append(g.buf, r...)
			g.records++
		}
		g.seal(boot, prev, floor)
		if !bytes.Equal(g.buf, b) {
			t.Errorf("frame %x comes back as %x", b, g.buf)
		}
	})
}
