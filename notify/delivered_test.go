package notify_test

import (
	"fmt"
	"testing"

	"muster/notify"
)

func TestWhatWasDeliveredIsMarkedInEachInboxAMomentLaterAndNeverTakenBack(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{Name: "pumps", AckPolicy: notify.AckAny}, "ann", "bob")
		one, two := r.send(notify.Message{Topic: topic.ID}).Notification.ID, r.send(notify.Message{Topic: topic.ID}).Notification.ID
		r.ack("ann", two)
		stop := r.runs(r.RunDelivered)
		r.Delivered("usr_ann", []string{one, two, one, "ntf_none"})
		state := func(name string) (out [2]notify.ReceiptState) {
			for i, id := range []string{one, two} {
				got, err := r.store.Receipt(t.Context(), id, notify.Subject("usr_"+name))
				if err != nil {
					t.Fatal(err)
				}
				out[i] = got.State
			}
			return out
		}
		r.until("the mark", func() bool { return state("ann") == [2]notify.ReceiptState{notify.Delivered, notify.AckedIt} })
		if got := state("bob"); got != [2]notify.ReceiptState{} {
			t.Errorf("bob, to whom nothing was delivered, has %v", got)
		}
		r.Delivered("usr_bob", []string{two})
		stop() // what is left is marked still
		if got := state("bob"); got != [2]notify.ReceiptState{notify.Sent, notify.Delivered} {
			t.Errorf("bob has %v after the end", got)
		}
	})
}

func TestMoreDeliveriesThanCanWaitAreCountedAndNotMarked(t *testing.T) {
	r := onSQLite(t, t.TempDir())
	ids := make([]string, 50_003)
	for i := range ids {
		ids[i] = fmt.Sprint("ntf_", i)
	}
	r.Delivered("usr_ann", ids)
	r.Delivered("usr_ann", ids[:10]) // these wait already
	if n := r.DroppedDelivered(); n != 3 {
		t.Errorf("%d are counted", n)
	}
}
