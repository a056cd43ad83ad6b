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

// passes asks what becomes of the queued deliveries of notifications that are about to go out, the oldest
// first, as "target go", "target hold" or "target drop".
func (r *rig) passes(ids ...string) (out []string) {
	r.t.Helper()
	var ds []outbox.Delivery
	for _, id := range ids {
		_, all := r.deliveries(id)
		for _, d := range slices.Backward(all) {
			if d.State == outbox.StateQueued {
				ds = append(ds, d)
			}
		}
	}
	list, err := r.Pass(r.t.Context(), withBody(r.t, r, ds))
	if err != nil || len(list) != len(ds) {
		r.t.Fatal(list, err)
	}
	for i, p := range list {
		word := " go"
		switch {
		case p.Drop != "":
			word = " drop"
		case p.Hold > muster.MicrosOf(r.now()):
			word = " hold"
		case p.Hold != 0:
			word = " hold until then"
		}
		out = append(out, strings.TrimPrefix(ds[i].Target, "usr_")+word)
	}
	return out
}

func (r *rig) wants(what string, got []string, want ...string) {
	r.t.Helper()
	if !slices.Equal(got, want) {
		r.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// night is quiet hours from an hour before now to two hours after it.
func (r *rig) night() *notify.Quiet {
	now := r.now().UTC()
	minute := now.Hour()*60 + now.Minute()
	return &notify.Quiet{From: (minute + 1380) % 1440, To: (minute + 120) % 1440, Zone: "UTC", Except: notify.Critical}
}

// A digest of two topics goes out in the hours of one of them, and holds what is of the other.
func TestADigestLeavesOutWhatIsInQuietHoursOrMutedWhenItGoesOut(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		digest := notify.Via{Channel: "email", Digest: 15 * time.Minute}
		quiet := digest
		loud, calm, mute := r.topic(notify.TopicSpec{}), r.topic(notify.TopicSpec{}), r.topic(notify.TopicSpec{AckPolicy: notify.AckAny})
		for _, topic := range []string{loud.ID, calm.ID, mute.ID} {
			r.subscribe(topic, "bob", notify.SubscriptionSpec{Channels: []notify.Via{digest}})
		}
		var ids []string
		for _, topic := range []string{loud.ID, calm.ID, mute.ID} {
			ids = append(ids, r.send(notify.Message{Topic: topic, Severity: notify.Major, DedupKey: "k"}).Notification.ID)
		}
		r.wants("as it is", r.passes(ids...), "bob go", "bob go", "bob go")
		quiet.Quiet = r.night()
		r.subscribe(calm.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{quiet}})
		r.subscribe(mute.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{digest}, Muted: muster.MicrosOf(r.now().Add(time.Hour))})
		r.wants("quiet and muted", r.passes(ids...), "bob go", "bob hold", "bob drop")
		r.pass(3 * time.Hour)
		r.wants("later", r.passes(ids...), "bob go", "bob go", "bob go")
	})
}

func TestTheEndPassesAMuteAndWhoIsCalledByNameHasNoHours(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	topic := r.topic(notify.TopicSpec{AckPolicy: notify.AckAny, Escalation: notify.Escalation{
		Steps: []notify.Step{{After: time.Minute, To: []string{"usr_cyd"}, Channels: []string{"email"}}},
	}}, "bob")
	r.subscribe(topic.ID, "cyd", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Severity: notify.Critical, Quiet: r.night()}}})
	id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k"}).Notification.ID
	r.attempt(func(outbox.Delivery) outbox.State { return outbox.StateSent })
	muted := notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email"}}, Muted: muster.MicrosOf(r.now().Add(time.Hour))}
	r.subscribe(topic.ID, "bob", muted)
	r.runs(r.RunEscalation)
	r.pass(2 * time.Minute)
	r.WakeEscalation()
	r.until("the step", func() bool { return r.notification(id).Step == 1 })
	r.wants("who is called", r.passes(id), "cyd go")
	r.attempt(func(outbox.Delivery) outbox.State { return outbox.StateSent })
	r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Resolve: true})
	got := r.passes(id)
	slices.Sort(got)
	r.wants("the end", got, "bob go", "cyd hold")
}

// What waits for the morning, and becomes critical at night, does not wait any more.
func TestARiseToCriticalDoesNotWaitForTheEndOfQuietHours(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "cyd")
		r.subscribe(topic.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Quiet: r.night()}}})
		r.subscribe(topic.ID, "dan", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Quiet: r.night()}}, Muted: muster.MicrosOf(r.now().Add(time.Hour))})
		id := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Info, Title: "warm"}).Notification.ID
		r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Major, Title: "warmer"}) // not severe enough for that hour
		got, _ := r.deliveries(id)
		slices.Sort(got)
		r.wants("before", got, "email usr_bob queued", "email usr_cyd queued")
		for range 2 {
			r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Severity: notify.Critical, Title: "it burns"})
		}
		got, all := r.deliveries(id)
		slices.Sort(got)
		r.wants("after", got, "email usr_bob dropped", "email usr_bob queued", "email usr_cyd queued")
		at := slices.IndexFunc(all, func(d outbox.Delivery) bool { return d.Target == "usr_bob" && d.State == outbox.StateQueued })
		if d := all[at]; d.Due > muster.MicrosOf(r.now()) || d.Lane != outbox.Urgent {
			t.Errorf("it goes out at %v in lane %s", d.Due.Time(), d.Lane)
		}
		m, err := r.ComposeMail(t.Context(), withBody(t, r, all[at:at+1]))
		if err != nil || !strings.Contains(m.Text, "it burns") {
			t.Errorf("%q %v", m.Text, err)
		}
		slices.Sort(got)
		r.wants("at the door", r.passes(id), "cyd go", "bob go")

		// Its end ends the one that took its place, too.
		if res := r.send(notify.Message{Topic: topic.ID, DedupKey: "k", Resolve: true}); !res.Resolved {
			t.Fatalf("%+v", res)
		}
		got, _ = r.deliveries(id)
		slices.Sort(got)
		r.wants("at the end", got, "email usr_bob dropped", "email usr_bob dropped", "email usr_cyd dropped")
	})
}

// News that waits goes to nobody who unsubscribed, or who names the channel no more; the end of what he was told does.
func TestWhoUnsubscribedGetsNothingThatWaitsButTheEndOfWhatHeWasTold(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		digest := notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Digest: 15 * time.Minute}}}
		gone, bare, kept := r.topic(notify.TopicSpec{}), r.topic(notify.TopicSpec{}), r.topic(notify.TopicSpec{})
		told := r.topic(notify.TopicSpec{}, "bob")
		end := r.send(notify.Message{Topic: told.ID, DedupKey: "k"}).Notification.ID
		r.attempt(func(outbox.Delivery) outbox.State { return outbox.StateSent })
		var ids []string
		for _, topic := range []string{gone.ID, bare.ID, kept.ID} {
			r.subscribe(topic, "bob", digest)
			ids = append(ids, r.send(notify.Message{Topic: topic}).Notification.ID)
		}
		r.wants("as it is", r.passes(ids...), "bob go", "bob go", "bob go")
		for _, topic := range []string{gone.ID, told.ID} {
			if err := r.Unsubscribe(t.Context(), user("bob"), topic, "usr_bob"); err != nil {
				t.Fatal(err)
			}
		}
		r.subscribe(bare.ID, "bob", notify.SubscriptionSpec{})
		r.send(notify.Message{Topic: told.ID, DedupKey: "k", Resolve: true})
		r.wants("at the door", r.passes(append(ids, end)...), "bob drop", "bob drop", "bob go", "bob go")
	})
}
