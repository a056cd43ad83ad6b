package notify_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
)

// withBody returns deliveries with their bodies.
func withBody(t *testing.T, r *rig, ds []outbox.Delivery) []outbox.Delivery {
	t.Helper()
	out := make([]outbox.Delivery, len(ds))
	for i := range ds {
		var err error
		if out[i], err = r.store.Delivery(t.Context(), ds[i].ID); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestAnAckCountsAsThePolicySays(t *testing.T) {
	for _, c := range []struct {
		policy notify.AckPolicy
		want   []notify.NotificationState // after each of three acks
	}{
		{notify.AckAny, []notify.NotificationState{notify.Acked, notify.Acked, notify.Acked}},
		{notify.AckAll, []notify.NotificationState{notify.Open, notify.Open, notify.Acked}},
		{notify.AckNone, []notify.NotificationState{notify.Open, notify.Open, notify.Open}},
	} {
		t.Run(string(c.policy), func(t *testing.T) {
			onEachStore(t, func(t *testing.T, r *rig) {
				topic := r.topic(notify.TopicSpec{AckPolicy: c.policy}, "ann", "bob", "cyd")
				id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
				for i, name := range []string{"bob", "ann", "cyd"} {
					if m := r.ack(name, id); len(m.Moved) != 1 || m.Moved[0].State != notify.AckedIt {
						t.Errorf("%+v", m)
					}
					if m := r.ack(name, id); len(m.Moved) != 0 {
						t.Errorf("the second ack of %s counts: %+v", name, m)
					}
					n := r.notification(id)
					if n.State != c.want[i] || n.Acks != int64(i+1) {
						t.Errorf("after %d: %s, %d acks", i+1, n.State, n.Acks)
					}
				}
				if n := r.notification(id); c.policy == notify.AckAny && n.AckedBy != "bob" || c.policy == notify.AckAll && n.AckedBy != "cyd" {
					t.Errorf("acked by %q", n.AckedBy)
				}
			})
		})
	}
}

func TestManyWhoAckAtOnceAreAllCounted(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAll}, "ann", "bob", "cyd", "dan")
		id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
		var wg sync.WaitGroup
		for _, name := range []string{"ann", "bob", "cyd", "dan"} {
			for range 3 { // in three sessions
				wg.Go(func() { r.ack(name, id) })
			}
		}
		wg.Wait()
		if n := r.notification(id); n.State != notify.Acked || n.Acks != 4 {
			t.Errorf("%+v", n)
		}
	})
}

// oncall 3161: an ack that raced a resolve opened the alert again.
func TestALateAckNeverOpensAgain(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{}, "bob")
	id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k"}).Notification.ID
	r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Resolve: true})
	if m := r.ack("bob", id); len(m.Moved) != 1 {
		t.Errorf("his own ack is not kept: %+v", m)
	}
	if n := r.notification(id); n.State != notify.Resolved || n.AckedBy != "" {
		t.Errorf("%+v", n)
	}
	for range 20 {
		id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k"}).Notification.ID
		var wg sync.WaitGroup
		wg.Go(func() { r.ack("bob", id) })
		wg.Go(func() { r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Resolve: true}) })
		wg.Wait()
		if n := r.notification(id); n.State != notify.Resolved {
			t.Fatalf("%+v", n)
		}
	}
}

// ntfy 1103, novu 6914: what one session reads, the others of the same person see; and
// nobody else's state changes.
func TestStatesArePerPersonAndToldToAllSessions(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAll}, "ann", "bob")
	id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
	follow := func(name string) *notify.Follower {
		f, err := r.Inbox().Follow(notify.Subject("usr_"+name), "", func() {})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.Close)
		return f
	}
	one, two, other := follow("bob"), follow("bob"), follow("ann")
	for _, s := range []notify.ReceiptState{notify.Seen, notify.Read, notify.Seen} {
		if _, err := r.Mark(t.Context(), notify.Marking{Subject: "usr_bob", IDs: []string{id, "ntf_x"}, State: s}); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range []*notify.Follower{one, two} {
		items, err := f.Next(t.Context(), 10)
		if err != nil || len(items) != 2 || items[0].Receipt.State != notify.Seen || items[1].Receipt.State != notify.Read {
			t.Errorf("session %d is told %+v %v", i, items, err)
		}
	}
	if other.Ready() {
		t.Error("ann is told what bob read")
	}
	if r.items("ann")[0].Receipt.State != notify.Sent {
		t.Error("ann's own state changed")
	}
	if n, err := r.ReadAll(t.Context(), "usr_ann", ""); err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
}

func TestAnEscalationTellsTheNextUntilSomebodyAcks(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{Escalation: notify.Escalation{
			Steps: []notify.Step{
				{After: time.Minute, To: []string{"usr_cyd"}, Channels: []string{"email"}},
				{After: 2 * time.Minute, To: []string{"usr_dan", "usr_bob"}, Channels: []string{"email"}},
			}, Repeat: 2,
		}}, "bob")
		r.runs(r.RunEscalation)
		id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
		told := func(want ...string) func() bool {
			return func() bool {
				got, _ := r.deliveries(id)
				for i := range got {
					got[i] = strings.TrimSuffix(strings.TrimPrefix(got[i], "email usr_"), " queued")
				}
				slices.Sort(got)
				return slices.Equal(got, want)
			}
		}
		r.until("the first mail", told("bob"))
		r.pass(time.Minute)
		r.wakeEscalation(topic.ID)
		r.until("the first step", told("bob", "cyd"))
		if items := r.items("cyd"); len(items) != 1 || items[0].Receipt.Step != 1 {
			t.Errorf("%+v", items)
		}
		r.pass(2 * time.Minute)
		r.wakeEscalation(topic.ID)
		r.until("the second step", told("bob", "bob", "cyd", "dan"))
		r.pass(2 * time.Minute)
		r.wakeEscalation(topic.ID)
		r.until("the last step again", told("bob", "bob", "bob", "cyd", "dan", "dan"))
		r.ack("dan", id)
		r.pass(time.Hour)
		r.wakeEscalation(topic.ID)
		n := r.notification(id)
		if n.State != notify.Acked || n.EscalateAt != 0 || n.Recipients != 3 {
			t.Errorf("%+v", n)
		}
		if !told("bob", "bob", "bob", "cyd", "dan", "dan")() {
			t.Error("somebody was told after the ack")
		}
	})
}

// wakeEscalation has the loop look at the clock, which a test has put on.
func (r *rig) wakeEscalation(topic string) {
	r.t.Helper()
	id := r.send(notify.Message{Topic: topic, Title: "wakes the loop"}).Notification.ID
	r.ack("bob", id)
}

func TestASignedLinkAcksOnceOpenedIsNotEnough(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{}, "bob")
	id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
	token := strings.TrimPrefix(r.AckLink(id, "usr_bob"), "http://muster.test"+notify.LinkPath)
	if p, err := r.OpenLink(t.Context(), token); err != nil || p.Item.Receipt.State == notify.AckedIt || p.Item.Notification.ID != id {
		t.Fatalf("%+v %v", p, err)
	}
	for i := range len(token) {
		b := []byte(token)
		b[i] ^= 1
		if _, err := r.OpenLink(t.Context(), string(b)); err == nil {
			t.Fatalf("with byte %d changed it opens", i)
		}
	}
	p, err := r.AckByLink(t.Context(), token, "on my way")
	if err != nil || p.Item.Receipt.Door != notify.DoorMail || p.Item.Receipt.Note != "on my way" || p.Item.Notification.AckedBy != "bob" {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := r.AckByLink(t.Context(), token, "twice"); err != nil || r.items("bob")[0].Receipt.Note != "on my way" {
		t.Errorf("the second time: %v", err)
	}
	r.pass(31 * 24 * time.Hour)
	if _, err := r.OpenLink(t.Context(), token); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("after a month: %v", err)
	}
}

func TestSystemEventsBecomeNotificationsOnceAndAreResolved(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		r.topic(notify.TopicSpec{Sources: []notify.Source{
			{Types: []string{feed.PresenceOffline}, Clears: []string{feed.PresenceOnline}, Query: "id:d1", Severity: notify.Major, Title: "{{.Device}} went away"},
			{Types: []string{"command.*"}, Severity: notify.Warning},
		}}, "bob")
		stop := r.runs(r.RunSources)
		happen := func(kind string, device muster.DeviceID) {
			ctx := feed.With(t.Context())
			feed.Note(ctx, feed.NewEvent(kind, device, muster.MicrosOf(r.now()), map[string]string{"device": string(device), "reason": "keep alive ran out"}))
			if err := r.store.WriteNotes(ctx); err != nil {
				t.Fatal(err)
			}
		}
		r.until("the cursor is kept", func() bool {
			c, err := r.store.Cursor(t.Context(), "notify.sources")
			return err == nil && c.Epoch != ""
		})
		happen(feed.PresenceOffline, "d2")
		happen(feed.PresenceOffline, "d1")
		r.until("the first", func() bool { return len(r.items("bob")) == 1 })
		n := r.items("bob")[0].Notification
		if n.Title != "d1 went away" || n.Severity != notify.Major || n.Device != "d1" {
			t.Errorf("%+v", n)
		}
		stop()
		happen(feed.PresenceOnline, "d1")
		happen(feed.CommandFailed, "d2")
		happen(feed.PresenceOffline, "d1")
		stop = r.runs(r.RunSources)
		r.until("what happened meanwhile", func() bool { return len(r.items("bob")) == 3 })
		stop()
		stop = r.runs(r.RunSources) // nothing is looked at again
		happen(feed.CommandFailed, "d1")
		r.until("the last", func() bool { return len(r.items("bob")) >= 4 })
		stop()
		var got []string
		for _, it := range r.items("bob") {
			got = append(got, it.Notification.Title+" "+string(it.Notification.State))
		}
		if d := cmp.Diff([]string{
			"d1: command failed (keep alive ran out) open", "d1 went away open", "d2: command failed (keep alive ran out) open", "d1 went away resolved",
		}, got); d != "" {
			t.Error(d)
		}
	})
}

// noon has it be noon, so that no day ends while something is tested.
func (r *rig) noon() {
	now := r.now()
	r.pass(now.Truncate(24 * time.Hour).Add(36 * time.Hour).Sub(now))
}

func TestTheOwnerIsToldOnceADayOfWhatWasGivenUp(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	r.noon()
	r.runs(r.RunSources)
	r.until("the cursor is kept", func() bool {
		c, err := r.store.Cursor(t.Context(), "notify.sources")
		return err == nil && c.Epoch != ""
	})
	dead := func(channel, target string) {
		ctx := feed.With(t.Context())
		feed.Note(ctx, feed.NewEvent(feed.DeliveryDead, "", muster.MicrosOf(r.now()), map[string]string{
			"delivery": "dlv_1", "channel": channel, "target": target, "error": "the mail server refused the recipient (550)",
		}))
		if err := r.store.WriteNotes(ctx); err != nil {
			t.Fatal(err)
		}
	}
	dead("email", "usr_bob")
	dead("email", "usr_bob")
	dead("webhook", "whk_x")
	r.until("both are told", func() bool {
		return len(r.items("bob")) == 1 && r.items("bob")[0].Notification.Count == 2 && len(r.items("ann")) == 1
	})
	it := r.items("bob")[0]
	if !strings.Contains(it.Notification.Title, "550") {
		t.Errorf("%+v", it)
	}
	if got, _ := r.deliveries(it.Notification.ID); len(got) != 0 {
		t.Errorf("of a mail that died he is told by %v", got)
	}
	if got, _ := r.deliveries(r.items("ann")[0].Notification.ID); len(got) != 1 || got[0] != "email usr_ann queued" {
		t.Errorf("of a webhook that died its owner is told by %v", got)
	}
}

// Of a device that takes nothing each owner is told of what was of his own topics, and hears nothing of the others'.
func TestEachOwnerIsToldOfWhatWasGivenUpOfHisTopics(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		r.noon()
		r.runs(r.RunSources)
		r.until("the cursor is kept", func() bool {
			c, err := r.store.Cursor(t.Context(), "notify.sources")
			return err == nil && c.Epoch != ""
		})
		var sent []string
		for i, owner := range []string{"ann", "bob", "bob"} {
			topic, _, err := r.CreateTopic(t.Context(), user(owner), notify.TopicSpec{Name: fmt.Sprint("of-", owner, i), Visibility: notify.Private})
			if err != nil {
				t.Fatal(err)
			}
			res, err := r.Send(t.Context(), user(owner), notify.Message{Topic: topic.ID, Title: "x"})
			if err != nil {
				t.Fatal(err)
			}
			sent = append(sent, res.Notification.ID)
			ctx := feed.With(t.Context())
			feed.Note(ctx, feed.NewEvent(feed.DeliveryDead, "", muster.MicrosOf(r.now()), map[string]string{
				"delivery": fmt.Sprint("dlv_", i), "channel": "mqtt", "target": "d1", "notification": res.Notification.ID, "error": "no answer",
			}))
			if err := r.store.WriteNotes(ctx); err != nil {
				t.Fatal(err)
			}
		}
		r.until("somebody is told of each", func() bool {
			told := int64(0)
			for _, it := range append(r.items("ann"), r.items("bob")...) {
				told += it.Notification.Count
			}
			return told == int64(len(sent))
		})
		for name, own := range map[string]string{"ann": sent[0], "bob": sent[2]} {
			items := r.items(name)
			if len(items) != 1 {
				t.Fatalf("%s has %d: %+v", name, len(items), items)
			}
			data := string(items[0].Notification.Data)
			for _, id := range sent {
				if strings.Contains(data, id) != (id == own) {
					t.Errorf("%s is told %s; sent was %v", name, data, sent)
				}
			}
		}
	})
}
