package storetest

import (
	"context"
	"fmt"
	"testing"

	"muster"
	"muster/ingest"
)

// eraseDays and eraseDaily give a device more rows than one Erase deletes, on many
// days of more than a year.
const (
	eraseDays  = 500
	eraseDaily = 32
)

func testErase(t *testing.T, fresh func(t testing.TB) Database) {
	t.Run("a device that nobody knows leaves nothing to erase", func(t *testing.T) {
		h := start(t, fresh)
		if h.erase("nobody") {
			t.Error("something is left of it")
		}
	})
	t.Run("all of a device goes and none of its neighbours", func(t *testing.T) { eraseAll(t, start(t, fresh)) })
	t.Run("a device begun is gone for readers at once and for good after restarts in between", func(t *testing.T) { eraseRestarted(t, start(t, fresh)) })
	t.Run("rejected messages go beyond what one call deletes", func(t *testing.T) { eraseRejected(t, start(t, fresh)) })
	t.Run("a cancelled call erases nothing or a part", func(t *testing.T) { eraseCancelled(t, start(t, fresh)) })
}

// erase calls Erase once.
func (h *harness) erase(device muster.DeviceID) (left bool) {
	h.t.Helper()
	left, err := h.s.Erase(context.Background(), device)
	if err != nil {
		h.t.Fatalf("erase %s: %v", device, err)
	}
	return left
}

// eraseToEnd returns how often it called Erase.
func (h *harness) eraseToEnd(device muster.DeviceID) int {
	h.t.Helper()
	for n := 1; n < 100_000; n++ {
		if !h.erase(device) {
			return n
		}
	}
	h.t.Fatalf("erasing %s does not end", device)
	return 0
}

// life gives a device readings on many days, late ones among them, loose and JSON
// ones, latest values and rejected messages, and returns its readings.
func (h *harness) life(device muster.DeviceID, days int) []muster.Reading {
	h.t.Helper()
	rows := make([]muster.Reading, 0, days*eraseDaily+4)
	for d := range days {
		for i := range eraseDaily {
			rows = append(rows, reading(device, epoch-muster.Micros(d)*day+muster.Micros(i)*second, "temp", float64(i), "on", i%2 == 0))
		}
	}
	rows = append(rows,
		reading(device, epoch-20*365*day, "temp", 1.0), // late
		reading(device, epoch, loose{}, "temp", 2.0),
		reading(device, epoch, "state", text(`{"a":[1]}`), string(device)+"-own", 3.0),
		reading(device, epoch+second, "state", text(`"on"`)))
	for from := 0; from < len(rows); from += ingest.MaxBatch {
		h.append(rows[from:min(from+ingest.MaxBatch, len(rows))]...)
	}
	rejected := make([]muster.Rejected, 5)
	for i := range rejected {
		rejected[i] = muster.Rejected{
			Device: device, Arrival: epoch + muster.Micros(i), Topic: "devices/x/telemetry", Code: "malformed", Reason: "no", Payload: []byte{byte(i)}, Size: 1,
		}
	}
	b := h.batch()
	b.Rejected = rejected
	h.appendBatch(b)
	h.saveLatest(device)
	return rows
}

func (h *harness) saveLatest(device muster.DeviceID) {
	h.t.Helper()
	v := ingest.LatestValue{Value: muster.Value{Key: muster.Key{Name: "temp"}, Num: 2}, Time: epoch, Arrival: epoch}
	row := ingest.LatestRow{Device: device, Values: []ingest.LatestValue{v}}
	if err := h.s.SaveLatest(context.Background(), []ingest.LatestRow{row}, h.at); err != nil {
		h.t.Fatalf("save the latest values: %v", err)
	}
}

// wantLatest fails unless device has latest values, or none.
func (h *harness) wantLatest(device muster.DeviceID, want bool) {
	h.t.Helper()
	have := false
	for r, err := range h.s.LoadLatest(context.Background()) {
		if err != nil {
			h.t.Fatalf("load the latest values: %v", err)
		}
		have = have || r.Device == device
	}
	if have != want {
		h.t.Errorf("%s has latest values: %v, want %v", device, have, want)
	}
}

// wantUnseen fails when a reader finds readings or latest values of device, by the
// store or by SQL.
func (h *harness) wantUnseen(device muster.DeviceID) {
	h.t.Helper()
	h.wantStored(device)
	h.wantLatest(device, false)
	h.wantCount(fmt.Sprintf(`SELECT count(*) FROM telemetry_points WHERE device = '%s'`, device), 0)
}

// wantAlive fails unless device has all that life gave it.
func (h *harness) wantAlive(device muster.DeviceID, rows []muster.Reading) {
	h.t.Helper()
	h.wantStored(device, rows...)
	h.wantLatest(device, true)
	h.wantRejectedCount(device, 5)
}

func (h *harness) wantRejectedCount(device muster.DeviceID, want int) {
	h.t.Helper()
	got, err := h.s.Rejected(context.Background(), device, 10_000)
	if err != nil {
		h.t.Fatalf("list the rejected: %v", err)
	}
	if len(got) != want {
		h.t.Errorf("%s has %d rejected messages, want %d", device, len(got), want)
	}
}

// wantRowsInAll fails unless the tables themselves hold so much.
func (h *harness) wantRowsInAll(readings, latest, rejected, buried int64) {
	h.t.Helper()
	h.wantCount(`SELECT count(*) FROM telemetry_default`, readings)
	h.wantCount(`SELECT count(*) FROM latest`, latest)
	h.wantCount(`SELECT count(*) FROM rejected`, rejected)
	h.wantCount(`SELECT count(*) FROM erased_device`, buried)
}

func eraseAll(t *testing.T, h *harness) {
	before := h.life("before", 3)
	doomed := h.life("doomed", eraseDays)
	after := h.life("after", 3)
	h.wantCount(`SELECT count(*) FROM telemetry_default`, int64(len(before)+len(doomed)+len(after)))
	at := h.at
	calls := h.eraseToEnd("doomed")
	if least := len(doomed) / 5000; calls < least {
		t.Errorf("%d calls erase %d rows, want at least %d: one deletes too much", calls, len(doomed), least)
	}
	t.Logf("%d rows in %d calls", len(doomed), calls)
	h.wantUnseen("doomed")
	h.wantRejectedCount("doomed", 0)
	h.wantAlive("before", before)
	h.wantAlive("after", after)
	h.wantRowsInAll(int64(len(before)+len(after)), 2, 10, 0)
	h.wantCursor(at)
	if h.erase("doomed") {
		t.Error("something is left of a device that was erased")
	}

	again := []muster.Reading{doomed[0], reading("doomed", epoch, "temp", 9.0)}
	h.wantOutcomes(h.append(again...), ingest.Stored, ingest.Stored)
	h.wantStored("doomed", again...)
	h.saveLatest("doomed")
	h.reopen()
	h.wantStored("doomed", again...)
	h.wantLatest("doomed", true)
	h.wantAlive("before", before)
}

func eraseRestarted(t *testing.T, h *harness) {
	before := h.life("before", 3)
	doomed := h.life("doomed", eraseDays)
	if !h.erase("doomed") {
		t.Fatalf("one call erases %d rows", len(doomed))
	}
	h.wantUnseen("doomed")
	var fresh []muster.Reading
	for i := 0; ; i++ { // a device that comes meanwhile inherits nothing
		name := muster.DeviceID(fmt.Sprintf("fresh-%d", i))
		r := reading(name, epoch+muster.Micros(i), "temp", float64(i))
		h.wantOutcomes(h.append(r), ingest.Stored)
		h.wantStored(name, r)
		fresh = append(fresh, r)
		h.reopen()
		left := h.erase("doomed")
		h.wantUnseen("doomed")
		if !left {
			break
		}
	}
	if len(fresh) < 3 {
		t.Errorf("it took %d calls; the test wants more", len(fresh)+1)
	}
	h.wantAlive("before", before)
	for _, r := range fresh {
		h.wantStored(r.Device, r)
	}
	h.wantRowsInAll(int64(len(before)+len(fresh)), 1, 5, 0)
	h.wantRejectedCount("doomed", 0)
}

func eraseRejected(t *testing.T, h *harness) {
	most := h.db.MaxRejected - 1
	for from := 0; from < most; from += 500 {
		b := h.batch()
		for i := from; i < min(from+500, most); i++ {
			b.Rejected = append(b.Rejected, muster.Rejected{
				Device: "noisy", Arrival: epoch + muster.Micros(i), Topic: "t", Code: "malformed", Reason: "no", Payload: []byte{1}, Size: 1,
			})
		}
		h.appendBatch(b)
	}
	other := muster.Rejected{Device: "other", Arrival: epoch, Topic: "t", Code: "malformed", Reason: "no", Payload: []byte{1}, Size: 1}
	b := h.batch()
	b.Rejected = []muster.Rejected{other}
	h.appendBatch(b)
	h.eraseToEnd("noisy")
	h.wantRejectedCount("noisy", 0)
	h.wantRejectedCount("other", 1)
	h.wantRowsInAll(0, 0, 1, 0)
	b = h.batch() // the bound counts what is left
	b.Rejected = []muster.Rejected{{Device: "noisy", Arrival: epoch, Topic: "t", Code: "malformed", Reason: "no", Payload: []byte{1}, Size: 1}}
	h.appendBatch(b)
	h.wantRejectedCount("other", 1)
	h.wantRejectedCount("noisy", 1)
}

func eraseCancelled(t *testing.T, h *harness) {
	rows := h.life("doomed", 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left, err := h.s.Erase(ctx, "doomed"); err == nil || !left || muster.KindOf(err) != muster.Unavailable {
		t.Errorf("a cancelled call answers %v, %v; want that something is left, and an error of kind unavailable", left, err)
	}
	h.wantAlive("doomed", rows)
	h.eraseToEnd("doomed")
	h.wantUnseen("doomed")
	h.wantRowsInAll(0, 0, 0, 0)
}
