package control

import (
	"context"
	"database/sql"
	"slices"

	"muster"
)

// allBusyQuery has all devices that update.
const allBusyQuery = `SELECT device FROM rollout_device WHERE ` + busy

// Updating returns which of some devices update now: see rollout.Device.Updating.
func (c *Control) Updating(ctx context.Context, ids []muster.DeviceID) (map[muster.DeviceID]struct{}, error) {
	out := map[muster.DeviceID]struct{}{}
	for part := range slices.Chunk(ids, maxParams) {
		err := c.updating(ctx, `SELECT device FROM rollout_device WHERE device IN (`+places(len(part))+`) AND `+busy, idArgs(part), out)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// AllUpdating returns all devices that update now.
func (c *Control) AllUpdating(ctx context.Context) (map[muster.DeviceID]struct{}, error) {
	out := map[muster.DeviceID]struct{}{}
	err := c.updating(ctx, allBusyQuery, nil, out)
	return out, err
}

func (c *Control) updating(ctx context.Context, text string, args []any, into map[muster.DeviceID]struct{}) error {
	return c.list(ctx, "look which devices update", text, args, func(rows *sql.Rows) error {
		var id muster.DeviceID
		err := rows.Scan(&id)
		into[id] = struct{}{}
		return err
	})
}
