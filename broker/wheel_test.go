package broker

import (
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// bell is a ticker that says when it was rung.
type bell struct {
	due, again int64 // again is how much later it is due once more, 0 for not
	latest     int64 // by when it must ring; 0: not any more
	rung       int
	slack      int64
	far        bool // due beyond what the wheel sees: it may be asked before
	early      bool
}

func (b *bell) tick(now int64) int64 {
	if now < b.due {
		b.early = b.early || !b.far
		return b.due
	}
	b.rung++
	b.latest = 0
	if b.again == 0 {
		return 0
	}
	b.due, b.again = now+b.again, 0
	b.latest = b.due + b.slack
	return b.due
}

func TestTheWheelRingsNeitherEarlyNorLaterThanTwoTicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		step := rapid.Int64Range(1, 100).Draw(t, "step")
		now := rapid.Int64Range(0, 1<<41).Draw(t, "now")
		w := newWheel(time.Duration(step)*time.Millisecond, now)
		live := map[*bell]*alarm{}
		removed := map[*bell]int{}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				due := now + rapid.Int64Range(-5*step, 3*wheelSlots*step).Draw(t, "due")
				b := &bell{due: due, again: rapid.Int64Range(0, 9*step).Draw(t, "again"), latest: max(due, now) + 2*step, slack: 2 * step, far: due-now >= (wheelSlots-2)*step}
				live[b] = w.add(b, b.due)
			},
			"remove": func(*rapid.T) {
				w.remove(nil)
				for b, a := range live {
					w.remove(a)
					removed[b] = b.rung
					delete(live, b)
					return
				}
			},
			"turn": func(t *rapid.T) {
				to := now + rapid.Int64Range(0, wheelSlots*step/4).Draw(t, "for")
				for now < to { // the loop comes once a tick
					now = min(now+step, to)
					w.advance(now)
					for b := range live {
						if b.latest > 0 && now > b.latest || b.early {
							t.Fatalf("due at %d, early %v or not rung at %d with ticks of %d", b.due, b.early, now, step)
						}
					}
				}
			},
			"": func(t *rapid.T) {
				for b, n := range removed {
					if b.rung != n {
						t.Fatal("an alarm that was taken off rings")
					}
				}
			},
		})
	})
}

func TestAnAlarmTakenOffHoldsNoTicker(t *testing.T) {
	w := newWheel(time.Millisecond, 0)
	gone := make(chan struct{})
	func() {
		b := &bell{due: 1000}
		runtime.AddCleanup(b, func(c chan struct{}) { close(c) }, gone)
		w.remove(w.add(b, b.due))
	}()
	eventually(t, "the ticker's end", func() bool {
		runtime.GC()
		select {
		case <-gone:
			return true
		default:
			return false
		}
	})
	runtime.KeepAlive(w)
}

func TestATickerMayBeTakenOffWhileItRings(t *testing.T) {
	w := newWheel(time.Millisecond, 0)
	var a *alarm
	rings := 0
	a = w.add(tickFunc(func(now int64) int64 {
		rings++
		w.remove(a)
		return now + 1
	}), 1)
	w.advance(10)
	w.advance(20)
	if rings != 1 {
		t.Errorf("rung %d times, want once", rings)
	}
}

type tickFunc func(int64) int64

func (f tickFunc) tick(now int64) int64 { return f(now) }
