package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/notify/outbox"
)

func TestWhatCannotBeWrittenIsTriedAgainUntilTheLeaseEndsAndThenSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{Timeout: 10 * time.Second}))
		down := errors.New("the disk is full")
		var tries atomic.Int64
		store.failing(func(call string) error {
			if call != "settle" {
				return nil
			}
			tries.Add(1)
			return down
		})
		r.add(delivery(1, "q"))
		pass(30 * time.Second)
		if n := len(ch.seen()); n != 1 || tries.Load() < 10 || tries.Load() > 60 || !r.d.Status().StoreAway {
			t.Errorf("%d attempts, %d tries to write", n, tries.Load())
		}
		pass(20 * time.Second) // the lease is 40 s
		if n := len(ch.seen()); n != 2 || r.d.Status().Abandoned != 1 {
			t.Errorf("%d attempts, %+v", n, r.d.Status())
		}
		store.failing(nil)
		pass(10 * time.Second)
		if d := r.get("dlv_000001"); d.State != outbox.StateSent || d.Attempts != 2 || r.d.Status().StoreAway || r.d.Status().Unsettled != 0 {
			t.Errorf("%+v %+v", d, r.d.Status())
		}
	})
}

func TestWhatTheStoreRefusesHoldsNobodyUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := &picky{memory: newMemory(), refuse: "dlv_000003"}
		c := config(store, ch, outbox.Settings{})
		r := start(t, store.memory, c)
		for n := range 200 {
			r.add(delivery(n, "q"))
		}
		pass(20 * time.Second)
		for _, d := range r.all() {
			if d.State != outbox.StateSent && d.ID != store.refuse {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// picky is a memory that writes nothing of a transaction with one delivery in it.
type picky struct {
	*memory
	refuse string
}

func (p *picky) SettleDeliveries(ctx context.Context, list []outbox.Settlement) ([]string, error) {
	if slices.ContainsFunc(list, func(s outbox.Settlement) bool { return s.ID == p.refuse }) {
		return nil, errors.New("bad value")
	}
	return p.memory.SettleDeliveries(ctx, list)
}

func TestWhatIsCutShortByTheEndIsQueuedAgainAndDoesNotCount(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: func(ctx context.Context, n int, ds []outbox.Delivery) outbox.Attempt {
			wait := time.Hour
			if ds[0].ID == "dlv_000001" {
				wait = 3 * time.Second
			}
			select {
			case <-time.After(wait):
				return fine
			case <-ctx.Done():
				return outbox.Attempt{Verdict: outbox.Again, Error: "cut"}
			}
		}}
		store := newMemory()
		c := config(store, ch, outbox.Settings{Timeout: 2 * time.Hour})
		r := start(t, store, c)
		r.add(delivery(1, "q"), delivery(2, "q"))
		pass(time.Second)
		begun := time.Now()
		r.stop()
		if took := time.Since(begun); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("the end took %v", took)
		}
		if d := r.get("dlv_000001"); d.State != outbox.StateSent {
			t.Errorf("what ended in time: %+v", d)
		}
		if d := r.get("dlv_000002"); d.State != outbox.StateQueued || d.Attempts != 0 || d.Worker != "" || len(d.Tries) != 0 {
			t.Errorf("what was cut short: %+v", d)
		}
		r.run()
		pass(2 * time.Hour)
		if d := r.get("dlv_000002"); d.State != outbox.StateSent {
			t.Errorf("after another Run: %+v", d)
		}
	})
}

func TestAnEndWithoutAStoreIsSoon(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{}))
		store.failing(func(call string) error {
			if call == "settle" {
				return errors.New("away")
			}
			return nil
		})
		for n := range 5000 {
			r.put(delivery(n, "q"))
		}
		pass(20 * time.Second)
		if s := r.d.Status(); s.Unsettled > 1000+10+100 {
			t.Errorf("%d wait to be written", s.Unsettled)
		}
		begun := time.Now()
		r.stop()
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}

func TestADispatcherRunsOnceAtATimeAndSurvivesAPanicOfItsStore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{}))
		synctest.Wait()
		if err := r.d.Run(t.Context()); muster.KindOf(err) != muster.Conflict {
			t.Errorf("a second Run: %v", err)
		}
		r.stop()
		for _, where := range []string{"claim", "settle", "queues", "trim"} {
			store.failing(func(call string) error {
				if call == where {
					panic("a bug in the store")
				}
				return nil
			})
			r.put(delivery(len(where), "q"))
			if err := r.d.Run(t.Context()); err == nil {
				t.Errorf("a panic at %s is no error", where)
			}
			if r.d.Status().Running {
				t.Error("it says that it runs")
			}
			store.mu.Lock()
			store.list = nil
			store.mu.Unlock()
		}
		store.failing(nil)
		r.run()
		r.add(delivery(99, "q"))
		pass(time.Second)
		if d := r.get("dlv_000099"); d.State != outbox.StateSent {
			t.Errorf("%+v", d)
		}
	})
}

func TestOthersChannelsAndTooManyQueuesAreLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ch := &scripted{name: "test", fn: always(fine)}
		store := newMemory()
		r := start(t, store, config(store, ch, outbox.Settings{}))
		d := delivery(1, "sms")
		d.Channel = "sms"
		r.add(d)
		pass(time.Minute)
		if d := r.get(d.ID); d.State != outbox.StateQueued || d.Attempts != 0 || len(r.d.Status().Queues) != 0 {
			t.Errorf("%+v", d)
		}
		list := make([]outbox.Delivery, 30_000)
		for n := range list {
			list[n] = delivery(n, fmt.Sprint("webhook:", n))
		}
		r.d.Wake(list) // of transactions that nobody will find
		pass(time.Minute)
		if n := len(r.d.Status().Queues); n != 0 {
			t.Errorf("%d queues are remembered", n)
		}
	})
}

// world is a store, processes that come and go, and a receiver that fails.
type world struct {
	store *memory
	chaos atomic.Bool
	mu    sync.Mutex
	taken map[string]int // how often the receiver took a delivery
	roll  func(n int) int
}

func (w *world) Name() string { return "test" }

// Deliver fails in all the ways a channel can, while there is chaos.
func (w *world) Deliver(ctx context.Context, ds []outbox.Delivery) outbox.Attempt {
	pause := time.Duration(w.roll(2000)) * time.Millisecond
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return outbox.Attempt{Verdict: outbox.Again, Error: "cut"}
	}
	what := 9
	if w.chaos.Load() {
		what = w.roll(10)
	}
	switch what {
	case 0:
		return outbox.Attempt{Verdict: outbox.Again, Error: "busy"}
	case 1:
		panic("a bug")
	case 2:
		<-ctx.Done()
		return outbox.Attempt{Verdict: outbox.Again, Error: "no answer"}
	case 3:
		return outbox.Attempt{Verdict: outbox.Later, Error: "away"}
	}
	w.mu.Lock()
	for _, d := range ds {
		w.taken[d.ID]++
	}
	w.mu.Unlock()
	if what == 4 { // it was taken, and the answer was lost
		return outbox.Attempt{Verdict: outbox.Again, Error: "cut"}
	}
	if what == 5 {
		return outbox.Attempt{Verdict: outbox.Dead, Error: "550"}
	}
	return fine
}

// process runs a dispatcher; kill ends it without a word: what it would still write is
// refused, as that of a process that is gone.
func (w *world) process() (stop, kill func()) {
	p := &mortal{memory: w.store}
	c := config(p, w, outbox.Settings{Timeout: 3 * time.Second, Schedule: slices.Repeat([]time.Duration{10 * time.Second}, 8), OpenFor: time.Second, Later: 20 * time.Second})
	c.Grace = time.Second
	d := outbox.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Run(ctx) // a store that panics is in a test of its own
	}()
	stop = func() { cancel(); <-done }
	return stop, func() { p.dead.Store(true); stop() }
}

// mortal is a process's way to the store.
type mortal struct {
	*memory
	dead atomic.Bool
}

var errDead = errors.New("this process is no more")

func (m *mortal) ClaimDeliveries(ctx context.Context, c outbox.Claim) ([]outbox.Delivery, error) {
	if m.dead.Load() {
		return nil, errDead
	}
	return m.memory.ClaimDeliveries(ctx, c)
}

func (m *mortal) SettleDeliveries(ctx context.Context, list []outbox.Settlement) ([]string, error) {
	if m.dead.Load() {
		return nil, errDead
	}
	return m.memory.SettleDeliveries(ctx, list)
}

// Whatever fails, every delivery is taken at least once or visibly dead in the end; and one
// whose receiver never fails, whose processes live and whose store answers, exactly once.
func TestEveryDeliveryIsSentOrVisiblyDead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		quiet := rapid.IntRange(0, 3).Draw(rt, "calm") == 0
		steps := rapid.SliceOfN(rapid.IntRange(0, 7), 5, 25).Draw(rt, "steps")
		var failure string
		synctest.Test(t, func(t *testing.T) { failure = chaos(seed, quiet, steps) })
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

func chaos(seed uint64, quiet bool, steps []int) string {
	var mu sync.Mutex
	w := &world{store: newMemory(), taken: map[string]int{}, roll: func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		seed = seed*6364136223846793005 + 1442695040888963407
		return int(seed>>33) % n
	}}
	w.chaos.Store(!quiet)
	w.store.fail = func(call string) error {
		if w.chaos.Load() && call != "add" && w.roll(5) == 0 {
			return errors.New("the store is away")
		}
		return nil
	}
	stop1, kill1 := w.process()
	stop2, _ := w.process()
	n := 0
	for _, step := range steps {
		switch {
		case step < 4:
			for range 1 + w.roll(30) {
				d := delivery(n, []string{"a", "b"}[w.roll(2)])
				d.Lane, d.Fold = outbox.Lane(w.roll(3)), []string{"", "", "f"}[w.roll(3)]
				d.Due += muster.Micros(w.roll(20_000_000))
				_ = w.store.AddDeliveries(context.Background(), outbox.Batch{Deliveries: []outbox.Delivery{d}})
				n++
			}
		case step == 4 && !quiet:
			kill1()
			stop1, kill1 = w.process()
		case step == 5:
			stop2()
			stop2, _ = w.process()
		}
		pass(time.Duration(w.roll(20)) * time.Second)
	}
	w.chaos.Store(false)
	pass(30 * time.Minute)
	stop1()
	stop2()
	for _, d := range w.store.list {
		times := w.taken[d.ID]
		switch {
		case d.State.Open():
			return fmt.Sprintf("it waits still: %+v", *d)
		case d.State == outbox.StateSent && times == 0:
			return fmt.Sprintf("nobody took it: %+v", *d)
		case d.State == outbox.StateDead && d.Error == "":
			return fmt.Sprintf("it is dead and nobody says why: %+v", *d)
		case quiet && (times != 1 || d.State != outbox.StateSent):
			return fmt.Sprintf("it was taken %d times without any fault: %+v", times, *d)
		}
	}
	if len(w.store.list) != n {
		return fmt.Sprintf("%d of %d are there", len(w.store.list), n)
	}
	return ""
}
