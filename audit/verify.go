package audit

import (
	"context"
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
// was cut off, and the breaks that the sealer found earlier. It goes on after a fault. It writes nothing and may be run beside a
// server. Its error is about reading, not about the log.
func Verify(ctx context.Context, store Store, anchor Anchor, keys Keys, now time.Time, report func(Finding)) (Verified, error) {
	v := verifier{store: store, keys: keys, report: report}
	last, err := store.AuditLast(ctx) // first: what is recorded later is not looked for
	if err != nil {
		return v.seen, fmt.Errorf("read the audit log's counter: %w", err)
	}
	kept, err := anchor.Load()
	if err != nil {
		return v.seen, fmt.Errorf("read the last seal beside the database: %w", err)
	}
	v.signed = kept.Signed
	v.earlier(kept)
	if err := v.seals(ctx, kept.Seal); err != nil {
		return v.seen, err
	}
	if kept.Seal.Last > v.at.Last {
		v.fault(v.at.Last+1, kept.Seal.Last, cutShort)
	}
	if kept.Seal.Last == 0 && v.seen.Seals > 1 {
		v.fault(1, v.at.Last, "the seal that was kept beside the database is lost")
	}
	return v.seen, v.rest(ctx, last, now)
}

type verifier struct {
	store  Store
	keys   Keys
	signed int64 // the first record that has a code, 0 when none has
	report func(Finding)
	at     Seal // the last one that was looked at
	seen   Verified
}

func (v *verifier) fault(first, last int64, what string) { v.report(Finding{first, last, what}) }

// earlier reports what the sealer found.
func (v *verifier) earlier(h Head) {
	for _, b := range h.Breaks {
		what := fmt.Sprintf("%s (found at %s)", b.What, b.At.Time().Format(time.RFC3339))
		if b.Expected != "" || b.Found != "" {
			what += fmt.Sprintf(", expected %.16s, found %.16s", b.Expected, b.Found)
		}
		v.fault(b.First, b.Last, what)
	}
	if h.More > 0 {
		v.fault(1, h.Seal.Last, fmt.Sprintf("%d breaks more were found", h.More))
	}
}

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
	if v.signed == 0 {
		v.signed = s.Signed
	}
	if s.Signed != 0 && s.Signed != v.signed {
		v.fault(s.First, s.Last, fmt.Sprintf("the seal has record %d as the first with a code, not %d", s.Signed, v.signed))
	}
	records, err := under(ctx, v.store, s)
	if err != nil {
		return err
	}
	v.seen.Records += int64(len(records))
	v.keys.check(v.at.Hash, s, records, v.signed, v.report)
	if s.Last == kept.Last && s.Hash != kept.Hash {
		v.fault(s.First, s.Last, notTheKept)
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
		v.keys.codes(records, v.signed, v.report)
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
