package control

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"muster"
	"muster/audit"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// WakeDevices makes devices that were asleep in whatever rollout due at once, at most
// maxParams. It returns how many of them wait in a rollout that runs: of those that are parked with the image only who
// may install in the next round.
func (c *Control) WakeDevices(ctx context.Context, devices []muster.DeviceID, now muster.Micros) (waiting int, err error) {
	const runs = ` AND EXISTS (SELECT 1 FROM rollout r WHERE r.id = rollout_device.rollout AND r.status = 'running')`
	for part := range slices.Chunk(devices, maxParams-3) {
		// Most of those who come wait for nothing: reading that costs no write.
		n, asleep := 0, 0
		query := fmt.Sprintf(`SELECT due FROM rollout_device WHERE device IN (%[1]s) AND state = 'queued'%[2]s
			UNION ALL SELECT due FROM rollout_device WHERE device IN (%[1]s) AND %[3]s AND deadline = $%[4]d AND (due <= $%[5]d OR due = $%[6]d)%[2]s`,
			places(len(part)), runs, inFlight, len(part)+1, len(part)+2, len(part)+3)
		args := append(idArgs(part), int64(rollout.AtWindow), int64(now), int64(director.Asleep))
		err := c.list(ctx, "look who waits for firmware", query, args, func(rows *sql.Rows) error {
			var at muster.Micros
			err := rows.Scan(&at)
			n++
			if at == director.Asleep {
				asleep++
			}
			return err
		})
		if err != nil {
			return waiting, err
		}
		waiting += n
		if asleep == 0 {
			continue
		}
		err = c.change(ctx, "wake devices for their firmware", func(ctx context.Context, tx *sql.Tx) error {
			args := append(idArgs(part), int64(now), int64(director.Asleep))
			wake := fmt.Sprintf(`UPDATE rollout_device SET due = $%d WHERE due = $%d AND device IN (%s) AND `, len(part)+1, len(part)+2, places(len(part)))
			if _, err := exec(ctx, tx, wake+`state = 'queued'`, args...); err != nil {
				return err
			}
			_, err := exec(ctx, tx, wake+inFlight+fmt.Sprintf(` AND deadline = $%d`, len(part)+3), append(args, int64(rollout.AtWindow))...)
			return err
		})
		if err != nil {
			return waiting, err
		}
	}
	return waiting, nil
}

// WakeRollout makes all of a rollout's devices that were asleep due.
func (c *Control) WakeRollout(ctx context.Context, id string, now muster.Micros) error {
	return c.change(ctx, "wake a rollout's devices", func(ctx context.Context, tx *sql.Tx) error {
		wake, args := `UPDATE rollout_device SET due = $1 WHERE due = $2 AND rollout = $3 AND `, []any{int64(now), int64(director.Asleep), id}
		if _, err := exec(ctx, tx, wake+`state = 'queued'`, args...); err != nil {
			return err
		}
		_, err := exec(ctx, tx, wake+`deadline = $4 AND state = 'downloaded'`, append(args, int64(rollout.AtWindow))...)
		return err
	})
}

// JoinRollout adds devices to a rollout that runs; those that are in it already are left
// as they are. It returns how many have joined.
func (c *Control) JoinRollout(ctx context.Context, id string, devices []rollout.Device) (joined int, err error) {
	err = c.change(ctx, "let devices join a rollout", func(ctx context.Context, tx *sql.Tx) error {
		r, logged, err := holdRollout(ctx, tx, c.dialect.hold, id)
		if err != nil || r.Status.Ended() {
			return err
		}
		before, err := countedRows(ctx, tx, &r)
		if err != nil {
			return err
		}
		seat(&r, before, devices)
		if err := c.insertRolloutDevices(ctx, tx, id, devices); err != nil {
			return err
		}
		after, err := countedRows(ctx, tx, &r)
		if err != nil {
			return err
		}
		for i := range r.Counts {
			n := after[i].By[rollout.Queued] - before[i].By[rollout.Queued]
			r.Counts[i].By[rollout.Queued] += n
			joined += n
		}
		if joined == 0 {
			return nil
		}
		state, err := rolloutState(&r)
		if err != nil {
			return err
		}
		return updateRollout(ctx, tx, state, logged)
	})
	return joined, err
}

// seat gives devices that join a rollout their phases, in the order of their ranks.
func seat(r *rollout.Rollout, counts []rollout.Counts, devices []rollout.Device) {
	total := make([]int, len(counts))
	for i := range counts {
		total[i] = counts[i].Total()
	}
	slices.SortFunc(devices, func(a, b rollout.Device) int { return cmp.Compare(a.Rank, b.Rank) })
	for i := range devices {
		devices[i].Phase = r.Seat(&devices[i], func(phase int) int { return total[phase] })
		total[devices[i].Phase]++
	}
}

// RecountRollout counts a rollout's devices in their rows, and puts right what the rollout
// itself counts, with an audit record. It says whether it was wrong, which it never should be. What is right is read only,
// as of one moment: a transaction that holds the rollout is taken for what is wrong.
func (c *Control) RecountRollout(ctx context.Context, id string) (wrong bool, err error) {
	if right, err := c.countsAreRight(ctx, id); err != nil || right {
		return false, err
	}
	err = c.change(ctx, "count a rollout's devices", func(ctx context.Context, tx *sql.Tx) error {
		r, logged, err := holdRollout(ctx, tx, c.dialect.hold, id)
		if err != nil {
			return err
		}
		counts, err := countedRows(ctx, tx, &r)
		if err != nil {
			return err
		}
		if slices.Equal(counts, r.Counts) {
			return updateUnended(ctx, tx, &r)
		}
		audit.Note(ctx, rolloutRecounted, rolloutPath(id), countsView{r.Counts}, countsView{counts})
		wrong, r.Counts = true, counts
		state, err := rolloutState(&r)
		if err != nil {
			return err
		}
		return updateRollout(ctx, tx, state, logged)
	})
	return wrong, err
}

// updateUnended puts right how many devices of a rollout have not ended, which its counts say.
func updateUnended(ctx context.Context, tx *sql.Tx, r *rollout.Rollout) error {
	_, err := exec(ctx, tx, `UPDATE rollout SET unended = $2 WHERE id = $1`, r.ID, unended(r))
	return err
}

// rolloutRecounted is the action of audit records about counts that were put right.
const rolloutRecounted = "rollout.recount"

type countsView struct {
	Counts []rollout.Counts `json:"counts"`
}

// holdRollout reads a rollout, which stays locked until the transaction ends, and how many
// rows its log has.
func holdRollout(ctx context.Context, tx *sql.Tx, hold, id string) (r rollout.Rollout, logged logEnd, err error) {
	err = read(ctx, tx, rolloutQuery+hold, []any{plain(id)}, func(rows *sql.Rows) (err error) {
		r, err = rolloutOf(func(to ...any) error { return rows.Scan(append(to, &logged.rows, &logged.chain)...) })
		return err
	})
	if err == nil && r.ID == "" {
		err = errRolloutGone()
	}
	return r, logged, err
}

// countGroups has how many of a rollout's devices are alike, for addCounted. The number in it is rollout.AtWindow.
const countGroups = `SELECT phase, state, failing, soaking, late, skipped, parked, COUNT(*) AS devices FROM (
	SELECT phase, state, failing, soaking, late, CASE state WHEN 'skipped' THEN reason ELSE '' END AS skipped, deadline = 9223372036854775807 AS parked
	FROM rollout_device WHERE rollout = $1) alike
	GROUP BY phase, state, failing, soaking, late, skipped, parked`

// countsAreRight says whether a rollout counts what its rows are; one statement sees one moment.
func (c *Control) countsAreRight(ctx context.Context, id string) (right bool, err error) {
	var text string
	var counted []rollout.Counts
	var open int
	found := false
	err = c.list(ctx, "count a rollout's devices", `SELECT r.counts, r.unended, g.phase, g.state, g.failing, g.soaking, g.late, g.skipped, g.parked, g.devices
		FROM rollout r LEFT JOIN (`+countGroups+`) g ON r.id = $1 WHERE r.id = $1`, []any{id}, func(rows *sql.Rows) error {
		var g countedGroup
		if err := rows.Scan(&text, &open, &g.phase, &g.state, &g.failing, &g.soaking, &g.late, &g.skipped, &g.parked, &g.devices); err != nil {
			return err
		}
		if !found {
			found = true
			if err := json.Unmarshal([]byte(text), &counted); err != nil {
				return muster.Errorf(muster.Conflict, "the counts of rollout %s cannot be read", id)
			}
			clear(counted)
		}
		if !g.phase.Valid { // it has no devices
			return nil
		}
		return g.addTo(counted, id)
	})
	if err != nil || !found {
		return false, err
	}
	var kept []rollout.Counts
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		return false, fmt.Errorf("read the counts of rollout %s: %w", id, err)
	}
	return slices.Equal(kept, counted) && open == unended(&rollout.Rollout{Counts: counted}), nil
}

// countedGroup is a row of countGroups.
type countedGroup struct {
	phase, devices       sql.NullInt64
	state, late, skipped sql.NullString // skipped is why
	failing, soaking     sql.NullBool
	parked               sql.NullBool
}

func (g *countedGroup) addTo(counts []rollout.Counts, id string) error {
	s, known := rollout.ParseState(g.state.String)
	if !known || g.phase.Int64 < 0 || g.phase.Int64 >= int64(len(counts)) {
		return muster.Errorf(muster.Conflict, "rollout %s has a device in phase %d that is %s", id, g.phase.Int64, g.state.String)
	}
	c, n := &counts[g.phase.Int64], int(g.devices.Int64)
	c.By[s] += n
	if g.failing.Bool {
		c.Failing += n
	}
	if s == rollout.Rebooting && g.soaking.Bool && !g.failing.Bool {
		c.Soaking += n
	}
	if s == rollout.Downloaded && g.parked.Bool {
		c.Parked += n
	}
	if g.late.String == string(rollout.LateInstalled) && !s.InFlight() {
		c.Late += n
	}
	switch d := (rollout.Device{State: s, Reason: rollout.Reason(g.skipped.String)}); {
	case d.Missed():
		c.Missed += n
	case d.Unfit():
		c.Unfit += n
	}
	return nil
}

// countedRows counts a rollout's devices in their rows.
func countedRows(ctx context.Context, tx *sql.Tx, r *rollout.Rollout) ([]rollout.Counts, error) {
	counts := make([]rollout.Counts, len(r.Counts))
	err := read(ctx, tx, countGroups, []any{r.ID}, func(rows *sql.Rows) error {
		var g countedGroup
		if err := rows.Scan(&g.phase, &g.state, &g.failing, &g.soaking, &g.late, &g.skipped, &g.parked, &g.devices); err != nil {
			return err
		}
		return g.addTo(counts, r.ID)
	})
	return counts, err
}

// DeletedInFlight returns the devices that are in flight in a rollout and are no more.
func (c *Control) DeletedInFlight(ctx context.Context, id string) (out []muster.DeviceID, err error) {
	err = c.list(ctx, "look for deleted devices in flight", `SELECT device FROM rollout_device WHERE rollout = $1 AND `+inFlight+`
		AND NOT EXISTS (SELECT 1 FROM device WHERE device.id = rollout_device.device)`, []any{id}, func(rows *sql.Rows) error {
		var device muster.DeviceID
		err := rows.Scan(&device)
		out = append(out, device)
		return err
	})
	return out, err
}

// RolloutDevices returns the ids of a rollout's devices, all of them.
func (c *Control) RolloutDevices(ctx context.Context, id string) (out map[muster.DeviceID]struct{}, err error) {
	out = map[muster.DeviceID]struct{}{}
	err = c.list(ctx, "read a rollout's devices", `SELECT device FROM rollout_device WHERE rollout = $1`, []any{id}, func(rows *sql.Rows) error {
		var device muster.DeviceID
		err := rows.Scan(&device)
		out[device] = struct{}{}
		return err
	})
	return out, err
}
