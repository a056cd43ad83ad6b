package control

import (
	"context"
	"database/sql"
	"fmt"

	"muster"
)

// standingQuery has a page of all rollouts' devices, each with where its log says that it is: the newest row's end, or
// queued before the first. One statement, for a server may be writing.
const standingQuery = `SELECT d.rollout, d.device, d.state, d.action, COALESCE(l.after, 'queued'), COALESCE(l.action, 0) FROM rollout_device d
	LEFT JOIN rollout_log l ON l.rollout = d.rollout AND l.number = (SELECT MAX(n.number) FROM rollout_log n WHERE n.device = d.device AND n.rollout = d.rollout)
	WHERE (d.rollout, d.device) > ($1, $2) ORDER BY d.rollout, d.device LIMIT $3`

// standing is what differs of one rollout's devices.
type standing struct {
	rollout string
	devices int64
	first   string // in words
}

// verifyStanding looks whether each device of each rollout is where the log says: a page in memory at a time.
func (c *Control) verifyStanding(ctx context.Context, wrong func(id, what string)) error {
	var off standing
	tell := func() {
		if off.devices > 0 {
			wrong(off.rollout, fmt.Sprintf("%d of its devices are not where its log says: %s", off.devices, off.first))
		}
		off = standing{}
	}
	var rollout string
	var device muster.DeviceID
	for n := verifyRows; n == verifyRows; {
		n = 0
		err := c.list(ctx, "read rollouts' devices", standingQuery, []any{rollout, string(device), verifyRows}, func(rows *sql.Rows) error {
			var state, after string
			var action, logged int64
			if err := rows.Scan(&rollout, &device, &state, &action, &after, &logged); err != nil {
				return err
			}
			n++
			if rollout != off.rollout {
				tell()
				off.rollout = rollout
			}
			if state == after && action == logged {
				return nil
			}
			if off.devices++; off.devices == 1 {
				off.first = fmt.Sprintf("%s is %s (action %d), and its log ends with %s (action %d)", device, state, action, after, logged)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	tell()
	return c.verifyMembers(ctx, wrong)
}

// verifyMembers looks for devices of which there is a log, and that are in their rollout no more.
func (c *Control) verifyMembers(ctx context.Context, wrong func(id, what string)) error {
	return c.list(ctx, "look for rollouts' devices", `SELECT l.rollout, COUNT(DISTINCT l.device), MIN(l.device) FROM rollout_log l
		WHERE NOT EXISTS (SELECT 1 FROM rollout_device d WHERE d.rollout = l.rollout AND d.device = l.device) GROUP BY l.rollout ORDER BY l.rollout`, nil, func(rows *sql.Rows) error {
		var id string
		var n int64
		var first muster.DeviceID
		err := rows.Scan(&id, &n, &first)
		if err == nil {
			wrong(id, fmt.Sprintf("%d devices of its log are in it no more, the first is %s", n, first))
		}
		return err
	})
}
