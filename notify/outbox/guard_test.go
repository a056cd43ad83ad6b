package outbox_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster/notify/outbox"
)

func TestAProbeIsOneDeliveryHoweverManySlotsAreFreeAndWhatHealsIsQuickAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var up atomic.Bool
		ch := &scripted{name: "test", fn: func(context.Context, int, []outbox.Delivery) outbox.Attempt {
			<-time.After(time.Second)
			if up.Load() {
				return fine
			}
			return outbox.Attempt{Verdict: outbox.Again, Error: "down"}
		}}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{
			Concurrency: 10, Failures: 3, OpenFor: time.Minute, MaxOpen: time.Minute, Schedule: slices.Repeat([]time.Duration{time.Second}, 50),
		}))
		for n := range 100 {
			r.put(delivery(n, "q"))
		}
		r.d.Wake([]outbox.Delivery{delivery(0, "q")})
		pass(10 * time.Minute)
		if n := len(ch.seen()); n < 8+8 || n > 10+11 {
			t.Errorf("%d attempts: eight slots, two more before the third failure, and a probe a minute", n)
		}
		up.Store(true)
		before := len(ch.seen())
		pass(2 * time.Minute) // a probe, and then 99 by eight slots of a second each
		if n := len(ch.seen()) - before; n != 100 {
			t.Errorf("%d attempts after it was back", n)
		}
		for _, d := range r.all() {
			if d.State != outbox.StateSent {
				t.Fatalf("%+v", d)
			}
		}
	})
}

func TestAProbeThatFoundNothingToSendIsGivenBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: func(_ context.Context, n int, _ []outbox.Delivery) outbox.Attempt {
			if n == 0 {
				return outbox.Attempt{Verdict: outbox.Again, Error: "down"}
			}
			return fine
		}}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Failures: 1, OpenFor: time.Minute}))
		d := delivery(1, "q")
		r.add(d)
		pass(time.Second)
		store.mu.Lock()
		store.list = nil // another process sent it
		store.mu.Unlock()
		pass(58 * time.Second)
		r.d.Wake([]outbox.Delivery{d})
		pass(2 * time.Second)
		r.add(delivery(2, "q"))
		pass(10 * time.Second)
		if d := r.get("dlv_000002"); d.State != outbox.StateSent {
			t.Errorf("%+v", d)
		}
	})
}

func TestTroubleOfOneTargetOpensNoBreakerAndHealsOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var alone atomic.Bool
		ch := &scripted{name: "test", fn: func(context.Context, int, []outbox.Delivery) outbox.Attempt {
			return outbox.Attempt{Verdict: outbox.Again, Error: "grey listed", Alone: alone.Load()}
		}}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Failures: 3, Schedule: slices.Repeat([]time.Duration{time.Second}, 1000), OpenFor: time.Minute}))
		synctest.Wait()
		alone.Store(true)
		for n := range 10 {
			r.add(delivery(n, "q"))
		}
		pass(5 * time.Second)
		if q := r.d.Status().Queues[0]; q.Breaker != outbox.Closed || q.Failures != 0 {
			t.Errorf("%+v", q)
		}
		alone.Store(false)
		pass(5 * time.Second)
		if q := r.d.Status().Queues[0]; q.Breaker != outbox.Opened {
			t.Errorf("%+v", q)
		}
		alone.Store(true)
		pass(time.Minute)
		if q := r.d.Status().Queues[0]; q.Breaker != outbox.Closed {
			t.Errorf("the server answered the probe: %+v", q)
		}
	})
}

// stuck is a channel whose deliveries to queues that begin so never end in time.
func stuck() *scripted {
	return &scripted{name: "test", fn: func(ctx context.Context, _ int, ds []outbox.Delivery) outbox.Attempt {
		if !strings.HasPrefix(ds[0].Queue, "stuck") {
			return fine
		}
		<-ctx.Done()
		return outbox.Attempt{Verdict: outbox.Again, Error: "no answer in time"}
	}}
}

func TestSlotsOfTheUrgentLaneAreKeptOverAllQueues(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newMemory()
		r := start(t, store, config(store, stuck(), outbox.Settings{Concurrency: 10, PerQueue: 5, Timeout: time.Hour, Failures: 1e6}))
		for n := range 100 {
			r.add(delivery(n, fmt.Sprint("stuck", n%10)))
		}
		pass(time.Second)
		if s := r.d.Status().Channels[0]; s.Running != 8 {
			t.Errorf("%+v", s)
		}
		d := delivery(1000, "good")
		d.Lane = outbox.Urgent
		r.add(d)
		pass(time.Second)
		if d := r.get(d.ID); d.State != outbox.StateSent {
			t.Errorf("%+v", d)
		}
	})
}

func TestUrgentDeliveriesOfOneQueueDoNotTakeTheSlotsOfAll(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newMemory()
		r := start(t, store, config(store, stuck(), outbox.Settings{Concurrency: 10, PerQueue: 5, Timeout: time.Hour, Failures: 1e6}))
		for n := range 100 {
			d := delivery(n, "stuck")
			d.Lane = outbox.Urgent
			r.add(d)
		}
		pass(time.Second)
		if s := r.d.Status(); s.Channels[0].Running != 5 || s.Queues[0].Running != 5 {
			t.Errorf("%+v", s)
		}
	})
}

// A settlement that reaches the store long after its lease ended must not settle the lease
// that the same process was given since.
func TestALateSettlementDoesNotEndTheLeaseAfterIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: func(_ context.Context, n int, _ []outbox.Delivery) outbox.Attempt {
			if n == 0 {
				return outbox.Attempt{Verdict: outbox.Dead, Error: "the first"}
			}
			<-time.After(50 * time.Second)
			return fine
		}}
		store := newMemory()
		var once atomic.Bool
		store.failing(func(call string) error {
			if call == "settle" && once.CompareAndSwap(false, true) {
				<-time.After(100 * time.Second) // the lease is 90 s
			}
			return nil
		})
		r := start(t, store, config(store, ch, outbox.Settings{Timeout: time.Minute}))
		synctest.Wait()
		r.add(delivery(1, "q"))
		pass(10 * time.Minute)
		d := r.get("dlv_000001")
		if d.State != outbox.StateSent || d.Attempts != 2 || r.d.Status().Lost != 1 || len(ch.seen()) != 2 {
			t.Errorf("%+v, %+v", d, r.d.Status())
		}
	})
}

// Of a device that was away the oldest goes first, however the attempts and their retries fall.
func TestATargetGetsWhatItIsSentInOrder(t *testing.T) {
	for name, ordered := range map[string]bool{"in order": true, "of others as it falls": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var there atomic.Bool
				got := make(chan string, 100)
				ch := &scripted{name: "test", fn: func(_ context.Context, n int, ds []outbox.Delivery) outbox.Attempt {
					<-time.After(time.Duration(7-n%7) * 100 * time.Millisecond) // the first takes longest
					switch {
					case !there.Load():
						return outbox.Attempt{Verdict: outbox.Later, Error: "away"}
					case ds[0].Target == "panel" && n%3 == 0:
						return outbox.Attempt{Verdict: outbox.Again, Error: "no answer"}
					}
					got <- ds[0].Target + " " + ds[0].ID
					return fine
				}}
				store := newMemory()
				r := start(t, store, config(store, ch, outbox.Settings{Ordered: ordered, Concurrency: 20, Schedule: slices.Repeat([]time.Duration{5 * time.Second}, 20), Jitter: 1}))
				for n := range 8 {
					d := delivery(n, "mqtt")
					d.Target = "panel"
					r.add(d)
					pass(30 * time.Millisecond)
				}
				pass(time.Minute)
				there.Store(true)
				if err := r.d.Hasten(t.Context(), "test", "panel"); err != nil {
					t.Fatal(err)
				}
				for n := 8; n < 10; n++ { // while the others are on their way
					d := delivery(n, "mqtt")
					d.Target = "panel"
					r.add(d)
				}
				free, urgent := delivery(10, "mqtt"), delivery(11, "mqtt")
				free.Target, urgent.Target, urgent.Lane = "lamp", "panel", outbox.Urgent
				r.add(free, urgent)
				pass(10 * time.Minute)
				close(got)
				var order []string
				for id := range got {
					order = append(order, id)
				}
				if len(order) != 12 {
					t.Fatalf("%v arrived", order)
				}
				sorted := slices.IsSorted(slices.DeleteFunc(slices.Clone(order), func(s string) bool { return s == "panel dlv_000011" || strings.HasPrefix(s, "lamp") }))
				if sorted != ordered {
					t.Errorf("they came as %v", order)
				}
				if last := slices.Index(order, "panel dlv_000009"); ordered && (slices.Index(order, "lamp dlv_000010") > last || slices.Index(order, "panel dlv_000011") > last) {
					t.Errorf("another target, or what is urgent, waited: %v", order)
				}
			})
		})
	}
}

// A server that was killed has its leases back at its next start, and no other server's.
func TestALifeFreesTheLeasesOfTheOneBeforeItAndOfNobodyElse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		store := newMemory()
		stuck := &scripted{name: "test", fn: func(ctx context.Context, _ int, _ []outbox.Delivery) outbox.Attempt {
			<-ctx.Done()
			return outbox.Attempt{Verdict: outbox.Again, Error: "cut"}
		}}
		killed := func(instance string, n int) {
			dead := &mortal{memory: store}
			c := config(dead, stuck, outbox.Settings{Concurrency: 1})
			c.Instance, c.Grace = instance, time.Millisecond
			r := start(t, store, c)
			r.add(delivery(n, "q"))
			pass(time.Second)
			if d := r.get(fmt.Sprintf("dlv_%06d", n)); d.State != outbox.StateSending {
				t.Fatalf("%+v", d)
			}
			dead.dead.Store(true)
			r.stop()
		}
		killed("ONE", 1)
		killed("ONETWO", 2) // its name begins with the other's
		ch := &scripted{name: "test", fn: always(fine)}
		c := config(store, ch, outbox.Settings{})
		c.Instance = "ONE"
		r := start(t, store, c)
		pass(time.Second)
		if one, two := r.get("dlv_000001"), r.get("dlv_000002"); one.State != outbox.StateSent || one.Attempts != 2 || two.State != outbox.StateSending {
			t.Errorf("its own: %+v; the other's: %+v", one, two)
		}
		pass(time.Minute) // the lease of the other ends
		if two := r.get("dlv_000002"); two.State != outbox.StateSent {
			t.Errorf("%+v", two)
		}
	})
}
