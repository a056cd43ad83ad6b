package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

const (
	rolloutColumns = `id, number, name, release, product, security, rollback, query, membership, seed, plan, status, reason, start_at, phase, phase_at, passed, waiting,
	counts, upto, tokens, owner, epoch, expires, version, record`
	rolloutDeviceColumns = `rollout, device, rank, phase, state, reason, detail, action, attempt, failures, seq, failing, repeats, progress, came, due,
	deadline, soaking, updated, retry, soaked, late`
	rolloutQuery = `SELECT ` + rolloutColumns + `, log, chain FROM rollout WHERE id = $1`
	dueQuery     = `SELECT ` + rolloutDeviceColumns + ` FROM rollout_device WHERE rollout = $1 AND phase = $2 AND state = 'queued' AND due <= $3 ORDER BY due, rank LIMIT $4`
	parkedQuery  = `SELECT ` + rolloutDeviceColumns + ` FROM rollout_device WHERE rollout = $1 AND deadline = $2 AND state = 'downloaded' AND due <= $3 ORDER BY due, rank LIMIT $4`
	overdueQuery = `SELECT ` + rolloutDeviceColumns + ` FROM rollout_device WHERE rollout = $1 AND deadline > 0 AND deadline <= $2 ORDER BY deadline LIMIT $3`
	openQuery    = `SELECT ` + rolloutColumns + ` FROM rollout WHERE status NOT IN ('completed', 'aborted') OR unended > 0 ORDER BY number LIMIT $1`
	// inFlight is the condition of the index rollout_device_flight, letter by letter.
	inFlight = `state IN ('offered', 'downloading', 'downloaded', 'installing', 'rebooting')`
)

// rankShift makes the order of unsigned ranks that of signed numbers.
const rankShift = 1 << 63

// errRolloutGone is what a decision about a rollout that is not there gets.
func errRolloutGone() error { return muster.Errorf(muster.NotFound, "there is no such rollout") }

func rolloutOf(scan func(...any) error) (r rollout.Rollout, err error) {
	var plan, counts, upto, tokens, record string
	err = scan(&r.ID, &r.Number, &r.Name, &r.Release, &r.Product, &r.Security, &r.Rollback, &r.Query, &r.Membership, &r.Seed, &plan, &r.Status, &r.Reason, &r.StartAt, &r.Phase,
		&r.PhaseAt, &r.Passed, &r.Waiting, &counts, &upto, &tokens, &r.Owner, &r.Epoch, &r.Expires, &r.Version, &record)
	if err != nil {
		return r, err
	}
	for _, m := range []struct {
		text string
		to   any
	}{{plan, &r.Plan}, {counts, &r.Counts}, {upto, &r.Upto}, {tokens, &r.Tokens}, {record, &r.Record}} {
		if err := json.Unmarshal([]byte(m.text), m.to); err != nil {
			return r, fmt.Errorf("read rollout %s: %w", r.ID, err)
		}
	}
	return r, nil
}

// rolloutTexts are the members of a rollout that are kept as JSON.
func rolloutTexts(r *rollout.Rollout) (t textsOfRollout, err error) {
	for _, m := range []struct {
		to   *string
		from any
	}{{&t.plan, r.Plan}, {&t.counts, r.Counts}, {&t.upto, r.Upto}, {&t.tokens, r.Tokens}, {&t.record, r.Record}} {
		text, err := json.Marshal(m.from)
		if err != nil {
			return t, fmt.Errorf("encode rollout %s: %w", r.ID, err)
		}
		*m.to = string(text)
	}
	return t, nil
}

type textsOfRollout struct{ plan, counts, upto, tokens, record string }

func unended(r *rollout.Rollout) (n int) {
	for i := range r.Counts {
		n += r.Counts[i].Open()
	}
	return n
}

// InsertRollout implements operator.Keeper.
func (c *Control) InsertRollout(ctx context.Context, r *rollout.Rollout, devices []rollout.Device, noted ...func()) error {
	return c.change(ctx, "insert a rollout", func(ctx context.Context, tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `UPDATE counter SET value = value + 1 WHERE name = 'rollout' RETURNING value`).Scan(&r.Number); err != nil {
			return fmt.Errorf("number a rollout: %w", err)
		}
		if r.Number > rollout.MaxNumber {
			return muster.Errorf(muster.Conflict, "there have been %d rollouts, which is the most", rollout.MaxNumber)
		}
		for _, note := range noted {
			note()
		}
		t, err := rolloutTexts(r)
		if err != nil {
			return err
		}
		row := []any{
			r.ID, r.Number, plain(r.Name), r.Release, r.Product, r.Security, r.Rollback, r.Query, string(r.Membership), r.Seed, t.plan, string(r.Status), string(r.Reason), int64(r.StartAt),
			r.Phase, int64(r.PhaseAt), int64(r.Passed), r.Waiting, t.counts, t.upto, t.tokens, r.Owner, r.Epoch, int64(r.Expires), r.Version, t.record, unended(r), 0,
		}
		n, err := exec(ctx, tx, `INSERT INTO rollout (`+rolloutColumns+`, unended, log) VALUES `+tuples(1, len(row))+` ON CONFLICT (id) DO NOTHING`, row...)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.Conflict, "there is a rollout of this id")
		}
		if err != nil {
			return err
		}
		return c.insertRolloutDevices(ctx, tx, r.ID, devices)
	})
}

func (c *Control) insertRolloutDevices(ctx context.Context, tx *sql.Tx, id string, devices []rollout.Device) error {
	for part := range slices.Chunk(devices, bulkRows) {
		rows := make([][]any, len(part))
		for i := range part {
			rows[i] = []any{string(part[i].ID), int64(part[i].Rank ^ rankShift), part[i].Phase, int64(part[i].Updated), id}
		}
		_, err := c.bulk(ctx, tx, `INSERT INTO rollout_device (`+rolloutDeviceColumns+`)
			SELECT v.value ->> 4, v.value ->> 0, CAST(v.value ->> 1 AS BIGINT), CAST(v.value ->> 2 AS BIGINT), 'queued', '', '', 0, 0, 0, 0, FALSE, 0, 0, '',
			0, 0, FALSE, CAST(v.value ->> 3 AS BIGINT), 0, 0, '' FROM`, `WHERE true ON CONFLICT (rollout, device) DO NOTHING`, rows)
		if err != nil {
			return err
		}
	}
	return nil
}

// Open implements director.Store.
func (c *Control) Open(ctx context.Context, limit int) (out []rollout.Rollout, err error) {
	err = c.list(ctx, "look for rollouts", openQuery, []any{limit}, func(rows *sql.Rows) error {
		r, err := rolloutOf(rows.Scan)
		out = append(out, r)
		return err
	})
	return out, err
}

// InFlight implements director.Store.
func (c *Control) InFlight(ctx context.Context, devices []muster.DeviceID) (map[muster.DeviceID]string, error) {
	out := make(map[muster.DeviceID]string, len(devices))
	for part := range slices.Chunk(devices, maxParams) {
		query := `SELECT device, rollout FROM rollout_device WHERE device IN (` + places(len(part)) + `) AND ` + inFlight
		err := c.list(ctx, "look for devices' rollouts", query, idArgs(part), func(rows *sql.Rows) error {
			var device muster.DeviceID
			var id string
			err := rows.Scan(&device, &id)
			out[device] = id
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func idArgs(ids []muster.DeviceID) []any {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = string(id)
	}
	return args
}

// Decide implements director.Store.
func (c *Control) Decide(ctx context.Context, id string, f director.Fence, now muster.Micros, s director.Select, decide director.Decide) error {
	return c.change(ctx, "decide about a rollout", func(ctx context.Context, tx *sql.Tx) error {
		r, logged, err := holdRollout(ctx, tx, c.dialect.hold, id)
		switch {
		case err != nil:
			return err
		case f.Owner != "" && (r.Owner != f.Owner || r.Epoch != f.Epoch):
			return muster.Errorf(muster.Stale, "another process looks after the rollout")
		}
		was, err := rolloutState(&r)
		if err != nil {
			return err
		}
		devices, err := selectDevices(ctx, tx, &r, now, s)
		if err != nil {
			return err
		}
		before := make([]rollout.Device, len(devices))
		for i, d := range devices {
			before[i] = *d
		}
		changes, err := decide(&r, slices.Clone(devices))
		if err != nil {
			return err //nolint:wrapcheck // the decision is the caller's own
		}
		changed := devices[:0]
		for i, d := range devices {
			if *d != before[i] {
				changed = append(changed, d)
			}
		}
		if err := c.updateRolloutDevices(ctx, tx, id, changed); err != nil {
			return err
		}
		if err := c.logRollout(ctx, tx, id, &logged, changes); err != nil {
			return err
		}
		is, err := rolloutState(&r)
		if err != nil || len(changes) == 0 && slices.Equal(is, was) {
			return err
		}
		return updateRollout(ctx, tx, is, logged)
	})
}

// rolloutState is what of a rollout changes, as updateRollout has it.
func rolloutState(r *rollout.Rollout) ([]any, error) {
	t, err := rolloutTexts(r)
	return []any{
		r.ID, t.plan, string(r.Status), string(r.Reason), int64(r.StartAt), r.Phase, int64(r.PhaseAt), int64(r.Passed), r.Waiting, t.counts,
		t.upto, t.tokens, unended(r), r.Owner, r.Epoch, int64(r.Expires), plain(r.Name), r.Release, r.Rollback, r.Query, string(r.Membership), r.Seed, r.Product, r.Security, t.record,
	}, err
}

func updateRollout(ctx context.Context, tx *sql.Tx, state []any, logged logEnd) error {
	_, err := exec(ctx, tx, `UPDATE rollout SET plan = $2, status = $3, reason = $4, start_at = $5, phase = $6, phase_at = $7, passed = $8, waiting = $9, counts = $10,
		upto = $11, tokens = $12, unended = $13, owner = $14, epoch = $15, expires = $16, name = $17, release = $18, rollback = $19, query = $20, membership = $21, seed = $22,
		product = $23, security = $24, record = $25, version = version + 1, log = $26, chain = $27 WHERE id = $1`, append(state, logged.rows, logged.chain)...)
	return err
}

// selectDevices reads the devices that a decision is about.
func selectDevices(ctx context.Context, tx *sql.Tx, r *rollout.Rollout, now muster.Micros, s director.Select) (out []*rollout.Device, err error) {
	query := func(text string, args ...any) error {
		return read(ctx, tx, text, args, func(rows *sql.Rows) error {
			d, err := rolloutDeviceOf(rows.Scan)
			out = append(out, &d)
			return err
		})
	}
	find := func(where string, args ...any) error {
		return query(`SELECT `+rolloutDeviceColumns+` FROM rollout_device WHERE `+where, args...)
	}
	switch {
	case s.Due:
		if parked(r) {
			err = query(parkedQuery, r.ID, int64(rollout.AtWindow), int64(now), s.Limit)
		}
		for phase := 0; phase <= r.Phase && len(out) < s.Limit && err == nil; phase++ {
			err = query(dueQuery, r.ID, phase, int64(now), s.Limit-len(out))
		}
		if err == nil {
			err = lookElsewhere(ctx, tx, r.Product, out)
		}
	case s.Overdue:
		err = query(overdueQuery, r.ID, int64(now), s.Limit)
	case len(s.In) > 0:
		for _, state := range s.In {
			if len(out) < s.Limit && err == nil {
				err = find(`rollout = $1 AND state = $2 LIMIT $3`, r.ID, state.String(), s.Limit-len(out))
			}
		}
	default:
		for part := range slices.Chunk(s.IDs, maxParams-1) {
			if err == nil {
				err = find(`device IN (`+places(len(part))+`) AND rollout = $`+strconv.Itoa(len(part)+1), append(idArgs(part), r.ID)...)
			}
		}
	}
	return out, err
}

// parked says whether devices of a rollout wait with the image for their windows.
func parked(r *rollout.Rollout) bool {
	return slices.ContainsFunc(r.Counts, func(c rollout.Counts) bool { return c.Parked > 0 })
}

// lookDeleted fills in which of some devices are no more.
func lookDeleted(ctx context.Context, tx *sql.Tx, ids []muster.DeviceID, by map[muster.DeviceID]*rollout.Device) error {
	for _, id := range ids {
		by[id].Deleted = true
	}
	return read(ctx, tx, `SELECT id FROM device WHERE id IN (`+places(len(ids))+`)`, idArgs(ids), func(rows *sql.Rows) error {
		var id muster.DeviceID
		err := rows.Scan(&id)
		if d := by[id]; d != nil {
			d.Deleted = false
		}
		return err
	})
}

// lookElsewhere fills in what other rollouts did with devices, and whether they are there.
func lookElsewhere(ctx context.Context, tx *sql.Tx, product string, devices []*rollout.Device) error {
	by := make(map[muster.DeviceID]*rollout.Device, len(devices))
	ids := make([]muster.DeviceID, len(devices))
	for i, d := range devices {
		by[d.ID], ids[i] = d, d.ID
	}
	for part := range slices.Chunk(ids, maxParams-1) {
		err := read(ctx, tx, `SELECT device FROM rollout_device WHERE device IN (`+places(len(part))+`) AND `+inFlight, idArgs(part), func(rows *sql.Rows) error {
			var id muster.DeviceID
			err := rows.Scan(&id)
			if d := by[id]; d != nil && !d.State.InFlight() { // else it is in flight here
				d.Elsewhere = true
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := lookDeleted(ctx, tx, part, by); err != nil {
			return err
		}
		err = read(ctx, tx, `SELECT d.device, MAX(r.security) FROM rollout_device d JOIN rollout r ON r.id = d.rollout
			WHERE d.device IN (`+places(len(part))+`) AND d.state = 'confirmed' AND r.security > 0 AND r.product = $`+strconv.Itoa(len(part)+1)+` GROUP BY d.device`,
			append(idArgs(part), product), func(rows *sql.Rows) error {
				var id muster.DeviceID
				var security int64
				err := rows.Scan(&id, &security)
				if d := by[id]; d != nil {
					d.Secure = security
				}
				return err
			})
		if err != nil {
			return err
		}
	}
	return nil
}

func rolloutDeviceOf(scan func(...any) error) (d rollout.Device, err error) {
	var rank int64
	var state string
	err = scan(&d.Rollout, &d.ID, &rank, &d.Phase, &state, &d.Reason, &d.Detail, &d.Action, &d.Attempt, &d.Failures, &d.Seq, &d.Failing, &d.Repeats,
		&d.Progress, &d.From, &d.Due, &d.Deadline, &d.Soaking, &d.Updated, &d.Retry, &d.Soaked,
		&d.Late)
	d.Rank = uint64(rank) ^ rankShift
	var known bool
	if d.State, known = rollout.ParseState(state); err == nil && !known {
		err = fmt.Errorf("device %s has no state that is known", d.ID)
	}
	return d, err
}

func (c *Control) updateRolloutDevices(ctx context.Context, tx *sql.Tx, id string, devices []*rollout.Device) error {
	rows := make([][]any, len(devices))
	for i, d := range devices {
		rows[i] = []any{
			id, string(d.ID), d.State.String(), string(d.Reason), plain(d.Detail), d.Action, d.Attempt, d.Failures, d.Seq, one(d.Failing), d.Repeats, d.Progress, plain(d.From),
			int64(d.Due), int64(d.Deadline), one(d.Soaking), int64(d.Updated), int64(d.Retry), int64(d.Soaked), string(d.Late),
		}
	}
	n, err := c.bulk(ctx, tx, `UPDATE rollout_device SET state = v.value ->> 2, reason = v.value ->> 3, detail = v.value ->> 4, action = CAST(v.value ->> 5 AS BIGINT),
		attempt = CAST(v.value ->> 6 AS BIGINT), failures = CAST(v.value ->> 7 AS BIGINT), seq = CAST(v.value ->> 8 AS BIGINT), failing = CAST(v.value ->> 9 AS BIGINT) = 1,
		repeats = CAST(v.value ->> 10 AS BIGINT), progress = CAST(v.value ->> 11 AS BIGINT), came = v.value ->> 12, due = CAST(v.value ->> 13 AS BIGINT),
		deadline = CAST(v.value ->> 14 AS BIGINT), soaking = CAST(v.value ->> 15 AS BIGINT) = 1, updated = CAST(v.value ->> 16 AS BIGINT),
		retry = CAST(v.value ->> 17 AS BIGINT), soaked = CAST(v.value ->> 18 AS BIGINT), late = v.value ->> 19 FROM`,
		`WHERE rollout_device.rollout = v.value ->> 0 AND rollout_device.device = v.value ->> 1`, rows)
	if err == nil && n != int64(len(rows)) {
		err = fmt.Errorf("%d of %d devices of a rollout were there", n, len(rows))
	}
	return err
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
