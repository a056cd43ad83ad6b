package control_test

import (
	"context"
	"testing"

	"muster"
	"muster/notify/outbox"
)

// orderedTo is delivery n to a target of the channel whose targets get what they are sent in order.
func orderedTo(n int, target string, due muster.Micros) outbox.Delivery {
	d := deliveryTo(n, "mqtt", outbox.Normal, due)
	d.Target = target
	return d
}

func TestOfATargetThatGetsWhatItIsSentInOrderTheOldestIsClaimed(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		expired := orderedTo(1, "d2", 500)
		expired.Expires = 5
		urgent := orderedTo(8, "d1", 1)
		urgent.Lane = outbox.Urgent
		quiet := orderedTo(2, "d3", 500) // waits for the end of quiet hours: it holds up nothing
		add(t, c, expired, quiet, orderedTo(3, "d1", 3), orderedTo(4, "d1", 2), orderedTo(5, "d2", 1), orderedTo(6, "d3", 1), orderedTo(7, "d1", 1), urgent)
		claim := claimOf("mqtt", 10, 10)
		claim.Ordered = true
		got, err := c.ClaimDeliveries(ctx, claim)
		wantIDs(t, got, err, 8, 5, 6, 3)
		none, err := c.ClaimDeliveries(ctx, claim)
		wantIDs(t, none, err) // 3 is on its way
		settle := func(id string, s outbox.State, due muster.Micros, why string) {
			t.Helper()
			lost, err := c.SettleDeliveries(ctx, []outbox.Settlement{{ID: id, Worker: "w1", State: s, Attempts: 1, Due: due, Error: why}})
			if err != nil || len(lost) > 0 {
				t.Fatal(lost, err)
			}
		}
		settle(got[3].ID, outbox.StateQueued, 50, "the device is not connected")
		none, err = c.ClaimDeliveries(ctx, claim)
		wantIDs(t, none, err) // and now it waits for its time
		if n, err := c.HastenDeliveries(ctx, "mqtt", "d1", 10); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		for _, want := range []int{3, 4, 7} {
			got, err := c.ClaimDeliveries(ctx, claim)
			wantIDs(t, got, err, want)
			settle(got[0].ID, outbox.StateSent, 0, "")
		}
		got, err = c.ClaimDeliveries(ctx, outbox.Claim{Queue: "mqtt", Lanes: allLanes, Now: 500, Until: 600, Worker: "w2", Limit: 10})
		wantIDs(t, got, err, 8, 5, 6, 1, 2) // the lease of 8 has ended; of those that are in no order each goes for itself
	})
}

func TestTheLeasesOfALifeThatEndedAreFreed(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		var told []outbox.Delivery
		c.OnDeliveries(func(list []outbox.Delivery) { told = append(told, list...) })
		add(t, c, deliveryTo(1, "a", outbox.Normal, 1), deliveryTo(2, "b", outbox.Normal, 1), deliveryTo(3, "c", outbox.Normal, 1), deliveryTo(4, "d", outbox.Normal, 1))
		for queue, worker := range map[string]string{"a": "ONE.x.1", "b": "ONETWO.y.1", "c": "TWO.z.1"} {
			claim := claimOf(queue, 10, 1)
			claim.Worker = worker
			if got, err := c.ClaimDeliveries(t.Context(), claim); err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
		}
		told = nil
		free := func(ctx context.Context, want int) {
			t.Helper()
			if n, err := c.FreeDeliveries(ctx, "ONE.", 20); err != nil || n != want {
				t.Errorf("%d leases are freed, %v; want %d", n, err, want)
			}
		}
		free(t.Context(), 1)
		wantIDs(t, told, nil, 1)
		free(t.Context(), 0)
		d, err := c.Delivery(t.Context(), "dlv_0000001")
		if wantNil(t, err); d.State != outbox.StateQueued || d.Due != 20 || d.Worker != "" || d.Attempts != 1 {
			t.Errorf("%+v", d)
		}
		for _, id := range []string{"dlv_0000002", "dlv_0000003"} {
			if d, err := c.Delivery(t.Context(), id); err != nil || d.State != outbox.StateSending {
				t.Errorf("%+v %v", d, err)
			}
		}
	})
}
