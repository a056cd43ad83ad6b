package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"muster"
)

// trimEvery is how many rejected messages may come before the table is trimmed, and
// how many rows one statement deletes.
const trimEvery = 1000

// keepRejected inserts rejected messages; one that was kept before, in a part of
// the batch that is replayed, is left alone.
func keepRejected(ctx context.Context, tx pgx.Tx, rs []muster.Rejected) error {
	if len(rs) == 0 {
		return nil
	}
	n := len(rs)
	device, topic, code, reason := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	payload, digests := make([][]byte, n), make([][]byte, n)
	arrival, size := make([]time.Time, n), make([]int64, n)
	for i, r := range rs {
		device[i], topic[i], code[i], reason[i] = plainText(string(r.Device)), plainText(r.Topic), plainText(r.Code), plainText(r.Reason)
		payload[i], arrival[i], size[i] = append([]byte{}, r.Payload...), r.Arrival.Time(), int64(r.Size)
		digests[i] = rejectedDigest(r)
	}
	_, err := tx.Exec(ctx, `INSERT INTO rejected (device, arrival, topic, code, reason, payload, size, digest)
		SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bigint[], $8::bytea[])
		ON CONFLICT DO NOTHING`, device, arrival, topic, code, reason, payload, size, digests)
	if err != nil {
		return fmt.Errorf("keep rejected messages: %w", err)
	}
	return nil
}

// plainText returns s as text that the database takes whatever a device sent: a
// rejected message must never be refused itself.
func plainText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// rejectedDigest tells apart two messages of one device and arrival.
func rejectedDigest(r muster.Rejected) []byte {
	h := sha256.New()
	for _, s := range []string{r.Topic, r.Code, r.Reason, string(r.Payload)} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(s))) // a hash never fails
		_, _ = h.Write([]byte(s))
	}
	return h.Sum(nil)[:16]
}

// trimRejected deletes the oldest rejected messages beyond the bound, in slices,
// after every thousand that came. It is not worth failing a stored batch for: what
// is not deleted now is deleted next time.
func (t *Telemetry) trimRejected(ctx context.Context, came int) {
	if came == 0 || t.untrimmed.Add(int64(came)) < trimEvery {
		return
	}
	t.untrimmed.Store(0)
	for deleted := int64(trimEvery); deleted == trimEvery; {
		tag, err := t.write.Exec(ctx, `DELETE FROM rejected WHERE id IN
			(SELECT id FROM rejected ORDER BY arrival DESC, id DESC OFFSET $1 LIMIT $2)`, t.maxRejected, trimEvery)
		if err != nil {
			t.log.WarnContext(ctx, "rejected messages beyond the bound were not deleted", "err", err)
			return
		}
		deleted = tag.RowsAffected()
	}
}

// Rejected implements ingest.RangeStore. It returns at most the 100,000 newest.
func (t *Telemetry) Rejected(ctx context.Context, device muster.DeviceID, limit int) ([]muster.Rejected, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	limit = max(0, min(limit, int(t.maxRejected)))
	const columns = `SELECT device, arrival, topic, code, reason, payload, size FROM rejected `
	var rows pgx.Rows
	var err error
	if device == "" {
		rows, err = t.read.Query(ctx, columns+`ORDER BY arrival DESC, id DESC LIMIT $1`, limit)
	} else {
		rows, err = t.read.Query(ctx, columns+`WHERE device = $2 ORDER BY arrival DESC, id DESC LIMIT $1`, limit, device)
	}
	var out []muster.Rejected
	err = collect(rows, err, func() error {
		var r muster.Rejected
		var at time.Time
		err := rows.Scan(&r.Device, &at, &r.Topic, &r.Code, &r.Reason, &r.Payload, &r.Size)
		r.Arrival = muster.MicrosOf(at)
		out = append(out, r)
		return err
	})
	if err != nil {
		return nil, classify("read rejected messages", err)
	}
	return out, nil
}
