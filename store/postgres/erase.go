package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"muster"
)

// What one Erase deletes at most.
const (
	eraseRows     = 5000
	eraseRejected = 1000
)

// Erase implements ingest.Eraser. Rejected messages go first, then the readings from the
// newest to the oldest, in at most 64 chunks or partitions, and the device's id at
// last. The server's vacuum frees the space.
func (t *Telemetry) Erase(ctx context.Context, device muster.DeviceID) (left bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	if err := context.Cause(ctx); err != nil {
		return true, classify("erase a device", err)
	}
	defer t.names.forget(device) // also when the commit's answer was lost
	err = pgx.BeginTxFunc(ctx, t.write, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) (err error) {
		left, err = t.erase(ctx, tx, device)
		return err
	})
	if err != nil {
		return true, classify("erase a device", err)
	}
	return left, nil
}

func (t *Telemetry) erase(ctx context.Context, tx pgx.Tx, device muster.DeviceID) (left bool, err error) {
	if err := bury(ctx, tx, device); err != nil {
		return true, err
	}
	tag, err := tx.Exec(ctx, `DELETE FROM rejected WHERE id IN (SELECT id FROM rejected WHERE device = $1 LIMIT $2)`, device, eraseRejected)
	if err != nil {
		return true, fmt.Errorf("delete rejected messages: %w", err)
	}
	if tag.RowsAffected() == eraseRejected {
		return true, nil
	}
	var g grave
	err = tx.QueryRow(ctx, `SELECT device_id, coalesce(before, $2) FROM erased_device WHERE name = $1 LIMIT 1 FOR UPDATE`, device, endTime).
		Scan(&g.device, &g.before)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("find the buried device: %w", err)
	}
	return t.eraseReadings(ctx, tx, g)
}

// bury takes the device's name off its rows, so that nothing finds them any more, and
// deletes its latest values.
func bury(ctx context.Context, tx pgx.Tx, device muster.DeviceID) error {
	_, err := tx.Exec(ctx, `WITH gone AS (DELETE FROM telemetry_device WHERE name = $1 RETURNING id, name)
		INSERT INTO erased_device (device_id, name) SELECT id, name FROM gone`, device)
	if err != nil {
		return fmt.Errorf("bury the device: %w", err)
	}
	_, err = tx.Exec(ctx, `DELETE FROM latest WHERE device_id IN (SELECT device_id FROM erased_device WHERE name = $1)`, device)
	if err != nil {
		return fmt.Errorf("delete latest values: %w", err)
	}
	return nil
}

// grave is a buried device, whose readings from before on are deleted.
type grave struct {
	device int32
	before muster.Micros
}

// eraseReadings deletes the newest readings that are left. It does so table by table: a
// DELETE from a hypertable locks every chunk, whatever its condition.
func (t *Telemetry) eraseReadings(ctx context.Context, tx pgx.Tx, g grave) (left bool, err error) {
	parts, err := t.partsBefore(ctx, tx, g.before)
	if err != nil {
		return true, err
	}
	if _, err := tx.Exec(ctx, planLookups, pgx.QueryExecModeSimpleProtocol); err != nil {
		return true, fmt.Errorf("plan look-ups: %w", err)
	}
	room := int64(eraseRows)
	for _, p := range parts {
		if g.before, err = p.erase(ctx, tx, &g, &room); err != nil {
			return true, fmt.Errorf("delete readings from %s: %w", p.table, err)
		}
		if room == 0 {
			break
		}
	}
	if left = room == 0 || len(parts) == maxWeeks; left {
		_, err = tx.Exec(ctx, `UPDATE erased_device SET before = $2 WHERE device_id = $1`, g.device, g.before)
	} else {
		_, err = tx.Exec(ctx, `DELETE FROM erased_device WHERE device_id = $1`, g.device)
	}
	if err != nil {
		return true, fmt.Errorf("note how far it came: %w", err)
	}
	return left, nil
}

// part is a chunk or partition.
type part struct {
	table  string // as SQL has it
	low    muster.Micros
	sealed bool // by the extension: its rows can be deleted through the hypertable only
}

// erase deletes readings of a device that are before g.before, the newest first and no
// more than room, which it lessens, and returns from where on nothing is left.
func (p *part) erase(ctx context.Context, tx pgx.Tx, g *grave, room *int64) (before muster.Micros, err error) {
	if p.sealed {
		_, err := tx.Exec(ctx, `DELETE FROM telemetry_default WHERE device_id = $1 AND time >= $2 AND time < $3`,
			pgx.QueryExecModeExec, g.device, p.low.Time(), g.before.Time())
		return p.low, err
	}
	var n int64
	var oldest *int64
	err = tx.QueryRow(ctx, `WITH gone AS (DELETE FROM `+p.table+` WHERE ctid = ANY(ARRAY(
			SELECT ctid FROM `+p.table+` WHERE device_id = $1 AND time < $2 ORDER BY time DESC, set_id LIMIT $3)) RETURNING time)
		SELECT count(*), (extract(epoch FROM min(time)) * 1000000)::bigint FROM gone`,
		pgx.QueryExecModeExec, g.device, g.before.Time(), *room).Scan(&n, &oldest)
	if err != nil {
		return 0, err
	}
	if *room -= n; *room > 0 || oldest == nil {
		return p.low, nil
	}
	return muster.Micros(*oldest) + 1, nil // more of that very time may be left
}

// Which chunks or partitions there are; a partition for all other times has no bounds
// and is not among them.
const (
	chunkParts = `SELECT format('%I.%I', chunk_schema, chunk_name), range_start, is_compressed FROM timescaledb_information.chunks
		WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = 'telemetry_default'::regclass`
	partitionParts = `SELECT c.oid::regclass::text, (regexp_match(pg_get_expr(c.relpartbound, c.oid), $$FROM \('(.*)'\) TO$$))[1]::timestamptz, false
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'telemetry_default'::regclass`
)

// partsBefore returns the newest chunks or partitions with times before the given one,
// at most maxWeeks, the newest first.
func (t *Telemetry) partsBefore(ctx context.Context, tx pgx.Tx, before muster.Micros) ([]part, error) {
	all := chunkParts
	if !t.info.Hypertable {
		all = partitionParts
	}
	rows, err := tx.Query(ctx, `SELECT p.name, (extract(epoch FROM p.low) * 1000000)::bigint, p.sealed FROM (`+all+`) AS p(name, low, sealed)
		WHERE p.low < $1 ORDER BY p.low DESC LIMIT $2`, before.Time(), maxWeeks)
	var out []part
	err = collect(rows, err, func() error {
		var p part
		err := rows.Scan(&p.table, &p.low, &p.sealed)
		out = append(out, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for chunks: %w", err)
	}
	return out, nil
}
