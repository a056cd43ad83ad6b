package control

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/notify"
	"muster/notify/outbox"
)

// OpenByKey implements notify.MessageStore.
func (c *Control) OpenByKey(ctx context.Context, topic, key string) (notify.Notification, error) { // the last two conditions are the index's
	return c.notification(ctx, `topic = $1 AND dedup_key = $2 AND dedup_key <> '' AND state IN ('open', 'acked')`, topic, key)
}

// Notification implements notify.MessageStore; NotFound when there is none.
func (c *Control) Notification(ctx context.Context, id string) (notify.Notification, error) {
	return c.notification(ctx, `id = $1`, id)
}

func (c *Control) notification(ctx context.Context, condition string, args ...any) (notify.Notification, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	n, err := notificationOf(c.db.Read.QueryRowContext(ctx, `SELECT `+notificationColumns+` FROM notification WHERE `+condition, args...).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return n, muster.Errorf(muster.NotFound, "there is no such notification")
	}
	return n, failed("read a notification", err)
}

// topicPages is of how many topics the pages are read one by one: each is a range of an
// index. Of more, all notifications are gone through until a page is full.
const topicPages = 32

// Notifications implements notify.MessageStore.
func (c *Control) Notifications(ctx context.Context, q notify.Query) (out []notify.Notification, err error) {
	topics := slices.Compact(slices.Sorted(slices.Values(q.Topics)))
	if len(topics) > topicPages || q.Device != "" && len(topics) > 1 {
		return c.notificationPage(ctx, q, topics)
	}
	for _, topic := range topics {
		page, err := c.notificationPage(ctx, q, []string{topic})
		if err != nil {
			return nil, err
		}
		out = append(out, page...)
	}
	slices.SortFunc(out, func(a, b notify.Notification) int { return strings.Compare(b.ID, a.ID) })
	return out[:min(len(out), q.Limit)], nil
}

func (c *Control) notificationPage(ctx context.Context, q notify.Query, topics []string) (out []notify.Notification, err error) {
	text, args := ``, []any{q.Limit}
	term := func(condition string, value any) {
		args = append(args, value)
		text += condition + strconv.Itoa(len(args))
	}
	if len(topics) == 1 {
		term(` AND topic = $`, topics[0])
	}
	if q.State != "" {
		term(` AND state = $`, string(q.State))
	}
	if q.Device != "" { // the first part is the index's
		term(` AND device <> '' AND device = $`, string(q.Device))
	}
	if q.Before != "" {
		term(` AND id < $`, q.Before)
	}
	if len(topics) > 1 {
		first := len(args) + 1
		for _, topic := range topics {
			args = append(args, topic)
		}
		list := make([]string, len(topics))
		for i := range topics {
			list[i] = "$" + strconv.Itoa(first+i)
		}
		text += ` AND topic IN (` + strings.Join(list, ",") + `)`
	}
	err = c.listOrdered(ctx, "list notifications", `SELECT `+notificationColumns+` FROM notification WHERE TRUE`+text+` ORDER BY id DESC LIMIT $1`, args, appendNotifications(&out))
	return out, err
}

func appendNotifications(list *[]notify.Notification) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		n, err := notificationOf(rows.Scan)
		*list = append(*list, n)
		return err
	}
}

// Receipts implements notify.MessageStore.
func (c *Control) Receipts(ctx context.Context, notification string, after notify.Subject, limit int) ([]notify.Receipt, error) {
	return c.receiptRows(ctx, `FROM receipt WHERE notification = $1 AND subject > $2 ORDER BY subject LIMIT $3`, notification, string(after), limit)
}

// Receipt implements notify.MessageStore; NotFound when there is none.
func (c *Control) Receipt(ctx context.Context, notification string, subject notify.Subject) (notify.Receipt, error) {
	list, err := c.receiptRows(ctx, `FROM receipt WHERE notification = $1 AND subject = $2`, notification, string(subject))
	if err == nil && len(list) == 0 {
		err = muster.Errorf(muster.NotFound, "there is no such receipt")
	}
	if err != nil {
		return notify.Receipt{}, err
	}
	return list[0], nil
}

func (c *Control) receiptRows(ctx context.Context, rest string, args ...any) (out []notify.Receipt, err error) {
	err = c.listOrdered(ctx, "read receipts", `SELECT `+receiptColumns+` `+rest, args, func(rows *sql.Rows) error {
		r, err := receiptOf(rows.Scan)
		out = append(out, r)
		return err
	})
	return out, err
}

// Told implements notify.MessageStore, in order of id.
func (c *Control) Told(ctx context.Context, notification string, limit int) (out []outbox.Delivery, err error) {
	err = c.listOrdered(ctx, "list deliveries", `SELECT `+deliveryColumns+` FROM delivery WHERE notification = $1 AND notification <> '' AND `+deliveryState+` <> 'dropped'
		ORDER BY id LIMIT $2`, []any{notification, limit}, appendTo(&out))
	for i := range out {
		out[i].Tries = nil
	}
	return out, err
}

// DueEscalations implements notify.MessageStore.
func (c *Control) DueEscalations(ctx context.Context, now muster.Micros, limit int) (out []notify.Notification, err error) {
	err = c.listOrdered(ctx, "find escalations that are due", `SELECT `+notificationColumns+` FROM notification WHERE state = 'open' AND escalate_at > 0 AND escalate_at <= $1
		ORDER BY escalate_at, id LIMIT $2`, []any{int64(now), limit}, appendNotifications(&out))
	return out, err
}

// NextEscalation implements notify.MessageStore.
func (c *Control) NextEscalation(ctx context.Context) (at muster.Micros, err error) {
	err = c.listOrdered(ctx, "find the next escalation", `SELECT escalate_at FROM notification WHERE state = 'open' AND escalate_at > 0 ORDER BY escalate_at LIMIT 1`, nil,
		func(rows *sql.Rows) error { return rows.Scan(&at) })
	return at, err
}

// AckedBySome implements notify.MessageStore. All but the last conditions are the index's.
func (c *Control) AckedBySome(ctx context.Context, after string, limit int) (out []notify.Notification, err error) {
	err = c.listOrdered(ctx, "find what all must ack", `SELECT `+notificationColumns+` FROM notification WHERE state = 'open' AND ack_policy = 'all' AND acks > 0 AND id > $1
		ORDER BY id LIMIT $2`, []any{after, limit}, appendNotifications(&out))
	return out, err
}

// Unacked implements notify.MessageStore.
func (c *Control) Unacked(ctx context.Context, notification string, after notify.Subject, limit int) (out []notify.Subject, err error) {
	err = c.listOrdered(ctx, "find who has not acked", `SELECT subject FROM receipt WHERE notification = $1 AND subject > $2 AND acked = 0 ORDER BY subject LIMIT $3`,
		[]any{notification, string(after), limit}, func(rows *sql.Rows) error {
			var s notify.Subject
			err := rows.Scan(&s)
			out = append(out, s)
			return err
		})
	return out, err
}

// escalates is of a notification of which the next people are to be told yet.
const escalates = `state = 'open' AND escalate_at > 0`

// trimReceipts is how many receipts one transaction forgets.
const trimReceipts = 10_000

// TrimNotifications implements notify.MessageStore. One with many receipts goes in several
// transactions, itself with the last.
func (c *Control) TrimNotifications(ctx context.Context, topic string, before muster.Micros, limit int) (int, error) {
	const doing = "forget old notifications"
	query, args := `SELECT id FROM notification WHERE topic = $1 AND created < $2 AND NOT (`+escalates+`) ORDER BY created LIMIT $3`, []any{topic, int64(before), limit}
	if before == 0 {
		query, args = `SELECT id FROM notification WHERE topic = $1 ORDER BY id LIMIT $2`, []any{topic, limit}
	}
	old := map[string]bool{}
	err := c.listOrdered(ctx, doing, query, args, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		old[id] = true
		return err
	})
	if err != nil {
		return 0, err
	}
	forgotten := 0
	err = inChunks(1, sortedRows(old), func(args []any, n int) error {
		for more := true; more; {
			err := c.changeBeside(ctx, doing, func(ctx context.Context, tx *sql.Tx) (err error) {
				if before == 0 {
					err = dropUnsent(ctx, tx, args, n)
				}
				if err == nil {
					more, err = c.trimmed(ctx, tx, args, n)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		forgotten += n
		return nil
	})
	return forgotten, err
}

// dropUnsent ends what waits to go out about n notifications whose topic was deleted. Webhooks are told
// of what happened all the same.
func dropUnsent(ctx context.Context, tx *sql.Tx, args []any, n int) error {
	last := strconv.Itoa(n + 1)
	_, err := exec(ctx, tx, `UPDATE delivery SET state = 'dropped', ended = $`+last+`, error = 'its topic was deleted'
		WHERE notification IN (`+places(n)+`) AND notification <> '' AND `+deliveryState+` = 'queued' AND channel <> 'webhook'`,
		append(args[:n:n], int64(muster.MicrosOf(time.Now())))...)
	return err
}

// trimmed forgets receipts of n notifications, and when none are left the notifications.
func (c *Control) trimmed(ctx context.Context, tx *sql.Tx, args []any, n int) (more bool, err error) {
	if err := c.keepOrder(ctx, tx); err != nil {
		return false, err
	}
	// From here on nobody adds a receipt.
	if _, err := exec(ctx, tx, `UPDATE notification SET id = id WHERE id IN (`+places(n)+`)`, args...); err != nil {
		return false, err
	}
	gone, err := exec(ctx, tx, `DELETE FROM receipt WHERE seq IN (SELECT seq FROM receipt WHERE notification IN (`+places(n)+`) LIMIT $`+strconv.Itoa(n+1)+`)`,
		append(args[:n:n], trimReceipts)...)
	if err != nil || gone == trimReceipts {
		return true, err
	}
	for _, from := range [...]string{`notification WHERE id`, `notification_about WHERE notification`} {
		if _, err := exec(ctx, tx, `DELETE FROM `+from+` IN (`+places(n)+`)`, args...); err != nil {
			return false, err
		}
	}
	return false, nil
}

// OrphanTopics implements notify.MessageStore, in bytewise order. It goes from one topic to
// the next by an index.
func (c *Control) OrphanTopics(ctx context.Context, limit int) (out []string, err error) {
	err = c.listOrdered(ctx, "find topics that are gone", `WITH RECURSIVE t (id) AS (
			SELECT (SELECT n.topic FROM notification n ORDER BY n.topic LIMIT 1)
			UNION ALL
			SELECT (SELECT n.topic FROM notification n WHERE n.topic > t.id ORDER BY n.topic LIMIT 1) FROM t WHERE t.id IS NOT NULL
		)
		SELECT t.id FROM t WHERE t.id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM topic WHERE topic.id = t.id) LIMIT $1`, []any{limit}, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		out = append(out, id)
		return err
	})
	return out, err
}

// Cursor implements notify.MessageStore. One that was never kept has no epoch.
func (c *Control) Cursor(ctx context.Context, name string) (notify.Cursor, error) {
	cursor := notify.Cursor{Name: name}
	err := c.list(ctx, "read a cursor", `SELECT epoch, seq FROM notify_cursor WHERE name = $1`, []any{name}, func(rows *sql.Rows) error {
		return rows.Scan(&cursor.Epoch, &cursor.Seq)
	})
	return cursor, err
}
