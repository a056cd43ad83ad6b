package notify

import (
	"context"

	"muster"
)

// publishes says whether who has at least the role publisher in the topic of an id.
func (n *Notify) publishes(who Who, topic string) bool {
	if who.Admin {
		return true
	}
	t, ok := n.topic(topic)
	return ok && rank(n.role(who, &t)) >= rank(RolePublisher)
}

// TopicName returns the name of the topic of an id, empty when it is gone.
func (n *Notify) TopicName(id string) string {
	t, _ := n.topic(id)
	return t.Name
}

// Notification returns a notification, and who's own receipt of it, nil for none. Its
// recipients may read it while they see its topic, publishers of its topic, and admins: to anybody else it is NotFound.
func (n *Notify) Notification(ctx context.Context, who Who, id string) (Notification, *Receipt, error) {
	if !storable(id) {
		return Notification{}, nil, errNoNotification()
	}
	note, err := n.store.Notification(ctx, id)
	if err != nil {
		return Notification{}, nil, err //nolint:wrapcheck // the store says what it was doing
	}
	var own *Receipt
	if s := who.Subject(); s != "" {
		r, err := n.store.Receipt(ctx, id, s)
		switch {
		case err == nil:
			own = &r
		case muster.KindOf(err) != muster.NotFound:
			return Notification{}, nil, err //nolint:wrapcheck // likewise
		}
	}
	if own != nil && !n.shown(own.Subject, note.Topic) {
		own = nil
	}
	if own == nil && !n.publishes(who, note.Topic) {
		return Notification{}, nil, errNoNotification()
	}
	return note, own, nil
}

func errNoNotification() error {
	return muster.Errorf(muster.NotFound, "there is no such notification")
}

// receipt returns the receipt that a subject has of the notification of an id, as anybody
// may have spelled it, or NotFound: also when he lost its topic.
func (n *Notify) receipt(ctx context.Context, id string, s Subject) (Receipt, error) {
	if !storable(id) {
		return Receipt{}, errNoNotification()
	}
	r, err := n.store.Receipt(ctx, id, s)
	if err != nil {
		return Receipt{}, err //nolint:wrapcheck // the store says what it was doing
	}
	topic, err := n.topicIDOf(ctx, id)
	if err == nil && !n.shown(s, topic) {
		err = errNoNotification()
	}
	return r, err
}

// Published returns a notification to who may see how it fares with all its recipients:
// publishers of its topic, and admins. Forbidden for its other recipients, NotFound for
// anybody else.
func (n *Notify) Published(ctx context.Context, who Who, id string) (Notification, error) {
	note, _, err := n.Notification(ctx, who, id)
	if err != nil {
		return Notification{}, err
	}
	if !n.publishes(who, note.Topic) {
		return Notification{}, muster.Errorf(muster.Forbidden, "this needs the role %s in the topic", RolePublisher)
	}
	return note, nil
}

// Receipts returns up to limit receipts of a notification in bytewise order of their
// subject after after, to who Published would give it.
func (n *Notify) Receipts(ctx context.Context, who Who, id string, after Subject, limit int) ([]Receipt, error) {
	if _, err := n.Published(ctx, who, id); err != nil {
		return nil, err
	}
	if !storable(string(after)) {
		return nil, muster.InvalidAt("after", "the page begins after a subject")
	}
	return n.store.Receipts(ctx, id, after, limit) //nolint:wrapcheck // the store says what it was doing
}

// List returns a page of notifications, the newest first: of the topics that q names, by
// id or name, in each of which who needs the role publisher; without any, of all in which
// who has it.
func (n *Notify) List(ctx context.Context, who Who, q Query) ([]Notification, error) {
	switch {
	case !storable(q.Before):
		return nil, muster.InvalidAt("after", "the page begins after the id of a notification")
	case !storable(string(q.Device)):
		return nil, muster.InvalidAt("device", "there is no such device")
	case !storable(string(q.State)):
		return nil, muster.InvalidAt("state", "there is no such state")
	}
	ids := make([]string, 0, len(q.Topics))
	for _, ref := range q.Topics {
		t, err := n.findFor(who, ref, RolePublisher)
		if err != nil {
			return nil, err
		}
		ids = append(ids, t.ID)
	}
	if len(q.Topics) == 0 {
		for _, t := range n.all() {
			if n.publishes(who, t.ID) {
				ids = append(ids, t.ID)
			}
		}
	}
	if q.Topics = ids; len(ids) == 0 {
		return nil, nil
	}
	return n.store.Notifications(ctx, q) //nolint:wrapcheck // the store says what it was doing
}
