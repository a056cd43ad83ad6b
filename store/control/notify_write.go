package control

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"muster"
	"muster/notify"
)

// OnInbox has fn called with the changes to inboxes of each transaction after it was
// committed, in the transaction's goroutine: runs may come out of order. Call it once,
// before anything is written.
func (c *Control) OnInbox(fn func(notify.Changes)) { c.onInbox = fn }

// Write implements notify.MessageStore. Beside the Conflict of an update, it answers
// Conflict when a dedup key of a topic is open already or an id is taken, NotFound when the
// topic of a new notification is gone or inactive or the notification of a receipt is gone,
// and Invalid as AddDeliveries does. A mark of a receipt that is not there does nothing.
func (c *Control) Write(ctx context.Context, w notify.Write) (notify.Written, error) {
	var done *writing
	err := c.changeBeside(ctx, "write notifications", func(ctx context.Context, tx *sql.Tx) error {
		done = &writing{c: c, tx: tx, w: w, items: map[receiptKey]notify.Receipt{}}
		return done.do(ctx)
	})
	if err != nil {
		return notify.Written{}, err
	}
	c.tellDeliveries(w.Out.Deliveries)
	if done.last > done.base {
		c.onInbox(done.changes())
	}
	return done.written, nil
}

type receiptKey struct {
	notification string
	subject      notify.Subject
}

func keyOf(r notify.Receipt) receiptKey { return receiptKey{r.Notification, r.Subject} }

// writing is one transaction of Write.
type writing struct {
	c  *Control
	tx *sql.Tx
	w  notify.Write

	base, last    int64 // numbers of inboxes: before the first, and the last
	items         map[receiptKey]notify.Receipt
	notifications map[string]notify.Notification // of items
	written       notify.Written
}

// do leaves the receipts to the end: from take on, those who write take turns.
func (w *writing) do(ctx context.Context) error {
	for _, step := range [...]func(context.Context) error{
		w.update, w.insert, w.about, w.over, w.out, w.cursor, w.take, w.topics, w.receipts, w.touch, w.marks, w.give,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// over ends deliveries whose news is over.
func (w *writing) over(ctx context.Context) error {
	o := &w.w.Over
	if err := w.rises(ctx); err != nil {
		return err
	}
	if err := w.drop(ctx, o.Untried, `delivery.attempts = delivery.refused`, "it was over before it was sent"); err != nil {
		return err
	}
	if err := w.drop(ctx, o.Superseded, `(delivery.attempts = 0 OR delivery.held)`, "what is more severe took its place"); err != nil {
		return err
	}
	_, err := w.c.bulk(ctx, w.tx, `UPDATE delivery SET expires = CAST(v.value ->> 1 AS BIGINT) FROM`,
		`WHERE delivery.id = v.value ->> 0 AND delivery.state IN ('queued', 'sending')`, overRows(o.Tried, o.At))
	return err
}

// rises has what waits, or can be queued again, be as severe as its notification.
func (w *writing) rises(ctx context.Context) error {
	rows := make([][]any, len(w.w.Rises))
	for i, r := range w.w.Rises {
		rows[i] = []any{r.Notification, int(r.Severity)}
	}
	_, err := w.c.bulk(ctx, w.tx, `UPDATE delivery SET severity = CAST(v.value ->> 1 AS BIGINT) FROM`,
		`WHERE delivery.notification = v.value ->> 0 AND delivery.notification <> '' AND `+deliveryState+` IN ('queued', 'sending', 'dead')`, rows)
	return err
}

// drop drops deliveries that are queued and still as they are said to be; Conflict when one is not.
func (w *writing) drop(ctx context.Context, ids []string, still, why string) error {
	rows := overRows(ids, w.w.Over.At)
	for i := range rows {
		rows[i] = append(rows[i], why)
	}
	n, err := w.c.bulk(ctx, w.tx, `UPDATE delivery SET state = 'dropped', ended = CAST(v.value ->> 1 AS BIGINT), error = v.value ->> 2 FROM`,
		`WHERE delivery.id = v.value ->> 0 AND delivery.state = 'queued' AND `+still, rows)
	if err == nil && n != int64(len(ids)) {
		err = muster.Errorf(muster.Conflict, "a delivery of what is over was tried meanwhile")
	}
	return err
}

func overRows(ids []string, at muster.Micros) [][]any {
	rows := make([][]any, len(ids))
	for i, id := range ids {
		rows[i] = []any{id, int64(at)}
	}
	return rows
}

// topics keeps the topics of what is new as they are until the commit. It comes late, and
// those of one topic take turns: who shares a row's lock can keep one who would change it
// waiting for ever.
func (w *writing) topics(ctx context.Context) error {
	wanted := map[string]bool{}
	for i := range w.w.New {
		wanted[w.w.New[i].Topic] = true
	}
	err := inChunks(1, sortedRows(wanted), func(args []any, n int) error {
		query := `SELECT id, status FROM topic WHERE id IN (` + places(n) + `) ORDER BY id` + w.c.dialect.hold
		return read(ctx, w.tx, query, args, func(rows *sql.Rows) error {
			var id string
			var status notify.Status
			if err := rows.Scan(&id, &status); err != nil {
				return err
			}
			if status == notify.Active {
				delete(wanted, id)
			}
			return nil
		})
	})
	if err == nil && len(wanted) > 0 {
		err = muster.Errorf(muster.NotFound, "the topic is gone, or takes no notifications")
	}
	return err
}

const notificationColumns = `id, topic, created, sender_kind, sender, sender_name, severity, lane, title, body, data, link, actions, device, dedup_key, count,
	state, ack_policy, acked_by, acked_at, ack_note, resolved_at, recipients, acks, step, escalate_at, updated, expires, version`

// notificationFixed is how many of notificationColumns never change, the first.
const notificationFixed = 3

// notificationRow returns n as notificationColumns has it.
func notificationRow(n notify.Notification) ([]any, error) {
	actions, err := json.Marshal(append([]notify.Action{}, n.Actions...))
	if err != nil {
		return nil, fmt.Errorf("encode the actions: %w", err)
	}
	return []any{
		n.ID, n.Topic, int64(n.Created), n.Sender.Kind, n.Sender.ID, plain(n.Sender.Name), int(n.Severity), n.Lane, plain(n.Title), plain(n.Body), string(n.Data),
		n.Link, string(actions), string(n.Device), n.DedupKey, n.Count, string(n.State), string(n.AckPolicy), plain(n.AckedBy), int64(n.AckedAt), plain(n.AckNote),
		int64(n.ResolvedAt), n.Recipients, n.Acks, n.Step, int64(n.EscalateAt), int64(n.Updated), int64(n.Expires), n.Version,
	}, nil
}

func notificationOf(scan func(...any) error) (n notify.Notification, err error) {
	var data string
	var actions []byte
	s := &n.Sender
	err = scan(&n.ID, &n.Topic, &n.Created, &s.Kind, &s.ID, &s.Name, &n.Severity, &n.Lane, &n.Title, &n.Body, &data, &n.Link, &actions, &n.Device, &n.DedupKey,
		&n.Count, &n.State, &n.AckPolicy, &n.AckedBy, &n.AckedAt, &n.AckNote, &n.ResolvedAt, &n.Recipients, &n.Acks, &n.Step, &n.EscalateAt, &n.Updated,
		&n.Expires, &n.Version)
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(actions, &n.Actions); err != nil {
		return n, fmt.Errorf("the actions of %s: %w", n.ID, err)
	}
	if len(n.Actions) == 0 {
		n.Actions = nil
	}
	n.Data = raw(data)
	return n, nil
}

func (w *writing) insert(ctx context.Context) error {
	rows := make([][]any, len(w.w.New))
	for i, n := range w.w.New {
		row, err := notificationRow(n)
		if err != nil {
			return err
		}
		rows[i] = row
	}
	if len(rows) == 0 {
		return nil
	}
	width := len(rows[0])
	return inChunks(width, rows, func(args []any, n int) error {
		inserted, err := exec(ctx, w.tx, `INSERT INTO notification (`+notificationColumns+`) VALUES `+tuples(n, width)+` ON CONFLICT DO NOTHING`, args...)
		if err == nil && inserted != int64(n) {
			err = muster.Errorf(muster.Conflict, "a notification of the topic with this dedup key is open already")
		}
		return err
	})
}

// updateNotification sets what may change, when the version is still the one it was.
const updateNotification = `UPDATE notification SET sender_kind = $1, sender = $2, sender_name = $3, severity = $4, lane = $5, title = $6, body = $7, data = $8, link = $9,
	actions = $10, device = $11, dedup_key = $12, count = $13, state = $14, ack_policy = $15, acked_by = $16, acked_at = $17, ack_note = $18, resolved_at = $19,
	recipients = $20, acks = $21, step = $22, escalate_at = $23, updated = $24, expires = $25, version = $26 WHERE id = $27 AND version = $28`

func (w *writing) update(ctx context.Context) error {
	list := slices.SortedFunc(slices.Values(w.w.Updates), func(a, b notify.Update) int { return cmp.Compare(a.Notification.ID, b.Notification.ID) })
	for _, u := range list { // few, and in one order, so that two do not wait for one another
		row, err := notificationRow(u.Notification)
		if err != nil {
			return err
		}
		n, err := exec(ctx, w.tx, updateNotification, append(row[notificationFixed:], u.Notification.ID, u.Was)...)
		if taken(err) || err == nil && n == 0 {
			err = muster.Errorf(muster.Conflict, "the notification changed meanwhile")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writing) out(ctx context.Context) error { return w.c.addDeliveries(ctx, w.tx, w.w.Out) }

func (w *writing) cursor(ctx context.Context) error {
	if w.w.Cursor == nil {
		return nil
	}
	query := `INSERT INTO notify_cursor (name, epoch, seq) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq`
	args := []any{w.w.Cursor.Name, w.w.Cursor.Epoch, w.w.Cursor.Seq}
	if was := w.w.Cursor.Was; was != nil {
		query += ` WHERE notify_cursor.epoch = $4 AND notify_cursor.seq = $5`
		args = append(args, was.Epoch, was.Seq)
	}
	n, err := exec(ctx, w.tx, query, args...)
	if err == nil && n == 0 {
		err = muster.Errorf(muster.Conflict, "another process has read on from there")
	}
	return err
}

// take locks the counter of inboxes until the commit, so that nobody else changes a receipt
// meanwhile, and numbers are in the order of commits.
func (w *writing) take(ctx context.Context) error {
	if len(w.w.Receipts)+len(w.w.Touch)+len(w.w.Marks) == 0 {
		return nil
	}
	if err := w.lockNotifications(ctx); err != nil {
		return err
	}
	var err error
	w.base, err = takeInboxes(ctx, w.tx)
	w.last = w.base
	return err
}

// present leaves out the receipts of subjects that were deleted since they were thought of.
func (w *writing) present(ctx context.Context) ([]notify.Receipt, error) {
	subjects := make([][]any, len(w.w.Receipts))
	for i := range w.w.Receipts {
		subjects[i] = []any{string(w.w.Receipts[i].Subject)}
	}
	if len(subjects) == 0 {
		return nil, nil
	}
	gone, err := subjectsGone(ctx, w.tx, subjects)
	return slices.DeleteFunc(slices.Clone(w.w.Receipts), func(r notify.Receipt) bool { return gone[string(r.Subject)] }), err
}

// give keeps the last number, and finds what is to be told of.
func (w *writing) give(ctx context.Context) error {
	if w.last == w.base {
		return nil
	}
	if _, err := exec(ctx, w.tx, `UPDATE counter SET value = $1 WHERE name = 'inbox'`, w.last); err != nil {
		return err
	}
	return w.loadNotifications(ctx)
}

// lockNotifications keeps the notifications of receipts from being trimmed, those that
// were written are locked already.
func (w *writing) lockNotifications(ctx context.Context) error {
	wanted := map[string]bool{}
	for i := range w.w.Receipts {
		wanted[w.w.Receipts[i].Notification] = true
	}
	for i := range w.w.New {
		delete(wanted, w.w.New[i].ID)
	}
	for i := range w.w.Updates {
		delete(wanted, w.w.Updates[i].Notification.ID)
	}
	return inChunks(1, sortedRows(wanted), func(args []any, n int) error {
		found, err := exec(ctx, w.tx, `UPDATE notification SET id = id WHERE id IN (`+places(n)+`)`, args...)
		if err == nil && found != int64(n) {
			err = muster.Errorf(muster.NotFound, "a notification is not there any more")
		}
		return err
	})
}

const receiptColumns = `notification, subject, seq, state, delivered, seen, read, acked, note, door, step`

// receiptValues are receiptColumns of a row of bulk.
const receiptValues = `v.value ->> 0, v.value ->> 1, CAST(v.value ->> 2 AS BIGINT), CAST(v.value ->> 3 AS BIGINT), CAST(v.value ->> 4 AS BIGINT),
	CAST(v.value ->> 5 AS BIGINT), CAST(v.value ->> 6 AS BIGINT), CAST(v.value ->> 7 AS BIGINT), v.value ->> 8, v.value ->> 9, CAST(v.value ->> 10 AS BIGINT)`

func receiptRow(r notify.Receipt) []any {
	return []any{
		r.Notification, string(r.Subject), r.Seq, int(r.State), int64(r.Delivered), int64(r.Seen), int64(r.Read), int64(r.Acked), plain(r.Note), r.Door, r.Step,
	}
}

func receiptOf(scan func(...any) error) (r notify.Receipt, err error) {
	err = scan(&r.Notification, &r.Subject, &r.Seq, &r.State, &r.Delivered, &r.Seen, &r.Read, &r.Acked, &r.Note, &r.Door, &r.Step)
	return r, err
}

// changed takes a receipt as it is now for one of the items.
func (w *writing) changed(r notify.Receipt) {
	w.items[keyOf(r)] = r
	w.last = max(w.last, r.Seq)
}

// receipts inserts those that are not there, in the order of the index by subject.
func (w *writing) receipts(ctx context.Context) error {
	wanted, err := w.present(ctx)
	if err != nil {
		return err
	}
	list := slices.SortedStableFunc(slices.Values(wanted), func(a, b notify.Receipt) int { return cmp.Compare(a.Subject, b.Subject) })
	base := w.last
	rows := make([][]any, len(list))
	for i, r := range list {
		r.Seq = base + int64(i) + 1
		rows[i] = receiptRow(r)
	}
	n, err := w.c.bulk(ctx, w.tx, `INSERT INTO receipt (`+receiptColumns+`) SELECT `+receiptValues+` FROM`, `WHERE TRUE ON CONFLICT (notification, subject) DO NOTHING`, rows)
	if err != nil || n == 0 {
		return err
	}
	w.written.Added = int(n)
	there := func(int64) bool { return true }
	if n != int64(len(rows)) {
		seqs := map[int64]bool{}
		if err := ids(ctx, w.tx, seqs, `SELECT seq FROM receipt WHERE seq > $1`, []any{base}); err != nil {
			return err
		}
		there = func(seq int64) bool { return seqs[seq] }
	}
	for i, r := range list {
		if r.Seq = base + int64(i) + 1; there(r.Seq) {
			w.changed(r)
		}
	}
	return nil
}

// touch gives every receipt of a notification a new number.
func (w *writing) touch(ctx context.Context) error {
	touched := map[string]bool{}
	for _, id := range w.w.Touch {
		touched[id] = true
	}
	for _, row := range sortedRows(touched) {
		err := read(ctx, w.tx, `UPDATE receipt SET seq = $1 + t.place
			FROM (SELECT subject AS who, row_number() OVER (ORDER BY subject) AS place FROM receipt WHERE notification = $2) AS t
			WHERE notification = $2 AND subject = t.who RETURNING `+receiptColumns, []any{w.last, row[0]}, func(rows *sql.Rows) error {
			r, err := receiptOf(rows.Scan)
			if err == nil {
				w.items[keyOf(r)] = r
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range w.items {
			w.last = max(w.last, r.Seq)
		}
	}
	return nil
}

// marks moves receipts on.
func (w *writing) marks(ctx context.Context) error {
	now := map[receiptKey]notify.Receipt{}
	keys := make([][]any, 0, len(w.w.Marks))
	for _, m := range w.w.Marks {
		keys = append(keys, []any{m.Notification, string(m.Subject)})
	}
	err := w.c.bulkRead(ctx, w.tx, `SELECT `+receiptColumns+` FROM receipt JOIN`, `ON receipt.notification = v.value ->> 0 AND receipt.subject = v.value ->> 1`, keys,
		func(rows *sql.Rows) error {
			r, err := receiptOf(rows.Scan)
			now[keyOf(r)] = r
			return err
		})
	if err != nil {
		return err
	}
	moved := map[receiptKey]int{} // its place in written.Marked
	for _, m := range w.w.Marks {
		key := receiptKey{m.Notification, m.Subject}
		r, ok := now[key]
		if !ok || !advance(&r, m) {
			continue
		}
		place, again := moved[key]
		if !again {
			w.last++
			r.Seq = w.last
			place = len(w.written.Marked)
			moved[key] = place
			w.written.Marked = append(w.written.Marked, r)
		}
		now[key], w.written.Marked[place] = r, r
	}
	rows := make([][]any, 0, len(w.written.Marked))
	for _, r := range w.written.Marked {
		w.changed(r)
		rows = append(rows, receiptRow(r))
	}
	_, err = w.c.bulk(ctx, w.tx, `UPDATE receipt SET seq = CAST(v.value ->> 2 AS BIGINT), state = CAST(v.value ->> 3 AS BIGINT), delivered = CAST(v.value ->> 4 AS BIGINT),
		seen = CAST(v.value ->> 5 AS BIGINT), read = CAST(v.value ->> 6 AS BIGINT), acked = CAST(v.value ->> 7 AS BIGINT), note = v.value ->> 8, door = v.value ->> 9 FROM`,
		`WHERE receipt.notification = v.value ->> 0 AND receipt.subject = v.value ->> 1`, rows)
	return err
}

// advance moves r on to where m says, and reports whether it was not there yet. What it
// passes by it reached then at the latest.
func advance(r *notify.Receipt, m notify.Mark) bool {
	if m.State <= r.State {
		return false
	}
	for state, at := range map[notify.ReceiptState]*muster.Micros{
		notify.Delivered: &r.Delivered, notify.Seen: &r.Seen, notify.Read: &r.Read, notify.AckedIt: &r.Acked,
	} {
		if state <= m.State && *at == 0 {
			*at = m.At
		}
	}
	r.State = m.State
	if m.State == notify.AckedIt {
		r.Note, r.Door = plain(m.Note), m.Door
	}
	return true
}

// loadNotifications finds those of the items, as they are now.
func (w *writing) loadNotifications(ctx context.Context) error {
	w.notifications = make(map[string]notify.Notification, len(w.w.New)+len(w.w.Updates))
	missing := map[string]bool{}
	for key := range w.items {
		missing[key.notification] = true
	}
	for _, n := range w.w.New {
		w.notifications[n.ID] = n
		delete(missing, n.ID)
	}
	return inChunks(1, sortedRows(missing), func(args []any, n int) error {
		return read(ctx, w.tx, `SELECT `+notificationColumns+` FROM notification WHERE id IN (`+places(n)+`)`, args, into(w.notifications))
	})
}

// into puts the notifications of rows into m.
func into(m map[string]notify.Notification) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		n, err := notificationOf(rows.Scan)
		m[n.ID] = n
		return err
	}
}

// changes are the items in order of their numbers, without those of a notification that
// was trimmed at the same time.
func (w *writing) changes() notify.Changes {
	out := notify.Changes{First: w.base + 1, Last: w.last, Items: make([]notify.Item, 0, len(w.items))}
	for _, r := range w.items {
		if n, ok := w.notifications[r.Notification]; ok {
			out.Items = append(out.Items, notify.Item{Notification: n, Receipt: r})
		}
	}
	slices.SortFunc(out.Items, func(a, b notify.Item) int { return cmp.Compare(a.Receipt.Seq, b.Receipt.Seq) })
	return out
}
