package sqlite

import (
	"context"
	"database/sql"
)

// Shrink gives the memory of the page caches back, which is not the Go runtime's and
// else stays for ever what a burst made it: up to 32 MiB of the writer and 4 MiB of each
// reader. The pages are read again when they are needed, mostly from the system's own cache.
func (t *Telemetry) Shrink(ctx context.Context) error {
	select {
	case <-t.turn:
	case <-ctx.Done():
		return failed("shrink the page cache", ctx.Err())
	}
	defer func() { t.turn <- struct{}{} }()
	dropIdle(t.read, readers)
	return shrink(ctx, t.write)
}

// Shrink is Telemetry.Shrink for control.db.
func (c *Control) Shrink(ctx context.Context) error {
	dropIdle(c.Read, readers)
	dropIdle(c.Query, queriers)
	return shrink(ctx, c.Write)
}

// shrink frees what the one connection of db can do without.
func shrink(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, `PRAGMA shrink_memory`); err != nil {
		return failed("shrink the page cache", err)
	}
	return nil
}

// dropIdle closes the connections of a pool that nobody uses.
func dropIdle(db *sql.DB, most int) {
	db.SetMaxIdleConns(0)
	db.SetMaxIdleConns(most)
}
