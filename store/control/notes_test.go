package control_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/audit"
	"muster/devices"
	"muster/feed"
)

func noted(ctx context.Context) context.Context {
	return feed.With(audit.With(ctx, audit.Actor{Kind: audit.System}, time.Now))
}

func TestWhatIsNotedIsWrittenWithTheChangeOrNotAtAll(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		var told []feed.Event
		c.OnEvents(func(es []feed.Event) { told = append(told, es...) })
		ctx := noted(t.Context())
		audit.Note(ctx, "device.create", "devices/d1", nil, map[string]string{"id": "d1"})
		feed.Note(ctx, feed.NewEvent(feed.DeviceCreated, "d1", 7, map[string]string{"device": "d1"}))
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("d1")}, nil))
		if audit.Of(ctx).Pending() || len(told) != 1 || told[0].Seq != 1 {
			t.Errorf("told %v, pending %v", told, audit.Of(ctx).Pending())
		}
		audit.Note(ctx, "device.create", "devices/d1", nil, nil)
		feed.Note(ctx, feed.NewEvent(feed.DeviceCreated, "d1", 8, nil))
		wantKind(t, c.InsertDevices(ctx, []devices.Device{device("d1")}, nil), muster.Conflict)
		wantNil(t, c.WriteNotes(ctx))
		_, first, last, err := c.FeedState(t.Context())
		wantNil(t, err)
		if first != 1 || last != 1 || len(told) != 1 {
			t.Errorf("after a change that failed the feed is %d to %d, %d told", first, last, len(told))
		}
		got, err := c.FeedAfter(t.Context(), 0, 10)
		wantNil(t, err)
		same(t, told, got)
	})
}

func TestNumbersAreInTheOrderOfCommitsWithoutAGap(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		var mu sync.Mutex
		seen := map[int64]bool{}
		c.OnEvents(func(es []feed.Event) {
			mu.Lock()
			defer mu.Unlock()
			for _, ev := range es {
				if seen[ev.Seq] {
					t.Errorf("event %d was told twice", ev.Seq)
				}
				seen[ev.Seq] = true
			}
		})
		const writers, each = 8, 25
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					ctx := noted(context.Background())
					for range 1 + (w+i)%3 {
						feed.Note(ctx, feed.NewEvent(feed.DeviceUpdated, "d", 1, map[string]int{"writer": w}))
						audit.Note(ctx, "x", "y", nil, nil)
					}
					ctx, cancel := context.WithCancel(ctx)
					if i%5 == 0 {
						cancel() // this one fails
					}
					err := c.WriteNotes(ctx)
					cancel()
					if (err != nil) != (i%5 == 0) {
						t.Errorf("writer %d, change %d: %v", w, i, err)
					}
				}
			})
		}
		wg.Wait()
		_, _, last, err := c.FeedState(t.Context())
		wantNil(t, err)
		got, err := c.FeedAfter(t.Context(), 0, 5000)
		wantNil(t, err)
		for i, ev := range got {
			if ev.Seq != int64(i)+1 || !seen[ev.Seq] {
				t.Fatalf("event %d stands at place %d, told %v", ev.Seq, i+1, seen[ev.Seq])
			}
		}
		if int64(len(got)) != last || len(seen) != len(got) {
			t.Errorf("%d events, %d told, the last number is %d", len(got), len(seen), last)
		}
		n, err := c.TrimFeed(t.Context(), last-3, 5000)
		wantNil(t, err)
		if _, first, _, _ := c.FeedState(t.Context()); int64(n) != last-3 || first != last-2 {
			t.Errorf("%d forgotten, the first is %d of %d", n, first, last)
		}
	})
}
