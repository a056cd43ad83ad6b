package audit

import (
	"encoding/hex"
	"fmt"
	"slices"

	"muster"
)

// MaxBreaks is how many breaks a Head names one by one. The rest is counted.
const MaxBreaks = 100

// Head is what is kept outside of the database, so that a database which was cut short,
// put back or added to is noticed, and stays so.
type Head struct {
	Seal   Seal  // the newest; a zero one before the first
	Signed int64 // the first record that has a code; 0 when that is not known yet
	Breaks []Break
	More   int64 // breaks beyond MaxBreaks
}

// Break is a place where the log did not fit when the sealer came to it. It is kept for
// ever.
type Break struct {
	At              muster.Micros // when it was found
	First, Last     int64         // the records it is about
	What            string
	Expected, Found string // hashes of the seals in hex, empty where it is about records
}

// Anchor keeps the head.
type Anchor interface {
	// Load returns the head, a zero one when none was kept, or Invalid when what was kept is
	// no head.
	Load() (Head, error)
	Save(h Head) error
	// Aside puts what is no head out of the way and keeps it.
	Aside() error
}

// breaks counts them all.
func (h *Head) breaks() int64 { return int64(len(h.Breaks)) + h.More }

// add keeps b unless it is kept already, and says whether it was new.
func (h *Head) add(b Break) bool {
	if slices.ContainsFunc(h.Breaks, func(k Break) bool {
		return k.What == b.What && k.Last == b.Last && k.Expected == b.Expected && k.Found == b.Found
	}) {
		return false
	}
	if len(h.Breaks) >= MaxBreaks {
		h.More++
		return true
	}
	h.Breaks = append(slices.Clone(h.Breaks), b)
	return true
}

// unfit is the break of a log whose newest seal is found instead of the head's.
func (h *Head) unfit(found Seal, now muster.Micros) Break {
	b := Break{
		At: now, First: min(h.Seal.Last, found.Last) + 1, Last: max(h.Seal.Last, found.Last), What: cutShort,
		Expected: hashText(h.Seal), Found: hashText(found),
	}
	switch {
	case h.Seal.Last == 0:
		b.First, b.What = 1, "the seal that was kept beside the database is lost"
	case found.Last >= h.Seal.Last:
		b.First, b.Last, b.What = h.Seal.First, h.Seal.Last, notTheKept
	}
	return b
}

const (
	cutShort   = "the log ends before the record that was sealed last: it was cut short or put back"
	unreadable = "what was kept beside the database is no seal: it was put aside"
	notTheKept = "the seal is not the one that was kept beside the database"
)

func gone(n int64) string { return fmt.Sprintf("%d records are missing", n) }

func hashText(s Seal) string {
	if s.Last == 0 {
		return ""
	}
	return hex.EncodeToString(s.Hash[:])
}
