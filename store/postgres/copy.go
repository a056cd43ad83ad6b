package postgres

import (
	"encoding/binary"
	"io"
	"math"
	"strconv"

	"muster"
)

// The binary COPY format (PostgreSQL manual, COPY, "File Formats") is written by
// hand: one row of ten numbers takes about 150 ns, and no value is boxed.
const (
	copyHeader   = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	copyBlock    = 64 << 10
	pgEpoch      = muster.Micros(946_684_800_000_000) // 2000-01-01, where timestamptz counts from
	oidFloat8    = 701
	jsonbVersion = 1
)

// copyReader streams rows as binary COPY data: of telemetry_default, or with the
// columns before those of telemetry_stage.
type copyReader struct {
	rows  []staged
	stage bool
	buf   []byte
	off   int
	next  int
	begun bool
	done  bool
}

// staged is a row that is the first or the last, or both, of the readings in its
// batch that have the same device, time and set.
type staged struct {
	row
	first, last bool
}

// Read implements io.Reader; it never fails before the end.
func (c *copyReader) Read(p []byte) (int, error) {
	if c.off == len(c.buf) {
		if c.done {
			return 0, io.EOF
		}
		c.fill()
	}
	n := copy(p, c.buf[c.off:])
	c.off += n
	return n, nil
}

// fill encodes rows until the buffer holds a block.
func (c *copyReader) fill() {
	c.buf, c.off = c.buf[:0], 0
	if !c.begun {
		c.buf = append(c.buf, copyHeader...)
		c.begun = true
	}
	for c.next < len(c.rows) && len(c.buf) < copyBlock-2048 {
		c.buf = appendRow(c.buf, &c.rows[c.next], c.stage)
		c.next++
	}
	if c.next == len(c.rows) {
		c.buf = append(c.buf, 0xff, 0xff)
		c.done = true
	}
}

var be = binary.BigEndian

func appendRow(b []byte, r *staged, stage bool) []byte {
	if stage {
		b = be.AppendUint16(b, 8)
		b = be.AppendUint32(be.AppendUint32(b, 4), uint32(r.at))
		b = append(b, 0, 0, 0, 1, bit(r.first))
	} else {
		b = be.AppendUint16(b, 5)
	}
	b = be.AppendUint64(be.AppendUint32(b, 8), uint64(r.Time-pgEpoch))
	b = be.AppendUint32(be.AppendUint32(b, 4), uint32(r.device))
	b = be.AppendUint32(be.AppendUint32(b, 4), uint32(r.set.id))
	if r.set.loose {
		b = appendNumbers(b, nil)
	} else {
		b = appendNumbers(b, r.Numbers)
	}
	b = appendExtra(b, r)
	if stage {
		b = append(b, 0, 0, 0, 1, bit(r.last))
	}
	return b
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// appendNumbers appends a float8[] field; a NaN is a null element.
func appendNumbers(b []byte, ns []float64) []byte {
	if len(ns) == 0 {
		return append(b, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, oidFloat8>>8, oidFloat8&0xff)
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, oidFloat8>>8, oidFloat8&0xff)
	b = be.AppendUint32(b, uint32(len(ns)))
	b = append(b, 0, 0, 0, 1) // the lower bound
	for _, n := range ns {
		if math.IsNaN(n) {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			b[start+11] = 1 // has nulls
			continue
		}
		b = append(b, 0, 0, 0, 8)
		b = be.AppendUint64(b, math.Float64bits(n))
	}
	be.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// appendExtra appends the jsonb field of r, null when it has no JSON values.
func appendExtra(b []byte, r *staged) []byte {
	if !r.set.loose && len(r.Texts) == 0 {
		return append(b, 0xff, 0xff, 0xff, 0xff)
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0, jsonbVersion)
	if r.set.loose {
		b = appendLoose(b, r.Reading)
	} else {
		for i, text := range r.Texts {
			b = append(append(b, r.set.labels[i]...), text...)
		}
		b = append(b, '}')
	}
	be.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// appendLoose appends r as {"n":{numbers},"b":{booleans},"j":{JSON values}}.
func appendLoose(b []byte, r *muster.Reading) []byte {
	for kind, label := range []string{`{"n":{`, `},"b":{`, `},"j":{`} {
		b = append(b, label...)
		first := true
		for v := range r.Values {
			if v.Key.Kind != muster.ValueKind(kind) {
				continue
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(appendString(b, v.Key.Name), ':')
			if v.Key.Kind == muster.JSON {
				b = append(b, v.Text...)
			} else {
				b = appendNumber(b, v.Num)
			}
		}
	}
	return append(b, '}', '}')
}

// appendNumber appends n as JSON: null for NaN, and strings for the infinities,
// which SQL casts back.
func appendNumber(b []byte, n float64) []byte {
	switch {
	case math.IsNaN(n):
		return append(b, "null"...)
	case math.IsInf(n, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(n, -1):
		return append(b, `"-Infinity"`...)
	}
	return strconv.AppendFloat(b, n, 'g', -1, 64)
}
