package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"muster"
	"muster/notify"
)

// Published is what the live gateway answers to who sent a notification.
type Published struct {
	ID            string   `json:"id"`
	Recipients    int64    `json:"recipients"`
	Duplicate     bool     `json:"duplicate,omitempty"`
	Resolved      bool     `json:"resolved,omitempty"`
	NotSubscribed []string `json:"not_subscribed"`
}

// PublishedOf shows what was sent.
func PublishedOf(r *notify.Result) Published {
	out := Published{r.Notification.ID, r.Notification.Recipients, r.Duplicate, r.Resolved, make([]string, len(r.NotSubscribed))}
	for i, s := range r.NotSubscribed {
		out.NotSubscribed[i] = subjectText(s)
	}
	return out
}

// ReadMessage reads the body of POST /notifications, which comes by another door: there the
// topic stands beside it. Invalid says what is wrong; a member that is not known is.
func ReadMessage(topic string, body []byte) (notify.Message, error) {
	var n newNotification
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil {
		wrong, isType := errors.AsType[*json.UnmarshalTypeError](err)
		if isType && wrong.Field != "" {
			return notify.Message{}, muster.Errorf(muster.Invalid, "the member %.60q of the message cannot be a %s", wrong.Field, wrong.Value)
		}
		return notify.Message{}, muster.Errorf(muster.Invalid, "the message is not an object with the members of POST /notifications")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return notify.Message{}, muster.Errorf(muster.Invalid, "the message is more than one object")
	}
	if n.Topic != "" && n.Topic != topic {
		return notify.Message{}, muster.Errorf(muster.Invalid, "the message names another topic")
	}
	if n.Topic = topic; n.Priority != "" && !slices.Contains(priorities(), n.Priority) {
		return notify.Message{}, muster.Errorf(muster.Invalid, "there is no such priority: urgent, normal or bulk")
	}
	m, err := n.read()
	if p, ok := errors.AsType[*Problem](err); ok {
		return m, muster.Errorf(muster.Invalid, "%s", p.Detail)
	}
	return m, err
}
