package control_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/feed"
	"muster/notify/outbox"
	"muster/store/control"
)

func deliveryTo(n int, queue string, lane outbox.Lane, due muster.Micros) outbox.Delivery {
	return outbox.Delivery{
		ID: fmt.Sprintf("dlv_%07d", n), Channel: strings.Split(queue, ":")[0], Queue: queue, Target: fmt.Sprintf("usr_%d", n%7), Content: "ntf_1",
		Lane: lane, State: outbox.StateQueued, Due: due, Created: 1,
	}
}

var aContent = outbox.Content{ID: "ntf_1", Body: []byte(`{"a":"é\u0000"}` + "\x00\xff")}

func add(t testing.TB, c *control.Control, ds ...outbox.Delivery) {
	t.Helper()
	if err := c.AddDeliveries(t.Context(), outbox.Batch{Contents: []outbox.Content{aContent}, Deliveries: ds}); err != nil {
		t.Fatal(err)
	}
}

func idsOf(list []outbox.Delivery) (out []string) {
	for _, d := range list {
		out = append(out, d.ID)
	}
	return out
}

func wantIDs(t *testing.T, list []outbox.Delivery, err error, want ...int) {
	t.Helper()
	wantNil(t, err)
	ids := make([]string, 0, len(want))
	for _, n := range want {
		ids = append(ids, fmt.Sprintf("dlv_%07d", n))
	}
	if d := cmp.Diff(ids, append([]string{}, idsOf(list)...)); d != "" {
		t.Errorf("deliveries (-want +got):\n%s", d)
	}
}

var allLanes = []outbox.Lane{outbox.Urgent, outbox.Normal, outbox.Bulk}

func claimOf(queue string, now muster.Micros, limit int) outbox.Claim {
	return outbox.Claim{Queue: queue, Lanes: allLanes, Now: now, Until: now + 100, Worker: "w1", Limit: limit}
}

func TestADeliveryIsKeptInAllItsParts(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		var told []outbox.Delivery
		c.OnDeliveries(func(list []outbox.Delivery) { told = append(told, list...) })
		d := outbox.Delivery{
			ID: "dlv_1", Channel: "webhook", Queue: "webhook:whk_x", Target: "whk_x'", Notification: "ntf_1", Content: "ntf_1", Lane: outbox.Bulk, Fold: "é",
			State: outbox.StateQueued, Attempts: 3, Due: 1 << 52, Expires: 9, Created: 8, Error: "a \"b\"", Reference: "<x@y>",
			Tries: []outbox.Attempt{{Verdict: outbox.Again, At: 7, Duration: time.Second, Status: 451, Error: "e", Response: "r\x00", Reference: "f", RetryAfter: 5}},
		}
		add(t, c, d)
		same(t, []outbox.Delivery{d}, told)
		list, err := c.Deliveries(t.Context(), outbox.Query{Limit: 5})
		wantNil(t, err)
		same(t, []outbox.Delivery{d}, list)
		got, err := c.Delivery(t.Context(), d.ID)
		wantNil(t, err)
		d.Body = aContent.Body
		same(t, d, got)
		_, err = c.Delivery(t.Context(), "dlv_2")
		wantKind(t, err, muster.NotFound)
	})
}

func TestABatchOfDeliveriesIsWrittenWholeOrNotAtAll(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		told := 0
		c.OnDeliveries(func(list []outbox.Delivery) { told += len(list) })
		lost := deliveryTo(1, "email", outbox.Normal, 1)
		lost.Content = "nobody's"
		wantKind(t, c.AddDeliveries(t.Context(), outbox.Batch{Deliveries: []outbox.Delivery{deliveryTo(2, "email", 1, 1), lost}}), muster.Invalid)
		add(t, c, deliveryTo(1, "email", 1, 1))
		// The content is there by now, and is not changed by another one.
		other := outbox.Content{ID: "ntf_1", Body: []byte("changed")}
		wantNil(t, c.AddDeliveries(t.Context(), outbox.Batch{Deliveries: []outbox.Delivery{deliveryTo(2, "email", 1, 1)}}))
		wantNil(t, c.AddDeliveries(t.Context(), outbox.Batch{Contents: []outbox.Content{other, other}, Deliveries: []outbox.Delivery{deliveryTo(3, "email", 1, 1)}}))
		wantKind(t, c.AddDeliveries(t.Context(), outbox.Batch{Deliveries: []outbox.Delivery{deliveryTo(4, "email", 1, 1), deliveryTo(3, "email", 1, 1)}}), muster.Conflict)
		wantNil(t, c.AddDeliveries(t.Context(), outbox.Batch{}))
		list, err := c.ClaimDeliveries(t.Context(), claimOf("email", 5, 10))
		wantIDs(t, list, err, 1, 2, 3)
		for _, d := range list {
			if !bytes.Equal(d.Body, aContent.Body) {
				t.Errorf("%s says %q", d.ID, d.Body)
			}
		}
		if told != 3 {
			t.Errorf("%d deliveries were told of", told)
		}
	})
}

func TestClaimsGoByLaneAndAge(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		add(
			t, c,
			deliveryTo(1, "email", outbox.Bulk, 1), deliveryTo(2, "email", outbox.Normal, 30), deliveryTo(3, "email", outbox.Normal, 20),
			deliveryTo(4, "email", outbox.Urgent, 40), deliveryTo(5, "email", outbox.Urgent, 51), deliveryTo(6, "webhook:a", outbox.Urgent, 1),
			deliveryTo(7, "email", outbox.Normal, 30),
		)
		queues, err := c.DeliveryQueues(t.Context())
		wantNil(t, err)
		same(t, []outbox.Queue{{Name: "email", Channel: "email", Due: 1}, {Name: "webhook:a", Channel: "webhook", Due: 1}}, queues)
		list, err := c.ClaimDeliveries(t.Context(), claimOf("email", 50, 4))
		wantIDs(t, list, err, 4, 3, 2, 7)
		want := deliveryTo(4, "email", outbox.Urgent, 150)
		want.State, want.Attempts, want.Worker, want.Body = outbox.StateSending, 1, "w1", aContent.Body
		same(t, want, list[0])
		kept, err := c.Delivery(t.Context(), want.ID)
		wantNil(t, err)
		same(t, want, kept)
		list, err = c.ClaimDeliveries(t.Context(), claimOf("email", 50, 4))
		wantIDs(t, list, err, 1)
		list, err = c.ClaimDeliveries(t.Context(), claimOf("email", 50, 4))
		wantIDs(t, list, err)
		some := claimOf("email", 150, 4)
		some.Lanes = []outbox.Lane{outbox.Normal}
		list, err = c.ClaimDeliveries(t.Context(), some) // the leases are over
		wantIDs(t, list, err, 2, 3, 7)
		if list[0].Attempts != 2 {
			t.Errorf("attempts are %d", list[0].Attempts)
		}
		queues, err = c.DeliveryQueues(t.Context())
		wantNil(t, err)
		same(t, []outbox.Queue{{Name: "email", Channel: "email", Due: 51}, {Name: "webhook:a", Channel: "webhook", Due: 1}}, queues)
	})
}

func TestAFoldIsClaimedWhole(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		folded := func(n int, queue, fold string, due muster.Micros) outbox.Delivery {
			d := deliveryTo(n, queue, outbox.Normal, due)
			d.Fold = fold
			return d
		}
		add(t, c, folded(1, "email", "a", 90), folded(2, "email", "a", 10), folded(3, "email", "b", 5), folded(4, "x", "a", 5), folded(5, "email", "a", 80),
			deliveryTo(6, "email", outbox.Normal, 1))
		list, err := c.ClaimFold(t.Context(), claimOf("email", 10, 2), "a")
		wantIDs(t, list, err, 1, 2)
		list, err = c.ClaimFold(t.Context(), claimOf("email", 10, 9), "a")
		wantIDs(t, list, err, 5)
		list, err = c.ClaimFold(t.Context(), claimOf("email", 999, 9), "a") // a lease that is over is not queued
		wantIDs(t, list, err)
		list, err = c.ClaimFold(t.Context(), claimOf("email", 10, 9), "")
		wantIDs(t, list, err)
	})
}

func TestASettlementIsOfWhoHoldsTheLease(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		add(t, c, deliveryTo(1, "email", 0, 1), deliveryTo(2, "email", 0, 1), deliveryTo(3, "email", 0, 1))
		list, err := c.ClaimDeliveries(t.Context(), claimOf("email", 1, 2))
		wantIDs(t, list, err, 1, 2)
		tries := []outbox.Attempt{{Verdict: outbox.Again, Error: "busy"}}
		settle := func(n int, worker string, s outbox.State) outbox.Settlement {
			return outbox.Settlement{
				ID: fmt.Sprintf("dlv_%07d", n), Worker: worker, State: s, Attempts: 1, Due: 77, Ended: 5, Error: "busy\x00\xff",
				Reference: "r", Tries: tries,
			}
		}
		again := claimOf("email", 101, 1)
		again.Worker, again.Limit = "w2", 2
		list, err = c.ClaimDeliveries(t.Context(), again) // those of w1 come after the third
		wantIDs(t, list, err, 3, 1)
		lost, err := c.SettleDeliveries(t.Context(), []outbox.Settlement{
			settle(1, "w1", outbox.StateSent), settle(2, "w1", outbox.StateQueued), settle(3, "w1", outbox.StateSent), settle(4, "w1", outbox.StateSent),
		})
		wantNil(t, err)
		same(t, []string{"dlv_0000001", "dlv_0000003", "dlv_0000004"}, lost)
		want := deliveryTo(2, "email", 0, 77)
		want.Attempts, want.Ended, want.Error, want.Reference, want.Tries, want.Body = 1, 5, "busy\uFFFD\uFFFD", "r", tries, aContent.Body
		got, err := c.Delivery(t.Context(), want.ID)
		wantNil(t, err)
		same(t, want, got)
		lost, err = c.SettleDeliveries(t.Context(), []outbox.Settlement{settle(2, "w1", outbox.StateSent), settle(1, "w2", outbox.StateSent)})
		wantNil(t, err)
		same(t, []string{"dlv_0000002"}, lost) // settled is settled
		lost, err = c.SettleDeliveries(t.Context(), nil)
		if err != nil || lost != nil {
			t.Errorf("nothing gives %v, %v", lost, err)
		}
	})
}

func TestOnlyWhatIsSettledIsTold(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		var told []feed.Event
		c.OnEvents(func(es []feed.Event) { told = append(told, es...) })
		add(t, c, deliveryTo(1, "email", 0, 1), deliveryTo(2, "email", 0, 2))
		list, err := c.ClaimDeliveries(t.Context(), claimOf("email", 10, 2))
		wantIDs(t, list, err, 1, 2)
		other := claimOf("email", 110, 1) // the first lease has ended
		other.Worker = "w2"
		list, err = c.ClaimDeliveries(t.Context(), other)
		wantIDs(t, list, err, 1)
		dies := func(n int, worker string) outbox.Settlement {
			id := fmt.Sprintf("dlv_%07d", n)
			return outbox.Settlement{ID: id, Worker: worker, State: outbox.StateDead, Ended: 120, Events: []feed.Event{
				feed.NewEvent(feed.DeliveryDead, "", 120, map[string]string{"delivery": id, "worker": worker}),
			}}
		}
		lost, err := c.SettleDeliveries(t.Context(), []outbox.Settlement{dies(1, "w1"), dies(2, "w1")})
		wantNil(t, err)
		same(t, []string{"dlv_0000001"}, lost)
		lost, err = c.SettleDeliveries(t.Context(), []outbox.Settlement{dies(1, "w2")})
		wantNil(t, err)
		same(t, nil, lost)
		lost, err = c.SettleDeliveries(t.Context(), []outbox.Settlement{dies(1, "w2"), dies(2, "w1")})
		wantNil(t, err) // an answer that got lost is asked for again
		same(t, []string{"dlv_0000001", "dlv_0000002"}, lost)
		var got []string
		for _, e := range told {
			got = append(got, string(e.Data))
		}
		same(t, []string{`{"delivery":"dlv_0000002","worker":"w1"}`, `{"delivery":"dlv_0000001","worker":"w2"}`}, got)
		stored, err := c.FeedAfter(t.Context(), 0, 10)
		wantNil(t, err)
		same(t, told, stored)
	})
}

// settled claims all of a queue and ends it.
func settled(t *testing.T, c *control.Control, queue string, s outbox.State, ended muster.Micros) {
	t.Helper()
	list, err := c.ClaimDeliveries(t.Context(), claimOf(queue, 1000, 1000))
	wantNil(t, err)
	var done []outbox.Settlement
	for _, d := range list {
		done = append(done, outbox.Settlement{ID: d.ID, Worker: d.Worker, State: s, Attempts: d.Attempts, Due: d.Due, Ended: ended})
	}
	lost, err := c.SettleDeliveries(t.Context(), done)
	if err != nil || len(lost) > 0 {
		t.Fatalf("settle: %v, lost %v", err, lost)
	}
}

func TestDeliveriesAreListedQueuedAgainDroppedAndForgotten(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		var told []outbox.Delivery
		for n, queue := range []string{1: "a", 2: "a", 3: "b", 4: "b", 5: "c", 6: "c", 7: "c"} {
			if queue == "" {
				continue
			}
			d := deliveryTo(n, queue, 1, muster.Micros(n))
			d.Notification = []string{"ntf_1", ""}[n%2]
			add(t, c, d)
		}
		c.OnDeliveries(func(list []outbox.Delivery) { told = append(told, list...) })
		settled(t, c, "a", outbox.StateSent, 10)
		settled(t, c, "b", outbox.StateDead, 20)
		n, err := c.DropDeliveries(ctx, "c", "gone\x00", 30, 2)
		if err != nil || n != 2 {
			t.Fatalf("%d dropped, %v", n, err)
		}
		for name, tt := range map[string]struct {
			q    outbox.Query
			want []int
		}{
			"all":             {outbox.Query{}, []int{7, 6, 5, 4, 3, 2, 1}},
			"the first":       {outbox.Query{Limit: 2}, []int{7, 6}},
			"the next page":   {outbox.Query{Limit: 2, Before: "dlv_0000006"}, []int{5, 4}},
			"a notification":  {outbox.Query{Notification: "ntf_1"}, []int{6, 4, 2}},
			"a queue":         {outbox.Query{Queue: "b"}, []int{4, 3}},
			"a target":        {outbox.Query{Target: "usr_3"}, []int{3}},
			"a channel":       {outbox.Query{Channel: "c"}, []int{7, 6, 5}},
			"a state":         {outbox.Query{State: outbox.StateDropped}, []int{6, 5}},
			"all that is set": {outbox.Query{State: outbox.StateDead, Channel: "b", Queue: "b", Target: "usr_4", Notification: "ntf_1", Before: "dlv_0000005"}, []int{4}},
			"nobody":          {outbox.Query{Target: "' OR TRUE"}, nil},
		} {
			if tt.q.Limit == 0 {
				tt.q.Limit = 100
			}
			t.Run(name, func(t *testing.T) {
				list, err := c.Deliveries(ctx, tt.q)
				wantIDs(t, list, err, tt.want...)
			})
		}
		depths, err := c.DeliveryDepths(ctx)
		wantNil(t, err)
		same(t, []outbox.Depth{
			{Channel: "a", State: outbox.StateSent, Lane: outbox.Normal, Count: 2},
			{Channel: "b", State: outbox.StateDead, Lane: outbox.Normal, Count: 2},
			{Channel: "c", State: outbox.StateDropped, Lane: outbox.Normal, Count: 2},
			{Channel: "c", State: outbox.StateQueued, Lane: outbox.Normal, Count: 1, Oldest: 1},
		}, depths)
		list, err := c.RequeueDeliveries(ctx, []string{"dlv_0000001", "dlv_0000003", "dlv_0000005", "dlv_0000007", "dlv_9"}, 55)
		slices.SortFunc(list, func(a, b outbox.Delivery) int { return strings.Compare(a.ID, b.ID) })
		wantIDs(t, list, err, 1, 3)
		if d := list[0]; d.State != outbox.StateQueued || d.Attempts != 0 || d.Due != 55 || d.Ended != 0 || d.Worker != "" {
			t.Errorf("queued again is %+v", d)
		}
		same(t, len(told), 2)
		for _, tt := range []struct {
			ended, dead muster.Micros
			limit, want int
			left        []int
		}{
			{11, 99, 1, 1, []int{7, 6, 5, 4, 3, 1}}, // the one that was sent
			{11, 20, 9, 0, []int{7, 6, 5, 4, 3, 1}},
			{99, 20, 1, 1, []int{7, 6, 4, 3, 1}},
			{99, 21, 9, 2, []int{7, 3, 1}},
		} {
			n, err := c.TrimDeliveries(ctx, tt.ended, tt.dead, tt.limit)
			wantNil(t, err)
			same(t, tt.want, n)
			list, err := c.Deliveries(ctx, outbox.Query{Limit: 100})
			wantIDs(t, list, err, tt.left...)
		}
	})
}

func TestAContentIsForgottenWithItsLastDelivery(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		contents := func(want int) {
			t.Helper()
			var n int
			wantNil(t, c.Database().QueryRowContext(t.Context(), `SELECT count(*) FROM delivery_content`).Scan(&n))
			same(t, want, n)
		}
		other := deliveryTo(3, "a", 1, 1)
		other.Content = "mail_1"
		wantNil(t, c.AddDeliveries(t.Context(), outbox.Batch{
			Contents:   []outbox.Content{aContent, {ID: "mail_1"}, {ID: "nobody's"}},
			Deliveries: []outbox.Delivery{deliveryTo(1, "a", 1, 1), deliveryTo(2, "b", 1, 1), other},
		}))
		contents(2)
		settled(t, c, "a", outbox.StateSent, 10)
		n, err := c.TrimDeliveries(t.Context(), 11, 11, 100)
		wantNil(t, err)
		same(t, 2, n)
		contents(1)
		settled(t, c, "b", outbox.StateDead, 10)
		_, err = c.TrimDeliveries(t.Context(), 11, 11, 100)
		wantNil(t, err)
		contents(0)
	})
}

// A content that is about to be forgotten is needed again: whoever comes first, no delivery
// is without.
func TestAContentIsNotForgottenWhileADeliveryOfItIsAdded(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		for round := range 20 {
			add(t, c, deliveryTo(2*round, "a", 1, 1))
			settled(t, c, "a", outbox.StateSent, 10)
			var both sync.WaitGroup
			both.Go(func() {
				if _, err := c.TrimDeliveries(t.Context(), 11, 11, 100); err != nil {
					t.Error(err)
				}
			})
			both.Go(func() { add(t, c, deliveryTo(2*round+1, "b", 1, 1)) })
			both.Wait()
			list, err := c.ClaimDeliveries(t.Context(), claimOf("b", 1000, 10))
			wantIDs(t, list, err, 2*round+1)
			if !bytes.Equal(list[0].Body, aContent.Body) {
				t.Fatalf("round %d: the delivery says %q", round, list[0].Body)
			}
			_, err = c.SettleDeliveries(t.Context(), []outbox.Settlement{{ID: list[0].ID, Worker: "w1", State: outbox.StateSent, Ended: 10}})
			wantNil(t, err)
		}
	})
}

func TestWhatWaitsForATargetIsHastened(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		again := []outbox.Delivery{deliveryTo(1, "mqtt", 1, 90), deliveryTo(8, "mqtt", 1, 95), deliveryTo(2, "mqtt", 1, 90), deliveryTo(15, "email", 1, 90)}
		for i := range again {
			again[i].Error = "not connected"
		}
		add(t, c, append(again, deliveryTo(22, "mqtt", 1, 5), deliveryTo(29, "mqtt", 1, 90))...) // the last waits for quiet hours
		var told []outbox.Delivery
		c.OnDeliveries(func(list []outbox.Delivery) { told = append(told, list...) })
		n, err := c.HastenDeliveries(t.Context(), "mqtt", "usr_1", 10)
		wantNil(t, err)
		same(t, 2, n)
		slices.SortFunc(told, func(a, b outbox.Delivery) int { return strings.Compare(a.ID, b.ID) })
		wantIDs(t, told, nil, 1, 8)
		list, err := c.ClaimDeliveries(t.Context(), claimOf("mqtt", 10, 10))
		wantIDs(t, list, err, 22, 1, 8)
		n, err = c.HastenDeliveries(t.Context(), "mqtt", "usr_1", 11) // on lease they are not
		if err != nil || n != 0 || len(told) != 2 {
			t.Errorf("%d hastened, %d told, %v", n, len(told), err)
		}
	})
}

func TestManyWorkersShareTheWorkWithoutDoublingIt(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		const n = 600
		ds := make([]outbox.Delivery, n)
		for i := range ds {
			ds[i] = deliveryTo(i, "email", outbox.Lane(i%3), muster.Micros(i%5))
		}
		add(t, c, ds...)
		var mu sync.Mutex
		times := map[string]int{}
		var workers sync.WaitGroup
		for w := range 8 {
			workers.Go(func() {
				q := claimOf("email", 10, 7)
				q.Worker = fmt.Sprint(w)
				for {
					list, err := c.ClaimDeliveries(t.Context(), q)
					if err != nil {
						t.Error(err)
						return
					}
					if len(list) == 0 { // others may hold the rest locked, and give it up only by committing
						return
					}
					done := make([]outbox.Settlement, 0, len(list))
					mu.Lock()
					for _, d := range list {
						times[d.ID]++
						done = append(done, outbox.Settlement{ID: d.ID, Worker: q.Worker, State: outbox.StateSent, Ended: 10})
					}
					mu.Unlock()
					if lost, err := c.SettleDeliveries(t.Context(), done); err != nil || len(lost) > 0 {
						t.Errorf("lost %v, %v", lost, err)
					}
				}
			})
		}
		workers.Wait()
		for id, n := range times {
			if n != 1 {
				t.Errorf("%s was claimed %d times", id, n)
			}
		}
		if len(times) != n {
			t.Errorf("%d of %d were claimed", len(times), n)
		}
		queues, err := c.DeliveryQueues(t.Context())
		if err != nil || len(queues) != 0 {
			t.Errorf("what is left is %v, %v", queues, err)
		}
	})
}
