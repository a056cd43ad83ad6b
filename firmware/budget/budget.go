package budget

import (
	"context"
	"sync"
	"time"

	"muster"
)

// Bounds.
const (
	blocks    = 8                // that a release is reserved in, whatever its size
	groupSize = 1000             // claims in one transaction, and as many of what is given back
	maxClaims = 8192             // that wait for the store; who comes then is told to come later
	spentFor  = 10 * time.Second // for how long the store is not asked again for what it had nothing left of
)

// Key names what has a budget.
type Key struct {
	Device muster.DeviceID
	Action int64
}

// Claim is bytes that are to be reserved, of all that a key may have.
type Claim struct {
	Key
	Bytes int64
	All   int64
}

// Store keeps what is reserved.
type Store interface {
	// KeepBudgets gives back bytes that were reserved and not sent, reserves those of claims as
	// far as All leaves them, and returns how many it reserved of each, in one transaction. None
	// are reserved for an action that does not go on at its device. No key is in a list twice.
	KeepBudgets(ctx context.Context, back, claims []Claim) ([]int64, error)
}

// Options are those of Budgets. A zero field means the default.
type Options struct {
	Times int           // how often the bytes of a release are sent for an action; 3
	Most  int           // keys in memory; 131,072. Then the half that was not used longest is forgotten, and what was left of it given back
	Wait  time.Duration // for the store; 5 s
	Now   func() time.Time
}

// Budgets count. They are safe for concurrent use.
type Budgets struct {
	store Store
	o     Options
	turn  chan struct{} // holds a token of who is at the store, for all that wait

	mu         sync.Mutex
	young, old map[Key]*account
	queue      []*claim
	back       map[Key]int64 // bytes that the store is to get back
	ended      bool
}

// account is what is known of a key.
type account struct {
	left  int64     // bytes that are reserved and not spent
	claim *claim    // that waits for the store; nil for none
	spent time.Time // until when the store is known to have no more
}

// claim is one that somebody waits for.
type claim struct {
	Claim
	done chan struct{} // closed when err is set
	err  error
}

// New returns the budgets of a store.
func New(store Store, o Options) *Budgets {
	if o.Times <= 0 {
		o.Times = 3
	}
	if o.Most <= 0 {
		o.Most = 1 << 17
	}
	if o.Wait <= 0 {
		o.Wait = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Budgets{store: store, o: o, turn: make(chan struct{}, 1), young: map[Key]*account{}, old: map[Key]*account{}, back: map[Key]int64{}}
}

// Times returns how often the bytes of a release are sent for an action.
func (b *Budgets) Times() int { return b.o.Times }

// block returns how many bytes of a release are reserved at a time. A kill costs no more: of a small release
// neither, so that three releases outlast sixteen kills and leave one whole.
func block(release int64) int64 { return max(release/blocks, 1) }

// Take takes at most n bytes of what is left of k, where a release has so many bytes, and returns
// how many; 0 when nothing is left. It may wait for the store: Unavailable when that does not
// answer in time, Busy when too many wait.
func (b *Budgets) Take(ctx context.Context, k Key, n, release int64) (int64, error) {
	return b.take(ctx, k, 1, n, release)
}

// TakeAll is Take of n bytes or none; false for none.
func (b *Budgets) TakeAll(ctx context.Context, k Key, n, release int64) (bool, error) {
	got, err := b.take(ctx, k, n, n, release)
	return got > 0, err
}

// Left says whether anything is left of k, as Take finds it.
func (b *Budgets) Left(ctx context.Context, k Key, release int64) (bool, error) {
	got, err := b.take(ctx, k, 1, 1, release)
	b.Give(k, got)
	return got > 0, err
}

// take takes from least to most bytes, or none.
func (b *Budgets) take(ctx context.Context, k Key, least, most, release int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, b.o.Wait)
	defer cancel()
	for {
		got, c, err := b.try(k, least, most, release)
		if c == nil || err != nil {
			return got, err
		}
		if err := b.await(ctx, c); err != nil {
			return 0, err
		}
	}
}

// try takes what is reserved, or returns the claim that is to be waited for.
func (b *Budgets) try(k Key, least, most, release int64) (int64, *claim, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, nil, muster.Errorf(muster.Unavailable, "the server stops")
	}
	a := b.account(k)
	switch {
	case a.left >= least:
		n := min(a.left, most)
		a.left -= n
		return n, nil, nil
	case a.claim != nil:
		return 0, a.claim, nil
	case b.o.Now().Before(a.spent):
		return 0, nil, nil
	case len(b.queue) >= maxClaims:
		return 0, nil, muster.Errorf(muster.Busy, "too many devices begin to fetch images now")
	}
	a.claim = &claim{Claim: Claim{k, max(block(release), least) - a.left, int64(b.o.Times) * release}, done: make(chan struct{})}
	b.queue = append(b.queue, a.claim)
	return 0, a.claim, nil
}

// account returns the account of k, for which it makes room. The caller has the lock.
func (b *Budgets) account(k Key) *account {
	if a := b.young[k]; a != nil {
		return a
	}
	a := b.old[k]
	if a == nil {
		a = &account{}
	}
	delete(b.old, k)
	if len(b.young) >= max(b.o.Most/2, 1) {
		for gone, x := range b.old {
			b.restore(gone, x.left)
		}
		b.old, b.young = b.young, map[Key]*account{}
	}
	b.young[k] = a
	return a
}

// restore notes bytes of k for the store, as many keys as there is room for: what finds none is
// lost to its device. The caller has the lock.
func (b *Budgets) restore(k Key, n int64) {
	if _, is := b.back[k]; n > 0 && (is || len(b.back) < b.o.Most) {
		b.back[k] += n
	}
}

// Give gives back n bytes that were taken: they were not sent.
func (b *Budgets) Give(k Key, n int64) {
	if n <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range []map[Key]*account{b.young, b.old} {
		if a := m[k]; a != nil && !b.ended {
			a.left += n
			return
		}
	}
	b.restore(k, n)
}

// await waits until a claim is settled. Whoever waits and finds nobody at the store goes there, with
// all claims that have come by then: many devices share a transaction.
func (b *Budgets) await(ctx context.Context, c *claim) error {
	for {
		select {
		case <-c.done:
			return c.err
		default:
		}
		select {
		case <-c.done:
			return c.err
		case b.turn <- struct{}{}:
			b.lead() //nolint:contextcheck // who leads may leave, the others stay: it has a time of its own
		case <-ctx.Done():
			return muster.Errorf(muster.Unavailable, "what is sent cannot be counted now: %w", ctx.Err())
		}
	}
}

// lead keeps a group, and ends the turn.
func (b *Budgets) lead() {
	defer func() { <-b.turn }()
	back, group := b.group()
	if len(back)+len(group) == 0 {
		return
	}
	got, err := []int64(nil), muster.Errorf(muster.Internal, "the store failed")
	defer func() { b.settle(group, got, err) }() // also when the store panics
	got, err = b.keep(context.Background(), back, group)
}

// group takes what is to be kept together.
func (b *Budgets) group() (back []Claim, group []*claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, n := range b.back {
		if len(back) == groupSize {
			break
		}
		back = append(back, Claim{Key: k, Bytes: n})
		delete(b.back, k)
	}
	n := min(len(b.queue), groupSize)
	group = b.queue[:n:n]
	if b.queue = b.queue[n:]; len(b.queue) == 0 {
		b.queue = nil
	}
	return back, group
}

// keep asks the store. What was to be given back and was perhaps not is not tried again, since it may have been.
func (b *Budgets) keep(ctx context.Context, back []Claim, group []*claim) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, b.o.Wait)
	defer cancel()
	claims := make([]Claim, len(group))
	for i, c := range group {
		claims[i] = c.Claim
	}
	return b.store.KeepBudgets(ctx, back, claims) //nolint:wrapcheck // it says what it was doing
}

// settle tells those that wait for a group.
func (b *Budgets) settle(group []*claim, got []int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, c := range group {
		a := b.young[c.Key]
		if a == nil {
			a = b.old[c.Key]
		}
		if a != nil && a.claim == c {
			a.claim = nil
		}
		if c.err = err; err == nil {
			if a == nil || b.ended {
				b.restore(c.Key, got[i])
			} else if a.left += got[i]; got[i] < c.Bytes {
				a.spent = b.o.Now().Add(spentFor)
			}
		}
		close(c.done)
	}
}

// End gives the store back all that is reserved and not sent, for a server that stops. Whoever
// takes bytes from then on is told that they are Unavailable.
func (b *Budgets) End(ctx context.Context) error {
	b.mu.Lock()
	b.ended = true
	for _, m := range []map[Key]*account{b.young, b.old} {
		for k, a := range m {
			b.restore(k, a.left)
			a.left = 0
		}
	}
	b.mu.Unlock()
	for {
		select {
		case b.turn <- struct{}{}:
		case <-ctx.Done():
			return muster.Errorf(muster.Unavailable, "give back what images may be fetched: %w", ctx.Err())
		}
		back, group := b.group()
		got, err := []int64(nil), error(nil)
		if len(back)+len(group) > 0 {
			got, err = b.keep(ctx, back, group)
			b.settle(group, got, err)
		}
		<-b.turn
		if err != nil || len(back)+len(group) == 0 {
			return err
		}
	}
}
