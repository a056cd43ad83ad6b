package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
)

// Keys are the log's two secrets, KeyLen bytes each and the same for its whole life.
type Keys struct {
	Seals   []byte // of the seals
	Records []byte // of the records' own codes
}

// MAC returns the code of a record, in hex: the HMAC-SHA256 of its number and every other
// field of it. The store writes it beside the record, so that no record can be added
// by somebody who has the database alone.
func (k Keys) MAC(r Record) string {
	h := hmac.New(sha256.New, k.Records)
	fields(h, r)
	return hex.EncodeToString(h.Sum(nil))
}

// genuine says whether the record was written by Muster, in this place.
func (k Keys) genuine(r Record) bool { return hmac.Equal([]byte(k.MAC(r)), []byte(r.MAC)) }

// chain returns the hash of a run over the one before it. Seals from before records had
// codes have no s.Signed, and hash the records alone; in the others -1, which is no
// record's number, tells the two apart.
func (k Keys) chain(before [sha256.Size]byte, s Seal, records []Record) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, k.Seals)
	h.Write(before[:])
	if s.Signed != 0 {
		for _, n := range []int64{-1, s.Signed, s.First, s.Last} {
			number(h, n)
		}
	}
	for _, r := range records {
		fields(h, r)
	}
	h.Sum(sum[:0])
	return sum
}

// fields writes every field but the code with its length, so that no two records have
// the same bytes.
func fields(h hash.Hash, r Record) {
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

func number(h hash.Hash, n int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

// check reports what is wrong with a run of at most maxRun records, of which those from
// signed on have codes, under a seal that follows one with the hash before.
func (k Keys) check(before [sha256.Size]byte, s Seal, records []Record, signed int64, report func(Finding)) {
	want := k.chain(before, s, records)
	switch missing := s.Last - s.First + 1 - int64(len(records)); {
	case missing != 0:
		report(Finding{s.First, s.Last, gone(missing)})
	case !hmac.Equal(want[:], s.Hash[:]):
		report(Finding{s.First, s.Last, "the records, or the seals before them, are not what was sealed"})
	}
	k.codes(records, signed, report)
}

// codes reports the records from signed on that Muster did not write, neighbours as one.
func (k Keys) codes(records []Record, signed int64, report func(Finding)) {
	const what = "the record was not written by Muster, or was changed"
	var bad Finding
	for _, r := range records {
		switch {
		case signed == 0 || r.Seq < signed || k.genuine(r):
		case bad.What != "" && r.Seq == bad.Last+1:
			bad.Last = r.Seq
		default:
			if bad.What != "" {
				report(bad)
			}
			bad = Finding{r.Seq, r.Seq, what}
		}
	}
	if bad.What != "" {
		report(bad)
	}
}
