package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"

	"muster"
	"muster/ingest"
)

// maxLayoutCache is how many layouts the readers hold; a full cache is emptied.
const maxLayoutCache = 1 << 14

// layoutCache holds the layouts read back, by set id.
type layoutCache struct {
	mu   sync.Mutex
	byID map[int64]*muster.Layout
}

func (c *layoutCache) get(id int64) *muster.Layout {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

// put keeps l unless another reader was first, and returns the one kept.
func (c *layoutCache) put(id int64, l *muster.Layout) *muster.Layout {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.byID[id]; have != nil {
		return have
	}
	if c.byID == nil || len(c.byID) >= maxLayoutCache {
		c.byID = map[int64]*muster.Layout{}
	}
	c.byID[id] = l
	return l
}

// Range yields the readings that q asks for, ordered by time, as they come from
// the database; after an error it yields nothing more. It holds one of the pool's
// connections, and the write-ahead log grows, until it is left. The readings'
// Arrival is 0.
func (t *Telemetry) Range(ctx context.Context, q ingest.RangeQuery) iter.Seq2[muster.Reading, error] {
	return func(yield func(muster.Reading, error) bool) {
		if err := t.scanRange(ctx, q, yield); err != nil {
			yield(muster.Reading{}, failed("read a range", err))
		}
	}
}

// scanRange runs q until its end or until yield returns false.
func (t *Telemetry) scanRange(ctx context.Context, q ingest.RangeQuery, yield func(muster.Reading, error) bool) (err error) {
	conn, err := t.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // gives it back to the pool
	var device int64
	err = conn.QueryRowContext(ctx, `SELECT id FROM device WHERE name = ?`, string(q.Device)).Scan(&device)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the device: %w", err)
	}
	rows, err := conn.QueryContext(ctx, rangeSQL(q.Desc), device, int64(q.From), int64(q.To))
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has what counts
	s := scanner{t: t, conn: conn, q: q, plans: map[int64]*plan{}}
	for n := 0; (q.Limit <= 0 || n < q.Limit) && rows.Next(); {
		r, ok, err := s.reading(ctx, rows)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if n++; !yield(r, nil) {
			return nil
		}
	}
	return rows.Err()
}

func rangeSQL(desc bool) string {
	q := `SELECT time, set_id, vals, extra FROM telemetry_default WHERE device_id = ? AND time >= ? AND time < ? ORDER BY time`
	if desc {
		q += ` DESC`
	}
	return q
}

// plan says how a query reads the rows of one layout: what it gives back, and from
// which places of vals and extra.
type plan struct {
	layout         *muster.Layout // nil when none of its keys is wanted
	numbers, texts []int
}

// plan returns what q wants of l.
func planFor(q *ingest.RangeQuery, l *muster.Layout) *plan {
	p := &plan{}
	var keys []muster.Key
	for i, slot := range slots(l) {
		k := l.Keys[i]
		if len(q.Keys) > 0 && !slices.Contains(q.Keys, k.Name) {
			continue
		}
		keys = append(keys, k)
		if k.Kind == muster.JSON {
			p.texts = append(p.texts, slot)
		} else {
			p.numbers = append(p.numbers, slot)
		}
	}
	switch {
	case len(keys) == len(l.Keys) && (len(q.Keys) == 0 || len(keys) > 0):
		p.layout = l
	case len(keys) > 0:
		p.layout = muster.NewLayout(keys)
		p.layout.Loose = l.Loose
	}
	return p
}

// scanner reads the rows of one query.
type scanner struct {
	t     *Telemetry
	conn  *sql.Conn
	q     ingest.RangeQuery
	plans map[int64]*plan // of interned layouts; as many as the device has in the range
}

// reading decodes the current row; ok is false when none of its keys is wanted.
func (s *scanner) reading(ctx context.Context, rows *sql.Rows) (r muster.Reading, ok bool, err error) {
	var at, set int64
	var vals, extra sql.RawBytes
	if err := rows.Scan(&at, &set, &vals, &extra); err != nil {
		return r, false, err
	}
	var p *plan
	if set >= 0 {
		if p, err = s.plan(ctx, set); err != nil || p.layout == nil {
			return r, false, err
		}
	}
	r = muster.Reading{Device: s.q.Device, Time: muster.Micros(at)}
	if p == nil || len(p.texts) > 0 {
		loose, texts, err := decodeExtra(extra, set < 0)
		if err != nil {
			return r, false, fmt.Errorf("read a row's extra: %w", err)
		}
		if p == nil {
			p = planFor(&s.q, loose)
		}
		r.Texts = make([]string, 0, len(p.texts))
		for _, slot := range p.texts {
			if slot >= len(texts) {
				return r, false, errors.New("a row has too few texts")
			}
			r.Texts = append(r.Texts, string(texts[slot]))
		}
	}
	if p.layout == nil {
		return r, false, nil
	}
	r.Layout = p.layout
	r.Numbers = make([]float64, 0, len(p.numbers))
	for _, slot := range p.numbers {
		if 8*slot+8 > len(vals) {
			return r, false, errors.New("a row has too few values")
		}
		r.Numbers = append(r.Numbers, math.Float64frombits(binary.BigEndian.Uint64(vals[8*slot:])))
	}
	return r, true, nil
}

// plan returns the query's plan for an interned set. It asks on the query's own
// connection: waiting for another of the pool while holding one could wait for ever.
func (s *scanner) plan(ctx context.Context, set int64) (*plan, error) {
	if p := s.plans[set]; p != nil {
		return p, nil
	}
	l := s.t.layouts.get(set)
	if l == nil {
		loaded, err := loadLayout(ctx, s.conn, set)
		if err != nil {
			return nil, fmt.Errorf("read a layout: %w", err)
		}
		l = s.t.layouts.put(set, loaded)
	}
	p := planFor(&s.q, l)
	s.plans[set] = p
	return p, nil
}

func loadLayout(ctx context.Context, conn *sql.Conn, set int64) (*muster.Layout, error) {
	rows, err := conn.QueryContext(ctx, `SELECT m.name, m.kind FROM metric_set_key k JOIN metric m ON m.id = k.metric_id WHERE k.set_id = ? ORDER BY k.pos`, set)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has what counts
	var keys []muster.Key
	for rows.Next() {
		var k muster.Key
		if err := rows.Scan(&k.Name, &k.Kind); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return muster.NewLayout(keys), rows.Err()
}
