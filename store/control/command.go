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
	err = c.changeOfDevices(ctx, "write commands", func(ctx context.Context, tx *sql.Tx) error {
		if _, err := exec(ctx, tx, `UPDATE command_counter SET token = $1 WHERE name = 'commands'`, b.Token); err != nil {
			return err
		}
		if missing, err = c.insertCommands(ctx, tx, b.Insert); err != nil {
			return err
		}
		if err := c.changeCommands(ctx, tx, b.Changes); err != nil {
			return err
		}
		if err := lateCommands(ctx, tx, b.Late); err != nil {
			return err
		}
		if err := c.changeTargets(ctx, tx, b.Targets); err != nil {
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

// bulkRows is how many rows one statement takes as JSON.
const bulkRows = 10_000

// bulk runs one statement on rows: head, the rows as v(value), and tail. They are one
// placeholder, a JSON array of arrays, so that the statement goes to the server and
// back once for all of them, and its text is one for any number.
func (c *Control) bulk(ctx context.Context, tx *sql.Tx, head, tail string, rows [][]any) (changed int64, err error) {
	for part := range slices.Chunk(rows, bulkRows) {
		text, err := json.Marshal(part)
		if err != nil {
			return changed, fmt.Errorf("encode rows: %w", err)
		}
		n, err := exec(ctx, tx, head+" "+c.dialect.rows+" AS v "+tail, string(text))
		if err != nil {
			return changed, err
		}
		changed += n
	}
	return changed, nil
}

// bulkRead is bulk for a statement that returns rows.
func (c *Control) bulkRead(ctx context.Context, tx *sql.Tx, head, tail string, rows [][]any, scan func(*sql.Rows) error) error {
	for part := range slices.Chunk(rows, bulkRows) {
		text, err := json.Marshal(part)
		if err != nil {
			return fmt.Errorf("encode rows: %w", err)
		}
		if err := read(ctx, tx, head+" "+c.dialect.rows+" AS v "+tail, []any{string(text)}, scan); err != nil {
			return err
		}
	}
	return nil
}

// read calls scan for every row of query in tx.
func read(ctx context.Context, tx *sql.Tx, query string, args []any, scan func(*sql.Rows) error) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("run a query: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("read a row: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read rows: %w", err)
	}
	return nil
}

// insertCommands leaves out those of devices that are not there and returns their ids.
func (c *Control) insertCommands(ctx context.Context, tx *sql.Tx, list []command.Insert) (missing []int64, err error) {
	if err := freeKeys(ctx, tx, list); err != nil {
		return nil, err
	}
	rows := make([][]any, len(list))
	for i := range list {
		n := &list[i]
		rows[i] = []any{n.ID, n.Device, n.Method, string(n.Params), n.Created, n.By, n.Expires, n.Job, n.Target, n.Key, n.Hash}
	}
	inserted, err := c.bulk(ctx, tx, `INSERT INTO command (id, device, method, params, created, created_by, expires, job, target, idem_key, idem_hash, state)
		SELECT CAST(v.value ->> 0 AS BIGINT), v.value ->> 1, v.value ->> 2, v.value ->> 3, CAST(v.value ->> 4 AS BIGINT), v.value ->> 5,
		CAST(v.value ->> 6 AS BIGINT), CAST(v.value ->> 7 AS BIGINT), CAST(v.value ->> 8 AS BIGINT), v.value ->> 9, v.value ->> 10, 'queued' FROM`,
		`WHERE (v.value ->> 1) IN (SELECT id FROM device)`, rows)
	if err != nil || inserted == int64(len(list)) {
		return nil, err
	}
	there := make(map[int64]bool, len(list))
	err = inChunks(1, columnOf(rows, 0), func(args []any, n int) error {
		return ids(ctx, tx, there, `SELECT id FROM command WHERE id IN (`+places(n)+`)`, args)
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

func (c *Control) changeCommands(ctx context.Context, tx *sql.Tx, list []command.Change) error {
	rows := make([][]any, len(list))
	for i := range list {
		n := &list[i]
		rows[i] = []any{
			n.ID, n.State.String(), n.Attempts, n.Progress, n.Sent, n.Delivered, n.Accepted, n.Reported, n.Finished, string(n.Result), string(n.Error),
		}
	}
	_, err := c.bulk(ctx, tx, `UPDATE command SET state = v.value ->> 1, attempts = CAST(v.value ->> 2 AS BIGINT), progress = CAST(v.value ->> 3 AS BIGINT),
		sent = COALESCE(NULLIF(CAST(v.value ->> 4 AS BIGINT), 0), command.sent),
		delivered = COALESCE(NULLIF(CAST(v.value ->> 5 AS BIGINT), 0), command.delivered),
		accepted = COALESCE(NULLIF(CAST(v.value ->> 6 AS BIGINT), 0), command.accepted),
		reported = COALESCE(NULLIF(CAST(v.value ->> 7 AS BIGINT), 0), command.reported),
		finished = COALESCE(NULLIF(CAST(v.value ->> 8 AS BIGINT), 0), command.finished),
		result = COALESCE(NULLIF(v.value ->> 9, ''), command.result),
		error = COALESCE(NULLIF(v.value ->> 10, ''), command.error) FROM`,
		`WHERE command.id = CAST(v.value ->> 0 AS BIGINT)`, rows)
	return err
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

// CommandsEnded counts the commands that ended after since, but for those that were called off,
// and of those which their devices acknowledged or answered.
func (c *Control) CommandsEnded(ctx context.Context, since muster.Micros) (ended, acked int64, err error) {
	err = c.db.Read.QueryRowContext(ctx, `SELECT count(*), count(CASE WHEN delivered > 0 OR accepted > 0 OR reported > 0 THEN 1 END)
		FROM command WHERE finished > 0 AND finished > $1 AND state <> 'cancelled'`, int64(since)).Scan(&ended, &acked)
	if err != nil {
		return 0, 0, failed("count commands", err)
	}
	return ended, acked, nil
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
