package storetest

import (
	"testing"

	"muster"
	"muster/ingest"
)

func testCursors(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	at := func(inc string, seq uint64) ingest.Cursor { return ingest.Cursor{Incarnation: inc, Seq: seq} }
	n := 0
	next := func() muster.Reading { n++; return reading("cursor", epoch+muster.Micros(n), "v", float64(n)) }
	stored := func() int64 { return int64(len(h.all("cursor"))) }

	t.Run("the cursor moves with the rows", func(t *testing.T) {
		h.appendBatch(ingest.Batch{From: ingest.Cursor{}, To: at("log-1", 7), Readings: []muster.Reading{next()}})
		h.wantCursor(at("log-1", 7))
		h.wantCount(`SELECT count(*) FROM telemetry_points WHERE device = 'cursor'`, 1)
	})
	refused := []struct {
		name     string
		from, to ingest.Cursor
	}{
		{"a cursor further back is a conflict and stores nothing", at("log-1", 3), at("log-1", 8)},
		{"a cursor further on is a conflict and stores nothing", at("log-1", 8), at("log-1", 9)},
		{"a cursor of another incarnation is a conflict and stores nothing", at("log-2", 7), at("log-2", 8)},
		{"no cursor is a conflict and stores nothing once there is one", ingest.Cursor{}, at("log-1", 8)},
	}
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			before := stored()
			b := ingest.Batch{
				From: c.from, To: c.to, Readings: []muster.Reading{next()},
				Rejected: []muster.Rejected{{Device: "cursor", Arrival: epoch, Topic: "t", Code: "time", Reason: "r"}},
			}
			if _, err := h.s.Append(t.Context(), b); muster.KindOf(err) != muster.Conflict {
				t.Errorf("append answers %v of kind %v, want a conflict", err, muster.KindOf(err))
			}
			h.wantCursor(at("log-1", 7))
			if after := stored(); after != before {
				t.Errorf("%d readings after the conflict, %d before", after, before)
			}
			if r, err := h.s.Rejected(t.Context(), "cursor", 10); err != nil || len(r) != 0 {
				t.Errorf("rejected are %v, error %v; want none", r, err)
			}
		})
	}
	t.Run("a batch whose from equals its to is stored and leaves the cursor alone", func(t *testing.T) {
		before := stored()
		h.part(next(), next())
		h.wantCursor(at("log-1", 7))
		if after := stored(); after != before+2 {
			t.Errorf("%d readings, want %d", after, before+2)
		}
	})
	t.Run("so is one whose from and to are no cursor at all", func(t *testing.T) {
		before := stored()
		h.appendBatch(ingest.Batch{Readings: []muster.Reading{next()}})
		h.wantCursor(at("log-1", 7))
		if after := stored(); after != before+1 {
			t.Errorf("%d readings, want %d", after, before+1)
		}
	})
	t.Run("the cursor goes on from where it stands", func(t *testing.T) {
		h.appendBatch(ingest.Batch{From: at("log-1", 7), To: at("log-1", 20), Readings: []muster.Reading{next()}})
		h.wantCursor(at("log-1", 20))
	})
	t.Run("a log made anew goes on from the old incarnation's cursor", func(t *testing.T) {
		h.appendBatch(ingest.Batch{From: at("log-1", 20), To: at("log-2", 2), Readings: []muster.Reading{next()}})
		h.wantCursor(at("log-2", 2))
	})
	t.Run("the largest sequence number is kept", func(t *testing.T) {
		h.appendBatch(ingest.Batch{From: at("log-2", 2), To: at("log-2", 1<<63-1)})
		h.wantCursor(at("log-2", 1<<63-1))
	})
	t.Run("the cursor is there after reopening", func(t *testing.T) {
		h.reopen()
		h.wantCursor(at("log-2", 1<<63-1))
	})
}
