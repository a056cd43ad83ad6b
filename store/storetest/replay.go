package storetest

import (
	"testing"

	"muster"
	"muster/ingest"
)

func testReplay(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	const s, d, r = ingest.Stored, ingest.Duplicate, ingest.Replaced
	t.Run("a frame replayed after a crash between its parts makes no second row", func(t *testing.T) {
		frame := []muster.Reading{
			reading("crash", epoch, "v", 1.0), reading("crash", epoch+1, loose{}, "v", 2.0, "s", text(`"x"`)),
			reading("crash", epoch+2, "v", 3.0), reading("crash", epoch+3, "v", 4.0, "w", true),
		}
		before := h.at
		h.wantOutcomes(h.part(frame[:2]...), s, s)
		h.reopen()
		h.wantCursor(before)
		h.wantOutcomes(h.append(frame...), d, d, s, s)
		h.wantCursor(h.at)
		h.wantStored("crash", frame...)
		h.wantCount(`SELECT count(*) FROM telemetry_points WHERE device = 'crash'`, 6)
	})
	t.Run("a replay of replacing rows ends where the log ends", func(t *testing.T) {
		frame := []muster.Reading{reading("again", epoch, "v", 1.0), reading("again", epoch, "v", 2.0), reading("again", epoch, "v", 3.0)}
		h.wantOutcomes(h.part(frame...), s, r, r)
		h.reopen()
		h.wantOutcomes(h.append(frame...), r, r, r)
		h.wantStored("again", frame[2])
		h.wantCount(`SELECT count(*) FROM telemetry_points WHERE device = 'again'`, 1)
	})
	t.Run("a frame refused for its cursor and sent again is stored once", func(t *testing.T) {
		row := reading("fenced", epoch, "v", 1.0)
		stale := h.batch(row)
		stale.From.Seq--
		if _, err := h.s.Append(t.Context(), stale); muster.KindOf(err) != muster.Conflict {
			t.Errorf("append answers %v, want a conflict", err)
		}
		h.wantOutcomes(h.append(row), s)
		h.wantCount(`SELECT count(*) FROM telemetry_points WHERE device = 'fenced'`, 1)
	})
	t.Run("keys first seen in an append that failed are stored by the next", func(t *testing.T) {
		bad := reading("retry", epoch+1, "retry-key-1", 1.0, "retry-key-2", text(`"x"`))
		bad.Numbers = nil
		good := reading("retry", epoch, "retry-key-1", 1.0, "retry-key-2", text(`"x"`))
		if _, err := h.s.Append(t.Context(), h.batch(good, bad)); muster.KindOf(err) != muster.Invalid {
			t.Errorf("append answers %v, want invalid", err)
		}
		h.wantOutcomes(h.append(good), s)
		h.wantStored("retry", good)
		h.reopen()
		h.wantOutcomes(h.append(good), d)
		h.wantStored("retry", good)
	})
}
