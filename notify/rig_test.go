package notify_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/devices/query"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onEachStore runs fn on SQLite, and beside it on the PostgreSQL that the environment has.
func onEachStore(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		fn(t, onSQLite(t, t.TempDir()))
	})
	const env = "MUSTER_TEST_POSTGRES"
	if server := os.Getenv(env); server != "" {
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			h, err := postgres.OpenControl(t.Context(), controltest.Database(t, server))
			if err != nil {
				t.Fatal(err)
			}
			fn(t, newRig(t, h, control.Postgres()))
		})
	}
}

func onSQLite(t *testing.T, dir string) *rig {
	t.Helper()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return newRig(t, control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
}

// world is who and what there is, and the time.
type world struct {
	mu      sync.Mutex
	people  map[string]notify.Person
	devices map[muster.DeviceID]bool
	made    map[muster.DeviceID]muster.Micros // when each was, 0 for long ago
	at      time.Time
}

func (w *world) Person(id string) (notify.Person, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.people[id]
	return p, ok
}

func (w *world) Made(id muster.DeviceID) (muster.Micros, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made[id], w.devices[id]
}

func (w *world) Compile(q string) (*query.Expr, error) { return query.Parse(q) }

// Matches knows queries of the form id:NAME only.
func (w *world) Matches(id muster.DeviceID, e *query.Expr) bool {
	want, err := query.Parse("id:" + string(id))
	return err == nil && want.String() == e.String()
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(time.Microsecond)
	return w.at
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(d)
}

type rig struct {
	*world
	*notify.Notify
	t       *testing.T
	store   *control.Control
	feed    *feed.Feed
	options notify.Options
}

func newRig(t *testing.T, h control.Handles, d control.Dialect) *rig {
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
	r := &rig{t: t, store: c, world: &world{
		people: map[string]notify.Person{}, devices: map[muster.DeviceID]bool{"d1": true, "d2": true}, made: map[muster.DeviceID]muster.Micros{}, at: time.Now(),
	}}
	for _, name := range []string{"ann", "bob", "cyd", "dan"} {
		r.people["usr_"+name] = notify.Person{ID: "usr_" + name, Name: name, Email: name + "@example.com", Reachable: true}
	}
	log := slog.New(slog.DiscardHandler)
	r.feed = feed.New(c, log)
	c.OnEvents(r.feed.Publish)
	if err := r.feed.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.options = notify.Options{
		People: r.world, Devices: r.world, Feed: r.feed, Key: make([]byte, 32), URL: func() string { return "http://muster.test" },
		WebhookOwner: func(string) string { return "usr_ann" }, Now: r.now, Logger: log,
		Limits: notify.Limits{Burst: 1000},
	}
	r.Notify = notify.New(c, r.options)
	c.OnInbox(r.Inbox().Publish)
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func user(name string) notify.Who {
	return notify.Who{Kind: "user", ID: "usr_" + name, User: "usr_" + name, Name: name}
}

// topic makes a topic of ann's to which names are subscribed, with mail.
func (r *rig) topic(s notify.TopicSpec, names ...string) notify.Topic {
	r.t.Helper()
	if s.Name == "" {
		s.Name = "t" + strings.ToLower(rand.Text())
	}
	t, made, err := r.CreateTopic(r.t.Context(), user("ann"), s)
	if err != nil || !made {
		r.t.Fatal(made, err)
	}
	for _, n := range names {
		r.subscribe(t.ID, n, notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email"}}})
	}
	return t
}

func (r *rig) subscribe(topic, name string, s notify.SubscriptionSpec) {
	r.t.Helper()
	if _, err := r.Subscribe(r.t.Context(), user(name), topic, notify.Subject("usr_"+name), s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) send(m notify.Message) notify.Result {
	r.t.Helper()
	if m.Title == "" {
		m.Title = "It leaks"
	}
	res, err := r.Send(r.t.Context(), user("ann"), m)
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// items returns what is in an inbox, the newest first.
func (r *rig) items(name string) []notify.Item {
	r.t.Helper()
	items, err := r.Items(r.t.Context(), user(name), notify.InboxQuery{Limit: 100})
	if err != nil {
		r.t.Fatal(err)
	}
	return items
}

func (r *rig) ack(name, id string) notify.Marked {
	r.t.Helper()
	m, err := r.Mark(r.t.Context(), notify.Marking{
		Subject: notify.Subject("usr_" + name), IDs: []string{id}, State: notify.AckedIt, Door: notify.DoorAPI, Name: name,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *rig) notification(id string) notify.Notification {
	r.t.Helper()
	n, err := r.store.Notification(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// deliveries returns those of a notification, the oldest first, as "channel target state".
func (r *rig) deliveries(id string) (out []string, all []outbox.Delivery) {
	r.t.Helper()
	all, err := r.store.Deliveries(r.t.Context(), outbox.Query{Notification: id, Limit: 1000})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range slices.Backward(all) {
		out = append(out, d.Channel+" "+d.Target+" "+string(d.State))
	}
	return out, all
}

// runs starts a loop until the test ends, or the function that it returns is called.
func (r *rig) runs(loop func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

const waitLong = 20 * time.Second

// until waits for something that loops do.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(waitLong); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("not in time: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}
