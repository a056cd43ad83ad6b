package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster"
	"muster/devices/command"
)

const jobColumns = `id, query, kind, method, params, ttl, patch, ends, rate, max_in_flight, abort_percent, abort_min, created, created_by, total,
	idem_key, idem_hash, phase, reason, wave, next, succeeded, failed, expired, cancelled, last_start, ended, settled`

func jobOf(scan func(...any) error) (j command.Job, err error) {
	var params, patch, text string
	var ttl int64
	err = scan(&j.ID, &j.Query, &j.Kind, &j.Method, &params, &ttl, &patch, &text, &j.Rate, &j.MaxInFlight, &j.Abort.FailedPercent, &j.Abort.MinFinished,
		&j.Created, &j.CreatedBy, &j.Total, &j.Key, &j.Hash, &j.Phase, &j.Reason, &j.Wave, &j.Next, &j.Succeeded, &j.Failed, &j.Expired, &j.Cancelled,
		&j.LastStart, &j.Ended, &j.Settled)
	if err != nil {
		return j, err
	}
	j.JobState.ID = j.ID
	j.TTL, j.Params, j.Patch = time.Duration(ttl)*time.Second, raw(params), raw(patch)
	if err := json.Unmarshal([]byte(text), &j.Ends); err != nil {
		return j, fmt.Errorf("the waves of a job: %w", err)
	}
	return j, nil
}

// InsertJob implements command.JobStore.
func (c *Control) InsertJob(ctx context.Context, j command.Job, targets []muster.DeviceID) error {
	waves, err := json.Marshal(j.Ends)
	if err != nil {
		return fmt.Errorf("encode the waves of a job: %w", err)
	}
	return c.change(ctx, "insert a job", func(ctx context.Context, tx *sql.Tx) error {
		if j.Key != "" { // a job that had the key is over with it
			if _, err := exec(ctx, tx, `UPDATE job SET idem_key = '' WHERE idem_key = $1 AND idem_key <> ''`, j.Key); err != nil {
				return err
			}
		}
		row := []any{
			j.ID, j.Query, string(j.Kind), j.Method, string(j.Params), int64(j.TTL / time.Second), string(j.Patch), string(waves), j.Rate, j.MaxInFlight,
			j.Abort.FailedPercent, j.Abort.MinFinished, int64(j.Created), j.CreatedBy, j.Total, j.Key, j.Hash, string(j.Phase), j.Reason, j.Wave, j.Next,
			j.Succeeded, j.Failed, j.Expired, j.Cancelled, int64(j.LastStart), int64(j.Ended), j.Settled,
		}
		if _, err := exec(ctx, tx, `INSERT INTO job (`+jobColumns+`) VALUES `+tuples(1, len(row)), row...); err != nil {
			return err
		}
		return c.insertTargets(ctx, tx, j.ID, targets)
	})
}

// insertTargets numbers the targets by their place.
func (c *Control) insertTargets(ctx context.Context, tx *sql.Tx, job int64, targets []muster.DeviceID) error {
	rows := make([][]any, len(targets))
	for i, id := range targets {
		rows[i] = []any{job, i, id}
	}
	_, err := c.bulk(ctx, tx, `INSERT INTO job_target (job, number, device)
		SELECT CAST(v.value ->> 0 AS BIGINT), CAST(v.value ->> 1 AS BIGINT), v.value ->> 2 FROM`, ``, rows)
	return err
}

func (c *Control) changeTargets(ctx context.Context, tx *sql.Tx, list []command.Target) error {
	rows := make([][]any, len(list))
	for i := range list {
		t := &list[i]
		rows[i] = []any{t.Job, t.Number, t.State, t.Command, t.Error}
	}
	_, err := c.bulk(ctx, tx, `UPDATE job_target SET state = v.value ->> 2, command = CAST(v.value ->> 3 AS BIGINT), error = v.value ->> 4 FROM`,
		`WHERE job_target.job = CAST(v.value ->> 0 AS BIGINT) AND job_target.number = CAST(v.value ->> 1 AS BIGINT)`, rows)
	return err
}

func changeJobs(ctx context.Context, tx *sql.Tx, list []command.JobState) error {
	for i := range list { // at most as many as there are unfinished jobs
		s := &list[i]
		_, err := exec(ctx, tx, `UPDATE job SET phase = $1, reason = $2, wave = $3, next = $4, succeeded = $5, failed = $6, expired = $7,
			cancelled = $8, last_start = $9, ended = $10, settled = $11 WHERE id = $12`,
			string(s.Phase), s.Reason, s.Wave, s.Next, s.Succeeded, s.Failed, s.Expired, s.Cancelled, int64(s.LastStart), int64(s.Ended), s.Settled, s.ID)
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Control) jobs(ctx context.Context, query string, args []any) (out []command.Job, err error) {
	err = c.list(ctx, "list jobs", query, args, func(rows *sql.Rows) error {
		j, err := jobOf(rows.Scan)
		out = append(out, j)
		return err
	})
	return out, err
}

// LoadJobs implements command.JobStore.
func (c *Control) LoadJobs(ctx context.Context, each func(command.Job) error) error {
	list, err := c.jobs(ctx, `SELECT `+jobColumns+` FROM job WHERE NOT settled ORDER BY id`, nil)
	if err != nil {
		return err
	}
	for _, j := range list {
		if err := each(j); err != nil {
			return err
		}
	}
	return nil
}

// JobByKey implements command.JobStore.
func (c *Control) JobByKey(ctx context.Context, key string) (command.Keyed, bool, error) {
	return c.keyed(ctx, "find a job by its key", `SELECT id, idem_hash, created FROM job WHERE idem_key = $1 AND idem_key <> ''`, key)
}

// Job implements command.JobStore.
func (c *Control) Job(ctx context.Context, id int64) (command.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	j, err := jobOf(c.db.Read.QueryRowContext(ctx, `SELECT `+jobColumns+` FROM job WHERE id = $1`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return j, muster.Errorf(muster.NotFound, "there is no such job")
	}
	return j, failed("read a job", err)
}

// Jobs implements command.JobStore.
func (c *Control) Jobs(ctx context.Context, before int64, limit int) ([]command.Job, error) {
	if before > 0 {
		return c.jobs(ctx, `SELECT `+jobColumns+` FROM job WHERE id < $1 ORDER BY id DESC LIMIT $2`, []any{before, limit})
	}
	return c.jobs(ctx, `SELECT `+jobColumns+` FROM job ORDER BY id DESC LIMIT $1`, []any{limit})
}

// LoadTargets implements command.JobStore.
func (c *Control) LoadTargets(ctx context.Context, job, from int64, limit int) (out []command.Target, err error) {
	err = c.list(ctx, "load the targets of a job", `SELECT number, device FROM job_target WHERE job = $1 AND number >= $2 AND number < $3 ORDER BY number`,
		[]any{job, from, from + int64(limit)}, func(rows *sql.Rows) error {
			t := command.Target{Job: job}
			err := rows.Scan(&t.Number, &t.Device)
			out = append(out, t)
			return err
		})
	return out, err
}

// startedPage is how many targets LoadStarted reads at once.
const startedPage = 10_000

// LoadStarted implements command.JobStore.
func (c *Control) LoadStarted(ctx context.Context, job, started int64, each func(command.Target) error) error {
	for from := int64(0); from < started; {
		page := make([]command.Target, 0, startedPage)
		err := c.list(ctx, "load the targets of a job", `SELECT t.number, t.device FROM job_target t WHERE t.job = $1 AND t.number >= $2 AND t.number < $3 AND t.state = ''
			ORDER BY t.number LIMIT $4`, []any{job, from, started, startedPage}, func(rows *sql.Rows) error {
			t := command.Target{Job: job}
			err := rows.Scan(&t.Number, &t.Device)
			page = append(page, t)
			return err
		})
		if err != nil {
			return err
		}
		for _, t := range page {
			if err := each(t); err != nil {
				return err
			}
		}
		if len(page) < startedPage {
			return nil
		}
		from = page[len(page)-1].Number + 1
	}
	return nil
}

// targetFilters are conditions by the name of a state that is none of a command, on a
// target t of a job j. What an aborted job did not start is cancelled.
var targetFilters = map[string]string{
	"":                    "",
	command.TargetPending: ` AND t.state = '' AND t.number >= j.next AND j.phase <> 'aborted'`,
	command.TargetRunning: ` AND t.state = '' AND t.number < j.next`,
	"cancelled":           ` AND (t.state = 'cancelled' OR t.state = '' AND t.number >= j.next AND j.phase = 'aborted')`,
}

// JobTargets implements command.JobStore.
func (c *Control) JobTargets(ctx context.Context, q command.TargetQuery) (out []command.Target, err error) {
	args := []any{q.Job, q.From, q.Limit}
	filter, ok := targetFilters[q.State]
	if !ok {
		args = append(args, q.State)
		filter = ` AND t.state = $4 AND t.state <> ''`
	}
	err = c.list(ctx, "list the targets of a job", `SELECT t.number, t.device, t.error, t.command,
		CASE WHEN t.state <> '' THEN t.state WHEN t.number < j.next THEN 'running' WHEN j.phase = 'aborted' THEN 'cancelled' ELSE 'pending' END
		FROM job_target t JOIN job j ON j.id = t.job
		WHERE t.job = $1 AND t.number >= $2`+filter+` ORDER BY t.number LIMIT $3`, args, func(rows *sql.Rows) error {
		t := command.Target{Job: q.Job}
		err := rows.Scan(&t.Number, &t.Device, &t.Error, &t.Command, &t.State)
		out = append(out, t)
		return err
	})
	if err != nil || len(out) == 0 {
		return out, err
	}
	return out, c.addCommands(ctx, out)
}

// addCommands finds the commands of targets of one job that are running. It is a query
// of its own: without statistics PostgreSQL joins by going through all of the job's.
func (c *Control) addCommands(ctx context.Context, ts []command.Target) error {
	running := func(t command.Target) bool { return t.State == command.TargetRunning }
	if !slices.ContainsFunc(ts, running) {
		return nil
	}
	// All that run between the first and the last of ts are among them.
	args := []any{ts[0].Job, ts[0].Number, ts[len(ts)-1].Number}
	commands := make(map[int64]int64, len(ts))
	err := c.list(ctx, "list the commands of a job", `SELECT target, id FROM command WHERE job = $1 AND job > 0 AND target >= $2 AND target <= $3 AND finished = 0`,
		args, func(rows *sql.Rows) error {
			var number, id int64
			err := rows.Scan(&number, &id)
			commands[number] = id
			return err
		})
	for i := range ts {
		if running(ts[i]) {
			ts[i].Command = commands[ts[i].Number]
		}
	}
	return err
}

// PruneJobs implements command.Pruner.
func (c *Control) PruneJobs(ctx context.Context, before muster.Micros, keep, limit int) (n int, err error) {
	err = c.change(ctx, "delete old jobs", func(ctx context.Context, tx *sql.Tx) error {
		var id int64
		err := tx.QueryRowContext(ctx, `SELECT id FROM job WHERE settled AND (ended < $1
			OR id <= (SELECT id FROM job WHERE settled ORDER BY id DESC LIMIT 1 OFFSET $2)) ORDER BY id LIMIT 1`, int64(before), keep).Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find an old job: %w", err)
		}
		gone, err := exec(ctx, tx, `DELETE FROM job_target WHERE job = $1 AND number IN (SELECT number FROM job_target WHERE job = $1 ORDER BY number LIMIT $2)`, id, limit)
		n = int(gone)
		if err != nil || n == limit {
			return err
		}
		n = limit // there may be another job
		_, err = exec(ctx, tx, `DELETE FROM job WHERE id = $1`, id)
		return err
	})
	return n, err
}
