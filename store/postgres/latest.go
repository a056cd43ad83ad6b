package postgres

import (
	"context"
	"iter"
	"maps"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"muster"
	"muster/ingest"
)

// latestPage is how many rows of the latest values one statement writes or reads.
const latestPage = 2000

// SaveLatest implements ingest.LatestStore. Of two rows of one device the last is
// kept.
func (t *Telemetry) SaveLatest(ctx context.Context, rows []ingest.LatestRow, c ingest.Cursor) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	if err := context.Cause(ctx); err != nil {
		return classify("save the latest values", err)
	}
	if c.Seq > math.MaxInt64 {
		return muster.Errorf(muster.Invalid, "the cursor is beyond 2^63")
	}
	newest := map[muster.DeviceID]int{}
	for i, r := range rows {
		newest[r.Device] = i
	}
	ids, err := t.deviceIDs(ctx, newest)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, t.write, func(tx pgx.Tx) error {
		for from := 0; from < len(rows); from += latestPage {
			p := latestUpsert{}
			for i := from; i < min(from+latestPage, len(rows)); i++ {
				if newest[rows[i].Device] != i {
					continue
				}
				if err := p.add(ids[rows[i].Device], rows[i].Values); err != nil {
					return err
				}
			}
			if err := p.run(ctx, tx); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `INSERT INTO ingest_cursor (name, incarnation, seq) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation, seq = excluded.seq`, latestCursor, c.Incarnation, int64(c.Seq))
		return err
	})
	return classify("save the latest values", err)
}

// deviceIDs returns the ids of the devices named in of, interning new ones.
func (t *Telemetry) deviceIDs(ctx context.Context, of map[muster.DeviceID]int) (map[muster.DeviceID]int32, error) {
	ids := make(map[muster.DeviceID]int32, len(of))
	miss := missing{devices: map[muster.DeviceID]int32{}}
	t.names.mu.Lock()
	for d := range of {
		id, ok := t.names.devices.get(d)
		if ids[d] = id; !ok {
			miss.devices[d] = 0
		}
	}
	t.names.mu.Unlock()
	if len(miss.devices) == 0 {
		return ids, nil
	}
	if err := t.internDevices(ctx, miss.devices); err != nil {
		return nil, classify("intern devices", err)
	}
	t.names.add(miss)
	maps.Copy(ids, miss.devices)
	return ids, nil
}

// latestUpsert is one page of latest values by column.
type latestUpsert struct {
	ids   []int32
	times []time.Time
	vals  []string
}

func (u *latestUpsert) add(id int32, values []ingest.LatestValue) error {
	newest := minTime
	for _, v := range values {
		newest = max(newest, min(v.Time, v.Arrival))
	}
	u.ids = append(u.ids, id)
	u.times = append(u.times, min(newest, endTime-1).Time())
	b, err := encodeLatest(values)
	u.vals = append(u.vals, string(b))
	return err
}

func (u *latestUpsert) run(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `INSERT INTO latest (device_id, time, vals)
		SELECT * FROM unnest($1::int[], $2::timestamptz[], $3::jsonb[])
		ON CONFLICT (device_id) DO UPDATE SET time = excluded.time, vals = excluded.vals`, u.ids, u.times, u.vals)
	return err
}

// LoadLatest implements ingest.LatestStore. It reads page by page, so that no
// connection is held while the caller works.
func (t *Telemetry) LoadLatest(ctx context.Context) iter.Seq2[ingest.LatestRow, error] {
	return func(yield func(ingest.LatestRow, error) bool) {
		for after := int32(0); ; {
			page, last, err := t.latestPage(ctx, after)
			if err != nil {
				yield(ingest.LatestRow{}, classify("load the latest values", err))
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
			if len(page) < latestPage {
				return
			}
			after = last
		}
	}
}

// latestPage returns the rows after the device with the given id, and the last id.
func (t *Telemetry) latestPage(ctx context.Context, after int32) (page []ingest.LatestRow, last int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	rows, err := t.read.Query(ctx, `SELECT l.device_id, d.name, l.vals::text FROM latest l
		JOIN telemetry_device d ON d.id = l.device_id WHERE l.device_id > $1 ORDER BY l.device_id LIMIT $2`, after, latestPage)
	err = collect(rows, err, func() error {
		var r ingest.LatestRow
		var vals []byte
		if err := rows.Scan(&last, &r.Device, &vals); err != nil {
			return err
		}
		var err error
		r.Values, err = decodeLatest(vals)
		page = append(page, r)
		return err
	})
	return page, last, err
}
