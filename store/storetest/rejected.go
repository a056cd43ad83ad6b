package storetest

import (
	"fmt"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/ingest"
)

func testRejected(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	reject := func(device muster.DeviceID, i int) muster.Rejected {
		return muster.Rejected{
			Device: device, Arrival: epoch + muster.Micros(i), Topic: "devices/x/telemetry", Code: "malformed",
			Reason: fmt.Sprintf("at byte %d: \"温度\" is no key", i), Payload: []byte{0, 1, 0xff, byte(i)}, Size: 1 << 20,
		}
	}
	a, b := make([]muster.Rejected, 6), make([]muster.Rejected, 6)
	for i := range a {
		a[i], b[i] = reject("rej-a", 2*i), reject("rej-b", 2*i+1)
	}
	t.Run("rejected messages are kept with the rows and listed newest first", func(t *testing.T) {
		batch := h.batch(reading("rej-a", epoch, "v", 1.0))
		batch.Rejected = append(slices.Clone(a[:3]), b[:3]...)
		h.wantOutcomes(h.appendBatch(batch), ingest.Stored)
		wantRejected(t, h, "rej-a", 10, a[2], a[1], a[0])
		wantRejected(t, h, "", 10, b[2], a[2], b[1], a[1], b[0], a[0])
	})
	t.Run("a batch of rejected messages alone is kept", func(t *testing.T) {
		batch := h.batch()
		batch.Rejected = append(slices.Clone(a[3:]), b[3:]...)
		h.appendBatch(batch)
		wantRejected(t, h, "rej-b", 10, b[5], b[4], b[3], b[2], b[1], b[0])
	})
	t.Run("the limit takes the newest", func(t *testing.T) {
		wantRejected(t, h, "", 3, b[5], a[5], b[4])
		wantRejected(t, h, "rej-a", 2, a[5], a[4])
	})
	t.Run("an unknown device has none", func(t *testing.T) { wantRejected(t, h, "rej-c", 10) })
	t.Run("a message of no device is listed among all", func(t *testing.T) {
		nobody := muster.Rejected{Arrival: epoch + 100, Topic: "devices/x/oops", Code: "topic", Reason: "no such topic"}
		batch := h.batch()
		batch.Rejected = []muster.Rejected{nobody}
		h.appendBatch(batch)
		wantRejected(t, h, "", 1, nobody)
	})
	t.Run("a rejected message that is replayed is kept once", func(t *testing.T) {
		h.appendBatch(ingest.Batch{From: h.at, To: h.at, Rejected: a})
		wantRejected(t, h, "rej-a", 100, a[5], a[4], a[3], a[2], a[1], a[0])
	})
	t.Run("two different messages refused at the same microsecond are both kept", func(t *testing.T) {
		x, y := reject("rej-d", 200), reject("rej-d", 200)
		y.Payload = []byte("other")
		batch := h.batch()
		batch.Rejected = []muster.Rejected{x, y}
		h.appendBatch(batch)
		if got, err := h.s.Rejected(t.Context(), "rej-d", 10); err != nil || len(got) != 2 {
			t.Errorf("%d are kept, error %v; want 2", len(got), err)
		}
	})
	t.Run("they are there after reopening", func(t *testing.T) {
		h.reopen()
		wantRejected(t, h, "rej-b", 1, b[5])
	})
	t.Run("the newest are kept up to the bound", func(t *testing.T) { rejectedBound(t, h) })
}

func rejectedBound(t *testing.T, h *harness) {
	const slice = 500
	flood := h.db.MaxRejected + 2*slice
	for from := 0; from < flood; from += slice {
		batch := h.batch()
		for i := from; i < from+slice; i++ {
			batch.Rejected = append(batch.Rejected, muster.Rejected{Device: "flood", Arrival: epoch + day + muster.Micros(i), Topic: "t", Code: "time", Reason: "r", Size: i})
		}
		h.appendBatch(batch)
	}
	got, err := h.s.Rejected(t.Context(), "", flood+100)
	if err != nil {
		t.Fatalf("list the rejected: %v", err)
	}
	if len(got) > h.db.MaxRejected || len(got) < h.db.MaxRejected*9/10 {
		t.Errorf("%d are kept, want at most %d and not much fewer", len(got), h.db.MaxRejected)
	}
	for i, r := range got {
		if r.Device != "flood" || r.Size != flood-1-i {
			t.Fatalf("number %d from the newest is %s %d, want flood %d", i, r.Device, r.Size, flood-1-i)
		}
	}
}

func wantRejected(t *testing.T, h *harness, device muster.DeviceID, limit int, want ...muster.Rejected) {
	t.Helper()
	got, err := h.s.Rejected(t.Context(), device, limit)
	if err != nil {
		t.Fatalf("list the rejected of %q: %v", device, err)
	}
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("rejected of %q differ (-want +got):\n%s", device, diff)
	}
}
