package control

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"muster"
	"muster/firmware/desk"
)

// InstalledAction returns the newest action that a device has confirmed, and its release;
// NotFound for none.
func (c *Control) InstalledAction(ctx context.Context, device muster.DeviceID) (action int32, release string, err error) {
	err = c.list(ctx, "look for a device's installed firmware", `SELECT d.action, r.release FROM rollout_device d JOIN rollout r ON r.id = d.rollout
		WHERE d.device = $1 AND d.action > 0 AND d.state = 'confirmed' ORDER BY d.action DESC LIMIT 1`, []any{string(device)},
		func(rows *sql.Rows) error { return rows.Scan(&action, &release) })
	if err == nil && action == 0 {
		err = muster.Errorf(muster.NotFound, "the device has confirmed no firmware")
	}
	return action, release, err
}

// ActionLog returns what happened in an action of a device, a line for each change of its
// state, the newest first; at most limit.
func (c *Control) ActionLog(ctx context.Context, device muster.DeviceID, action int32, limit int) (out []string, err error) {
	err = c.list(ctx, "look for a device's action", `SELECT before, after, reason, detail FROM rollout_log
		WHERE device = $1 AND action = $2 ORDER BY rollout, number DESC LIMIT $3`, []any{string(device), int64(action), limit},
		func(rows *sql.Rows) error {
			var before, after, reason, detail string
			err := rows.Scan(&before, &after, &reason, &detail)
			parts := slices.DeleteFunc([]string{before + " -> " + after, reason, detail}, func(s string) bool { return s == "" })
			out = append(out, strings.Join(parts, ": "))
			return err
		})
	return out, err
}

// Consent returns what people at a device said; the zero Consent when they said nothing.
func (c *Control) Consent(ctx context.Context, device muster.DeviceID) (out desk.Consent, err error) {
	err = c.list(ctx, "look for a device's consent", `SELECT action, auto, initiator, remark, since FROM firmware_consent WHERE device = $1`, []any{string(device)},
		func(rows *sql.Rows) error {
			return rows.Scan(&out.Action, &out.Auto, &out.Initiator, &out.Remark, &out.Since)
		})
	return out, err
}

// SetConsent keeps what people at a device said.
func (c *Control) SetConsent(ctx context.Context, device muster.DeviceID, n desk.Consent) error {
	return c.change(ctx, "keep a device's consent", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO firmware_consent (device, action, auto, initiator, remark, since) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (device) DO UPDATE SET action = excluded.action, auto = excluded.auto, initiator = excluded.initiator, remark = excluded.remark, since = excluded.since`,
			string(device), int64(n.Action), n.Auto, plain(n.Initiator), plain(n.Remark), int64(n.Since))
		if err != nil {
			return fmt.Errorf("write a consent: %w", err)
		}
		return nil
	})
}
