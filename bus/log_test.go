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
