package notify

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster"
)

const (
	boxRing   = 256 // changes of one watched inbox in memory
	maxEarly  = 1024
	patience  = time.Second // how long a change waits for the one before it
	fillTime  = 10 * time.Second
	fillLimit = 5000
)

// Inbox tells those who follow an inbox what was committed to it, in the order of
// commits. It keeps nothing of inboxes that nobody follows. It is safe for concurrent use.
type Inbox struct {
	store InboxStore
	log   *slog.Logger
	shows func(s Subject, topic string) bool // whether a subject is shown what is of a topic
	epoch string

	mu     sync.Mutex
	last   int64             // the newest change that was told
	early  map[int64]Changes // by First: committed before one that was not told yet
	behind time.Time         // since when one is early
	boxes  map[Subject]*box
}

// box is an inbox that somebody follows.
type box struct {
	followers map[*Follower]struct{}
	ring      []Item // the newest changes, in order; at most boxRing
	from      int64  // the changes up to it are not in ring
}

func newInbox(store InboxStore, log *slog.Logger, shows func(Subject, string) bool) *Inbox {
	return &Inbox{store: store, log: log, shows: shows, early: map[int64]Changes{}, boxes: map[Subject]*box{}}
}

func (in *Inbox) load(ctx context.Context) error {
	epoch, last, err := in.store.InboxState(ctx)
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.epoch, in.last = epoch, last
	return nil
}

// Publish tells of a run of changes that was committed. Runs may come in another order
// than they were committed in: a gap is waited for.
func (in *Inbox) Publish(c Changes) {
	if c.Last < c.First {
		return
	}
	in.mu.Lock()
	if c.First > in.last && len(in.early) < maxEarly { // beyond that the store has it
		in.early[c.First] = c
	}
	wakes := in.advance()
	in.mu.Unlock()
	for _, f := range wakes {
		f.wake()
	}
}

// advance is called with the lock held, and returns who has news.
func (in *Inbox) advance() (wakes []*Follower) {
	before := in.last
	for {
		c, ok := in.early[in.last+1]
		if !ok {
			break
		}
		delete(in.early, c.First)
		wakes = in.take(c, wakes)
	}
	switch {
	case len(in.early) == 0:
		in.behind = time.Time{}
	case in.behind.IsZero() || in.last > before:
		in.behind = time.Now()
	}
	return wakes
}

// take is called with the lock held.
func (in *Inbox) take(c Changes, wakes []*Follower) []*Follower {
	for i := range c.Items {
		b := in.boxes[c.Items[i].Receipt.Subject]
		if b == nil {
			continue
		}
		if len(b.ring) == boxRing {
			b.from = b.ring[0].Receipt.Seq
			b.ring = append(b.ring[:0:0], b.ring[1:]...)
		}
		b.ring = append(b.ring, c.Items[i])
		for f := range b.followers {
			wakes = append(wakes, f)
		}
	}
	in.last = c.Last
	return wakes
}

// Recount has those who follow the inboxes of subjects, of all when none is named, count them anew: what they
// are shown of them is another by now, though nothing was committed to them.
func (in *Inbox) Recount(subjects ...Subject) {
	in.mu.Lock()
	var wakes []*Follower
	if len(subjects) == 0 {
		for _, b := range in.boxes {
			wakes = slices.AppendSeq(wakes, maps.Keys(b.followers))
		}
	}
	for _, s := range subjects {
		if b := in.boxes[s]; b != nil {
			wakes = slices.AppendSeq(wakes, maps.Keys(b.followers))
		}
	}
	in.mu.Unlock()
	for _, f := range wakes {
		f.recount.Store(true)
		f.wake()
	}
}

// Run asks the store for changes that nobody told, until ctx ends.
func (in *Inbox) Run(ctx context.Context) error {
	tick := time.NewTicker(patience / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := in.fill(ctx); err != nil && ctx.Err() == nil {
				in.log.Warn("inboxes wait for the store", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// fill closes a gap that was waited for long enough.
func (in *Inbox) fill(ctx context.Context) error {
	in.mu.Lock()
	wait := in.behind.IsZero() || time.Since(in.behind) < patience
	last := in.last
	in.mu.Unlock()
	if wait {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	c, err := in.store.ChangesAfter(ctx, last, fillLimit)
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	in.mu.Lock()
	var wakes []*Follower
	if c.Last > in.last && in.last == last {
		for first := range in.early {
			if first <= c.Last {
				delete(in.early, first)
			}
		}
		wakes = in.take(c, nil)
		wakes = append(wakes, in.advance()...)
	}
	in.mu.Unlock()
	for _, f := range wakes {
		f.wake()
	}
	return nil
}

// Follower is a place in one inbox. It is for one goroutine, but Ready may be asked by any.
type Follower struct {
	inbox   *Inbox
	subject Subject
	wake    func()
	at      atomic.Int64
	recount atomic.Bool
	reset   string
}

// Follow follows an inbox after place, "<epoch>-<number>"; empty for from now on. wake is
// called after each change, quickly and by any goroutine. Close must be called. Invalid
// for what is no place; one of another epoch is from now on, and Reset says so.
func (in *Inbox) Follow(s Subject, place string, wake func()) (*Follower, error) {
	f := &Follower{inbox: in, subject: s, wake: wake}
	at := int64(-1)
	if place != "" {
		i := strings.LastIndexByte(place, '-')
		n, err := strconv.ParseInt(place[i+1:], 10, 64)
		if i <= 0 || err != nil || n < 0 {
			return nil, muster.Errorf(muster.Invalid, "the place in the inbox is the epoch and the number of a change that was read")
		}
		if at = n; place[:i] != in.epoch {
			f.reset, at = "this is another inbox than the one that was read", -1
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if at > in.last {
		f.reset, at = "there never was a change of this number", -1
	}
	if at < 0 {
		at = in.last
	}
	f.at.Store(at)
	b := in.boxes[s]
	if b == nil {
		b = &box{followers: map[*Follower]struct{}{}, from: in.last}
		in.boxes[s] = b
	}
	b.followers[f] = struct{}{}
	return f, nil
}

// Close ends f. It may be called again.
func (f *Follower) Close() {
	in := f.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	b := in.boxes[f.subject]
	if b == nil {
		return
	}
	delete(b.followers, f)
	if len(b.followers) == 0 {
		delete(in.boxes, f.subject)
	}
}

// Ready says whether Next may have something.
func (f *Follower) Ready() bool {
	in := f.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	b := in.boxes[f.subject]
	at := f.at.Load()
	return b != nil && (at < b.from || len(b.ring) > 0 && b.ring[len(b.ring)-1].Receipt.Seq > at)
}

// Reset returns why changes are missing before what comes next, once; empty when none are.
func (f *Follower) Reset() string {
	why := f.reset
	f.reset = ""
	return why
}

// Recount says whether the inbox is to be counted anew since it was asked last, see Inbox.Recount.
func (f *Follower) Recount() bool { return f.recount.Swap(false) }

// At returns the number of the last change that was read.
func (f *Follower) At() int64 { return f.at.Load() }

// Epoch returns the id of all inboxes: a number means something within it only.
func (in *Inbox) Epoch() string { return in.epoch }

// Next returns up to limit items that changed after the follower's place, in the order of
// their changes, and moves it. It waits for nothing but the store; none are no error. Of an
// item that changed many times it may tell the last only. What is of a topic that the subject has
// lost is left out.
func (f *Follower) Next(ctx context.Context, limit int) ([]Item, error) {
	items, err := f.next(ctx, limit)
	return slices.DeleteFunc(items, func(it Item) bool { return !f.inbox.shows(f.subject, it.Notification.Topic) }), err
}

func (f *Follower) next(ctx context.Context, limit int) ([]Item, error) {
	items, upTo, stored := f.remembered(limit)
	if !stored {
		return items, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	items, err := f.inbox.store.InboxAfter(ctx, f.subject, f.at.Load(), upTo, limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // the store says what it was doing
	}
	if len(items) == 0 { // fewer than limit say nothing: some were trimmed while they were read
		f.at.Store(upTo)
	} else {
		f.at.Store(items[len(items)-1].Receipt.Seq)
	}
	return items, nil
}

// remembered returns what is in memory, or that the store must be asked, up to a number.
func (f *Follower) remembered(limit int) (items []Item, upTo int64, stored bool) {
	in := f.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	b := in.boxes[f.subject]
	at := f.at.Load()
	if b == nil {
		return nil, 0, false
	}
	if at < b.from {
		return nil, in.last, true
	}
	i := sort.Search(len(b.ring), func(i int) bool { return b.ring[i].Receipt.Seq > at })
	items = append(items, b.ring[i:min(i+limit, len(b.ring))]...)
	if len(items) > 0 {
		f.at.Store(items[len(items)-1].Receipt.Seq)
	}
	return items, 0, false
}

// Epoch returns the id of all inboxes: a number means something within it only.
func (f *Follower) Epoch() string { return f.inbox.epoch }
