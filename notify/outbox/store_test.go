package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/feed"
	"muster/notify/outbox"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/sqlite"
)

// onEachStore runs fn on the real stores: SQLite, and beside it the PostgreSQL that the environment has.
func onEachStore(t *testing.T, fn func(t *testing.T, c *control.Control)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		controltest.Fill(t, dir)
		h, err := sqlite.OpenControl(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		fn(t, opened(t, control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite()))
	})
	const env = "MUSTER_TEST_POSTGRES"
	if server := os.Getenv(env); server != "" {
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			h, err := postgres.OpenControl(t.Context(), controltest.Database(t, server))
			if err != nil {
				t.Fatal(err)
			}
			fn(t, opened(t, h, control.Postgres()))
		})
	}
}

func opened(t *testing.T, h control.Handles, d control.Dialect) *control.Control {
	t.Helper()
	c, err := control.Open(t.Context(), h, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// running starts a dispatcher until stop is called, or the test ends.
func running(t *testing.T, c outbox.Config) (d *outbox.Dispatcher, stop func()) {
	t.Helper()
	d = outbox.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return d, stop
}

// counter counts how often each delivery was taken, and tells when all were.
type counter struct {
	mu    sync.Mutex
	times map[string]int
	want  int
	all   chan struct{}
	took  func(d outbox.Delivery)
}

func newCounter(want int) *counter {
	return &counter{times: map[string]int{}, want: want, all: make(chan struct{})}
}

func (c *counter) Name() string { return "test" }

func (c *counter) Deliver(_ context.Context, ds []outbox.Delivery) outbox.Attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range ds {
		if c.times[d.ID]++; c.times[d.ID] == 1 && len(c.times) == c.want {
			close(c.all)
		}
		if c.took != nil {
			c.took(d)
		}
	}
	return outbox.Attempt{Verdict: outbox.Delivered, Reference: ds[0].ID}
}

func (c *counter) wait(t *testing.T) {
	t.Helper()
	select {
	case <-c.all:
	case <-time.After(60 * time.Second):
		c.mu.Lock()
		defer c.mu.Unlock()
		t.Fatalf("%d of %d were sent", len(c.times), c.want)
	}
}

func stored(t testing.TB, c outbox.Store, ds ...outbox.Delivery) {
	t.Helper()
	for part := range slices.Chunk(ds, 5000) {
		err := c.AddDeliveries(context.Background(), outbox.Batch{Contents: []outbox.Content{{ID: "ntf_1", Body: []byte(`{"title":"x"}`)}}, Deliveries: part})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func bulk(n, from int, lane outbox.Lane) []outbox.Delivery {
	ds := make([]outbox.Delivery, n)
	for i := range ds {
		ds[i] = delivery(from+i, fmt.Sprint("q", i%3))
		ds[i].Lane = lane
	}
	return ds
}

func TestSeveralDispatchersShareAStoreWithoutDoubling(t *testing.T) {
	onEachStore(t, func(t *testing.T, c *control.Control) {
		const n = 3000
		ch := newCounter(n)
		stored(t, c, bulk(n, 0, outbox.Normal)...)
		begun := time.Now()
		stops := make([]func(), 3)
		for i := range stops {
			_, stops[i] = running(t, config(c, ch, outbox.Settings{}))
		}
		ch.wait(t)
		t.Logf("%d deliveries by 3 dispatchers in %v", n, time.Since(begun).Round(time.Millisecond))
		for _, stop := range stops {
			stop()
		}
		for id, times := range ch.times {
			if times != 1 {
				t.Errorf("%s was sent %d times", id, times)
			}
		}
		list, err := c.Deliveries(t.Context(), outbox.Query{State: outbox.StateSent, Limit: n + 1})
		if err != nil || len(list) != n {
			t.Errorf("%d are written as sent: %v", len(list), err)
		}
	})
}

func TestUrgentDeliveriesOvertakeOnTheRealStore(t *testing.T) {
	onEachStore(t, func(t *testing.T, c *control.Control) {
		const waiting, urgent = 20_000, 100
		stored(t, c, bulk(waiting, 0, outbox.Normal)...)
		var mu sync.Mutex
		sent := map[string]chan time.Time{}
		ch := newCounter(-1)
		ch.took = func(d outbox.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			if at, ok := sent[d.ID]; ok {
				at <- time.Now()
			}
		}
		d, _ := running(t, config(c, ch, outbox.Settings{}))
		var took []time.Duration
		for n := range urgent {
			u := delivery(500_000+n, "q1")
			u.Lane = outbox.Urgent
			at := make(chan time.Time, 1)
			mu.Lock()
			sent[u.ID] = at
			mu.Unlock()
			begun := time.Now()
			stored(t, c, u)
			d.Wake([]outbox.Delivery{u})
			select {
			case end := <-at:
				took = append(took, end.Sub(begun))
			case <-time.After(20 * time.Second):
				t.Fatalf("number %d waits", n)
			}
		}
		slices.Sort(took)
		t.Logf("urgent ones among %d: median %v, p99 %v", waiting, took[urgent/2], took[urgent*99/100])
		if took[urgent*99/100] > 5*time.Second {
			t.Errorf("p99 is %v", took[urgent*99/100])
		}
	})
}

func TestADeadDeliveryIsToldInTheTransactionOfItsEnd(t *testing.T) {
	onEachStore(t, func(t *testing.T, c *control.Control) {
		events := make(chan feed.Event, 10)
		c.OnEvents(func(list []feed.Event) {
			for _, e := range list {
				events <- e
			}
		})
		ch := &scripted{name: "test", fn: always(outbox.Attempt{Verdict: outbox.Dead, Error: "the mail server refused the recipient (550)"})}
		d, stop := running(t, config(c, ch, outbox.Settings{}))
		dlv := delivery(1, "q")
		stored(t, c, dlv)
		d.Wake([]outbox.Delivery{dlv})
		e := <-events
		if e.Type != feed.DeliveryDead || e.Seq != 1 || !strings.Contains(string(e.Data), `"dlv_000001"`) {
			t.Errorf("%+v", e)
		}
		stop()
		got, err := c.Delivery(t.Context(), dlv.ID)
		if err != nil || got.State != outbox.StateDead || got.Attempts != 1 || got.Error == "" {
			t.Errorf("%+v %v", got, err)
		}
	})
}

func TestADeliveryThatOthersEndedMeanwhileIsNotToldAsDead(t *testing.T) {
	onEachStore(t, func(t *testing.T, c *control.Control) {
		events := make(chan feed.Event, 10)
		c.OnEvents(func(list []feed.Event) {
			for _, e := range list {
				events <- e
			}
		})
		ch := &scripted{name: "test", fn: func(_ context.Context, _ int, ds []outbox.Delivery) outbox.Attempt {
			if ds[0].Queue == "taken" { // its webhook is deleted while it is sent
				if n, err := c.DropDeliveries(context.Background(), "taken", "it is gone", muster.MicrosOf(time.Now()), 10); n != 1 || err != nil {
					t.Errorf("%d were dropped: %v", n, err)
				}
			}
			return outbox.Attempt{Verdict: outbox.Dead, Error: "no"}
		}}
		taken, ours := delivery(1, "taken"), delivery(2, "ours")
		stored(t, c, taken)
		d, stop := running(t, config(c, ch, outbox.Settings{}))
		d.Wake([]outbox.Delivery{taken})
		for end := time.Now().Add(20 * time.Second); d.Status().Lost == 0; {
			if time.Now().After(end) {
				t.Fatal("the lease is not lost")
			}
			runtime.Gosched()
		}
		stored(t, c, ours)
		d.Wake([]outbox.Delivery{ours})
		if e := <-events; !strings.Contains(string(e.Data), `"dlv_000002"`) {
			t.Errorf("told is %s", e.Data)
		}
		stop()
		if len(events) > 0 {
			t.Errorf("and %d more", len(events))
		}
		if got, err := c.Delivery(t.Context(), taken.ID); err != nil || got.State != outbox.StateDropped {
			t.Errorf("%+v %v", got, err)
		}
	})
}

func TestALeaseOfAProcessThatDiedIsTakenOver(t *testing.T) {
	onEachStore(t, func(t *testing.T, c *control.Control) {
		stored(t, c, bulk(30, 0, outbox.Normal)...)
		now := time.Now()
		for _, q := range []string{"q0", "q1", "q2"} {
			list, err := c.ClaimDeliveries(t.Context(), outbox.Claim{
				Queue: q, Lanes: []outbox.Lane{outbox.Normal}, Now: muster.MicrosOf(now), Until: muster.MicrosOf(now.Add(time.Second)), Worker: "dead", Limit: 100,
			})
			if err != nil || len(list) != 10 {
				t.Fatalf("%d, %v", len(list), err)
			}
		}
		ch := newCounter(30)
		cfg := config(c, ch, outbox.Settings{})
		cfg.Poll = 100 * time.Millisecond
		cfg.Logger = slog.New(slog.DiscardHandler)
		_, stop := running(t, cfg)
		ch.wait(t)
		if since := time.Since(now); since < time.Second {
			t.Errorf("taken over after %v, before the lease ended", since)
		}
		stop()
		list, err := c.Deliveries(t.Context(), outbox.Query{State: outbox.StateSent, Limit: 100})
		if err != nil || len(list) != 30 || list[0].Attempts != 2 {
			t.Errorf("%d sent: %v", len(list), err)
		}
	})
}
