package control_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/notify"
	"muster/notify/outbox"
	"muster/store/control"
)

// leftOf counts what a topic and a notification have of subjects.
func leftOf(t *testing.T, c *control.Control, topic, notification string) string {
	t.Helper()
	subscriptions, err := c.Subscriptions(t.Context(), topic, "", 100)
	wantNil(t, err)
	receipts, err := c.Receipts(t.Context(), notification, "", 100)
	wantNil(t, err)
	members, err := c.Members(t.Context())
	wantNil(t, err)
	return fmt.Sprintf("%d subscriptions, %d receipts, %d members", len(subscriptions), len(receipts), len(members))
}

// Who sends, subscribes or gives a role at the instant at which the other is deleted leaves
// nothing of his behind, whoever comes first.
func TestNothingIsAddedForWhoIsDeletedAtTheSameTime(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.PutTopic(ctx, topicOf("top_a")))
		n := notificationTo(1, "top_a")
		write(t, c, notify.Write{New: []notify.Notification{n}})
		for round := range 12 {
			user, key, dev := fmt.Sprintf("usr_%d", round), fmt.Sprintf("key_%d", round), muster.DeviceID(fmt.Sprintf("d%d", round))
			wantNil(t, c.WriteAccounts(ctx, accounts.Batch{Users: []accounts.UserRecord{{ID: user, Email: user + "@b.example", Role: "viewer"}}}))
			k := accounts.APIKey{ID: key, Owner: user}
			k.Hash[0] = byte(round)
			wantNil(t, c.InsertAPIKey(ctx, k))
			wantNil(t, c.InsertDevices(ctx, []devices.Device{device(string(dev))}, nil))
			adds := []func() error{
				func() error {
					return c.PutSubscription(ctx, notify.Subscription{Topic: "top_a", Subject: notify.Subject(user)})
				},
				func() error {
					return c.PutSubscription(ctx, notify.Subscription{Topic: "top_a", Subject: notify.DeviceSubject(dev)})
				},
				func() error {
					return c.PutMember(ctx, notify.Member{Topic: "top_a", Principal: user, Role: notify.RolePublisher})
				},
				func() error {
					return c.PutMember(ctx, notify.Member{Topic: "top_a", Principal: key, Role: notify.RolePublisher})
				},
				func() error {
					_, err := c.Write(ctx, notify.Write{Receipts: receiptsOf(n, notify.Subject(user), notify.DeviceSubject(dev))})
					return err
				},
			}
			var wg sync.WaitGroup
			for _, add := range adds {
				wg.Go(func() {
					for range 3 {
						if err := add(); err != nil && muster.KindOf(err) != muster.NotFound {
							t.Error(err)
						}
					}
				})
			}
			var dropped, deleted error
			wg.Go(func() { dropped = c.WriteAccounts(ctx, accounts.Batch{DropUsers: []string{user}}) })
			wg.Go(func() { deleted = c.DeleteDevices(ctx, []muster.DeviceID{dev}) })
			wg.Wait()
			wantNil(t, errors.Join(dropped, deleted))
			if got := leftOf(t, c, "top_a", n.ID); got != "0 subscriptions, 0 receipts, 0 members" {
				t.Fatalf("round %d: %s", round, got)
			}
			for i, add := range adds { // and not later either
				if err := add(); i < 4 {
					wantKind(t, err, muster.NotFound)
				}
			}
			same(t, "0 subscriptions, 0 receipts, 0 members", leftOf(t, c, "top_a", n.ID))
		}
		counted(t, c, map[string]int{"top_a": 0})
	})
}

func TestADeviceThatIsMadeAgainMaySubscribeAgain(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.PutTopic(ctx, topicOf("top_a")))
		n := notificationTo(1, "top_a")
		write(t, c, notify.Write{New: []notify.Notification{n}})
		s := notify.Subscription{Topic: "top_a", Subject: "device/d1"}
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("d1")}, nil))
		wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"d1"}))
		wantKind(t, c.PutSubscription(ctx, s), muster.NotFound)
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("d1")}, nil))
		wantNil(t, c.PutSubscription(ctx, s))
		same(t, notify.Written{Added: 1}, write(t, c, notify.Write{Receipts: receiptsOf(n, "device/d1")}))
		same(t, "1 subscriptions, 1 receipts, 0 members", leftOf(t, c, "top_a", n.ID))
	})
}

// Who gets the id of a device that was deleted gets nothing that was for that one.
func TestWhatWaitsForADeviceEndsWhenItIsDeleted(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("d1"), device("d2")}, nil))
		var ds []outbox.Delivery
		for i, state := range []outbox.State{outbox.StateQueued, outbox.StateQueued, outbox.StateDead, outbox.StateSent, outbox.StateQueued, outbox.StateQueued} {
			d := deliveryTo(i, "mqtt", outbox.Normal, 1)
			if d.Target, d.State = "d1", state; i == 4 {
				d.Target = "d2"
			} else if i == 5 {
				d.Channel, d.Queue = "webhook", "webhook:d1"
			}
			ds = append(ds, d)
		}
		add(t, c, ds...)
		leased, err := c.ClaimDeliveries(ctx, claimOf("mqtt", 1, 1))
		wantIDs(t, leased, err, 0)
		wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"d1"}))
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("d1")}, nil))

		for i, want := range []outbox.State{outbox.StateDropped, outbox.StateDropped, outbox.StateDropped, outbox.StateSent, outbox.StateQueued, outbox.StateQueued} {
			d, err := c.Delivery(ctx, ds[i].ID)
			wantNil(t, err)
			if d.State != want || want == outbox.StateDropped && (d.Error != "the device was deleted" || d.Ended == 0) {
				t.Errorf("%s to %s is %s: %q", d.ID, d.Target, d.State, d.Error)
			}
		}
		again, err := c.RequeueDeliveries(ctx, []string{ds[0].ID, ds[2].ID}, 5)
		wantIDs(t, again, err)
		rest, err := c.ClaimDeliveries(ctx, claimOf("mqtt", 1000, 10))
		wantIDs(t, rest, err, 4)
		lost, err := c.SettleDeliveries(ctx, []outbox.Settlement{{ID: leased[0].ID, Worker: leased[0].Worker, State: outbox.StateQueued}})
		wantNil(t, err)
		same(t, []string{leased[0].ID}, lost)
	})
}

func TestWhatIsOpenAboutADeviceIsKnownUntilItIsOver(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.PutTopic(ctx, topicOf("top_a")))
		var w notify.Write
		for i := range 4 {
			n := notificationTo(i, "top_a")
			n.Device = []muster.DeviceID{"d1", "d1", "d2", "d1"}[i]
			w.New = append(w.New, n)
			w.About = append(w.About, notify.About{Notification: n.ID, Topic: n.Topic, Device: n.Device, Clears: []string{"presence.online", "command.*"}})
		}
		write(t, c, w)
		open := func(after string, limit int, want ...int) []notify.About {
			t.Helper()
			list, err := c.OpenAbout(ctx, "d1", after, limit)
			wantNil(t, err)
			got := []string{}
			for i := range list {
				got = append(got, list[i].Notification)
			}
			same(t, append([]string{}, named(want...)...), got)
			return list
		}
		same(t, w.About[0], open("", 10, 0, 1, 3)[0])
		open("", 2, 0, 1)
		open(named(1)[0], 2, 3)
		acked, over := w.New[0], w.New[1]
		acked.State, acked.Version, over.State, over.Version = notify.Acked, 2, notify.Resolved, 2
		again := w.About[0]
		again.Clears = []string{"presence.quiet"}
		write(t, c, notify.Write{Updates: []notify.Update{{Notification: acked, Was: 1}, {Notification: over, Was: 1}}, About: []notify.About{again}})
		same(t, again, open("", 10, 0, 3)[0])
		n, err := c.TrimNotifications(ctx, "top_a", 0, 10)
		wantNil(t, err)
		same(t, 4, n)
		open("", 10)
	})
}

func TestWhatAllMustAckWaitsForWhoIsLeft(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.PutTopic(ctx, topicOf("top_a")))
		for _, user := range []string{"usr_a", "usr_b", "usr_c"} {
			wantNil(t, c.WriteAccounts(ctx, accounts.Batch{Users: []accounts.UserRecord{{ID: user, Email: user + "@b.example", Role: "viewer"}}}))
		}
		n := notificationTo(1, "top_a")
		n.AckPolicy, n.Recipients, n.EscalateAt = notify.AckAll, 3, 9
		write(t, c, notify.Write{New: []notify.Notification{n}, Receipts: receiptsOf(n, "usr_a", "usr_b", "usr_c")})
		acked := n
		acked.Acks, acked.Version = 1, n.Version+1
		write(t, c, notify.Write{
			Updates: []notify.Update{{Notification: acked, Was: n.Version}},
			Marks:   []notify.Mark{{Notification: n.ID, Subject: "usr_a", State: notify.AckedIt, At: 5}},
		})
		for _, step := range [][2]string{{"usr_b", "open 1 of 2"}, {"usr_c", "open 1 of 1"}} {
			wantNil(t, c.WriteAccounts(ctx, accounts.Batch{DropUsers: []string{step[0]}}))
			now, err := c.Notification(ctx, n.ID)
			wantNil(t, err)
			if got := fmt.Sprintf("%s %d of %d", now.State, now.Acks, now.Recipients); got != step[1] {
				t.Errorf("without %s it is %s, want %s", step[0], got, step[1])
			}
		}
	})
}
