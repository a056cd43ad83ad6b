package control

import (
	"context"
	"database/sql"

	"muster"
)

// ActionOpen says whether an action of a rollout goes on at a device: it was offered, and has
// neither ended nor been taken back.
func (c *Control) ActionOpen(ctx context.Context, device muster.DeviceID, action int64) (open bool, err error) {
	query := `SELECT action FROM rollout_device WHERE device = $1 AND action = $2 AND ` + inFlight
	err = c.list(ctx, "look for a device's action", query, []any{string(device), action}, func(rows *sql.Rows) error {
		open = true
		var n int64
		return rows.Scan(&n)
	})
	return open, err
}
