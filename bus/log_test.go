package bus

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"muster"
)

func open(t testing.TB, dir string, maxBytes int64) (*Bus, *Log) {
	t.Helper()
	b, err := Open(t.Context(), Config{Dir: dir, MaxBytes: maxBytes, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	l, err := b.TelemetryLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b, l
}

func TestFramesComeBackInOrderAfterReopening(t *testing.T) {
	dir := t.TempDir()
	b, l := open(t, dir, 64<<20)
	for i := range 20 {
		seq, err := l.Append(t.Context(), fmt.Sprint("a-", i), fmt.Appendf(nil, "frame %d", i))
		if err != nil || seq != uint64(i+1) {
			t.Fatalf("append %d: seq %d, %v", i, seq, err)
		}
	}
	before, err := l.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	_, l = open(t, dir, 64<<20)
	after, err := l.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after != before || after.First != 1 || after.Last != 20 || after.Incarnation == "" {
		t.Fatalf("state before %+v, after %+v", before, after)
	}
	for i := range 20 {
		got, err := l.Read(t.Context(), uint64(i+1))
		if err != nil || string(got) != fmt.Sprintf("frame %d", i) {
			t.Fatalf("read %d: %q, %v", i+1, got, err)
		}
	}
}

func TestARepeatedAppendMakesNoSecondFrame(t *testing.T) {
	_, l := open(t, t.TempDir(), 64<<20)
	first, err := l.Append(t.Context(), "x-1", []byte("frame"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.Append(t.Context(), "x-1", []byte("frame"))
	if err != nil || again != first {
		t.Fatalf("first %d, again %d, %v", first, again, err)
	}
}

func TestAFullLogSaysBusyAndTakesAgainAfterAPurge(t *testing.T) {
	_, l := open(t, t.TempDir(), 1<<20)
	frame := bytes.Repeat([]byte("x"), 100<<10)
	var last uint64
	for i := range 20 {
		seq, err := l.Append(t.Context(), fmt.Sprint("f-", i), frame)
		if err != nil {
			if muster.KindOf(err) != muster.Busy {
				t.Fatalf("a full log answered %v", err)
			}
			break
		}
		last = seq
	}
	if last == 0 || last == 20 {
		t.Fatalf("the log took %d frames of 100 KiB in 1 MiB", last)
	}
	if err := l.Purge(t.Context(), last-1); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), "later", frame); err != nil {
		t.Fatalf("append after the purge: %v", err)
	}
	if _, err := l.Read(t.Context(), last-1); muster.KindOf(err) != muster.NotFound {
		t.Fatalf("a purged frame answered %v", err)
	}
}

func TestTwoLogsStandBesideEachOther(t *testing.T) {
	b, tel := open(t, t.TempDir(), 4<<20)
	mqtt, err := b.OpenLog(t.Context(), "MQTT_00", b.SessionBytes())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := mqtt.Append(t.Context(), fmt.Sprint("m-", i), []byte("session")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tel.Append(t.Context(), "m-0", []byte("frame")); err != nil {
		t.Fatal(err)
	}
	if err := mqtt.Purge(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	first, last, n, most, err := mqtt.Bounds(t.Context())
	if err != nil || first != 4 || last != 3 || n != 0 || most != 1<<30 {
		t.Errorf("the purged log has frames %d to %d, %d of %d bytes, %v", first, last, n, most, err)
	}
	first, last, n, most, err = tel.Bounds(t.Context())
	if err != nil || first != 1 || last != 1 || n == 0 || most != 4<<20 {
		t.Errorf("the other log has frames %d to %d, %d of %d bytes, %v", first, last, n, most, err)
	}
}

func TestALogIsRefused(t *testing.T) {
	b, _ := open(t, t.TempDir(), 4<<20)
	for _, tt := range []struct {
		name, log string
		bytes     int64
	}{
		{"by a name that is no subject", "mqtt.*", 1 << 20},
		{"by a name without its shard", "MQTT", 1 << 20},
		{"by a bound beyond the room there is", "MQTT_00", 64 << 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := b.OpenLog(t.Context(), tt.log, tt.bytes); err == nil {
				t.Errorf("log %q of %d bytes was opened", tt.log, tt.bytes)
			}
		})
	}
}

func TestAStoppedServerIsUnavailableAndNotFull(t *testing.T) {
	b, l := open(t, t.TempDir(), 4<<20)
	b.Close()
	if _, err := l.Append(t.Context(), "x", []byte("frame")); muster.KindOf(err) != muster.Unavailable {
		t.Errorf("append answered %v", err)
	}
	if _, _, _, _, err := l.Bounds(t.Context()); muster.KindOf(err) != muster.Unavailable {
		t.Errorf("bounds answered %v", err)
	}
}

func TestRenewChangesTheIncarnationForGood(t *testing.T) {
	dir := t.TempDir()
	b, l := open(t, dir, 64<<20)
	before, _ := l.State(t.Context())
	inc, err := l.Renew(t.Context())
	if err != nil || inc == before.Incarnation {
		t.Fatalf("renewed %q from %q, %v", inc, before.Incarnation, err)
	}
	b.Close()
	_, l = open(t, dir, 64<<20)
	after, _ := l.State(t.Context())
	if after.Incarnation != inc {
		t.Fatalf("incarnation %q after reopening, want %q", after.Incarnation, inc)
	}
}

func BenchmarkAppend(b *testing.B) {
	_, l := open(b, b.TempDir(), 1<<30)
	frame := bytes.Repeat([]byte("x"), 64<<10)
	b.SetBytes(int64(len(frame)))
	for i := 0; b.Loop(); i++ {
		if _, err := l.Append(b.Context(), fmt.Sprint("b-", i), frame); err != nil {
			b.Fatal(err)
		}
	}
}
