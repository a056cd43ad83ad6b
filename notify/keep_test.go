package notify_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/notify"
	"muster/notify/outbox"
)

// notifyx D18: how long a topic keeps what was sent was stored and never read.
func TestWhatATopicKeepsNoLongerGoesWithItsReceiptsAndDeliveriesAndNothingElse(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		short := r.topic(notify.TopicSpec{Retention: 2 * time.Hour}, "bob")
		long := r.topic(notify.TopicSpec{Retention: 48 * time.Hour}, "bob")
		escalating := r.topic(notify.TopicSpec{Retention: time.Hour, Escalation: notify.Escalation{
			Steps: []notify.Step{{After: 5 * time.Hour, To: []string{"usr_cyd"}, Channels: []string{"email"}}},
		}}, "bob")
		old := r.send(notify.Message{Topic: short.ID, Title: "old"}).Notification
		r.send(notify.Message{Topic: long.ID, Title: "kept long"})
		waits := r.send(notify.Message{Topic: escalating.ID, Title: "waits for an ack"}).Notification
		done := r.send(notify.Message{Topic: escalating.ID, Title: "was acked"}).Notification
		r.ack("bob", done.ID)
		r.pass(3 * time.Hour)
		r.send(notify.Message{Topic: short.ID, Title: "new"})
		if err := r.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		inbox := func() (titles []string) {
			for _, it := range r.items("bob") {
				titles = append(titles, it.Notification.Title)
			}
			return titles
		}
		if d := cmp.Diff([]string{"new", "waits for an ack", "kept long"}, inbox()); d != "" {
			t.Error(d)
		}
		for _, id := range []string{old.ID, done.ID} {
			if _, err := r.store.Notification(t.Context(), id); muster.KindOf(err) != muster.NotFound {
				t.Errorf("%s: %v", id, err)
			}
			if list, err := r.store.Receipts(t.Context(), id, "", 10); err != nil || len(list) > 0 {
				t.Errorf("%s has the receipts %+v, %v", id, list, err)
			}
		}

		// What waits to go out goes out, with its words, and then it is forgotten too.
		got, all := r.deliveries(old.ID)
		if d := cmp.Diff([]string{"email usr_bob queued"}, got); d != "" {
			t.Fatal(d)
		}
		if m, err := r.ComposeMail(t.Context(), withBody(t, r, all)); err != nil || m.To != "bob@example.com" {
			t.Errorf("%+v %v", m, err)
		}
		now := muster.MicrosOf(r.now())
		claimed, err := r.store.ClaimDeliveries(t.Context(), outbox.Claim{Queue: "email", Lanes: []outbox.Lane{outbox.Bulk}, Limit: 10, Now: now, Until: now + 1e6, Worker: "w"})
		if err != nil || !slices.ContainsFunc(claimed, func(d outbox.Delivery) bool { return d.ID == all[0].ID }) {
			t.Fatalf("%+v %v", claimed, err)
		}

		// It escalates when its time comes, and goes after that.
		r.pass(3 * time.Hour)
		stop := r.runs(r.RunEscalation)
		r.until("the next is told", func() bool { return len(r.items("cyd")) == 1 })
		stop()
		if err := r.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Notification(t.Context(), waits.ID); muster.KindOf(err) != muster.NotFound {
			t.Errorf("what escalates no more: %v", err)
		}
		if d := cmp.Diff([]string{"kept long"}, inbox()); d != "" {
			t.Error(d)
		}
	})
}

// broken is a store that fails at what it is to keep, while it is told to.
type broken struct {
	notify.Store
	down atomic.Bool
}

func (b *broken) Write(ctx context.Context, w notify.Write) (notify.Written, error) {
	if b.down.Load() {
		return notify.Written{}, muster.Errorf(muster.Unavailable, "the disk is full")
	}
	return b.Store.Write(ctx, w) //nolint:wrapcheck // as it is
}

// notifyx D5, D6, D7: who fell between prepare and commit could never publish again, and
// half of what was sent stayed.
func TestWhoseSendFailedMaySendAgainAndNothingOfTheFirstIsLeft(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		b := &broken{Store: r.store}
		topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAny}, "bob")
		n := notify.New(b, r.options)
		if err := n.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), waitLong)
		defer cancel()
		m := notify.Message{Topic: topic.ID, Title: "x", DedupKey: "k"}
		b.down.Store(true)
		if _, err := n.Send(ctx, user("ann"), m); muster.KindOf(err) != muster.Unavailable {
			t.Fatalf("the first: %v", err)
		}
		if len(r.items("bob")) > 0 {
			t.Error("half of what failed is in an inbox")
		}
		b.down.Store(false)
		res, err := n.Send(ctx, user("ann"), m)
		if err != nil || res.Duplicate {
			t.Fatalf("the second: %+v %v", res, err)
		}
		if items := r.items("bob"); len(items) != 1 {
			t.Errorf("bob has %+v", items)
		}
		b.down.Store(true)
		ack := notify.Marking{Subject: "usr_bob", IDs: []string{res.Notification.ID}, State: notify.AckedIt, Name: "bob"}
		if _, err := n.Mark(ctx, ack); muster.KindOf(err) != muster.Unavailable {
			t.Fatalf("the ack: %v", err)
		}
		b.down.Store(false)
		if done, err := n.Mark(ctx, ack); err != nil || len(done.Moved) != 1 {
			t.Errorf("the ack again: %+v %v", done, err)
		}
	})
}
