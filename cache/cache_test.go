package cache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"muster"
	"muster/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func made[K comparable, V any](t testing.TB, cfg cache.Config[K, V]) *cache.Cache[K, V] {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Entries == 0 && cfg.Weight == 0 {
		cfg.Entries = 100
	}
	c, err := cache.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestACacheNeedsExactlyOneBoundAndAClock(t *testing.T) {
	weigh := func(string, int) uint32 { return 1 }
	for i, cfg := range []cache.Config[string, int]{
		{Now: time.Now},
		{Entries: 1},
		{Entries: 1, Weight: 1, Weigh: weigh, Now: time.Now},
		{Weight: 1, Now: time.Now},
		{Entries: 1, Weigh: weigh, Now: time.Now},
	} {
		if _, err := cache.New(cfg); muster.KindOf(err) != muster.Invalid || err == nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestAnEntryCountsForItsTimeOnly(t *testing.T) {
	var at clock
	gone := muster.Errorf(muster.NotFound, "none")
	c := made(t, cache.Config[string, int]{
		Name: "test", TTL: time.Second, Now: at.now,
		Negative: func(err error) bool { return muster.KindOf(err) == muster.NotFound }, NegativeTTL: 100 * time.Millisecond,
	})
	loads := 0
	get := func(key string, err error) error {
		_, got := c.Get(t.Context(), key, func(context.Context, string) (int, error) { loads++; return loads, err })
		return got
	}
	for _, step := range []struct {
		name  string
		pass  time.Duration
		key   string
		err   error
		loads int
	}{
		{"the first is loaded", 0, "a", nil, 1},
		{"then remembered", 999 * time.Millisecond, "a", nil, 1},
		{"and loaded anew when its time is over", time.Millisecond, "a", nil, 2},
		{"what is not there is remembered", 0, "b", gone, 3},
		{"as such", 99 * time.Millisecond, "b", gone, 3},
		{"for its own time", time.Millisecond, "b", gone, 4},
		{"other errors are not", 0, "c", errors.New("down"), 5},
		{"at all", 0, "c", errors.New("down"), 6},
	} {
		at.advance(step.pass)
		if err := get(step.key, step.err); !errors.Is(err, step.err) || loads != step.loads {
			t.Errorf("%s: %d loads, %v", step.name, loads, err)
		}
	}
	if d := cmp.Diff(cache.Figures{Name: "test", Hits: 2, Misses: 6, Entries: 2}, c.Figures()); d != "" {
		t.Error(d)
	}
}

func TestACacheKeepsWithinItsBound(t *testing.T) {
	byCount := made(t, cache.Config[int, int]{Entries: 50})
	byWeight := made(t, cache.Config[int, string]{Weight: 1000, Weigh: func(_ int, v string) uint32 { return uint32(len(v)) }})
	for i := range 10_000 {
		_, _ = byCount.Get(t.Context(), i, func(context.Context, int) (int, error) { return i, nil })
		_, _ = byWeight.Get(t.Context(), i, func(context.Context, int) (string, error) { return strings.Repeat("x", 100), nil })
	}
	if f := byCount.Figures(); f.Entries > 50 || f.Evictions < 9_900 {
		t.Errorf("%+v", f)
	}
	if f := byWeight.Figures(); f.Entries > 10 || f.Evictions < 9_900 {
		t.Errorf("%+v", f)
	}
}

func TestAllWhoAskAtOnceShareOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := made(t, cache.Config[string, int]{})
		var loads atomic.Int64
		open := make(chan struct{})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				v, err := c.Get(t.Context(), "k", func(context.Context, string) (int, error) { loads.Add(1); <-open; return 7, nil })
				if v != 7 || err != nil {
					t.Errorf("%d, %v", v, err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("enough"))
		if _, err := c.Get(ctx, "k", nil); err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("who does not wait got %v", err)
		}
		close(open)
		all.Wait()
		if loads.Load() != 1 {
			t.Errorf("%d loads", loads.Load())
		}
	})
}

func TestWhatWasInvalidatedWhileItWasLoadedIsNotKept(t *testing.T) {
	for name, invalidate := range map[string]func(*cache.Cache[string, int]){
		"by key":        func(c *cache.Cache[string, int]) { c.Invalidate("k") },
		"all":           func(c *cache.Cache[string, int]) { c.InvalidateAll() },
		"by a function": func(c *cache.Cache[string, int]) { c.InvalidateFunc(func(string, int) bool { return false }) },
	} {
		t.Run(name, func(t *testing.T) {
			c := made(t, cache.Config[string, int]{})
			old, err := c.Get(t.Context(), "k", func(context.Context, string) (int, error) {
				invalidate(c)
				// Who asks now must not be given the load that began before.
				if v, err := c.Get(t.Context(), "k", func(context.Context, string) (int, error) { return 2, nil }); v != 2 || err != nil {
					t.Errorf("after the change: %d, %v", v, err)
				}
				return 1, nil
			})
			now, _ := c.Get(t.Context(), "k", func(context.Context, string) (int, error) { return 3, nil })
			if old != 1 || err != nil || now != 2 {
				t.Errorf("got %d, %v, then %d", old, err, now)
			}
		})
	}
}

func TestAPanicOfALoadEndsItAndLeavesNoOneWaiting(t *testing.T) {
	c := made(t, cache.Config[string, int]{})
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic was swallowed")
			}
		}()
		_, _ = c.Get(t.Context(), "k", func(context.Context, string) (int, error) { panic("boom") })
	}()
	if v, err := c.Get(t.Context(), "k", func(context.Context, string) (int, error) { return 5, nil }); v != 5 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
}

func TestNoReaderSeesWhatWasInvalidatedBeforeItAsked(t *testing.T) {
	c := made(t, cache.Config[int, int64]{Entries: 8})
	var truth [4]atomic.Int64
	var all sync.WaitGroup
	for w := range 2 {
		all.Go(func() {
			for i := range 2_000 {
				key := (i + w) % len(truth)
				truth[key].Add(1)
				switch i % 3 {
				case 0:
					c.Invalidate(key)
				case 1:
					c.InvalidateFunc(func(k int, _ int64) bool { return k == key })
				default:
					c.InvalidateAll()
				}
			}
		})
	}
	// A writer's change counts once it has invalidated: a reader that begins after both
	// must see it. One that is between the two may see either.
	for range 4 {
		all.Go(func() {
			for i := range 4_000 {
				key := i % len(truth)
				v, err := c.Get(context.Background(), key, func(context.Context, int) (int64, error) { return truth[key].Load(), nil })
				if after := truth[key].Load(); err != nil || v > after {
					t.Errorf("%d > %d, %v", v, after, err)
				}
			}
		})
	}
	all.Wait()
	for key := range truth {
		if v, _ := c.Get(t.Context(), key, func(context.Context, int) (int64, error) { return truth[key].Load(), nil }); v != truth[key].Load() {
			t.Errorf("key %d is %d, not %d", key, v, truth[key].Load())
		}
	}
}

func TestACacheAnswersAsItsSourceDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := cache.New(cache.Config[int, int]{Entries: rapid.IntRange(1, 6).Draw(t, "entries"), Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		source := map[int]int{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			key := rapid.IntRange(0, 5).Draw(t, "key")
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				source[key]++
				c.Invalidate(key)
			case 1:
				source[key]++
				c.InvalidateFunc(func(k, v int) bool { return k == key && v < source[key] })
			default:
				if v, err := c.Get(context.Background(), key, func(context.Context, int) (int, error) { return source[key], nil }); v != source[key] || err != nil {
					t.Fatalf("%d is %d, not %d: %v", key, v, source[key], err)
				}
			}
		}
	})
}

func TestFiguresAreOnTheSystemPageAndInMetrics(t *testing.T) {
	c := made(t, cache.Config[int, int]{Name: "things"})
	for _, key := range []int{1, 1, 1, 2} {
		_, _ = c.Get(t.Context(), key, func(context.Context, int) (int, error) { return 0, nil })
	}
	b := cache.NewBook(c.Figures, func() cache.Figures { return cache.Figures{Name: "others"} })
	want := map[string]cache.Shown{"things": {Hits: 2, Misses: 2, Entries: 2, HitRatio: 0.5}, "others": {}}
	if d := cmp.Diff(want, b.Section()); d != "" {
		t.Error(d)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(b)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got = append(got, fmt.Sprintf("%s{%s}", f.GetName(), m.GetLabel()[0].GetValue()))
		}
	}
	if len(got) != 8 || got[0] != "muster_cache_entries{others}" || got[7] != "muster_cache_misses_total{things}" {
		t.Errorf("%v", got)
	}
}

func BenchmarkGet(b *testing.B) {
	c := made(b, cache.Config[string, int]{})
	load := func(context.Context, string) (int, error) { return 1, nil }
	for b.Loop() {
		_, _ = c.Get(b.Context(), "key", load)
	}
}
