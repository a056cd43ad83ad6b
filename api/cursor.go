package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"slices"

	"muster"
	"muster/ingest"
)

// cursor is a place in one device's readings, and the range it belongs to, which
// "now" would otherwise move. Readings of one time have no order of their own, so
// they are taken by a hash of what they hold.
type cursor struct {
	From muster.Micros `json:"f"`
	To   muster.Micros `json:"t"`
	Desc bool          `json:"d"`
	At   muster.Micros `json:"a"` // the last reading's time,
	Hash uint64        `json:"h"` // its hash,
	Nth  int           `json:"n"` // and which it is among equal ones
}

func (c cursor) String() string {
	b, err := json.Marshal(c)
	if err != nil { // integers and a bool always marshal
		panic(fmt.Errorf("write a cursor: %w", err))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(s string) (cursor, error) {
	var c cursor
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return cursor{}, errCursor()
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || d.More() {
		return cursor{}, errCursor()
	}
	if c.At < c.From || c.At >= c.To || c.Nth < 1 {
		return cursor{}, errCursor()
	}
	return c, nil
}

func errCursor() error {
	return muster.At(muster.Errorf(muster.Invalid, "the cursor is not one of this list"), "cursor", "after")
}

// query returns what is left of q after c.
func (c cursor) query(q ingest.RangeQuery) ingest.RangeQuery {
	q.From, q.To = c.From, c.To
	if q.Desc {
		q.To = c.At + 1
	} else {
		q.From = c.At
	}
	return q
}

// groupSlack is how many readings of one time a page can tell apart beyond its
// limit: a device's readings of one microsecond, one per layout.
const groupSlack = 256

// placed is a reading with its place among those of its time.
type placed struct {
	muster.Reading
	hash uint64
	nth  int
}

// readPage returns up to limit readings of q after the cursor after, if any, and
// the cursor for the next page, nil at the end. It leaves the store before it
// returns: no client, however slow, holds a connection of the database.
func readPage(ctx context.Context, s ingest.RangeStore, q ingest.RangeQuery, after *cursor, limit int) ([]placed, *cursor, error) {
	rest := q
	if after != nil {
		rest = after.query(q)
	}
	rest.Limit = limit + groupSlack
	var out, group []placed
	for r, err := range s.Range(ctx, rest) {
		if err != nil {
			return nil, nil, fmt.Errorf("read telemetry: %w", err)
		}
		if len(group) > 0 && r.Time != group[0].Time {
			out = append(out, arrange(group, after)...)
			group = group[:0]
			if len(out) > limit {
				break
			}
		}
		group = append(group, placed{Reading: r})
	}
	out = append(out, arrange(group, after)...)
	if len(out) <= limit {
		return out, nil, nil
	}
	last := out[limit-1]
	if last.nth == 0 {
		last.hash, last.nth = hashOf(&last.Reading), 1
	}
	next := &cursor{From: q.From, To: q.To, Desc: q.Desc, At: last.Time, Hash: last.hash, Nth: last.nth}
	return out[:limit], next, nil
}

// arrange orders the readings of one time and leaves out those that the cursor is
// past. A lone one, far from the cursor, needs no hash.
func arrange(group []placed, after *cursor) []placed {
	here := after != nil && len(group) > 0 && group[0].Time == after.At
	if len(group) < 2 && !here {
		return group
	}
	for i := range group {
		group[i].hash = hashOf(&group[i].Reading)
	}
	slices.SortFunc(group, func(x, y placed) int { return cmp.Compare(x.hash, y.hash) })
	for i := range group {
		group[i].nth = 1
		if i > 0 && group[i].hash == group[i-1].hash {
			group[i].nth = group[i-1].nth + 1
		}
	}
	if !here {
		return group
	}
	return slices.DeleteFunc(group, func(p placed) bool {
		return p.hash < after.Hash || p.hash == after.Hash && p.nth <= after.Nth
	})
}

// hashOf is the same in every process: cursors outlive a restart.
func hashOf(r *muster.Reading) uint64 {
	h := fnv.New64a()
	var b [9]byte
	for v := range r.Values {
		b[0] = byte(v.Key.Kind)
		binary.LittleEndian.PutUint64(b[1:], math.Float64bits(v.Num))
		_, _ = h.Write(b[:])                                          // a hash takes everything
		_, _ = h.Write([]byte(v.Key.Name + "\x00" + v.Text + "\x00")) // likewise
	}
	return h.Sum64()
}
