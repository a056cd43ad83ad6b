package live_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/dashboard/live"
	"muster/devices/query"
	"muster/feed"
	"muster/notify"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
)

// post is where notifications are: the real store and the real rooms on it.
type post struct {
	*notify.Notify
	t     tester
	dir   string
	store *control.Control
	flaky *flaky
	made  int
	topic notify.Topic
	stop  func()
	item  func(b []byte, it *notify.Item) []byte
}

// flaky is a store that can be told not to answer.
type flaky struct {
	notify.Store
	down atomic.Bool
}

var errDown = errors.New("the store is down")

func (f *flaky) InboxAfter(ctx context.Context, s notify.Subject, seq, upTo int64, limit int) ([]notify.Item, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.Store.InboxAfter(ctx, s, seq, upTo, limit)
}

func (f *flaky) Inbox(ctx context.Context, q notify.InboxQuery) ([]notify.Item, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.Store.Inbox(ctx, q)
}

func (f *flaky) InboxCounts(ctx context.Context, s notify.Subject, hidden []string) (notify.Counts, error) {
	if f.down.Load() {
		return notify.Counts{}, errDown
	}
	return f.Store.InboxCounts(ctx, s, hidden)
}

type everybody struct{}

func (everybody) Person(id string) (notify.Person, bool) {
	return notify.Person{ID: id, Name: id[len("usr_"):], Email: id + "@example.com", Reachable: true}, true
}

type noDevices struct{}

func (noDevices) Made(muster.DeviceID) (muster.Micros, bool) { return 0, false }
func (noDevices) Compile(q string) (*query.Expr, error)      { return query.Parse(q) }
func (noDevices) Matches(muster.DeviceID, *query.Expr) bool  { return false }

var root = notify.Who{Kind: "user", ID: "usr_root", User: "usr_root", Name: "root", Admin: true}

func newPost(t tester) *post {
	t.Helper()
	dir, err := os.MkdirTemp("", "live")
	if err != nil {
		t.Fatalf("%v", err)
	}
	p := &post{t: t, dir: dir, item: appendItem}
	p.start()
	p.topic, _, err = p.CreateTopic(context.Background(), root, notify.TopicSpec{Name: "all", AckPolicy: notify.AckAny})
	p.must(err)
	return p
}

// start opens the store and what works on it, as a server does.
func (p *post) start() {
	ctx := context.Background()
	controltest.Fill(p.t, p.dir)
	h, err := sqlite.OpenControl(ctx, p.dir)
	p.must(err)
	p.store, err = control.Open(ctx, control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	p.must(err)
	log := slog.New(slog.DiscardHandler)
	p.flaky = &flaky{Store: p.store}
	p.Notify = notify.New(p.flaky, notify.Options{
		People: everybody{}, Devices: noDevices{}, Feed: feed.New(p.store, log), Key: make([]byte, 32), URL: func() string { return "https://muster.example" },
		WebhookOwner: func(string) string { return "" }, Now: time.Now, Logger: log, Limits: notify.Limits{Burst: 1 << 30},
	})
	p.must(p.Load(ctx))
	p.store.OnInbox(p.Inbox().Publish)
	p.store.OnEvents(func([]feed.Event) {})
	ctx, cancel := context.WithCancel(ctx)
	var loops sync.WaitGroup
	loops.Go(func() { _ = p.Inbox().Run(ctx) })
	loops.Go(func() { _ = p.RunDelivered(ctx) })
	p.stop = func() {
		cancel()
		loops.Wait()
		p.must(p.store.Close())
	}
}

func (p *post) close() {
	p.stop()
	p.must(os.RemoveAll(p.dir))
}

func (p *post) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%v", err)
	}
}

func subjectOf(user string) notify.Subject { return notify.Subject("usr_" + user) }

func whoOf(user string) notify.Who {
	return notify.Who{Kind: "user", ID: "usr_" + user, User: "usr_" + user, Name: user}
}

// subscribe has users get what is sent to the topic.
func (p *post) subscribe(users ...string) {
	p.t.Helper()
	for _, u := range users {
		_, err := p.Subscribe(context.Background(), root, p.topic.ID, subjectOf(u), notify.SubscriptionSpec{})
		p.must(err)
	}
}

// tell sends a notification and returns its id.
func (p *post) tell(title string, to ...string) string {
	p.t.Helper()
	m := notify.Message{Topic: p.topic.ID, Severity: notify.Warning, Title: title}
	for _, u := range to {
		m.To = append(m.To, subjectOf(u))
	}
	r, err := p.Send(context.Background(), root, m)
	p.must(err)
	return r.Notification.ID
}

// burst puts n notifications with a body of size bytes into inboxes, in one transaction.
func (p *post) burst(n, size int, users ...string) (ids []string) {
	p.t.Helper()
	var w notify.Write
	body := strings.Repeat("x", size)
	for range n {
		p.made++
		at := muster.MicrosOf(time.Now())
		note := notify.Notification{
			ID: fmt.Sprintf("ntf_z%08d", p.made), Topic: p.topic.ID, Sender: notify.Sender{Kind: "system", Name: "test"}, Lane: 1, Severity: notify.Major,
			Title: "burst", Body: body, Count: 1, State: notify.Open, AckPolicy: notify.AckAny, Recipients: int64(len(users)), Created: at, Updated: at, Version: 1,
		}
		w.New = append(w.New, note)
		ids = append(ids, note.ID)
		for _, u := range users {
			w.Receipts = append(w.Receipts, notify.Receipt{Notification: note.ID, Subject: subjectOf(u)})
		}
	}
	_, err := p.store.Write(context.Background(), w)
	p.must(err)
	return ids
}

// mark moves notifications of a user on, by another door than a socket.
func (p *post) mark(user string, state notify.ReceiptState, ids ...string) {
	p.t.Helper()
	_, err := p.Mark(context.Background(), notify.Marking{Subject: subjectOf(user), IDs: ids, State: state, Door: notify.DoorAPI, Name: user})
	p.must(err)
}

// quiet waits until all that was written to n followers is marked as delivered: until there
// were as many changes as that makes.
func (p *post) quiet(n int64) {
	for p.made += int(2 * n); ; runtime.Gosched() {
		_, last, err := p.store.InboxState(context.Background())
		p.must(err)
		if last >= int64(p.made) {
			return
		}
	}
}

// live.Inbox

type postInbox struct{ p *post }

func (i postInbox) Follow(s notify.Subject, place string, wake func()) (*notify.Follower, error) {
	return i.p.Inbox().Follow(s, place, wake)
}

func (i postInbox) Newest(ctx context.Context, s notify.Subject, limit int) ([]notify.Item, error) {
	return i.p.Items(ctx, notify.Who{Kind: "user", User: string(s)}, notify.InboxQuery{Limit: limit})
}

func (i postInbox) Counts(ctx context.Context, s notify.Subject) (notify.Counts, error) {
	return i.p.Counts(ctx, notify.Who{Kind: "user", User: string(s)})
}

// live.Notes

func (p *post) Publish(ctx context.Context, who live.Principal, what live.Publication) (live.Published, error) {
	var m notify.Message
	if err := json.Unmarshal(what.Message, &m); err != nil {
		return live.Published{}, muster.Errorf(muster.Invalid, "msg is not a message")
	}
	m.Topic = what.Topic
	r, err := p.Send(ctx, who.Who, m)
	out := live.Published{ID: r.Notification.ID, Recipients: r.Notification.Recipients, Duplicate: r.Duplicate, Resolved: r.Resolved}
	for _, s := range r.NotSubscribed {
		out.NotSubscribed = append(out.NotSubscribed, string(s))
	}
	return out, err
}

var receiptStates = map[notify.ReceiptState]string{
	notify.Sent: "sent", notify.Delivered: "delivered", notify.Seen: "seen", notify.Read: "read", notify.AckedIt: "acked",
}

func appendItem(b []byte, it *notify.Item) []byte {
	return append(b, raw(map[string]any{
		"notification": map[string]any{"id": it.Notification.ID, "title": it.Notification.Title, "state": it.Notification.State, "version": it.Notification.Version, "acked_by": it.Notification.AckedBy, "body": it.Notification.Body},
		"receipt":      map[string]any{"state": receiptStates[it.Receipt.State], "note": it.Receipt.Note},
	})...)
}
