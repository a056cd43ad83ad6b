package feed_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"muster"
	"muster/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store keeps events in memory, in the order of commits.
type store struct {
	mu     sync.Mutex
	events []feed.Event
	first  int64
}

func (s *store) commit(n int) []feed.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []feed.Event
	for range n {
		e := feed.NewEvent(feed.DeviceCreated, "d1", muster.Micros(len(s.events)), map[string]int{"n": len(s.events)})
		e.Seq = int64(len(s.events)) + 1
		s.events = append(s.events, e)
		out = append(out, e)
	}
	return out
}

func (s *store) FeedState(context.Context) (string, int64, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "epoch", max(s.first, 1), int64(len(s.events)), nil
}

func (s *store) FeedAfter(_ context.Context, seq int64, limit int) ([]feed.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := max(seq, s.first-1)
	return slices.Clone(s.events[from:min(int64(len(s.events)), from+int64(limit))]), nil
}

func (s *store) TrimFeed(_ context.Context, seq int64, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(seq-max(s.first, 1)+1, int64(limit))
	s.first = max(s.first, 1) + n
	return int(n), nil
}

func newFeed(t interface{ Fatal(args ...any) }, s *store) *feed.Feed {
	f := feed.New(s, slog.New(slog.DiscardHandler))
	if err := f.Load(context.Background()); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAReaderGetsEachEventOnceInOrderWhateverTheOrderOfTelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &store{}
		s.commit(rapid.IntRange(0, 20).Draw(t, "before"))
		f := newFeed(t, s)
		from := rapid.Int64Range(0, f.Last()).Draw(t, "from")
		r, err := f.Follow(from)
		if err != nil {
			t.Fatal(err)
		}
		var commits [][]feed.Event
		for range rapid.IntRange(0, 30).Draw(t, "commits") {
			commits = append(commits, s.commit(rapid.IntRange(1, 5).Draw(t, "n")))
		}
		for _, c := range rapid.Permutation(commits).Draw(t, "order") {
			f.Publish(c)
			if rapid.Bool().Draw(t, "again") {
				f.Publish(c)
			}
		}
		for want := from + 1; want <= int64(len(s.events)); {
			got, err := r.Next(context.Background(), rapid.IntRange(1, 7).Draw(t, "limit"))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range got {
				if e.Seq != want {
					t.Fatalf("event %d came where %d was next", e.Seq, want)
				}
				want++
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if got, err := r.Next(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Fatalf("after the last event: %v, %v", got, err)
		}
	})
}

// TestACommitOfMoreThanMayWaitIsHandedOut is an import of thousands of devices: its events are told at once, and out of order.
func TestACommitOfMoreThanMayWaitIsHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		f := newFeed(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = f.Run(ctx) }) // it returns nil
		defer wg.Wait()
		defer cancel()
		f.Publish(s.commit(10_000))
		if f.Last() != 10_000 {
			t.Fatalf("%d of 10000 events of one commit are handed out", f.Last())
		}
		late := s.commit(1)
		f.Publish(s.commit(10_000))
		if f.Last() != 10_000 {
			t.Fatalf("the feed is at %d over a gap", f.Last())
		}
		<-time.After(10 * time.Second) // in the bubble's time
		if f.Last() != 20_001 {
			t.Errorf("the feed stands at %d of 20001 events with %d never told", f.Last(), len(late))
		}
	})
}

func TestAReaderThatIsFarBehindReadsTheStore(t *testing.T) {
	s := &store{}
	f := newFeed(t, s)
	r, err := f.Follow(0)
	if err != nil {
		t.Fatal(err)
	}
	const all = 20_000
	for range all / 100 {
		f.Publish(s.commit(100))
	}
	for want := int64(1); want <= all; {
		got, err := r.Next(t.Context(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range got {
			if e.Seq != want {
				t.Fatalf("event %d came where %d was next", e.Seq, want)
			}
			want++
		}
	}
}

func TestAnEventThatNobodyToldIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		f := newFeed(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		r, err := f.Follow(-1)
		if err != nil {
			t.Fatal(err)
		}
		s.commit(1) // by a transaction whose teller died
		f.Publish(s.commit(1))
		began := time.Now()
		for got := 0; got < 2; {
			events, err := r.Next(t.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			got += len(events)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsForgottenIsSaidToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		f := newFeed(t, s)
		old, err := f.Follow(0)
		if err != nil {
			t.Fatal(err)
		}
		for range 250 {
			f.Publish(s.commit(1000))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		<-time.After(2 * time.Minute) // by the bubble's clock
		cancel()
		<-done
		if s.first != 50_001 {
			t.Errorf("the store keeps from %d", s.first)
		}
		if _, err := old.Next(t.Context(), 10); muster.KindOf(err) != muster.NotFound {
			t.Errorf("a reader from before got %v", err)
		}
		for _, seq := range []int64{0, 49_999, 250_001} {
			if _, err := f.Follow(seq); muster.KindOf(err) != muster.NotFound {
				t.Errorf("following %d gave %v", seq, err)
			}
		}
		if _, err := f.Follow(50_000); err != nil {
			t.Error(err)
		}
		for place, want := range map[string]string{"-250001": "yet", "-49999": "not kept any more"} {
			w, err := f.Open(feed.Ask{Place: f.Epoch() + place})
			if err != nil {
				t.Fatal(err)
			}
			if why := w.Reset(); !strings.Contains(why, want) {
				t.Errorf("the place %s is told %q", place, why)
			}
		}
	})
}

func TestTheCatalogueIsWhatCanBeAskedFor(t *testing.T) {
	for _, k := range feed.Catalogue() {
		if !feed.KnownFilter(k.Type) || k.Summary == "" {
			t.Errorf("%s is not known, or has no summary", k.Type)
		}
		e := feed.NewEvent(k.Type, "d1", 1, map[string]string{})
		e.Data = []byte(k.Sample)
		if len(e.Envelope()) == 0 {
			t.Errorf("%s has no envelope", k.Type)
		}
	}
	for pattern, want := range map[string]bool{
		"*": true, "device.*": true, "rollout.*": true, "device.created": true, "device.nothing": false, "dev*": false, ".*": false, "": false, "tele*": false,
	} {
		if feed.KnownFilter(pattern) != want {
			t.Errorf("%q is known: %v", pattern, !want)
		}
	}
}
