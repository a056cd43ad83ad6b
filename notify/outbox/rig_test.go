package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/notify/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a channel that answers as fn does, and remembers.
type scripted struct {
	name string
	fn   func(ctx context.Context, n int, ds []outbox.Delivery) outbox.Attempt // n counts from 0

	mu    sync.Mutex
	calls []call
}

type call struct {
	at  time.Time
	ids []string
}

func (s *scripted) Name() string { return s.name }

func (s *scripted) Deliver(ctx context.Context, ds []outbox.Delivery) outbox.Attempt {
	s.mu.Lock()
	n := len(s.calls)
	c := call{at: time.Now()}
	for _, d := range ds {
		c.ids = append(c.ids, d.ID)
	}
	s.calls = append(s.calls, c)
	s.mu.Unlock()
	return s.fn(ctx, n, ds)
}

func (s *scripted) seen() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]call(nil), s.calls...)
}

// always answers every attempt with a.
func always(a outbox.Attempt) func(context.Context, int, []outbox.Delivery) outbox.Attempt {
	return func(context.Context, int, []outbox.Delivery) outbox.Attempt { return a }
}

var fine = outbox.Attempt{Verdict: outbox.Delivered, Reference: "ref"}

// rig is a dispatcher on a memory, in a bubble.
type rig struct {
	t     *testing.T
	store *memory
	d     *outbox.Dispatcher
	stop  func()
}

// inBubble runs fn with the bubble's clock.
func inBubble(t *testing.T, fn func(t *testing.T)) { synctest.Test(t, fn) }

func config(store outbox.Store, ch outbox.Channel, s outbox.Settings) outbox.Config {
	return outbox.Config{
		Store: store, Channels: []outbox.Channel{ch}, Settings: map[string]outbox.Settings{ch.Name(): s},
		Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}
}

func start(t *testing.T, store *memory, c outbox.Config) *rig {
	r := &rig{t: t, store: store, d: outbox.New(c)}
	r.run()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.d.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
}

// delivery n of a queue, due now.
func delivery(n int, queue string) outbox.Delivery {
	return outbox.Delivery{
		ID: fmt.Sprintf("dlv_%06d", n), Channel: "test", Queue: queue, Target: "usr_1", Notification: "ntf_1", Content: "ntf_1", Lane: outbox.Normal,
		State: outbox.StateQueued, Due: muster.MicrosOf(time.Now()), Created: muster.MicrosOf(time.Now()),
	}
}

// add commits deliveries and tells of them.
func (r *rig) add(ds ...outbox.Delivery) {
	r.t.Helper()
	r.put(ds...)
	r.d.Wake(ds)
}

// put commits deliveries as another process does.
func (r *rig) put(ds ...outbox.Delivery) {
	r.t.Helper()
	err := r.store.AddDeliveries(context.Background(), outbox.Batch{Contents: []outbox.Content{{ID: "ntf_1", Body: []byte(`{"title":"x"}`)}}, Deliveries: ds})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) get(id string) outbox.Delivery {
	r.t.Helper()
	d, err := r.store.Delivery(context.Background(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return d
}

// all are the deliveries there are.
func (r *rig) all() []outbox.Delivery {
	r.t.Helper()
	list, err := r.store.Deliveries(context.Background(), outbox.Query{})
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// pass lets time pass by the bubble's clock.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
