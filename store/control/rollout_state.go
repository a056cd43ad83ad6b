package control

import (
	"context"
	"database/sql"
	"fmt"

	"muster"
	"muster/firmware/rollout"
)

// standingQuery has a page of all rollouts' devices, each with what its log says of it: where it is by the newest row, or
// queued before the first; why, by the newest that moved it; how many attempts failed. One statement, for a server may be writing.
const standingQuery = `SELECT d.rollout, d.device, d.state, d.action, d.attempt, d.reason, d.detail, d.failures, d.failing, d.soaking, d.late, d.rank,
	COALESCE(l.after, 'queued'), COALESCE(l.action, 0), CASE WHEN l.number IS NULL THEN '' ELSE l.late END, COALESCE(m.reason, ''), COALESCE(m.detail, ''),
	(SELECT COUNT(*) FROM rollout_log f WHERE f.device = d.device AND f.rollout = d.rollout AND f.before <> f.after AND (` + attemptFailed + `)),
	COALESCE(r.number, 0), COALESCE(r.seed, '')
	FROM rollout_device d LEFT JOIN rollout r ON r.id = d.rollout
	LEFT JOIN rollout_log l ON l.rollout = d.rollout AND l.number = (SELECT MAX(n.number) FROM rollout_log n WHERE n.device = d.device AND n.rollout = d.rollout)
	LEFT JOIN rollout_log m ON m.rollout = d.rollout AND m.number = (SELECT MAX(n.number) FROM rollout_log n WHERE n.device = d.device AND n.rollout = d.rollout AND n.before <> n.after)
	WHERE (d.rollout, d.device) > ($1, $2) ORDER BY d.rollout, d.device LIMIT $3`

// standing is what differs of one rollout's devices.
type standing struct {
	rollout string
	devices int64
	first   string // in words
}

// logged is a device as it stands, and what its log says.
type logged struct {
	rollout                   string
	device                    muster.DeviceID
	state, reason, detail     string
	action, attempt, failures int64
	failing, soaking          bool
	late                      rollout.Late
	rank                      int64
	after                     string // and what follows: by the log
	lastAction                int64
	known                     sql.NullString // null in rows from before it was kept
	lastReason, lastDetail    string
	failed, number            int64
	seed                      string
}

func (g *logged) scan(rows *sql.Rows) error {
	return rows.Scan(&g.rollout, &g.device, &g.state, &g.action, &g.attempt, &g.reason, &g.detail, &g.failures, &g.failing, &g.soaking, &g.late, &g.rank,
		&g.after, &g.lastAction, &g.known, &g.lastReason, &g.lastDetail, &g.failed, &g.number, &g.seed)
}

// off says in words what of a device is not as its log says; empty for nothing.
func (g *logged) off() string {
	known := g.known.String
	if g.soaking { // who has the release is not late any more
		known = ""
	}
	var attempt int64
	if g.action > 0 {
		attempt = g.action & rollout.MaxAttempt
	}
	failing := g.failures > 0 && g.state != rollout.Confirmed.String()
	switch {
	case g.state != g.after || g.action != g.lastAction:
		return fmt.Sprintf("%s is %s (action %d), and its log ends with %s (action %d)", g.device, g.state, g.action, g.after, g.lastAction)
	case g.attempt != attempt:
		return fmt.Sprintf("%s is in attempt %d, and its action is of attempt %d", g.device, g.attempt, attempt)
	case g.action > 0 && g.action>>8 != g.number:
		return fmt.Sprintf("%s has the action %d, which is none of rollout number %d", g.device, g.action, g.number)
	case g.failures != g.failed:
		return fmt.Sprintf("%s has failed %d times, and by its log %d", g.device, g.failures, g.failed)
	case g.failing != failing:
		return fmt.Sprintf("%s counts as failing: %t, and by its log: %t", g.device, g.failing, failing)
	case g.soaking && g.state != rollout.Rebooting.String():
		return fmt.Sprintf("%s is %s, and counts as having the release", g.device, g.state)
	case g.known.Valid && string(g.late) != known:
		return fmt.Sprintf("%s is known to have been late with %q, and by its log with %q", g.device, g.late, known)
	case g.reason != g.lastReason || g.detail != g.lastDetail:
		return fmt.Sprintf("%s is %s for the reason %q %q, and by its log %q %q", g.device, g.state, g.reason, g.detail, g.lastReason, g.lastDetail)
	case g.rank != rankOf(g.seed, g.device):
		return fmt.Sprintf("%s does not have the rank that the rollout's seed gives it", g.device)
	}
	return ""
}

// rankOf is a device's rank as it is kept.
func rankOf(seed string, id muster.DeviceID) int64 { return int64(rollout.Rank(seed, id) ^ rankShift) }

// verifyStanding looks whether each device of each rollout is where the log says: a page in memory at a time.
func (c *Control) verifyStanding(ctx context.Context, wrong func(id, what string)) error {
	var off standing
	tell := func() {
		if off.devices > 0 {
			wrong(off.rollout, fmt.Sprintf("%d of its devices are not where its log says: %s", off.devices, off.first))
		}
		off = standing{}
	}
	var at logged
	for n := verifyRows; n == verifyRows; {
		n = 0
		err := c.list(ctx, "read rollouts' devices", standingQuery, []any{at.rollout, string(at.device), verifyRows}, func(rows *sql.Rows) error {
			at = logged{}
			if err := at.scan(rows); err != nil {
				return err
			}
			n++
			if at.rollout != off.rollout {
				tell()
				off.rollout = at.rollout
			}
			what := at.off()
			if what == "" {
				return nil
			}
			if off.devices++; off.devices == 1 {
				off.first = what
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

// verifyCounts looks whether each rollout counts what its devices' rows are.
func (c *Control) verifyCounts(ctx context.Context, wrong func(id, what string)) error {
	var ids []string
	err := c.list(ctx, "read rollouts", `SELECT id FROM rollout ORDER BY id`, nil, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	for _, id := range ids {
		if err != nil {
			return err
		}
		var right bool
		right, err = c.countsAreRight(ctx, id)
		switch {
		case err != nil && muster.KindOf(err) == muster.Conflict:
			wrong(id, muster.Public(err))
			err = nil
		case err == nil && !right:
			wrong(id, "its counts are not those of its devices' rows: a server that runs puts them right within a minute while the rollout is open")
		}
	}
	return err
}
