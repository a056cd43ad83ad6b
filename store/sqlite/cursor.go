package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"muster/ingest"
)

// Cursors returns the writer's cursor and that of the latest values, zero when
// there is none yet.
func (t *Telemetry) Cursors(ctx context.Context) (writer, latest ingest.Cursor, err error) {
	if writer, err = t.cursor(ctx, writerCursor); err != nil {
		return writer, latest, failed("read the cursors", err)
	}
	if latest, err = t.cursor(ctx, latestCursor); err != nil {
		return writer, latest, failed("read the cursors", err)
	}
	return writer, latest, nil
}

func (t *Telemetry) cursor(ctx context.Context, name string) (ingest.Cursor, error) {
	var c ingest.Cursor
	var seq int64
	err := t.read.QueryRowContext(ctx, `SELECT incarnation, seq FROM ingest_cursor WHERE name = ?`, name).Scan(&c.Incarnation, &seq)
	if errors.Is(err, sql.ErrNoRows) {
		return ingest.Cursor{}, nil
	}
	c.Seq = uint64(seq)
	return c, err
}

// Sync returns when all that was appended before would survive a power cut. Writes
// wait meanwhile.
func (t *Telemetry) Sync(ctx context.Context) error {
	select {
	case <-t.turn:
	case <-ctx.Done():
		return failed("sync", ctx.Err())
	}
	defer func() { t.turn <- struct{}{} }()
	var busy, frames, done int64
	err := t.write.QueryRowContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &frames, &done)
	if err != nil {
		return failed("sync: checkpoint", err)
	}
	if busy == 0 && done == frames {
		return nil
	}
	// A reader is in the way of the checkpoint: have the log itself flushed instead.
	if err := t.flushLog(ctx); err != nil {
		return failed("sync", err)
	}
	return nil
}

// flushLog makes one commit with synchronous FULL, which flushes the whole
// write-ahead log and with it every commit before.
func (t *Telemetry) flushLog(ctx context.Context) (err error) {
	conn, err := t.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() {
		_, back := conn.ExecContext(context.WithoutCancel(ctx), `PRAGMA synchronous = NORMAL`)
		err = errors.Join(err, back, conn.Close())
	}()
	if _, err := conn.ExecContext(ctx, `PRAGMA synchronous = FULL`); err != nil {
		return fmt.Errorf("set synchronous: %w", err)
	}
	if _, err := conn.ExecContext(ctx, `UPDATE durability SET syncs = syncs + 1`); err != nil {
		return fmt.Errorf("commit the mark: %w", err)
	}
	return nil
}
