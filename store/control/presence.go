package control

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"

	"muster"
	"muster/devices"
)

// settingAlive is the setting with the time of the last SaveAlive, in microseconds.
const settingAlive = "presence_alive"

// LoadPresence implements devices.Store, in bytewise order of device.
func (c *Control) LoadPresence(ctx context.Context, each func(devices.PresenceRow) error) error {
	const doing = "load the presence"
	return c.each(ctx, doing, `SELECT device, state, since, last_seen, reason, rhythm, link FROM presence ORDER BY device`,
		func(rows *sql.Rows) error {
			var p devices.PresenceRow
			if err := rows.Scan(&p.Device, &p.State, &p.Since, &p.LastSeen, &p.Reason, &p.Rhythm, &p.Link); err != nil {
				return failed(doing, err)
			}
			return each(p)
		})
}

// decimal is m as text: in a list of VALUES PostgreSQL takes every placeholder for text.
func decimal(m muster.Micros) string { return strconv.FormatInt(int64(m), 10) }

// SavePresence implements devices.Store. Of two rows of one device the last is
// kept; a row of a device that is not there, deleted meanwhile, is left out.
func (c *Control) SavePresence(ctx context.Context, rows []devices.PresenceRow) error {
	list := lastOf(rows, func(r *devices.PresenceRow) muster.DeviceID { return r.Device }, func(r *devices.PresenceRow) []any {
		return []any{r.Device, r.State, r.Since, r.LastSeen, r.Reason, r.Rhythm, r.Link}
	})
	return c.changeOfDevices(ctx, "save the presence", func(ctx context.Context, tx *sql.Tx) error {
		_, err := c.bulk(ctx, tx, `INSERT INTO presence (device, state, since, last_seen, reason, rhythm, link)
			SELECT v.value ->> 0, v.value ->> 1, CAST(v.value ->> 2 AS BIGINT), CAST(v.value ->> 3 AS BIGINT), v.value ->> 4,
			CAST(v.value ->> 5 AS BIGINT), v.value ->> 6 FROM`,
			`WHERE (v.value ->> 0) IN (SELECT id FROM device)
			ON CONFLICT (device) DO UPDATE SET state = excluded.state, since = excluded.since,
			last_seen = excluded.last_seen, reason = excluded.reason, rhythm = excluded.rhythm, link = excluded.link`, list)
		return err
	})
}

// lastOf returns what columns makes of the last row of each device, in order.
func lastOf[R any](rows []R, device func(*R) muster.DeviceID, columns func(*R) []any) [][]any {
	last := make(map[muster.DeviceID]int, len(rows))
	for i := range rows {
		last[device(&rows[i])] = i
	}
	list := make([][]any, 0, len(last))
	for i := range rows {
		if last[device(&rows[i])] == i {
			list = append(list, columns(&rows[i]))
		}
	}
	return list
}

// LoadHistory implements devices.Store, in bytewise order of device.
func (c *Control) LoadHistory(ctx context.Context, each func(devices.HistoryRow) error) error {
	const doing = "load the presence histories"
	return c.each(ctx, doing, `SELECT device, history FROM presence_history ORDER BY device`, func(rows *sql.Rows) error {
		var h devices.HistoryRow
		if err := rows.Scan(&h.Device, &h.History); err != nil {
			return failed(doing, err)
		}
		return each(h)
	})
}

// SaveHistory implements devices.Store, with the same rules as SavePresence.
func (c *Control) SaveHistory(ctx context.Context, rows []devices.HistoryRow) error {
	list := lastOf(rows, func(r *devices.HistoryRow) muster.DeviceID { return r.Device }, func(r *devices.HistoryRow) []any {
		return []any{string(r.Device), r.History}
	})
	return c.changeOfDevices(ctx, "save the presence histories", func(ctx context.Context, tx *sql.Tx) error {
		return inChunks(2, list, func(args []any, n int) error {
			_, err := exec(ctx, tx, `INSERT INTO presence_history (device, history)
				SELECT v.column1, v.column2 FROM (VALUES `+tuples(n, 2)+`) AS v WHERE v.column1 IN (SELECT id FROM device)
				ON CONFLICT (device) DO UPDATE SET history = excluded.history`, args...)
			return err
		})
	})
}

// LoadAlive implements devices.Store.
func (c *Control) LoadAlive(ctx context.Context) (muster.Micros, error) {
	text, err := c.Setting(ctx, settingAlive)
	if err != nil || text == "" {
		return 0, err
	}
	at, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read when the server last ran: %w", err)
	}
	return muster.Micros(at), nil
}

// SaveAlive implements devices.Store.
func (c *Control) SaveAlive(ctx context.Context, at muster.Micros) error {
	return c.SetSetting(ctx, settingAlive, decimal(at))
}
