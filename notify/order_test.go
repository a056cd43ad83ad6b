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

// ntfy 1293: a reader's place went past messages that were committed before it and came after.
func TestARunThatIsToldEarlyWaitsForTheOneBeforeIt(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	var runs []notify.Changes
	r.store.OnInbox(func(c notify.Changes) { runs = append(runs, c) })
	topic := r.topic(notify.TopicSpec{}, "bob")
	f := r.follow("bob")
	for range 3 {
		r.send(notify.Message{Topic: topic.ID})
	}
	var seqs []int64
	read := func() {
		items, err := f.Next(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items {
			seqs = append(seqs, it.Receipt.Seq)
		}
	}
	for _, i := range []int{2, 1} {
		r.Inbox().Publish(runs[i])
		if read(); len(seqs) > 0 || f.Ready() {
			t.Fatalf("after run %d was told early bob has %v", i, seqs)
		}
	}
	r.Inbox().Publish(runs[0])
	if read(); !slices.Equal(seqs, []int64{runs[0].First, runs[1].First, runs[2].First}) {
		t.Errorf("bob has %v of %+v", seqs, runs)
	}
}

// uptime-kuma 4779: one cause made 28,000 messages.
func TestWhatComesInTheTimeOfADigestIsOneMail(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	r.at = time.Date(2026, 3, 3, 10, 2, 0, 0, time.UTC)
	topic := r.topic(notify.TopicSpec{})
	r.subscribe(topic.ID, "bob", notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "email", Digest: 15 * time.Minute}}})
	end := muster.MicrosOf(time.Date(2026, 3, 3, 10, 15, 0, 0, time.UTC))
	var folds []string
	var ids []string
	for _, title := range []string{"one", "two", "three"} {
		_, all := r.deliveries(r.send(notify.Message{Topic: topic.ID, Title: title}).Notification.ID)
		if len(all) != 1 || all[0].Due != end {
			t.Fatalf("%+v", all)
		}
		folds, ids = append(folds, all[0].Fold), append(ids, all[0].ID)
		r.pass(4 * time.Minute)
	}
	if folds = slices.Compact(folds); len(folds) != 1 || folds[0] == "" {
		t.Fatalf("the three are of the folds %q", folds)
	}
	var all []int
	m, err := r.ComposeMail(t.Context(), r.bodies(ids))
	for _, title := range []string{"one", "two", "three"} {
		all = append(all, strings.Count(m.Text, title))
	}
	if err != nil || !slices.Equal(all, []int{1, 1, 1}) || !strings.Contains(m.Subject, "3 notifications") {
		t.Errorf("%+v %v", m, err)
	}
}

// bodies returns deliveries with what they say.
func (r *rig) bodies(ids []string) (out []outbox.Delivery) {
	r.t.Helper()
	for _, id := range ids {
		d, err := r.store.Delivery(r.t.Context(), id)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}
