package control

import (
	"context"
	"database/sql"

	"muster"
)

// ReleaseOfOpen returns the release of an action that goes on at a device: it was offered, and has
// neither ended nor been taken back. Else NotFound.
func (c *Control) ReleaseOfOpen(ctx context.Context, device muster.DeviceID, action int64) (release string, err error) {
	found := false
	query := `SELECT r.release FROM rollout_device d JOIN rollout r ON r.id = d.rollout WHERE d.device = $1 AND d.action = $2 AND d.` + inFlight
	err = c.list(ctx, "look for a device's action", query, []any{string(device), action}, func(rows *sql.Rows) error {
		found = true
		return rows.Scan(&release)
	})
	if err == nil && !found {
		err = muster.Errorf(muster.NotFound, "the action is over")
	}
	return release, err
}
