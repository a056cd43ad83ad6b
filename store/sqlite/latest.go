package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"

	"muster"
	"muster/ingest"
)

// latestVersion is the first byte of an encoded latest row.
const latestVersion = 1

// SaveLatest upserts rows and moves the latest cursor to c in one transaction. A
// row replaces the device's earlier one whole; of two rows of one device the later
// counts.
func (t *Telemetry) SaveLatest(ctx context.Context, rows []ingest.LatestRow, c ingest.Cursor) error {
	err := t.update(ctx, func(u *update) error {
		var buf []byte
		for i := range rows {
			if err := u.ctx.Err(); err != nil {
				return err
			}
			id, err := u.device(rows[i].Device)
			if err != nil {
				return err
			}
			buf = appendLatest(buf[:0], rows[i].Values)
			if _, err := u.exec(u.t.stmts.saveLatest, id, buf); err != nil {
				return fmt.Errorf("save a row: %w", err)
			}
		}
		return u.moveCursor(latestCursor, c)
	}, nil)
	if err != nil {
		return failed("save the latest values", err)
	}
	return nil
}

// LoadLatest yields every row, in no particular order, or an error and then
// nothing more.
func (t *Telemetry) LoadLatest(ctx context.Context) iter.Seq2[ingest.LatestRow, error] {
	return func(yield func(ingest.LatestRow, error) bool) {
		rows, err := t.read.QueryContext(ctx, `SELECT d.name, l.vals FROM latest l JOIN device d ON d.id = l.device_id`)
		if err != nil {
			yield(ingest.LatestRow{}, failed("load the latest values", err))
			return
		}
		defer rows.Close() //nolint:errcheck // rows.Err has what counts
		for rows.Next() {
			var vals sql.RawBytes
			var r ingest.LatestRow
			err := rows.Scan(&r.Device, &vals)
			if err == nil {
				r.Values, err = decodeLatest(vals)
			}
			if err != nil {
				yield(ingest.LatestRow{}, failed("load the latest values", err))
				return
			}
			if !yield(r, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(ingest.LatestRow{}, failed("load the latest values", err))
		}
	}
}

// appendLatest appends the encoding of vals: a version, and for each value its
// kind, name, time, arrival less time, and float bits or text.
func appendLatest(b []byte, vals []ingest.LatestValue) []byte {
	b = binary.AppendUvarint(append(b, latestVersion), uint64(len(vals)))
	for i := range vals {
		v := &vals[i]
		b = appendString(append(b, byte(v.Key.Kind)), v.Key.Name)
		b = binary.AppendVarint(b, int64(v.Time))
		b = binary.AppendVarint(b, int64(v.Arrival-v.Time))
		if v.Key.Kind == muster.JSON {
			b = appendString(b, v.Text)
		} else {
			b = appendFloat(b, v.Num)
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errLatest = errors.New("a row of the latest values is damaged")

// decodeLatest reads what appendLatest wrote; it keeps nothing of b.
func decodeLatest(b []byte) ([]ingest.LatestValue, error) {
	if len(b) == 0 || b[0] != latestVersion {
		return nil, errLatest
	}
	r := latestReader{b: b[1:]}
	n := r.uvarint()
	if n > uint64(len(r.b)) { // each value takes more than a byte
		return nil, errLatest
	}
	vals := make([]ingest.LatestValue, n)
	for i := range vals {
		v := &vals[i]
		v.Key.Kind = muster.ValueKind(r.take(1)[0])
		v.Key.Name = r.string()
		v.Time = muster.Micros(r.varint())
		v.Arrival = v.Time + muster.Micros(r.varint())
		if v.Key.Kind == muster.JSON {
			v.Text = r.string()
		} else {
			v.Num = math.Float64frombits(binary.BigEndian.Uint64(r.take(8)))
		}
	}
	if r.bad || len(r.b) > 0 {
		return nil, errLatest
	}
	return vals, nil
}

// latestReader reads fields one after the other; past the end it gives zeros and
// sets bad.
type latestReader struct {
	b   []byte
	bad bool
}

func (r *latestReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, 8)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *latestReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.skip(n)
	return v
}

func (r *latestReader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.skip(n)
	return v
}

func (r *latestReader) skip(n int) {
	if n <= 0 {
		r.bad, r.b = true, nil
		return
	}
	r.b = r.b[n:]
}

func (r *latestReader) string() string { return string(r.bytes()) }

// bytes returns a string's bytes, a part of what is read.
func (r *latestReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	return r.take(int(n))
}
