package deliver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheBandwidthIsKeptAndSharedFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, span = 10 << 20, 20 * time.Second
		p := newPace(rate, time.Now)
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		sent := make([]int64, 37)
		var wg sync.WaitGroup
		for i := range sent {
			wg.Go(func() {
				for p.wait(ctx, p.piece) == nil {
					sent[i] += p.piece
				}
			})
		}
		wg.Wait()
		least, most, total := sent[0], sent[0], int64(0)
		for _, n := range sent {
			least, most, total = min(least, n), max(most, n), total+n
		}
		if most-least > 2*p.piece { // one at the beginning, one at the end
			t.Errorf("one got %d bytes, another %d", most, least)
		}
		if want := int64(rate * span.Seconds()); total > want+p.piece || total < want-p.piece {
			t.Errorf("%d bytes were sent, want %d", total, want)
		}
	})
}

func TestWhoLeavesTheQueueTakesNoBandwidthWithHim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1<<20, time.Now)
		began := time.Now()
		for range 100 {
			if err := p.wait(t.Context(), p.piece); err != nil {
				t.Fatal(err)
			}
			gone, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range 10 { // one at the head, the others behind him
				wg.Go(func() {
					if err := p.wait(gone, p.piece); !errors.Is(err, context.Canceled) {
						t.Errorf("%v", err)
					}
				})
			}
			synctest.Wait()
			cancel()
			wg.Wait()
		}
		want := time.Duration(float64(99*p.piece) / (1 << 20) * float64(time.Second))
		if took := time.Since(began); took > want+time.Millisecond || took < want-time.Millisecond {
			t.Errorf("it took %s, want %s", took, want)
		}
	})
}

func TestWhatWasNotUsedIsNotSavedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(50*smallest, time.Now)
		timer := time.NewTimer(time.Hour)
		<-timer.C
		began := time.Now()
		for range 101 {
			if err := p.wait(t.Context(), p.piece); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 2*time.Second-time.Millisecond {
			t.Errorf("100 pieces of 20 ms each took %s", took)
		}
	})
}

func TestPiecesAreSizedByTheBandwidth(t *testing.T) {
	for rate, want := range map[int64]int64{0: largest, 1: smallest, 1 << 20: (1 << 20) / pieces, 1 << 30: larger} {
		if got := newPace(rate, time.Now).piece; got != want {
			t.Errorf("at %d bytes/s a piece has %d bytes, want %d", rate, got, want)
		}
	}
}

func TestLeavesAreBoundedAndTheOldestAreForgotten(t *testing.T) {
	l, hot, at := newLeaves(100), image{action: -1}, leave{release: 7}
	l.put(hot, at)
	for i := range int64(10_000) {
		l.put(image{action: i}, at)
		if i%10 == 0 {
			l.put(hot, at)
		}
		if n := len(l.young) + len(l.old); n > 101 {
			t.Fatalf("there are %d", n)
		}
	}
	if l.look(hot) != at {
		t.Error("what is used is forgotten")
	}
	if l.look(image{action: 1}) == at {
		t.Error("the oldest is not forgotten")
	}
}
