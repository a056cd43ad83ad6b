package postgres

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"muster"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schemaTable is where the telemetry migrations that ran are kept; the control
// data's have their own in the same database.
const schemaTable = "muster_telemetry_schema"

// Advisory locks: in one database, across processes.
const (
	lockSchema     int64 = 0x6d7573746572_01 // extension and migrations
	lockPartitions int64 = 0x6d7573746572_02 // creating partitions
)

// migrate brings the telemetry schema up to date, one process at a time.
func migrate(ctx context.Context, cfg *pgx.ConnConfig) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	db := stdlib.OpenDB(*cfg)
	err := migrateUp(ctx, db)
	if closeErr := db.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("close: %w", closeErr)
	}
	return classify("migrate its telemetry schema", err)
}

func migrateUp(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockSchema), lock.WithLockTimeout(1, 300))
	if err != nil {
		return fmt.Errorf("make the lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(schemaTable),
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	have, know, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	if have > know {
		return muster.Errorf(muster.Invalid, "database schema %d is newer than this muster knows (%d); use a newer muster", have, know)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("run the migrations: %w", err)
	}
	return nil
}
