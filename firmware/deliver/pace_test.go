package deliver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
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

// TestNoBudgetIsEverExceeded holds budgets that are not forgotten to a plain count.
func TestNoBudgetIsEverExceeded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const all = 1000
		b := newBudgets(64)
		got := map[spending]int64{}
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				k := spending{action: rapid.Int64Range(0, 9).Draw(t, "action")}
				n := b.take(k, rapid.Int64Range(0, 500).Draw(t, "bytes"), all)
				unsent := rapid.Int64Range(0, n).Draw(t, "unsent")
				b.give(k, unsent)
				if got[k] += n - unsent; got[k] > all || b.look(k).used != got[k] {
					t.Fatalf("%d bytes were sent of %d, %d are left", got[k], all, all-b.look(k).used)
				}
			},
		})
	})
}

func TestBudgetsAreBoundedAndTheOldestAreForgotten(t *testing.T) {
	b := newBudgets(100)
	hot := spending{action: -1}
	for i := range int64(10_000) {
		b.take(spending{action: i}, 1, 10)
		if i%10 == 0 && i < 100 {
			b.take(hot, 1, 10)
		} else if i%10 == 0 {
			b.take(hot, 0, 10)
		}
		if n := len(b.young) + len(b.old); n > 101 {
			t.Fatalf("there are %d", n)
		}
	}
	if left := 10 - b.look(hot).used; left != 0 {
		t.Errorf("what is used is forgotten: %d are left", left)
	}
	if left := 10 - b.look(spending{action: 1}).used; left != 10 {
		t.Errorf("the oldest is not forgotten: %d are left", left)
	}
}
