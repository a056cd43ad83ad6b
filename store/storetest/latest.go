package storetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/ingest"
)

func testLatest(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	at := func(seq uint64) ingest.Cursor { return ingest.Cursor{Incarnation: "log-1", Seq: seq} }
	num := func(name string, v float64, seen muster.Micros) ingest.LatestValue {
		return ingest.LatestValue{Value: muster.Value{Key: muster.Key{Name: name}, Num: v}, Time: seen, Arrival: seen + second}
	}
	on := ingest.LatestValue{Value: muster.Value{Key: muster.Key{Name: "on", Kind: muster.Bool}, Num: 1}, Time: epoch + 9*day, Arrival: epoch}
	door := ingest.LatestValue{Value: muster.Value{Key: muster.Key{Name: "door", Kind: muster.JSON}, Text: `"open \"x\" 温度"`}, Time: epoch - day, Arrival: epoch}
	a := ingest.LatestRow{Device: "latest-a", Values: []ingest.LatestValue{num("big", math.MaxFloat64, epoch), door, num("hole", math.NaN(), epoch+1), on, num(`t "x"`, -0.1, 7)}}
	b := ingest.LatestRow{Device: "latest-b", Values: []ingest.LatestValue{num("temp", 1, epoch)}}
	none := ingest.LatestRow{Device: "latest-c"}

	t.Run("rows saved are loaded with time and arrival, and the cursor stands where it was put", func(t *testing.T) {
		saveLatest(t, h, at(5), a, b, none)
		wantLatest(t, h, at(5), a, b, none)
	})
	t.Run("a row saved again is replaced whole", func(t *testing.T) {
		b.Values = []ingest.LatestValue{num("hum", 2, epoch+5)}
		saveLatest(t, h, at(9), b)
		wantLatest(t, h, at(9), a, b, none)
	})
	t.Run("the last of two rows of one device in one save is kept", func(t *testing.T) {
		older := ingest.LatestRow{Device: b.Device, Values: []ingest.LatestValue{num("old", 0, epoch)}}
		saveLatest(t, h, at(10), older, b)
		wantLatest(t, h, at(10), a, b, none)
	})
	t.Run("saving no rows moves the cursor", func(t *testing.T) {
		saveLatest(t, h, at(11))
		wantLatest(t, h, at(11), a, b, none)
	})
	t.Run("a cancelled save changes neither rows nor cursor", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		lost := ingest.LatestRow{Device: "latest-lost", Values: []ingest.LatestValue{num("v", 1, epoch)}}
		if err := h.s.SaveLatest(ctx, []ingest.LatestRow{lost}, at(12)); !errors.Is(err, context.Canceled) {
			t.Errorf("save answers %v, want context canceled", err)
		}
		wantLatest(t, h, at(11), a, b, none)
	})
	t.Run("the two cursors are apart", func(t *testing.T) {
		h.append(reading("latest-a", epoch, "temp", 1.0))
		wantLatest(t, h, at(11), a, b, none)
		h.wantCursor(h.at)
	})
	t.Run("rows and cursor are there after reopening", func(t *testing.T) {
		h.reopen()
		wantLatest(t, h, at(11), a, b, none)
	})
	t.Run("the latest cursor may go to a new incarnation", func(t *testing.T) {
		c := ingest.Cursor{Incarnation: "log-2", Seq: 1}
		saveLatest(t, h, c, b)
		wantLatest(t, h, c, a, b, none)
	})
	t.Run("5,000 devices are loaded", func(t *testing.T) {
		many := make([]ingest.LatestRow, ingest.MaxBatch)
		for i := range many {
			many[i] = ingest.LatestRow{Device: deviceName("latest", i), Values: []ingest.LatestValue{num("v", float64(i), epoch)}}
		}
		saveLatest(t, h, at(12), many...)
		wantLatest(t, h, at(12), slices.Concat(many, []ingest.LatestRow{a, b, none})...)
	})
}

func saveLatest(t *testing.T, h *harness, c ingest.Cursor, rows ...ingest.LatestRow) {
	t.Helper()
	if err := h.s.SaveLatest(t.Context(), rows, c); err != nil {
		t.Fatalf("save the latest values: %v", err)
	}
}

func wantLatest(t *testing.T, h *harness, cursor ingest.Cursor, rows ...ingest.LatestRow) {
	t.Helper()
	_, got, err := h.s.Cursors(t.Context())
	if err != nil || got != cursor {
		t.Errorf("the latest cursor is %+v, error %v; want %+v", got, err, cursor)
	}
	want := map[muster.DeviceID]ingest.LatestRow{}
	for _, r := range rows {
		want[r.Device] = canonicalLatest(r)
	}
	found := map[muster.DeviceID]ingest.LatestRow{}
	for r, err := range h.s.LoadLatest(t.Context()) {
		if err != nil {
			t.Fatalf("load the latest values: %v", err)
		}
		if _, twice := found[r.Device]; twice {
			t.Errorf("%s is loaded twice", r.Device)
		}
		found[r.Device] = canonicalLatest(r)
	}
	if diff := gocmp.Diff(want, found, cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the latest values differ (-want +got):\n%s", diff)
	}
}

func canonicalLatest(r ingest.LatestRow) ingest.LatestRow {
	out := ingest.LatestRow{Device: r.Device}
	for _, v := range r.Values {
		if v.Key.Kind == muster.JSON {
			v.Text = canonical(v.Text)
		}
		out.Values = append(out.Values, v)
	}
	return out
}
