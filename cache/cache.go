package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"

	"muster"
)

// Config says how large a cache may be and for how long it may be believed. Entries or
// Weight is needed, never both.
type Config[K comparable, V any] struct {
	Name    string // in figures, [a-z_]+
	Entries int    // the most entries; those least likely to be asked for again go
	Weight  uint64 // or the most weight of all entries
	Weigh   func(K, V) uint32
	// TTL is for how long an entry counts after it was loaded: the net for a change that
	// nobody told of. Zero for ever.
	TTL time.Duration
	// Negative says which errors of a load are answers too ("there is none"); they are kept
	// for NegativeTTL. No error is when it is nil. A negative entry weighs 1.
	Negative    func(error) bool
	NegativeTTL time.Duration
	Now         func() time.Time
}

// Cache keeps values by key. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	cfg     Config[K, V]
	entries *otter.Cache[K, entry[V]]
	figures counters

	mu    sync.Mutex // held while an entry is put in or taken out, never during a load
	loads map[K]*load[V]
}

type entry[V any] struct {
	value V
	err   error // of a negative entry
	ends  time.Time
}

// load is a question under way. Its answer is written before done is closed.
type load[V any] struct {
	done chan struct{}
	entry[V]
	stale bool // it was invalidated meanwhile; guarded by Cache.mu
}

// errBroken is for who waited for a load that panicked.
var errBroken = errors.New("the load that was waited for panicked")

// New returns an empty cache, and Invalid for a Config without exactly one bound.
func New[K comparable, V any](cfg Config[K, V]) (*Cache[K, V], error) {
	if (cfg.Entries > 0) == (cfg.Weight > 0) || (cfg.Weight > 0) != (cfg.Weigh != nil) || cfg.Now == nil {
		return nil, muster.Errorf(muster.Invalid, "the cache %s needs a clock and either Entries or Weight with Weigh", cfg.Name)
	}
	c := &Cache[K, V]{cfg: cfg, loads: map[K]*load[V]{}}
	o := &otter.Options[K, entry[V]]{
		MaximumSize: cfg.Entries, MaximumWeight: cfg.Weight, StatsRecorder: &c.figures,
		Executor: func(fn func()) { fn() }, // no goroutine that nobody waits for
	}
	if cfg.Weigh != nil {
		o.Weigher = func(k K, e entry[V]) uint32 {
			if e.err != nil {
				return 1
			}
			return cfg.Weigh(k, e.value)
		}
	}
	var err error
	if c.entries, err = otter.New(o); err != nil {
		return nil, fmt.Errorf("make the cache %s: %w", cfg.Name, err)
	}
	return c, nil
}

// Get returns key's value, by fn when the cache has none. All who ask for a key while fn
// runs for it wait for that run, until their ctx ends. What was invalidated while fn ran is
// answered to those who asked before, and not kept.
func (c *Cache[K, V]) Get(ctx context.Context, key K, fn func(context.Context, K) (V, error)) (V, error) {
	if e, ok := c.fresh(key); ok {
		c.figures.hits.Add(1)
		return e.value, e.err
	}
	c.figures.misses.Add(1)
	c.mu.Lock()
	l, under := c.loads[key]
	if !under {
		l = &load[V]{done: make(chan struct{})}
		c.loads[key] = l
	}
	c.mu.Unlock()
	if !under {
		return c.run(ctx, key, l, fn)
	}
	select {
	case <-l.done:
		return l.value, l.err
	case <-ctx.Done():
		var none V
		return none, fmt.Errorf("wait for the cache %s: %w", c.cfg.Name, context.Cause(ctx))
	}
}

func (c *Cache[K, V]) fresh(key K) (entry[V], bool) {
	e, ok := c.entries.GetIfPresent(key)
	return e, ok && (e.ends.IsZero() || c.cfg.Now().Before(e.ends))
}

// run loads key for all who wait for l.
func (c *Cache[K, V]) run(ctx context.Context, key K, l *load[V], fn func(context.Context, K) (V, error)) (V, error) {
	began := c.cfg.Now() // an answer is as old as its question
	l.err = errBroken
	defer func() { // also on a panic of fn, which goes on
		c.mu.Lock()
		if c.loads[key] == l {
			delete(c.loads, key)
		}
		if keep, ttl := c.keeps(l.err); keep && !l.stale {
			if ttl > 0 {
				l.ends = began.Add(ttl)
			}
			c.entries.Set(key, l.entry)
		}
		c.mu.Unlock()
		close(l.done)
	}()
	l.value, l.err = fn(ctx, key)
	return l.value, l.err
}

func (c *Cache[K, V]) keeps(err error) (keep bool, ttl time.Duration) {
	if err == nil {
		return true, c.cfg.TTL
	}
	return c.cfg.Negative != nil && c.cfg.NegativeTTL > 0 && !errors.Is(err, errBroken) && c.cfg.Negative(err), c.cfg.NegativeTTL
}

// Invalidate forgets key: who asks from now on gets what is so now.
func (c *Cache[K, V]) Invalidate(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(key)
}

// InvalidateFunc forgets the entries that which says, negative ones with the zero value.
// It looks at every entry, and forgets every load under way, whose values are not known
// yet. which must be quick and must not use the cache.
func (c *Cache[K, V]) InvalidateFunc(which func(K, V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.entries.All() {
		if which(key, e.value) {
			c.entries.Invalidate(key)
		}
	}
	for key := range c.loads {
		c.forget(key)
	}
}

// InvalidateAll forgets everything.
func (c *Cache[K, V]) InvalidateAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.loads {
		c.forget(key)
	}
	c.entries.InvalidateAll()
}

// forget is called with the lock held. A load under way becomes nobody's: the next who
// asks begins another.
func (c *Cache[K, V]) forget(key K) {
	if l, under := c.loads[key]; under {
		l.stale = true
		delete(c.loads, key)
	}
	c.entries.Invalidate(key)
}

// Figures returns what the cache did since it was made, and what it holds.
func (c *Cache[K, V]) Figures() Figures {
	return Figures{
		Name: c.cfg.Name, Hits: c.figures.hits.Load(), Misses: c.figures.misses.Load(),
		Evictions: c.figures.evictions.Load(), Entries: c.entries.EstimatedSize(),
	}
}

// counters are ours but for evictions, which otter alone knows: it would count an entry
// that is too old as a hit.
type counters struct {
	stats.NoopRecorder
	hits, misses, evictions atomic.Uint64
}

// RecordEviction implements stats.Recorder.
func (c *counters) RecordEviction(uint32) { c.evictions.Add(1) }
