package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"muster"
	"muster/tasks"
)

const taskColumns = `id, kind, state, owner_kind, owner, owner_name, input, created, started, ended, expires, note, attempts, cancelled, code, error,
	result_type, result_size`

// The seams of tasks that Control fills.
var (
	_ tasks.Store  = (*Control)(nil)
	_ tasks.Loader = (*Control)(nil)
)

// SaveTask implements tasks.Store. How far a task is when it has ended is what it said
// last; before, steps keep it.
func (c *Control) SaveTask(ctx context.Context, t tasks.Task) error {
	var result tasks.Result
	if t.Result != nil {
		result = *t.Result
	}
	row := []any{
		t.ID, t.Kind, string(t.State), t.Owner.Kind, t.Owner.ID, t.Owner.Name, string(t.Input), int64(t.Created), int64(t.Started), int64(t.Ended),
		int64(t.Expires), t.Note, t.Attempts, t.Cancelled, t.Code, t.Error, result.Type, result.Size,
	}
	return c.change(ctx, "keep a task", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO task (`+taskColumns+`) VALUES `+tuples(1, len(row))+` ON CONFLICT (id) DO UPDATE SET
			state = excluded.state, started = excluded.started, ended = excluded.ended, expires = excluded.expires, note = excluded.note,
			attempts = excluded.attempts, cancelled = excluded.cancelled, code = excluded.code, error = excluded.error,
			result_type = excluded.result_type, result_size = excluded.result_size`, row...)
		if err != nil || !t.State.Final() {
			return err
		}
		_, err = exec(ctx, tx, `UPDATE task SET checkpoint = '', size = 0, done = $1, total = $2 WHERE id = $3`, t.Done, t.Total, t.ID)
		return err
	})
}

// KeepStep implements tasks.Store: change keeps the step of ctx.
func (c *Control) KeepStep(ctx context.Context) error {
	return c.change(ctx, "keep a step of a task", func(context.Context, *sql.Tx) error { return nil })
}

// keepStep writes the step that the task under ctx has come to, in the transaction that
// does it. Conflict when the task has been forgotten.
func keepStep(ctx context.Context, tx *sql.Tx, s *tasks.Step) error {
	if s == nil {
		return nil
	}
	n, err := exec(ctx, tx, `UPDATE task SET checkpoint = $1, size = $2, done = $3, total = $4, attempts = 0 WHERE id = $5`,
		string(s.Checkpoint), s.Size, s.Done, s.Total, s.Task)
	if err == nil && n == 0 {
		err = muster.Errorf(muster.Conflict, "the task %s is not there any more", s.Task)
	}
	return err
}

// DeleteTasks implements tasks.Store.
func (c *Control) DeleteTasks(ctx context.Context, ids []string) error {
	rows := make([][]any, len(ids))
	for i, id := range ids {
		rows[i] = []any{id}
	}
	return c.change(ctx, "forget tasks", func(ctx context.Context, tx *sql.Tx) error {
		return inChunks(1, rows, func(args []any, n int) error {
			_, err := exec(ctx, tx, `DELETE FROM task WHERE id IN (VALUES `+tuples(n, 1)+`)`, args...)
			return err
		})
	})
}

// LoadTasks implements tasks.Loader.
func (c *Control) LoadTasks(ctx context.Context, each func(tasks.Task, tasks.Kept) error) error {
	query := `SELECT ` + taskColumns + `, checkpoint, size, done, total FROM task ORDER BY id`
	return c.list(ctx, "load the tasks", query, nil, func(rows *sql.Rows) error {
		var t tasks.Task
		var k tasks.Kept
		var result tasks.Result
		var input, checkpoint string
		err := rows.Scan(&t.ID, &t.Kind, &t.State, &t.Owner.Kind, &t.Owner.ID, &t.Owner.Name, &input, &t.Created, &t.Started, &t.Ended, &t.Expires,
			&t.Note, &t.Attempts, &t.Cancelled, &t.Code, &t.Error, &result.Type, &result.Size, &checkpoint, &k.Size, &k.Done, &k.Total)
		if err != nil {
			return fmt.Errorf("read a task: %w", err)
		}
		t.Input, t.Durable, t.Done, t.Total, k.Checkpoint = raw(input), true, k.Done, k.Total, raw(checkpoint)
		if result.Type != "" {
			t.Result = &result
		}
		return each(t, k)
	})
}

// KeptOf implements tasks.Loader.
func (c *Control) KeptOf(ctx context.Context, id string) (k tasks.Kept, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var checkpoint string
	err = c.db.Read.QueryRowContext(ctx, `SELECT checkpoint, size, done, total FROM task WHERE id = $1`, id).Scan(&checkpoint, &k.Size, &k.Done, &k.Total)
	if errors.Is(err, sql.ErrNoRows) {
		return k, muster.Errorf(muster.NotFound, "there is no such task")
	}
	k.Checkpoint = raw(checkpoint)
	return k, failed("read a step of a task", err)
}
