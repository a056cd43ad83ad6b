package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"muster"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// LastAction implements desk.Store. What is in flight is the newest, whatever its number: an older rollout may offer after
// a newer one is through with the device.
func (c *Control) LastAction(ctx context.Context, device muster.DeviceID) (a desk.Action, err error) {
	found := false
	err = c.list(ctx, "look for a device's firmware", `SELECT r.release, r.plan, COALESCE((SELECT action FROM firmware_closed f WHERE f.device = $1), 0),
		COALESCE((SELECT MAX(l.at) FROM rollout_log l WHERE l.device = d.device AND l.rollout = d.rollout AND l.event = 'offer'), 0), `+lastActionColumns+`
		FROM rollout_device d JOIN rollout r ON r.id = d.rollout WHERE d.device = $1 AND d.action > 0
		ORDER BY CASE WHEN d.`+inFlight+` THEN 0 ELSE 1 END, d.action DESC LIMIT 1`, []any{string(device)},
		func(rows *sql.Rows) (err error) {
			found = true
			var plan string
			a.Device, err = rolloutDeviceOf(func(to ...any) error {
				return rows.Scan(append([]any{&a.Release, &plan, &a.Closed, &a.Offered}, to...)...)
			})
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

// lastActionColumns are rolloutDeviceColumns of a table d.
const lastActionColumns = `d.rollout, d.device, d.rank, d.phase, d.state, d.reason, d.detail, d.action, d.attempt, d.failures, d.seq, d.failing, d.repeats, d.progress,
	d.came, d.due, d.deadline, d.soaking, d.updated, d.retry, d.soaked, d.late`

// Actions implements director.Store.
func (c *Control) Actions(ctx context.Context, ids []muster.DeviceID) (map[muster.DeviceID][]director.Action, error) {
	out := make(map[muster.DeviceID][]director.Action, len(ids))
	for part := range slices.Chunk(ids, maxParams-1) {
		query := `SELECT device, action, rollout, release, product, state, retries, late, updated FROM (
			SELECT d.device, d.action, d.rollout, r.release, r.product, d.state, d.retry > 0 AS retries, d.late, d.updated,
				ROW_NUMBER() OVER (PARTITION BY d.device ORDER BY CASE WHEN d.` + inFlight + ` THEN 0 ELSE 1 END, d.action DESC) AS nth
			FROM rollout_device d JOIN rollout r ON r.id = d.rollout WHERE d.device IN (` + places(len(part)) + `) AND d.action > 0 AND (d.` + inFlight + `
				OR d.action >= COALESCE((SELECT MAX(k.action) FROM rollout_device k JOIN rollout o ON o.id = k.rollout
					WHERE k.device = d.device AND k.state = 'confirmed' AND o.product = r.product), 0))
			) offered WHERE nth <= $` + strconv.Itoa(len(part)+1) + ` ORDER BY device, nth`
		err := c.list(ctx, "look for what devices were offered", query, append(idArgs(part), director.MostActions), func(rows *sql.Rows) error {
			var device muster.DeviceID
			var state string
			var a director.Action
			var retry, known bool
			if err := rows.Scan(&device, &a.Number, &a.Rollout, &a.Release, &a.Product, &state, &retry, &a.Late, &a.Updated); err != nil {
				return fmt.Errorf("read what a device was offered: %w", err)
			}
			if a.State, known = rollout.ParseState(state); !known {
				return fmt.Errorf("device %s has no state that is known", device)
			}
			a.Retries = retry && a.State == rollout.Queued
			out[device] = append(out[device], a)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

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
	err = c.list(ctx, "look for failed updates", `SELECT device, rollout, at FROM (SELECT device, rollout, at FROM rollout_log
		WHERE at > $1 AND before <> after AND (`+attemptFailed+`) ORDER BY at DESC LIMIT $2) newest ORDER BY at`, []any{int64(after), limit},
		func(rows *sql.Rows) error {
			var f desk.Failure
			err := rows.Scan(&f.Device, &f.Rollout, &f.At)
			out = append(out, f)
			return err
		})
	return out, err
}
