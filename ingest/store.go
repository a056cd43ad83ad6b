package ingest

import (
	"context"
	"iter"

	"muster"
)

// MaxBatch is the most readings a writer puts in one Append.
const MaxBatch = 5000

// Outcome is what became of a reading in the store.
type Outcome uint8

// The outcomes of a reading.
const (
	Stored    Outcome = iota // a new row
	Duplicate                // an equal row was there already
	Replaced                 // a row of the same device, time and layout had other values
)

// Cursor is a reader's place in the log. Seq is the last frame taken; a log that
// was lost and made anew has another Incarnation and starts at Seq 0.
type Cursor struct {
	Incarnation string
	Seq         uint64
}

// Batch is what one transaction stores: rows, rejected messages and the move of
// the writer's cursor. When From equals To the cursor does not move (part of a
// batch that was split); a store must then leave the cursor alone.
type Batch struct {
	From, To Cursor
	Readings []muster.Reading // in log order
	Rejected []muster.Rejected
}

// Store is where the writer puts what the log holds. An error of kind Invalid
// says that the batch can never be stored as it is: the writer splits it. An
// error of kind Conflict says that the cursor is not at From. Any other error is
// temporary.
type Store interface {
	// Append stores b in transactions that are idempotent over a replay, the last
	// of which moves the cursor, and returns one outcome per reading, in order.
	Append(ctx context.Context, b Batch) ([]Outcome, error)
	// Cursors returns the cursor of the writer and that of the latest values, zero
	// when there is none yet.
	Cursors(ctx context.Context) (writer, latest Cursor, err error)
	// Sync returns when all that was appended would survive a power cut. Frames are
	// purged from the log only after it.
	Sync(ctx context.Context) error
}

// Eraser deletes devices from a store. Whoever calls it sees to it that nothing of the
// device is appended or saved until it is done.
type Eraser interface {
	// Erase deletes a part of what the store has of device, in one transaction of bounded
	// size, and says whether anything is left: call it until nothing is, over restarts
	// too. After the first call no reading and no latest value of it can be read. A device
	// that is not known, or done, is no error.
	Erase(ctx context.Context, device muster.DeviceID) (left bool, err error)
}

// LatestStore keeps the latest values over a restart.
type LatestStore interface {
	// SaveLatest upserts rows and moves the latest cursor to c in one transaction.
	SaveLatest(ctx context.Context, rows []LatestRow, c Cursor) error
	// LoadLatest yields every row.
	LoadLatest(ctx context.Context) iter.Seq2[LatestRow, error]
}

// LatestRow is the newest value of each key of one device.
type LatestRow struct {
	Device muster.DeviceID
	Values []LatestValue // ordered by key
}

// LatestValue is one key's newest value. Newest is by min(Time, Arrival), so that
// a clock that ran ahead hides nothing.
type LatestValue struct {
	muster.Value
	Time    muster.Micros
	Arrival muster.Micros
}

// RangeQuery asks for one device's readings with From <= Time < To.
type RangeQuery struct {
	Device   muster.DeviceID
	Keys     []string // the keys wanted; none means all
	From, To muster.Micros
	Limit    int  // the most readings to yield; 0 means no limit
	Desc     bool // newest first
}

// RangeStore reads readings back. A reading whose wanted keys are all absent is
// left out and does not count towards Limit; the others carry only the wanted
// keys. Readings of one time come in an unspecified order.
type RangeStore interface {
	Range(ctx context.Context, q RangeQuery) iter.Seq2[muster.Reading, error]
	// Rejected returns the newest rejected messages, of device or, when it is
	// empty, of all, newest first, at most limit.
	Rejected(ctx context.Context, device muster.DeviceID, limit int) ([]muster.Rejected, error)
}
