package audit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"muster"
)

const (
	// KeyLen is how many bytes each of Keys has.
	KeyLen = 32

	sealEvery = time.Second
	// maxRun bounds the records of one seal, so that a busy second is several.
	maxRun    = 5000
	storeTime = 30 * time.Second
)

// Seal vouches for a run of records and, through the one before it, for all before
// them: Hash is the HMAC-SHA256, by the log's key, of the hash before, the numbers here
// and the run's records.
type Seal struct {
	First, Last int64 // the run's records
	At          muster.Micros
	Signed      int64 // the first record of the log that has a code; 0 in seals from before there were codes
	Hash        [sha256.Size]byte
}

// Store keeps records and seals.
type Store interface {
	// AuditLast returns the number of the newest record, 0 when there never was one.
	AuditLast(ctx context.Context) (int64, error)
	// AuditAfter returns up to limit records after seq in their order.
	AuditAfter(ctx context.Context, seq int64, limit int) ([]Record, error)
	// LastSeal returns the newest seal, a zero one when there is none.
	LastSeal(ctx context.Context) (Seal, error)
	// SealsAfter returns up to limit seals whose last record is after seq, in order.
	SealsAfter(ctx context.Context, seq int64, limit int) ([]Seal, error)
	// InsertSeal keeps a seal, or answers Conflict when the newest one does not end at
	// s.First-1.
	InsertSeal(ctx context.Context, s Seal) error
}

// Sealer seals what was recorded, at most once a second. What does not fit the head that
// was kept it records there as a break, and goes on: new records are sealed, and the
// break stays.
type Sealer struct {
	store  Store
	anchor Anchor
	keys   Keys
	now    func() time.Time
	log    *slog.Logger
	status atomic.Pointer[Status]
}

// Status is what the System page shows.
type Status struct {
	Sealed int64      `json:"sealed"`      // the last record under a seal
	Signed int64      `json:"signed_from"` // the first record with a code of its own
	Broken int64      `json:"broken"`      // places where the log did not fit, in all
	Last   *LastBreak `json:"last_break,omitempty"`
}

// LastBreak is the newest break that is named.
type LastBreak struct {
	At    time.Time `json:"at"`
	First int64     `json:"first"`
	Last  int64     `json:"last"`
	What  string    `json:"what"`
}

// NewSealer returns a sealer.
func NewSealer(store Store, anchor Anchor, keys Keys, now func() time.Time, log *slog.Logger) *Sealer {
	s := &Sealer{store: store, anchor: anchor, keys: keys, now: now, log: log}
	s.status.Store(&Status{})
	return s
}

// Status says how far the log is sealed, as of the last Open or Seal.
func (s *Sealer) Status() Status { return *s.status.Load() }

// Open looks whether the log fits the head, and keeps the mark from which on records must
// have codes when there is none yet. Call it before anything is recorded with codes.
func (s *Sealer) Open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	head, err := s.fit(ctx)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	if n := head.breaks(); n > 0 {
		s.log.Error("the audit log has been tampered with, or its database was put back: see muster doctor", "breaks", n)
	}
	return nil
}

// Run seals until ctx ends, and then once more.
func (s *Sealer) Run(ctx context.Context) error {
	tick := time.NewTicker(sealEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.Seal(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("the audit log is not sealed, trying again", "err", err)
			}
		case <-ctx.Done():
			if err := s.Seal(context.WithoutCancel(ctx)); err != nil {
				return fmt.Errorf("seal the audit log at stop: %w", err)
			}
			return nil
		}
	}
}

// Seal seals all that is recorded and not sealed. That another process was quicker is
// no error.
func (s *Sealer) Seal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	head, err := s.fit(ctx)
	if err != nil {
		return err
	}
	last, err := s.store.AuditLast(ctx)
	if err != nil {
		return fmt.Errorf("read the audit log's counter: %w", err)
	}
	if last < head.Seal.Last {
		b := Break{At: muster.MicrosOf(s.now()), First: last + 1, Last: head.Seal.Last, What: "the counter was set back: numbers are given twice"}
		return s.broken(&head, b)
	}
	for head.Seal.Last < last {
		records, err := s.store.AuditAfter(ctx, head.Seal.Last, int(min(last-head.Seal.Last, maxRun)))
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		err = s.seal(ctx, &head, last, records)
		if err != nil && muster.KindOf(err) == muster.Conflict {
			return nil
		}
		if err != nil {
			return err
		}
		if len(records) == 0 { // somebody moved the counter: one seal a second over nothing
			return nil
		}
	}
	return nil
}

// seal seals a run of the records after the head's, up to last at the furthest: what
// is missing or was not written by Muster becomes a break.
func (s *Sealer) seal(ctx context.Context, head *Head, last int64, records []Record) error {
	next := Seal{First: head.Seal.Last + 1, Last: min(last, head.Seal.Last+maxRun), At: muster.MicrosOf(s.now()), Signed: head.Signed}
	for len(records) > 0 && records[len(records)-1].Seq > next.Last {
		records = records[:len(records)-1]
	}
	next.Hash = s.keys.chain(head.Seal.Hash, next, records)
	if err := s.breaks(head, head.Seal, next, records); err != nil {
		return err
	}
	if err := s.store.InsertSeal(ctx, next); err != nil {
		return fmt.Errorf("keep a seal: %w", err)
	}
	head.Seal = next
	return s.save(*head)
}

// fit loads the head and returns it brought up to the newest seal in the store, as it is
// kept from now on. The head is read first: what another process seals then is after it.
func (s *Sealer) fit(ctx context.Context) (Head, error) {
	head, err := s.load()
	if err != nil {
		return head, err
	}
	last, err := s.store.LastSeal(ctx)
	if err != nil {
		return head, fmt.Errorf("read the last seal: %w", err)
	}
	if head.Signed == 0 {
		if err := s.mark(ctx, &head, last); err != nil {
			return head, err
		}
	}
	if last.Last == head.Seal.Last && last.Hash == head.Seal.Hash {
		s.show(head)
		return head, nil
	}
	follows, err := s.follows(ctx, &head, last)
	if err != nil {
		return head, err
	}
	if !follows {
		if err := s.broken(&head, head.unfit(last, muster.MicrosOf(s.now()))); err != nil {
			return head, err
		}
	}
	head.Seal = last
	return head, s.save(head)
}

// load loads the head. One that is none is a break like any other.
func (s *Sealer) load() (Head, error) {
	head, err := s.anchor.Load()
	if err != nil && muster.KindOf(err) == muster.Invalid {
		if err := s.anchor.Aside(); err != nil {
			return head, fmt.Errorf("put aside what was kept beside the database: %w", err)
		}
		head = Head{}
		err := s.broken(&head, Break{At: muster.MicrosOf(s.now()), What: unreadable})
		return head, err
	}
	if err != nil {
		return head, fmt.Errorf("read the last seal beside the database: %w", err)
	}
	return head, nil
}

// mark sets where codes begin: where the chain says it, else after what is recorded now.
func (s *Sealer) mark(ctx context.Context, head *Head, last Seal) error {
	if head.Signed = last.Signed; head.Signed == 0 {
		n, err := s.store.AuditLast(ctx)
		if err != nil {
			return fmt.Errorf("read the audit log's counter: %w", err)
		}
		head.Signed = max(n, last.Last, head.Seal.Last) + 1
	}
	return s.save(*head)
}

// follows says whether the seals up to last go on from the head's: a server that ended
// between a seal and its head leaves one such. What is wrong under them becomes breaks.
func (s *Sealer) follows(ctx context.Context, head *Head, last Seal) (bool, error) {
	at := head.Seal
	if at.Last == 0 && last.First != 1 { // the very first seal has no head before it, others have
		return false, nil
	}
	if at.Last != 0 {
		kept, err := s.store.SealsAfter(ctx, at.Last-1, 1)
		if err != nil {
			return false, fmt.Errorf("read the seals: %w", err)
		}
		if len(kept) == 0 || kept[0].Last != at.Last || kept[0].Hash != at.Hash {
			return false, nil
		}
	}
	for at.Last < last.Last {
		page, err := s.store.SealsAfter(ctx, at.Last, 1)
		if err != nil {
			return false, fmt.Errorf("read the seals: %w", err)
		}
		if len(page) == 0 || !fits(page[0], at) {
			return false, nil
		}
		records, err := under(ctx, s.store, page[0])
		if err != nil {
			return false, err
		}
		if err := s.breaks(head, at, page[0], records); err != nil {
			return false, err
		}
		at = page[0]
	}
	return true, nil
}

// fits says whether a seal can be the one after at.
func fits(s, at Seal) bool {
	n := s.Last - s.First + 1
	return s.First == at.Last+1 && n >= 1 && n <= maxRun
}

// breaks keeps all that is wrong with a run as breaks.
func (s *Sealer) breaks(head *Head, before, seal Seal, records []Record) (err error) {
	s.keys.check(before.Hash, seal, records, head.Signed, func(f Finding) {
		if err == nil {
			err = s.broken(head, Break{At: muster.MicrosOf(s.now()), First: f.First, Last: f.Last, What: f.What})
		}
	})
	return err
}

// under returns the records that a seal is for, those that are there.
func under(ctx context.Context, store Store, s Seal) ([]Record, error) {
	records, err := store.AuditAfter(ctx, s.First-1, int(s.Last-s.First+1))
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	for len(records) > 0 && records[len(records)-1].Seq > s.Last {
		records = records[:len(records)-1]
	}
	return records, nil
}

// broken keeps a break in the head, and tells of it once.
func (s *Sealer) broken(head *Head, b Break) error {
	if !head.add(b) {
		s.show(*head)
		return nil
	}
	if err := s.save(*head); err != nil {
		return err
	}
	s.log.Error("the audit log does not fit what was kept of it: it was tampered with, or its database was put back",
		"first", b.First, "last", b.Last, "what", b.What, "expected", b.Expected, "found", b.Found)
	return nil
}

func (s *Sealer) save(head Head) error {
	if err := s.anchor.Save(head); err != nil {
		return fmt.Errorf("keep the last seal beside the database: %w", err)
	}
	s.show(head)
	return nil
}

func (s *Sealer) show(head Head) {
	st := Status{Sealed: head.Seal.Last, Signed: head.Signed, Broken: head.breaks()}
	if n := len(head.Breaks); n > 0 {
		b := head.Breaks[n-1]
		st.Last = &LastBreak{At: b.At.Time(), First: b.First, Last: b.Last, What: b.What}
	}
	s.status.Store(&st)
}
