package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"

	"muster"
	"muster/ingest"
)

// A page is what one statement of a range reads: a slow reader holds no connection
// and no snapshot between two, and memory is bounded by one page.
const (
	pageRows  = 1000
	pageBytes = 4 << 20
)

// wanted are the key names of a query; nil means all.
type wanted map[string]bool

func (w wanted) key(name string) bool { return w == nil || w[name] }

// Range implements ingest.RangeStore. It reads page by page, so that memory stays
// constant however long the range; rows that are stored meanwhile may be seen. Times
// outside the years 1 to 9999 are cut to them.
func (t *Telemetry) Range(ctx context.Context, q ingest.RangeQuery) iter.Seq2[muster.Reading, error] {
	return func(yield func(muster.Reading, error) bool) {
		r, err := t.newRanger(ctx, q)
		if err != nil {
			yield(muster.Reading{}, classify("look up a range", err))
			return
		}
		for given := 0; r != nil; {
			page, err := r.page(ctx, q.Limit-given)
			if err != nil {
				yield(muster.Reading{}, classify("read a range", err))
				return
			}
			for _, reading := range page {
				if !yield(reading, nil) {
					return
				}
			}
			if given += len(page); r.ended || q.Limit > 0 && given >= q.Limit {
				return
			}
		}
	}
}

// ranger is a range under way.
type ranger struct {
	t       *Telemetry
	q       ingest.RangeQuery
	device  int32
	want    wanted
	names   []string
	metrics []int32 // the wanted keys' metrics
	numbers []int32 // those of them that are numbers or booleans: what vals holds
	sql     string
	views   map[int32]*view // of this range's layouts, at most 1,000
	at      muster.Micros   // where the last page ended
	set     int32
	ended   bool
}

// newRanger returns nil when there is nothing to read.
func (t *Telemetry) newRanger(ctx context.Context, q ingest.RangeQuery) (*ranger, error) {
	q.From, q.To = max(q.From, minTime), min(q.To, endTime)
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if q.From >= q.To {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	r := &ranger{t: t, q: q, views: map[int32]*view{}, at: q.From, set: math.MaxInt32}
	if q.Desc {
		r.at, r.set = q.To-1, math.MinInt32
	}
	err := t.read.QueryRow(ctx, `SELECT id FROM telemetry_device WHERE name = $1`, q.Device).Scan(&r.device)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the device: %w", err)
	}
	r.sql = rangeSQL(q.Desc, len(q.Keys) > 0)
	if len(q.Keys) > 0 {
		err = r.wantKeys(ctx)
	}
	return r, err
}

// wantKeys finds the metrics of the wanted keys.
func (r *ranger) wantKeys(ctx context.Context) error {
	r.want = wanted{}
	for _, k := range r.q.Keys {
		if !r.want[k] {
			r.names = append(r.names, plainText(k))
		}
		r.want[k] = true
	}
	rows, err := r.t.read.Query(ctx, `SELECT id, kind FROM metric WHERE name = ANY($1::text[])`, r.names)
	return collect(rows, err, func() error {
		var id int32
		var kind int16
		err := rows.Scan(&id, &kind)
		r.metrics = append(r.metrics, id)
		if muster.ValueKind(kind) != muster.JSON {
			r.numbers = append(r.numbers, id)
		}
		return err
	})
}

// rangeSQL is the statement of one page: what lies beyond (at, set) in the index's
// order, backward when oldest first. With keys, only rows that have one of them, and
// of those only the wanted values, vals in the order of $8.
func rangeSQL(desc, keys bool) string {
	const all = `SELECT t.time, t.set_id, t.vals, t.extra FROM telemetry_default t `
	const some = `SELECT t.time, t.set_id,
		ARRAY(SELECT t.vals[array_position(s.metric_ids, w.id)] FROM unnest($8::int[]) WITH ORDINALITY AS w(id, n) ORDER BY w.n),
		CASE WHEN t.set_id < 0 OR t.extra IS NULL THEN t.extra
			ELSE (SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(t.extra) e WHERE e.key = ANY($7::text[])) END
		FROM telemetry_default t LEFT JOIN metric_set s ON s.id = t.set_id `
	const having = `AND (s.metric_ids && $6::int[] OR
		(t.set_id < 0 AND (t.extra->'n' ?| $7::text[] OR t.extra->'b' ?| $7::text[] OR t.extra->'j' ?| $7::text[]))) `
	const newest = `WHERE t.device_id = $1 AND t.time >= $2 AND t.time <= $3 AND (t.time < $3 OR t.set_id > $4) `
	const oldest = `WHERE t.device_id = $1 AND t.time < $2 AND t.time >= $3 AND (t.time > $3 OR t.set_id < $4) `
	sql, order := all, `ORDER BY t.time, t.set_id DESC LIMIT $5`
	if keys {
		sql = some
	}
	if desc {
		sql, order = sql+newest, `ORDER BY t.time DESC, t.set_id LIMIT $5`
	} else {
		sql += oldest
	}
	if keys {
		sql += having
	}
	return sql + order
}

// rawRow is a row as it came.
type rawRow struct {
	at          muster.Micros
	set         int32
	vals, extra []byte
}

// page reads the next rows, at most left when there is a limit.
func (r *ranger) page(ctx context.Context, left int) ([]muster.Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	limit := pageRows
	if r.q.Limit > 0 {
		limit = min(limit, left)
	}
	raw, err := r.fetch(ctx, limit)
	if err != nil {
		return nil, err
	}
	if err := r.learn(ctx, raw); err != nil {
		return nil, err
	}
	out := make([]muster.Reading, 0, len(raw))
	for i := range raw {
		reading, err := r.decode(&raw[i])
		if err != nil {
			return nil, err
		}
		if len(r.want) == 0 || len(reading.Layout.Keys) > 0 {
			out = append(out, reading)
		}
	}
	return out, nil
}

// fetch reads rows until the page is full by number or by size.
func (r *ranger) fetch(ctx context.Context, limit int) ([]rawRow, error) {
	other := r.q.To
	if r.q.Desc {
		other = r.q.From
	}
	args := []any{pgx.QueryResultFormats{pgx.BinaryFormatCode}, r.device, other.Time(), r.at.Time(), r.set, limit}
	if r.want != nil {
		args = append(args, r.metrics, r.names, r.numbers)
	}
	rows, err := r.t.read.Query(ctx, r.sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []rawRow
	for size := 0; size < pageBytes && rows.Next(); {
		v := rows.RawValues()
		row := rawRow{
			at: muster.Micros(be.Uint64(v[0])) + pgEpoch, set: int32(be.Uint32(v[1])),
			vals: slices.Clone(v[2]), extra: slices.Clone(v[3]),
		}
		size += len(row.vals) + len(row.extra)
		out = append(out, row)
	}
	full := rows.Next() // the rest of a page that is full by size is read by the next
	rows.Close()
	if err := rows.Err(); err != nil {
		return nil, err
	}
	r.ended = !full && len(out) < limit
	if len(out) > 0 {
		r.at, r.set = out[len(out)-1].at, out[len(out)-1].set
	}
	return out, nil
}

// decode makes a reading of a row whose layout is known.
func (r *ranger) decode(row *rawRow) (muster.Reading, error) {
	out := muster.Reading{Device: r.q.Device, Time: row.at} // the arrival is not kept
	if len(row.extra) > 0 {
		row.extra = row.extra[1:] // jsonb's version
	}
	if row.set < 0 {
		err := decodeLoose(row.extra, r.want, &out)
		return out, err
	}
	vals, err := decodeNumbers(row.vals)
	if err != nil {
		return out, err
	}
	v := r.views[row.set]
	out.Layout = v.layout
	if out.Numbers, err = v.pick(vals); err != nil {
		return out, err
	}
	out.Texts, err = v.texts(row.extra)
	return out, err
}
