package live_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/dashboard/live"
)

// followers are streams of inboxes, each of a user of its own, that count what is written to them.
type followers struct {
	t     *testing.T
	users []string
	begun atomic.Int64 // have their first frame
	got   atomic.Int64 // have news after it
	now   atomic.Int64 // are being written news to
	most  atomic.Int64 // were at once
	free  func()       // lets those go on that stall
}

// follows opens n streams, the first of which stall at their first news until free is called, or the test has ended.
func follows(t *testing.T, g *live.Gateway, n, stall int) *followers {
	t.Helper()
	stalled := make(chan struct{})
	f := &followers{t: t, free: sync.OnceFunc(func() { close(stalled) })}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	var streams []*live.Stream
	t.Cleanup(func() {
		f.free()
		cancel()
		work.Wait()
		for _, st := range streams {
			st.Close()
		}
	})
	for i := range n {
		u := fmt.Sprint("u", i)
		f.users = append(f.users, u)
		first := true
		st, err := g.Attach(live.Principal{ID: u, Who: whoOf(u)}, live.Ask{Channel: "inbox"}, func([]byte, int) error {
			if first {
				first = false
				f.begun.Add(1)
				return nil
			}
			if i < stall {
				<-stalled
			}
			f.written()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
		work.Go(func() { st.Run(ctx) })
	}
	f.await(&f.begun, int64(n))
	return f
}

// written counts a write, in the course of which others may come in.
func (f *followers) written() {
	n := f.now.Add(1)
	for was := f.most.Load(); n > was; was = f.most.Load() {
		if f.most.CompareAndSwap(was, n) {
			break
		}
	}
	for range 3 {
		runtime.Gosched()
	}
	f.now.Add(-1)
	f.got.Add(1)
}

// await waits for a count for as long as it grows.
func (f *followers) await(count *atomic.Int64, want int64) {
	f.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	seen, since := int64(-1), time.Now()
	for n := count.Load(); n < want; n = count.Load() {
		if n != seen {
			seen, since = n, time.Now()
		}
		if time.Since(since) > waitLong {
			f.t.Fatalf("%d of %d", n, want)
		}
		<-tick.C
	}
}

func TestHoweverManyAreWokenFewAreWrittenToAtATimeAndAStalledOneHoldsUpNobody(t *testing.T) {
	const all, stall = 1000, 3
	s, box := mailroom(t, live.Config{StallWait: time.Hour}) // on a busy machine none may end for long, though none hangs
	f := follows(t, s.g, all, stall)
	box.burst(1, 10, f.users...)
	f.await(&f.got, all-stall)
	f.free()
	f.await(&f.got, all)
	if n := f.most.Load(); n > 128 {
		t.Errorf("%d were written to at once", n)
	}
}

func TestWhenAllWhoAreWrittenToHangTheOthersAreWrittenToAllTheSame(t *testing.T) {
	const all, stall = 300, 200 // more than are written to at a time
	s, box := mailroom(t, live.Config{StallWait: time.Millisecond})
	f := follows(t, s.g, all, stall)
	box.burst(1, 10, f.users...)
	f.await(&f.got, all-stall)
	f.free()
	f.await(&f.got, all)
}
