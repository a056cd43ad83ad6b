package notify_test

import (
	"slices"
	"testing"
	"time"

	"muster"
	"muster/notify"
	"muster/notify/outbox"
)

// tried has the deliveries that are due be claimed once, and queued again for in an hour: with an error by target, and
// without one as what was held at the door.
func (r *rig) tried(faults map[string]string) {
	r.t.Helper()
	now := muster.MicrosOf(r.now())
	list, err := r.store.ClaimDeliveries(r.t.Context(), outbox.Claim{
		Queue: "email", Lanes: []outbox.Lane{outbox.Urgent, outbox.Normal, outbox.Bulk}, Now: now, Until: now + 45_000_000, Worker: "w", Limit: 100,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	var done []outbox.Settlement
	for _, d := range list {
		done = append(done, outbox.Settlement{
			ID: d.ID, Worker: "w", State: outbox.StateQueued, Attempts: d.Attempts, Due: now + muster.Micros(time.Hour.Microseconds()), Error: faults[d.Target],
			Refused: d.Refused, Held: faults[d.Target] == "", Severity: d.Severity,
		})
	}
	if lost, err := r.store.SettleDeliveries(r.t.Context(), done); err != nil || len(lost) > 0 {
		r.t.Fatal(lost, err)
	}
}

// queued returns what waits for somebody, the oldest first.
func (r *rig) queued(id, name string) (out []outbox.Delivery) {
	r.t.Helper()
	_, all := r.deliveries(id)
	for _, d := range slices.Backward(all) {
		if d.State == outbox.StateQueued && d.Target == "usr_"+name {
			out = append(out, d)
		}
	}
	return out
}

// A mail that was tried once and then came into quiet hours waits for their end as any other does; one that waits for its
// next try after a fault keeps its time.
func TestARiseReleasesWhatIsHeldAfterATryAndLeavesARetryItsTime(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "bob", "dan")
		id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Major}).Notification.ID
		r.tried(map[string]string{"usr_dan": "450 not now"})
		for _, name := range []string{"bob", "dan"} {
			r.subscribe(topic.ID, name, notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Quiet: r.night()}}})
		}
		retry := r.queued(id, "dan")
		r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Critical})
		bob := r.queued(id, "bob")
		if len(bob) != 1 || bob[0].Due > muster.MicrosOf(r.now()) || bob[0].Lane != outbox.Urgent {
			t.Errorf("what was held after a try is %+v", bob)
		}
		if dan := r.queued(id, "dan"); len(dan) != 1 || len(retry) != 1 || dan[0].ID != retry[0].ID || dan[0].Due != retry[0].Due || dan[0].Attempts != 1 {
			t.Errorf("what waited for its next try is %+v, was %+v", dan, retry)
		}
		got, _ := r.deliveries(id)
		slices.Sort(got)
		r.wants("all of it", got, "email usr_bob dropped", "email usr_bob queued", "email usr_dan queued")
	})
}

// What waits for hours that are taken away, or end sooner now, waits no longer than the new ones say; what waits for its next
// try, or for the hours of another subscription, does.
func TestHoursThatAreTakenAwayReleaseWhatWaitsForThem(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		quiet := notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Quiet: r.night()}}}
		topic, other, faulty := r.topic(notify.TopicSpec{}), r.topic(notify.TopicSpec{}), r.topic(notify.TopicSpec{}, "bob")
		r.subscribe(topic.ID, "bob", quiet)
		r.subscribe(other.ID, "bob", quiet)
		retried := r.send(notify.Message{Topic: faulty.ID}).Notification.ID
		r.tried(map[string]string{"usr_bob": "450 not now"})
		var told []string
		r.store.OnDeliveries(func(list []outbox.Delivery) {
			for i := range list {
				told = append(told, list[i].Notification)
			}
		})
		id := r.send(notify.Message{Topic: topic.ID, Severity: notify.Major}).Notification.ID
		kept := r.send(notify.Message{Topic: other.ID}).Notification.ID
		told = nil
		due := func(id string) time.Duration {
			t.Helper()
			waits := r.queued(id, "bob")
			if len(waits) != 1 {
				t.Fatalf("%+v", waits)
			}
			return waits[0].Due.Time().Sub(r.now())
		}
		if wait := due(id); wait < time.Hour {
			t.Fatalf("it waits %v", wait)
		}

		sooner := *r.night()
		sooner.To = (sooner.From + 90) % 1440 // half an hour from now
		r.subscribe(topic.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Quiet: &sooner}}})
		if wait := due(id); wait <= 0 || wait > 31*time.Minute {
			t.Errorf("in hours that end sooner it waits %v", wait)
		}
		except := sooner
		except.Except = notify.Major
		r.subscribe(topic.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Quiet: &except}}})
		if wait := due(id); wait > 0 {
			t.Errorf("in hours that let it pass it waits %v", wait)
		}
		r.subscribe(faulty.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email"}}})
		if a, b := due(kept), due(retried); a < time.Hour || b < 50*time.Minute {
			t.Errorf("of another subscription it waits %v, for its next try %v", a, b)
		}
		r.subscribe(other.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email"}}})
		if wait := due(kept); wait > 0 {
			t.Errorf("without hours it waits %v", wait)
		}
		r.wants("the dispatcher is told", told, id, id, kept)
		r.wants("at the door", r.passes(id, kept), "bob go", "bob go")
	})
}

// A digest that is taken away, or shorter now, does not hold what waits for its end.
func TestADigestThatIsTakenAwayReleasesWhatWaitsForIt(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{})
		r.subscribe(topic.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Digest: 24 * time.Hour}}})
		id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
		for _, digest := range []time.Duration{time.Minute, 0} {
			r.subscribe(topic.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Digest: digest}}})
			if waits := r.queued(id, "bob"); len(waits) != 1 || waits[0].Due.Time().Sub(r.now()) > digest {
				t.Errorf("with a digest of %v it is %+v", digest, waits)
			}
		}
	})
}
