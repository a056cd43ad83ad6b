package notify_test

import (
	"errors"
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

func TestWhatIsSentIsInEveryInboxAndGoesOutByEveryChannel(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "ann", "bob")
		r.subscribe(topic.ID, "cyd", notify.SubscriptionSpec{})
		res := r.send(notify.Message{Topic: topic.Name, Severity: notify.Major, Body: "a lot", Link: "https://example.com/x"})
		if res.Notification.Recipients != 3 || len(res.NotSubscribed) > 0 {
			t.Errorf("%+v", res)
		}
		for _, name := range []string{"ann", "bob", "cyd"} {
			items := r.items(name)
			if len(items) != 1 || items[0].Notification.ID != res.Notification.ID || items[0].Receipt.State != notify.Sent {
				t.Errorf("%s has %+v", name, items)
			}
		}
		if len(r.items("dan")) > 0 {
			t.Error("dan is not subscribed and has it")
		}
		got, _ := r.deliveries(res.Notification.ID)
		slices.Sort(got)
		if d := cmp.Diff([]string{"email usr_ann queued", "email usr_bob queued"}, got); d != "" {
			t.Error(d)
		}
	})
}

// notifyx D1: a list of receivers was stored and nothing was pushed; and it did not say who
// of them was no subscriber.
func TestANotificationToSomeReachesThoseWhoAreSubscribedAndSaysWhoIsNot(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{}, "ann", "bob")
	woken := make(chan struct{}, 10)
	f, err := r.Inbox().Follow("usr_bob", "", func() { woken <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res := r.send(notify.Message{Topic: topic.ID, To: []notify.Subject{"usr_bob", "usr_dan", "usr_nobody"}})
	if d := cmp.Diff([]notify.Subject{"usr_dan", "usr_nobody"}, res.NotSubscribed); d != "" || res.Notification.Recipients != 1 {
		t.Error(d, res.Notification.Recipients)
	}
	select {
	case <-woken:
	case <-time.After(waitLong):
		t.Fatal("bob is told nothing")
	}
	items, err := f.Next(t.Context(), 10)
	if err != nil || len(items) != 1 || items[0].Notification.ID != res.Notification.ID {
		t.Errorf("bob is told %+v %v", items, err)
	}
	if len(r.items("ann")) > 0 {
		t.Error("ann was not meant and has it")
	}
}

func TestOneOfADedupKeyIsOpenAtATime(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "bob")
		first := r.send(notify.Message{Topic: topic.ID, DedupKey: "pump", Severity: notify.Warning})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				res, err := r.Send(t.Context(), user("ann"), notify.Message{Topic: topic.ID, Title: "Again", DedupKey: "pump", Severity: notify.Info})
				if err != nil || !res.Duplicate || res.Notification.ID != first.Notification.ID {
					t.Errorf("%+v %v", res, err)
				}
			})
		}
		wg.Wait()
		n := r.notification(first.Notification.ID)
		if n.Count != 11 || n.Title != "Again" || n.Severity != notify.Warning || len(r.items("bob")) != 1 {
			t.Errorf("%+v", n)
		}
		if got, _ := r.deliveries(n.ID); len(got) != 1 {
			t.Errorf("told %v", got)
		}
		other := r.send(notify.Message{Topic: topic.ID, DedupKey: "valve"})
		if other.Duplicate {
			t.Error("another key is no duplicate")
		}
	})
}

// attempt claims what is due, and settles each as fn says; what stays sending is left on lease.
func (r *rig) attempt(fn func(outbox.Delivery) outbox.State) {
	r.t.Helper()
	queues, err := r.store.DeliveryQueues(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	now := muster.MicrosOf(r.now())
	var done []outbox.Settlement
	for _, q := range queues {
		list, err := r.store.ClaimDeliveries(r.t.Context(), outbox.Claim{
			Queue: q.Name, Lanes: []outbox.Lane{outbox.Urgent, outbox.Normal, outbox.Bulk}, Now: now, Until: now + 45_000_000, Worker: "w", Limit: 100,
		})
		if err != nil {
			r.t.Fatal(err)
		}
		for _, d := range list {
			if to := fn(d); to != outbox.StateSending {
				done = append(done, outbox.Settlement{ID: d.ID, Worker: "w", State: to, Attempts: 1, Due: now + 60_000_000, Ended: now})
			}
		}
	}
	if lost, err := r.store.SettleDeliveries(r.t.Context(), done); err != nil || len(lost) > 0 {
		r.t.Fatal(lost, err)
	}
}

func TestNoNewsComesAfterItsEnd(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "bob", "cyd", "dan")
		sent := r.send(notify.Message{Topic: topic.ID, DedupKey: "pump"})
		r.attempt(func(d outbox.Delivery) outbox.State {
			return map[string]outbox.State{"usr_bob": outbox.StateQueued, "usr_cyd": outbox.StateSending, "usr_dan": outbox.StateSent}[d.Target]
		})
		later := r.send(notify.Message{Topic: topic.ID, DedupKey: "door", To: []notify.Subject{"usr_bob"}})
		for _, key := range []string{"pump", "door"} {
			if res := r.send(notify.Message{Topic: topic.ID, DedupKey: key, Resolve: true}); !res.Resolved {
				t.Errorf("%s: %+v", key, res)
			}
		}
		now := muster.MicrosOf(r.now())
		news := map[string]outbox.Delivery{}
		_, all := r.deliveries(sent.Notification.ID)
		for _, d := range slices.Backward(all) {
			first, ended := news[d.Target]
			if !ended {
				news[d.Target] = d
				continue
			}
			if d.Target == "usr_cyd" && d.Due < first.Due || d.State != outbox.StateQueued {
				t.Errorf("%s is told of the end at %d, and may hear the news until %d", d.Target, d.Due, first.Due)
			}
			delete(news, d.Target)
			if first.State.Open() && (first.Expires == 0 || first.Expires > now) {
				t.Errorf("the news for %s is sent again: %+v", d.Target, first)
			}
		}
		if len(all) != 6 || len(news) != 0 {
			t.Errorf("%d deliveries, and no end for %v", len(all), news)
		}
		if got, _ := r.deliveries(later.Notification.ID); len(got) != 1 || got[0] != "email usr_bob dropped" {
			t.Errorf("what nobody tried to send: %v", got)
		}
	})
}

func TestSourcesThatShareADedupKeyMakeOneNotificationAndHoldUpNobody(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		offline := notify.Source{Types: []string{"presence.offline"}, Clears: []string{"presence.online"}, Severity: notify.Major}
		worse := offline
		worse.Severity = notify.Critical
		both := r.topic(notify.TopicSpec{Sources: []notify.Source{offline, worse}}, "bob")
		other := r.topic(notify.TopicSpec{Sources: []notify.Source{{Types: []string{"presence.offline"}, Severity: notify.Info}}}, "bob")
		r.runs(r.RunSources)
		r.until("the cursor is kept", func() bool {
			c, err := r.store.Cursor(t.Context(), "notify.sources")
			return err == nil && c.Epoch != ""
		})
		ctx := feed.With(t.Context())
		feed.Note(ctx, feed.NewEvent(feed.PresenceOffline, "d1", muster.MicrosOf(r.now()), map[string]string{"device": "d1"}))
		if err := r.store.WriteNotes(ctx); err != nil {
			t.Fatal(err)
		}
		r.until("both topics to be told", func() bool { return len(r.items("bob")) == 2 })
		for _, it := range r.items("bob") {
			want := map[string]notify.Severity{both.ID: notify.Critical, other.ID: notify.Info}[it.Notification.Topic]
			if it.Notification.Severity != want || it.Notification.Count != 1 {
				t.Errorf("%+v", it.Notification)
			}
		}
	})
}

// alertmanager 226: who was told that it fires is told that it is over.
func TestWhoWasToldIsToldThatItIsOver(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{}, "bob", "cyd")
	sent := r.send(notify.Message{Topic: topic.ID, DedupKey: "pump"})
	r.attempt(func(outbox.Delivery) outbox.State { return outbox.StateSent })
	if _, err := r.Subscribe(t.Context(), user("bob"), topic.ID, "usr_bob", notify.SubscriptionSpec{
		Muted: muster.MicrosOf(r.now().Add(time.Hour)), Channels: []notify.Via{{Channel: "email"}},
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.Unsubscribe(t.Context(), user("cyd"), topic.ID, "usr_cyd"); err != nil {
		t.Fatal(err)
	}
	res := r.send(notify.Message{Topic: topic.ID, DedupKey: "pump", Resolve: true})
	if !res.Resolved || r.notification(sent.Notification.ID).State != notify.Resolved {
		t.Errorf("%+v", res)
	}
	got, all := r.deliveries(sent.Notification.ID)
	if n := len(got); n != 4 || strings.Count(strings.Join(got, " "), "usr_bob") != 2 || strings.Count(strings.Join(got, " "), "usr_cyd") != 2 {
		t.Errorf("%v", got)
	}
	m, err := r.ComposeMail(t.Context(), withBody(t, r, all[:1]))
	if err != nil || !strings.Contains(m.Subject, "Resolved") || strings.Contains(m.Text, notify.LinkPath) {
		t.Errorf("%+v %v", m, err)
	}
	_, err = r.Send(t.Context(), user("ann"), notify.Message{Topic: topic.ID, DedupKey: "pump", Resolve: true})
	if muster.KindOf(err) != muster.NotFound {
		t.Errorf("resolved twice: %v", err)
	}
	if again := r.send(notify.Message{Topic: topic.ID, DedupKey: "pump"}); again.Duplicate || again.Notification.ID == sent.Notification.ID {
		t.Error("what comes after the end is no new one")
	}
}

// notifyx N14, and the roles of topics.
func TestOnlyWhoMayPublishesAndChanges(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{Visibility: notify.Private, Devices: "id:d1"}, "ann")
	publish := func(w notify.Who) error {
		_, err := r.Send(t.Context(), w, notify.Message{Topic: topic.ID, Title: "x"})
		return err
	}
	want := func(what string, err error, kind muster.Kind) {
		t.Helper()
		if muster.KindOf(err) != kind {
			t.Errorf("%s: %v, want %v", what, err, kind)
		}
	}
	key := notify.Who{Kind: "key", ID: "key_x", Name: "x"}
	d1 := notify.Who{Kind: "device", ID: "d1", Device: "d1", Name: "d1"}
	d2 := notify.Who{Kind: "device", ID: "d2", Device: "d2", Name: "d2"}
	want("a stranger to a private topic", publish(user("bob")), muster.NotFound)
	want("a key that is no member", publish(key), muster.NotFound)
	want("a device outside of the query", publish(d2), muster.NotFound)
	if err := publish(d1); err != nil {
		t.Errorf("a device within the query: %v", err)
	}
	for who, role := range map[string]notify.Role{"usr_bob": notify.RoleSubscriber, "key_x": notify.RolePublisher} {
		if _, err := r.PutMember(t.Context(), user("ann"), topic.ID, who, role); err != nil {
			t.Fatal(err)
		}
	}
	want("a subscriber", publish(user("bob")), muster.Forbidden)
	if err := publish(key); err != nil {
		t.Errorf("a publisher: %v", err)
	}
	title := "mine"
	_, err := r.ChangeTopic(t.Context(), key, topic.ID, notify.TopicChange{Title: &title})
	want("a publisher who changes it", err, muster.Forbidden)
	_, err = r.PutMember(t.Context(), user("bob"), topic.ID, "usr_bob", notify.RoleOwner)
	want("a subscriber who makes himself owner", err, muster.Forbidden)
	_, err = r.Members(user("cyd"), topic.ID)
	want("a stranger who lists members", err, muster.NotFound)
	_, err = r.Subscriptions(t.Context(), user("bob"), topic.ID, "", 10)
	want("a subscriber who lists subscribers", err, muster.Forbidden)
	inactive := notify.Inactive
	if _, err := r.ChangeTopic(t.Context(), user("ann"), topic.ID, notify.TopicChange{Status: &inactive}); err != nil {
		t.Fatal(err)
	}
	want("to an inactive topic", publish(user("ann")), muster.Conflict)
	_, err = r.Mark(t.Context(), notify.Marking{Subject: "usr_bob", IDs: []string{"ntf_x"}, State: notify.Sent})
	want("a state that is set by nobody", err, muster.Invalid)
}

// notifyx D17: two who created a topic at once crashed.
func TestOfManyWhoMakeATopicAtOnceOneDoes(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		ids, made, conflicts := map[string]bool{}, 0, 0
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				topic, did, err := r.CreateTopic(t.Context(), user("bob"), notify.TopicSpec{Name: "storm", IfAbsent: i%2 == 0})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case muster.KindOf(err) == muster.Conflict && err != nil:
					conflicts++
				case err != nil:
					t.Error(err)
				default:
					ids[topic.ID] = true
					if did {
						made++
					}
				}
			})
		}
		wg.Wait()
		if made != 1 || len(ids) != 1 || conflicts < 9 {
			t.Errorf("%d were made, %d ids, %d conflicts", made, len(ids), conflicts)
		}
	})
}

func TestASenderIsLimited(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{Devices: "id:d1"})
	d1 := notify.Who{Kind: "device", ID: "d1", Device: "d1", Name: "d1"}
	sent := 0
	var err error
	for err == nil {
		if _, err = r.Send(t.Context(), d1, notify.Message{Topic: topic.ID, Title: "x"}); err == nil {
			sent++
		}
	}
	wait, ok := errors.AsType[*notify.WaitError](err)
	if sent != 1000 || !ok || wait.Wait <= 0 || muster.KindOf(err) != muster.Busy {
		t.Fatalf("%d were sent, then %v", sent, err)
	}
	r.pass(wait.Wait)
	if _, err := r.Send(t.Context(), d1, notify.Message{Topic: topic.ID, Title: "x"}); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	r.send(notify.Message{Topic: topic.ID}) // another sender
}

func TestEveryNotificationIsInTheFeedAndOneOfAPrivateTopicWithoutWords(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	reader, err := r.feed.Follow(-1)
	if err != nil {
		t.Fatal(err)
	}
	r.send(notify.Message{Topic: r.topic(notify.TopicSpec{Name: "open"}, "bob").ID, Title: "Loud", Body: "words"})
	hidden := r.topic(notify.TopicSpec{Name: "hidden", Visibility: notify.Private})
	sent := r.send(notify.Message{Topic: hidden.ID, Title: "Hush", Body: "secret"})
	events, err := reader.Next(t.Context(), 10)
	for len(events) < 2 && err == nil {
		var more []feed.Event
		more, err = reader.Next(t.Context(), 10)
		events = append(events, more...)
	}
	if err != nil || !strings.Contains(string(events[0].Data), `"Loud"`) || events[0].Type != feed.NotificationCreated {
		t.Fatalf("%v %v", events, err)
	}
	if text := string(events[1].Data); strings.Contains(text, "Hush") || strings.Contains(text, "secret") || strings.Contains(text, "hidden") ||
		!strings.Contains(text, sent.Notification.ID) {
		t.Errorf("of a private topic: %s", text)
	}
}

func TestQuietHoursHoldWhatIsNotBadEnough(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	night := time.Date(2026, 3, 3, 22, 30, 0, 0, time.UTC) // 23:30 in Berlin
	r.at = night
	topic := r.topic(notify.TopicSpec{})
	r.subscribe(topic.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{
		Channel: "email", Severity: notify.Warning, Quiet: &notify.Quiet{From: 22 * 60, To: 6 * 60, Zone: "Europe/Berlin", Except: notify.Critical},
	}}})
	due := func(s notify.Severity) []time.Time {
		_, all := r.deliveries(r.send(notify.Message{Topic: topic.ID, Severity: s}).Notification.ID)
		var out []time.Time
		for i := range all {
			out = append(out, all[i].Due.Time().Truncate(time.Second))
		}
		return out
	}
	if got := due(notify.Info); len(got) != 0 {
		t.Errorf("what is below the least severity goes out at %v", got)
	}
	morning := time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)
	if d := cmp.Diff([]time.Time{morning}, due(notify.Major)); d != "" {
		t.Errorf("at night: %s", d)
	}
	if d := cmp.Diff([]time.Time{night}, due(notify.Critical)); d != "" {
		t.Errorf("what is critical: %s", d)
	}
	r.pass(12 * time.Hour)
	if d := cmp.Diff([]time.Time{night.Add(12 * time.Hour)}, due(notify.Major)); d != "" {
		t.Errorf("by day: %s", d)
	}
	if len(r.items("bob")) != 4 {
		t.Error("the inbox does not have all of them")
	}
}
