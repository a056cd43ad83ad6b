package control

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"muster"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

// EnlistRollout implements operator.Store.
func (c *Control) EnlistRollout(ctx context.Context, id string, devices []rollout.Device, decide director.Decide) error {
	return c.change(ctx, "start a rollout", func(ctx context.Context, tx *sql.Tx) error {
		r, logged, err := holdRollout(ctx, tx, c.dialect.hold, id)
		if err != nil {
			return err
		}
		if _, err := decide(&r, nil); err != nil {
			return err //nolint:wrapcheck // the decision is the caller's own
		}
		state, err := rolloutState(&r)
		if err != nil {
			return err
		}
		if err := c.insertRolloutDevices(ctx, tx, id, devices); err != nil {
			return err
		}
		return updateRollout(ctx, tx, state, logged)
	})
}

// RescheduleRollout implements operator.Store.
func (c *Control) RescheduleRollout(ctx context.Context, id string, now muster.Micros, decide director.Decide) error {
	return c.change(ctx, "change a rollout", func(ctx context.Context, tx *sql.Tx) error {
		r, logged, err := holdRollout(ctx, tx, c.dialect.hold, id)
		if err != nil {
			return err
		}
		if _, err := decide(&r, nil); err != nil {
			return err //nolint:wrapcheck // the decision is the caller's own
		}
		state, err := rolloutState(&r)
		if err != nil {
			return err
		}
		_, err = exec(ctx, tx, `UPDATE rollout_device SET due = CASE WHEN retry > $2 THEN retry ELSE $2 END
			WHERE rollout = $1 AND state = 'queued' AND due > $2`, id, int64(now))
		if err != nil {
			return err
		}
		_, err = exec(ctx, tx, `UPDATE rollout_device SET due = $2 WHERE rollout = $1 AND state = 'downloaded' AND deadline = $3`, id, int64(now), int64(rollout.AtWindow))
		if err != nil {
			return err
		}
		_, err = exec(ctx, tx, `UPDATE rollout_device SET deadline = $2 WHERE rollout = $1 AND state IN ('offered', 'downloaded') AND deadline > 0 AND deadline < $3`,
			id, int64(rollout.Relook), int64(rollout.AtWindow))
		if err != nil {
			return err
		}
		return updateRollout(ctx, tx, state, logged)
	})
}

// DeleteRollout implements operator.Store.
func (c *Control) DeleteRollout(ctx context.Context, id string, check func(*rollout.Rollout) error) error {
	return c.change(ctx, "delete a rollout", func(ctx context.Context, tx *sql.Tx) error {
		r, _, err := holdRollout(ctx, tx, c.dialect.hold, id)
		if err != nil {
			return err
		}
		if err := check(&r); err != nil {
			return err
		}
		for _, table := range []string{"rollout_log WHERE rollout", "rollout_device WHERE rollout", "rollout WHERE id"} {
			if _, err := exec(ctx, tx, `DELETE FROM `+table+` = $1`, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// Rollout implements operator.Reader.
func (c *Control) Rollout(ctx context.Context, id string) (r rollout.Rollout, err error) {
	list, err := c.rollouts(ctx, "read a rollout", `SELECT `+rolloutColumns+` FROM rollout WHERE id = $1`, []any{plain(id)})
	if err == nil && len(list) == 0 {
		err = errRolloutGone()
	}
	if err != nil {
		return r, err
	}
	return list[0], nil
}

func (c *Control) rollouts(ctx context.Context, doing, query string, args []any) (out []rollout.Rollout, err error) {
	err = c.list(ctx, doing, query, args, func(rows *sql.Rows) error {
		r, err := rolloutOf(rows.Scan)
		out = append(out, r)
		return err
	})
	return out, err
}

// conditions gathers what rows must be, each with one placeholder for its argument.
type conditions struct {
	where []string
	args  []any
}

// add takes a condition that has %s in the place of its argument.
func (w *conditions) add(condition string, arg any) {
	if text, ok := arg.(string); ok {
		arg = plain(text)
	}
	w.args = append(w.args, arg)
	w.where = append(w.where, fmt.Sprintf(condition, fmt.Sprintf("$%d", len(w.args))))
}

// text is the WHERE clause, empty for no conditions.
func (w *conditions) text() string {
	if len(w.where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.where, " AND ")
}

// limit is the LIMIT clause; nothing may be added behind it.
func (w *conditions) limit(n int) string {
	w.args = append(w.args, n)
	return fmt.Sprintf(" LIMIT $%d", len(w.args))
}

// Rollouts implements operator.Reader.
func (c *Control) Rollouts(ctx context.Context, q operator.Query) ([]rollout.Rollout, error) {
	var w conditions
	if q.Status != "" {
		w.add("status = %s", string(q.Status))
	}
	if q.Release != "" {
		w.add("release = %s", q.Release)
	}
	if q.Before > 0 {
		w.add("number < %s", q.Before)
	}
	query := `SELECT ` + rolloutColumns + ` FROM rollout` + w.text() + ` ORDER BY number DESC`
	query += w.limit(q.Limit)
	return c.rollouts(ctx, "list rollouts", query, w.args)
}

// RolloutMembers implements operator.Reader.
func (c *Control) RolloutMembers(ctx context.Context, q operator.DeviceQuery) ([]rollout.Device, error) {
	var w conditions
	w.add("rollout = %s", q.Rollout)
	if q.State != "" {
		w.add("state = %s", q.State)
	}
	if q.Phase >= 0 {
		w.add("phase = %s", q.Phase)
	}
	if q.Reason != "" {
		w.add("reason = %s", string(q.Reason))
	}
	if q.Device != "" {
		w.add("device = %s", string(q.Device))
	}
	if q.After != "" {
		w.add("device > %s", string(q.After))
	}
	query := `SELECT ` + rolloutDeviceColumns + ` FROM rollout_device` + w.text() + ` ORDER BY device`
	query += w.limit(q.Limit)
	return c.rolloutDevices(ctx, "list the devices of a rollout", query, w.args)
}

// RolloutSample implements operator.Reader.
func (c *Control) RolloutSample(ctx context.Context, id string, state rollout.State, phase, limit int) ([]rollout.Device, error) {
	var w conditions
	w.add("rollout = %s", id)
	w.add("state = %s", state.String())
	if phase >= 0 {
		w.add("phase = %s", phase)
	}
	query := `SELECT ` + rolloutDeviceColumns + ` FROM rollout_device` + w.text() + ` ORDER BY rank`
	query += w.limit(limit)
	return c.rolloutDevices(ctx, "sample the devices of a rollout", query, w.args)
}

// Standing implements operator.Reader.
func (c *Control) Standing(ctx context.Context, r *rollout.Rollout, device muster.DeviceID) (d rollout.Device, in bool, err error) {
	found, err := c.RolloutMembers(ctx, operator.DeviceQuery{Rollout: r.ID, Phase: -1, Device: device, Limit: 1})
	if err != nil {
		return d, false, err
	}
	d = rollout.Device{Rollout: r.ID, ID: device, Phase: len(r.Plan.Phases) - 1}
	if in = len(found) == 1; in {
		d = found[0]
	}
	err = c.list(ctx, "look for a device's other rollouts", `SELECT o.state, r.security FROM rollout_device o JOIN rollout r ON r.id = o.rollout
		WHERE o.device = $1 AND o.rollout <> $2 AND (o.`+inFlight+` OR o.state = 'confirmed' AND r.product = $3)`, []any{string(device), r.ID, r.Product}, func(rows *sql.Rows) error {
		var state string
		var security int64
		err := rows.Scan(&state, &security)
		if state == rollout.Confirmed.String() {
			d.Secure = max(d.Secure, security)
		} else {
			d.Elsewhere = true
		}
		return err
	})
	return d, in, err
}

func (c *Control) rolloutDevices(ctx context.Context, doing, query string, args []any) (out []rollout.Device, err error) {
	err = c.list(ctx, doing, query, args, func(rows *sql.Rows) error {
		d, err := rolloutDeviceOf(rows.Scan)
		out = append(out, d)
		return err
	})
	return out, err
}

// RolloutsOf implements operator.Reader: what waits for the device is found by the rollouts that
// are open, of which there are few; the rest by what it was offered.
func (c *Control) RolloutsOf(ctx context.Context, device muster.DeviceID, limit int) (out []operator.Entry, err error) {
	scan := func(rows *sql.Rows) error {
		var e operator.Entry
		var err error
		e.Device, err = rolloutDeviceOf(func(to ...any) error {
			return rows.Scan(append([]any{&e.Name, &e.Release, &e.Status, &e.Number}, to...)...)
		})
		out = append(out, e)
		return err
	}
	const columns = `SELECT r.name, r.release, r.status, r.number, ` + lastActionColumns
	err = c.list(ctx, "look for a device's rollouts", columns+` FROM rollout r JOIN rollout_device d ON d.rollout = r.id AND d.device = $1
		WHERE (r.status NOT IN ('completed', 'aborted') OR r.unended > 0) AND d.action = 0 ORDER BY r.number DESC LIMIT $2`, []any{string(device), limit}, scan)
	if err != nil {
		return nil, err
	}
	err = c.list(ctx, "look for a device's rollouts", columns+` FROM rollout_device d JOIN rollout r ON r.id = d.rollout
		WHERE d.device = $1 AND d.action > 0 ORDER BY d.action DESC LIMIT $2`, []any{string(device), limit}, scan)
	return out, err
}

// RolloutLog implements operator.Reader.
func (c *Control) RolloutLog(ctx context.Context, q operator.LogQuery) (out []operator.LogEntry, err error) {
	var w conditions
	w.add("rollout = %s", q.Rollout)
	if q.Device != "" {
		w.add("device = %s", string(q.Device))
	}
	order := ` ORDER BY number`
	switch {
	case !q.Newest:
		w.add("number > %s", q.After)
	case q.After > 0:
		w.add("number < %s", q.After)
	}
	if q.Newest {
		order += ` DESC`
	}
	query := `SELECT number, device, action, attempt, event, before, after, reason, detail, at FROM rollout_log` + w.text() + order
	query += w.limit(q.Limit)
	err = c.list(ctx, "read the log of a rollout", query, w.args, func(rows *sql.Rows) error {
		var e operator.LogEntry
		err := rows.Scan(&e.Number, &e.Device, &e.Action, &e.Attempt, &e.Event, &e.From, &e.To, &e.Reason, &e.Detail, &e.At)
		out = append(out, e)
		return err
	})
	return out, err
}

// RolloutReasons implements operator.Reader.
func (c *Control) RolloutReasons(ctx context.Context, id string, limit int) (out []operator.ReasonCount, err error) {
	err = c.list(ctx, "count the reasons of a rollout", `SELECT state, reason, count(*) FROM rollout_device WHERE rollout = $1 AND reason <> ''
		GROUP BY state, reason ORDER BY count(*) DESC, state, reason LIMIT $2`, []any{id, limit}, func(rows *sql.Rows) error {
		var n operator.ReasonCount
		err := rows.Scan(&n.State, &n.Reason, &n.Devices)
		out = append(out, n)
		return err
	})
	return out, err
}

// GotRelease implements operator.Reader.
func (c *Control) GotRelease(ctx context.Context, id string, after muster.DeviceID, limit int) (out []muster.DeviceID, err error) {
	err = c.list(ctx, "look for updated devices", `SELECT device FROM rollout_device
		WHERE rollout = $1 AND device > $2 AND (state IN ('offered', 'downloading', 'downloaded', 'installing', 'rebooting', 'confirmed') OR late = 'installed') ORDER BY device LIMIT $3`, []any{id, string(after), limit}, func(rows *sql.Rows) error {
		var d muster.DeviceID
		err := rows.Scan(&d)
		out = append(out, d)
		return err
	})
	return out, err
}

// ConfirmedAbove implements operator.Reader. Mostly no rollout of the product has a higher one, which is known at once.
func (c *Control) ConfirmedAbove(ctx context.Context, product string, security int64, devices []muster.DeviceID) (highest int64, err error) {
	found := func(rows *sql.Rows) error {
		var n sql.NullInt64
		err := rows.Scan(&n)
		highest = max(highest, n.Int64)
		return err
	}
	err = c.list(ctx, "look for rollouts of higher security", `SELECT MAX(security) FROM rollout WHERE product = $1 AND security > $2`, []any{product, security}, found)
	if err != nil || highest == 0 {
		return 0, err
	}
	highest = 0
	for part := range slices.Chunk(devices, maxParams-2) {
		err := c.list(ctx, "look what security devices confirmed", fmt.Sprintf(`SELECT MAX(r.security) FROM rollout_device d JOIN rollout r ON r.id = d.rollout
			WHERE d.device IN (%s) AND d.state = 'confirmed' AND r.product = $%d AND r.security > $%d`, places(len(part)), len(part)+1, len(part)+2),
			append(idArgs(part), product, security), found)
		if err != nil {
			return 0, err
		}
	}
	return highest, nil
}

// OlderRollouts implements operator.Reader.
func (c *Control) OlderRollouts(ctx context.Context, product string, number int32, limit int) ([]rollout.Rollout, error) {
	return c.rollouts(ctx, "look for older rollouts", `SELECT `+rolloutColumns+` FROM rollout
		WHERE (status NOT IN ('completed', 'aborted') OR unended > 0) AND product = $1 AND number < $2 ORDER BY number LIMIT $3`, []any{product, number, limit})
}

// Overlap implements operator.Reader.
func (c *Control) Overlap(ctx context.Context, older, newer string, limit int) (out []muster.DeviceID, err error) {
	err = c.list(ctx, "look for devices of two rollouts", `SELECT o.device FROM rollout_device o
		JOIN rollout_device n ON n.rollout = $2 AND n.device = o.device
		WHERE o.rollout = $1 AND o.state IN ('queued', 'offered', 'downloading', 'downloaded') LIMIT $3`, []any{older, newer, limit}, func(rows *sql.Rows) error {
		var d muster.DeviceID
		err := rows.Scan(&d)
		out = append(out, d)
		return err
	})
	return out, err
}

// The seams that are filled here.
var (
	_ operator.Store  = (*Control)(nil)
	_ operator.Reader = (*Control)(nil)
)
