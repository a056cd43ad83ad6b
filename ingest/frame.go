package ingest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"muster"
)

// A frame is one entry of the log: many messages that share one fsync.
//
//	frame  = "MF" version(1) reserved(1) count(u32) total(u64) arrival(i64) record... crc32c(u32)
//	record = device kind arrival body
//
// count is the messages in the frame, total those in the stream up to and with it,
// arrival the newest arrival time in it. Integers of the header are little-endian,
// those of records varints. A device or layout is spelled out at its first use in
// the frame and referred to by number afterwards.
const (
	frameVersion = 1
	frameHeader  = 24
	frameTrailer = 4
	maxFrame     = 512 << 10 // bytes; twice what the framer aims at

	recReading  = 0
	recRejected = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameWriter encodes one frame.
type frameWriter struct {
	buf     []byte
	count   int
	newest  muster.Micros
	last    muster.Micros // the record before's arrival
	devices map[muster.DeviceID]uint64
	layouts map[*muster.Layout]uint64
}

func newFrameWriter() *frameWriter {
	return &frameWriter{
		buf:     make([]byte, frameHeader, 8<<10),
		devices: map[muster.DeviceID]uint64{},
		layouts: map[*muster.Layout]uint64{},
	}
}

func (w *frameWriter) size() int { return len(w.buf) }

func (w *frameWriter) head(id muster.DeviceID, kind byte, arrival muster.Micros) {
	ref, ok := w.devices[id]
	if !ok {
		w.devices[id] = uint64(len(w.devices) + 1)
		w.buf = append(w.buf, 0)
		w.buf = appendBytes(w.buf, string(id))
	} else {
		w.buf = binary.AppendUvarint(w.buf, ref)
	}
	w.buf = append(w.buf, kind)
	w.buf = binary.AppendVarint(w.buf, int64(arrival-w.last))
	w.last = arrival
	w.newest = max(w.newest, arrival)
	w.count++
}

func (w *frameWriter) reading(r *muster.Reading) {
	w.head(r.Device, recReading, r.Arrival)
	w.buf = binary.AppendVarint(w.buf, int64(r.Arrival-r.Time))
	ref, ok := w.layouts[r.Layout]
	if !ok {
		w.layouts[r.Layout] = uint64(len(w.layouts) + 1)
		w.layout(r.Layout)
	} else {
		w.buf = binary.AppendUvarint(w.buf, ref)
	}
	for _, v := range r.Numbers {
		w.buf = binary.LittleEndian.AppendUint64(w.buf, math.Float64bits(v))
	}
	for _, t := range r.Texts {
		w.buf = appendBytes(w.buf, t)
	}
}

func (w *frameWriter) layout(l *muster.Layout) {
	loose := byte(0)
	if l.Loose {
		loose = 1
	}
	w.buf = append(w.buf, 0, loose)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(l.Keys)))
	for _, k := range l.Keys {
		w.buf = append(w.buf, byte(k.Kind))
		w.buf = appendBytes(w.buf, k.Name)
	}
}

func (w *frameWriter) rejected(r *muster.Rejected) {
	w.head(r.Device, recRejected, r.Arrival)
	w.buf = appendBytes(w.buf, r.Topic)
	w.buf = appendBytes(w.buf, r.Code)
	w.buf = appendBytes(w.buf, r.Reason)
	w.buf = appendBytes(w.buf, string(r.Payload))
	w.buf = binary.AppendUvarint(w.buf, uint64(max(r.Size, 0)))
}

// seal fills in the header and trailer and returns the frame; before is the total
// of the stream up to this frame.
func (w *frameWriter) seal(before uint64) []byte {
	copy(w.buf, "MF")
	w.buf[2], w.buf[3] = frameVersion, 0
	binary.LittleEndian.PutUint32(w.buf[4:], uint32(w.count))
	binary.LittleEndian.PutUint64(w.buf[8:], before+uint64(w.count))
	binary.LittleEndian.PutUint64(w.buf[16:], uint64(w.newest))
	return binary.LittleEndian.AppendUint32(w.buf, crc32.Checksum(w.buf, castagnoli))
}

func appendBytes(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// frameInfo is a frame's header.
type frameInfo struct {
	count  int
	total  uint64
	newest muster.Micros
}

// checkFrame verifies b's checksum and returns its header and records.
func checkFrame(b []byte) (frameInfo, []byte, error) {
	var info frameInfo
	switch {
	case len(b) < frameHeader+frameTrailer || string(b[:2]) != "MF":
		return info, nil, fmt.Errorf("not a frame")
	case b[2] != frameVersion:
		return info, nil, fmt.Errorf("frame version %d is not known", b[2])
	}
	body := b[:len(b)-frameTrailer]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return info, nil, fmt.Errorf("frame checksum does not match")
	}
	info.count = int(binary.LittleEndian.Uint32(b[4:]))
	info.total = binary.LittleEndian.Uint64(b[8:])
	info.newest = muster.Micros(binary.LittleEndian.Uint64(b[16:]))
	if info.count > len(body)/3 || uint64(info.count) > info.total {
		return info, nil, fmt.Errorf("frame count %d does not fit its size", info.count)
	}
	return info, body[frameHeader:], nil
}

// frameReader decodes a frame's records. Every length is checked against what is
// left before anything is allocated.
type frameReader struct {
	b       []byte
	bad     bool
	last    muster.Micros
	devices []muster.DeviceID
	layouts []*muster.Layout
	intern  func(*muster.Layout) *muster.Layout
}

// readFrame decodes frame b.
func readFrame(b []byte, intern func(*muster.Layout) *muster.Layout) ([]muster.Reading, []muster.Rejected, frameInfo, error) {
	info, body, err := checkFrame(b)
	if err != nil {
		return nil, nil, info, err
	}
	r := &frameReader{b: body, intern: intern}
	readings := make([]muster.Reading, 0, info.count)
	var rejected []muster.Rejected
	for range info.count {
		id, kind, arrival := r.head()
		switch {
		case r.bad:
		case kind == recReading:
			readings = append(readings, r.reading(id, arrival))
		case kind == recRejected:
			rejected = append(rejected, r.rejection(id, arrival))
		default:
			r.bad = true
		}
		if r.bad {
			return nil, nil, info, fmt.Errorf("frame record is cut or not known")
		}
	}
	if len(r.b) != 0 {
		return nil, nil, info, fmt.Errorf("frame has %d bytes behind its records", len(r.b))
	}
	return readings, rejected, info, nil
}

func (r *frameReader) head() (muster.DeviceID, byte, muster.Micros) {
	var id muster.DeviceID
	switch ref := r.uvarint(); {
	case ref == 0:
		id = muster.DeviceID(r.bytes())
		r.devices = append(r.devices, id)
	case ref <= uint64(len(r.devices)):
		id = r.devices[ref-1]
	default:
		r.bad = true
	}
	kind := r.byte()
	r.last += muster.Micros(r.varint())
	return id, kind, r.last
}

func (r *frameReader) reading(id muster.DeviceID, arrival muster.Micros) muster.Reading {
	out := muster.Reading{Device: id, Arrival: arrival, Time: arrival - muster.Micros(r.varint())}
	switch ref := r.uvarint(); {
	case ref == 0:
		out.Layout = r.layout()
		r.layouts = append(r.layouts, out.Layout)
	case ref <= uint64(len(r.layouts)):
		out.Layout = r.layouts[ref-1]
	default:
		r.bad = true
	}
	if r.bad || len(r.b) < 8*out.Layout.Numbers {
		r.bad = true
		return out
	}
	out.Numbers = make([]float64, out.Layout.Numbers)
	for i := range out.Numbers {
		out.Numbers[i] = math.Float64frombits(binary.LittleEndian.Uint64(r.b[8*i:]))
	}
	r.b = r.b[8*len(out.Numbers):]
	if texts := len(out.Layout.Keys) - out.Layout.Numbers; texts > 0 {
		out.Texts = make([]string, texts)
		for i := range out.Texts {
			out.Texts[i] = r.bytes()
		}
	}
	return out
}

func (r *frameReader) layout() *muster.Layout {
	loose := r.byte()
	n := r.uvarint()
	if r.bad || n == 0 || n > maxKeys {
		r.bad = true
		return nil
	}
	keys := make([]muster.Key, n)
	for i := range keys {
		keys[i] = muster.Key{Kind: muster.ValueKind(r.byte()), Name: r.bytes()}
		if keys[i].Kind > muster.JSON || i > 0 && keys[i-1].Name >= keys[i].Name {
			r.bad = true
			return nil
		}
	}
	l := muster.NewLayout(keys)
	l.Loose = loose == 1
	return r.intern(l)
}

func (r *frameReader) rejection(id muster.DeviceID, arrival muster.Micros) muster.Rejected {
	return muster.Rejected{
		Device: id, Arrival: arrival,
		Topic: r.bytes(), Code: r.bytes(), Reason: r.bytes(), Payload: []byte(r.bytes()), Size: int(r.uvarint()),
	}
}

func (r *frameReader) byte() byte {
	if r.bad || len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *frameReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *frameReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *frameReader) bytes() string {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
