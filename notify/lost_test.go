package notify_test

import (
	"strings"
	"testing"
	"time"

	"muster"
	"muster/notify"
	"muster/notify/outbox"
)

// Who lost a private topic sees nothing more of it by any door, whatever it was that changed.
func TestWhoLostAPrivateTopicSeesNothingOfItAnyMore(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		private := r.topic(notify.TopicSpec{Visibility: notify.Private, AckPolicy: notify.AckAll, Escalation: notify.Escalation{
			Steps: []notify.Step{{After: time.Minute, To: []string{"usr_bob", "usr_cyd"}, Channels: []string{"email"}}},
		}}, "ann")
		for _, name := range []string{"bob", "cyd"} {
			if _, err := r.PutMember(t.Context(), user("ann"), private.ID, "usr_"+name, notify.RoleSubscriber); err != nil {
				t.Fatal(err)
			}
		}
		r.subscribe(private.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email"}}})
		other := r.topic(notify.TopicSpec{}, "bob")
		id := r.send(notify.Message{Topic: private.ID, DedupKey: "k", Title: "old words"}).Notification.ID
		kept := r.send(notify.Message{Topic: other.ID}).Notification.ID
		token := strings.TrimPrefix(r.AckLink(id, "usr_bob"), "http://muster.test"+notify.LinkPath)
		_, mails := r.deliveries(id)
		place := r.follow("bob")
		before := place.Epoch() + "-0"
		if c, err := r.Counts(t.Context(), user("bob")); err != nil || c.Unread != 2 || c.Open != 2 {
			t.Fatalf("%+v %v", c, err)
		}
		if err := r.DeleteMember(t.Context(), user("ann"), private.ID, "usr_bob"); err != nil {
			t.Fatal(err)
		}

		hidden := func(when string) {
			t.Helper()
			if items := r.items("bob"); len(items) != 1 || items[0].Notification.ID != kept {
				t.Errorf("%s he has %+v", when, items)
			}
			if c, err := r.Counts(t.Context(), user("bob")); err != nil || c.Unread != 1 || c.Open != 1 {
				t.Errorf("%s he is told of %+v, %v", when, c, err)
			}
			again, err := r.Inbox().Follow("usr_bob", before, func() {})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			for what, f := range map[string]*notify.Follower{"the socket": place, "a resume": again} {
				items, err := f.Next(t.Context(), 100)
				if err != nil {
					t.Fatal(err)
				}
				for _, it := range items {
					if it.Notification.Topic == private.ID {
						t.Errorf("%s %s tells of %q", when, what, it.Notification.Title)
					}
				}
			}
			if _, _, err := r.Notification(t.Context(), user("bob"), id); muster.KindOf(err) != muster.NotFound {
				t.Errorf("%s he reads it: %v", when, err)
			}
			if p, err := r.OpenLink(t.Context(), token); muster.KindOf(err) != muster.NotFound {
				t.Errorf("%s a link shows %q, %v", when, p.Item.Notification.Title, err)
			}
			if m := r.ack("bob", id); len(m.Missing) != 1 {
				t.Errorf("%s he acks it: %+v", when, m)
			}
			_, all := r.deliveries(id)
			for _, d := range all {
				if d.Target == "usr_bob" && d.ID != mails[0].ID && d.ID != mails[len(mails)-1].ID {
					t.Errorf("%s he is mailed: %+v", when, d)
				}
			}
		}
		hidden("at first")
		bobs := 0
		for i := range mails {
			if mails[i].Target == "usr_bob" {
				p, err := r.Pass(t.Context(), withBody(t, r, mails[i:i+1]))
				if err != nil || p[0].Drop == "" {
					t.Errorf("what waited goes out: %+v %v", p, err)
				}
				bobs++
			}
		}
		if bobs != 1 {
			t.Fatalf("%d mails waited", bobs)
		}
		r.send(notify.Message{Topic: private.ID, DedupKey: "k", Title: "new words", Severity: notify.Critical})
		hidden("after a repeat")
		stop := r.runs(r.RunEscalation)
		r.pass(2 * time.Minute)
		r.WakeEscalation()
		r.until("the step", func() bool { return r.notification(id).Step == 1 })
		stop()
		hidden("after a step")
		if items := r.items("cyd"); len(items) != 1 || items[0].Receipt.Step != 1 {
			t.Errorf("who sees it is called: %+v", items)
		}
		r.attempt(func(outbox.Delivery) outbox.State { return outbox.StateSent })
		r.send(notify.Message{Topic: private.ID, DedupKey: "k", Title: "new words", Resolve: true})
		hidden("after the end")
		if n, err := r.ReadAll(t.Context(), "usr_bob", ""); err != nil || n != 1 {
			t.Errorf("he reads %d, %v", n, err)
		}

		if _, err := r.PutMember(t.Context(), user("ann"), private.ID, "usr_bob", notify.RoleSubscriber); err != nil {
			t.Fatal(err)
		}
		if items := r.items("bob"); len(items) != 2 || items[1].Notification.Title != "new words" || items[1].Receipt.State != notify.Sent {
			t.Errorf("with the topic again he has %+v", items)
		}
	})
}

func TestWhoLostATopicHoldsNothingOpenThatAllMustAck(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		private := r.topic(notify.TopicSpec{Visibility: notify.Private, AckPolicy: notify.AckAll}, "ann")
		if _, err := r.PutMember(t.Context(), user("ann"), private.ID, "usr_bob", notify.RoleSubscriber); err != nil {
			t.Fatal(err)
		}
		r.subscribe(private.ID, "bob", notify.SubscriptionSpec{})
		id := r.send(notify.Message{Topic: private.ID}).Notification.ID
		r.ack("ann", id)
		r.runs(r.RunEscalation)
		if n := r.notification(id); n.State != notify.Open {
			t.Fatalf("bob has not acked: %s", n.State)
		}
		if err := r.DeleteMember(t.Context(), user("ann"), private.ID, "usr_bob"); err != nil {
			t.Fatal(err)
		}
		r.WakeEscalation()
		r.until("it is acked", func() bool { return r.notification(id).State == notify.Acked })
	})
}

// What Muster itself has to say is in a private topic, and is to each alone.
func TestWhatMusterItselfSaysIsShownToWhomItIsFor(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	note, err := r.TestInbox(t.Context(), "usr_bob")
	if err != nil {
		t.Fatal(err)
	}
	if items := r.items("bob"); len(items) != 1 || items[0].Notification.ID != note.ID {
		t.Errorf("%+v", items)
	}
	if c, err := r.Counts(t.Context(), user("bob")); err != nil || c.Unread != 1 {
		t.Errorf("%+v %v", c, err)
	}
	if n, own, err := r.Notification(t.Context(), user("bob"), note.ID); err != nil || own == nil || n.ID != note.ID {
		t.Errorf("he reads %+v %v", n, err)
	}
}
