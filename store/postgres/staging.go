package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"muster/ingest"
)

// The staging table lives as long as its connection and is emptied at each commit.
const createStage = `CREATE TEMP TABLE IF NOT EXISTS telemetry_stage (
	at int NOT NULL, first bool NOT NULL,
	time timestamptz NOT NULL, device_id int NOT NULL, set_id int NOT NULL, vals float8[] NOT NULL, extra jsonb,
	last bool NOT NULL) ON COMMIT DELETE ROWS`

// The planner knows nothing of the staging table and might scan all telemetry for
// it; a few thousand look-ups in the index are always right.
const planLookups = `SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off`

// storeStaged stores rows some of which may be in the table: equal ones are left,
// others take the values of the last in log order. It reports whether any was there.
func storeStaged(ctx context.Context, tx pgx.Tx, u *unit) (met bool, err error) {
	if len(u.rows) == 0 {
		return false, nil
	}
	if _, err := tx.Exec(ctx, createStage+"; "+planLookups, pgx.QueryExecModeSimpleProtocol); err != nil {
		return false, fmt.Errorf("create the staging table: %w", err)
	}
	const into = `COPY telemetry_stage (at, first, time, device_id, set_id, vals, extra, last) FROM STDIN (FORMAT binary)`
	if _, err := tx.Conn().PgConn().CopyFrom(ctx, &copyReader{rows: u.rows, stage: true}, into); err != nil {
		return false, fmt.Errorf("copy readings into staging: %w", err)
	}
	there, err := compare(ctx, tx, u)
	if err != nil {
		return false, fmt.Errorf("compare with what is stored: %w", err)
	}
	write := toWrite(u, there)
	if len(write) == 0 {
		return true, nil
	}
	_, err = tx.Exec(ctx, `INSERT INTO telemetry_default (time, device_id, set_id, vals, extra)
		SELECT time, device_id, set_id, vals, extra FROM telemetry_stage WHERE last AND at = ANY($1)
		ON CONFLICT (device_id, time, set_id) DO UPDATE SET vals = excluded.vals, extra = excluded.extra`, write)
	if err != nil {
		return false, fmt.Errorf("store what is new: %w", err)
	}
	return len(there) > 0, nil
}

// compare gives the outcomes of the firsts and returns, for each that has a row in
// the table, whether that row is equal.
func compare(ctx context.Context, tx pgx.Tx, u *unit) (there map[int32]bool, err error) {
	low, high := u.rows[0].Time, u.rows[0].Time
	for _, r := range u.rows {
		low, high = min(low, r.Time), max(high, r.Time)
		if r.first {
			u.out[r.at] = ingest.Stored
		}
	}
	there = map[int32]bool{}
	// LATERAL with a LIMIT keeps the stage outside: with statistics that end before
	// the batch's times the planner would scan the stage once per row of the table.
	rows, err := tx.Query(ctx, `SELECT s.at, t.vals = s.vals AND t.extra IS NOT DISTINCT FROM s.extra
		FROM telemetry_stage s CROSS JOIN LATERAL (
			SELECT vals, extra FROM telemetry_default t
			WHERE t.device_id = s.device_id AND t.time = s.time AND t.set_id = s.set_id
			AND t.time BETWEEN $1 AND $2 LIMIT 1) t
		WHERE s.first`, low.Time(), high.Time())
	err = collect(rows, err, func() error {
		var at int32
		var equal bool
		if err := rows.Scan(&at, &equal); err != nil {
			return err
		}
		there[at] = equal
		u.out[at] = ingest.Replaced
		if equal {
			u.out[at] = ingest.Duplicate
		}
		return nil
	})
	return there, err
}

// toWrite returns the places of the lasts that the table does not hold: all but
// those which are also first and equal.
func toWrite(u *unit, there map[int32]bool) []int32 {
	var out []int32
	for _, r := range u.rows {
		if r.last && (!r.first || !there[int32(r.at)]) {
			out = append(out, int32(r.at))
		}
	}
	return out
}
