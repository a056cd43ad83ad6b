package control

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"

	"muster"
	"muster/notify/outbox"
)

// Deliveries implements outbox.Keeper.
func (c *Control) Deliveries(ctx context.Context, q outbox.Query) (out []outbox.Delivery, err error) {
	terms, args, order := []string{"TRUE"}, []any{q.Limit}, "id"
	if q.Target != "" { // all of one are sorted: as an expression it keeps planners from going through those of everybody
		order = "(id || '')"
	}
	for _, f := range [...]struct{ term, value string }{
		{"notification <> '' AND notification = $", q.Notification}, // the first part is the index's
		{"channel = $", q.Channel},
		{"queue = $", q.Queue},
		{"target = $", q.Target},
		{"(state || '') = $", string(q.State)}, // as the index has it
		{"id < $", q.Before},
	} {
		if f.value != "" {
			args = append(args, f.value)
			terms = append(terms, f.term+strconv.Itoa(len(args)))
		}
	}
	err = c.listOrdered(ctx, "list deliveries", `SELECT `+deliveryColumns+` FROM delivery WHERE `+strings.Join(terms, " AND ")+` ORDER BY `+order+` DESC LIMIT $1`,
		args, appendTo(&out))
	return out, err
}

// Delivery implements outbox.Keeper.
func (c *Control) Delivery(ctx context.Context, id string) (d outbox.Delivery, err error) {
	const doing = "read a delivery"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	tx, err := c.db.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return d, failed(doing, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	d, err = deliveryOf(tx.QueryRowContext(ctx, `SELECT `+deliveryColumns+` FROM delivery WHERE id = $1`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return d, muster.Errorf(muster.NotFound, "there is no such delivery")
	}
	if err != nil {
		return d, failed(doing, err)
	}
	list := []outbox.Delivery{d}
	err = addBodies(ctx, tx, list)
	return list[0], failed(doing, err)
}

// RequeueDeliveries implements outbox.Keeper.
func (c *Control) RequeueDeliveries(ctx context.Context, ids []string, now muster.Micros) (out []outbox.Delivery, err error) {
	rows := make([][]any, len(ids))
	for i, id := range ids {
		rows[i] = []any{id, int64(now)}
	}
	return c.changedDeliveries(ctx, "queue deliveries again", func(ctx context.Context, tx *sql.Tx, out *[]outbox.Delivery) error {
		if err := c.keepOrder(ctx, tx); err != nil {
			return err
		}
		return c.bulkRead(ctx, tx, `UPDATE delivery SET state = 'queued', attempts = 0, refused = -1, held = FALSE, due = CAST(v.value ->> 1 AS BIGINT), ended = 0, worker = '' FROM`,
			`WHERE delivery.id = v.value ->> 0 AND `+deliveryState+` IN ('dead', 'sent') RETURNING `+deliveryColumns, rows, appendTo(out))
	})
}

// changedDeliveries does a change that returns deliveries, and tells of them.
func (c *Control) changedDeliveries(ctx context.Context, doing string, do func(context.Context, *sql.Tx, *[]outbox.Delivery) error) (out []outbox.Delivery, err error) {
	err = c.changeBeside(ctx, doing, func(ctx context.Context, tx *sql.Tx) error {
		out = nil
		return do(ctx, tx, &out)
	})
	if err != nil {
		return nil, err
	}
	c.tellDeliveries(out)
	return out, nil
}

// deliveryWaits are the conditions of what HastenDeliveries changes. What was queued again has an error; what
// has none waits for quiet hours or a digest, however often its target comes.
const deliveryWaits = `state = 'queued' AND target = $1 AND channel = $2 AND due > $3 AND error <> ''`

// deliveryHeld are the conditions of what waits for quiet hours or a digest beyond a time.
const deliveryHeld = `state = 'queued' AND held AND target = $1 AND channel = $2 AND due > $3`

// HastenDeliveries implements outbox.Keeper. It writes only when something waits: devices
// ask each time they connect.
func (c *Control) HastenDeliveries(ctx context.Context, channel, target string, now muster.Micros) (int, error) {
	const doing = "hasten deliveries"
	args := []any{target, channel, int64(now)}
	waits := false
	err := c.list(ctx, doing, `SELECT 1 FROM delivery WHERE `+deliveryWaits+` LIMIT 1`, args, func(*sql.Rows) error {
		waits = true
		return nil
	})
	if err != nil || !waits {
		return 0, err
	}
	list, err := c.changedDeliveries(ctx, doing, func(ctx context.Context, tx *sql.Tx, out *[]outbox.Delivery) error {
		return read(ctx, tx, `UPDATE delivery SET due = $3 WHERE `+deliveryWaits+` RETURNING `+deliveryColumns, args, appendTo(out))
	})
	return len(list), err
}

// FreeDeliveries implements outbox.Leases.
func (c *Control) FreeDeliveries(ctx context.Context, worker string, now muster.Micros) (int, error) {
	list, err := c.changedDeliveries(ctx, "free leases", func(ctx context.Context, tx *sql.Tx, out *[]outbox.Delivery) error {
		if err := c.keepOrder(ctx, tx); err != nil {
			return err
		}
		// The first condition is the index's: those that are sending are few.
		return read(ctx, tx, `UPDATE delivery SET state = 'queued', due = $2, worker = ''
			WHERE id IN (SELECT id FROM delivery WHERE (state || '') = 'sending' AND substr(worker, 1, $3) = $1) AND `+deliveryState+` = 'sending'
			RETURNING `+deliveryColumns, []any{worker, int64(now), len(worker)}, appendTo(out))
	})
	return len(list), err
}

// DropDeliveries implements outbox.Keeper. A worker that has one on lease loses it.
func (c *Control) DropDeliveries(ctx context.Context, queue, why string, now muster.Micros, limit int) (dropped int, err error) {
	err = c.changeBeside(ctx, "drop deliveries", func(ctx context.Context, tx *sql.Tx) error {
		if err := c.keepOrder(ctx, tx); err != nil {
			return err
		}
		// The last condition is for one that was settled since it was found.
		n, err := exec(ctx, tx, `UPDATE delivery SET state = 'dropped', ended = $1, error = $2, worker = ''
			WHERE id IN (SELECT id FROM delivery WHERE queue = $3 AND `+deliveryOpen+` ORDER BY queue, lane, due LIMIT $4) AND `+deliveryState+` IN ('queued', 'sending')`,
			int64(now), plain(why), queue, limit)
		dropped = int(n)
		return err
	})
	if err != nil {
		return 0, err
	}
	return dropped, nil
}

// TrimDeliveries implements outbox.Keeper.
func (c *Control) TrimDeliveries(ctx context.Context, ended, dead muster.Micros, limit int) (forgotten int, err error) {
	err = c.changeBeside(ctx, "forget old deliveries", func(ctx context.Context, tx *sql.Tx) error {
		forgotten = 0
		contents := map[string]bool{}
		if err := c.keepOrder(ctx, tx); err != nil {
			return err
		}
		for _, q := range [...]struct {
			of     string // ends the condition of an index
			before muster.Micros
		}{{` IN ('sent', 'dropped')`, ended}, {` = 'dead'`, dead}} {
			if forgotten >= limit {
				break
			}
			// The last condition is for one that was queued again since it was found.
			err := read(ctx, tx, `DELETE FROM delivery WHERE id IN (SELECT id FROM delivery WHERE state`+q.of+` AND ended < $1 ORDER BY ended LIMIT $2)
				AND `+deliveryState+q.of+` RETURNING content`, []any{int64(q.before), limit - forgotten}, func(rows *sql.Rows) error {
				var content string
				err := rows.Scan(&content)
				contents[content] = true
				forgotten++
				return err
			})
			if err != nil {
				return err
			}
		}
		return forgetContents(ctx, tx, contents)
	})
	if err != nil {
		return 0, err
	}
	return forgotten, nil
}

// forgetContents forgets those of ids that no delivery has. They are locked first, so that
// one who adds deliveries meanwhile has either been seen or writes the content again.
func forgetContents(ctx context.Context, tx *sql.Tx, ids map[string]bool) error {
	rows := sortedRows(ids)
	for _, query := range [...]string{
		`UPDATE delivery_content SET id = id WHERE id IN `,
		`DELETE FROM delivery_content WHERE NOT EXISTS (SELECT 1 FROM delivery d WHERE d.content = delivery_content.id) AND id IN `,
	} {
		err := inChunks(1, rows, func(args []any, n int) error {
			_, err := exec(ctx, tx, query+`(`+places(n)+`)`, args...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// DeliveryDepths implements outbox.Keeper.
func (c *Control) DeliveryDepths(ctx context.Context) (out []outbox.Depth, err error) {
	err = c.list(ctx, "count deliveries", `SELECT channel, state, lane, count(*), min(created) FROM delivery GROUP BY channel, state, lane ORDER BY channel, state, lane`, nil,
		func(rows *sql.Rows) error {
			var d outbox.Depth
			if err := rows.Scan(&d.Channel, &d.State, &d.Lane, &d.Count, &d.Oldest); err != nil {
				return err
			}
			if !d.State.Open() {
				d.Oldest = 0
			}
			out = append(out, d)
			return nil
		})
	return out, err
}
