package notify_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/notify"
	"muster/notify/outbox"
)

func TestWhoLostATopicGetsNothingOfItAndMayEndHisSubscription(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		private := r.topic(notify.TopicSpec{Visibility: notify.Private})
		if _, err := r.PutMember(t.Context(), user("ann"), private.ID, "usr_bob", notify.RoleSubscriber); err != nil {
			t.Fatal(err)
		}
		r.subscribe(private.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email"}}})
		if res := r.send(notify.Message{Topic: private.ID}); res.Notification.Recipients != 1 {
			t.Fatalf("%+v", res)
		}
		if err := r.DeleteMember(t.Context(), user("ann"), private.ID, "usr_bob"); err != nil {
			t.Fatal(err)
		}
		res := r.send(notify.Message{Topic: private.ID, To: []notify.Subject{"usr_bob"}})
		if res.Notification.Recipients != 0 || !slices.Equal(res.NotSubscribed, []notify.Subject{"usr_bob"}) || len(r.items("bob")) != 0 {
			t.Errorf("%+v, and %d in his inbox", res, len(r.items("bob")))
		}
		for _, want := range []error{nil, muster.Errorf(muster.NotFound, "")} {
			if err := r.Unsubscribe(t.Context(), user("bob"), private.ID, "usr_bob"); (err == nil) != (want == nil) || err != nil && muster.KindOf(err) != muster.NotFound {
				t.Errorf("he ends his subscription: %v", err)
			}
		}
		if err := r.Unsubscribe(t.Context(), user("cyd"), private.ID, "usr_cyd"); muster.KindOf(err) != muster.NotFound || strings.Contains(err.Error(), private.Name) {
			t.Errorf("a stranger is told of the topic: %v", err)
		}
	})
}

func TestAnExpiredNotificationSwallowsNoLaterOne(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "bob")
		old := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Expires: muster.MicrosOf(r.now().Add(time.Second))}).Notification
		r.pass(2 * time.Second)
		res := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Critical})
		if res.Duplicate || res.Notification.ID == old.ID || res.Notification.Expires != 0 || len(r.items("bob")) != 2 {
			t.Errorf("%+v", res)
		}
		if n := r.notification(old.ID); n.State != notify.Resolved {
			t.Errorf("the old one is %s", n.State)
		}
		if got, _ := r.deliveries(res.Notification.ID); len(got) != 1 {
			t.Errorf("told %v", got)
		}
	})
}

func TestARiseInSeverityIsToldToThoseChannelsThatWaitForIt(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "bob")
		r.subscribe(topic.ID, "cyd", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Severity: notify.Critical}}})
		id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Warning}).Notification.ID
		r.subscribe(topic.ID, "dan", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Severity: notify.Critical}}}) // too late for this one
		for range 2 {
			r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Critical})
		}
		got, all := r.deliveries(id)
		slices.Sort(got)
		if !slices.Equal(got, []string{"email usr_bob queued", "email usr_cyd queued"}) || all[0].Lane != outbox.Urgent {
			t.Errorf("told %v, in lane %s", got, all[0].Lane)
		}
	})
}

func TestTheEndWaitsForTheHoursThatTheNewsWouldHaveWaitedFor(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{}, "bob", "cyd")
	id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Warning}).Notification.ID
	r.attempt(func(outbox.Delivery) outbox.State { return outbox.StateSent })
	now := r.now().UTC()
	minute := now.Hour()*60 + now.Minute()
	r.subscribe(topic.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{
		Channel: "email", Quiet: &notify.Quiet{From: (minute + 1439) % 1440, To: (minute + 120) % 1440, Zone: "UTC", Except: notify.Critical},
	}}})
	r.subscribe(topic.ID, "cyd", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Digest: time.Hour}}})
	r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Resolve: true})
	_, all := r.deliveries(id)
	for _, d := range all {
		if d.State == outbox.StateQueued && d.Due <= muster.MicrosOf(r.now().Add(time.Second)) {
			t.Errorf("the end goes out to %s at once", d.Target)
		}
	}
	if len(all) != 4 {
		t.Errorf("%d deliveries", len(all))
	}
}

func TestQuietHoursThatFollowEachOtherAreOne(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	r.at = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC) // a Saturday
	topic := r.topic(notify.TopicSpec{})
	weekend := &notify.Quiet{Days: []int{0, 6}, Zone: "UTC", Except: notify.Critical}
	r.subscribe(topic.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Quiet: weekend}}})
	_, all := r.deliveries(r.send(notify.Message{Topic: topic.ID}).Notification.ID)
	if want := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC); len(all) != 1 || !all[0].Due.Time().Equal(want) {
		t.Errorf("it goes out at %v, want %v", all[0].Due.Time(), want)
	}
	for _, days := range [][]int{nil, {0, 1, 2, 3, 4, 5, 6}} {
		_, err := r.Subscribe(t.Context(), user("bob"), topic.ID, "usr_bob", notify.SubscriptionSpec{
			Channels: []notify.Via{{Channel: "email", Quiet: &notify.Quiet{From: 60, To: 60, Days: days, Zone: "UTC"}}},
		})
		if muster.KindOf(err) != muster.Invalid || err == nil {
			t.Errorf("quiet hours that never end: %v", err)
		}
	}
}

func TestAStepCallsEachOnceAndNobodyWhoHasAcked(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAll, Escalation: notify.Escalation{
		Steps: []notify.Step{{After: time.Minute, To: []string{"usr_bob", "usr_cyd", "usr_cyd"}, Channels: []string{"email"}}},
	}}, "bob", "dan")
	r.runs(func(ctx context.Context) error { return r.RunEscalation(ctx) })
	id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
	r.ack("bob", id)
	r.pass(2 * time.Minute)
	r.send(notify.Message{Topic: topic.ID, Title: "wakes the loop"})
	r.until("the step", func() bool { got, _ := r.deliveries(id); return len(got) > 2 })
	got, _ := r.deliveries(id)
	slices.Sort(got) // those of one moment are in no order
	if !slices.Equal(got, []string{"email usr_bob queued", "email usr_cyd queued", "email usr_dan queued"}) {
		t.Errorf("told %v", got)
	}
	if n := r.notification(id); n.State != notify.Open || n.Recipients != 3 {
		t.Errorf("%+v", n)
	}
	r.ack("cyd", id)
	r.ack("dan", id)
	if n := r.notification(id); n.State != notify.Acked {
		t.Errorf("all have acked: %+v", n)
	}
}

func TestALinkThatBeginsLikeTheAckLinkBreaksNoMailAndATemplateThatFailsIsNoted(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{Template: notify.Template{MailText: "hi {{.Title}} {{.AckLink}}", MailSubject: "{{index .Data.reason 3}}"}}, "bob")
	_, all := r.deliveries(r.send(notify.Message{Topic: topic.ID, Link: "http://muster.test/n"}).Notification.ID)
	m, err := r.ComposeMail(t.Context(), withBody(t, r, all))
	if err != nil || strings.Count(m.HTML, "<a href=") != 1 || strings.Contains(m.HTML, `"<a`) || !strings.Contains(m.Note, "mail_subject") {
		t.Errorf("%v: note %q, %s", err, m.Note, m.HTML)
	}
	for _, blank := range []string{"   ", "\u200b"} {
		if _, err := r.Send(t.Context(), user("ann"), notify.Message{Topic: topic.ID, Title: blank}); muster.KindOf(err) != muster.Invalid || err == nil {
			t.Errorf("the title %q: %v", blank, err)
		}
	}
}
