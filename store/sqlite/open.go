package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

const (
	// busyTimeout is how long a statement waits for a lock. Only a foreign process
	// (a backup, a shell) can hold one for long: writes queue before the database.
	busyTimeout = 5 * time.Second
	// readers is the size of a read pool. A query past it waits for its context.
	readers = 8
	// maxRejected is how many rejected messages are kept; the oldest go.
	maxRejected = 100_000
)

// Telemetry is the store of readings, latest values and rejected messages in
// telemetry.db. It is an ingest.Store, an ingest.LatestStore and an
// ingest.RangeStore, safe for concurrent use; writes take turns.
type Telemetry struct {
	log         *slog.Logger
	write, read *sql.DB
	maxRejected int

	// turn holds one token; who has it writes and may touch what is below.
	turn     chan struct{}
	stmts    statements
	names    names
	scratch  scratch
	rejected int // rows in the table rejected

	layouts layoutCache
}

// Open opens dir/telemetry.db, making dir and the file when they are not there,
// and brings the schema up to date. A schema newer than this binary's is an Invalid
// error. Close must be called.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Telemetry, error) {
	return open(ctx, dir, log, maxRejected)
}

func open(ctx context.Context, dir string, log *slog.Logger, keepRejected int) (_ *Telemetry, err error) {
	write, read, err := openFile(dir, "telemetry.db", pragmas{synchronous: "NORMAL", autocheckpoint: 4000})
	if err != nil {
		return nil, failed("open telemetry.db", err)
	}
	t := &Telemetry{log: log, write: write, read: read, maxRejected: keepRejected, turn: make(chan struct{}, 1), names: newNames()}
	defer func() {
		if err != nil {
			_ = t.Close() // the first error is the one to report
		}
	}()
	if err := migrate(ctx, write); err != nil {
		return nil, failed("open telemetry.db", err)
	}
	if t.stmts, err = prepare(ctx, write); err != nil {
		return nil, failed("open telemetry.db", err)
	}
	if err := write.QueryRowContext(ctx, `SELECT count(*) FROM rejected`).Scan(&t.rejected); err != nil {
		return nil, failed("count the rejected", err)
	}
	t.turn <- struct{}{}
	log.Debug("telemetry store open", "file", "telemetry.db", "rejected", t.rejected)
	return t, nil
}

// Close closes the database. Nothing may be under way.
func (t *Telemetry) Close() error {
	if err := errors.Join(t.read.Close(), t.stmts.close(), t.write.Close()); err != nil {
		return failed("close telemetry.db", err)
	}
	return nil
}

// Control is control.db: the registry, accounts and all else that is not
// telemetry. Its schema belongs to store/control.
type Control struct {
	Write *sql.DB // one connection, transactions begin IMMEDIATE
	Read  *sql.DB // a pool that can only read
	Query *sql.DB // a pool that can only read and sees telemetry.db too: see openQuery
}

// Close closes the handles.
func (c *Control) Close() error {
	return errors.Join(c.Query.Close(), c.Read.Close(), c.Write.Close())
}

// OpenControl opens dir/control.db with synchronous FULL (a commit survives a
// power cut) and foreign keys on, making dir and the file when they are not there.
func OpenControl(ctx context.Context, dir string) (*Control, error) {
	write, read, err := openFile(dir, "control.db", pragmas{synchronous: "FULL", foreignKeys: true, autocheckpoint: 1000})
	if err != nil {
		return nil, failed("open control.db", err)
	}
	query, err := openQuery(dir)
	if err != nil {
		return nil, failed("open control.db", errors.Join(err, read.Close(), write.Close()))
	}
	c := &Control{Write: write, Read: read, Query: query}
	if err := errors.Join(write.PingContext(ctx), read.PingContext(ctx)); err != nil {
		_ = c.Close() // the first error is the one to report
		return nil, failed("open control.db", err)
	}
	return c, nil
}

type pragmas struct {
	synchronous    string
	foreignKeys    bool
	autocheckpoint int // pages of 4 KiB
}

// openFile returns the write handle, of one connection, and the read pool.
func openFile(dir, name string, p pragmas) (write, read *sql.DB, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the data directory: %w", err)
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return nil, nil, fmt.Errorf("find the data directory: %w", err)
	}
	if err := makeFile(path); err != nil {
		return nil, nil, err
	}
	v := url.Values{
		"_busy_timeout": {strconv.FormatInt(busyTimeout.Milliseconds(), 10)},
		"_journal_mode": {"WAL"},
		"_synchronous":  {p.synchronous},
		"_dqs":          {"0"},
		"_pragma":       {"wal_autocheckpoint(" + strconv.Itoa(p.autocheckpoint) + ")", "cache_size(-32768)"},
		"_txlock":       {"immediate"},
	}
	if p.foreignKeys {
		v.Set("_foreign_keys", "1")
	}
	if write, err = sql.Open("sqlite", fileURI(path, v)); err != nil {
		return nil, nil, fmt.Errorf("open the write handle: %w", err)
	}
	write.SetMaxOpenConns(1)
	v.Set("_query_only", "1")
	v.Set("_txlock", "deferred")
	v["_pragma"] = []string{"cache_size(-4096)"}
	if read, err = sql.Open("sqlite", fileURI(path, v)); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the read pool: %w", err), write.Close())
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	return write, read, nil
}

// makeFile makes a file that nobody else may read: SQLite would ask the umask alone. The
// files beside it take its mode.
func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the database file: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("make the database file: %w", err)
	}
	return nil
}

func fileURI(path string, v url.Values) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: v.Encode()}).String()
}
