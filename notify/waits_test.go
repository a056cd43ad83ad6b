package notify_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/notify"
	"muster/notify/outbox"
)

func byMail(v notify.Via) notify.SubscriptionSpec {
	v.Channel = "email"
	return notify.SubscriptionSpec{Channels: []notify.Via{v}}
}

// lease claims what is due, as a worker that goes on.
func (r *rig) lease() []outbox.Delivery {
	r.t.Helper()
	now := muster.MicrosOf(r.now())
	list, err := r.store.ClaimDeliveries(r.t.Context(), outbox.Claim{
		Queue: "email", Lanes: []outbox.Lane{outbox.Urgent, outbox.Normal, outbox.Bulk}, Now: now, Until: now + 45_000_000, Worker: "w", Limit: 100,
	})
	if err != nil || len(list) == 0 {
		r.t.Fatal(list, err)
	}
	return list
}

func (r *rig) settle(list ...outbox.Settlement) {
	r.t.Helper()
	if lost, err := r.store.SettleDeliveries(r.t.Context(), list); err != nil || len(lost) > 0 {
		r.t.Fatal(lost, err)
	}
}

// One that waits is told once, in the place of what waits, whatever the subscription asked for meanwhile.
func TestARiseTakesThePlaceOfWhatWaitsThoughTheSubscriptionAsksForMoreByNow(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		for _, again := range []bool{false, true} {
			topic := r.topic(notify.TopicSpec{})
			r.subscribe(topic.ID, "bob", byMail(notify.Via{Quiet: r.night()}))
			id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Warning}).Notification.ID
			if again {
				if err := r.Unsubscribe(t.Context(), user("bob"), topic.ID, "usr_bob"); err != nil {
					t.Fatal(err)
				}
			}
			r.subscribe(topic.ID, "bob", byMail(notify.Via{Severity: notify.Major, Quiet: r.night()}))
			r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Major})
			if waits := r.queued(id, "bob"); len(waits) != 1 || waits[0].Due <= muster.MicrosOf(r.now()) {
				t.Errorf("after a rise within the hours it is %+v", waits)
			}
			r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Critical})
			if waits := r.queued(id, "bob"); len(waits) != 1 || waits[0].Due > muster.MicrosOf(r.now()) {
				t.Errorf("after the rise it is %+v", waits)
			}
		}
	})
}

// What waits is as severe as its notification is now, for the change of its hours and at the door, and says so.
func TestWhatWaitsIsAsSevereAsItsNotificationIsNow(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{})
		r.subscribe(topic.ID, "bob", byMail(notify.Via{Quiet: r.night()}))
		id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Warning, Title: "warm"}).Notification.ID
		other := r.send(notify.Message{Topic: topic.ID, Severity: notify.Warning, Title: "beside"}).Notification.ID
		r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Major, Title: "hot"})
		r.wants("in the hours", r.passes(id, other), "bob hold", "bob hold")
		except := *r.night()
		except.Except = notify.Major
		r.subscribe(topic.ID, "bob", byMail(notify.Via{Quiet: &except}))
		if waits := r.queued(id, "bob"); len(waits) != 1 || waits[0].Due > muster.MicrosOf(r.now()) {
			t.Errorf("what is severe enough by now is %+v", waits)
		}
		r.wants("at the door", r.passes(id, other), "bob go", "bob hold")
		both := append(r.queued(id, "bob"), r.queued(other, "bob")...)
		m, err := r.ComposeMail(t.Context(), withBody(t, r, both))
		if err != nil || !strings.Contains(m.Text, "[major] "+topic.Name+": hot") || !strings.Contains(m.Text, "[warning] "+topic.Name+": beside") {
			t.Errorf("%q %v", m.Text, err)
		}
		r.subscribe(topic.ID, "bob", byMail(notify.Via{Severity: notify.Major}))
		r.wants("who asks for more by now", r.passes(id, other), "bob go", "bob drop")
	})
}

// The end of what is under way never overtakes it.
func TestNoChangeOfASubscriptionHasAnEndOvertakeItsNews(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		for _, hours := range []bool{false, true} {
			topic := r.topic(notify.TopicSpec{}, "bob")
			id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k"}).Notification.ID
			lease := r.lease()[0]
			if hours {
				r.subscribe(topic.ID, "bob", byMail(notify.Via{Quiet: r.night()}))
			}
			r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Resolve: true})
			before := r.queued(id, "bob")
			r.subscribe(topic.ID, "bob", byMail(notify.Via{}))
			after := r.queued(id, "bob")
			if len(before) != 1 || len(after) != 1 || before[0].Due < lease.Due || after[0].Due != lease.Due {
				t.Errorf("hours %v: the end was due at %+v, and is at %+v; the lease ends at %v", hours, before, after, lease.Due)
			}
			r.settle(outbox.Settlement{ID: lease.ID, Worker: "w", State: outbox.StateSent, Attempts: 1, Ended: lease.Due})
			r.attempt(func(outbox.Delivery) outbox.State { return outbox.StateSent })
			r.pass(time.Minute)
			r.attempt(func(outbox.Delivery) outbox.State { return outbox.StateSent })
		}
	})
}

func TestWhatWaitsIsReleasedThoughItsNotificationIsNotKeptAnyMore(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{Retention: time.Hour})
		night := *r.night()
		night.To = (night.To + 240) % 1440
		r.subscribe(topic.ID, "bob", byMail(notify.Via{Quiet: &night}))
		id := r.send(notify.Message{Topic: topic.ID, Severity: notify.Major}).Notification.ID
		f := r.follow("bob")
		f.Recount()
		r.pass(2 * time.Hour)
		if err := r.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Notification(t.Context(), id); muster.KindOf(err) != muster.NotFound {
			t.Fatalf("it is kept: %v", err)
		}
		if !f.Recount() {
			t.Error("who is connected is not told that there is less in his inbox")
		}
		if waits := r.queued(id, "bob"); len(waits) != 1 || waits[0].Due <= muster.MicrosOf(r.now()) {
			t.Fatalf("before the change it is %+v", waits)
		}
		r.subscribe(topic.ID, "bob", byMail(notify.Via{}))
		if waits := r.queued(id, "bob"); len(waits) != 1 || waits[0].Due > muster.MicrosOf(r.now()) {
			t.Errorf("without hours it is %+v", waits)
		}
		r.wants("at the door", r.passes(id), "bob go")
	})
}

// An attempt that the receiver refused told nobody; one that broke may have.
func TestTheEndGoesToNobodyWhoWasSurelyNeverTold(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "bob", "cyd", "dan", "ann")
		id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k"}).Notification.ID
		var done []outbox.Settlement
		for _, d := range r.lease() {
			s := outbox.Settlement{ID: d.ID, Worker: "w", State: outbox.StateQueued, Attempts: 1, Due: d.Due, Severity: d.Severity}
			switch d.Target {
			case "usr_bob": // refused, and held since
				s.Refused, s.Held = 1, true
			case "usr_cyd": // refused, and waits for another try
				s.Refused, s.Error = 1, "451 later"
			case "usr_dan": // nobody knows
				s.Error = "the connection broke"
			case "usr_ann": // refused for good
				s.State, s.Refused, s.Error = outbox.StateDead, 1, "550 no"
			}
			done = append(done, s)
		}
		r.settle(done...)
		r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Resolve: true})
		got, _ := r.deliveries(id)
		slices.Sort(got)
		r.wants("at the end", got, "email usr_ann dead", "email usr_bob dropped", "email usr_cyd dropped", "email usr_dan queued", "email usr_dan queued")
	})
}

// A digest that is taken away goes out, and leaves that of another topic its time.
func TestADigestThatIsTakenAwayDragsNoOtherAlong(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		gone, kept := r.topic(notify.TopicSpec{}), r.topic(notify.TopicSpec{})
		var ids []string
		for _, topic := range []string{gone.ID, kept.ID} {
			r.subscribe(topic, "bob", byMail(notify.Via{Digest: 24 * time.Hour}))
			ids = append(ids, r.send(notify.Message{Topic: topic}).Notification.ID)
		}
		r.subscribe(gone.ID, "bob", byMail(notify.Via{}))
		first := r.lease()
		if len(first) != 1 || first[0].Notification != ids[0] || first[0].Fold == "" {
			t.Fatalf("%+v", first)
		}
		now := muster.MicrosOf(r.now())
		rest, err := r.store.ClaimFold(t.Context(), outbox.Claim{Queue: "email", Now: now, Until: now + 45_000_000, Worker: "w", Limit: 100}, first[0].Fold)
		if err != nil || len(rest) != 0 {
			t.Errorf("with it go %+v, %v", rest, err)
		}
	})
}

// What is under way while its hours end, or its notification rises, is not held by what was before.
func TestWhatIsReleasedUnderWayIsNotHeld(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		for name, change := range map[string]func(topic string){
			"nothing":                  func(string) {},
			"hours that end":           func(topic string) { r.subscribe(topic, "bob", byMail(notify.Via{})) },
			"a rise":                   func(topic string) { r.send(notify.Message{Topic: topic, DedupKey: "k", Severity: notify.Critical}) },
			"another's that has hours": func(topic string) { r.subscribe(topic, "cyd", byMail(notify.Via{Quiet: r.night()})) },
		} {
			topic := r.topic(notify.TopicSpec{}, "bob")
			id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Major}).Notification.ID
			d := r.lease()[0]
			change(topic.ID)
			morning := muster.MicrosOf(r.now().Add(time.Hour))
			r.settle(outbox.Settlement{ID: d.ID, Worker: "w", State: outbox.StateQueued, Held: true, Severity: d.Severity, Due: morning})
			waits := r.queued(id, "bob")
			if released := name == "hours that end" || name == "a rise"; len(waits) != 1 || (waits[0].Due == morning) == released {
				t.Errorf("after %s it is %+v", name, waits)
			}
			if err := r.DeleteTopic(t.Context(), user("ann"), topic.ID); err != nil {
				t.Fatal(err)
			}
			if err := r.Trim(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
