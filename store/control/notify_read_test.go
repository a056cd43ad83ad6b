package control_test

import (
	"fmt"
	"sync"
	"testing"

	"muster"
	"muster/notify"
	"muster/notify/outbox"
)

func notificationIDs(list []notify.Notification) (out []string) {
	for _, n := range list {
		out = append(out, n.ID)
	}
	return out
}

func named(numbers ...int) (out []string) {
	for _, n := range numbers {
		out = append(out, fmt.Sprintf("ntf_%05d", n))
	}
	return out
}

func TestNotificationsAreChosenFrom(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		var many []string
		for _, id := range []string{"top_a", "top_b"} {
			wantNil(t, c.PutTopic(ctx, topicOf(id)))
		}
		for i := range 50 {
			many = append(many, fmt.Sprintf("top_%d", i))
		}
		var w notify.Write
		for i := 1; i <= 6; i++ {
			n := notificationTo(i, []string{"top_a", "top_b"}[i%2])
			if i%3 == 0 {
				n.Device, n.State = "d1", notify.Resolved
			}
			w.New = append(w.New, n)
		}
		write(t, c, w)
		for name, tt := range map[string]struct {
			q    notify.Query
			want []int
		}{
			"no topic":             {notify.Query{}, nil},
			"one topic":            {notify.Query{Topics: []string{"top_a"}}, []int{6, 4, 2}},
			"two topics":           {notify.Query{Topics: []string{"top_b", "top_a", "top_b"}}, []int{6, 5, 4, 3, 2, 1}},
			"the first of two":     {notify.Query{Topics: []string{"top_b", "top_a"}, Limit: 3}, []int{6, 5, 4}},
			"the next page of two": {notify.Query{Topics: []string{"top_b", "top_a"}, Limit: 3, Before: "ntf_00004"}, []int{3, 2, 1}},
			"many topics":          {notify.Query{Topics: append([]string{"top_b"}, many...), Limit: 2, Before: "ntf_00005"}, []int{3, 1}},
			"a state":              {notify.Query{Topics: []string{"top_a", "top_b"}, State: notify.Resolved}, []int{6, 3}},
			"a device":             {notify.Query{Topics: []string{"top_a", "top_b"}, Device: "d1"}, []int{6, 3}},
			"a device in a topic":  {notify.Query{Topics: []string{"top_a"}, Device: "d1", State: notify.Resolved, Before: "ntf_9"}, []int{6}},
			"another's":            {notify.Query{Topics: []string{"' OR TRUE --"}}, nil},
		} {
			t.Run(name, func(t *testing.T) {
				if tt.q.Limit == 0 {
					tt.q.Limit = 100
				}
				list, err := c.Notifications(ctx, tt.q)
				wantNil(t, err)
				same(t, named(tt.want...), notificationIDs(list))
			})
		}
	})
}

func TestEscalationsComeInOrderOfTheirTime(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		next := func(want muster.Micros) {
			t.Helper()
			at, err := c.NextEscalation(t.Context())
			wantNil(t, err)
			same(t, want, at)
		}
		next(0)
		var w notify.Write
		for i, at := range []muster.Micros{0, 30, 20, 40, 10, 5} {
			n := notificationTo(i, notify.SystemTopic)
			n.EscalateAt = at
			if at == 5 {
				n.State = notify.Acked
			}
			w.New = append(w.New, n)
		}
		write(t, c, w)
		next(10)
		list, err := c.DueEscalations(t.Context(), 30, 10)
		wantNil(t, err)
		same(t, named(4, 2, 1), notificationIDs(list))
		same(t, w.New[4], list[0])
		list, err = c.DueEscalations(t.Context(), 30, 2)
		wantNil(t, err)
		same(t, named(4, 2), notificationIDs(list))
	})
}

func TestOldNotificationsAreForgottenWithTheirReceipts(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.PutTopic(ctx, topicOf("top_a")))
		var w notify.Write
		for i := range 8 {
			n := notificationTo(i, []string{"top_a", notify.SystemTopic}[i%2])
			w.New = append(w.New, n)
			w.Receipts = append(w.Receipts, receiptsOf(n, "usr_1", "usr_2")...)
		}
		write(t, c, w)
		left := func(topic string, want ...int) {
			t.Helper()
			list, err := c.Notifications(ctx, notify.Query{Topics: []string{topic}, Limit: 100})
			wantNil(t, err)
			same(t, named(want...), notificationIDs(list))
		}
		trim := func(before muster.Micros, limit, want int) {
			t.Helper()
			n, err := c.TrimNotifications(ctx, "top_a", before, limit)
			wantNil(t, err)
			same(t, want, n)
		}
		trim(5, 1, 1)
		left("top_a", 6, 4, 2)
		trim(5, 100, 2)
		trim(5, 100, 0)
		left("top_a", 6)
		receipts := 0
		for i := range 8 {
			list, err := c.Receipts(ctx, named(i)[0], "", 100)
			wantNil(t, err)
			receipts += len(list)
		}
		same(t, 10, receipts)
		items, err := c.Inbox(ctx, notify.InboxQuery{Subject: "usr_1", Limit: 100})
		wantNil(t, err)
		same(t, 5, len(items))
		orphans, err := c.OrphanTopics(ctx, 10)
		wantNil(t, err)
		same(t, nil, orphans)
		wantNil(t, c.DeleteTopic(ctx, "top_a"))
		orphans, err = c.OrphanTopics(ctx, 10)
		wantNil(t, err)
		same(t, []string{"top_a"}, orphans)
		trim(0, 100, 1)
		orphans, err = c.OrphanTopics(ctx, 10)
		wantNil(t, err)
		same(t, nil, orphans)
		left(notify.SystemTopic, 7, 5, 3, 1)
	})
}

// A recipient who is added while the notification is trimmed has a notification, or is told
// that it is gone: no receipt is left alone.
func TestNoReceiptIsAddedToANotificationThatIsTrimmed(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		for round := range 20 {
			n := notificationTo(round, notify.SystemTopic)
			write(t, c, notify.Write{New: []notify.Notification{n}, Receipts: receiptsOf(n, "usr_1", "usr_2", "usr_3")})
			var wg sync.WaitGroup
			for i := range 3 {
				wg.Go(func() {
					w := notify.Write{Receipts: receiptsOf(n, notify.Subject(fmt.Sprintf("usr_1%d", i))), Touch: []string{n.ID}}
					if _, err := c.Write(t.Context(), w); err != nil && muster.KindOf(err) != muster.NotFound {
						t.Error(err)
					}
				})
			}
			if _, err := c.TrimNotifications(t.Context(), notify.SystemTopic, 0, 10); err != nil {
				t.Error(err)
			}
			wg.Wait()
			list, err := c.Receipts(t.Context(), n.ID, "", 10)
			wantNil(t, err)
			same(t, 0, len(list))
		}
	})
}

func TestWhoWasToldIsKnown(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		d1, d2, d3 := deliveryTo(1, "email", 0, 1), deliveryTo(2, "email", 0, 1), deliveryTo(3, "x", 0, 1)
		d1.Notification, d3.Notification = "ntf_1", "ntf_1"
		d1.Tries = []outbox.Attempt{{Error: "e"}}
		add(t, c, d1, d2, d3)
		_, err := c.DropDeliveries(t.Context(), "x", "gone", 5, 10)
		wantNil(t, err)
		list, err := c.Told(t.Context(), "ntf_1", 10)
		wantNil(t, err)
		d1.Tries = nil
		same(t, []outbox.Delivery{d1}, list)
	})
}

func TestAnInboxIsReadFromTheNewest(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.PutTopic(ctx, topicOf("top_a")))
		for i := range 6 {
			n := notificationTo(i, []string{"top_a", notify.SystemTopic}[i%2])
			switch i {
			case 2:
				n.State = notify.Acked
			case 3:
				n.AckPolicy = notify.AckNone
			}
			write(t, c, notify.Write{New: []notify.Notification{n}, Receipts: receiptsOf(n, "usr_2", "usr_1")})
		}
		write(t, c, notify.Write{Marks: []notify.Mark{
			{Notification: named(0)[0], Subject: "usr_1", State: notify.Seen, At: 1},
			{Notification: named(1)[0], Subject: "usr_1", State: notify.Read, At: 1},
			{Notification: named(4)[0], Subject: "usr_1", State: notify.AckedIt, At: 1},
		}})
		for name, tt := range map[string]struct {
			q    notify.InboxQuery
			want []int
		}{
			"all":                     {notify.InboxQuery{}, []int{5, 4, 3, 2, 1, 0}},
			"the first":               {notify.InboxQuery{Limit: 2}, []int{5, 4}},
			"the next page":           {notify.InboxQuery{Limit: 2, Before: "ntf_00004"}, []int{3, 2}},
			"a topic":                 {notify.InboxQuery{Topic: "top_a"}, []int{4, 2, 0}},
			"what is not read":        {notify.InboxQuery{Unread: true}, []int{5, 3, 2, 0}},
			"what asks for an ack":    {notify.InboxQuery{Unacked: true}, []int{5, 4, 1, 0}},
			"everything at once":      {notify.InboxQuery{Unacked: true, Unread: true, Topic: "top_a", Before: "ntf_00004"}, []int{0}},
			"all but a topic":         {notify.InboxQuery{Hidden: []string{"top_x", "top_a"}}, []int{5, 3, 1}},
			"unread but of a topic":   {notify.InboxQuery{Unread: true, Hidden: []string{notify.SystemTopic}}, []int{2, 0}},
			"of a topic that is not":  {notify.InboxQuery{Topic: "top_a", Hidden: []string{"top_a"}}, nil},
			"of who has no inbox yet": {notify.InboxQuery{Subject: "usr_9"}, nil},
		} {
			t.Run(name, func(t *testing.T) {
				if tt.q.Limit == 0 {
					tt.q.Limit = 100
				}
				if tt.q.Subject == "" {
					tt.q.Subject = "usr_1"
				}
				items, err := c.Inbox(ctx, tt.q)
				wantNil(t, err)
				var got []string
				for _, i := range items {
					got = append(got, i.Notification.ID)
					if i.Receipt.Subject != tt.q.Subject || i.Receipt.Notification != i.Notification.ID {
						t.Errorf("an item is %+v", i)
					}
				}
				same(t, named(tt.want...), got)
			})
		}
		counts, err := c.InboxCounts(ctx, "usr_1", nil)
		wantNil(t, err)
		same(t, notify.Counts{Unread: 4, Open: 4}, counts)
		counts, err = c.InboxCounts(ctx, "usr_1", []string{"top_a", "top_x"})
		wantNil(t, err)
		same(t, notify.Counts{Unread: 2, Open: 2}, counts)
		counts, err = c.InboxCounts(ctx, "usr_9", nil)
		wantNil(t, err)
		same(t, notify.Counts{}, counts)
	})
}

func TestAnInboxIsResumedWithExactlyWhatChanged(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		epoch, last, err := c.InboxState(ctx)
		wantNil(t, err)
		again, _, err := c.InboxState(ctx)
		if err != nil || epoch == "" || epoch != again || last != 0 {
			t.Fatalf("the epoch is %q, then %q; the last is %d; %v", epoch, again, last, err)
		}
		empty, err := c.ChangesAfter(ctx, 0, 10)
		wantNil(t, err)
		same(t, notify.Changes{First: 1}, empty)
		for i := range 3 {
			n := notificationTo(i, notify.SystemTopic)
			write(t, c, notify.Write{New: []notify.Notification{n}, Receipts: receiptsOf(n, "usr_1", "usr_2")})
		}
		write(t, c, notify.Write{Marks: []notify.Mark{{Notification: named(1)[0], Subject: "usr_1", State: notify.Read, At: 1}}})
		after := func(seq, upTo int64, limit int, want ...int64) {
			t.Helper()
			items, err := c.InboxAfter(ctx, "usr_1", seq, upTo, limit)
			wantNil(t, err)
			var got []int64
			for _, i := range items {
				got = append(got, i.Receipt.Seq)
				same(t, i.Receipt.Notification, i.Notification.ID)
			}
			same(t, want, got)
		}
		after(0, 100, 10, 1, 5, 7) // the third was changed again
		after(1, 100, 10, 5, 7)
		after(0, 6, 10, 1, 5)
		after(0, 100, 2, 1, 5)
		run := func(seq int64, limit int, last int64, want ...int64) {
			t.Helper()
			changes, err := c.ChangesAfter(ctx, seq, limit)
			wantNil(t, err)
			var got []int64
			for _, i := range changes.Items {
				got = append(got, i.Receipt.Seq)
			}
			same(t, want, got)
			same(t, [2]int64{seq + 1, last}, [2]int64{changes.First, changes.Last})
		}
		run(0, 100, 7, 1, 2, 4, 5, 6, 7)
		run(0, 2, 2, 1, 2)
		run(2, 2, 5, 4, 5)
		run(6, 1, 7, 7)
		run(7, 1, 7)
		run(99, 1, 99)
	})
}
