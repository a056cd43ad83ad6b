package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"muster"
)

// A frame, little-endian:
//
//	0  magic "MJ", version, 0
//	4  uint32  number of records
//	8  uint64  the run that wrote it, random
//	16 uint64  its number in that run; a frame that an append left twice has the same
//	24 uint64  the sequence of the frame before it, as far as the writer knew
//	32 uint64  floor: no frame before this one holds a record that is still needed
//	40 records: uint32 length, bytes
//	   uint32  CRC-32C of all before
const (
	frameVersion = 1
	headerSize   = 40
	trailerSize  = 4
	prefixSize   = 4 // before each record
)

// MaxRecord is the longest record in bytes; it makes a frame of its own.
const MaxRecord = 1 << 20

// castagnoli returns the table of CRC-32C; crc32 keeps one for all.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// op is what a record does to one item when it is durable.
type op struct {
	item *Item
	size uint32 // of the record in the frame; dropped: the item ends
}

const dropped = ^uint32(0)

// frame collects records and what hangs on them.
type frame struct {
	buf     []byte // header and records; sealed: the trailer too
	records int
	writes  uint64 // calls of Write, with those that were refused
	sealed  bool
	doubt   bool // the log may have it: nothing may overtake it
	number  uint64
	floor   uint64
	ops     []op
	dones   []func(error)
	err     error // what the writers are told
}

func newFrame() *frame { return &frame{buf: make([]byte, headerSize, 4<<10)} }

// reset empties f for another use and keeps its memory.
func (f *frame) reset() {
	clear(f.ops)
	clear(f.dones)
	*f = frame{buf: f.buf[:headerSize], ops: f.ops[:0], dones: f.dones[:0]}
}

// bytes is what f's records take.
func (f *frame) bytes() int64 {
	n := len(f.buf) - headerSize
	if f.sealed {
		n -= trailerSize
	}
	return int64(n)
}

func (f *frame) empty() bool { return f.writes == 0 }

// seal fills the header and appends the checksum. It may be called again when the
// frame was refused, to tell it where it comes to lie now.
func (f *frame) seal(boot, prev, floor uint64) {
	if f.sealed {
		f.buf = f.buf[:len(f.buf)-trailerSize]
	}
	f.sealed, f.floor = true, floor
	h := f.buf[:headerSize]
	copy(h, []byte{'M', 'J', frameVersion, 0})
	binary.LittleEndian.PutUint32(h[4:], uint32(f.records))
	binary.LittleEndian.PutUint64(h[8:], boot)
	binary.LittleEndian.PutUint64(h[16:], f.number)
	binary.LittleEndian.PutUint64(h[24:], prev)
	binary.LittleEndian.PutUint64(h[32:], floor)
	f.buf = binary.LittleEndian.AppendUint32(f.buf, crc32.Checksum(f.buf, castagnoli()))
}

// parsed is a frame that was read back.
type parsed struct {
	boot, number, prev, floor uint64
	count                     int
	records                   []byte // uint32 length, bytes
}

// parse checks a frame whole: after it next can not fail. b is kept.
func parse(b []byte) (parsed, error) {
	if len(b) < headerSize+trailerSize {
		return parsed{}, muster.Errorf(muster.Invalid, "a frame of %d bytes is too short", len(b))
	}
	if b[0] != 'M' || b[1] != 'J' {
		return parsed{}, muster.Errorf(muster.Invalid, "this is no frame of the journal")
	}
	if b[2] != frameVersion || b[3] != 0 {
		return parsed{}, muster.Errorf(muster.Invalid, "frame version %d.%d is not known, this is version %d", b[2], b[3], frameVersion)
	}
	body := b[:len(b)-trailerSize]
	if crc32.Checksum(body, castagnoli()) != binary.LittleEndian.Uint32(b[len(body):]) {
		return parsed{}, muster.Errorf(muster.Invalid, "the frame's checksum is wrong")
	}
	p := parsed{
		boot: binary.LittleEndian.Uint64(b[8:]), number: binary.LittleEndian.Uint64(b[16:]),
		prev: binary.LittleEndian.Uint64(b[24:]), floor: binary.LittleEndian.Uint64(b[32:]),
		count: int(binary.LittleEndian.Uint32(b[4:])), records: body[headerSize:],
	}
	if err := checkRecords(p.records, p.count); err != nil {
		return parsed{}, err
	}
	return p, nil
}

func checkRecords(b []byte, count int) error {
	for i := range count {
		if len(b) < prefixSize {
			return muster.Errorf(muster.Invalid, "the frame ends before record %d of %d", i+1, count)
		}
		n := binary.LittleEndian.Uint32(b)
		if b = b[prefixSize:]; uint64(n) > uint64(len(b)) || n > MaxRecord {
			return muster.Errorf(muster.Invalid, "record %d of %d has a length of %d bytes", i+1, count, n)
		}
		b = b[n:]
	}
	if len(b) > 0 {
		return muster.Errorf(muster.Invalid, "the frame has %d bytes behind its last record", len(b))
	}
	return nil
}

// next returns the next record and takes it off p.
func (p *parsed) next() (record []byte, ok bool) {
	if len(p.records) == 0 {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(p.records)
	record = p.records[prefixSize : prefixSize+n : prefixSize+n]
	p.records = p.records[prefixSize+n:]
	return record, true
}

// appendID returns the name of append number of run boot, by which the log knows a
// repeated one.
func appendID(boot, number uint64) string { return fmt.Sprintf("%016x-%d", boot, number) }
