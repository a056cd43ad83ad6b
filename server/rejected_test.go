package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/feed"
)

// notebook takes events unless it is down.
type notebook struct {
	mu     sync.Mutex
	down   bool
	events []feed.Event
}

func (n *notebook) WriteNotes(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	es := feed.Of(ctx).Take()
	if n.down {
		return errors.New("down")
	}
	n.events = append(n.events, es...)
	return nil
}

func (n *notebook) got() (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		out = append(out, fmt.Sprintf("%s %s %s", e.Type, e.Device, e.Data))
	}
	return out
}

func (n *notebook) setDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

func TestTheFirstRejectedMessageOfADeviceAndMinuteIsToldAlsoWhenTheStoreWasAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &notebook{}
		j := newRejections(n, time.Now, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- j.Run(ctx) }()
		add := func(id muster.DeviceID, code string) {
			j.add(&muster.Rejected{Device: id, Arrival: muster.MicrosOf(time.Now()), Code: code, Reason: "why"})
		}
		n.setDown(true)
		add("a", "malformed")
		add("a", "topic")
		add("b", "time")
		add("", "topic") // of nobody
		<-time.After(5 * time.Second)
		n.setDown(false)
		<-time.After(time.Minute)
		add("a", "topic")
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		want := []string{
			`telemetry.rejected a {"device":"a","code":"malformed","detail":"why"}`,
			`telemetry.rejected b {"device":"b","code":"time","detail":"why"}`,
			`telemetry.rejected a {"device":"a","code":"topic","detail":"why"}`,
		}
		if d := cmp.Diff(want, n.got()); d != "" {
			t.Error(d)
		}
	})
}

func TestRejectionsWaitInABoundedQueueAndNobodyWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &notebook{}
		j := newRejections(n, time.Now, slog.New(slog.DiscardHandler))
		for i := range maxRejecters + 10 {
			j.add(&muster.Rejected{Device: muster.DeviceID(fmt.Sprint("d", i))})
		}
		if got := j.dropped.Load(); got != maxRejecters-maxRejected+10 || len(j.queue) != maxRejected {
			t.Errorf("%d were dropped, %d wait", got, len(j.queue))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := j.Run(ctx); err != nil {
			t.Error(err)
		}
		if len(n.events) != maxRejected {
			t.Errorf("at the end %d were written", len(n.events))
		}
	})
}

func TestRejectedMessagesThatWaitWhenTheServerStopsAreToldOnceAndTheLoopEnds(t *testing.T) {
	for range 50 { // whether the wake or the end is seen first is chance
		n := &notebook{}
		j := newRejections(n, time.Now, slog.New(slog.DiscardHandler))
		for i := range 3 {
			j.add(&muster.Rejected{Device: muster.DeviceID(fmt.Sprint("d", i)), Arrival: 1, Code: "time", Reason: "why"})
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := j.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := n.got(); len(got) != 3 {
			t.Fatalf("told %v", got)
		}
	}
}
