package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"muster"
	"muster/firmware/desk"
	"muster/firmware/rollout"
)

// LastAction implements desk.Store.
func (c *Control) LastAction(ctx context.Context, device muster.DeviceID) (a desk.Action, err error) {
	found := false
	err = c.list(ctx, "look for a device's firmware", `SELECT r.release, r.plan, COALESCE((SELECT action FROM firmware_closed f WHERE f.device = $1), 0), `+lastActionColumns+`
		FROM rollout_device d JOIN rollout r ON r.id = d.rollout
		WHERE d.device = $1 AND d.action > 0 AND d.updated >= COALESCE((SELECT created FROM device WHERE id = $1), 0) ORDER BY d.action DESC LIMIT 1`, []any{string(device)},
		func(rows *sql.Rows) (err error) {
			found = true
			var plan string
			a.Device, err = rolloutDeviceOf(func(to ...any) error { return rows.Scan(append([]any{&a.Release, &plan, &a.Closed}, to...)...) })
			if err != nil {
				return err
			}
			var p struct {
				Windows []rollout.Window `json:"windows"`
				Zone    string           `json:"zone"`
			}
			if err := json.Unmarshal([]byte(plan), &p); err != nil {
				return fmt.Errorf("read the plan of rollout %s: %w", a.Device.Rollout, err)
			}
			a.Windows, a.Zone = p.Windows, p.Zone
			return nil
		})
	if err == nil && !found {
		err = muster.Errorf(muster.NotFound, "the device has no firmware offered")
	}
	return a, err
}

// DeletedInFlight returns devices that were deleted while something was in flight to them, also when there
// is one of the same id again; at most limit.
func (c *Control) DeletedInFlight(ctx context.Context, limit int) (out []muster.DeviceID, err error) {
	err = c.list(ctx, "look for deleted devices with firmware in flight", `SELECT device FROM rollout_device d
		WHERE `+inFlight+` AND NOT EXISTS (SELECT 1 FROM device v WHERE v.id = d.device AND v.created <= d.updated) LIMIT $1`, []any{limit},
		func(rows *sql.Rows) error {
			var id muster.DeviceID
			err := rows.Scan(&id)
			out = append(out, id)
			return err
		})
	return out, err
}

// lastActionColumns are rolloutDeviceColumns of a table d.
const lastActionColumns = `d.rollout, d.device, d.rank, d.phase, d.state, d.reason, d.detail, d.action, d.attempt, d.failures, d.seq, d.failing, d.repeats, d.progress,
	d.came, d.due, d.deadline, d.soaking, d.updated`

// CloseAction implements desk.Store.
func (c *Control) CloseAction(ctx context.Context, device muster.DeviceID, action int32) error {
	return c.change(ctx, "note the end of a device's action", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO firmware_closed (device, action) VALUES ($1, $2)
			ON CONFLICT (device) DO UPDATE SET action = excluded.action WHERE excluded.action > firmware_closed.action`, string(device), int64(action))
		return err
	})
}

// attemptFailed is the condition of the index rollout_log_failed, letter by letter.
const attemptFailed = `after IN ('failed', 'rolled_back', 'timed_out') OR after = 'queued' AND event IN ('failed', 'silence')`

// FailuresSince returns when devices failed attempts of any rollout after a time, in the
// order of time; at most limit, the newest.
func (c *Control) FailuresSince(ctx context.Context, after muster.Micros, limit int) (out []desk.Failure, err error) {
	err = c.list(ctx, "look for failed updates", `SELECT device, at FROM (SELECT device, at FROM rollout_log
		WHERE at > $1 AND (`+attemptFailed+`) ORDER BY at DESC LIMIT $2) newest ORDER BY at`, []any{int64(after), limit},
		func(rows *sql.Rows) error {
			var f desk.Failure
			err := rows.Scan(&f.Device, &f.At)
			out = append(out, f)
			return err
		})
	return out, err
}
