package control_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"muster"
	"muster/audit"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
	"muster/store/control"
)

func topicOf(id string) notify.Topic {
	return notify.Topic{ID: id, Name: "n-" + id, Visibility: notify.Internal, Status: notify.Active, Retention: 1e9, AckPolicy: notify.AckAny, Version: 1, Created: 5, Updated: 5}
}

func notificationTo(n int, topic string) notify.Notification {
	return notify.Notification{
		ID: fmt.Sprintf("ntf_%05d", n), Topic: topic, Sender: notify.Sender{Kind: "user", ID: "usr_1", Name: "Ünï"}, Severity: notify.Major, Lane: 1,
		Title: "t", Count: 1, State: notify.Open, AckPolicy: notify.AckAny, Created: muster.Micros(n), Updated: muster.Micros(n), Version: 1,
	}
}

func receiptsOf(n notify.Notification, subjects ...notify.Subject) (out []notify.Receipt) {
	for _, s := range subjects {
		out = append(out, notify.Receipt{Notification: n.ID, Subject: s})
	}
	return out
}

func write(t testing.TB, c *control.Control, w notify.Write) notify.Written {
	t.Helper()
	done, err := c.Write(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// listen collects what is told of inboxes.
func listen(c *control.Control) *[]notify.Changes {
	var told []notify.Changes
	c.OnInbox(func(ch notify.Changes) { told = append(told, ch) })
	return &told
}

func TestANotificationAndItsReceiptsAreKeptInAllTheirParts(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		told := listen(c)
		wantNil(t, c.PutTopic(t.Context(), topicOf("top_1")))
		n := notify.Notification{
			ID: "ntf_1", Topic: "top_1", Sender: notify.Sender{Kind: "device", ID: "d1", Name: "D \"1\""}, Severity: notify.Critical, Lane: 2,
			Title: "é'", Body: "b\nb", Data: json.RawMessage(`{"b":1,  "a":"\u0000", "n":1e400}`), Link: "https://x.example/?a=1",
			Actions: []notify.Action{{Label: "l", URL: "http://y.example"}}, Device: "d1", DedupKey: "k", Count: 3, State: notify.Acked, AckPolicy: notify.AckAll,
			AckedBy: "eve", AckedAt: 4, AckNote: "n", ResolvedAt: 5, Recipients: 6, Acks: 7, Step: 8, EscalateAt: 9, Created: 10, Updated: 11, Expires: 12, Version: 13,
		}
		r := notify.Receipt{Notification: "ntf_1", Subject: "device/d1", State: notify.AckedIt, Delivered: 1, Seen: 2, Read: 3, Acked: 4, Note: "é", Door: "mail", Step: 2}
		write(t, c, notify.Write{New: []notify.Notification{n}, Receipts: []notify.Receipt{r}, Cursor: &notify.Cursor{Name: "feed", Epoch: "e", Seq: 7}})
		r.Seq = 1
		got, err := c.Notification(t.Context(), "ntf_1")
		wantNil(t, err)
		same(t, n, got)
		gotR, err := c.Receipt(t.Context(), "ntf_1", "device/d1")
		wantNil(t, err)
		same(t, r, gotR)
		same(t, []notify.Changes{{First: 1, Last: 1, Items: []notify.Item{{Notification: n, Receipt: r}}}}, *told)
		cursor, err := c.Cursor(t.Context(), "feed")
		wantNil(t, err)
		same(t, notify.Cursor{Name: "feed", Epoch: "e", Seq: 7}, cursor)
		for _, was := range []notify.Cursor{{}, {Epoch: "e", Seq: 6}, {Epoch: "f", Seq: 7}} { // another process has read on
			_, err := c.Write(t.Context(), notify.Write{Cursor: &notify.Cursor{Name: "feed", Epoch: "e", Seq: 9, Was: &was}})
			wantKind(t, err, muster.Conflict)
		}
		write(t, c, notify.Write{Cursor: &notify.Cursor{Name: "feed", Epoch: "e", Seq: 8, Was: &notify.Cursor{Epoch: "e", Seq: 7}}})
		write(t, c, notify.Write{Cursor: &notify.Cursor{Name: "first", Epoch: "e", Seq: 1, Was: &notify.Cursor{}}})
		cursor, err = c.Cursor(t.Context(), "feed")
		wantNil(t, err)
		same(t, notify.Cursor{Name: "feed", Epoch: "e", Seq: 8}, cursor)
		cursor, err = c.Cursor(t.Context(), "other")
		wantNil(t, err)
		same(t, notify.Cursor{Name: "other"}, cursor)
		was := n.Version
		n.Sender, n.Severity, n.Lane, n.Title, n.Body, n.Data, n.Link, n.Actions = notify.Sender{Kind: "system"}, 0, 0, "x\x00", "", nil, "", nil
		n.Device, n.DedupKey, n.Count, n.State, n.AckPolicy, n.AckedBy, n.AckedAt, n.AckNote = "", "", 9, notify.Open, notify.AckNone, "", 0, ""
		n.ResolvedAt, n.Recipients, n.Acks, n.Step, n.EscalateAt, n.Updated, n.Expires, n.Version = 0, 0, 0, 0, 0, 99, 0, 14
		changed := n
		changed.Topic, changed.Created = "top_2", 77 // stay as they were
		write(t, c, notify.Write{Updates: []notify.Update{{Notification: changed, Was: was}}})
		n.Title = "x\uFFFD"
		got, err = c.Notification(t.Context(), "ntf_1")
		wantNil(t, err)
		same(t, n, got)
		if len(*told) != 1 {
			t.Errorf("what changed no inbox was told of: %v", *told)
		}
	})
}

func TestAWriteIsDoneWholeOrNotAtAll(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		told := listen(c)
		deliveries := 0
		c.OnDeliveries(func(list []outbox.Delivery) { deliveries += len(list) })
		wantNil(t, c.PutTopic(t.Context(), topicOf("top_1")))
		off := topicOf("top_off")
		off.Status = notify.Inactive
		wantNil(t, c.PutTopic(t.Context(), off))
		first := notificationTo(1, "top_1")
		first.DedupKey = "k"
		write(t, c, notify.Write{New: []notify.Notification{first}, Receipts: receiptsOf(first, "usr_1")})
		keyed := notificationTo(2, "top_1")
		keyed.DedupKey = "k"
		other := notificationTo(9, "top_1")
		other.DedupKey = "other"
		for name, tt := range map[string]struct {
			w    notify.Write
			want muster.Kind
		}{
			"a dedup key that is open":            {notify.Write{New: []notify.Notification{keyed}}, muster.Conflict},
			"an id that is taken":                 {notify.Write{New: []notify.Notification{notificationTo(1, "top_1")}}, muster.Conflict},
			"a topic that is not there":           {notify.Write{New: []notify.Notification{notificationTo(3, "top_2")}}, muster.NotFound},
			"a topic that is inactive":            {notify.Write{New: []notify.Notification{notificationTo(3, "top_off")}}, muster.NotFound},
			"an update of another version":        {notify.Write{Updates: []notify.Update{{Notification: first, Was: 2}}}, muster.Conflict},
			"an update of nothing":                {notify.Write{Updates: []notify.Update{{Notification: notificationTo(7, "top_1"), Was: 1}}}, muster.Conflict},
			"an update to a key that is open":     {notify.Write{New: []notify.Notification{other}, Updates: []notify.Update{{Notification: withKey(other, "k"), Was: 1}}}, muster.Conflict},
			"a receipt of no notification":        {notify.Write{Receipts: receiptsOf(notificationTo(8, ""), "usr_1")}, muster.NotFound},
			"a delivery whose content is nowhere": {notify.Write{Out: outbox.Batch{Deliveries: []outbox.Delivery{deliveryTo(5, "email", 0, 1)}}}, muster.Invalid},
		} {
			t.Run(name, func(t *testing.T) {
				good := notificationTo(4, "top_1")
				tt.w.New = append(tt.w.New, good)
				tt.w.Receipts = append(tt.w.Receipts, receiptsOf(good, "usr_1")...)
				tt.w.Marks = []notify.Mark{{Notification: first.ID, Subject: "usr_1", State: notify.Read, At: 5}}
				tt.w.Cursor = &notify.Cursor{Name: "feed", Epoch: "e", Seq: 1}
				tt.w.Out.Add(outbox.Batch{Contents: []outbox.Content{{ID: "other"}}})
				_, err := c.Write(t.Context(), tt.w)
				wantKind(t, err, tt.want)
				_, err = c.Notification(t.Context(), good.ID)
				wantKind(t, err, muster.NotFound)
				r, err := c.Receipt(t.Context(), first.ID, "usr_1")
				wantNil(t, err)
				same(t, notify.Receipt{Notification: first.ID, Subject: "usr_1", Seq: 1}, r)
				cursor, err := c.Cursor(t.Context(), "feed")
				wantNil(t, err)
				same(t, notify.Cursor{Name: "feed"}, cursor)
			})
		}
		if len(*told) != 1 || deliveries != 0 {
			t.Errorf("%d changes and %d deliveries were told of", len(*told), deliveries)
		}
		resolved := first
		resolved.State, resolved.Version = notify.Resolved, 2
		write(t, c, notify.Write{Updates: []notify.Update{{Notification: resolved, Was: 1}}, New: nil})
		write(t, c, notify.Write{New: []notify.Notification{keyed}}) // its key is free again
		got, err := c.OpenByKey(t.Context(), "top_1", "k")
		wantNil(t, err)
		same(t, keyed, got)
		_, err = c.OpenByKey(t.Context(), "top_1", "")
		wantKind(t, err, muster.NotFound)
	})
}

func withKey(n notify.Notification, key string) notify.Notification {
	n.DedupKey = key
	return n
}

func TestReceiptsOnlyMoveForward(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		told := listen(c)
		n := notificationTo(1, notify.SystemTopic)
		done := write(t, c, notify.Write{New: []notify.Notification{n}, Receipts: receiptsOf(n, "usr_1", "usr_2")})
		same(t, notify.Written{Added: 2}, done)
		mark := func(s notify.Subject, state notify.ReceiptState, at muster.Micros) notify.Mark {
			return notify.Mark{Notification: n.ID, Subject: s, State: state, At: at, Note: "note", Door: "api"}
		}
		*told = nil
		done = write(t, c, notify.Write{Marks: []notify.Mark{mark("usr_1", notify.Seen, 10), mark("usr_3", notify.Read, 10)}})
		one := notify.Receipt{Notification: n.ID, Subject: "usr_1", Seq: 3, State: notify.Seen, Delivered: 10, Seen: 10}
		same(t, notify.Written{Marked: []notify.Receipt{one}}, done)
		same(t, []notify.Changes{{First: 3, Last: 3, Items: []notify.Item{{Notification: n, Receipt: one}}}}, *told)
		done = write(t, c, notify.Write{Marks: []notify.Mark{mark("usr_1", notify.Delivered, 20), mark("usr_1", notify.Seen, 20)}})
		same(t, notify.Written{}, done)
		if len(*told) != 1 {
			t.Errorf("what changed nothing was told of: %v", *told)
		}
		done = write(t, c, notify.Write{Marks: []notify.Mark{mark("usr_1", notify.AckedIt, 30), mark("usr_1", notify.Read, 40), mark("usr_2", notify.Read, 30), mark("usr_2", notify.AckedIt, 50)}})
		one.Seq, one.State, one.Read, one.Acked, one.Note, one.Door = 4, notify.AckedIt, 30, 30, "note", "api"
		two := notify.Receipt{Notification: n.ID, Subject: "usr_2", Seq: 5, State: notify.AckedIt, Delivered: 30, Seen: 30, Read: 30, Acked: 50, Note: "note", Door: "api"}
		same(t, notify.Written{Marked: []notify.Receipt{one, two}}, done)
		got, err := c.Receipts(t.Context(), n.ID, "", 10)
		wantNil(t, err)
		same(t, []notify.Receipt{one, two}, got)
		again := receiptsOf(n, "usr_1", "usr_0")
		again[0].Step, again[1].Step = 2, 2
		done = write(t, c, notify.Write{Receipts: again})
		same(t, notify.Written{Added: 1}, done)
		got, err = c.Receipts(t.Context(), n.ID, "usr_0", 1)
		wantNil(t, err)
		same(t, []notify.Receipt{one}, got)
		last := (*told)[len(*told)-1]
		if last.First != 6 || len(last.Items) != 1 || last.Items[0].Receipt.Subject != "usr_0" {
			t.Errorf("told is %+v", last)
		}
	})
}

func TestATouchedNotificationIsToldToAllOfItsRecipientsAgain(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		told := listen(c)
		n, other := notificationTo(1, notify.SystemTopic), notificationTo(2, notify.SystemTopic)
		write(t, c, notify.Write{New: []notify.Notification{n, other}, Receipts: append(receiptsOf(n, "usr_1", "usr_2"), receiptsOf(other, "usr_1")...)})
		n.State, n.AckedBy, n.Version = notify.Acked, "eve", 2
		write(t, c, notify.Write{
			Updates: []notify.Update{{Notification: n, Was: 1}}, Touch: []string{n.ID, "ntf_none", n.ID}, Receipts: receiptsOf(n, "usr_2", "usr_3"),
			Marks: []notify.Mark{{Notification: n.ID, Subject: "usr_1", State: notify.AckedIt, At: 9}},
		})
		last := (*told)[1]
		var seqs []int64
		for _, i := range last.Items {
			same(t, n, i.Notification)
			seqs = append(seqs, i.Receipt.Seq)
		}
		if len(last.Items) != 3 || last.First != 4 || !slices.IsSorted(seqs) || seqs[0] < last.First || seqs[2] != last.Last {
			t.Errorf("told is %+v", last)
		}
		_, number, err := c.InboxState(t.Context())
		wantNil(t, err)
		same(t, last.Last, number)
		changes, err := c.ChangesAfter(t.Context(), 3, 100)
		wantNil(t, err)
		same(t, last, changes)
	})
}

// Resume gives each change once: the runs that are told are without a gap, and what the
// store returns after any of them is what was told since.
func TestNumbersOfInboxesAreInTheOrderOfCommitsWithoutAGap(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		var mu sync.Mutex
		var runs []notify.Changes
		c.OnInbox(func(ch notify.Changes) {
			mu.Lock()
			defer mu.Unlock()
			runs = append(runs, ch)
		})
		stop, readers := make(chan struct{}), sync.WaitGroup{}
		readers.Go(func() { follow(t, c, stop) })
		const writers, each = 6, 15
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					n := notificationTo(w*each+i, notify.SystemTopic)
					ctx := noted(context.Background())
					audit.Note(ctx, "x", "y", nil, nil)
					feed.Note(ctx, feed.NewEvent(feed.DeviceUpdated, "d", 1, nil))
					_, err := c.Write(ctx, notify.Write{New: []notify.Notification{n}, Receipts: receiptsOf(n, "usr_1", "usr_2", "usr_3")})
					if err == nil {
						_, err = c.Write(ctx, notify.Write{
							Touch: []string{n.ID}, Marks: []notify.Mark{{Notification: fmt.Sprintf("ntf_%05d", i), Subject: "usr_1", State: notify.Read, At: 5}},
						})
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		close(stop)
		readers.Wait()
		slices.SortFunc(runs, func(a, b notify.Changes) int { return int(a.First - b.First) })
		next := int64(1)
		for _, r := range runs {
			if r.First != next || r.Last < r.First {
				t.Fatalf("a run goes from %d to %d, and the one before it ends at %d", r.First, r.Last, next-1)
			}
			next = r.Last + 1
		}
		_, last, err := c.InboxState(t.Context())
		wantNil(t, err)
		same(t, next-1, last)
	})
}

// follow reads changes as they come: none may appear behind where it is.
func follow(t *testing.T, c *control.Control, stop <-chan struct{}) {
	seen, seq := map[string]int64{}, int64(0)
	for stopped := false; ; {
		select {
		case <-stop:
			stopped = true
		default:
		}
		changes, err := c.ChangesAfter(context.Background(), seq, 7)
		if err != nil {
			t.Error(err)
			return
		}
		for _, i := range changes.Items {
			if i.Receipt.Seq <= seq || i.Receipt.Seq > changes.Last {
				t.Errorf("change %d is in the run from %d to %d", i.Receipt.Seq, seq+1, changes.Last)
			}
			seen[i.Receipt.Notification+string(i.Receipt.Subject)] = i.Receipt.Seq
		}
		if stopped && changes.Last == seq {
			break
		}
		seq = changes.Last
	}
	for n := 0; ; n++ {
		list, err := c.Receipts(context.Background(), fmt.Sprintf("ntf_%05d", n), "", 100)
		if err != nil || len(list) == 0 {
			return
		}
		for _, r := range list {
			if seen[r.Notification+string(r.Subject)] != r.Seq {
				t.Errorf("of %s for %s the change %d was read, not %d", r.Notification, r.Subject, seen[r.Notification+string(r.Subject)], r.Seq)
			}
		}
	}
}

func TestOfTwoThatChangeANotificationOneIsAConflict(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		n := notificationTo(1, notify.SystemTopic)
		write(t, c, notify.Write{New: []notify.Notification{n}})
		const both, rounds = 4, 20
		for range rounds {
			was := n.Version
			n.Version++
			n.Count++
			var wg sync.WaitGroup
			done := make([]error, both)
			for i := range both {
				wg.Go(func() {
					_, done[i] = c.Write(t.Context(), notify.Write{Updates: []notify.Update{{Notification: n, Was: was}}, Receipts: receiptsOf(n, "usr_1")})
				})
			}
			wg.Wait()
			wantOne(t, done)
		}
	})
}

// wantOne wants that one of many did it, and all others were a conflict.
func wantOne(t *testing.T, done []error) {
	t.Helper()
	won := 0
	for _, err := range done {
		if err == nil {
			won++
			continue
		}
		wantKind(t, err, muster.Conflict)
	}
	same(t, 1, won)
}

func TestOfTwoWithOneDedupKeyOneIsAConflict(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		const both = 6
		for round := range 10 {
			var wg sync.WaitGroup
			done := make([]error, both)
			for i := range both {
				n := withKey(notificationTo(round*both+i, notify.SystemTopic), fmt.Sprint(round))
				wg.Go(func() {
					_, done[i] = c.Write(t.Context(), notify.Write{New: []notify.Notification{n}, Receipts: receiptsOf(n, "usr_1")})
				})
			}
			wg.Wait()
			wantOne(t, done)
		}
	})
}

func TestNothingIsWrittenIntoATopicThatIsDeletedMeanwhile(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		for round := range 15 {
			id := fmt.Sprintf("top_%d", round)
			wantNil(t, c.PutTopic(t.Context(), topicOf(id)))
			gone := make(chan struct{})
			var wg sync.WaitGroup
			for w := range 3 {
				wg.Go(func() {
					for i := 0; ; i++ {
						n := notificationTo((round*3+w)*1_000_000+i, id)
						select {
						case <-gone: // whoever starts now finds no topic
							_, err := c.Write(t.Context(), notify.Write{New: []notify.Notification{n}})
							wantKind(t, err, muster.NotFound)
							return
						default:
						}
						_, err := c.Write(t.Context(), notify.Write{New: []notify.Notification{n}, Receipts: receiptsOf(n, "usr_1")})
						if err != nil && muster.KindOf(err) != muster.NotFound {
							t.Error(err)
						}
					}
				})
			}
			wantNil(t, c.DeleteTopic(t.Context(), id))
			list, err := c.Notifications(t.Context(), notify.Query{Topics: []string{id}, Limit: 1000})
			wantNil(t, err)
			close(gone)
			wg.Wait()
			after, err := c.Notifications(t.Context(), notify.Query{Topics: []string{id}, Limit: 1000})
			wantNil(t, err)
			same(t, len(list), len(after))
		}
	})
}

// What takes longest: it must be well below a second.
func TestTenThousandRecipientsAreOneTransaction(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		const size = 10_000
		told := listen(c)
		n := notificationTo(1, notify.SystemTopic)
		w := notify.Write{New: []notify.Notification{n}, Out: outbox.Batch{Contents: []outbox.Content{{ID: n.ID, Body: []byte("{}")}}}}
		for i := range size {
			w.Receipts = append(w.Receipts, receiptsOf(n, notify.Subject(fmt.Sprintf("usr_%05d", i)))...)
			d := deliveryTo(i, "email", outbox.Normal, 1)
			d.Notification, d.Content, d.Target = n.ID, n.ID, fmt.Sprintf("usr_%05d", i)
			w.Out.Deliveries = append(w.Out.Deliveries, d)
		}
		same(t, notify.Written{Added: size}, write(t, c, w))
		write(t, c, notify.Write{Touch: []string{n.ID}})
		if len(*told) != 2 || len((*told)[0].Items) != size || (*told)[1].Last != 2*size || len((*told)[1].Items) != size {
			t.Errorf("told are %d runs", len(*told))
		}
		deliveries, err := c.Told(t.Context(), n.ID, 2*size)
		wantNil(t, err)
		same(t, size, len(deliveries))
		forgotten, err := c.TrimNotifications(t.Context(), notify.SystemTopic, 0, 5)
		wantNil(t, err)
		same(t, 1, forgotten)
		changes, err := c.ChangesAfter(t.Context(), 0, 10)
		wantNil(t, err)
		same(t, notify.Changes{First: 1, Last: 2 * size, Items: []notify.Item{}}, changes)
	})
}
