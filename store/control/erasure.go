package control

import (
	"context"
	"database/sql"

	"muster"
	"muster/devices"
)

// EraseDevices implements devices.Store.
func (c *Control) EraseDevices(ctx context.Context, ids []muster.DeviceID, since muster.Micros) error {
	rows := make([][]any, len(ids))
	for i, id := range ids {
		rows[i] = []any{string(id), int64(since)}
	}
	return c.changeOfDevices(ctx, "delete devices and their data", func(ctx context.Context, tx *sql.Tx) error {
		if err := deleteDevices(ctx, tx, ids); err != nil {
			return err
		}
		return insertAll(ctx, tx, "erasure", "device, since", 2, rows)
	})
}

// LoadErasures implements devices.Store.
func (c *Control) LoadErasures(ctx context.Context, each func(devices.Erasure) error) error {
	const doing = "load the erasures"
	return c.each(ctx, doing, `SELECT device, since FROM erasure ORDER BY device`, func(rows *sql.Rows) error {
		var e devices.Erasure
		if err := rows.Scan(&e.Device, &e.Since); err != nil {
			return failed(doing, err)
		}
		return each(e)
	})
}

// DeleteErasures implements devices.Store.
func (c *Control) DeleteErasures(ctx context.Context, ids []muster.DeviceID) error {
	return c.change(ctx, "delete erasures", func(ctx context.Context, tx *sql.Tx) error {
		return deleteOf(ctx, tx, "erasure", "device", idRows(ids))
	})
}
