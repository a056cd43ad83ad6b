package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"muster"
	"muster/devices/views"
)

var _ views.Store = (*Control)(nil)

// Views implements views.Store, in bytewise order of name.
func (c *Control) Views(ctx context.Context, user string) (out []views.View, err error) {
	const query = `SELECT id, account, name, query, columns, sort, created FROM saved_view WHERE account = $1 ORDER BY name`
	err = c.list(ctx, "list the views of a user", query, []any{user}, func(rows *sql.Rows) error {
		var v views.View
		var columns []byte
		err := rows.Scan(&v.ID, &v.User, &v.Name, &v.Query, &columns, &v.Sort, &v.Created)
		if err == nil {
			err = json.Unmarshal(columns, &v.Columns)
		}
		out = append(out, v)
		return err //nolint:wrapcheck // list says what was being done
	})
	return out, err
}

// CreateView implements views.Store. Two servers may make one more than most at once.
func (c *Control) CreateView(ctx context.Context, v views.View, most int) error {
	columns, err := columnsOf(v)
	if err != nil {
		return err
	}
	return c.changeView(ctx, "keep a view", func(ctx context.Context, tx *sql.Tx) error {
		n := 0
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM saved_view WHERE account = $1`, v.User).Scan(&n)
		if err != nil {
			return fmt.Errorf("count the views of a user: %w", err)
		}
		if n >= most {
			return muster.Errorf(muster.Conflict, "there are %d views already: delete one first", n)
		}
		_, err = exec(ctx, tx, `INSERT INTO saved_view (id, account, name, query, columns, sort, created) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			v.ID, v.User, v.Name, v.Query, columns, v.Sort, int64(v.Created))
		return err
	})
}

// ReplaceView implements views.Store.
func (c *Control) ReplaceView(ctx context.Context, v views.View) error {
	columns, err := columnsOf(v)
	if err != nil {
		return err
	}
	return c.changeView(ctx, "replace a view", func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, `UPDATE saved_view SET name = $1, query = $2, columns = $3, sort = $4 WHERE id = $5 AND account = $6`,
			v.Name, v.Query, columns, v.Sort, v.ID, v.User)
		if err == nil && n == 0 {
			err = views.ErrNone()
		}
		return err
	})
}

// DeleteView implements views.Store.
func (c *Control) DeleteView(ctx context.Context, user, id string) error {
	return c.changeView(ctx, "delete a view", func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, `DELETE FROM saved_view WHERE id = $1 AND account = $2`, id, user)
		if err == nil && n == 0 {
			err = views.ErrNone()
		}
		return err
	})
}

// changeView is change that says when a user has a view of that name.
func (c *Control) changeView(ctx context.Context, doing string, do func(ctx context.Context, tx *sql.Tx) error) error {
	err := c.changeBeside(ctx, doing, do)
	if taken(err) {
		return muster.At(muster.Errorf(muster.Conflict, "another view has this name"), "name")
	}
	return err
}

func columnsOf(v views.View) (string, error) {
	text, err := json.Marshal(append([]string{}, v.Columns...))
	if err != nil {
		return "", fmt.Errorf("encode the columns of a view: %w", err)
	}
	return string(text), nil
}
