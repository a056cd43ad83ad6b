package sqlite

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"muster"
)

// reject keeps messages that were refused for good, once each over a replay, and
// drops the oldest past the bound. It returns by how many rows the table grew.
func (u *update) reject(list []muster.Rejected) (int, error) {
	if len(list) == 0 {
		return 0, nil
	}
	grown := 0
	for i := range list {
		r := &list[i]
		if err := u.ctx.Err(); err != nil {
			return 0, err
		}
		payload := r.Payload
		if payload == nil {
			payload = []byte{}
		}
		res, err := u.exec(u.t.stmts.reject, string(r.Device), int64(r.Arrival), digest(r), r.Topic, r.Code, r.Reason, payload, int64(r.Size))
		if err != nil {
			return 0, fmt.Errorf("keep a rejected message: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return 0, fmt.Errorf("keep a rejected message: %w", err)
		}
		grown += int(n)
	}
	trimmed, err := u.trimRejected(u.t.rejected + grown - u.t.maxRejected)
	return grown - trimmed, err
}

// trimSlice is the most rejected messages that one append deletes.
const trimSlice = 10_000

// trimRejected deletes the n oldest, or as many as a slice has.
func (u *update) trimRejected(n int) (int, error) {
	if n <= 0 {
		return 0, nil
	}
	res, err := u.tx.ExecContext(u.quiet, `DELETE FROM rejected WHERE id IN (SELECT id FROM rejected ORDER BY arrival, id LIMIT ?)`, min(n, trimSlice))
	if err != nil {
		return 0, fmt.Errorf("drop the oldest rejected: %w", err)
	}
	gone, err := res.RowsAffected()
	return int(gone), err
}

// digest tells two messages of one device and arrival apart.
func digest(r *muster.Rejected) int64 {
	h := sha256.New()
	var b []byte
	for _, s := range []string{r.Topic, r.Code, r.Reason} {
		b = appendString(b, s)
	}
	h.Write(binary.AppendVarint(b, int64(r.Size)))
	h.Write(r.Payload)
	return int64(binary.BigEndian.Uint64(h.Sum(nil)))
}

// Rejected returns the newest rejected messages, of device or, when it is empty,
// of all, newest first, at most limit. The newest 100,000 are kept.
func (t *Telemetry) Rejected(ctx context.Context, device muster.DeviceID, limit int) ([]muster.Rejected, error) {
	if limit <= 0 {
		return nil, nil
	}
	query, args := `SELECT device, arrival, topic, code, reason, payload, size FROM rejected `, []any{}
	if device != "" {
		query, args = query+`WHERE device = ? `, append(args, string(device))
	}
	rows, err := t.read.QueryContext(ctx, query+`ORDER BY arrival DESC, id DESC LIMIT ?`, append(args, limit)...)
	if err != nil {
		return nil, failed("list the rejected", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err has what counts
	var out []muster.Rejected
	for rows.Next() {
		var r muster.Rejected
		if err := rows.Scan(&r.Device, &r.Arrival, &r.Topic, &r.Code, &r.Reason, &r.Payload, &r.Size); err != nil {
			return nil, failed("list the rejected", err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, failed("list the rejected", err)
	}
	return out, nil
}
