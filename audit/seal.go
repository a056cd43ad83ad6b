package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"log/slog"
	"time"

	"muster"
)

const (
	// KeyLen is how many bytes the key of the seals has.
	KeyLen = 32

	sealEvery = time.Second
	// maxRun bounds the records of one seal, so that a busy second is several.
	maxRun    = 5000
	storeTime = 30 * time.Second
)

// Seal vouches for a run of records and, through the one before it, for all before
// them: Hash is the HMAC-SHA256, by the log's key, of the hash before and the run's
// records.
type Seal struct {
	First, Last int64 // the run's records
	At          muster.Micros
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

// Anchor keeps the newest seal outside of the database, so that a database which was
// cut short or put back is noticed.
type Anchor interface {
	// Load returns the seal, a zero one when none was kept.
	Load() (Seal, error)
	Save(s Seal) error
}

// Sealer seals what was recorded, at most once a second.
type Sealer struct {
	store  Store
	anchor Anchor
	key    []byte
	now    func() time.Time
	log    *slog.Logger
}

// NewSealer returns a sealer. key is secret, KeyLen bytes, and the same for the whole
// life of the log.
func NewSealer(store Store, anchor Anchor, key []byte, now func() time.Time, log *slog.Logger) *Sealer {
	return &Sealer{store: store, anchor: anchor, key: key, now: now, log: log}
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
	last, err := s.store.LastSeal(ctx)
	if err != nil {
		return fmt.Errorf("read the last seal: %w", err)
	}
	for {
		records, err := s.store.AuditAfter(ctx, last.Last, maxRun)
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		if len(records) == 0 {
			return nil
		}
		next := Seal{
			First: last.Last + 1, Last: records[len(records)-1].Seq, At: muster.MicrosOf(s.now()),
			Hash: chain(s.key, last.Hash, records),
		}
		if records[0].Seq != next.First || next.Last-next.First+1 != int64(len(records)) {
			return muster.Errorf(muster.Internal, "records are missing from the audit log between %d and %d", next.First, next.Last)
		}
		err = s.store.InsertSeal(ctx, next)
		switch {
		case err != nil && muster.KindOf(err) == muster.Conflict:
			return nil
		case err != nil:
			return fmt.Errorf("keep a seal: %w", err)
		}
		if err := s.anchor.Save(next); err != nil {
			return fmt.Errorf("keep the last seal beside the database: %w", err)
		}
		last = next
	}
}

// chain returns the hash of a run over the one before it. Every field goes in with its
// length, so that no two runs have the same bytes.
func chain(key []byte, before [sha256.Size]byte, records []Record) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, key)
	h.Write(before[:])
	for _, r := range records {
		number(h, r.Seq)
		number(h, int64(r.At))
		for _, text := range []string{
			r.Actor.Kind, r.Actor.ID, r.Actor.Name, r.Actor.Address, r.Actor.Request, r.Action, r.Object,
			string(r.Before), string(r.After),
		} {
			number(h, int64(len(text)))
			h.Write([]byte(text))
		}
	}
	h.Sum(sum[:0])
	return sum
}

func number(h hash.Hash, n int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}
