package postgres

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"

	"muster"
	"muster/ingest"
)

// The names under which ingest_cursor keeps the two cursors.
const (
	writerCursor = "writer"
	latestCursor = "latest"
)

// Append implements ingest.Store. Readings that span more than 64 weeks are stored
// in several transactions, the last of which moves the cursor. It answers Conflict
// when the cursor is not at b.From, Invalid for what the database refuses for good,
// and Unavailable within ctx's deadline, or a minute, when the database does not
// answer; the pool connects again by itself.
func (t *Telemetry) Append(ctx context.Context, b ingest.Batch) ([]ingest.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	if err := check(b.Readings); err != nil {
		return nil, err
	}
	if b.To.Seq > math.MaxInt64 || b.From.Seq > math.MaxInt64 {
		return nil, muster.Errorf(muster.Invalid, "the cursor is beyond 2^63")
	}
	if err := context.Cause(ctx); err != nil {
		return nil, classify("append", err)
	}
	rows, err := t.resolve(ctx, b.Readings)
	if err != nil {
		return nil, err
	}
	out := make([]ingest.Outcome, len(rows))
	parts := split(dedupe(rows, out))
	if len(parts) > 1 && b.From != b.To {
		if err := t.atCursor(ctx, b.From); err != nil {
			return nil, err
		}
	}
	for i, part := range parts {
		u := unit{rows: part, out: out}
		if i == len(parts)-1 {
			u.from, u.to, u.rejected = b.From, b.To, b.Rejected
		}
		if err := t.store(ctx, &u); err != nil {
			return nil, err
		}
	}
	t.trimRejected(ctx, len(b.Rejected))
	return out, nil
}

// Sync implements ingest.Store. It has nothing to do: every commit is flushed to
// disk before it is answered (synchronous_commit = on in every session).
func (t *Telemetry) Sync(context.Context) error { return nil }

// unit is what one transaction stores.
type unit struct {
	rows     []staged
	out      []ingest.Outcome // of the whole batch, by staged.at
	from, to ingest.Cursor    // equal: the cursor stays
	rejected []muster.Rejected
}

// dedupe sorts rows by device, newest first, which is the index's order, and keeps
// of those with one device, time and set the first, against which the database is
// asked, and the last, which it will hold. Outcomes within the batch go to out;
// those of the firsts are the database's to say.
func dedupe(rows []row, out []ingest.Outcome) []staged {
	order := func(a, b staged) int {
		return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(b.Time, a.Time), cmp.Compare(a.set.id, b.set.id))
	}
	all := make([]staged, len(rows))
	for i, r := range rows {
		all[i] = staged{row: r}
	}
	slices.SortFunc(all, func(a, b staged) int { return cmp.Or(order(a, b), cmp.Compare(a.at, b.at)) })
	kept := all[:0]
	for i := range all {
		r := all[i]
		r.first = i == 0 || order(all[i-1], r) != 0
		r.last = i == len(all)-1 || order(r, all[i+1]) != 0
		if !r.first {
			out[r.at] = ingest.Replaced
			if sameValues(all[i-1].Reading, r.Reading) {
				out[r.at] = ingest.Duplicate
			}
		}
		all[i] = r
	}
	for _, r := range all {
		if r.first || r.last {
			kept = append(kept, r)
		}
	}
	return kept
}

// split parts rows so that none touches more than 64 weeks. It returns at least one
// part, which may be empty.
func split(rows []staged) [][]staged {
	weeks := map[int32]int{}
	for i := range rows {
		weeks[weekOf(rows[i].Time)] = 0
	}
	if len(weeks) <= maxWeeks {
		return [][]staged{rows}
	}
	sorted := make([]int32, 0, len(weeks))
	for w := range weeks {
		sorted = append(sorted, w)
	}
	slices.Sort(sorted)
	for i, w := range sorted {
		weeks[w] = i / maxWeeks
	}
	parts := make([][]staged, (len(sorted)+maxWeeks-1)/maxWeeks)
	for _, r := range rows {
		p := weeks[weekOf(r.Time)]
		parts[p] = append(parts[p], r)
	}
	return parts
}

// store runs u's transaction: by COPY straight into the table, and once more through
// a staging table when a row was there already. While batches meet rows that are
// there, as in a replay, they go through staging at once.
func (t *Telemetry) store(ctx context.Context, u *unit) error {
	stage, dropped := t.staging.Load(), false
	for {
		met, err := t.transact(ctx, u, stage)
		switch code := state(err); {
		case err == nil:
			t.staging.Store(met)
			return nil
		case code == stateUniqueViolation && !stage:
			stage = true
		case code == stateCheckViolation && t.partitions != nil && !dropped:
			t.partitions.forget() // retention dropped a partition that we thought was there
			dropped = true
		default:
			return classify("store a batch", err)
		}
	}
}

// transact is one attempt; met says that rows of u were there already.
func (t *Telemetry) transact(ctx context.Context, u *unit, stage bool) (met bool, err error) {
	var created []int32
	err = pgx.BeginTxFunc(ctx, t.write, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if err := moveCursor(ctx, tx, u.from, u.to); err != nil {
			return err
		}
		if t.partitions != nil {
			created = t.partitions.unknown(u.rows)
			if err := ensurePartitions(ctx, tx, created); err != nil {
				return err
			}
		}
		var err error
		if stage {
			met, err = storeStaged(ctx, tx, u)
		} else {
			err = storeNew(ctx, tx, u)
		}
		if err != nil {
			return err
		}
		return keepRejected(ctx, tx, u.rejected)
	})
	if err == nil && t.partitions != nil {
		t.partitions.add(created)
	}
	return met, err
}

// storeNew copies rows that are expected to be new into the table.
func storeNew(ctx context.Context, tx pgx.Tx, u *unit) error {
	rows := u.rows
	for _, r := range u.rows {
		if !r.last {
			rows = lasts(u.rows)
			break
		}
	}
	if len(rows) == 0 {
		return nil
	}
	const into = `COPY telemetry_default (time, device_id, set_id, vals, extra) FROM STDIN (FORMAT binary)`
	if _, err := tx.Conn().PgConn().CopyFrom(ctx, &copyReader{rows: rows}, into); err != nil {
		return fmt.Errorf("copy readings: %w", err)
	}
	for _, r := range u.rows {
		if r.first {
			u.out[r.at] = ingest.Stored
		}
	}
	return nil
}

func lasts(rows []staged) []staged {
	return slices.DeleteFunc(slices.Clone(rows), func(r staged) bool { return !r.last })
}

// atCursor answers Conflict when the writer's cursor is not at c.
func (t *Telemetry) atCursor(ctx context.Context, c ingest.Cursor) error {
	writer, _, err := t.Cursors(ctx)
	if err == nil && writer != c {
		err = conflict(c)
	}
	return err
}

func conflict(from ingest.Cursor) error {
	return muster.Errorf(muster.Conflict, "the writer's cursor is not at %d of %q", from.Seq, from.Incarnation)
}

// moveCursor moves the writer's cursor, and so takes the lock on its row: a second
// writer waits here and then finds the cursor elsewhere.
func moveCursor(ctx context.Context, tx pgx.Tx, from, to ingest.Cursor) error {
	if from == to {
		return nil
	}
	tag, err := tx.Exec(ctx, `UPDATE ingest_cursor SET incarnation = $1, seq = $2 WHERE name = $3 AND incarnation = $4 AND seq = $5`,
		to.Incarnation, int64(to.Seq), writerCursor, from.Incarnation, int64(from.Seq))
	if err == nil && tag.RowsAffected() == 0 && from == (ingest.Cursor{}) {
		tag, err = tx.Exec(ctx, `INSERT INTO ingest_cursor (name, incarnation, seq) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			writerCursor, to.Incarnation, int64(to.Seq))
	}
	if err != nil {
		return fmt.Errorf("move the cursor: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return conflict(from)
	}
	return nil
}

// Cursors implements ingest.Store.
func (t *Telemetry) Cursors(ctx context.Context) (writer, latest ingest.Cursor, err error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	rows, err := t.write.Query(ctx, `SELECT name, incarnation, seq FROM ingest_cursor`)
	err = collect(rows, err, func() error {
		var name string
		var c ingest.Cursor
		err := rows.Scan(&name, &c.Incarnation, &c.Seq)
		switch name {
		case writerCursor:
			writer = c
		case latestCursor:
			latest = c
		}
		return err
	})
	if err != nil {
		return ingest.Cursor{}, ingest.Cursor{}, classify("read the cursors", err)
	}
	return writer, latest, nil
}
