package once

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster"
)

const (
	// Memory is how long a request is remembered.
	Memory = 24 * time.Hour
	// MaxAnswer is the longest body that is kept, in bytes. Of a longer one only that it was given is known.
	MaxAnswer = 256 << 10

	purgeEvery = 10 * time.Minute
	purgeStep  = 1000 // rows forgotten in one transaction
)

// RefusedError is why a request with a key is not done. Its text is a stable code.
type RefusedError string

// The refusals.
const (
	ErrInFlight RefusedError = "idempotency_in_flight"   // the same request is being done
	ErrMismatch RefusedError = "idempotency_mismatch"    // the key was used for another request
	ErrGone     RefusedError = "idempotency_answer_gone" // it was done, and its answer is not kept
	ErrFull     RefusedError = "idempotency_full"        // too many are remembered
)

// Error returns what happened, for people.
func (r RefusedError) Error() string {
	switch r {
	case ErrInFlight:
		return "the request with this Idempotency-Key is being done: ask again in a moment"
	case ErrMismatch:
		return "this Idempotency-Key was used for another request"
	case ErrGone:
		return "the request with this Idempotency-Key was done, wholly or in part, and its answer is not kept: read what it changed"
	default:
		return "too many Idempotency-Keys were used within 24 hours"
	}
}

// Answers reads and writes single rows.
type Answers interface {
	// Once returns the row, and whether there is one.
	Once(ctx context.Context, principal, name string) (Row, bool, error)
	// AnswerOnce writes r, or its answer when the row is there.
	AnswerOnce(ctx context.Context, r Row) error
}

// Rows looks after all rows.
type Rows interface {
	// ForgetOnce deletes up to limit rows that began before t and says how many it did.
	ForgetOnce(ctx context.Context, t muster.Micros, limit int) (int, error)
	// CountOnce says how many rows there are and how many bytes their answers have, by principal.
	CountOnce(ctx context.Context) (map[string]Count, error)
}

// Store keeps rows.
type Store interface {
	Answers
	Rows
}

// Count is how much is remembered.
type Count struct{ Rows, Bytes int64 }

// Limits bound what is remembered; the zero value of each is its default.
type Limits struct {
	Rows  int64 // of one principal: 20,000
	All   int64 // rows of all: 200,000
	Bytes int64 // of all answers: 256 MiB. Beyond, answers are not kept, and replays are refused with ErrGone
	Busy  int   // requests with a key at once: 10,000
}

func (l *Limits) fill() {
	or := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	or(&l.Rows, 20_000)
	or(&l.All, 200_000)
	or(&l.Bytes, 256<<20)
	if l.Busy == 0 {
		l.Busy = 10_000
	}
}

// Keeper remembers requests. It is safe for concurrent use.
type Keeper struct {
	store  Store
	now    func() time.Time
	log    *slog.Logger
	limits Limits

	mu     sync.Mutex
	busy   map[[2]string]struct{} // principal and name of those under way
	counts map[string]Count       // since the last look at the store
	all    Count
}

// New returns a Keeper on store. Load it before use.
func New(store Store, now func() time.Time, log *slog.Logger, l Limits) *Keeper {
	l.fill()
	return &Keeper{store: store, now: now, log: log, limits: l, busy: map[[2]string]struct{}{}, counts: map[string]Count{}}
}

// Load finds out how much is remembered.
func (k *Keeper) Load(ctx context.Context) error {
	counts, err := k.store.CountOnce(ctx)
	if err != nil {
		return fmt.Errorf("count kept answers: %w", err)
	}
	var all Count
	for _, c := range counts {
		all.Rows += c.Rows
		all.Bytes += c.Bytes
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts, k.all = counts, all
	return nil
}

// Request is one that came with a key.
type Request struct {
	Principal string // id of the credential
	Secret    string // the credential itself, which seals the answer
	Route     string // method and path
	Key       string // as the client chose it
	Print     []byte // all else that it asks for; its SHA-256 is kept
}

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// Begin starts a request. It returns the answer when the request was done before, else a Turn, which must be ended.
// A RefusedError says that it must not be done.
func (k *Keeper) Begin(ctx context.Context, r Request) (*Turn, *Answer, error) {
	row := Row{
		Principal: r.Principal, Name: digest([]byte(r.Route + "\x00" + r.Key)), Print: digest(r.Print), At: muster.MicrosOf(k.now()),
	}
	t := &Turn{keeper: k, secret: r.Secret, claim: Claim{row: row}}
	if err := k.enter(&row); err != nil {
		return nil, nil, err
	}
	have, ok, err := k.store.Once(ctx, row.Principal, row.Name)
	if err != nil {
		t.leave()
		return nil, nil, fmt.Errorf("look for a kept answer: %w", err)
	}
	if !ok || have.At < row.At-muster.Micros(Memory.Microseconds()) {
		if k.full(row.Principal) {
			t.leave()
			return nil, nil, ErrFull
		}
		return t, nil, nil
	}
	t.leave()
	if have.Print != row.Print {
		return nil, nil, ErrMismatch
	}
	if len(have.Answer) == 0 {
		return nil, nil, ErrGone
	}
	a, err := open(r.Secret, &have)
	return nil, a, err
}

func (k *Keeper) enter(row *Row) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := [2]string{row.Principal, row.Name}
	if _, busy := k.busy[id]; busy {
		return ErrInFlight
	}
	if len(k.busy) >= k.limits.Busy {
		return ErrFull
	}
	k.busy[id] = struct{}{}
	return nil
}

func (k *Keeper) full(principal string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counts[principal].Rows >= k.limits.Rows || k.all.Rows >= k.limits.All
}

// Turn is a request that is being done.
type Turn struct {
	keeper *Keeper
	secret string
	claim  Claim
	left   sync.Once
}

// Context returns ctx with the claim, for the request's changes.
func (t *Turn) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, claimKey{}, &t.claim)
}

func (t *Turn) leave() {
	t.left.Do(func() {
		t.keeper.mu.Lock()
		defer t.keeper.mu.Unlock()
		delete(t.keeper.busy, [2]string{t.claim.row.Principal, t.claim.row.Name})
	})
}

// Abandon ends a turn that got no answer. What it changed stays known.
func (t *Turn) Abandon() { t.leave() }

// End keeps the answer: when the request succeeded, and also when it failed after it had changed something. One that
// failed and changed nothing is forgotten and may be done again, with this key or another body. An a without Status
// is an answer that is not to be kept; that the request was done is.
func (t *Turn) End(ctx context.Context, a Answer, succeeded bool) error {
	defer t.leave()
	written := t.claim.isWritten()
	if !succeeded && !written {
		return nil
	}
	row := t.claim.row
	var err error
	if a.Status != 0 && len(a.Body) <= MaxAnswer {
		if row.Answer, err = seal(t.secret, &row, &a); err != nil {
			return err
		}
		if !t.keeper.room(int64(len(row.Answer))) {
			row.Answer = nil
		}
	}
	t.keeper.add(&row)
	if written && len(row.Answer) == 0 {
		return nil
	}
	ctx = context.WithValue(ctx, claimKey{}, (*Claim)(nil)) // the row itself is written
	if err := t.keeper.store.AnswerOnce(ctx, row); err != nil {
		return fmt.Errorf("keep an answer: %w", err)
	}
	return nil
}

func (k *Keeper) room(n int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all.Bytes+n <= k.limits.Bytes
}

func (k *Keeper) add(row *Row) {
	n := int64(len(row.Answer))
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.counts[row.Principal]
	k.counts[row.Principal] = Count{c.Rows + 1, c.Bytes + n}
	k.all.Rows++
	k.all.Bytes += n
}

// Run forgets what is older than Memory until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		if err := k.Purge(ctx); err != nil && ctx.Err() == nil {
			k.log.WarnContext(ctx, "kept answers are not forgotten in time", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Purge forgets, in steps, what is older than Memory, and counts anew.
func (k *Keeper) Purge(ctx context.Context) error {
	for {
		n, err := k.store.ForgetOnce(ctx, muster.MicrosOf(k.now().Add(-Memory)), purgeStep)
		if err != nil {
			return fmt.Errorf("forget kept answers: %w", err)
		}
		if n < purgeStep {
			return k.Load(ctx)
		}
	}
}

// Stats is what the System page shows.
type Stats struct {
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
	Busy  int   `json:"busy"`
}

// Stats returns how much is remembered and under way.
func (k *Keeper) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Stats{k.all.Rows, k.all.Bytes, len(k.busy)}
}
