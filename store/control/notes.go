package control

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"

	"muster"
	"muster/audit"
	"muster/feed"
)

const (
	feedEpoch = "feed.epoch" // the setting that holds the feed's id
	maxFeed   = 5000         // events read at once
)

// OnEvents has fn called with the events of each transaction after it was committed, in
// the transaction's goroutine. Call it once, before anything is written.
func (c *Control) OnEvents(fn func([]feed.Event)) { c.onEvents = fn }

// notes writes what was noted under ctx, as the last thing in tx: the counters are
// locked from here to the commit.
func (c *Control) notes(ctx context.Context, tx *sql.Tx) ([]feed.Event, error) {
	if err := c.writeAudit(ctx, tx, audit.Of(ctx).Take()); err != nil {
		return nil, err
	}
	return c.writeFeed(ctx, tx, feed.Of(ctx).Take())
}

// forgetNotes drops what was noted under ctx: nothing was changed.
func forgetNotes(ctx context.Context) {
	audit.Of(ctx).Take()
	feed.Of(ctx).Take()
}

// numbers returns the first of n new numbers of a counter.
func numbers(ctx context.Context, tx *sql.Tx, counter string, n int) (int64, error) {
	var last int64
	err := tx.QueryRowContext(ctx, "UPDATE counter SET value = value + $1 WHERE name = $2 RETURNING value", n, counter).Scan(&last)
	if err != nil {
		return 0, fmt.Errorf("take numbers of %s: %w", counter, err)
	}
	return last - int64(n) + 1, nil
}

func (c *Control) writeAudit(ctx context.Context, tx *sql.Tx, records []audit.Record) error {
	if len(records) == 0 {
		return nil
	}
	seq, err := numbers(ctx, tx, "audit", len(records))
	if err != nil {
		return err
	}
	rows := make([][]any, len(records))
	for i, r := range records {
		r.Seq = seq + int64(i)
		rows[i] = []any{
			r.Seq, int64(r.At), r.Actor.Kind, r.Actor.ID, r.Actor.Name, r.Actor.Address, r.Actor.Request,
			r.Action, r.Object, string(r.Before), string(r.After), c.sign(r),
		}
	}
	return insertAll(ctx, tx, "audit", auditColumns, 12, rows)
}

func (c *Control) writeFeed(ctx context.Context, tx *sql.Tx, events []feed.Event) ([]feed.Event, error) {
	if len(events) == 0 {
		return nil, nil
	}
	seq, err := numbers(ctx, tx, "feed", len(events))
	if err != nil {
		return nil, err
	}
	rows := make([][]any, len(events))
	for i := range events {
		e := &events[i]
		e.Seq = seq + int64(i)
		rows[i] = []any{e.Seq, int64(e.At), e.Type, string(e.Device), string(e.Data)}
	}
	_, err = c.bulk(ctx, tx, `INSERT INTO feed (seq, at, type, device, data)
		SELECT CAST(v.value ->> 0 AS BIGINT), CAST(v.value ->> 1 AS BIGINT), v.value ->> 2, v.value ->> 3, v.value ->> 4 FROM`, "", rows)
	return events, err
}

// WriteNotes writes what was noted under ctx in a transaction of its own: for what was
// not changed in one of the control store's.
func (c *Control) WriteNotes(ctx context.Context) error {
	return c.change(ctx, "write the audit log", func(context.Context, *sql.Tx) error { return nil })
}

// FeedState implements feed.Store.
func (c *Control) FeedState(ctx context.Context) (epoch string, first, last int64, err error) {
	if epoch, err = c.Setting(ctx, feedEpoch); err != nil {
		return "", 0, 0, err
	}
	if epoch == "" {
		epoch = rand.Text()
		if err := c.SetSetting(ctx, feedEpoch, epoch); err != nil {
			return "", 0, 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = c.db.Read.QueryRowContext(ctx,
		"SELECT value, COALESCE((SELECT min(seq) FROM feed), value + 1) FROM counter WHERE name = 'feed'").Scan(&last, &first)
	if err != nil {
		return "", 0, 0, failed("read the feed", err)
	}
	return epoch, first, last, nil
}

// FeedAfter implements feed.Store.
func (c *Control) FeedAfter(ctx context.Context, seq int64, limit int) ([]feed.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	rows, err := c.db.Read.QueryContext(ctx,
		"SELECT seq, at, type, device, data FROM feed WHERE seq > $1 ORDER BY seq LIMIT $2", seq, min(limit, maxFeed))
	if err != nil {
		return nil, failed("read the feed", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err says what went wrong
	var out []feed.Event
	for rows.Next() {
		var e feed.Event
		var at int64
		var device, data string
		if err := rows.Scan(&e.Seq, &at, &e.Type, &device, &data); err != nil {
			return nil, failed("read the feed", err)
		}
		e.At, e.Device, e.Data = muster.Micros(at), muster.DeviceID(device), []byte(data)
		out = append(out, e)
	}
	return out, failed("read the feed", rows.Err())
}

// TrimFeed implements feed.Store.
func (c *Control) TrimFeed(ctx context.Context, seq int64, limit int) (forgotten int, err error) {
	err = c.change(ctx, "forget old events", func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, "DELETE FROM feed WHERE seq <= (SELECT max(seq) FROM (SELECT seq FROM feed WHERE seq <= $1 ORDER BY seq LIMIT $2) AS old)", seq, limit)
		forgotten = int(n)
		return err
	})
	return forgotten, err
}
