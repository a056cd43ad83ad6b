package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/jackc/pgx/v5"

	"muster"
)

// intern fills m with ids from the database, inserting names that are not there.
func (t *Telemetry) intern(ctx context.Context, m missing) error {
	if err := t.internDevices(ctx, m.devices); err != nil {
		return err
	}
	if err := t.internMetrics(ctx, m.metrics); err != nil {
		return err
	}
	return t.internSets(ctx, m)
}

func (t *Telemetry) internDevices(ctx context.Context, want map[muster.DeviceID]int32) error {
	return ensure(want, func(names []muster.DeviceID, insert bool) error {
		slices.Sort(names) // two processes lock in the same order
		if insert {
			_, err := t.write.Exec(ctx, `INSERT INTO telemetry_device (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`, names)
			return err
		}
		rows, err := t.write.Query(ctx, `SELECT name, id FROM telemetry_device WHERE name = ANY($1::text[])`, names)
		return collect(rows, err, func() error {
			var name muster.DeviceID
			var id int32
			err := rows.Scan(&name, &id)
			want[name] = id
			return err
		})
	})
}

func (t *Telemetry) internMetrics(ctx context.Context, want map[muster.Key]int32) error {
	return ensure(want, func(keys []muster.Key, insert bool) error {
		slices.SortFunc(keys, muster.CompareKeys)
		names, kinds := make([]string, len(keys)), make([]int16, len(keys))
		for i, k := range keys {
			names[i], kinds[i] = k.Name, int16(k.Kind)
		}
		const given = `unnest($1::text[], $2::smallint[]) AS g(name, kind)`
		if insert {
			_, err := t.write.Exec(ctx, `INSERT INTO metric (name, kind) SELECT name, kind FROM `+given+` ON CONFLICT DO NOTHING`, names, kinds)
			return err
		}
		rows, err := t.write.Query(ctx, `SELECT m.name, m.kind, m.id FROM `+given+` JOIN metric m USING (name, kind)`, names, kinds)
		return collect(rows, err, func() error {
			var k muster.Key
			var id int32
			err := rows.Scan(&k.Name, &k.Kind, &id)
			want[k] = id
			return err
		})
	})
}

// internSets gives the layouts in m their sets. Layouts with equal keys share one.
func (t *Telemetry) internSets(ctx context.Context, m missing) error {
	byDigest := map[[32]byte][]*muster.Layout{}
	ids := map[[32]byte]int32{}
	for l := range m.sets {
		d := digest(metricIDs(l, m.metrics))
		byDigest[d] = append(byDigest[d], l)
		ids[d] = 0
	}
	err := ensure(ids, func(digests [][32]byte, insert bool) error {
		slices.SortFunc(digests, func(a, b [32]byte) int { return slices.Compare(a[:], b[:]) })
		raw := make([][]byte, len(digests))
		batch := &pgx.Batch{}
		for i, d := range digests {
			raw[i] = d[:]
			batch.Queue(`INSERT INTO metric_set (metric_ids, digest) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
				metricIDs(byDigest[d][0], m.metrics), raw[i])
		}
		if insert {
			return t.write.SendBatch(ctx, batch).Close()
		}
		rows, err := t.write.Query(ctx, `SELECT digest, id FROM metric_set WHERE digest = ANY($1)`, raw)
		return collect(rows, err, func() error {
			var d []byte
			var id int32
			err := rows.Scan(&d, &id)
			ids[[32]byte(d)] = id
			return err
		})
	})
	for d, ls := range byDigest {
		for _, l := range ls {
			m.sets[l] = &set{id: ids[d], labels: labels(l)}
		}
	}
	return err
}

// ensure fills the zero ids of want: it selects what is there, inserts what is
// not, and selects that. do runs one of the statements for the given names.
func ensure[K comparable](want map[K]int32, do func(names []K, insert bool) error) error {
	for _, insert := range []bool{false, true, false} {
		var open []K
		for k, id := range want {
			if id == 0 {
				open = append(open, k)
			}
		}
		if len(open) == 0 {
			return nil
		}
		if err := do(open, insert); err != nil {
			return err
		}
	}
	return nil
}

// collect calls each for every row and closes rows.
func collect(rows pgx.Rows, err error, each func() error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// metricIDs are the ids of l's keys as metric_set has them: numbers and booleans
// first, so that they lie beside vals, then the JSON keys.
func metricIDs(l *muster.Layout, ids map[muster.Key]int32) []int32 {
	out := make([]int32, 0, len(l.Keys))
	for _, k := range l.Keys {
		if k.Kind != muster.JSON {
			out = append(out, ids[k])
		}
	}
	for _, k := range l.Keys {
		if k.Kind == muster.JSON {
			out = append(out, ids[k])
		}
	}
	return out
}

func digest(ids []int32) [32]byte {
	b := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		b = binary.BigEndian.AppendUint32(b, uint32(id))
	}
	return sha256.Sum256(b)
}
