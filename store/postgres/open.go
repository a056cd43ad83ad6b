package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster/ingest"
)

// Bounds on what one store asks of its server.
const (
	writeConns    = 4 // the writer, the latest values, interning, trimming
	readConns     = 8 // more readers wait for one another
	appendTimeout = time.Minute
	pageTimeout   = 30 * time.Second
	keptRejected  = 100_000
)

// Info says what the server is.
type Info struct {
	Server     string // PostgreSQL's version, "17.11"
	Timescale  string // TimescaleDB's version, empty when the extension is not there
	Licence    string // "apache" or "timescale", empty without TimescaleDB
	Hypertable bool   // telemetry lies in a hypertable, else in native partitions
}

// Telemetry keeps readings, latest values and rejected messages. It is safe for
// concurrent use; one writer at a time should Append, since two take turns.
type Telemetry struct {
	write, read *pgxpool.Pool
	log         *slog.Logger
	info        Info
	names       *names
	layouts     *layouts
	partitions  *partitions // nil on a hypertable

	staging     atomic.Bool  // the last batch met rows that were there already
	maxRejected int64        // how many rejected messages are kept
	untrimmed   atomic.Int64 // rejected messages kept since the table was last trimmed
}

// The seams that Telemetry fills.
var (
	_ ingest.Store       = (*Telemetry)(nil)
	_ ingest.LatestStore = (*Telemetry)(nil)
	_ ingest.RangeStore  = (*Telemetry)(nil)
	_ ingest.Eraser      = (*Telemetry)(nil)
)

// Open connects to the database at url, migrates it, and returns a store on it.
// It answers in 5 s with an Unavailable or Invalid error in one sentence when the
// server does not answer or refuses, and with Invalid when the schema is newer than
// this muster knows. Migrations that have to run may take longer.
func Open(ctx context.Context, url string, log *slog.Logger) (*Telemetry, error) {
	return open(ctx, url, log, keptRejected)
}

func open(ctx context.Context, url string, log *slog.Logger, maxRejected int64) (*Telemetry, error) {
	cfg, err := parse(url)
	if err != nil {
		return nil, err
	}
	if err := reach(ctx, cfg.ConnConfig); err != nil {
		return nil, err
	}
	enableTimescale(ctx, cfg.ConnConfig, log)
	if err := migrate(ctx, cfg.ConnConfig); err != nil {
		return nil, err
	}
	t := &Telemetry{log: log, names: newNames(), layouts: newLayouts(), maxRejected: maxRejected}
	if t.write, err = pool(ctx, cfg, writeConns, prepareSession); err != nil {
		return nil, err
	}
	if t.read, err = pool(ctx, cfg, readConns, prepareReader); err != nil {
		t.write.Close()
		return nil, err
	}
	if t.info, err = probe(ctx, t.read); err != nil {
		_ = t.Close()
		return nil, err
	}
	if !t.info.Hypertable {
		t.partitions = newPartitions()
	}
	log.InfoContext(ctx, "telemetry store open", "postgresql", t.info.Server, "timescaledb", t.info.Timescale,
		"licence", t.info.Licence, "hypertable", t.info.Hypertable)
	return t, nil
}

// Info says what the server was when the store was opened.
func (t *Telemetry) Info() Info { return t.info }

// Close waits for the calls under way and closes the connections. It returns nil.
func (t *Telemetry) Close() error {
	t.write.Close()
	t.read.Close()
	return nil
}

func pool(ctx context.Context, cfg *pgxpool.Config, conns int32, prepare func(context.Context, *pgx.Conn) error) (*pgxpool.Pool, error) {
	cfg = cfg.Copy()
	cfg.MaxConns = conns
	cfg.MinConns, cfg.MinIdleConns = 0, 0
	cfg.PingTimeout = dialTimeout
	cfg.AfterConnect = prepare
	p, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, classify("open a connection pool", err)
	}
	return p, nil
}

// prepareSession fixes what the code relies on, whatever the server's defaults:
// a commit is on disk when it is answered, times are UTC, nothing waits for ever.
func prepareSession(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `SET synchronous_commit = on; SET timezone = 'UTC'; SET statement_timeout = '60s';
		SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; SET jit = off;
		SET client_min_messages = warning`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	return nil
}

// prepareReader keeps readers on the indexes, whose order is the one they ask for.
// On a table that was not analysed yet the planner would sort a whole range for each
// of its pages: 200,000 rows took 20 s.
func prepareReader(ctx context.Context, c *pgx.Conn) error {
	if err := prepareSession(ctx, c); err != nil {
		return err
	}
	_, err := c.Exec(ctx, `SET enable_sort = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
		SET enable_mergejoin = off`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("prepare the reader's session: %w", err)
	}
	return nil
}

// probe finds out what the server is and how telemetry lies in it.
func probe(ctx context.Context, p *pgxpool.Pool) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	var i Info
	err := p.QueryRow(ctx, `SELECT split_part(current_setting('server_version'), ' ', 1),
		coalesce((SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'), ''),
		(SELECT relkind <> 'p' FROM pg_class WHERE oid = 'telemetry_default'::regclass)`).
		Scan(&i.Server, &i.Timescale, &i.Hypertable)
	if err == nil && i.Timescale != "" {
		err = p.QueryRow(ctx, `SELECT coalesce(current_setting('timescaledb.license', true), '')`).Scan(&i.Licence)
	}
	return i, classify("say what it is", err)
}
