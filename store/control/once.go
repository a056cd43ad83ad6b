package control

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"

	"muster"
	"muster/once"
)

var _ once.Store = (*Control)(nil)

// claim writes the request of ctx down as done, with its first change. Only one that is older than the memory is
// replaced: another server that did the same request first makes this transaction fail.
func claim(ctx context.Context, tx *sql.Tx) error {
	r, ok := once.Of(ctx).Pending()
	if !ok {
		return nil
	}
	n, err := exec(ctx, tx, `INSERT INTO idempotency (principal, name, print, at, answer) VALUES ($1, $2, $3, $4, '')
		ON CONFLICT (principal, name) DO UPDATE SET print = excluded.print, at = excluded.at, answer = ''
		WHERE idempotency.at < $5`, r.Principal, r.Name, r.Print, int64(r.At), int64(r.At)-once.Memory.Microseconds())
	if err == nil && n == 0 {
		err = muster.Errorf(muster.Conflict, "the request with this Idempotency-Key was done meanwhile")
	}
	return err
}

// Once implements once.Store.
func (c *Control) Once(ctx context.Context, principal, name string) (once.Row, bool, error) {
	const doing = "find a kept answer"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r := once.Row{Principal: principal, Name: name}
	var answer string
	err := c.db.Read.QueryRowContext(ctx, `SELECT print, at, answer FROM idempotency WHERE principal = $1 AND name = $2`,
		principal, name).Scan(&r.Print, &r.At, &answer)
	if errors.Is(err, sql.ErrNoRows) {
		return r, false, nil
	}
	if err == nil {
		r.Answer, err = base64.StdEncoding.DecodeString(answer)
	}
	return r, err == nil, failed(doing, err)
}

// AnswerOnce implements once.Store.
func (c *Control) AnswerOnce(ctx context.Context, r once.Row) error {
	return c.change(ctx, "keep an answer", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO idempotency (principal, name, print, at, answer) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (principal, name) DO UPDATE SET print = excluded.print, at = excluded.at, answer = excluded.answer`,
			r.Principal, r.Name, r.Print, int64(r.At), base64.StdEncoding.EncodeToString(r.Answer))
		return err
	})
}

// ForgetOnce implements once.Store.
func (c *Control) ForgetOnce(ctx context.Context, t muster.Micros, limit int) (forgotten int, err error) {
	err = c.change(ctx, "forget kept answers", func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, `DELETE FROM idempotency WHERE (principal, name) IN
			(SELECT principal, name FROM idempotency WHERE at < $1 ORDER BY at LIMIT $2)`, int64(t), limit)
		forgotten = int(n)
		return err
	})
	return forgotten, err
}

// CountOnce implements once.Store.
func (c *Control) CountOnce(ctx context.Context) (map[string]once.Count, error) {
	const doing = "count kept answers"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out := map[string]once.Count{}
	err := c.each(ctx, doing, `SELECT principal, count(*), CAST(COALESCE(sum(length(answer)), 0) AS BIGINT) FROM idempotency
		GROUP BY principal`, func(rows *sql.Rows) error {
		var principal string
		var n once.Count
		if err := rows.Scan(&principal, &n.Rows, &n.Bytes); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		out[principal] = n
		return nil
	})
	return out, err
}
