package notify

import (
	"context"
	"encoding/json"
	"fmt"

	"muster"
)

// Words is what a webhook that names a topic is told of an event about one of its
// notifications.
type Words struct {
	Private bool            // the topic is: the feed's own event has no words
	Data    json.RawMessage // of the event, with all its words
	Body    []byte          // as the topic's template words it, JSON of at most MaxWebhook bytes; nil without a template, or when it does not work
	Problem string          // why the template does not work, empty when it does
}

// TopicOf returns the id of the topic of a notification. NotFound when either is gone.
func (n *Notify) TopicOf(ctx context.Context, notification string) (string, error) {
	id, err := n.topicIDOf(ctx, notification)
	if err != nil {
		return "", err
	}
	if _, ok := n.topic(id); !ok {
		return "", errNoTopic()
	}
	return id, nil
}

// Words words a notification for a webhook of who, as it stood when it came to state. A template
// that does not work loses nothing: the event's own form says it all. NotFound when the
// notification or its topic is gone, Forbidden when who does not see the topic.
func (n *Notify) Words(ctx context.Context, who Who, notification string, state NotificationState) (Words, error) {
	note, err := n.store.Notification(ctx, notification)
	if err != nil {
		return Words{}, err //nolint:wrapcheck // the store says what it was doing
	}
	t, ok := n.topic(note.Topic)
	if !ok {
		return Words{}, errNoTopic()
	}
	if !n.sees(who, &t) {
		return Words{}, muster.Errorf(muster.Forbidden, "who answers for the webhook does not see the topic")
	}
	if note.State = state; state == Open {
		note.AckedBy = ""
	}
	out := Words{Private: t.Visibility != Internal}
	if out.Data, err = json.Marshal(wordsOf(&t, &note)); err != nil {
		return Words{}, fmt.Errorf("write the words of a notification: %w", err)
	}
	if t.Template.Webhook == "" {
		return out, nil
	}
	l := letterOf(&note, false)
	body, err := webhookText(t.Template, n.wording(&t, &l, ""))
	if err != nil {
		out.Problem = muster.Public(err)
		return out, nil
	}
	out.Body = []byte(body)
	return out, nil
}
