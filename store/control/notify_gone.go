package control

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"muster"
	"muster/notify"
)

// goneTime is how long it is kept that a subject or a key was deleted: longer than any
// transaction lasts that began while it was there.
const goneTime = time.Hour

// takeInboxes locks the counter of inboxes until the commit, and returns it. Whoever adds
// something to an inbox or of a subject does so with it, and who deletes a subject too: what
// is added is seen by who deletes it, or who adds it sees that the subject is gone. It comes
// before the locks of topics and of receipts.
func takeInboxes(ctx context.Context, tx *sql.Tx) (last int64, err error) {
	err = tx.QueryRowContext(ctx, `UPDATE counter SET value = value WHERE name = 'inbox' RETURNING value`).Scan(&last)
	if err != nil {
		return 0, fmt.Errorf("lock the numbers of inboxes: %w", err)
	}
	return last, nil
}

// thereStill answers NotFound for a subject or a key that was deleted, and else keeps others from
// deleting it until the transaction ends.
func thereStill(ctx context.Context, tx *sql.Tx, id string) error {
	if _, err := takeInboxes(ctx, tx); err != nil {
		return err
	}
	gone, err := subjectsGone(ctx, tx, [][]any{{id}})
	if err == nil && gone[id] {
		err = muster.Errorf(muster.NotFound, "it was deleted")
	}
	return err
}

// subjectsGone returns which of ids, each a row, were deleted a short while ago.
func subjectsGone(ctx context.Context, tx *sql.Tx, ids [][]any) (map[string]bool, error) {
	gone := map[string]bool{}
	var some bool // hardly ever: a look at one row spares one for each
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM subject_gone)`).Scan(&some); err != nil {
		return nil, fmt.Errorf("look who is gone: %w", err)
	}
	if !some {
		return gone, nil
	}
	err := inChunks(1, ids, func(args []any, n int) error {
		return read(ctx, tx, `SELECT id FROM subject_gone WHERE id IN (`+places(n)+`)`, args, func(rows *sql.Rows) error {
			var id string
			err := rows.Scan(&id)
			gone[id] = true
			return err
		})
	})
	return gone, err
}

// DeleteSubject implements notify.SubscriptionStore.
func (c *Control) DeleteSubject(ctx context.Context, subject notify.Subject) error {
	return c.changeBeside(ctx, "forget a subject", func(ctx context.Context, tx *sql.Tx) error {
		if _, err := takeInboxes(ctx, tx); err != nil {
			return err
		}
		return forgetRoles(ctx, tx, [][]any{{string(subject)}})
	})
}

// forgetMembers deletes the subscriptions and memberships of subjects and keys that are
// deleted, each a row, and keeps that they are gone.
func forgetMembers(ctx context.Context, tx *sql.Tx, ids [][]any) error {
	if _, err := takeInboxes(ctx, tx); err != nil {
		return err
	}
	now := muster.MicrosOf(time.Now())
	if _, err := exec(ctx, tx, `DELETE FROM subject_gone WHERE at < $1`, int64(now)-goneTime.Microseconds()); err != nil {
		return err
	}
	if err := deleteOf(ctx, tx, "subject_gone", "id", ids); err != nil {
		return err
	}
	rows := make([][]any, len(ids))
	for i := range ids {
		rows[i] = []any{ids[i][0], int64(now)}
	}
	if err := insertAll(ctx, tx, "subject_gone", "id, at", 2, rows); err != nil {
		return err
	}
	return forgetRoles(ctx, tx, ids)
}

func forgetRoles(ctx context.Context, tx *sql.Tx, ids [][]any) error {
	return inChunks(1, ids, func(args []any, n int) error {
		if _, err := forgetSubscriptions(ctx, tx, `subject IN (`+places(n)+`)`, args...); err != nil {
			return err
		}
		_, err := exec(ctx, tx, `DELETE FROM topic_member WHERE principal IN (`+places(n)+`)`, args...)
		return err
	})
}

// forgetSubjects is forgetMembers for those who have inboxes, which go as well.
func forgetSubjects(ctx context.Context, tx *sql.Tx, subjects [][]any) error {
	if err := forgetMembers(ctx, tx, subjects); err != nil {
		return err
	}
	if err := forgetRecipients(ctx, tx, subjects); err != nil {
		return err
	}
	return deleteOf(ctx, tx, "receipt", "subject", subjects)
}

// dropForDevices ends what goes to devices that are deleted, each a row: who has such an id next gets
// nothing of it. What was given up cannot be queued again.
func dropForDevices(ctx context.Context, tx *sql.Tx, devices [][]any) error {
	return inChunks(1, devices, func(args []any, n int) error {
		_, err := exec(ctx, tx, `UPDATE delivery SET state = 'dropped', ended = $`+strconv.Itoa(n+1)+`, error = 'the device was deleted', worker = ''
			WHERE target IN (`+places(n)+`) AND channel = 'mqtt' AND state IN ('queued', 'sending', 'dead')`, append(args[:n:n], int64(muster.MicrosOf(time.Now())))...)
		return err
	})
}

// forgetRecipients has notifications that all recipients must ack wait for who is left. One that
// nobody is left for is closed by who tells of that.
func forgetRecipients(ctx context.Context, tx *sql.Tx, subjects [][]any) error {
	return inChunks(1, subjects, func(args []any, n int) error {
		theirs := `receipt.notification = notification.id AND subject IN (` + places(n) + `)`
		_, err := exec(ctx, tx, `UPDATE notification SET version = version + 1,
			recipients = recipients - (SELECT count(*) FROM receipt WHERE `+theirs+`),
			acks = acks - (SELECT count(*) FROM receipt WHERE acked > 0 AND `+theirs+`)
			WHERE state = 'open' AND ack_policy = 'all' AND id IN (SELECT notification FROM receipt WHERE subject IN (`+places(n)+`))`, args...)
		return err
	})
}

// back has devices that are made be there, whatever was before.
func back(ctx context.Context, tx *sql.Tx, ids [][]any) error {
	subjects := make([][]any, len(ids))
	for i := range ids {
		id, _ := ids[i][0].(string)
		subjects[i] = []any{string(notify.DeviceSubject(muster.DeviceID(id)))}
	}
	return deleteOf(ctx, tx, "subject_gone", "id", subjects)
}
