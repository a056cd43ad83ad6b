package notify

import (
	"context"
	"encoding/json"
	"strings"
	"sync"

	"muster"
	"muster/feed"
)

// maxAbout is of how many notifications it is remembered what topic they are of.
const maxAbout = 10_000

// abouts remembers the topics of notifications that were told of lately. When it is full it
// begins anew: the store knows them all.
type abouts struct {
	mu     sync.Mutex
	topics map[string]string // id of the topic, by that of the notification; empty for none any more
}

func (a *abouts) get(notification string) (topic string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	topic, ok = a.topics[notification]
	return topic, ok
}

func (a *abouts) put(notification, topic string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.topics == nil || len(a.topics) >= maxAbout {
		a.topics = make(map[string]string)
	}
	a.topics[notification] = topic
}

// Shows says whether who may learn of an event of the feed: of a delivery that was given up
// admins alone, as of all deliveries; of a notification who sees its topic now, whatever it was called then, and
// of one whose topic is gone or not known admins alone; of anything else everybody who hears the feed.
func (n *Notify) Shows(ctx context.Context, who Who, e *feed.Event) bool {
	ok, err := n.MayLearn(ctx, who, e)
	return ok && err == nil // who does not know says nothing
}

// MayLearn is Shows for who can ask again when the store does not answer.
func (n *Notify) MayLearn(ctx context.Context, who Who, e *feed.Event) (bool, error) {
	switch {
	case who.Admin:
		return true, nil
	case e.Type == feed.DeliveryDead:
		return false, nil
	case !strings.HasPrefix(e.Type, "notification."):
		return true, nil
	}
	var data struct {
		Notification string
		TopicID      string `json:"topic_id"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return false, nil //nolint:nilerr // nobody but admins is told of what is not understood
	}
	id := data.TopicID
	if id == "" { // of a private topic, or from before events had it
		var err error
		if id, err = n.topicIDOf(ctx, data.Notification); err != nil {
			return false, err
		}
	}
	t, ok := n.topic(id)
	return ok && n.sees(who, &t), nil
}

// topicIDOf returns the id of a notification's topic, empty when the notification is gone.
func (n *Notify) topicIDOf(ctx context.Context, notification string) (string, error) {
	if topic, known := n.abouts.get(notification); known {
		return topic, nil
	}
	note, err := n.store.Notification(ctx, notification)
	if err != nil && muster.KindOf(err) != muster.NotFound {
		return "", err //nolint:wrapcheck // the store says what it was doing
	}
	n.abouts.put(notification, note.Topic)
	return note.Topic, nil
}

// topicFor returns the topic of an id, as it is kept when it is not known here: another process may
// have made it. NotFound when it was deleted.
func (n *Notify) topicFor(ctx context.Context, id string) (Topic, error) {
	if t, ok := n.topic(id); ok {
		return t, nil
	}
	return n.store.Topic(ctx, id) //nolint:wrapcheck // the store says what it was doing
}
