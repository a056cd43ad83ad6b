package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"muster"
	"muster/notify"
	"muster/notify/outbox"
)

const topicColumns = `id, name, title, description, owner, visibility, status, retention, ack_policy, escalation, sources, devices, template, version,
	created, updated`

// Topics implements notify.TopicStore, in bytewise order of id.
func (c *Control) Topics(ctx context.Context) (out []notify.Topic, err error) {
	err = c.load(ctx, "load the topics", `SELECT `+topicColumns+` FROM topic ORDER BY id`, func(rows *sql.Rows) error {
		t, err := topicFrom(rows.Scan)
		out = append(out, t)
		return err
	})
	return out, err
}

// Topic implements notify.TopicStore.
func (c *Control) Topic(ctx context.Context, id string) (t notify.Topic, err error) {
	found := false
	err = c.list(ctx, "read a topic", `SELECT `+topicColumns+` FROM topic WHERE id = $1`, []any{id}, func(rows *sql.Rows) error {
		found = true
		t, err = topicFrom(rows.Scan)
		return err
	})
	if err == nil && !found {
		err = muster.Errorf(muster.NotFound, "the topic was deleted")
	}
	return t, err
}

// topicFrom reads topicColumns.
func topicFrom(scan func(...any) error) (t notify.Topic, err error) {
	var retention int64
	var escalation, sources, template []byte
	err = scan(&t.ID, &t.Name, &t.Title, &t.Description, &t.Owner, &t.Visibility, &t.Status, &retention, &t.AckPolicy, &escalation, &sources,
		&t.Devices, &template, &t.Version, &t.Created, &t.Updated)
	if err != nil {
		return t, fmt.Errorf("read a row: %w", err)
	}
	t.Retention = time.Duration(retention) * time.Microsecond
	err = errors.Join(json.Unmarshal(escalation, &t.Escalation), json.Unmarshal(sources, &t.Sources), json.Unmarshal(template, &t.Template))
	if err != nil {
		return t, fmt.Errorf("the topic %s: %w", t.ID, err)
	}
	if len(t.Sources) == 0 {
		t.Sources = nil
	}
	return t, nil
}

// Members implements notify.TopicStore, in bytewise order of topic and principal.
func (c *Control) Members(ctx context.Context) (out []notify.Member, err error) {
	err = c.load(ctx, "load the members of topics", `SELECT topic, principal, role, created FROM topic_member ORDER BY topic, principal`, func(rows *sql.Rows) error {
		var m notify.Member
		err := rows.Scan(&m.Topic, &m.Principal, &m.Role, &m.Created)
		out = append(out, m)
		return err
	})
	return out, err
}

// topicRow returns t as topicColumns has it.
func topicRow(t notify.Topic) ([]any, error) {
	escalation, err1 := json.Marshal(t.Escalation)
	sources, err2 := json.Marshal(append([]notify.Source{}, t.Sources...))
	template, err3 := json.Marshal(t.Template)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("encode the topic: %w", err)
	}
	return []any{
		t.ID, t.Name, t.Title, t.Description, t.Owner, string(t.Visibility), string(t.Status), t.Retention.Microseconds(), string(t.AckPolicy),
		string(escalation), string(sources), t.Devices, string(template), t.Version, int64(t.Created), int64(t.Updated),
	}, nil
}

// PutTopic implements notify.TopicStore. It waits for those who write into the topic.
func (c *Control) PutTopic(ctx context.Context, t notify.Topic, members ...notify.Member) error {
	row, err := topicRow(t)
	if err != nil {
		return err
	}
	err = c.changeBeside(ctx, "put a topic", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO topic (`+topicColumns+`) VALUES `+tuples(1, len(row))+` ON CONFLICT (id) DO UPDATE SET
			name = excluded.name, title = excluded.title, description = excluded.description, owner = excluded.owner, visibility = excluded.visibility,
			status = excluded.status, retention = excluded.retention, ack_policy = excluded.ack_policy, escalation = excluded.escalation,
			sources = excluded.sources, devices = excluded.devices, template = excluded.template, version = excluded.version, updated = excluded.updated`, row...)
		if taken(err) {
			return muster.Errorf(muster.Conflict, "there is a topic with the name %q already", t.Name)
		}
		if err != nil {
			return err
		}
		for _, m := range members {
			if err := putMember(ctx, tx, m); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

func putMember(ctx context.Context, tx *sql.Tx, m notify.Member) error {
	_, err := exec(ctx, tx, `INSERT INTO topic_member (topic, principal, role, created) VALUES ($1, $2, $3, $4)
		ON CONFLICT (topic, principal) DO UPDATE SET role = excluded.role`, m.Topic, m.Principal, string(m.Role), int64(m.Created))
	return err
}

// lockTopic answers NotFound when there is no topic id, and else keeps others from
// deleting it until the transaction ends.
func lockTopic(ctx context.Context, tx *sql.Tx, id string) error {
	n, err := exec(ctx, tx, `UPDATE topic SET id = id WHERE id = $1`, id)
	if err == nil && n == 0 {
		err = muster.Errorf(muster.NotFound, "there is no such topic")
	}
	return err
}

// DeleteTopic implements notify.TopicStore. It waits for those who write into the topic.
func (c *Control) DeleteTopic(ctx context.Context, id string) error {
	return c.changeBeside(ctx, "delete a topic", func(ctx context.Context, tx *sql.Tx) error {
		if err := lockTopic(ctx, tx, id); err != nil {
			return err
		}
		for _, query := range [...]string{
			`DELETE FROM subscription WHERE topic = $1`,
			`DELETE FROM topic_member WHERE topic = $1`,
			`DELETE FROM topic WHERE id = $1`,
		} {
			if _, err := exec(ctx, tx, query, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// PutMember implements notify.TopicStore; NotFound when there is no such topic, or the
// principal was deleted.
func (c *Control) PutMember(ctx context.Context, m notify.Member) error {
	return c.changeBeside(ctx, "put a member of a topic", func(ctx context.Context, tx *sql.Tx) error {
		if err := thereStill(ctx, tx, m.Principal); err != nil {
			return err
		}
		if err := lockTopic(ctx, tx, m.Topic); err != nil {
			return err
		}
		return putMember(ctx, tx, m)
	})
}

// DeleteMember implements notify.TopicStore; NotFound when there is none.
func (c *Control) DeleteMember(ctx context.Context, topic, principal string) error {
	return c.change(ctx, "delete a member of a topic", func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, `DELETE FROM topic_member WHERE topic = $1 AND principal = $2`, topic, principal)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "the topic has no such member")
		}
		return err
	})
}

// PutSubscription implements notify.SubscriptionStore; NotFound too when the subject was
// deleted. Those of one topic take turns.
func (c *Control) PutSubscription(ctx context.Context, s notify.Subscription, release ...notify.Release) error {
	channels, err := json.Marshal(append([]notify.Via{}, s.Channels...))
	if err != nil {
		return fmt.Errorf("encode the channels: %w", err)
	}
	_, err = c.changedDeliveries(ctx, "put a subscription", func(ctx context.Context, tx *sql.Tx, out *[]outbox.Delivery) error {
		for i := range release { // deliveries come before inboxes, as where notifications are written
			if err := releaseWaiting(ctx, tx, s.Topic, &release[i], out); err != nil {
				return err
			}
		}
		return putSubscription(ctx, tx, &s, channels)
	})
	return err
}

// releaseWaiting makes due sooner what waits for the hours of a subscription to a topic, and appends it to out. What is under way
// is asked about again when it is to be held.
func releaseWaiting(ctx context.Context, tx *sql.Tx, topic string, r *notify.Release, out *[]outbox.Delivery) error {
	args := []any{r.Target, r.Channel, int64(r.Due), topic, int(r.Severity)}
	err := read(ctx, tx, `UPDATE delivery SET due = CASE WHEN earliest > $3 THEN earliest ELSE $3 END WHERE `+deliveryHeld+` AND topic = $4 AND severity = $5
		RETURNING `+deliveryColumns, args, appendTo(out))
	if err != nil {
		return err
	}
	_, err = exec(ctx, tx, `UPDATE delivery SET held = TRUE WHERE state = 'sending' AND target = $1 AND channel = $2 AND topic = $3`, r.Target, r.Channel, topic)
	return err
}

func putSubscription(ctx context.Context, tx *sql.Tx, s *notify.Subscription, channels []byte) error {
	if err := thereStill(ctx, tx, string(s.Subject)); err != nil {
		return err
	}
	if err := lockTopic(ctx, tx, s.Topic); err != nil {
		return err
	}
	n, err := exec(ctx, tx, `UPDATE subscription SET channels = $1, muted = $2, version = $3, updated = $4 WHERE topic = $5 AND subject = $6`,
		string(channels), int64(s.Muted), s.Version, int64(s.Updated), s.Topic, string(s.Subject))
	if err != nil || n > 0 {
		return err
	}
	n, err = exec(ctx, tx, `UPDATE topic SET subscribers = subscribers + 1 WHERE id = $1 AND subscribers < $2`, s.Topic, notify.MaxSubscribers)
	if err == nil && n == 0 {
		err = muster.Errorf(muster.Busy, "the topic has %d subscriptions, which is the most it may have", notify.MaxSubscribers)
	}
	if err != nil {
		return err
	}
	var has int
	err = tx.QueryRowContext(ctx, `SELECT count(*) FROM subscription WHERE subject = $1`, string(s.Subject)).Scan(&has)
	if err != nil {
		return fmt.Errorf("count the subscriptions: %w", err)
	}
	if has >= notify.MaxSubscriptions {
		return muster.Errorf(muster.Busy, "%d topics are the most that one may be subscribed to", notify.MaxSubscriptions)
	}
	_, err = exec(ctx, tx, `INSERT INTO subscription (topic, subject, channels, muted, version, created, updated) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		s.Topic, string(s.Subject), string(channels), int64(s.Muted), s.Version, int64(s.Created), int64(s.Updated))
	return err
}

// DeleteSubscription implements notify.SubscriptionStore; NotFound when there is none.
func (c *Control) DeleteSubscription(ctx context.Context, topic string, subject notify.Subject) error {
	return c.changeBeside(ctx, "delete a subscription", func(ctx context.Context, tx *sql.Tx) error {
		n, err := forgetSubscriptions(ctx, tx, `topic = $1 AND subject = $2`, topic, string(subject))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "there is no such subscription")
		}
		return err
	})
}

// forgetSubscriptions deletes those of a condition, and counts their topics down. It locks
// the topics first, in one order, as those do who subscribe.
func forgetSubscriptions(ctx context.Context, tx *sql.Tx, condition string, args ...any) (n int64, err error) {
	locked := map[string]bool{}
	err = read(ctx, tx, `SELECT topic FROM subscription WHERE `+condition, args, func(rows *sql.Rows) error {
		var topic string
		err := rows.Scan(&topic)
		locked[topic] = true
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, row := range sortedRows(locked) {
		if _, err := exec(ctx, tx, `UPDATE topic SET id = id WHERE id = $1`, row...); err != nil {
			return 0, err
		}
	}
	topics := map[string]int{}
	err = read(ctx, tx, `DELETE FROM subscription WHERE `+condition+` RETURNING topic`, args, func(rows *sql.Rows) error {
		var topic string
		err := rows.Scan(&topic)
		topics[topic]++
		n++
		return err
	})
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		if err != nil {
			return 0, err
		}
		_, err = exec(ctx, tx, `UPDATE topic SET subscribers = subscribers - $1 WHERE id = $2`, topics[topic], topic)
	}
	return n, err
}

const subscriptionColumns = `topic, subject, channels, muted, version, created, updated`

func subscriptionOf(scan func(...any) error) (s notify.Subscription, err error) {
	var channels []byte
	if err := scan(&s.Topic, &s.Subject, &channels, &s.Muted, &s.Version, &s.Created, &s.Updated); err != nil {
		return s, err
	}
	if err := json.Unmarshal(channels, &s.Channels); err != nil {
		return s, fmt.Errorf("the channels of %s for %s: %w", s.Subject, s.Topic, err)
	}
	if len(s.Channels) == 0 {
		s.Channels = nil
	}
	return s, nil
}

// Subscription implements notify.SubscriptionStore; NotFound when there is none.
func (c *Control) Subscription(ctx context.Context, topic string, subject notify.Subject) (notify.Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	row := c.db.Read.QueryRowContext(ctx, `SELECT `+subscriptionColumns+` FROM subscription WHERE topic = $1 AND subject = $2`, topic, string(subject))
	s, err := subscriptionOf(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return s, muster.Errorf(muster.NotFound, "there is no such subscription")
	}
	return s, failed("read a subscription", err)
}

// Subscriptions implements notify.SubscriptionStore.
func (c *Control) Subscriptions(ctx context.Context, topic string, after notify.Subject, limit int) ([]notify.Subscription, error) {
	return c.subscriptions(ctx, `topic = $1 AND subject > $2 ORDER BY subject LIMIT $3`, topic, string(after), limit)
}

// SubscriptionsOf implements notify.SubscriptionStore, in bytewise order of topic.
func (c *Control) SubscriptionsOf(ctx context.Context, subject notify.Subject) ([]notify.Subscription, error) {
	return c.subscriptions(ctx, `subject = $1 ORDER BY topic`, string(subject))
}

func (c *Control) subscriptions(ctx context.Context, rest string, args ...any) (out []notify.Subscription, err error) {
	err = c.list(ctx, "list subscriptions", `SELECT `+subscriptionColumns+` FROM subscription WHERE `+rest, args, func(rows *sql.Rows) error {
		s, err := subscriptionOf(rows.Scan)
		out = append(out, s)
		return err
	})
	return out, err
}

// CountSubscriptions implements notify.SubscriptionStore. Topics that are not there are left out.
func (c *Control) CountSubscriptions(ctx context.Context, ids []string) (map[string]int, error) {
	out := make(map[string]int, len(ids))
	rows := make([][]any, len(ids))
	for i, id := range ids {
		rows[i] = []any{id}
	}
	err := inChunks(1, rows, func(args []any, n int) error {
		return c.list(ctx, "count subscriptions", `SELECT id, subscribers FROM topic WHERE id IN (`+places(n)+`)`, args, func(rows *sql.Rows) error {
			var id string
			var count int
			err := rows.Scan(&id, &count)
			out[id] = count
			return err
		})
	})
	return out, err
}
