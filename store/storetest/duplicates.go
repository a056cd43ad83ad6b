package storetest

import (
	"math"
	"slices"
	"testing"

	"muster"
	"muster/ingest"
)

// duplicateCase is what a device sends, batch by batch; the test sets the device.
type duplicateCase struct {
	name    string
	batches [][]muster.Reading
	want    [][]ingest.Outcome
	left    []muster.Reading
}

// duplicateRows are cases of what is the same row.
func duplicateRows() []duplicateCase {
	const s, d, r = ingest.Stored, ingest.Duplicate, ingest.Replaced
	return []duplicateCase{
		{
			"an equal row in a later batch is a duplicate",
			rows(row(0, "a", 1.0), row(0, "a", 1.0)), outcomes(one(s), one(d)),
			[]muster.Reading{row(0, "a", 1.0)},
		},
		{
			"other values in a later batch replace",
			rows(row(0, "a", 1.0), row(0, "a", 2.0)), outcomes(one(s), one(r)),
			[]muster.Reading{row(0, "a", 2.0)},
		},
		{
			"an equal row in the same batch is a duplicate",
			[][]muster.Reading{{row(0, "a", 1.0), row(0, "a", 1.0)}},
			outcomes([]ingest.Outcome{s, d}),
			[]muster.Reading{row(0, "a", 1.0)},
		},
		{
			"the later row of one batch replaces the earlier",
			[][]muster.Reading{{row(0, "a", 1.0), row(1, "a", 9.0), row(0, "a", 2.0), row(0, "a", 2.0), row(0, "a", 1.0)}},
			outcomes([]ingest.Outcome{s, s, r, d, r}),
			[]muster.Reading{row(0, "a", 1.0), row(1, "a", 9.0)},
		},
		{
			"replacing and coming back in one batch over a stored row",
			[][]muster.Reading{{row(0, "a", 1.0)}, {row(0, "a", 2.0), row(0, "a", 1.0), row(0, "a", 1.0)}},
			outcomes(one(s), []ingest.Outcome{r, r, d}),
			[]muster.Reading{row(0, "a", 1.0)},
		},
		{
			"new rows among duplicates are told apart",
			[][]muster.Reading{{row(1, "a", 1.0), row(3, "a", 3.0)}, {row(0, "a", 0.0), row(1, "a", 1.0), row(2, "a", 2.0), row(3, "a", 4.0), row(4, "a", 4.0), row(0, "a", 0.0)}},
			outcomes([]ingest.Outcome{s, s}, []ingest.Outcome{s, d, s, r, s, d}),
			[]muster.Reading{row(0, "a", 0.0), row(1, "a", 1.0), row(2, "a", 2.0), row(3, "a", 4.0), row(4, "a", 4.0)},
		},
	}
}

// duplicateValues are cases of what are equal values and layouts.
func duplicateValues() []duplicateCase {
	const s, d, r = ingest.Stored, ingest.Duplicate, ingest.Replaced
	nan := math.NaN()
	return []duplicateCase{
		{
			"a hole equals a hole",
			rows(row(0, "a", nan, "b", 1.0), row(0, "a", nan, "b", 1.0)), outcomes(one(s), one(d)),
			[]muster.Reading{row(0, "a", nan, "b", 1.0)},
		},
		{
			"a hole of other bits is the same hole",
			rows(row(0, "a", nan), row(0, "a", math.Float64frombits(0xFFF0000000000123))), outcomes(one(s), one(d)),
			[]muster.Reading{row(0, "a", nan)},
		},
		{
			"a value replaces a hole and a hole a value",
			rows(row(0, "a", nan), row(0, "a", 1.0), row(0, "a", nan)), outcomes(one(s), one(r), one(r)),
			[]muster.Reading{row(0, "a", nan)},
		},
		{
			"equal JSON values are duplicates",
			rows(row(0, "a", 1.0, "b", text(`"x"`)), row(0, "a", 1.0, "b", text(`"x"`))), outcomes(one(s), one(d)),
			[]muster.Reading{row(0, "a", 1.0, "b", text(`"x"`))},
		},
		{
			"another JSON value replaces",
			rows(row(0, "a", 1.0, "b", text(`"x"`)), row(0, "a", 1.0, "b", text(`"y"`))), outcomes(one(s), one(r)),
			[]muster.Reading{row(0, "a", 1.0, "b", text(`"y"`))},
		},
		{
			"another layout at the same time is another row",
			rows(row(0, "a", 1.0), row(0, "a", 1.0, "b", 1.0), row(0, "b", 1.0)), outcomes(one(s), one(s), one(s)),
			[]muster.Reading{row(0, "a", 1.0), row(0, "a", 1.0, "b", 1.0), row(0, "b", 1.0)},
		},
		{
			"an empty layout is one row too",
			rows(row(0), row(0)), outcomes(one(s), one(d)),
			[]muster.Reading{row(0)},
		},
		{
			"loose layouts are told apart and replaced in the same way",
			rows(row(0, loose{}, "a", 1.0), row(0, loose{}, "b", 1.0), row(0, loose{}, "a", 1.0), row(0, loose{}, "b", 2.0), row(0, loose{}, "b", nan), row(0, loose{}, "b", nan)),
			outcomes(one(s), one(s), one(d), one(r), one(r), one(d)),
			[]muster.Reading{row(0, "a", 1.0), row(0, "b", nan)},
		},
	}
}

func testDuplicates(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	for i, c := range slices.Concat(duplicateRows(), duplicateValues()) {
		t.Run(c.name, func(t *testing.T) {
			device := muster.DeviceID("dup-" + string(rune('a'+i)))
			for j, b := range c.batches {
				h.wantOutcomes(h.append(of(device, b)...), c.want[j]...)
			}
			h.wantStored(device, of(device, c.left)...)
		})
	}
	t.Run("the same row of two devices is two rows", func(t *testing.T) {
		h.wantOutcomes(h.append(reading("twin-1", epoch, "a", 1.0), reading("twin-2", epoch, "a", 1.0)), ingest.Stored, ingest.Stored)
	})
	t.Run("a full batch sent twice is all duplicates", func(t *testing.T) { duplicateBatch(t, h) })
}

func duplicateBatch(t *testing.T, h *harness) {
	full := make([]muster.Reading, ingest.MaxBatch)
	for i := range full {
		full[i] = reading("full", epoch+muster.Micros(i)*second, "a", float64(i), "b", 1.0)
	}
	h.append(full...)
	for i, o := range h.append(full...) {
		if o != ingest.Duplicate {
			t.Fatalf("outcome %d is %d, want duplicate", i, o)
		}
	}
	h.wantCount(`SELECT count(*) FROM telemetry_points WHERE device = 'full'`, 2*ingest.MaxBatch)
}

// row is a reading i seconds after the epoch; its device is set later.
func row(i int, pairs ...any) muster.Reading {
	return reading("", epoch+muster.Micros(i)*second, pairs...)
}

// rows are batches of one reading each.
func rows(rs ...muster.Reading) [][]muster.Reading {
	out := make([][]muster.Reading, 0, len(rs))
	for _, r := range rs {
		out = append(out, []muster.Reading{r})
	}
	return out
}

func one(o ingest.Outcome) []ingest.Outcome { return []ingest.Outcome{o} }

func outcomes(o ...[]ingest.Outcome) [][]ingest.Outcome { return o }

// of returns rows as device's.
func of(device muster.DeviceID, rows []muster.Reading) []muster.Reading {
	out := make([]muster.Reading, 0, len(rows))
	for _, r := range rows {
		r.Device = device
		out = append(out, r)
	}
	return out
}
