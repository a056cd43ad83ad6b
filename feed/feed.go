package feed

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster"
)

const (
	// Kept is how many events the store keeps at least; older ones are forgotten.
	Kept = 200_000

	remembered = 8192             // events in memory
	maxEarly   = 4096             // events that wait for one before them
	patience   = time.Second      // how long they wait before the store is asked
	trimEvery  = time.Minute      // how often old events are forgotten
	trimStep   = 5000             // how many at once
	storeTime  = 10 * time.Second // for one question to the store
)

// Store keeps the events that were committed.
type Store interface {
	// FeedState returns the feed's epoch, an id that no other feed has, and the numbers
	// of the first and the last event that are kept; last is first-1 when there is none.
	FeedState(ctx context.Context) (epoch string, first, last int64, err error)
	// FeedAfter returns up to limit events after seq in their order.
	FeedAfter(ctx context.Context, seq int64, limit int) ([]Event, error)
	// TrimFeed forgets up to limit events up to seq and returns how many it forgot.
	TrimFeed(ctx context.Context, seq int64, limit int) (int, error)
}

// Feed hands out events in their order. It is safe for concurrent use.
type Feed struct {
	store Store
	log   *slog.Logger
	epoch string

	mu      sync.Mutex
	first   int64           // the oldest event that is kept in the store
	last    int64           // the newest that was handed out
	known   int64           // the newest that was told, perhaps with a gap before it
	ring    []Event         // the newest remembered, by Seq modulo its length
	early   map[int64]Event // committed before one with a lower number was told
	behind  time.Time       // since when something is missing
	changed chan struct{}   // closed when last moves
}

// New returns a feed that has handed out nothing yet: Load comes first.
func New(store Store, log *slog.Logger) *Feed {
	return &Feed{
		store: store, log: log, ring: make([]Event, remembered),
		early: map[int64]Event{}, changed: make(chan struct{}),
	}
}

// Load reads where the feed stands. Call it once, before anything is committed.
func (f *Feed) Load(ctx context.Context) error {
	epoch, first, last, err := f.store.FeedState(ctx)
	if err != nil {
		return fmt.Errorf("load the feed: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch, f.first, f.last = epoch, first, last
	return nil
}

// Epoch returns the feed's id: a number means something within it only.
func (f *Feed) Epoch() string { return f.epoch }

// Last returns the number of the newest event, 0 when there was none.
func (f *Feed) Last() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// Publish hands out events that were committed. Several transactions may tell theirs in
// another order than they were committed: a gap is waited for.
func (f *Feed) Publish(events []Event) {
	if len(events) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.last
	for _, e := range events {
		f.known = max(f.known, e.Seq)
		switch {
		case e.Seq == f.last+1: // also when what is early has no room: else nothing could ever close the gap
			f.take(e)
		case e.Seq > f.last && len(f.early) < maxEarly: // beyond that the store has it
			f.early[e.Seq] = e
		}
	}
	f.told(before)
}

// take hands out the next event, and those that waited for it. It is called with the lock held.
func (f *Feed) take(e Event) {
	for ok := true; ok; e, ok = f.early[f.last+1] {
		delete(f.early, e.Seq)
		f.ring[e.Seq%remembered] = e
		f.last = e.Seq
	}
}

// told wakes readers when there is more than before. It is called with the lock held.
func (f *Feed) told(before int64) {
	switch {
	case f.last >= f.known:
		f.behind = time.Time{}
	case f.behind.IsZero() || f.last > before:
		f.behind = time.Now()
	}
	if f.last > before {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// Run asks the store for events that nobody told, and has it forget old ones, until
// ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	fill, trim := time.NewTicker(patience/2), time.NewTicker(trimEvery)
	defer fill.Stop()
	defer trim.Stop()
	for {
		select {
		case <-fill.C:
			if err := f.fill(ctx); err != nil && ctx.Err() == nil {
				f.log.Warn("events wait for the store", "err", err)
			}
		case <-trim.C:
			if err := f.trim(ctx); err != nil && ctx.Err() == nil {
				f.log.Warn("old events are not forgotten yet", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// fill closes a gap that has been waited for long enough.
func (f *Feed) fill(ctx context.Context) error {
	f.mu.Lock()
	wait := f.behind.IsZero() || time.Since(f.behind) < patience
	last := f.last
	f.mu.Unlock()
	if wait {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	events, err := f.store.FeedAfter(ctx, last, maxEarly)
	if err != nil {
		return err
	}
	f.Publish(events)
	return nil
}

func (f *Feed) trim(ctx context.Context) error {
	for {
		f.mu.Lock()
		upTo := f.last - Kept
		f.mu.Unlock()
		if upTo < 1 {
			return nil
		}
		// Who reads from before is told that it is gone, also while it is still there.
		f.mu.Lock()
		f.first = max(f.first, upTo+1)
		f.mu.Unlock()
		c, cancel := context.WithTimeout(ctx, storeTime)
		n, err := f.store.TrimFeed(c, upTo, trimStep)
		cancel()
		if err != nil || n < trimStep {
			return err
		}
	}
}

// Reader follows a feed. It is for one goroutine.
type Reader struct {
	feed *Feed
	at   int64
}

// Follow returns a reader of the events after seq; a negative one means from now on.
// NotFound when some of them are forgotten already, or when there never was an event
// of that number: what was missed cannot be told.
func (f *Feed) Follow(seq int64) (*Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq < 0 {
		seq = f.last
	}
	if seq > f.last {
		return nil, muster.Errorf(muster.NotFound, "there is no event with the number %d yet: it was read before the database was put back, or made up", seq)
	}
	if seq < f.first-1 {
		return nil, muster.Errorf(muster.NotFound, "the events after number %d are not kept any more", seq)
	}
	return &Reader{feed: f, at: seq}, nil
}

// At returns the number of the last event that was read.
func (r *Reader) At() int64 { return r.at }

// Next waits for events and returns up to limit of them in their order. It fails with
// ctx's error when ctx ends, with NotFound when the reader fell behind what is kept, and
// when the store does.
func (r *Reader) Next(ctx context.Context, limit int) ([]Event, error) {
	for {
		events, stored, wait := r.remembered(limit)
		switch {
		case len(events) > 0:
			r.at = events[len(events)-1].Seq
			return events, nil
		case stored:
			return r.stored(ctx, limit)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// remembered returns what is in memory, or that the store must be asked, or what to
// wait for.
func (r *Reader) remembered(limit int) (events []Event, stored bool, wait <-chan struct{}) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.at >= f.last {
		return nil, false, f.changed
	}
	next := r.at + 1
	if f.last-next >= remembered || f.ring[next%remembered].Seq != next {
		return nil, true, nil
	}
	for seq := next; seq <= f.last && len(events) < limit; seq++ {
		events = append(events, f.ring[seq%remembered])
	}
	return events, false, nil
}

func (r *Reader) stored(ctx context.Context, limit int) ([]Event, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	events, err := r.feed.store.FeedAfter(ctx, r.at, limit)
	if err != nil {
		return nil, fmt.Errorf("read the feed: %w", err)
	}
	if len(events) == 0 || events[0].Seq != r.at+1 {
		return nil, muster.Errorf(muster.NotFound, "the events after number %d are not kept any more", r.at)
	}
	r.at = events[len(events)-1].Seq
	return events, nil
}
