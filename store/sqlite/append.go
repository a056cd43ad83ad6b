package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"

	"muster"
	"muster/ingest"
)

const (
	writerCursor = "writer"
	latestCursor = "latest"
)

// Append stores b in one transaction and returns one outcome per reading. An
// Invalid error says that some reading can never be stored, a Conflict that the
// writer's cursor is not at b.From; nothing of b is kept then. When b.From equals
// b.To the cursor is neither looked at nor moved.
func (t *Telemetry) Append(ctx context.Context, b ingest.Batch) ([]ingest.Outcome, error) {
	if len(b.Readings) > ingest.MaxBatch {
		return nil, muster.Errorf(muster.Invalid, "append: %d readings in one batch, at most %d are taken", len(b.Readings), ingest.MaxBatch)
	}
	out := make([]ingest.Outcome, len(b.Readings))
	kept := 0
	err := t.update(ctx, func(u *update) (err error) {
		if err := u.takeCursor(b.From, b.To); err != nil {
			return err
		}
		if err := u.insert(b.Readings, out); err != nil {
			return err
		}
		kept, err = u.reject(b.Rejected)
		return err
	}, func() { t.rejected += kept })
	if err != nil {
		return nil, failed("append", err)
	}
	return out, nil
}

// takeCursor moves the writer's cursor, or answers Conflict.
func (u *update) takeCursor(from, to ingest.Cursor) error {
	if from == to {
		return nil
	}
	var have ingest.Cursor
	var seq int64
	if _, err := u.scan(u.t.stmts.findCursor, []any{writerCursor}, &have.Incarnation, &seq); err != nil {
		return fmt.Errorf("read the cursor: %w", err)
	}
	have.Seq = uint64(seq)
	if have != from {
		return muster.Errorf(muster.Conflict, "the cursor is at %s %d, not at %s %d", have.Incarnation, have.Seq, from.Incarnation, from.Seq)
	}
	return u.moveCursor(writerCursor, to)
}

func (u *update) moveCursor(name string, to ingest.Cursor) error {
	if _, err := u.exec(u.t.stmts.moveCursor, name, to.Incarnation, int64(to.Seq)); err != nil {
		return fmt.Errorf("move the cursor: %w", err)
	}
	return nil
}

// maxScratch is how many bytes of encoded rows are kept for the next batch.
const maxScratch = 4 << 20

// scratch is memory that every append uses again.
type scratch struct {
	buf  []byte
	rows []row
	args []any
}

// row is a reading encoded; its bytes are in scratch.buf from vals to extra and
// from extra to end.
type row struct {
	time, device, set int64
	vals, extra, end  int
}

// insert stores readings in log order.
func (u *update) insert(readings []muster.Reading, out []ingest.Outcome) error {
	s := &u.t.scratch
	if s.buf == nil || cap(s.buf) > maxScratch {
		s.buf = make([]byte, 0, 64<<10) // never nil: a reading without numbers has empty vals, not null ones
	}
	for len(readings) > 0 {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		size := 0
		for chunks[size] > len(readings) {
			size++
		}
		n := chunks[size]
		if err := u.encode(readings[:n]); err != nil {
			return err
		}
		if err := u.insertChunk(u.t.stmts.insert[size], out[:n]); err != nil {
			return err
		}
		readings, out = readings[n:], out[n:]
	}
	return nil
}

// encode fills the scratch rows from readings.
func (u *update) encode(readings []muster.Reading) error {
	s := &u.t.scratch
	s.rows, s.buf = s.rows[:0], s.buf[:0]
	for i := range readings {
		r := &readings[i]
		if err := check(r); err != nil {
			return err
		}
		w := row{time: int64(r.Time), vals: len(s.buf)}
		for _, f := range r.Numbers {
			s.buf = appendFloat(s.buf, f)
		}
		w.extra = len(s.buf)
		var err error
		if s.buf, err = appendExtra(s.buf, r); err != nil {
			return err
		}
		w.end = len(s.buf)
		if w.device, err = u.device(r.Device); err != nil {
			return err
		}
		if w.set, err = u.set(r.Layout); err != nil {
			return err
		}
		s.rows = append(s.rows, w)
	}
	return nil
}

func (s *scratch) vals(w row) []byte { return s.buf[w.vals:w.extra:w.extra] }

func (s *scratch) extra(w row) any {
	if w.extra == w.end {
		return nil
	}
	return string(s.buf[w.extra:w.end])
}

// insertChunk inserts the scratch rows by one statement. Only when some of them are
// there already does it look at each.
func (u *update) insertChunk(stmt *sql.Stmt, out []ingest.Outcome) error {
	s := &u.t.scratch
	s.args = s.args[:0]
	for _, w := range s.rows {
		s.args = append(s.args, w.time, w.device, w.set, s.vals(w), s.extra(w))
	}
	res, err := u.exec(stmt, s.args...)
	clear(s.args)
	if err != nil {
		return fmt.Errorf("insert rows: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil || n == int64(len(s.rows)) {
		return err
	}
	last, err := res.LastInsertId()
	if err != nil {
		return err
	}
	return u.settle(last-n+1, n, out)
}

// settle works out what became of the scratch rows when only n of them were
// inserted, and replaces what they replace, in log order. New rows got the row ids
// from first on in the order of the statement, all greater than any before, so
// that a reading was stored when its row has the next of them; another row was
// there before, or was made by an earlier reading of this chunk.
func (u *update) settle(first, n int64, out []ingest.Outcome) error {
	s := &u.t.scratch
	next, end := first, first+n
	for i, w := range s.rows {
		var id int64
		var vals, extra []byte
		found, err := u.scan(u.t.stmts.find, []any{w.device, w.time, w.set}, &id, &vals, &extra)
		if err != nil {
			return fmt.Errorf("find a row: %w", err)
		}
		switch {
		case !found:
			return fmt.Errorf("find a row: it was neither inserted nor there")
		case next < end && id == next:
			out[i] = ingest.Stored
			next++
		case bytes.Equal(vals, s.vals(w)) && bytes.Equal(extra, s.buf[w.extra:w.end]):
			out[i] = ingest.Duplicate
		default:
			out[i] = ingest.Replaced
			if _, err := u.exec(u.t.stmts.replace, s.vals(w), s.extra(w), id); err != nil {
				return fmt.Errorf("replace a row: %w", err)
			}
		}
	}
	return nil
}
