package hooks

import (
	"context"
	"encoding/json"

	"muster"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
)

// envelope is an event's body as feed.Event.Envelope writes it.
type envelope struct {
	Type      string          `json:"type"`
	Timestamp string          `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// message is what h is told by d. A webhook that names topics has the words of their notifications,
// of private ones too, as the topic's template has them; all others have the event as the
// feed has it. Chat services, which say it in words of their own, never have the template's JSON.
// Words that cannot be had lose no delivery: then it says what the feed does.
func (f *FanOut) message(ctx context.Context, h *Webhook, d *outbox.Delivery) (Message, error) {
	m := Message{ID: d.Content, Body: d.Body}
	e, state, ok := aboutNotification(d.Body)
	if d.Notification == "" || len(h.Topics) == 0 || !ok {
		return m, f.shown(ctx, h, d, &e)
	}
	_, chat := ChatOf(h.URL)
	w, err := f.words.Words(ctx, *h, d.Notification, state)
	switch kind := muster.KindOf(err); {
	case err != nil && kind == muster.NotFound:
		m.Note = "the notification is not kept any more: its words were left out"
		return m, f.shown(ctx, h, d, &e)
	case err != nil && kind == muster.Forbidden:
		return m, errUnseen()
	case err != nil:
		return m, err //nolint:wrapcheck // it says what it was doing
	case w.Body != nil && !chat:
		m.Body = w.Body
		return m, nil
	case w.Problem != "" && !chat:
		m.Note = w.Problem + "; the event went out in its plain form"
	}
	if w.Private || chat { // the feed's event may have been too long for its words
		e.Data = w.Data
		if b, err := json.Marshal(e); err == nil && (chat || len(b) <= MaxEvent) { // else the feed's form, which is short
			m.Body = b
		}
	}
	return m, nil
}

// shown is NotFound when who answers for h may not learn of what d tells as the feed does: he is asked for at each attempt, and
// at each replay.
func (f *FanOut) shown(ctx context.Context, h *Webhook, d *outbox.Delivery, e *envelope) error {
	told := feed.Event{Type: e.Type, Data: e.Data}
	var thin struct{ Truncated bool }
	if json.Unmarshal(e.Data, &thin) == nil && thin.Truncated { // it was too long for a webhook, and has no id of anything
		told.Data = feed.NewEvent(e.Type, "", 0, about{Notification: d.Notification}).Data
	}
	if ok, err := f.words.Shows(ctx, *h, &told); err != nil || ok {
		return err //nolint:wrapcheck // it says what it was doing
	}
	return errUnseen()
}

func errUnseen() error {
	return muster.Errorf(muster.NotFound, "who answers for the webhook does not see the topic any more, or is no admin any more")
}

// aboutNotification reads a body, and in which state it tells of the notification; ok is false
// when it is no event about one.
func aboutNotification(body []byte) (e envelope, state notify.NotificationState, ok bool) {
	var data struct {
		State notify.NotificationState `json:"state"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return e, "", false
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return e, "", false
	}
	if data.State == "" { // it was too long for a webhook: the type says it
		data.State = map[string]notify.NotificationState{
			"notification.created": notify.Open, "notification.acked": notify.Acked, "notification.resolved": notify.Resolved,
		}[e.Type]
	}
	return e, data.State, data.State != ""
}
