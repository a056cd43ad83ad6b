package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"muster"
)

// filled returns a log of n frames of one record each: r1, r2, ...
func filled(t *testing.T, n int) *memLog {
	t.Helper()
	log := newMemLog(0)
	fill(t, log, n)
	return log
}

func fill(t *testing.T, log *memLog, n int) {
	t.Helper()
	j, _ := open(t, log, nil)
	stop := run(t, j)
	for range n {
		j.Write(fmt.Appendf(nil, "r%d", log.last+1), nil, nil, nil)
		flush(t, j)
	}
	stop()
}

func replayErr(t *testing.T, log Log) error {
	t.Helper()
	j, err := New(Config{Log: log, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return j.Replay(t.Context(), func(uint64, []byte) error { return nil })
}

// needed has every frame needed: an item in the first holds the floor.
func needed(t *testing.T, n int) *memLog {
	t.Helper()
	log := newMemLog(0)
	j, _ := open(t, log, untouched)
	stop := run(t, j)
	first := newText("r1")
	for i := range n {
		put := &first.Item
		if i > 0 {
			put = nil
		}
		j.Write(fmt.Appendf(nil, "r%d", i+1), put, nil, nil)
		flush(t, j)
	}
	stop()
	return log
}

func TestATornLastFrameIsCutForGood(t *testing.T) {
	for _, tt := range []struct {
		name string
		tear func(l *memLog)
	}{
		{"cut short", func(l *memLog) { l.frames[5] = l.frames[5][:len(l.frames[5])-3] }},
		{"one bit turned", func(l *memLog) { l.flip(5) }},
		{"empty", func(l *memLog) { l.frames[5] = nil }},
		{"not there", func(l *memLog) { delete(l.frames, 5) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := needed(t, 5)
			tt.tear(log)
			j, got := open(t, log, nil)
			if diff := cmp.Diff([]string{"r1", "r2", "r3", "r4"}, got); diff != "" {
				t.Fatal(diff)
			}
			hold := newText("r1")
			j.Place(&hold.Item, 1)
			stop := run(t, j)
			j.Write([]byte("after"), nil, nil, nil)
			flush(t, j)
			stop()
			_, got = open(t, log, nil)
			if diff := cmp.Diff([]string{"r1", "r2", "r3", "r4", "after"}, got); diff != "" {
				t.Error("the frame after the torn one:", diff)
			}
		})
	}
}

func TestDamageInTheMiddleNamesTheFrame(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(l *memLog)
		want   string
	}{
		{"a bit turned", func(l *memLog) { l.flip(3) }, "frame 3 of the log is damaged"},
		{"a frame missing", func(l *memLog) { delete(l.frames, 2) }, "frame 2 of the log is damaged"},
		{"the first", func(l *memLog) { l.flip(1) }, "frame 1 of the log is damaged"},
		{"two at the end", func(l *memLog) { l.flip(4); l.flip(5) }, "frames 4 to 5 of the log are damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := needed(t, 5)
			tt.damage(log)
			err := replayErr(t, log)
			if err == nil || muster.KindOf(err) != muster.Invalid || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("answered %v", err)
			}
		})
	}
}

func TestWhatAHalfDonePurgeLeftIsNotRead(t *testing.T) {
	log := filled(t, 5) // no item: the floor of the last frame is that frame
	delete(log.frames, 2)
	log.flip(3)
	if _, got := open(t, log, nil); len(got) != 1 || got[0] != "r5" {
		t.Errorf("replayed %q", got)
	}
}

func TestAFrameThatAnAppendLeftTwiceIsReplayedOnce(t *testing.T) {
	log := needed(t, 2)
	log.last++
	log.frames[3] = log.frames[2]
	if _, got := open(t, log, nil); cmp.Diff([]string{"r1", "r2"}, got) != "" {
		t.Errorf("replayed %q", got)
	}
}

func TestReplayEndsWithItsErrorsAndContext(t *testing.T) {
	log := needed(t, 30)
	j, err := New(Config{Log: log, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	fault := errors.New("not understood")
	err = j.Replay(t.Context(), func(seq uint64, _ []byte) error {
		if seq == 7 {
			return fault
		}
		return nil
	})
	if !errors.Is(err, fault) || !strings.Contains(err.Error(), "record 1 of frame 7") {
		t.Errorf("answered %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = j.Replay(ctx, func(seq uint64, _ []byte) error {
		if seq == 3 {
			cancel()
		}
		return nil
	})
	if err == nil {
		t.Error("a replay that was ended says that it was whole")
	}
	log.setGone(true)
	if err := replayErr(t, log); muster.KindOf(err) != muster.Unavailable {
		t.Errorf("without the log it answered %v", err)
	}
}

func TestAnItemCostsLittle(t *testing.T) {
	if size := unsafe.Sizeof(Item{}); size > 64 {
		t.Errorf("an item has %d bytes", size)
	}
}

func TestItemsPlacedInAnyOrderAreSorted(t *testing.T) {
	log := needed(t, 9)
	j, _ := open(t, log, nil)
	for _, seq := range []uint64{5, 1, 9, 3, 3, 7} {
		j.Place(&newText(fmt.Sprint("item ", seq)).Item, seq)
	}
	stop := run(t, j)
	flush(t, j)
	stop()
	var got []uint64
	for i := j.items.oldest(); i != &j.items.root; i = i.next {
		got = append(got, i.seq)
	}
	if diff := cmp.Diff([]uint64{1, 3, 3, 5, 7, 9}, got); diff != "" {
		t.Error(diff)
	}
	if want := int64(6 * (len("item 1") + prefixSize)); j.items.live != want {
		t.Errorf("%d live bytes, want %d", j.items.live, want)
	}
}
