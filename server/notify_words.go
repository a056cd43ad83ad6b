package server

import (
	"context"
	"fmt"
	"strings"

	"muster"
	"muster/accounts"
	"muster/feed"
	"muster/notify"
	"muster/notify/hooks"
)

// hookWords are the words of topics for webhooks, by the rights of who answers for them.
type hookWords struct{ server *Server }

// TopicOf implements hooks.Words.
func (w hookWords) TopicOf(ctx context.Context, notification string) (string, error) {
	return w.server.notify.TopicOf(ctx, notification) //nolint:wrapcheck // it says what it was doing
}

// Words implements hooks.Words. A webhook that was made by a key of nobody's was made by an
// admin's, as all are: it sees what admins see.
func (w hookWords) Words(ctx context.Context, h hooks.Webhook, notification string, state notify.NotificationState) (notify.Words, error) {
	who, ok := w.owner(h)
	if !ok {
		return notify.Words{}, muster.Errorf(muster.Forbidden, "who answers for the webhook is not here any more")
	}
	return w.server.notify.Words(ctx, who, notification, state) //nolint:wrapcheck // it says what it was doing
}

// Shows implements hooks.Words. Who is disabled or deleted sees nothing of notifications, be their topic for all,
// whether the webhook names topics or not.
func (w hookWords) Shows(ctx context.Context, h hooks.Webhook, e *feed.Event) (bool, error) {
	who, ok := w.owner(h)
	if !ok && strings.HasPrefix(e.Type, "notification.") {
		return false, nil
	}
	return w.server.notify.MayLearn(ctx, who, e) //nolint:wrapcheck // it says what it was doing
}

// owner returns who answers for a webhook; ok is false when he is not here any more.
func (w hookWords) owner(h hooks.Webhook) (who notify.Who, ok bool) {
	if h.OwnerID == "" {
		return notify.Who{Kind: "key", Admin: true}, true
	}
	u, err := w.server.accounts.User(h.OwnerID)
	if err != nil || u.Disabled {
		return notify.Who{Kind: "user"}, false
	}
	return notify.Who{Kind: "user", ID: u.ID, User: u.ID, Name: u.Name, Admin: u.Role == accounts.Admin}, true
}

// nameTopics has webhooks of before name topics by their ids.
func (s *Server) nameTopics(ctx context.Context) error {
	err := s.webhooks.NameTopics(ctx, func(ref string) (string, bool) {
		t, err := s.notify.Topic(notify.Who{Admin: true}, ref)
		return t.ID, err == nil
	})
	if err != nil {
		return fmt.Errorf("name the topics of webhooks: %w", err)
	}
	return nil
}
