package control

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"muster"
	"muster/audit"
)

const auditColumns = "seq, at, actor_kind, actor, actor_name, address, request, action, object, before, after, mac"

// SignAudit has sign make the code of each audit record, which is written with it. Call
// it once, before anything is written; without it records have no code.
func (c *Control) SignAudit(sign func(audit.Record) string) { c.sign = sign }

// AuditLast implements audit.Store.
func (c *Control) AuditLast(ctx context.Context) (last int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = c.db.Read.QueryRowContext(ctx, "SELECT value FROM counter WHERE name = 'audit'").Scan(&last)
	return last, failed("read the audit log", err)
}

// AuditAfter implements audit.Store.
func (c *Control) AuditAfter(ctx context.Context, seq int64, limit int) ([]audit.Record, error) {
	return c.auditRows(ctx, "WHERE seq > $1 ORDER BY seq LIMIT $2", seq, limit)
}

// Audit returns up to q.Limit records that q chooses, the newest first.
func (c *Control) Audit(ctx context.Context, q audit.Query) ([]audit.Record, error) {
	var terms []string
	var args []any
	term := func(text string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			text = strings.Replace(text, "?", "$"+strconv.Itoa(len(args)), 1)
		}
		terms = append(terms, text)
	}
	if q.Actor != "" {
		term("actor = ?", q.Actor)
	}
	if q.Object != "" { // "0" comes after "/"
		term("(object = ? OR object >= ? AND object < ?)", q.Object, q.Object+"/", q.Object+"0")
	}
	if not, is := strings.CutPrefix(q.Action, "!"); is {
		term("action <> ?", not)
	} else if q.Action != "" {
		term("action = ?", q.Action)
	}
	if q.From != 0 {
		term("at >= ?", int64(q.From))
	}
	if q.To != 0 {
		term("at < ?", int64(q.To))
	}
	if q.Before != 0 {
		term("seq < ?", q.Before)
	}
	where := ""
	if len(terms) > 0 {
		where = "WHERE " + strings.Join(terms, " AND ")
	}
	args = append(args, q.Limit)
	return c.auditRows(ctx, where+" ORDER BY seq DESC LIMIT $"+strconv.Itoa(len(args)), args...)
}

func (c *Control) auditRows(ctx context.Context, rest string, args ...any) ([]audit.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	rows, err := c.db.Read.QueryContext(ctx, "SELECT "+auditColumns+" FROM audit "+rest, args...) //nolint:gosec // rest is ours, values are args
	if err != nil {
		return nil, failed("read the audit log", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err says what went wrong
	var out []audit.Record
	for rows.Next() {
		var r audit.Record
		var at int64
		var before, after string
		a := &r.Actor
		if err := rows.Scan(&r.Seq, &at, &a.Kind, &a.ID, &a.Name, &a.Address, &a.Request, &r.Action, &r.Object, &before, &after, &r.MAC); err != nil {
			return nil, failed("read the audit log", err)
		}
		r.At, r.Before, r.After = muster.Micros(at), []byte(before), []byte(after)
		out = append(out, r)
	}
	return out, failed("read the audit log", rows.Err())
}

// LastSeal implements audit.Store.
func (c *Control) LastSeal(ctx context.Context) (audit.Seal, error) {
	seals, err := c.sealRows(ctx, "ORDER BY last DESC LIMIT 1")
	if err != nil || len(seals) == 0 {
		return audit.Seal{}, err
	}
	return seals[0], nil
}

// SealsAfter implements audit.Store.
func (c *Control) SealsAfter(ctx context.Context, seq int64, limit int) ([]audit.Seal, error) {
	return c.sealRows(ctx, "WHERE last > $1 ORDER BY last LIMIT $2", seq, limit)
}

func (c *Control) sealRows(ctx context.Context, rest string, args ...any) ([]audit.Seal, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	rows, err := c.db.Read.QueryContext(ctx, "SELECT first, last, at, hash, signed FROM audit_seal "+rest, args...) //nolint:gosec // rest is ours, values are args
	if err != nil {
		return nil, failed("read the audit log's seals", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err says what went wrong
	var out []audit.Seal
	for rows.Next() {
		var s audit.Seal
		var at int64
		var text string
		if err := rows.Scan(&s.First, &s.Last, &at, &text, &s.Signed); err != nil {
			return nil, failed("read the audit log's seals", err)
		}
		s.At = muster.Micros(at)
		// A hash that is none was put there by somebody else; it verifies as little.
		if b, err := hex.DecodeString(text); err == nil && len(b) == len(s.Hash) {
			copy(s.Hash[:], b)
		}
		out = append(out, s)
	}
	return out, failed("read the audit log's seals", rows.Err())
}

// InsertSeal implements audit.Store.
func (c *Control) InsertSeal(ctx context.Context, s audit.Seal) error {
	return c.change(ctx, "seal the audit log", func(ctx context.Context, tx *sql.Tx) error {
		// The counter's lock lets one process at a time seal.
		if _, err := exec(ctx, tx, "UPDATE counter SET value = value WHERE name = 'seal'"); err != nil {
			return err
		}
		var last int64
		err := tx.QueryRowContext(ctx, "SELECT last FROM audit_seal ORDER BY last DESC LIMIT 1").Scan(&last)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("read the last seal: %w", err)
		}
		if last != s.First-1 {
			return muster.Errorf(muster.Conflict, "the audit log is sealed up to %d already", last)
		}
		_, err = exec(ctx, tx, "INSERT INTO audit_seal (first, last, at, hash, signed) VALUES ($1, $2, $3, $4, $5)",
			s.First, s.Last, int64(s.At), hex.EncodeToString(s.Hash[:]), s.Signed)
		return err
	})
}
