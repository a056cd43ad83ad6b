package audit

import (
	"context"
	"crypto/hmac"
	"fmt"
	"time"

	"muster"
)

const (
	// MaxUnsealed is how long a record may wait for its seal while a server runs.
	MaxUnsealed = time.Minute

	sealPage = 500
)

// Finding is one fault of the log.
type Finding struct {
	First, Last int64 // the records it is about
	What        string
}

// Verified says what Verify looked at.
type Verified struct {
	Records, Seals int64
	Unsealed       int64 // records that wait for a seal
}

// Verify reads the whole log, in bounded steps, and reports each fault: records that
// are missing, changed, added or moved, seals that are missing or forged, an end that
// was cut off. It goes on after a fault. It writes nothing and may be run beside a
// server. Its error is about reading, not about the log.
func Verify(ctx context.Context, store Store, anchor Anchor, key []byte, now time.Time, report func(Finding)) (Verified, error) {
	v := verifier{store: store, key: key, report: report}
	last, err := store.AuditLast(ctx) // first: what is recorded later is not looked for
	if err != nil {
		return v.seen, fmt.Errorf("read the audit log's counter: %w", err)
	}
	kept, err := anchor.Load()
	if err != nil {
		return v.seen, fmt.Errorf("read the last seal beside the database: %w", err)
	}
	if err := v.seals(ctx, kept); err != nil {
		return v.seen, err
	}
	if kept.Last > v.at.Last {
		v.fault(v.at.Last+1, kept.Last, "the log ends before the record that was sealed last: it was cut short or put back")
	}
	return v.seen, v.rest(ctx, last, now)
}

type verifier struct {
	store  Store
	key    []byte
	report func(Finding)
	at     Seal // the last one that was looked at
	seen   Verified
}

func (v *verifier) fault(first, last int64, what string) { v.report(Finding{first, last, what}) }

// seals checks every seal and the records under it.
func (v *verifier) seals(ctx context.Context, kept Seal) error {
	for {
		page, err := v.store.SealsAfter(ctx, v.at.Last, sealPage)
		if err != nil {
			return fmt.Errorf("read the seals: %w", err)
		}
		for _, s := range page {
			if err := v.seal(ctx, s, kept); err != nil {
				return err
			}
		}
		if len(page) < sealPage {
			return nil
		}
	}
}

func (v *verifier) seal(ctx context.Context, s, kept Seal) error {
	v.seen.Seals++
	if s.First != v.at.Last+1 {
		v.fault(v.at.Last+1, s.First-1, "a seal is missing")
	}
	if n := s.Last - s.First + 1; n < 1 || n > maxRun {
		v.fault(s.First, s.Last, "the seal is not one of Muster's")
		v.at = s
		return nil
	}
	records, err := v.store.AuditAfter(ctx, s.First-1, int(s.Last-s.First+1))
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	for len(records) > 0 && records[len(records)-1].Seq > s.Last {
		records = records[:len(records)-1]
	}
	v.seen.Records += int64(len(records))
	want := chain(v.key, v.at.Hash, records)
	switch {
	case int64(len(records)) != s.Last-s.First+1:
		v.fault(s.First, s.Last, fmt.Sprintf("%d records are missing", s.Last-s.First+1-int64(len(records))))
	case !hmac.Equal(want[:], s.Hash[:]):
		v.fault(s.First, s.Last, "the records, or the seals before them, are not what was sealed")
	}
	if s.Last == kept.Last && s.Hash != kept.Hash {
		v.fault(s.First, s.Last, "the seal is not the one that was kept beside the database")
	}
	v.at = s
	return nil
}

// rest checks the records that are not sealed yet.
func (v *verifier) rest(ctx context.Context, last int64, now time.Time) error {
	next := v.at.Last + 1
	old := muster.MicrosOf(now.Add(-MaxUnsealed))
	for {
		records, err := v.store.AuditAfter(ctx, next-1, maxRun)
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		for _, r := range records {
			if r.Seq != next {
				v.fault(next, r.Seq-1, "records are missing")
			}
			if r.At < old {
				v.fault(r.Seq, r.Seq, "the record was never sealed: no server has run since, or it was added")
			}
			next = r.Seq + 1
			v.seen.Records++
			v.seen.Unsealed++
		}
		if len(records) < maxRun {
			break
		}
	}
	if next <= last {
		v.fault(next, last, "the newest records are missing")
	}
	return nil
}
