package control

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"muster"
	"muster/accounts"
	"muster/audit"
	"muster/devices"
	"muster/devices/join"
	"muster/devices/twin"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// schemaTable is where the migrations that ran are kept, beside those of
	// telemetry when both are in one PostgreSQL database.
	schemaTable = "muster_control_schema"
	// callTimeout bounds one call, so that a stuck database is an error in time.
	callTimeout = 30 * time.Second
	// migrateTimeout bounds the migrations at start.
	migrateTimeout = 10 * time.Minute
)

// Handles are the ways into one database. They may be the same; on SQLite Write has
// one connection and Read only reads.
type Handles struct {
	Write, Read *sql.DB
	// Query only reads and sees the latest telemetry values too. Nil when Read does.
	Query *sql.DB
}

// Close closes the handles.
func (h Handles) Close() error {
	var err error
	if h.Query != nil {
		err = h.Query.Close()
	}
	if h.Read != h.Write {
		err = errors.Join(err, h.Read.Close())
	}
	return errors.Join(err, h.Write.Close())
}

// selects is the handle for the query language.
func (h Handles) selects() *sql.DB {
	if h.Query != nil {
		return h.Query
	}
	return h.Read
}

// Dialect is what differs between the engines.
type Dialect struct {
	migrations goose.Dialect
	prepare    string // run before the migrations, by one process at a time
	locked     bool   // migrations need an advisory lock
	engine     engine // of the query language
	rows       string // the elements of the JSON array $1, each as value
	texts      string // those that are texts, without quotes
	ordered    string // keeps the transaction's queries on the indexes in whose order they ask; empty where they are anyway
	hold       string // ends a query for rows that must stay as they are until the transaction ends
	skip       string // ends a query for rows to change: it locks them, and leaves out those that others have locked
}

// SQLite is the dialect of modernc.org/sqlite. Only one process opens the file, so
// that nothing is locked.
func SQLite() Dialect {
	return Dialect{migrations: goose.DialectSQLite3, engine: sqliteEngine{}, rows: "json_each($1)", texts: "json_each($1)"}
}

// Postgres is the dialect of PostgreSQL 15 and newer through pgx. SQLite's own
// bytewise collation is called binary; here it gets one of the same name.
func Postgres() Dialect {
	return Dialect{
		migrations: goose.DialectPostgres, engine: postgresEngine{}, rows: "json_array_elements(CAST($1 AS JSON))", locked: true,
		texts: "json_array_elements_text(CAST($1 AS JSON))",
		ordered: `SELECT set_config('enable_sort', 'off', TRUE), set_config('enable_bitmapscan', 'off', TRUE), set_config('enable_seqscan', 'off', TRUE),
			set_config('enable_hashjoin', 'off', TRUE), set_config('enable_mergejoin', 'off', TRUE)`,
		hold: " FOR NO KEY UPDATE", skip: " FOR UPDATE SKIP LOCKED",
		prepare: `DO $$
BEGIN
	PERFORM pg_advisory_xact_lock(hashtext('muster collation'));
	IF NOT EXISTS (SELECT FROM pg_collation WHERE collname = 'binary' AND pg_collation_is_visible(oid)) THEN
		CREATE COLLATION "binary" FROM "C";
	END IF;
END $$`,
	}
}

// Control keeps the control data. It is safe for concurrent use.
type Control struct {
	db           Handles
	dialect      Dialect
	onEvents     func([]feed.Event)
	onDeliveries func([]outbox.Delivery)
	onInbox      func(notify.Changes)
	sign         func(audit.Record) string
}

// The seams that Control fills.
var (
	_ devices.Store  = (*Control)(nil)
	_ accounts.Store = (*Control)(nil)
	_ join.Store     = (*Control)(nil)
	_ twin.Store     = (*Control)(nil)
	_ feed.Store     = (*Control)(nil)
	_ outbox.Store   = (*Control)(nil)
	_ notify.Store   = (*Control)(nil)
)

// Open brings the schema up to date and returns a store on db, which it owns from
// then on and closes itself when it fails. A schema newer than this muster knows is
// an Invalid error.
func Open(ctx context.Context, db Handles, dialect Dialect) (*Control, error) {
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	if err := migrate(ctx, db.Write, dialect); err != nil {
		_ = db.Close() // the first error is the one to report
		return nil, failed("migrate the control schema", err)
	}
	return newControl(db, dialect), nil
}

func newControl(db Handles, dialect Dialect) *Control {
	return &Control{
		db: db, dialect: dialect,
		onEvents: func([]feed.Event) {}, onDeliveries: func([]outbox.Delivery) {}, onInbox: func(notify.Changes) {},
		sign: func(audit.Record) string { return "" },
	}
}

// Look returns a store on db as it is, which it owns from then on, and the versions of
// the schema that db has and that this muster knows. Nothing is changed; a store whose
// versions differ must not be used.
func Look(ctx context.Context, db Handles, dialect Dialect) (c *Control, have, know int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p, err := provider(db.Write, dialect)
	if err == nil {
		have, know, err = p.GetVersions(ctx)
	}
	if err != nil {
		_ = db.Close() // the first error is the one to report
		return nil, 0, 0, failed("read the control schema's version", err)
	}
	return newControl(db, dialect), have, know, nil
}

// Schema names the schema that Open makes on an engine: a digest of all that it runs, in
// lower-case hexadecimal. Who keeps a copy of an empty store knows by it which one is his.
func Schema(dialect Dialect) (string, error) {
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%s %s\n%s\n", dialect.migrations, schemaTable, dialect.prepare) // a hash takes everything
	list, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		return "", fmt.Errorf("read the migrations: %w", err)
	}
	for _, f := range list {
		text, err := migrations.ReadFile("migrations/" + f.Name())
		if err != nil {
			return "", fmt.Errorf("read the migrations: %w", err)
		}
		_, _ = fmt.Fprintf(sum, "%s %d\n%s", f.Name(), len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

// Close closes the database. Nothing may be under way.
func (c *Control) Close() error { return failed("close the control database", c.db.Close()) }

func provider(db *sql.DB, d Dialect) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	opts := []goose.ProviderOption{goose.WithTableName(schemaTable), goose.WithDisableGlobalRegistry(true)}
	if d.locked {
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, fmt.Errorf("make the lock: %w", err)
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(d.migrations, db, files, opts...)
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return p, nil
}

func migrate(ctx context.Context, db *sql.DB, d Dialect) error {
	p, err := provider(db, d)
	if err != nil {
		return err
	}
	have, know, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	if have > know {
		return muster.Errorf(muster.Invalid, "database schema %d is newer than this muster knows (%d); use a newer muster", have, know)
	}
	if d.prepare != "" {
		if _, err := db.ExecContext(ctx, d.prepare); err != nil {
			return fmt.Errorf("prepare the database: %w", err)
		}
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("run the migrations: %w", err)
	}
	return nil
}

// failed makes err an Error: as it is when it is one, else Unavailable. What the
// driver says stays in the cause.
func failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*muster.Error](err); ok {
		return e
	}
	return &muster.Error{Kind: muster.Unavailable, Msg: "the database cannot " + doing + " now", Err: fmt.Errorf("%s: %w", doing, err)}
}
