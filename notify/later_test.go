package notify_test

import (
	"fmt"
	"testing"

	"muster"
	"muster/notify"
)

// told waits until a follower was told of a notification with a number of acks, and returns it.
func (r *rig) told(f *notify.Follower, acks int64) notify.Notification {
	r.t.Helper()
	var last notify.Notification
	r.until(fmt.Sprintf("%d acks are told", acks), func() bool {
		items, err := f.Next(r.t.Context(), 100)
		if err != nil {
			r.t.Fatal(err)
		}
		for i := range items {
			last = items[i].Notification
		}
		return last.Acks >= acks
	})
	return last
}

func (r *rig) follow(name string) *notify.Follower {
	r.t.Helper()
	f, err := r.Inbox().Follow(notify.Subject("usr_"+name), "", func() {})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(f.Close)
	return f
}

// What is shown of a notification is the same in every session, however it came to be so.
func TestEveryAckIsToldToAllWhoHaveTheNotification(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		for _, policy := range []notify.AckPolicy{notify.AckAny, notify.AckAll, notify.AckNone} {
			topic := r.topic(notify.TopicSpec{AckPolicy: policy}, "ann", "bob", "cyd", "dan")
			f := r.follow("dan")
			id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k"}).Notification.ID
			for i, name := range []string{"ann", "bob", "cyd"} {
				if name == "cyd" {
					r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Resolve: true})
				}
				r.ack(name, id)
				if got, want := r.told(f, int64(i+1)), r.notification(id); got.Version != want.Version || got.Acks != want.Acks || got.State != want.State {
					t.Errorf("%s, after %s: dan is told version %d with %d acks, %s; it is version %d with %d, %s",
						policy, name, got.Version, got.Acks, got.State, want.Version, want.Acks, want.State)
				}
			}
		}
	})
}

// Of many recipients the acks of a moment are told together, so that all who ack are not as
// many messages to each.
func TestTheAcksOfManyAreToldTogether(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAll}, "dan")
	const many = 150
	for i := range many {
		name := fmt.Sprint("u", i)
		r.people["usr_"+name] = notify.Person{ID: "usr_" + name, Name: name}
		r.subscribe(topic.ID, name, notify.SubscriptionSpec{})
	}
	f := r.follow("dan")
	id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
	r.told(f, 0)
	for i := range many {
		r.ack(fmt.Sprint("u", i), id)
	}
	if items, err := f.Next(t.Context(), 1000); err != nil || len(items) > 0 {
		t.Errorf("dan is told %d times, %v", len(items), err)
	}
	stop := r.runs(r.RunDelivered)
	if got := r.told(f, many); got.State != notify.Open || got.Acks != many {
		t.Errorf("%+v", got)
	}
	stop()
	if items, err := f.Next(t.Context(), 1000); err != nil || len(items) > 0 {
		t.Errorf("dan is told %d times more, %v", len(items), err)
	}
}

// PostgreSQL keeps no NUL and nothing but UTF-8, and fails where it is asked to.
func TestNoTextThatAStoreRefusesGetsToIt(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAny}, "ann", "bob")
		ann, ctx := user("ann"), t.Context()
		id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
		for _, bad := range []string{"a\x00b", "a\xffb"} {
			send := func(change func(*notify.Message)) error {
				m := notify.Message{Topic: topic.ID, Title: "x"}
				change(&m)
				_, err := r.Send(ctx, ann, m)
				return err
			}
			change := func(c notify.TopicChange) error {
				_, err := r.ChangeTopic(ctx, ann, topic.ID, c)
				return err
			}
			via := func(v notify.Via) error {
				_, err := r.Subscribe(ctx, ann, topic.ID, "usr_ann", notify.SubscriptionSpec{Channels: []notify.Via{v}})
				return err
			}
			source := []notify.Source{{Types: []string{"presence.offline"}, Title: bad}}
			query := []notify.Source{{Types: []string{"presence.offline"}, Query: `name:"` + bad + `"`}}
			typed := []notify.Source{{Types: []string{"presence." + bad}}}
			devices, principal := `name:"`+bad+`"`, "key_"+bad
			for what, err := range map[string]error{
				"a title":                send(func(m *notify.Message) { m.Title = bad }),
				"a body":                 send(func(m *notify.Message) { m.Body = bad }),
				"a dedup key":            send(func(m *notify.Message) { m.DedupKey = bad }),
				"data":                   send(func(m *notify.Message) { m.Data = []byte(`{"a":"` + bad + `"}`) }),
				"a link":                 send(func(m *notify.Message) { m.Link = "https://a.example/" + bad }),
				"an action's label":      send(func(m *notify.Message) { m.Actions = []notify.Action{{Label: bad, URL: "https://a.example"}} }),
				"an action's URL":        send(func(m *notify.Message) { m.Actions = []notify.Action{{Label: "x", URL: "https://a.example/" + bad}} }),
				"a device":               send(func(m *notify.Message) { m.Device = muster.DeviceID(bad) }),
				"a topic's name":         change(notify.TopicChange{Name: &bad}),
				"a topic's title":        change(notify.TopicChange{Title: &bad}),
				"a description":          change(notify.TopicChange{Description: &bad}),
				"an owner":               change(notify.TopicChange{Owner: &bad}),
				"a query of devices":     change(notify.TopicChange{Devices: &devices}),
				"a source's title":       change(notify.TopicChange{Sources: &source}),
				"a source's query":       change(notify.TopicChange{Sources: &query}),
				"a source's type":        change(notify.TopicChange{Sources: &typed}),
				"a template's subject":   change(notify.TopicChange{Template: &notify.Template{MailSubject: bad}}),
				"a template's text":      change(notify.TopicChange{Template: &notify.Template{MailText: bad}}),
				"a template of webhooks": change(notify.TopicChange{Template: &notify.Template{Webhook: `"` + bad + `"`}}),
				"whom a step tells":      change(notify.TopicChange{Escalation: &notify.Escalation{Steps: []notify.Step{{After: 1e9, To: []string{"usr_" + bad}}}}}),
				"a step's channel":       change(notify.TopicChange{Escalation: &notify.Escalation{Steps: []notify.Step{{After: 1e9, To: []string{"usr_bob"}, Channels: []string{bad}}}}}),
				"a channel":              via(notify.Via{Channel: bad}),
				"a time zone":            via(notify.Via{Channel: "email", Quiet: &notify.Quiet{Zone: bad}}),
				"a member": func() error {
					_, err := r.PutMember(ctx, ann, topic.ID, principal, notify.RolePublisher)
					return err
				}(),
				"a note": func() error {
					_, err := r.Mark(ctx, notify.Marking{Subject: "usr_bob", IDs: []string{id}, State: notify.AckedIt, Note: bad})
					return err
				}(),
				"where an inbox is read from": func() error {
					_, err := r.Items(ctx, ann, notify.InboxQuery{Before: bad, Limit: 10})
					return err
				}(),
				"up to where it is read": func() error {
					_, err := r.ReadAll(ctx, "usr_ann", bad)
					return err
				}(),
				"where a list goes on": func() error {
					_, err := r.List(ctx, ann, notify.Query{Before: bad, Limit: 10})
					return err
				}(),
				"the device of a list": func() error {
					_, err := r.List(ctx, ann, notify.Query{Device: muster.DeviceID(bad), Limit: 10})
					return err
				}(),
				"where receipts go on": func() error {
					_, err := r.Receipts(ctx, ann, id, notify.Subject(bad), 10)
					return err
				}(),
				"where subscriptions go on": func() error {
					_, err := r.Subscriptions(ctx, ann, topic.ID, notify.Subject(bad), 10)
					return err
				}(),
			} {
				if err == nil || muster.KindOf(err) != muster.Invalid && muster.KindOf(err) != muster.Forbidden {
					t.Errorf("%s with %q: %v of kind %v", what, bad, err, muster.KindOf(err))
				}
			}
			for _, state := range []notify.ReceiptState{notify.Seen, notify.AckedIt} {
				m, err := r.Mark(ctx, notify.Marking{Subject: "usr_bob", IDs: []string{"ntf_" + bad}, State: state})
				if err != nil || len(m.Missing) != 1 {
					t.Errorf("a mark of %q: %+v %v", bad, m, err)
				}
			}
			_, _, err := r.Notification(ctx, ann, bad)
			if muster.KindOf(err) != muster.NotFound {
				t.Errorf("the notification %q: %v", bad, err)
			}
			if err := r.Unsubscribe(ctx, ann, topic.ID, notify.Subject(bad)); muster.KindOf(err) != muster.NotFound {
				t.Errorf("the subscriber %q: %v", bad, err)
			}
			if _, err := r.Topic(ann, bad); muster.KindOf(err) != muster.NotFound {
				t.Errorf("the topic %q: %v", bad, err)
			}
		}
		res := r.send(notify.Message{Topic: topic.ID, Data: []byte(`{"a\u0000":"b\u0000","c":"\ud800"}`)}) // escapes are JSON as any other
		if got := string(r.notification(res.Notification.ID).Data); got != `{"a\u0000":"b\u0000","c":"\ud800"}` {
			t.Errorf("data with escapes is kept as %s", got)
		}
		if items := r.items("bob"); len(items) != 2 || items[0].Notification.Data == nil {
			t.Errorf("%+v", items)
		}
	})
}
