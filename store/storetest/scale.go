package storetest

import (
	"testing"

	"muster"
	"muster/ingest"
)

func testScale(t *testing.T, fresh func(t testing.TB) Database) {
	t.Run("100,000 devices", func(t *testing.T) { manyDevices(t, start(t, fresh)) })
	t.Run("3,000 dates of one device in one batch", func(t *testing.T) { manyDates(t, start(t, fresh)) })
	t.Run("3,000 layouts in one batch", func(t *testing.T) { manyLayouts(t, start(t, fresh)) })
}

func manyDevices(t *testing.T, h *harness) {
	const devices = 100_000
	layout := muster.NewLayout([]muster.Key{{Name: "temp"}})
	for from := 0; from < devices; from += ingest.MaxBatch {
		rows := make([]muster.Reading, ingest.MaxBatch)
		for i := range rows {
			n := from + i
			rows[i] = muster.Reading{Device: deviceName("many", n), Time: epoch + muster.Micros(n), Layout: layout, Numbers: []float64{float64(n)}}
		}
		for i, o := range h.append(rows...) {
			if o != ingest.Stored {
				t.Fatalf("outcome of device %d is %d, want stored", from+i, o)
			}
		}
	}
	h.wantCount(`SELECT count(*) FROM telemetry_points`, devices)
	for n := 0; n < devices; n += 9_973 {
		want := muster.Reading{Device: deviceName("many", n), Time: epoch + muster.Micros(n), Layout: layout, Numbers: []float64{float64(n)}}
		h.wantStored(want.Device, want)
	}
	n := devices / 2
	again := muster.Reading{Device: deviceName("many", n), Time: epoch + muster.Micros(n), Layout: layout, Numbers: []float64{float64(n)}}
	h.wantOutcomes(h.append(again), ingest.Duplicate)
}

func manyDates(t *testing.T, h *harness) {
	const dates = 3_000
	rows := make([]muster.Reading, dates)
	for i := range rows {
		rows[i] = reading("dates", epoch-muster.Micros(i)*day, "v", float64(i))
	}
	for i, o := range h.append(rows...) {
		if o != ingest.Stored {
			t.Fatalf("outcome %d is %d, want stored", i, o)
		}
	}
	h.wantCursor(h.at)
	h.wantCount(`SELECT count(*) FROM telemetry_points WHERE device = 'dates'`, dates)
	h.wantStored("dates", rows...)
	for i, o := range h.append(rows...) {
		if o != ingest.Duplicate {
			t.Fatalf("outcome %d of the second time is %d, want duplicate", i, o)
		}
	}
}

func manyLayouts(t *testing.T, h *harness) {
	const layouts = 3_000
	rows := make([]muster.Reading, layouts)
	for i := range rows {
		rows[i] = reading("layouts", epoch, string(deviceName("key", i/2)), float64(i), string(deviceName("other", i)), float64(i))
	}
	for i, o := range h.append(rows...) {
		if o != ingest.Stored {
			t.Fatalf("outcome %d is %d, want stored", i, o)
		}
	}
	h.wantStored("layouts", rows...)
	for i, o := range h.append(rows...) {
		if o != ingest.Duplicate {
			t.Fatalf("outcome %d of the second time is %d, want duplicate", i, o)
		}
	}
}
