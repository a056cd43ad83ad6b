package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/notify/outbox"
)

func TestWhatIsCommittedIsSentAtOnceAndWhatOthersCommittedByThePoll(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := newMemory()
		var mu sync.Mutex
		var ended []outbox.Delivery
		c := config(store, ch, outbox.Settings{})
		c.OnEnded = func(list []outbox.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, list...)
		}
		r := start(t, store, c)
		synctest.Wait()
		r.add(delivery(1, "q"))
		pass(10 * time.Millisecond)
		d := r.get("dlv_000001")
		if d.State != outbox.StateSent || d.Attempts != 1 || d.Ended == 0 || d.Reference != "ref" || d.Worker != "" || len(d.Tries) != 1 {
			t.Errorf("%+v", d)
		}
		r.put(delivery(2, "other"))
		pass(10 * time.Millisecond)
		if len(ch.seen()) != 1 {
			t.Error("nobody told of it, and it is not time to ask")
		}
		pass(3 * time.Second)
		if d := r.get("dlv_000002"); d.State != outbox.StateSent {
			t.Errorf("%+v", d)
		}
		mu.Lock()
		if len(ended) != 2 || ended[0].State != outbox.StateSent {
			t.Errorf("told of %+v", ended)
		}
		mu.Unlock()
		future := delivery(3, "q")
		future.Due += muster.Micros(time.Hour / time.Microsecond)
		r.add(future)
		pass(time.Hour - time.Second)
		if len(ch.seen()) != 2 {
			t.Error("it was sent before it was due")
		}
		pass(2 * time.Second)
		if len(ch.seen()) != 3 {
			t.Error("it was not sent when it was due")
		}
	})
}

func TestAWebhookThatFailsIsTriedAsStandardWebhooksHasItAndThenIsDead(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(outbox.Attempt{Verdict: outbox.Again, Error: "the receiver answered 500", Status: 500})}
		store := newMemory()
		s := outbox.WebhookSettings()
		s.Failures = 1000 // the breaker has a test of its own
		r := start(t, store, config(store, ch, s))
		r.add(delivery(1, "q"))
		pass(80 * time.Hour)
		waits := outbox.WebhookSchedule()
		calls := ch.seen()
		if len(calls) != len(waits) {
			t.Fatalf("%d attempts", len(calls))
		}
		for i := 1; i < len(calls); i++ {
			got := calls[i].at.Sub(calls[i-1].at)
			if least := waits[i] * 8 / 10; got < least || got > waits[i]+5*time.Second {
				t.Errorf("before attempt %d: %v, want %v to %v", i+1, got, least, waits[i])
			}
		}
		d := r.get("dlv_000001")
		if d.State != outbox.StateDead || d.Attempts != 10 || d.Error != "the receiver answered 500" || len(d.Tries) != 10 {
			t.Errorf("%+v", d)
		}
		var data map[string]string
		if len(store.told()) != 1 || store.told()[0].Type != "delivery.dead" || json.Unmarshal(store.told()[0].Data, &data) != nil {
			t.Fatalf("events are %+v", store.told())
		}
		want := map[string]string{"delivery": d.ID, "channel": "test", "target": "usr_1", "notification": "ntf_1", "error": d.Error}
		if diff := cmp.Diff(want, data); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWaitsAreLeftToChanceAndAtLeastWhatTheReceiverWishes(t *testing.T) {
	for name, tt := range map[string]struct {
		after       time.Duration
		least, most time.Duration
	}{
		"full jitter":                {0, 0, time.Minute},
		"a wish that is longer":      {time.Hour, time.Hour, 66 * time.Minute},
		"a wish that is absurd":      {1000 * time.Hour, 24 * time.Hour, 27 * time.Hour},
		"a wish that is shorter":     {time.Second, time.Second, time.Minute},
		"a wish that is no time yet": {-time.Hour, 0, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				ch := &scripted{name: "test", fn: always(outbox.Attempt{Verdict: outbox.Again, RetryAfter: tt.after})}
				store := newMemory()
				r := start(t, store, config(store, ch, outbox.Settings{Schedule: []time.Duration{0, time.Minute}, Failures: 1e6, Concurrency: 1000}))
				for n := range 200 {
					r.add(delivery(n, "q"))
				}
				pass(tt.most + 3*time.Hour) // one more attempt than two would have been made by then
				calls := map[string][]time.Time{}
				for _, c := range ch.seen() {
					calls[c.ids[0]] = append(calls[c.ids[0]], c.at)
				}
				var waits []time.Duration
				for _, at := range calls {
					if len(at) != 2 {
						t.Fatalf("%d attempts", len(at))
					}
					waits = append(waits, at[1].Sub(at[0]))
				}
				slices.Sort(waits)
				if waits[0] < tt.least || waits[199] > tt.most+time.Second {
					t.Errorf("waits are %v to %v", waits[0], waits[199])
				}
				if spread := waits[199] - waits[0]; spread < (tt.most-tt.least)/2 {
					t.Errorf("all come within %v", spread)
				}
			})
		})
	}
}

func TestVerdictsAreFollowed(t *testing.T) {
	tests := []struct {
		name    string
		attempt outbox.Attempt
		state   outbox.State
		words   string
		gone    int
		events  int
	}{
		{"taken", outbox.Attempt{Verdict: outbox.Delivered}, outbox.StateSent, "", 0, 0},
		{"refused for good", outbox.Attempt{Verdict: outbox.Dead, Error: "550"}, outbox.StateDead, "550", 0, 1},
		{"gone", outbox.Attempt{Verdict: outbox.Gone, Error: "410"}, outbox.StateDead, "410", 1, 1},
		{"nobody wants it", outbox.Attempt{Verdict: outbox.Dropped, Error: "no such user"}, outbox.StateDropped, "no such user", 0, 0},
		{"nonsense", outbox.Attempt{Verdict: "perhaps"}, outbox.StateDead, "perhaps, which is no verdict", 0, 1},
		{"a text that stores refuse", outbox.Attempt{Verdict: outbox.Dead, Error: "a\x00b\xff" + strings.Repeat("ä", 2000)}, outbox.StateDead, "a b?ä", 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				ch := &scripted{name: "test", fn: always(tt.attempt)}
				store := newMemory()
				c := config(store, ch, outbox.Settings{Schedule: []time.Duration{0}})
				gone := 0
				c.OnGone = func(_ context.Context, d outbox.Delivery, why string) error {
					gone++
					if d.Queue != "q" || why != tt.attempt.Error {
						t.Errorf("%s of %s", why, d.Queue)
					}
					return errors.New("the store is away")
				}
				r := start(t, store, c)
				r.add(delivery(1, "q"))
				pass(time.Second)
				d := r.get("dlv_000001")
				if d.State != tt.state || !strings.Contains(d.Error, tt.words) || len(d.Error) > 1024 || d.Attempts != 1 || d.Ended == 0 {
					t.Errorf("%+v", d)
				}
				if gone != tt.gone || len(store.told()) != tt.events {
					t.Errorf("%d gone, %d events", gone, len(store.told()))
				}
			})
		})
	}
}

func TestWhatExpiredIsDroppedBeforeItIsSent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(outbox.Attempt{Verdict: outbox.Again, Error: "busy"})}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Schedule: []time.Duration{0, time.Hour}, Jitter: 0.001}))
		late, soon := delivery(1, "q"), delivery(2, "q")
		late.Expires = late.Due
		soon.Expires = soon.Due + muster.Micros(10*time.Minute/time.Microsecond)
		r.add(late, soon)
		pass(time.Second)
		if d := r.get("dlv_000001"); d.State != outbox.StateDropped || d.Attempts != 0 || !strings.Contains(d.Error, "expired") || len(d.Tries) != 0 {
			t.Errorf("%+v", d)
		}
		if d := r.get("dlv_000002"); d.State != outbox.StateDropped || d.Attempts != 1 || !strings.Contains(d.Error, "busy") {
			t.Errorf("what expires before it can be tried again: %+v", d)
		}
		if len(ch.seen()) != 1 {
			t.Errorf("%d attempts", len(ch.seen()))
		}
	})
}

func TestAPanicOfAChannelEndsThatAttemptOnly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: func(_ context.Context, n int, _ []outbox.Delivery) outbox.Attempt {
			if n < 20 {
				panic("a bug of n")
			}
			return fine
		}}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{}))
		for n := range 20 {
			r.add(delivery(n, "q"))
		}
		pass(time.Hour)
		for n := range 20 {
			if d := r.get(fmt.Sprintf("dlv_%06d", n)); d.State != outbox.StateSent || d.Attempts != 2 || !strings.Contains(d.Tries[0].Error, "panicked") {
				t.Errorf("%+v", d)
			}
		}
		if s := r.d.Status(); s.Channels[0].Counts.Panics != 20 || s.Channels[0].Running != 0 || s.Channels[0].Counts.Sent != 20 {
			t.Errorf("%+v", s)
		}
	})
}

func TestABreakerOpensProbesWithOneAndHeals(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var up atomic.Bool
		ch := &scripted{name: "test", fn: func(context.Context, int, []outbox.Delivery) outbox.Attempt {
			if up.Load() {
				return fine
			}
			return outbox.Attempt{Verdict: outbox.Again, Error: "down"}
		}}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{
			Concurrency: 1, Failures: 3, OpenFor: time.Minute, MaxOpen: 4 * time.Minute, Schedule: slices.Repeat([]time.Duration{time.Second}, 50),
		}))
		synctest.Wait()
		begun := time.Now()
		for n := range 100 {
			r.add(delivery(n, "q"))
		}
		pass(40 * time.Minute)
		var at []time.Duration
		for _, c := range ch.seen() {
			at = append(at, c.at.Sub(begun).Round(time.Second))
		}
		// Three failures, then one probe a time: after 1, 2, 4, 4, ... minutes.
		want := []time.Duration{0, 0, 0, time.Minute, 3 * time.Minute, 7 * time.Minute, 11 * time.Minute}
		if len(at) < 7 || len(at) > 15 || !slices.Equal(at[:7], want) {
			t.Fatalf("attempts at %v", at)
		}
		sum := 0
		for _, d := range r.all() {
			sum += d.Attempts
		}
		if sum != len(at) {
			t.Errorf("%d attempts cost the deliveries %d", len(at), sum)
		}
		if q := r.d.Status().Queues; len(q) != 1 || q[0].Breaker != outbox.Opened || q[0].Failures != len(at) || q[0].OpenUntil.IsZero() {
			t.Errorf("%+v", q)
		}
		up.Store(true)
		pass(5 * time.Minute)
		for _, d := range r.all() {
			if d.State != outbox.StateSent {
				t.Fatalf("%+v", d)
			}
		}
		if q := r.d.Status().Queues; len(q) == 1 && q[0].Breaker != outbox.Closed {
			t.Errorf("%+v", q)
		}
	})
}

func TestAnOpenBreakerHoldsNoOtherQueueUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: func(ctx context.Context, _ int, ds []outbox.Delivery) outbox.Attempt {
			if strings.HasPrefix(ds[0].Queue, "stuck") {
				<-ctx.Done()
				return outbox.Attempt{Verdict: outbox.Again, Error: "no answer in time"}
			}
			return fine
		}}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Concurrency: 10, PerQueue: 2, Timeout: 10 * time.Second}))
		for n := range 1000 {
			r.put(delivery(n, "stuck"))
		}
		r.add(delivery(0, "stuck"))
		pass(time.Second)
		for n := range 50 {
			r.add(delivery(2000+n, fmt.Sprint("good", n)))
		}
		pass(time.Second)
		for n := range 50 {
			if d := r.get(fmt.Sprintf("dlv_%06d", 2000+n)); d.State != outbox.StateSent {
				t.Fatalf("%+v", d)
			}
		}
		pass(time.Hour)
		if n := len(ch.seen()); n > 50+5+2*15 { // five failures, then a probe at 30 s, 1, 2, 4, 8, 10, 10 minutes
			t.Errorf("%d attempts", n)
		}
	})
}

func TestUrgentDeliveriesOvertakeThousandsWhileAllOtherSlotsAreStuck(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: func(ctx context.Context, _ int, ds []outbox.Delivery) outbox.Attempt {
			if ds[0].Lane == outbox.Urgent {
				return fine
			}
			<-ctx.Done()
			return outbox.Attempt{Verdict: outbox.Again, Error: "no answer in time"}
		}}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Timeout: time.Hour, Failures: 1e6}))
		for n := range 3000 {
			r.put(delivery(n, "q"))
		}
		r.add(delivery(0, "q"))
		pass(time.Second)
		if s := r.d.Status().Channels[0]; s.Running != 8 || s.Urgent != 0 {
			t.Fatalf("%+v", s)
		}
		for n := range 100 {
			d := delivery(90_000+n, "q")
			d.Lane = outbox.Urgent
			r.add(d)
			pass(10 * time.Millisecond)
			if d := r.get(d.ID); d.State != outbox.StateSent {
				t.Fatalf("number %d waits: %+v", n, d)
			}
		}
		if s := r.d.Status().Channels[0]; s.Running != 8 {
			t.Errorf("%+v", s)
		}
		claims := store.claimed()
		pass(time.Minute)
		if store.claimed() != claims {
			t.Error("it claims without a free slot")
		}
	})
}

func TestThoseOfAFoldGoAsOneAndAreSettledTogether(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: func(_ context.Context, n int, _ []outbox.Delivery) outbox.Attempt {
			if n == 0 {
				return outbox.Attempt{Verdict: outbox.Again, Error: "busy"}
			}
			return fine
		}}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Schedule: []time.Duration{0, time.Minute}, Jitter: 0.001}))
		var ids []string
		var ds []outbox.Delivery
		for n := range 250 {
			d := delivery(n, "q")
			d.Fold = "usr_1"
			if n > 2 {
				d.Due += muster.Micros(time.Hour / time.Microsecond)
			}
			if n == 7 {
				d.Expires = d.Created
			} else if n < 100 {
				ids = append(ids, d.ID)
			}
			ds = append(ds, d)
		}
		alone := delivery(1000, "q")
		r.add(append(ds, alone)...)
		pass(time.Second)
		calls := ch.seen()
		if len(calls) != 2 || !slices.Equal(calls[0].ids, ids) && !slices.Equal(calls[1].ids, ids) {
			t.Fatalf("%d calls: %v", len(calls), calls)
		}
		if d := r.get("dlv_000007"); d.State != outbox.StateDropped {
			t.Errorf("%+v", d)
		}
		pass(2 * time.Hour)
		for _, d := range r.all() {
			if d.ID != "dlv_000007" && d.State != outbox.StateSent {
				t.Errorf("%+v", d)
			}
		}
		if n := len(ch.seen()); n != 5 && n != 4 {
			t.Errorf("%d calls for 250", n)
		}
	})
}

func TestWhatATargetCannotTakeNowIsNoAttemptAndIsSentWhenItCan(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var here atomic.Bool
		ch := &scripted{name: "test", fn: func(context.Context, int, []outbox.Delivery) outbox.Attempt {
			if here.Load() {
				return fine
			}
			return outbox.Attempt{Verdict: outbox.Later, Error: "not connected"}
		}}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Failures: 1, Schedule: []time.Duration{0}}))
		r.add(delivery(1, "q"))
		pass(time.Hour)
		if d := r.get("dlv_000001"); d.State != outbox.StateQueued || d.Attempts != 0 || len(d.Tries) != 0 || d.Error != "not connected" {
			t.Errorf("%+v", d)
		}
		if n := len(ch.seen()); n < 6 || n > 9 {
			t.Errorf("%d attempts in an hour", n)
		}
		here.Store(true)
		if err := r.d.Hasten(t.Context(), "test", "usr_1"); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Millisecond)
		if d := r.get("dlv_000001"); d.State != outbox.StateSent {
			t.Errorf("%+v", d)
		}
	})
}

func TestATargetThatComesBackDuringTheAttemptIsNotMissed(t *testing.T) {
	for _, moment := range []string{"during the attempt", "while it is written", "after it was written"} {
		t.Run(moment, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var r *rig
				store := newMemory()
				back := func() {
					if err := r.d.Hasten(context.Background(), "test", "usr_1"); err != nil {
						t.Error(err)
					}
				}
				ch := &scripted{name: "test", fn: func(_ context.Context, n int, _ []outbox.Delivery) outbox.Attempt {
					if n > 0 {
						return fine
					}
					if moment == "during the attempt" {
						back()
					}
					return outbox.Attempt{Verdict: outbox.Later, Error: "not connected"}
				}}
				once := true
				hook := func(call string) {
					if call == "settle" && once {
						once = false
						back()
					}
				}
				switch moment {
				case "while it is written":
					store.fail = func(call string) error { hook(call); return nil }
				case "after it was written":
					store.after = hook
				}
				r = start(t, store, config(store, ch, outbox.Settings{}))
				r.add(delivery(1, "q"))
				pass(time.Second)
				if d := r.get("dlv_000001"); d.State != outbox.StateSent {
					t.Errorf("%+v", d)
				}
			})
		})
	}
}

func TestARateIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Rate: 2, Burst: 4}))
		for n := range 40 {
			r.put(delivery(n, "a"), delivery(1000+n, "b"))
		}
		pass(3 * time.Second) // the poll
		begun := time.Now()
		before := len(ch.seen())
		pass(10 * time.Second)
		if n := len(ch.seen()) - before; n < 37 || n > 41 {
			t.Errorf("%d attempts of two queues in %v", n, time.Since(begun))
		}
	})
}

func TestAWorkerThatDiesAgainAndAgainMakesADeadLetter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Schedule: []time.Duration{0, 0}}))
		d := delivery(1, "q")
		d.State, d.Attempts, d.Worker = outbox.StateSending, 5, "who died"
		r.add(d)
		pass(time.Second)
		if d := r.get(d.ID); d.State != outbox.StateDead || !strings.Contains(d.Error, "never ended") || len(ch.seen()) != 0 {
			t.Errorf("%+v", d)
		}
	})
}

func TestOldDeliveriesAreForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: func(_ context.Context, n int, ds []outbox.Delivery) outbox.Attempt {
			if ds[0].ID == "dlv_000000" {
				return outbox.Attempt{Verdict: outbox.Dead, Error: "550"}
			}
			return fine
		}}
		store := newMemory()
		c := config(store, ch, outbox.Settings{Concurrency: 100})
		c.Poll = time.Hour
		r := start(t, store, c)
		for n := range 2500 {
			r.put(delivery(n, "q"))
		}
		r.d.Wake([]outbox.Delivery{delivery(0, "q")})
		left := func(want int) {
			t.Helper()
			if list, _ := store.Deliveries(t.Context(), outbox.Query{}); len(list) != want {
				t.Errorf("%d are kept, want %d", len(list), want)
			}
		}
		day := 24 * time.Hour
		pass(7*day - time.Hour)
		left(2500)
		pass(2 * time.Hour)
		left(1)
		pass(23 * day)
		left(0)
	})
}
