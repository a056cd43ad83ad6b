package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"muster"
	"muster/devices/command"
)

var _ command.Store = (*Control)(nil)

// TakeCommandIDs implements command.Journal.
func (c *Control) TakeCommandIDs(ctx context.Context, n int64) (first int64, err error) {
	err = c.change(ctx, "take ids for commands", func(ctx context.Context, tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, `UPDATE command_counter SET next = next + $1 WHERE name = 'commands' RETURNING next`, n).Scan(&first)
		if err != nil {
			return fmt.Errorf("advance the counter: %w", err)
		}
		return nil
	})
	return first - n, err
}

// WriteCommands implements command.Journal.
func (c *Control) WriteCommands(ctx context.Context, b command.Batch) (missing []int64, err error) {
	err = c.change(ctx, "write commands", func(ctx context.Context, tx *sql.Tx) error {
		if _, err := exec(ctx, tx, `UPDATE command_counter SET token = $1 WHERE name = 'commands'`, b.Token); err != nil {
			return err
		}
		if missing, err = insertCommands(ctx, tx, b.Insert); err != nil {
			return err
		}
		if err := changeCommands(ctx, tx, b.Changes); err != nil {
			return err
		}
		if err := lateCommands(ctx, tx, b.Late); err != nil {
			return err
		}
		if err := changeTargets(ctx, tx, b.Targets); err != nil {
			return err
		}
		return changeJobs(ctx, tx, b.Jobs)
	})
	return missing, err
}

// CommandsWritten implements command.Journal: an update waits for a transaction that
// has the row.
func (c *Control) CommandsWritten(ctx context.Context, token string) (there bool, err error) {
	err = c.change(ctx, "find out what was written", func(ctx context.Context, tx *sql.Tx) error {
		var last string
		err := tx.QueryRowContext(ctx, `UPDATE command_counter SET token = token WHERE name = 'commands' RETURNING token`).Scan(&last)
		there = last == token
		if err != nil {
			return fmt.Errorf("read the token: %w", err)
		}
		return nil
	})
	return there, err
}

// insertCommands leaves out those of devices that are not there and returns their ids.
// Everything is bound as text: in a list of VALUES PostgreSQL knows no other type.
func insertCommands(ctx context.Context, tx *sql.Tx, list []command.Insert) (missing []int64, err error) {
	if err := freeKeys(ctx, tx, list); err != nil {
		return nil, err
	}
	rows := make([][]any, len(list))
	for i := range list {
		n := &list[i]
		rows[i] = []any{
			number(n.ID), string(n.Device), n.Method, string(n.Params), decimal(n.Created), n.By, decimal(n.Expires),
			number(n.Job), number(n.Target), n.Key, n.Hash,
		}
	}
	var inserted int64
	err = inChunks(11, rows, func(args []any, n int) error {
		done, err := exec(ctx, tx, `INSERT INTO command (id, device, method, params, created, created_by, expires, job, target, idem_key, idem_hash, state)
			SELECT CAST(v.column1 AS BIGINT), v.column2, v.column3, v.column4, CAST(v.column5 AS BIGINT), v.column6, CAST(v.column7 AS BIGINT),
			CAST(v.column8 AS BIGINT), CAST(v.column9 AS BIGINT), v.column10, v.column11, 'queued'
			FROM (VALUES `+tuples(n, 11)+`) AS v WHERE v.column2 IN (SELECT id FROM device)`, args...)
		inserted += done
		return err
	})
	if err != nil || inserted == int64(len(list)) {
		return nil, err
	}
	there := make(map[int64]bool, len(list))
	err = inChunks(1, columnOf(rows, 0), func(args []any, n int) error {
		return ids(ctx, tx, there, `SELECT id FROM command WHERE id IN (SELECT CAST(v.column1 AS BIGINT) FROM (VALUES `+tuples(n, 1)+`) AS v)`, args)
	})
	for i := range list {
		if !there[list[i].ID] {
			missing = append(missing, list[i].ID)
		}
	}
	return missing, err
}

// freeKeys takes the idempotency keys that come again from the commands that had them.
func freeKeys(ctx context.Context, tx *sql.Tx, list []command.Insert) error {
	for i := range list {
		if list[i].Key == "" {
			continue
		}
		_, err := exec(ctx, tx, `UPDATE command SET idem_key = '' WHERE device = $1 AND idem_key = $2 AND idem_key <> ''`, string(list[i].Device), list[i].Key)
		if err != nil {
			return err
		}
	}
	return nil
}

func changeCommands(ctx context.Context, tx *sql.Tx, list []command.Change) error {
	rows := make([][]any, len(list))
	for i := range list {
		n := &list[i]
		rows[i] = []any{
			number(n.ID), n.State.String(), strconv.Itoa(n.Attempts), strconv.Itoa(n.Progress), decimal(n.Sent), decimal(n.Delivered),
			decimal(n.Accepted), decimal(n.Reported), decimal(n.Finished), string(n.Result), string(n.Error),
		}
	}
	return inChunks(11, rows, func(args []any, n int) error {
		_, err := exec(ctx, tx, `UPDATE command SET state = v.column2, attempts = CAST(v.column3 AS BIGINT), progress = CAST(v.column4 AS BIGINT),
			sent = CASE WHEN v.column5 = '0' THEN command.sent ELSE CAST(v.column5 AS BIGINT) END,
			delivered = CASE WHEN v.column6 = '0' THEN command.delivered ELSE CAST(v.column6 AS BIGINT) END,
			accepted = CASE WHEN v.column7 = '0' THEN command.accepted ELSE CAST(v.column7 AS BIGINT) END,
			reported = CASE WHEN v.column8 = '0' THEN command.reported ELSE CAST(v.column8 AS BIGINT) END,
			finished = CASE WHEN v.column9 = '0' THEN command.finished ELSE CAST(v.column9 AS BIGINT) END,
			result = CASE WHEN v.column10 = '' THEN command.result ELSE v.column10 END,
			error = CASE WHEN v.column11 = '' THEN command.error ELSE v.column11 END
			FROM (VALUES `+tuples(n, 11)+`) AS v WHERE command.id = CAST(v.column1 AS BIGINT)`, args...)
		return err
	})
}

func lateCommands(ctx context.Context, tx *sql.Tx, list []command.Late) error {
	for i := range list { // there are few, and of two of one command the last counts
		l := &list[i]
		_, err := exec(ctx, tx, `UPDATE command SET late = $1, late_status = $2, late_result = $3, late_error = $4 WHERE id = $5`,
			int64(l.At), l.Status, string(l.Result), string(l.Error), l.ID)
		if err != nil {
			return err
		}
	}
	return nil
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// columnOf returns one column of rows, as rows.
func columnOf(rows [][]any, i int) [][]any {
	out := make([][]any, len(rows))
	for n, r := range rows {
		out[n] = r[i : i+1]
	}
	return out
}

// ids puts the numbers that query selects into there.
func ids(ctx context.Context, tx *sql.Tx, there map[int64]bool, query string, args []any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("look for ids: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("read an id: %w", err)
		}
		there[id] = true
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for ids: %w", err)
	}
	return nil
}

// list calls scan for every row of query, within the time of one call.
func (c *Control) list(ctx context.Context, doing, query string, args []any, scan func(rows *sql.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	rows, err := c.db.Read.QueryContext(ctx, query, args...)
	if err != nil {
		return failed(doing, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	for rows.Next() {
		if err := scan(rows); err != nil {
			return failed(doing, err)
		}
	}
	return failed(doing, rows.Err())
}

// LoadCommands implements command.Reader.
func (c *Control) LoadCommands(ctx context.Context, device muster.DeviceID, each func(command.Open) error) error {
	const doing = "load the commands"
	query, args := `SELECT id, device, method, state, attempts, progress, expires, job, target FROM command WHERE finished = 0 ORDER BY id`, []any(nil)
	if device != "" {
		query = `SELECT id, device, method, state, attempts, progress, expires, job, target FROM command WHERE device = $1 AND finished = 0 ORDER BY id`
		args = []any{string(device)}
	}
	rows, err := c.db.Read.QueryContext(ctx, query, args...)
	if err != nil {
		return failed(doing, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	for rows.Next() {
		var o command.Open
		var state string
		err := rows.Scan(&o.ID, &o.Device, &o.Method, &state, &o.Attempts, &o.Progress, &o.Expires, &o.Job, &o.Target)
		if err == nil {
			o.State, err = command.ParseState(state)
		}
		if err != nil {
			return failed(doing, err)
		}
		if err := each(o); err != nil {
			return err
		}
	}
	return failed(doing, rows.Err())
}

// byIDs runs query, which ends in an open list of ids, for all of ids.
func (c *Control) byIDs(ctx context.Context, doing, query string, ids []int64, scan func(rows *sql.Rows) error) error {
	rows := make([][]any, len(ids))
	for i, id := range ids {
		rows[i] = []any{id}
	}
	return inChunks(1, rows, func(args []any, n int) error {
		return c.list(ctx, doing, query+` IN (`+places(n)+`)`, args, scan)
	})
}

// CommandTexts implements command.Reader. Those of jobs have no params.
func (c *Control) CommandTexts(ctx context.Context, ids []int64) (map[int64]command.Text, error) {
	out := make(map[int64]command.Text, len(ids))
	err := c.byIDs(ctx, "read commands", `SELECT id, method, params FROM command WHERE id`, ids, func(rows *sql.Rows) error {
		var id int64
		var t command.Text
		var params string
		if err := rows.Scan(&id, &t.Method, &params); err != nil {
			return err
		}
		t.Params = json.RawMessage(params)
		out[id] = t
		return nil
	})
	return out, err
}

// CommandStates implements command.Reader.
func (c *Control) CommandStates(ctx context.Context, ids []int64) (map[int64]command.Ended, error) {
	slices.Sort(ids)
	out := make(map[int64]command.Ended, len(ids))
	err := c.byIDs(ctx, "read the states of commands", `SELECT id, device, state FROM command WHERE id`, slices.Compact(ids), func(rows *sql.Rows) error {
		var id int64
		var e command.Ended
		var state string
		if err := rows.Scan(&id, &e.Device, &state); err != nil {
			return err
		}
		s, err := command.ParseState(state)
		e.State = s
		out[id] = e
		return err
	})
	return out, err
}

// CommandByKey implements command.Reader.
func (c *Control) CommandByKey(ctx context.Context, device muster.DeviceID, key string) (command.Keyed, bool, error) {
	return c.keyed(ctx, "find a command by its key",
		`SELECT id, idem_hash, created FROM command WHERE device = $1 AND idem_key = $2 AND idem_key <> ''`, string(device), key)
}

func (c *Control) keyed(ctx context.Context, doing, query string, args ...any) (k command.Keyed, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = c.db.Read.QueryRowContext(ctx, query, args...).Scan(&k.ID, &k.Hash, &k.Created)
	if errors.Is(err, sql.ErrNoRows) {
		return k, false, nil
	}
	return k, err == nil, failed(doing, err)
}

// commandColumns are those of commandOf, on a command m with its job j.
const commandColumns = `m.id, m.device, m.method, CASE WHEN m.job > 0 THEN COALESCE(j.params, '') ELSE m.params END, m.created, m.created_by, m.expires,
	m.state, m.attempts, m.progress, m.result, m.error, m.sent, m.delivered, m.accepted, m.reported, m.finished,
	m.late, m.late_status, m.late_result, m.late_error, m.job FROM command m LEFT JOIN job j ON j.id = m.job`

func commandOf(scan func(...any) error) (m command.Command, err error) {
	var state string
	var l command.Late
	var params, result, failure, lateResult, lateError string
	err = scan(&m.ID, &m.Device, &m.Method, &params, &m.Created, &m.CreatedBy, &m.Expires, &state, &m.Attempts, &m.Progress, &result, &failure,
		&m.Sent, &m.Delivered, &m.Accepted, &m.Reported, &m.Finished, &l.At, &l.Status, &lateResult, &lateError, &m.Job)
	if err != nil {
		return m, err
	}
	m.Params, m.Result, m.Error = raw(params), raw(result), raw(failure)
	if l.At > 0 {
		l.ID, l.Result, l.Error = m.ID, raw(lateResult), raw(lateError)
		m.Late = &l
	}
	m.State, err = command.ParseState(state)
	return m, err
}

func raw(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

// Command implements command.Reader.
func (c *Control) Command(ctx context.Context, device muster.DeviceID, id int64) (command.Command, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	row := c.db.Read.QueryRowContext(ctx, `SELECT `+commandColumns+` WHERE m.id = $1 AND m.device = $2`, id, string(device))
	m, err := commandOf(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return m, muster.Errorf(muster.NotFound, "the device has no such command")
	}
	return m, failed("read a command", err)
}

// commandFilters are conditions by the name of a state, beside those of each state.
var commandFilters = map[string]string{"": "", "open": " AND m.finished = 0", "finished": " AND m.finished > 0"}

// Commands implements command.Reader.
func (c *Control) Commands(ctx context.Context, q command.Query) ([]command.Command, error) {
	args := []any{string(q.Device), q.Limit}
	filter, ok := commandFilters[q.State]
	if !ok {
		args = append(args, q.State)
		filter = ` AND m.state = $` + strconv.Itoa(len(args))
	}
	if q.Before > 0 {
		args = append(args, q.Before)
		filter += ` AND m.id < $` + strconv.Itoa(len(args))
	}
	var out []command.Command
	err := c.list(ctx, "list commands", `SELECT `+commandColumns+` WHERE m.device = $1`+filter+` ORDER BY m.id DESC LIMIT $2`, args, func(rows *sql.Rows) error {
		m, err := commandOf(rows.Scan)
		out = append(out, m)
		return err
	})
	return out, err
}

// pruned deletes rows of table by a query for their ids and returns how many.
func (c *Control) pruned(ctx context.Context, doing, query string, args ...any) (n int, err error) {
	err = c.change(ctx, doing, func(ctx context.Context, tx *sql.Tx) error {
		there := map[int64]bool{}
		if err := ids(ctx, tx, there, query, args); err != nil {
			return err
		}
		rows := make([][]any, 0, len(there))
		for _, id := range slices.Sorted(maps.Keys(there)) {
			rows = append(rows, []any{id})
		}
		n = len(rows)
		return deleteOf(ctx, tx, "command", "id", rows)
	})
	return n, err
}

// PruneCommands implements command.Pruner.
func (c *Control) PruneCommands(ctx context.Context, before muster.Micros, limit int) (int, error) {
	return c.pruned(ctx, "delete old commands", `SELECT id FROM command WHERE finished > 0 AND finished < $1 ORDER BY finished LIMIT $2`, int64(before), limit)
}

// PruneDevice implements command.Pruner.
func (c *Control) PruneDevice(ctx context.Context, device muster.DeviceID, keep int, keyed muster.Micros, limit int) (int, error) {
	return c.pruned(ctx, "delete a device's old commands", `SELECT id FROM command WHERE device = $1 AND finished > 0
		AND id <= (SELECT id FROM command WHERE device = $1 AND finished > 0 ORDER BY id DESC LIMIT 1 OFFSET $2)
		AND (idem_key = '' OR created < $3) ORDER BY id LIMIT $4`, string(device), keep, int64(keyed), limit)
}
