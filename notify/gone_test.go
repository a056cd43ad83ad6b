package notify_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
)

// Who deletes a topic wants nothing more of it: what waits for its time ends, and what is about to go
// out does not.
func TestNothingGoesOutAnyMoreOfATopicThatWasDeleted(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "bob")
		kept := r.topic(notify.TopicSpec{Title: "Kept"}, "bob")
		if _, err := r.Subscribe(t.Context(), user("ann"), topic.ID, notify.DeviceSubject("d1"), notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "mqtt"}}}); err != nil {
			t.Fatal(err)
		}
		id := r.send(notify.Message{Topic: topic.ID, Title: "pending"}).Notification.ID
		other := r.send(notify.Message{Topic: kept.ID, Title: "stays"}).Notification.ID
		hook := outbox.Delivery{
			ID: outbox.NewID(outbox.IDPrefix, muster.MicrosOf(r.now())), Channel: "webhook", Queue: "webhook:whk_x", Target: "whk_x", Content: "evt_x",
			Notification: id, State: outbox.StateQueued,
		}
		if err := r.store.AddDeliveries(t.Context(), outbox.Batch{Contents: []outbox.Content{{ID: "evt_x"}}, Deliveries: []outbox.Delivery{hook}}); err != nil {
			t.Fatal(err)
		}
		_, all := r.deliveries(id)
		_, rest := r.deliveries(other)
		all, rest = withBody(t, r, all), withBody(t, r, rest)
		mail := slices.IndexFunc(all, func(d outbox.Delivery) bool { return d.Channel == "email" })
		if err := r.DeleteTopic(t.Context(), user("ann"), topic.ID); err != nil {
			t.Fatal(err)
		}

		if m, err := r.ComposeMail(t.Context(), all[mail:mail+1]); muster.KindOf(err) != muster.NotFound {
			t.Errorf("a mail of it: %q %v", m.Subject, err)
		}
		if _, err := r.DevicePayload(t.Context(), all[mail].Body); muster.KindOf(err) != muster.NotFound {
			t.Errorf("a message to a device: %v", err)
		}
		m, err := r.ComposeMail(t.Context(), append(slices.Clone(all[mail:mail+1]), rest...))
		if err != nil || strings.Contains(m.Text, "pending") || !strings.Contains(m.Text, "Kept: stays") {
			t.Errorf("the digest says %q, %v", m.Text, err)
		}

		r.runs(r.RunTrim)
		var got []string
		r.until("what waits to end", func() bool {
			got, all = r.deliveries(id)
			return !slices.ContainsFunc(all, func(d outbox.Delivery) bool { return d.State == outbox.StateQueued && d.Channel != "webhook" })
		})
		slices.Sort(got)
		if want := []string{"email usr_bob dropped", "mqtt d1 dropped", "webhook whk_x queued"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		for _, d := range all {
			if d.State == outbox.StateDropped && (d.Error != "its topic was deleted" || d.Ended == 0) {
				t.Errorf("%+v", d)
			}
		}
		if got, _ := r.deliveries(other); !slices.Equal(got, []string{"email usr_bob queued"}) {
			t.Errorf("of another topic: %v", got)
		}
	})
}

// Another process may have made the topic of a mail that this one sends.
func TestAMailHasTheNameOfATopicThatAnotherProcessMade(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		other := notify.New(r.store, r.options)
		if err := other.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, all := r.deliveries(r.send(notify.Message{Topic: r.topic(notify.TopicSpec{Title: "Doors"}, "bob").ID}).Notification.ID)
		if m, err := other.ComposeMail(t.Context(), withBody(t, r, all)); err != nil || !strings.Contains(m.Subject, "Doors") {
			t.Errorf("%q %v", m.Subject, err)
		}
	})
}

func TestWhoIsDisabledOrGoneHoldsNothingOpenThatAllMustAck(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAll}, "ann", "bob", "cyd")
		disable := func(names ...string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, name := range names {
				p := r.people["usr_"+name]
				p.Disabled = true
				r.people["usr_"+name] = p
			}
		}
		first := r.send(notify.Message{Topic: topic.ID}).Notification.ID
		r.ack("ann", first)
		disable("cyd")
		r.runs(r.RunEscalation)
		r.ack("bob", first) // the last who is here
		r.until("it is acked", func() bool { return r.notification(first).State == notify.Acked })
		if n := r.notification(first); n.Acks != 2 || n.Recipients != 3 || n.EscalateAt != 0 {
			t.Errorf("%+v", n)
		}
		if items := r.items("ann"); items[0].Notification.State != notify.Acked {
			t.Errorf("ann is shown %s", items[0].Notification.State)
		}

		second := r.send(notify.Message{Topic: topic.ID}).Notification.ID // cyd gets nothing of it
		nobody := r.send(notify.Message{Topic: topic.ID}).Notification.ID
		r.ack("ann", second)
		if n := r.notification(second); n.State != notify.Open {
			t.Fatalf("bob has not acked: %s", n.State)
		}
		disable("ann", "bob")
		r.WakeEscalation()
		r.until("nobody is left", func() bool { return r.notification(second).State == notify.Acked })
		if n := r.notification(nobody); n.State != notify.Open {
			t.Errorf("nobody acked it, and it is %s", n.State)
		}
	})
}

func TestAPrivateTopicsEventsAreShownToWhoSeesItAlone(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		follow := func(who notify.Who) func() []string {
			w, err := r.feed.Open(feed.Ask{Show: func(ctx context.Context, e *feed.Event) bool { return r.Shows(ctx, who, e) }})
			if err != nil {
				t.Fatal(err)
			}
			return func() (types []string) {
				for w.Ready() {
					events, err := w.Next(t.Context(), 100)
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range events {
						types = append(types, e.Type)
					}
				}
				return types
			}
		}
		admin := user("dan")
		admin.Admin = true
		owner, member, stranger, boss := follow(user("ann")), follow(user("bob")), follow(user("cyd")), follow(admin)
		private := r.topic(notify.TopicSpec{Visibility: notify.Private})
		public := r.topic(notify.TopicSpec{Visibility: notify.Internal})
		if _, err := r.PutMember(t.Context(), user("ann"), private.ID, "usr_bob", notify.RoleSubscriber); err != nil {
			t.Fatal(err)
		}
		id := r.send(notify.Message{Topic: private.ID}).Notification.ID
		r.send(notify.Message{Topic: public.ID})
		dead := feed.NewEvent(feed.DeliveryDead, "", muster.MicrosOf(r.now()), map[string]string{"delivery": "dlv_x", "channel": "email", "target": "usr_bob", "notification": id})
		device := feed.NewEvent(feed.DeviceCreated, "d1", muster.MicrosOf(r.now()), map[string]string{"device": "d1"})
		ctx := feed.With(t.Context())
		feed.Note(ctx, dead, device)
		if err := r.store.WriteNotes(ctx); err != nil {
			t.Fatal(err)
		}
		created := feed.NotificationCreated
		for who, c := range map[string]struct{ got, want []string }{
			"the owner":  {owner(), []string{created, created, feed.DeviceCreated}},
			"a member":   {member(), []string{created, created, feed.DeviceCreated}},
			"a stranger": {stranger(), []string{created, feed.DeviceCreated}},
			"an admin":   {boss(), []string{created, created, feed.DeliveryDead, feed.DeviceCreated}},
		} {
			if !slices.Equal(c.got, c.want) {
				t.Errorf("%s is told of %v, want %v", who, c.got, c.want)
			}
		}
	})
}

// What was said of a topic while all saw it is told to nobody who does not see it now, whatever it is called by now.
func TestWhatWasSaidOfATopicThatIsPrivateOrGoneNowIsShownToWhoSeesItAlone(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		admin := user("dan")
		admin.Admin = true
		topic, gone, other := r.topic(notify.TopicSpec{}), r.topic(notify.TopicSpec{}), r.topic(notify.TopicSpec{})
		for _, of := range []notify.Topic{topic, gone, other} {
			r.send(notify.Message{Topic: of.ID, Title: "the words of " + of.Name})
		}
		old := feed.NewEvent(feed.NotificationCreated, "", muster.MicrosOf(r.now()), map[string]string{ // as it was before events had the topic's id
			"notification": r.send(notify.Message{Topic: topic.ID}).Notification.ID, "topic": topic.Name, "title": "older words",
		})
		ctx := feed.With(t.Context())
		feed.Note(ctx, old)
		if err := r.store.WriteNotes(ctx); err != nil {
			t.Fatal(err)
		}
		private, name := notify.Private, "another-name"
		steps := []struct {
			what             string
			change           func() error
			stranger, member int // events that they are told of, of five
		}{
			{"at first", func() error { return nil }, 5, 5},
			{"private", func() error {
				_, err := r.ChangeTopic(t.Context(), user("ann"), topic.ID, notify.TopicChange{Visibility: &private})
				return err
			}, 2, 5},
			{"and renamed", func() error {
				_, err := r.ChangeTopic(t.Context(), user("ann"), topic.ID, notify.TopicChange{Name: &name})
				return err
			}, 2, 5},
			{"and its name another's", func() error {
				_, _, err := r.CreateTopic(t.Context(), user("ann"), notify.TopicSpec{Name: topic.Name})
				return err
			}, 2, 5},
			{"another one deleted", func() error { return r.DeleteTopic(t.Context(), user("ann"), gone.ID) }, 1, 4},
		}
		for _, s := range steps {
			if err := s.change(); err != nil {
				t.Fatal(s.what, err)
			}
			for who, want := range map[string]int{"cyd": s.stranger, "ann": s.member, "dan": 5} {
				asks := user(who)
				if who == "dan" {
					asks = admin
				}
				if got := r.shown(asks); len(got) != want {
					t.Errorf("%s: %s is told %q, want %d", s.what, who, got, want)
				}
			}
		}
	})
}

// shown returns the events of notifications in the feed, from its beginning, that are shown to who.
func (r *rig) shown(who notify.Who) (out []string) {
	r.t.Helper()
	w, err := r.feed.Open(feed.Ask{Place: r.feed.Epoch() + "-0", Types: "notification.*", Show: func(ctx context.Context, e *feed.Event) bool { return r.Shows(ctx, who, e) }})
	if err != nil {
		r.t.Fatal(err)
	}
	for w.Ready() {
		events, err := w.Next(r.t.Context(), 100)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range events {
			out = append(out, string(e.Data))
		}
	}
	return out
}

// oncall 3870 and the like: what one takes care of, by the policy any, is his: nobody is told anew, and nothing opens it.
func TestWhatSomebodyTookCareOfStaysClosed(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAny, Escalation: notify.Escalation{
			Steps: []notify.Step{{After: time.Minute, To: []string{"usr_dan"}, Channels: []string{"email"}}}, Repeat: 3,
		}}, "bob", "cyd")
		id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Major}).Notification.ID
		r.ack("bob", id)
		told, _ := r.deliveries(id)
		r.pass(time.Hour)
		later := r.topic(notify.TopicSpec{Escalation: notify.Escalation{Steps: []notify.Step{{After: time.Minute, To: []string{"usr_dan"}, Channels: []string{"email"}}}}}, "cyd")
		other := r.send(notify.Message{Topic: later.ID}).Notification.ID // its step is done after those that were due before it
		r.runs(r.RunEscalation)
		r.pass(time.Hour)
		r.WakeEscalation()
		r.until("the other escalates", func() bool { return r.notification(other).Step == 1 })
		if res := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Major}); !res.Duplicate || res.Notification.ID != id {
			t.Errorf("it is sent again as %+v", res)
		}
		r.ack("cyd", id)
		if n := r.notification(id); n.State != notify.Acked || n.AckedBy != "bob" || n.Step != 0 || n.Count != 2 {
			t.Errorf("%+v", n)
		}
		if again, _ := r.deliveries(id); !slices.Equal(again, told) {
			t.Errorf("told %v, and before the ack %v", again, told)
		}
	})
}

func TestAllKeysOfAUserAndHeHimselfHaveOneLimit(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{}).ID
	o := r.options
	o.Limits = notify.Limits{Burst: 3, Every: time.Hour}
	n := notify.New(r.store, o)
	if err := n.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := func(id string) notify.Who { return notify.Who{Kind: "key", ID: id, User: "usr_ann", Name: id} }
	free := notify.Who{Kind: "key", ID: "key_free", Name: "free", Admin: true}
	for i, c := range []struct {
		who  notify.Who
		sent bool
	}{{key("key_1"), true}, {key("key_2"), true}, {user("ann"), true}, {key("key_1"), false}, {key("key_3"), false}, {user("ann"), false}, {free, true}} {
		_, err := n.Send(t.Context(), c.who, notify.Message{Topic: topic, Title: "x"})
		if (err == nil) != c.sent || err != nil && muster.KindOf(err) != muster.Busy {
			t.Errorf("%d, by %s: %v", i, c.who.ID, err)
		}
	}
}

// Who has the id of a device that was deleted is not called by the escalation of what was sent before it was there.
func TestADeviceThatIsMadeAgainIsNotCalledByAnOlderEscalation(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		steps := []notify.Step{{After: time.Minute, To: []string{"device/d1", "device/d2"}}}
		topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAny, Escalation: notify.Escalation{Steps: steps}}, "bob")
		other := r.topic(notify.TopicSpec{AckPolicy: notify.AckAny, Escalation: notify.Escalation{
			Steps: []notify.Step{{After: time.Minute, To: []string{"usr_cyd"}}},
		}})
		named := r.send(notify.Message{Topic: other.ID}).Notification.ID
		old := r.send(notify.Message{Topic: topic.ID}).Notification.ID
		r.mu.Lock()
		r.made["d1"] = muster.MicrosOf(r.at.Add(time.Second))
		r.mu.Unlock()
		r.pass(10 * time.Second)
		r.changeTopic(topic.ID, notify.TopicChange{Title: &topic.ID, Escalation: &notify.Escalation{Steps: steps}}) // the steps are what they were
		r.changeTopic(other.ID, notify.TopicChange{Escalation: &notify.Escalation{Steps: steps}})
		young := r.send(notify.Message{Topic: topic.ID}).Notification.ID
		r.runs(r.RunEscalation)
		r.pass(2 * time.Minute)
		r.WakeEscalation()
		r.until("the steps", func() bool {
			return r.notification(old).Step == 1 && r.notification(young).Step == 1 && r.notification(named).Step == 1
		})
		for id, want := range map[string][]string{named: {"mqtt d1 queued", "mqtt d2 queued"}, old: {"mqtt d2 queued"}, young: {"mqtt d1 queued", "mqtt d2 queued"}} {
			got, _ := r.deliveries(id)
			got = slices.DeleteFunc(got, func(s string) bool { return s == "email usr_bob queued" })
			slices.Sort(got)
			r.wants("called", got, want...)
		}
	})
}
