package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"muster"
	"muster/ingest"
)

func testAppend(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	t.Run("an empty store has no cursor, no latest and no readings", func(t *testing.T) {
		w, l, err := h.s.Cursors(t.Context())
		if err != nil || w != (ingest.Cursor{}) || l != (ingest.Cursor{}) {
			t.Errorf("cursors are %+v and %+v, error %v; want zero and none", w, l, err)
		}
		for r, err := range h.s.LoadLatest(t.Context()) {
			t.Errorf("latest has %+v, error %v", r, err)
		}
		if rows := h.all("nobody"); len(rows) != 0 {
			t.Errorf("an unknown device has %d readings", len(rows))
		}
	})
	t.Run("what was appended is read back", func(t *testing.T) {
		a := reading("a-1", epoch, "temp", 21.5, "hum", 40.0)
		b := reading("a-1", epoch+second, "temp", 21.6, "hum", 41.0)
		c := reading("a-2", epoch, "temp", -3.25)
		h.wantOutcomes(h.append(a, b, c), ingest.Stored, ingest.Stored, ingest.Stored)
		h.wantStored("a-1", a, b)
		h.wantStored("a-2", c)
	})
	t.Run("readings that share a layout's pointer are read back", func(t *testing.T) {
		a := reading("a-3", epoch, "temp", 1.0, "hum", 2.0)
		b := a
		b.Time, b.Numbers = epoch+1, []float64{3, 4}
		h.wantOutcomes(h.append(a, b), ingest.Stored, ingest.Stored)
		c := b
		c.Time, c.Numbers = epoch+2, []float64{5, 6}
		h.wantOutcomes(h.append(c), ingest.Stored)
		h.wantStored("a-3", a, b, c)
	})
	t.Run("device ids differ by case", func(t *testing.T) {
		a, b := reading("Case", epoch, "v", 1.0), reading("case", epoch, "v", 2.0)
		h.wantOutcomes(h.append(a, b), ingest.Stored, ingest.Stored)
		h.wantStored("Case", a)
		h.wantStored("case", b)
	})
	t.Run("late and out-of-order rows are kept", func(t *testing.T) { appendLate(t, h) })
	t.Run("an empty batch moves the cursor", func(t *testing.T) {
		h.wantOutcomes(h.append())
		h.wantCursor(h.at)
	})
	t.Run("a batch of the largest size is stored whole", func(t *testing.T) {
		rows := make([]muster.Reading, ingest.MaxBatch)
		for i := range rows {
			rows[i] = reading("large", epoch+muster.Micros(i), "v", float64(i))
		}
		for i, o := range h.append(rows...) {
			if o != ingest.Stored {
				t.Fatalf("outcome %d is %d, want stored", i, o)
			}
		}
		h.wantCount(`SELECT count(*) FROM telemetry_points WHERE device = 'large'`, ingest.MaxBatch)
	})
	t.Run("what can never be stored is refused as Invalid and nothing is kept", func(t *testing.T) { appendInvalid(t, h) })
	t.Run("a cancelled append stores nothing and the next one works", func(t *testing.T) { appendCancelled(t, h) })
	t.Run("after Sync the data is there on reopening", func(t *testing.T) {
		a := reading("synced", epoch, "v", 1.0)
		h.append(a)
		if err := h.s.Sync(t.Context()); err != nil {
			t.Fatalf("sync: %v", err)
		}
		h.reopen()
		h.wantStored("synced", a)
	})
}

func appendLate(t *testing.T, h *harness) {
	late := []muster.Reading{
		reading("late", epoch+5*second, "v", 5.0),
		reading("late", epoch-3*day, "v", 1.0),
		reading("late", epoch+4*second, "v", 4.0),
		reading("late", epoch-400*day, "v", 0.0),
	}
	h.wantOutcomes(h.append(late...), ingest.Stored, ingest.Stored, ingest.Stored, ingest.Stored)
	more := reading("late", epoch-200*day, "v", 0.5)
	h.wantOutcomes(h.append(more), ingest.Stored)
	h.wantStored("late", slices.Concat(late, []muster.Reading{more})...)
	var last muster.Micros = -1 << 62
	for _, r := range h.all("late") {
		if r.Time < last {
			t.Errorf("range is not in order of time: %d after %d", r.Time, last)
		}
		last = r.Time
	}
}

func appendInvalid(t *testing.T, h *harness) {
	good := reading("bad", epoch, "v", 1.0)
	short := reading("bad", epoch+1, "v", 1.0, "w", 2.0)
	short.Numbers = short.Numbers[:1]
	nothing := reading("bad", epoch+2, "v", text(`"x"`))
	nothing.Texts = nil
	cases := map[string]muster.Reading{
		"fewer numbers than keys": short,
		"fewer texts than keys":   nothing,
		"a text that is not JSON": reading("bad", epoch+3, "v", text(`{"a":`)),
		"no text at all":          reading("bad", epoch+3, "v", text(``)),
		"two JSON texts in one":   reading("bad", epoch+3, "v", text(`1,2`)),
		"no layout":               {Device: "bad", Time: epoch},
		"loose, text not JSON":    reading("bad", epoch+3, loose{}, "v", text(`nil`)),
	}
	for name, bad := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := h.s.Append(t.Context(), h.batch(good, bad))
			if err == nil || muster.KindOf(err) != muster.Invalid {
				t.Errorf("append answers %v of kind %v, want one of kind invalid", err, muster.KindOf(err))
			}
		})
	}
	h.wantCursor(h.at)
	h.wantStored("bad")
	h.wantOutcomes(h.append(good), ingest.Stored)
	h.wantStored("bad", good)
}

func appendCancelled(t *testing.T, h *harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := reading("cancelled", epoch, "fresh-key", 1.0)
	if _, err := h.s.Append(ctx, h.batch(a)); !errors.Is(err, context.Canceled) {
		t.Errorf("append answers %v, want context canceled", err)
	}
	h.wantCursor(h.at)
	h.wantStored("cancelled")
	h.wantOutcomes(h.append(a), ingest.Stored)
	h.wantStored("cancelled", a)
}
