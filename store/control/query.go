package control

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"muster"
	"muster/audit"
	"muster/feed"
	"muster/once"
	"muster/tasks"
)

// maxParams is how many placeholders one statement uses at most. SQLite's driver
// looks each one up among all: 300 insert six times as fast as 5,000, and on
// PostgreSQL the difference is small.
const maxParams = 300

// change runs do in one write transaction, and writes there what was noted under ctx, and the
// step of a task that it does.
func (c *Control) change(ctx context.Context, doing string, do func(ctx context.Context, tx *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	tx, err := c.db.Write.BeginTx(ctx, nil)
	if err != nil {
		forgetNotes(ctx)
		return failed(doing, err)
	}
	step := tasks.StepOf(ctx)
	err = do(ctx, tx)
	var events []feed.Event
	if err == nil {
		err = keepStep(ctx, tx, step)
	}
	if err == nil {
		err = claim(ctx, tx)
	}
	if err == nil {
		events, err = c.notes(ctx, tx)
	}
	if err != nil {
		forgetNotes(ctx)
		_ = tx.Rollback() // a failed rollback ends the connection, and the transaction with it
		return failed(doing, err)
	}
	if err := tx.Commit(); err != nil {
		return failed(doing, err)
	}
	step.Taken()
	if c := once.Of(ctx); c != nil {
		c.Written()
	}
	if len(events) > 0 {
		c.onEvents(events)
	}
	return nil
}

// Codes of PostgreSQL (its manual, appendix A) that end a transaction because of another
// one that ran beside it.
const (
	foreignKey = "23503"
	deadlock   = "40P01"
)

// maxTries is how often a change is tried that meets others.
const maxTries = 20

// changeOfDevices is change for rows of devices that leaves out those that are not
// there: one that is deleted by another transaction after do has seen it breaks the
// foreign key on PostgreSQL, and the next try sees that it is gone. SQLite has one
// writer. do may run several times.
func (c *Control) changeOfDevices(ctx context.Context, doing string, do func(ctx context.Context, tx *sql.Tx) error) error {
	return c.changeAgain(ctx, doing, do, foreignKey, deadlock)
}

// changeBeside is change for rows that others change at the same time in another order: on
// PostgreSQL one of them fails, and is tried again. do may run several times.
func (c *Control) changeBeside(ctx context.Context, doing string, do func(ctx context.Context, tx *sql.Tx) error) error {
	return c.changeAgain(ctx, doing, do, deadlock)
}

// changeAgain is change that is tried again while it fails with one of codes.
func (c *Control) changeAgain(ctx context.Context, doing string, do func(ctx context.Context, tx *sql.Tx) error, codes ...string) error {
	records, events := audit.Of(ctx).Take(), feed.Of(ctx).Take()
	for try := 1; ; try++ {
		audit.Of(ctx).Put(records)
		feed.Note(ctx, events...)
		err := c.change(ctx, doing, do)
		if err == nil || try == maxTries || ctx.Err() != nil || !slices.Contains(codes, sqlState(err)) {
			return err
		}
	}
}

// sqlState is the code of a PostgreSQL error, else empty.
func sqlState(err error) string {
	type coded interface {
		error
		SQLState() string
	}
	if e, ok := errors.AsType[coded](err); ok {
		return e.SQLState()
	}
	return ""
}

// Codes of a row that is there already: PostgreSQL's, and SQLite's for a unique index and
// for a primary key (its sqlite3.h).
const (
	uniqueViolation  = "23505"
	constraintUnique = 2067
	constraintKey    = 1555
)

// taken says whether err is of a row that is there already.
func taken(err error) bool {
	type coded interface {
		error
		Code() int
	}
	if e, ok := errors.AsType[coded](err); ok {
		return e.Code() == constraintUnique || e.Code() == constraintKey
	}
	return sqlState(err) == uniqueViolation
}

// exec runs one statement and returns how many rows it changed.
func exec(ctx context.Context, tx *sql.Tx, query string, args ...any) (int64, error) {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, fmt.Errorf("change rows: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("count changed rows: %w", err)
	}
	return n, nil
}

// insertAll inserts rows of the given columns, many per statement, and answers
// Conflict when one of them is there already. Nothing but the primary key may
// conflict in table.
func insertAll(ctx context.Context, tx *sql.Tx, table, columns string, width int, rows [][]any) error {
	return inChunks(width, rows, func(args []any, n int) error {
		inserted, err := exec(ctx, tx, "INSERT INTO "+table+" ("+columns+") VALUES "+tuples(n, width)+" ON CONFLICT DO NOTHING", args...)
		if err != nil {
			return err
		}
		if inserted != int64(n) {
			return muster.Errorf(muster.Conflict, "%s: an id is taken already", strings.ReplaceAll(table, "_", " "))
		}
		return nil
	})
}

// inChunks calls do with as many rows as one statement takes, always a power of
// two: the drivers keep prepared statements by their text, of which there must be
// few.
func inChunks(width int, rows [][]any, do func(args []any, n int) error) error {
	for len(rows) > 0 {
		n := 1 << (bits.Len(uint(min(maxParams/width, len(rows)))) - 1)
		args := make([]any, 0, n*width)
		for _, r := range rows[:n] {
			args = append(args, r...)
		}
		if err := do(args, n); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// places returns n placeholders: $1,$2.
func places(n int) string {
	list := tuples(n, 1)
	list = strings.ReplaceAll(list, "(", "")
	return strings.ReplaceAll(list, ")", "")
}

// tuples returns n lists of width placeholders: ($1,$2),($3,$4).
func tuples(n, width int) string {
	b := make([]byte, 0, n*width*7)
	for i := range n * width {
		switch {
		case i == 0:
			b = append(b, "($"...)
		case i%width == 0:
			b = append(b, "),($"...)
		default:
			b = append(b, ",$"...)
		}
		b = strconv.AppendInt(b, int64(i+1), 10)
	}
	return string(append(b, ')'))
}

// each calls scan for every row of query. It has no time limit of its own, since
// the caller's work is part of it: ctx bounds it.
func (c *Control) each(ctx context.Context, doing, query string, scan func(rows *sql.Rows) error) error {
	rows, err := c.db.Read.QueryContext(ctx, query)
	if err != nil {
		return failed(doing, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return failed(doing, rows.Err())
}

// parseHash reads a SHA-256 in hexadecimal.
func parseHash(s string) (h [32]byte, err error) {
	if len(s) != hex.EncodedLen(len(h)) {
		return h, fmt.Errorf("a hash of %d digits", len(s))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return h, fmt.Errorf("a hash: %w", err)
	}
	return h, nil
}

// sortedRows returns the keys of set in bytewise order, each as a row.
func sortedRows(set map[string]bool) [][]any {
	rows := make([][]any, 0, len(set))
	for _, key := range slices.Sorted(maps.Keys(set)) {
		rows = append(rows, []any{key})
	}
	return rows
}
