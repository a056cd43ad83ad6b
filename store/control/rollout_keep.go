package control

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// WakeDevices makes devices that were asleep in whatever rollout due at once, at most
// maxParams. It returns how many of them wait in a rollout that runs.
func (c *Control) WakeDevices(ctx context.Context, devices []muster.DeviceID, now muster.Micros) (waiting int, err error) {
	const due = `state = 'queued' AND EXISTS (SELECT 1 FROM rollout r WHERE r.id = rollout_device.rollout AND r.status = 'running')`
	for part := range slices.Chunk(devices, maxParams-2) {
		// Most of those who come wait for nothing: reading that costs no write.
		n, asleep := 0, 0
		err := c.list(ctx, "look who waits for firmware", `SELECT due FROM rollout_device WHERE device IN (`+places(len(part))+`) AND `+due, idArgs(part), func(rows *sql.Rows) error {
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
			_, err := exec(ctx, tx, fmt.Sprintf(`UPDATE rollout_device SET due = $%d WHERE due = $%d AND device IN (%s) AND state = 'queued'`,
				len(part)+1, len(part)+2, places(len(part))), args...)
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
		_, err := exec(ctx, tx, `UPDATE rollout_device SET due = $1 WHERE due = $2 AND rollout = $3 AND state = 'queued'`, int64(now), int64(director.Asleep), id)
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
// itself counts. It says whether it was wrong, which it never should be.
func (c *Control) RecountRollout(ctx context.Context, id string) (wrong bool, err error) {
	err = c.change(ctx, "count a rollout's devices", func(ctx context.Context, tx *sql.Tx) error {
		r, logged, err := holdRollout(ctx, tx, c.dialect.hold, id)
		if err != nil {
			return err
		}
		counts, err := countedRows(ctx, tx, &r)
		if err != nil || slices.Equal(counts, r.Counts) {
			return err
		}
		wrong, r.Counts = true, counts
		state, err := rolloutState(&r)
		if err != nil {
			return err
		}
		return updateRollout(ctx, tx, state, logged)
	})
	return wrong, err
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

// countedRows counts a rollout's devices in their rows.
func countedRows(ctx context.Context, tx *sql.Tx, r *rollout.Rollout) ([]rollout.Counts, error) {
	counts := make([]rollout.Counts, len(r.Counts))
	err := read(ctx, tx, `SELECT phase, state, failing, soaking, COUNT(*) FROM rollout_device WHERE rollout = $1 GROUP BY phase, state, failing, soaking`, []any{r.ID},
		func(rows *sql.Rows) error {
			var phase, n int
			var state string
			var failing, soaking bool
			if err := rows.Scan(&phase, &state, &failing, &soaking, &n); err != nil {
				return err
			}
			s, known := rollout.ParseState(state)
			if !known || phase < 0 || phase >= len(counts) {
				return fmt.Errorf("rollout %s has a device in phase %d that is %s", r.ID, phase, state)
			}
			counts[phase].By[s] += n
			if failing {
				counts[phase].Failing += n
			}
			if s == rollout.Rebooting && soaking && !failing {
				counts[phase].Soaking += n
			}
			return nil
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
