package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"

	"muster"
	"muster/devices/trail"
)

var _ trail.Store = (*Control)(nil)

const (
	eventColumns = "device, time, mark, arrival, type, publisher, system, payload"
	eventWidth   = 8
	logColumns   = "device, arrival, mark, top, count, lines"
	logWidth     = 6
)

// eventKey is what makes an event one.
type eventKey struct {
	device     muster.DeviceID
	time, mark int64
}

// AppendEvents implements trail.Store.
func (c *Control) AppendEvents(ctx context.Context, es []trail.Event) (fresh []bool, err error) {
	rows := make([][]any, len(es))
	for i, e := range es {
		rows[i] = []any{
			string(e.Device), decimal(e.Time), strconv.FormatInt(e.Mark, 10), decimal(e.Arrival), e.Type, string(e.By),
			strconv.FormatBool(e.System), e.Payload,
		}
	}
	added := make(map[eventKey]bool, len(es))
	err = c.changeOfDevices(ctx, "store events", func(ctx context.Context, tx *sql.Tx) error {
		clear(added)
		return inChunks(eventWidth, rows, func(args []any, n int) error {
			return returned(ctx, tx, added, `INSERT INTO device_event (`+eventColumns+`)
				SELECT v.column1, CAST(v.column2 AS BIGINT), CAST(v.column3 AS BIGINT), CAST(v.column4 AS BIGINT), v.column5, v.column6,
				v.column7 = 'true', v.column8 FROM (VALUES `+tuples(n, eventWidth)+`) AS v WHERE v.column1 IN (SELECT id FROM device)
				ON CONFLICT DO NOTHING RETURNING device, time, mark`, args...)
		})
	})
	if err != nil {
		return nil, err
	}
	fresh = make([]bool, len(es))
	for i, e := range es {
		k := eventKey{e.Device, int64(e.Time), e.Mark}
		fresh[i] = added[k]
		delete(added, k) // the second of two equal ones is none
	}
	return fresh, nil
}

// returned runs an INSERT and collects the keys of what it inserted.
func returned(ctx context.Context, tx *sql.Tx, into map[eventKey]bool, query string, args ...any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("insert rows: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	for rows.Next() {
		var k eventKey
		if err := rows.Scan(&k.device, &k.time, &k.mark); err != nil {
			return fmt.Errorf("read inserted rows: %w", err)
		}
		into[k] = true
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("insert rows: %w", err)
	}
	return nil
}

// Events implements trail.Store.
func (c *Control) Events(ctx context.Context, q trail.EventQuery) ([]trail.Event, error) {
	query := `SELECT ` + eventColumns + ` FROM device_event WHERE device = $1 AND time >= $2 AND (time, mark) < ($3, $4)`
	args := []any{string(q.Device), int64(q.From), int64(q.Before.Time), q.Before.Mark, q.Limit}
	if q.Type != "" {
		query += ` AND type = $6`
		args = append(args, q.Type)
	}
	var out []trail.Event
	err := c.list(ctx, "read events", query+` ORDER BY time DESC, mark DESC LIMIT $5`, args, func(rows *sql.Rows) error {
		var e trail.Event
		err := rows.Scan(&e.Device, &e.Time, &e.Mark, &e.Arrival, &e.Type, &e.By, &e.System, &e.Payload)
		out = append(out, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// TrimEvents implements trail.Store.
func (c *Control) TrimEvents(ctx context.Context, device muster.DeviceID, keep int) (left int, err error) {
	err = c.change(ctx, "trim events", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `DELETE FROM device_event WHERE device = $1 AND (time, mark) <
			(SELECT time, mark FROM device_event WHERE device = $1 ORDER BY time DESC, mark DESC LIMIT 1 OFFSET $2)`, string(device), keep-1)
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT count(*) FROM device_event WHERE device = $1`, string(device)).Scan(&left)
	})
	return left, err
}

// ExpireEvents implements trail.Store.
func (c *Control) ExpireEvents(ctx context.Context, at muster.Micros, limit int) (n int, err error) {
	return c.expire(ctx, "delete old events", `DELETE FROM device_event WHERE (device, time, mark) IN
		(SELECT device, time, mark FROM device_event WHERE time < $1 ORDER BY time LIMIT $2)`, at, limit)
}

// expire deletes up to limit rows by query, which finds them by an index.
func (c *Control) expire(ctx context.Context, doing, query string, at muster.Micros, limit int) (n int, err error) {
	err = c.change(ctx, doing, func(ctx context.Context, tx *sql.Tx) error {
		deleted, err := exec(ctx, tx, query, int64(at), limit)
		n = int(deleted)
		return err
	})
	return n, err
}

// AppendLogs implements trail.Store.
func (c *Control) AppendLogs(ctx context.Context, rs []trail.LogRow) error {
	rows := make([][]any, len(rs))
	for i, r := range rs {
		lines, err := json.Marshal(r.Lines)
		if err != nil {
			return fmt.Errorf("write log lines: %w", err)
		}
		rows[i] = []any{
			string(r.Device), decimal(r.Arrival), strconv.FormatInt(r.Mark, 10), strconv.Itoa(int(r.Top)), strconv.Itoa(r.Count), string(lines),
		}
	}
	return c.changeOfDevices(ctx, "store log lines", func(ctx context.Context, tx *sql.Tx) error {
		return inChunks(logWidth, rows, func(args []any, n int) error {
			_, err := exec(ctx, tx, `INSERT INTO device_log (`+logColumns+`)
				SELECT v.column1, CAST(v.column2 AS BIGINT), CAST(v.column3 AS BIGINT), CAST(v.column4 AS BIGINT), CAST(v.column5 AS BIGINT),
				v.column6 FROM (VALUES `+tuples(n, logWidth)+`) AS v WHERE v.column1 IN (SELECT id FROM device)
				ON CONFLICT DO NOTHING`, args...)
			return err
		})
	})
}

// Logs implements trail.Store.
func (c *Control) Logs(ctx context.Context, q trail.LogQuery) ([]trail.LogRow, error) {
	var out []trail.LogRow
	const query = `SELECT ` + logColumns + ` FROM device_log WHERE device = $1 AND top >= $2 AND arrival >= $3 AND (arrival, mark) <= ($4, $5)
		ORDER BY arrival DESC, mark DESC LIMIT $6`
	args := []any{string(q.Device), int(q.Level), int64(q.From), int64(q.Arrival), q.Mark, q.Limit}
	err := c.list(ctx, "read log lines", query, args, func(rows *sql.Rows) error {
		var r trail.LogRow
		var lines []byte
		err := rows.Scan(&r.Device, &r.Arrival, &r.Mark, &r.Top, &r.Count, &lines)
		if err == nil {
			err = json.Unmarshal(lines, &r.Lines)
		}
		out = append(out, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// TrimLogs implements trail.Store.
func (c *Control) TrimLogs(ctx context.Context, device muster.DeviceID, keep int) (left int, err error) {
	err = c.change(ctx, "trim log lines", func(ctx context.Context, tx *sql.Tx) error {
		var from int64
		if from, left, err = newestLines(ctx, tx, device, keep); err != nil {
			return err
		}
		_, err := exec(ctx, tx, `DELETE FROM device_log WHERE device = $1 AND arrival < $2`, string(device), from)
		return err
	})
	return left, err
}

// newestLines returns the arrival of the oldest row that is needed for the newest
// keep lines of a device, and how many lines there are from it on.
func newestLines(ctx context.Context, tx *sql.Tx, device muster.DeviceID, keep int) (from int64, lines int, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT arrival, count FROM device_log WHERE device = $1 ORDER BY arrival DESC`, string(device))
	if err != nil {
		return 0, 0, fmt.Errorf("count lines: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	for lines < keep && rows.Next() {
		var n int
		if err := rows.Scan(&from, &n); err != nil {
			return 0, 0, fmt.Errorf("count lines: %w", err)
		}
		lines += n
	}
	if err := rows.Err(); err != nil {
		return 0, 0, fmt.Errorf("count lines: %w", err)
	}
	return from, lines, nil
}

// ExpireLogs implements trail.Store.
func (c *Control) ExpireLogs(ctx context.Context, at muster.Micros, limit int) (n int, err error) {
	return c.expire(ctx, "delete old log lines", `DELETE FROM device_log WHERE (device, arrival, mark) IN
		(SELECT device, arrival, mark FROM device_log WHERE arrival < $1 ORDER BY arrival LIMIT $2)`, at, limit)
}
