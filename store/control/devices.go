package control

import (
	"context"
	"database/sql"
	"strconv"

	"muster"
	"muster/devices"
)

// LoadPresence implements devices.Store, in bytewise order of device.
func (c *Control) LoadPresence(ctx context.Context, each func(devices.PresenceRow) error) error {
	const doing = "load the presence"
	return c.each(ctx, doing, `SELECT device, state, since, last_seen, reason FROM presence ORDER BY device`, func(rows *sql.Rows) error {
		var p devices.PresenceRow
		if err := rows.Scan(&p.Device, &p.State, &p.Since, &p.LastSeen, &p.Reason); err != nil {
			return failed(doing, err)
		}
		return each(p)
	})
}

// lockDevice answers NotFound when there is no device id, and else keeps others
// from deleting it or giving it credentials until the transaction ends: an update
// that changes nothing locks the row on both engines.
func lockDevice(ctx context.Context, tx *sql.Tx, id muster.DeviceID) error {
	n, err := exec(ctx, tx, `UPDATE device SET id = id WHERE id = $1`, string(id))
	if err == nil && n == 0 {
		err = muster.Errorf(muster.NotFound, "there is no device %q", id)
	}
	return err
}

// decimal is m as text: in a list of VALUES PostgreSQL takes every placeholder for text.
func decimal(m muster.Micros) string { return strconv.FormatInt(int64(m), 10) }

// SavePresence implements devices.Store. Of two rows of one device the last is
// kept; a row of a device that is not there, deleted meanwhile, is left out.
func (c *Control) SavePresence(ctx context.Context, rows []devices.PresenceRow) error {
	last := make(map[muster.DeviceID]int, len(rows))
	for i, r := range rows {
		last[r.Device] = i
	}
	list := make([][]any, 0, len(last))
	for i, r := range rows {
		if last[r.Device] == i {
			list = append(list, []any{string(r.Device), string(r.State), decimal(r.Since), decimal(r.LastSeen), r.Reason})
		}
	}
	return c.change(ctx, "save the presence", func(ctx context.Context, tx *sql.Tx) error {
		return inChunks(5, list, func(args []any, n int) error {
			_, err := exec(ctx, tx, `INSERT INTO presence (device, state, since, last_seen, reason)
				SELECT v.column1, v.column2, CAST(v.column3 AS BIGINT), CAST(v.column4 AS BIGINT), v.column5
				FROM (VALUES `+tuples(n, 5)+`) AS v WHERE v.column1 IN (SELECT id FROM device)
				ON CONFLICT (device) DO UPDATE SET state = excluded.state, since = excluded.since,
				last_seen = excluded.last_seen, reason = excluded.reason`, args...)
			return err
		})
	})
}
