package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// chunks are the sizes of the multi-row inserts, largest first: fewer, longer
// statements spend less time between Go and SQLite.
var chunks = [...]int{64, 8, 1}

// statements are prepared once on the write connection.
type statements struct {
	insert                     [len(chunks)]*sql.Stmt
	find, replace              *sql.Stmt
	findDevice, insertDevice   *sql.Stmt
	findMetric, insertMetric   *sql.Stmt
	findSet, insertSet, setKey *sql.Stmt
	findCursor, moveCursor     *sql.Stmt
	reject, saveLatest         *sql.Stmt
}

func prepare(ctx context.Context, db *sql.DB) (statements, error) {
	var s statements
	var errs []error
	p := func(query string) *sql.Stmt {
		stmt, err := db.PrepareContext(ctx, query)
		if err != nil {
			errs = append(errs, fmt.Errorf("prepare %q: %w", query, err))
		}
		return stmt
	}
	for i, n := range chunks {
		s.insert[i] = p(insertSQL(n))
	}
	s.find = p(`SELECT rowid, vals, extra FROM telemetry_default WHERE device_id = ? AND time = ? AND set_id = ?`)
	s.replace = p(`UPDATE telemetry_default SET vals = ?, extra = ? WHERE rowid = ?`)
	s.findDevice = p(`SELECT id FROM device WHERE name = ?`)
	// An id is not used again while rows of the device that had it may be left.
	s.insertDevice = p(`INSERT INTO device (id, name) VALUES (1 + max(
		(SELECT coalesce(max(id), 0) FROM device), (SELECT coalesce(max(device_id), 0) FROM erased_device)), ?)`)
	s.findMetric = p(`SELECT id FROM metric WHERE name = ? AND kind = ?`)
	s.insertMetric = p(`INSERT INTO metric (name, kind) VALUES (?, ?)`)
	s.findSet = p(`SELECT id FROM metric_set WHERE keys = ?`)
	s.insertSet = p(`INSERT INTO metric_set (keys) VALUES (?)`)
	s.setKey = p(`INSERT INTO metric_set_key (set_id, pos, metric_id, slot) VALUES (?, ?, ?, ?)`)
	s.findCursor = p(`SELECT incarnation, seq FROM ingest_cursor WHERE name = ?`)
	s.moveCursor = p(`INSERT INTO ingest_cursor (name, incarnation, seq) VALUES (?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation, seq = excluded.seq`)
	s.reject = p(`INSERT INTO rejected (device, arrival, digest, topic, code, reason, payload, size)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`)
	s.saveLatest = p(`INSERT INTO latest (device_id, vals) VALUES (?, ?)
		ON CONFLICT (device_id) DO UPDATE SET vals = excluded.vals`)
	return s, errors.Join(errs...)
}

// insertSQL leaves out rows that are there already. OR IGNORE, unlike ON CONFLICT
// DO NOTHING, cannot abort half way, and so needs no statement journal.
func insertSQL(n int) string {
	return `INSERT OR IGNORE INTO telemetry_default (time, device_id, set_id, vals, extra) VALUES ` +
		strings.Join(slices.Repeat([]string{"(?,?,?,?,?)"}, n), ",")
}

func (s *statements) close() error {
	var errs []error
	for _, stmt := range append(s.insert[:], s.find, s.replace, s.findDevice, s.insertDevice, s.findMetric, s.insertMetric,
		s.findSet, s.insertSet, s.setKey, s.findCursor, s.moveCursor, s.reject, s.saveLatest) {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

// update is one write transaction under way.
type update struct {
	t     *Telemetry
	ctx   context.Context // the caller's, looked at between statements
	quiet context.Context // without its end: the driver starts a goroutine for each statement that could be cancelled
	tx    *sql.Tx
	bound map[*sql.Stmt]*sql.Stmt
	fresh names // what this transaction interned, kept only if it commits
}

// update runs fn in a write transaction, alone, and committed, which may be nil,
// after its commit. Nothing of it is kept when fn or the commit fails.
func (t *Telemetry) update(ctx context.Context, fn func(u *update) error, committed func()) error {
	select {
	case <-t.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { t.turn <- struct{}{} }()
	tx, err := t.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	u := &update{t: t, ctx: ctx, quiet: context.WithoutCancel(ctx), tx: tx, bound: map[*sql.Stmt]*sql.Stmt{}, fresh: newNames()}
	if err := fn(u); err != nil {
		_ = tx.Rollback() // fails only when the context ended, which rolled back
		return u.ended(err)
	}
	if err := tx.Commit(); err != nil {
		return u.ended(fmt.Errorf("commit: %w", err))
	}
	t.names.merge(&u.fresh)
	if committed != nil {
		committed()
	}
	return nil
}

// ended returns the context's error in err's place when the context ended the
// transaction.
func (u *update) ended(err error) error {
	if errors.Is(err, sql.ErrTxDone) && u.ctx.Err() != nil {
		return u.ctx.Err()
	}
	return err
}

func (u *update) stmt(s *sql.Stmt) *sql.Stmt {
	b, ok := u.bound[s]
	if !ok {
		b = u.tx.StmtContext(u.quiet, s)
		u.bound[s] = b
	}
	return b
}

func (u *update) exec(s *sql.Stmt, args ...any) (sql.Result, error) {
	return u.stmt(s).ExecContext(u.quiet, args...) //nolint:sqlclosecheck // the transaction closes it
}

// scan reads one row into dest; it reports whether there was one.
func (u *update) scan(s *sql.Stmt, args []any, dest ...any) (bool, error) {
	err := u.stmt(s).QueryRowContext(u.quiet, args...).Scan(dest...) //nolint:sqlclosecheck // the transaction closes it
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// findOrInsert returns the id of the row that find selects, inserting it first when
// it is not there.
func (u *update) findOrInsert(find, insert *sql.Stmt, args ...any) (id int64, inserted bool, err error) {
	found, err := u.scan(find, args, &id)
	if err != nil || found {
		return id, false, err
	}
	res, err := u.exec(insert, args...)
	if err != nil {
		return 0, false, err
	}
	id, err = res.LastInsertId()
	return id, true, err
}
