package control

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"muster/notify"
)

// inboxEpoch is the setting that holds the id of all inboxes.
const inboxEpoch = "inbox.epoch"

// InboxState implements notify.InboxStore.
func (c *Control) InboxState(ctx context.Context) (epoch string, last int64, err error) {
	if epoch, err = c.Setting(ctx, inboxEpoch); err != nil {
		return "", 0, err
	}
	if epoch == "" {
		err := c.change(ctx, "name the inboxes", func(ctx context.Context, tx *sql.Tx) error {
			_, err := exec(ctx, tx, `INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, inboxEpoch, rand.Text())
			return err
		})
		if err != nil {
			return "", 0, err
		}
		if epoch, err = c.Setting(ctx, inboxEpoch); err != nil { // another server may have been first
			return "", 0, err
		}
	}
	last, err = c.inboxLast(ctx)
	return epoch, last, err
}

func (c *Control) inboxLast(ctx context.Context) (last int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = c.db.Read.QueryRowContext(ctx, `SELECT value FROM counter WHERE name = 'inbox'`).Scan(&last)
	return last, failed("read the last change of inboxes", err)
}

// ChangesAfter implements notify.InboxStore.
func (c *Control) ChangesAfter(ctx context.Context, seq int64, limit int) (notify.Changes, error) {
	// What the counter had when it was read is all committed: its lock is held to the commit.
	last, err := c.inboxLast(ctx)
	if err != nil || last <= seq {
		return notify.Changes{First: seq + 1, Last: seq}, err
	}
	list, err := c.receiptRows(ctx, `FROM receipt WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3`, seq, last, limit)
	if err != nil {
		return notify.Changes{}, err
	}
	if len(list) == limit {
		last = list[limit-1].Seq
	}
	items, err := c.itemsOf(ctx, list)
	return notify.Changes{First: seq + 1, Last: last, Items: items}, err
}

// itemsOf finds the notifications of receipts; those that were trimmed meanwhile are left out.
func (c *Control) itemsOf(ctx context.Context, list []notify.Receipt) ([]notify.Item, error) {
	wanted := map[string]bool{}
	for i := range list {
		wanted[list[i].Notification] = true
	}
	found := make(map[string]notify.Notification, len(wanted))
	err := inChunks(1, sortedRows(wanted), func(args []any, n int) error {
		return c.list(ctx, "read notifications", `SELECT `+notificationColumns+` FROM notification WHERE id IN (`+places(n)+`)`, args, into(found))
	})
	if err != nil {
		return nil, err
	}
	items := make([]notify.Item, 0, len(list))
	for _, r := range list {
		if n, ok := found[r.Notification]; ok {
			items = append(items, notify.Item{Notification: n, Receipt: r})
		}
	}
	return items, nil
}

// nearChanges is how many changes of everybody are gone through to find those of one
// subject. Of more, all of the subject's receipts are.
const nearChanges = 2000

// InboxAfter implements notify.InboxStore. Expressions keep planners to the index that is meant.
func (c *Control) InboxAfter(ctx context.Context, subject notify.Subject, seq, upTo int64, limit int) ([]notify.Item, error) {
	query := `FROM receipt WHERE subject = $1 AND seq + 0 > $2 AND seq + 0 <= $3 ORDER BY seq + 0 LIMIT $4`
	if upTo-seq <= nearChanges {
		query = `FROM receipt WHERE subject || '' = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4`
	}
	list, err := c.receiptRows(ctx, query, string(subject), seq, upTo, limit)
	if err != nil {
		return nil, err
	}
	return c.itemsOf(ctx, list)
}

const (
	// receiptUnread is of a receipt r: before notify.Read.
	receiptUnread = `r.state < 3`
	// asksForAck is of a notification n.
	asksForAck = `n.state = 'open' AND n.ack_policy <> 'none'`
)

// Inbox implements notify.InboxStore.
func (c *Control) Inbox(ctx context.Context, q notify.InboxQuery) ([]notify.Item, error) {
	text, args := `FROM receipt r WHERE subject = $1`, []any{string(q.Subject), q.Limit}
	if q.Unread {
		text += ` AND ` + receiptUnread
	}
	if q.Before != "" {
		args = append(args, q.Before)
		text += ` AND notification < $` + strconv.Itoa(len(args))
	}
	if q.Topic != "" || q.Unacked || len(q.Hidden) > 0 {
		of := `n.id = r.notification`
		if q.Topic != "" {
			args = append(args, q.Topic)
			of += ` AND n.topic = $` + strconv.Itoa(len(args))
		}
		if q.Unacked {
			of += ` AND ` + asksForAck
		}
		if len(q.Hidden) > 0 {
			args = append(args, hiddenList(q.Hidden))
			of += c.shownOf(len(args))
		}
		text += ` AND EXISTS (SELECT 1 FROM notification n WHERE ` + of + `)`
	}
	list, err := c.receiptRows(ctx, text+` ORDER BY notification DESC LIMIT $2`, args...)
	if err != nil {
		return nil, err
	}
	return c.itemsOf(ctx, list)
}

// hiddenList is topics as shownOf reads them.
func hiddenList(topics []string) string {
	text, err := json.Marshal(topics)
	if err != nil { // a list of texts
		panic(fmt.Errorf("encode the ids of topics: %w", err))
	}
	return string(text)
}

// shownOf is the condition that a notification n is of none of the topics in a placeholder.
func (c *Control) shownOf(place int) string {
	rows := strings.Replace(c.dialect.texts, "$1", "$"+strconv.Itoa(place), 1)
	return ` AND n.topic NOT IN (SELECT v.value FROM ` + rows + ` AS v)`
}

// fewOpen is of how many open notifications in all inboxes those of one are counted from
// them. Of more, all receipts of the inbox are gone through.
const fewOpen = 2000

// InboxCounts implements notify.InboxStore.
func (c *Control) InboxCounts(ctx context.Context, subject notify.Subject, hidden []string) (n notify.Counts, err error) {
	who, shown, unread := []any{string(subject), notify.MaxCounted}, ``, ``
	if len(hidden) > 0 {
		who, shown = append(who, hiddenList(hidden)), c.shownOf(3)
		unread = ` AND EXISTS (SELECT 1 FROM notification n WHERE n.id = r.notification` + shown + `)`
	}
	if n.Unread, err = c.count(ctx, `SELECT count(*) FROM (SELECT 1 FROM receipt r WHERE r.subject = $1 AND `+receiptUnread+unread+` LIMIT $2) AS found`, who...); err != nil {
		return n, err
	}
	all, err := c.count(ctx, `SELECT count(*) FROM (SELECT 1 FROM notification n WHERE `+asksForAck+` LIMIT $1) AS found`, fewOpen+1)
	if err != nil {
		return n, err
	}
	from := `receipt r JOIN notification n ON n.id = r.notification WHERE r.subject = $1 AND ` + asksForAck
	if all <= fewOpen { // SQLite keeps the order of a CROSS JOIN
		from = `notification n CROSS JOIN receipt r WHERE ` + asksForAck + ` AND r.notification = n.id AND r.subject = $1`
	}
	n.Open, err = c.count(ctx, `SELECT count(*) FROM (SELECT 1 FROM `+from+shown+` LIMIT $2) AS found`, who...)
	return n, err
}

func (c *Control) count(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = c.listOrdered(ctx, "count an inbox", query, args, func(rows *sql.Rows) error { return rows.Scan(&n) })
	return n, err
}
