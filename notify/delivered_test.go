package notify_test

import (
	"fmt"
	"testing"

	"muster/notify"
	"muster/notify/outbox"
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

func TestWhatAChannelsReceiverTookIsDelivered(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{}, "ann", "bob")
		if _, err := r.Subscribe(t.Context(), user("ann"), topic.ID, notify.DeviceSubject("d1"), notify.SubscriptionSpec{Channels: []notify.Via{{Channel: "mqtt"}}}); err != nil {
			t.Fatal(err)
		}
		id := r.send(notify.Message{Topic: topic.ID}).Notification.ID
		_, all := r.deliveries(id)
		for i := range all {
			if all[i].State = outbox.StateSent; all[i].Target == "usr_bob" {
				all[i].State = outbox.StateDead
			}
		}
		stop := r.runs(r.RunDelivered)
		r.Ended(append(all, outbox.Delivery{Channel: "webhook", Target: "whk_x", Notification: id, State: outbox.StateSent}))
		stop()
		for subject, want := range map[notify.Subject]notify.ReceiptState{"usr_ann": notify.Delivered, "device/d1": notify.Delivered, "usr_bob": notify.Sent} {
			if got, err := r.store.Receipt(t.Context(), id, subject); err != nil || got.State != want {
				t.Errorf("%s has it as %d, want %d, %v", subject, got.State, want, err)
			}
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
