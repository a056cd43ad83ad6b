package outbox_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/notify/outbox"
)

// Of those of a fold each is looked at for itself when they are about to go out.
func TestWhatIsHeldBackWaitsAndWhatNobodyWantsIsDroppedBeforeTheAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := newMemory()
		c := config(store, ch, outbox.Settings{})
		hold := time.Now().Add(3 * time.Hour)
		c.Pass = func(_ context.Context, ds []outbox.Delivery) ([]outbox.Pass, error) {
			out := make([]outbox.Pass, len(ds))
			for i := range ds {
				switch {
				case ds[i].ID == "dlv_000002" && time.Now().Before(hold):
					out[i].Hold = muster.MicrosOf(hold)
				case ds[i].ID == "dlv_000003":
					out[i].Drop = "it is muted"
				}
			}
			return out, nil
		}
		r := start(t, store, c)
		var ds []outbox.Delivery
		for i := range 3 {
			d := delivery(i+1, "q")
			d.Fold = "f"
			ds = append(ds, d)
		}
		r.add(ds...)
		pass(time.Minute)
		want := func(states ...string) {
			t.Helper()
			var got []string
			for _, d := range ds {
				d = r.get(d.ID)
				got = append(got, fmt.Sprintf("%s %d %s", d.State, d.Attempts, d.Error))
			}
			if !slices.Equal(got, states) {
				t.Errorf("%q, want %q", got, states)
			}
		}
		want("sent 1 ", "queued 0 ", "dropped 0 it is muted")
		if calls := ch.seen(); len(calls) != 1 || !slices.Equal(calls[0].ids, []string{"dlv_000001"}) {
			t.Errorf("%+v", calls)
		}
		if err := r.d.Hasten(t.Context(), "test", "usr_1"); err != nil { // its target is there: it is not what it waits for
			t.Fatal(err)
		}
		pass(time.Hour)
		want("sent 1 ", "queued 0 ", "dropped 0 it is muted")
		pass(2 * time.Hour)
		want("sent 1 ", "sent 1 ", "dropped 0 it is muted")
	})
}

func TestWhenItCannotBeAskedWhatMayGoOutNothingDoesAndNothingIsLost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := newMemory()
		c := config(store, ch, outbox.Settings{Schedule: []time.Duration{0}})
		var asked atomic.Int64
		c.Pass = func(_ context.Context, ds []outbox.Delivery) ([]outbox.Pass, error) {
			switch asked.Add(1) {
			case 1:
				return nil, muster.Errorf(muster.Unavailable, "the store is away")
			case 2:
				panic("a bug")
			}
			return make([]outbox.Pass, len(ds)), nil
		}
		r := start(t, store, c)
		r.add(delivery(1, "q"))
		pass(100 * time.Millisecond)
		if d := r.get("dlv_000001"); d.State != outbox.StateQueued || d.Attempts != 0 || len(ch.seen()) != 0 {
			t.Errorf("%+v, and %d attempts", d, len(ch.seen()))
		}
		pass(time.Minute)
		if d := r.get("dlv_000001"); d.State != outbox.StateSent || d.Attempts != 1 {
			t.Errorf("%+v", d)
		}
	})
}

// What was refused and what nobody knows are counted apart, and what is held says so.
func TestARefusedAttemptIsCountedAndWhatIsHeldSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		answers := []outbox.Attempt{
			{Verdict: outbox.Again, Error: "451 later", Refused: true}, {Verdict: outbox.Again, Error: "it broke"}, {Verdict: outbox.Later, Error: "away", Refused: true},
		}
		ch := &scripted{name: "test", fn: func(_ context.Context, n int, _ []outbox.Delivery) outbox.Attempt {
			return answers[min(n, len(answers)-1)]
		}}
		store := newMemory()
		c := config(store, ch, outbox.Settings{Schedule: []time.Duration{time.Minute, time.Minute, time.Minute}, Later: time.Minute})
		var hold atomic.Int64 // as muster.Micros
		c.Pass = func(_ context.Context, ds []outbox.Delivery) ([]outbox.Pass, error) {
			return []outbox.Pass{{Hold: muster.Micros(hold.Load())}}, nil
		}
		r := start(t, store, c)
		r.add(delivery(1, "q"))
		await := func(what string, ok func(d outbox.Delivery) bool) {
			t.Helper()
			for range 600 {
				if ok(r.get("dlv_000001")) {
					return
				}
				pass(time.Second)
			}
			t.Fatalf("%s: %+v", what, r.get("dlv_000001"))
		}
		await("both that count", func(d outbox.Delivery) bool { return d.Attempts == 2 })
		pass(3 * time.Minute) // what does not count comes again and again
		if d := r.get("dlv_000001"); d.State != outbox.StateQueued || d.Attempts != 2 || d.Refused != 1 || d.Held {
			t.Errorf("%+v, want 2 attempts, 1 of them refused, not held", d)
		}
		hold.Store(int64(muster.MicrosOf(time.Now().Add(time.Hour))))
		await("it to be held", func(d outbox.Delivery) bool { return d.Held && d.Attempts == 2 && d.Refused == 1 })
	})
}
