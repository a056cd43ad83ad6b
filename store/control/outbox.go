package control

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"muster"
	"muster/feed"
	"muster/notify/outbox"
)

const (
	deliveryColumns = `id, channel, queue, target, notification, content, lane, fold, state, attempts, due, worker, expires, created, ended,
	error, reference, tries, topic, severity, refused, held, earliest`
	// deliveryOpen is the condition of the index delivery_due, letter by letter.
	deliveryOpen = `state IN ('queued', 'sending')`
	// deliveryState is the state of a row that was found by its id: as an expression it keeps
	// planners from going through all rows of a state.
	deliveryState = `COALESCE(delivery.state, '')`

	claimQuery = `SELECT ` + deliveryColumns + ` FROM delivery WHERE queue = $1 AND lane = $2 AND due <= $3 AND ` + deliveryOpen + ` ORDER BY due, id LIMIT $4`
	// claimOrdered leaves out those behind another. What was queued again has an error.
	claimOrdered = `SELECT ` + deliveryColumns + ` FROM delivery WHERE queue = $1 AND lane = $2 AND due <= $3 AND ` + deliveryOpen + `
		AND NOT EXISTS (SELECT 1 FROM delivery older WHERE older.target = delivery.target AND older.state IN ('queued', 'sending') AND older.queue = $1
			AND older.lane = $2 AND older.id < delivery.id AND (older.due <= $3 OR older.state = 'sending' OR older.error <> '') AND (older.expires = 0 OR older.expires > $3))
		ORDER BY due, id LIMIT $4`
	foldQuery = `SELECT ` + deliveryColumns + ` FROM delivery WHERE queue = $1 AND fold = $2 AND fold <> '' AND state = 'queued'
		AND (due <= $4 OR NOT held AND earliest <= $4) ORDER BY id LIMIT $3`
)

// OnDeliveries has fn called with the deliveries, without bodies, that each transaction
// added, queued again or made due earlier, after it was committed, in the transaction's
// goroutine. Call it once, before anything is written.
func (c *Control) OnDeliveries(fn func([]outbox.Delivery)) { c.onDeliveries = fn }

// tellDeliveries tells of what was committed.
func (c *Control) tellDeliveries(list []outbox.Delivery) {
	if len(list) > 0 {
		c.onDeliveries(list)
	}
}

// deliveryOf reads deliveryColumns.
func deliveryOf(scan func(...any) error) (d outbox.Delivery, err error) {
	var tries string
	err = scan(&d.ID, &d.Channel, &d.Queue, &d.Target, &d.Notification, &d.Content, &d.Lane, &d.Fold, &d.State, &d.Attempts, &d.Due, &d.Worker,
		&d.Expires, &d.Created, &d.Ended, &d.Error, &d.Reference, &tries, &d.Topic, &d.Severity, &d.Refused, &d.Held, &d.Earliest)
	if err != nil || tries == "" {
		return d, err
	}
	if err := json.Unmarshal([]byte(tries), &d.Tries); err != nil {
		return d, fmt.Errorf("the tries of %s: %w", d.ID, err)
	}
	return d, nil
}

// triesText is how attempts are kept: none is empty.
func triesText(list []outbox.Attempt) (string, error) {
	if len(list) == 0 {
		return "", nil
	}
	text, err := json.Marshal(list)
	if err != nil {
		return "", fmt.Errorf("encode the tries: %w", err)
	}
	return string(text), nil
}

// plain is s as PostgreSQL takes it: what others answer may hold anything.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// addDeliveries writes b. A delivery whose content is neither in b nor kept is Invalid, an
// id that is taken a Conflict.
func (c *Control) addDeliveries(ctx context.Context, tx *sql.Tx, b outbox.Batch) error {
	if len(b.Deliveries) == 0 {
		return nil
	}
	if err := keepContents(ctx, tx, b); err != nil {
		return err
	}
	rows := make([][]any, len(b.Deliveries))
	for i := range b.Deliveries {
		d := &b.Deliveries[i]
		tries, err := triesText(d.Tries)
		if err != nil {
			return err
		}
		rows[i] = []any{
			d.ID, d.Channel, d.Queue, d.Target, d.Notification, d.Content, int(d.Lane), d.Fold, string(d.State), d.Attempts, int64(d.Due), d.Worker,
			int64(d.Expires), int64(d.Created), int64(d.Ended), plain(d.Error), plain(d.Reference), tries,
			d.Topic, d.Severity, d.Refused, d.Held, int64(d.Earliest),
		}
	}
	n, err := c.bulk(ctx, tx, `INSERT INTO delivery (`+deliveryColumns+`)
		SELECT v.value ->> 0, v.value ->> 1, v.value ->> 2, v.value ->> 3, v.value ->> 4, v.value ->> 5, CAST(v.value ->> 6 AS BIGINT), v.value ->> 7,
		v.value ->> 8, CAST(v.value ->> 9 AS BIGINT), CAST(v.value ->> 10 AS BIGINT), v.value ->> 11, CAST(v.value ->> 12 AS BIGINT),
		CAST(v.value ->> 13 AS BIGINT), CAST(v.value ->> 14 AS BIGINT), v.value ->> 15, v.value ->> 16, v.value ->> 17,
		v.value ->> 18, CAST(v.value ->> 19 AS BIGINT), CAST(v.value ->> 20 AS BIGINT), CAST(v.value ->> 21 AS BOOLEAN), CAST(v.value ->> 22 AS BIGINT) FROM`,
		`WHERE TRUE ON CONFLICT DO NOTHING`, rows)
	if err == nil && n != int64(len(rows)) {
		err = muster.Errorf(muster.Conflict, "delivery: an id is taken already")
	}
	return err
}

// keepContents writes the contents of b, and keeps all that its deliveries need locked, in
// one order, so that nobody forgets one before the deliveries are committed.
func keepContents(ctx context.Context, tx *sql.Tx, b outbox.Batch) error {
	bodies := make(map[string][]byte, len(b.Contents))
	for _, content := range b.Contents {
		bodies[content.ID] = content.Body
	}
	needed := map[string]bool{}
	for i := range b.Deliveries {
		needed[b.Deliveries[i].Content] = true
	}
	fresh, kept := make([][]any, 0, len(bodies)), [][]any(nil)
	for id := range needed {
		if body, ok := bodies[id]; ok {
			fresh = append(fresh, []any{id, base64.StdEncoding.EncodeToString(body)})
		} else {
			kept = append(kept, []any{id})
		}
	}
	byID := func(a, b []any) int { return strings.Compare(a[0].(string), b[0].(string)) }
	slices.SortFunc(fresh, byID)
	slices.SortFunc(kept, byID)
	err := inChunks(2, fresh, func(args []any, n int) error { // one that is there stays, and is locked
		_, err := exec(ctx, tx, `INSERT INTO delivery_content (id, body) VALUES `+tuples(n, 2)+` ON CONFLICT (id) DO UPDATE SET id = excluded.id`, args...)
		return err
	})
	if err != nil {
		return err
	}
	return inChunks(1, kept, func(args []any, n int) error {
		found, err := exec(ctx, tx, `UPDATE delivery_content SET id = id WHERE id IN (`+places(n)+`)`, args...)
		if err == nil && found != int64(n) {
			err = muster.Errorf(muster.Invalid, "a delivery's content is not there")
		}
		return err
	})
}

// AddDeliveries implements outbox.Keeper. Contents that no delivery of b has are not kept.
func (c *Control) AddDeliveries(ctx context.Context, b outbox.Batch) error {
	err := c.changeBeside(ctx, "add deliveries", func(ctx context.Context, tx *sql.Tx) error { return c.addDeliveries(ctx, tx, b) })
	if err == nil {
		c.tellDeliveries(b.Deliveries)
	}
	return err
}

// ClaimDeliveries implements outbox.Leases.
func (c *Control) ClaimDeliveries(ctx context.Context, q outbox.Claim) ([]outbox.Delivery, error) {
	query := claimQuery
	if q.Ordered {
		query = claimOrdered
	}
	return c.claimed(ctx, q, func(ctx context.Context, tx *sql.Tx) (out []outbox.Delivery, err error) {
		for _, lane := range q.Lanes {
			if len(out) >= q.Limit {
				break
			}
			err := read(ctx, tx, query+c.dialect.skip, []any{q.Queue, int(lane), int64(q.Now), q.Limit - len(out)}, appendTo(&out))
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// ClaimFold implements outbox.Leases.
func (c *Control) ClaimFold(ctx context.Context, q outbox.Claim, fold string) ([]outbox.Delivery, error) {
	return c.claimed(ctx, q, func(ctx context.Context, tx *sql.Tx) (out []outbox.Delivery, err error) {
		err = read(ctx, tx, foldQuery+c.dialect.skip, []any{q.Queue, fold, q.Limit, int64(q.Now)}, appendTo(&out))
		return out, err
	})
}

// appendTo puts the deliveries of rows into list.
func appendTo(list *[]outbox.Delivery) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		d, err := deliveryOf(rows.Scan)
		*list = append(*list, d)
		return err
	}
}

// claimed leases what find locks.
func (c *Control) claimed(ctx context.Context, q outbox.Claim, find func(context.Context, *sql.Tx) ([]outbox.Delivery, error)) (out []outbox.Delivery, err error) {
	err = c.changeBeside(ctx, "claim deliveries", func(ctx context.Context, tx *sql.Tx) (err error) {
		if err := c.keepOrder(ctx, tx); err != nil {
			return err
		}
		if out, err = find(ctx, tx); err != nil {
			return err
		}
		rows := make([][]any, len(out))
		for i := range out {
			d := &out[i]
			d.State, d.Attempts, d.Worker, d.Due = outbox.StateSending, d.Attempts+1, q.Worker, q.Until
			d.Held = false
			rows[i] = []any{d.ID, d.Worker, int64(d.Due)}
		}
		_, err = c.bulk(ctx, tx, `UPDATE delivery SET state = 'sending', attempts = attempts + 1, held = FALSE, worker = v.value ->> 1, due = CAST(v.value ->> 2 AS BIGINT) FROM`,
			`WHERE delivery.id = v.value ->> 0`, rows)
		if err != nil {
			return err
		}
		return addBodies(ctx, tx, out)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// keepOrder keeps the queries of tx on the indexes in whose order they ask, and its changes
// on ids: without statistics PostgreSQL would read and sort all that is due.
func (c *Control) keepOrder(ctx context.Context, tx *sql.Tx) error {
	if c.dialect.ordered == "" {
		return nil
	}
	_, err := exec(ctx, tx, c.dialect.ordered)
	return err
}

// addBodies reads the contents of list, each once: those that share one share its bytes.
func addBodies(ctx context.Context, tx *sql.Tx, list []outbox.Delivery) error {
	bodies := make(map[string][]byte, len(list))
	var rows [][]any
	for i := range list {
		if _, ok := bodies[list[i].Content]; !ok {
			bodies[list[i].Content] = nil
			rows = append(rows, []any{list[i].Content})
		}
	}
	err := inChunks(1, rows, func(args []any, n int) error {
		return read(ctx, tx, `SELECT id, body FROM delivery_content WHERE id IN (`+places(n)+`)`, args, func(rows *sql.Rows) error {
			var id, text string
			if err := rows.Scan(&id, &text); err != nil {
				return err
			}
			body, err := base64.StdEncoding.DecodeString(text)
			bodies[id] = body
			return err
		})
	})
	if err != nil {
		return err
	}
	for i := range list {
		list[i].Body = bodies[list[i].Content]
	}
	return nil
}

// SettleDeliveries implements outbox.Leases.
func (c *Control) SettleDeliveries(ctx context.Context, list []outbox.Settlement) (lost []string, err error) {
	rows := make([][]any, len(list))
	for i := range list {
		s := &list[i]
		tries, err := triesText(s.Tries)
		if err != nil {
			return nil, err
		}
		rows[i] = []any{s.ID, s.Worker, string(s.State), s.Attempts, int64(s.Due), int64(s.Ended), plain(s.Error), plain(s.Reference), tries, s.Refused, s.Held, s.Severity}
	}
	kept := make(map[string]bool, len(list))
	err = c.changeBeside(feed.With(ctx), "keep what came of deliveries", func(ctx context.Context, tx *sql.Tx) error {
		clear(kept)
		if err := c.keepOrder(ctx, tx); err != nil {
			return err
		}
		err := c.bulkRead(ctx, tx, `UPDATE delivery SET state = v.value ->> 2, attempts = CAST(v.value ->> 3 AS BIGINT),
			due = CASE WHEN CAST(v.value ->> 10 AS BOOLEAN) AND (delivery.held OR delivery.severity > CAST(v.value ->> 11 AS BIGINT)) THEN delivery.earliest
				ELSE CAST(v.value ->> 4 AS BIGINT) END,
			refused = CAST(v.value ->> 9 AS BIGINT), held = CAST(v.value ->> 10 AS BOOLEAN),
			ended = CAST(v.value ->> 5 AS BIGINT), error = v.value ->> 6, reference = v.value ->> 7, tries = v.value ->> 8, worker = '' FROM`,
			`WHERE delivery.id = v.value ->> 0 AND delivery.worker = v.value ->> 1 AND `+deliveryState+` = 'sending' RETURNING id`, rows, func(rows *sql.Rows) error {
				var id string
				err := rows.Scan(&id)
				kept[id] = true
				return err
			})
		if err != nil {
			return err
		}
		for i := range list {
			if kept[list[i].ID] {
				feed.Note(ctx, list[i].Events...)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		if !kept[list[i].ID] {
			lost = append(lost, list[i].ID)
		}
	}
	return lost, nil
}

// queuesQuery goes from one queue to the next by the index delivery_due, and in each to the
// first of every lane.
const queuesQuery = `WITH RECURSIVE q (name) AS (
		SELECT (SELECT d.queue FROM delivery d WHERE d.` + deliveryOpen + ` ORDER BY d.queue LIMIT 1)
		UNION ALL
		SELECT (SELECT d.queue FROM delivery d WHERE d.` + deliveryOpen + ` AND d.queue > q.name ORDER BY d.queue LIMIT 1) FROM q WHERE q.name IS NOT NULL
	), first (name, due) AS (
		SELECT q.name, (SELECT d.due FROM delivery d WHERE d.` + deliveryOpen + ` AND d.queue = q.name AND d.lane = l.lane ORDER BY d.due LIMIT 1)
		FROM q CROSS JOIN (SELECT 0 AS lane UNION ALL SELECT 1 UNION ALL SELECT 2) l WHERE q.name IS NOT NULL
	)
	SELECT f.name, (SELECT d.channel FROM delivery d WHERE d.` + deliveryOpen + ` AND d.queue = f.name ORDER BY d.lane LIMIT 1), min(f.due)
	FROM first f WHERE f.due IS NOT NULL GROUP BY f.name ORDER BY f.name`

// DeliveryQueues implements outbox.Leases, in bytewise order of name.
func (c *Control) DeliveryQueues(ctx context.Context) (out []outbox.Queue, err error) {
	err = c.listOrdered(ctx, "find the queues of deliveries", queuesQuery, nil, func(rows *sql.Rows) error {
		var q outbox.Queue
		err := rows.Scan(&q.Name, &q.Channel, &q.Due)
		out = append(out, q)
		return err
	})
	return out, err
}

// listOrdered is list for a query that must keep to an index: see keepOrder.
func (c *Control) listOrdered(ctx context.Context, doing, query string, args []any, scan func(*sql.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	tx, err := c.db.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return failed(doing, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	if err := c.keepOrder(ctx, tx); err != nil {
		return failed(doing, err)
	}
	return failed(doing, read(ctx, tx, query, args, scan))
}
