package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"muster"
)

// Letter is a notification as channels get it, as JSON: what it said when it was told.
type Letter struct {
	ID        string            `json:"id"`
	Topic     string            `json:"topic"` // id
	Sender    string            `json:"sender"`
	Severity  Severity          `json:"severity"`
	Title     string            `json:"title"`
	Body      string            `json:"body,omitempty"`
	Data      json.RawMessage   `json:"data,omitempty"`
	Link      string            `json:"link,omitempty"`
	Actions   []Action          `json:"actions,omitempty"`
	Device    string            `json:"device,omitempty"`
	State     NotificationState `json:"state"`
	AckPolicy AckPolicy         `json:"ack_policy"`
	Step      int               `json:"step,omitempty"`
	CreatedAt int64             `json:"created_at"` // microseconds
	ExpiresAt int64             `json:"expires_at,omitempty"`
	Version   int64             `json:"version"`
	// Subscribed says that it is told by a subscription, whose hours and mute count when it goes out.
	// Who is called by name is told whatever his hours.
	Subscribed bool `json:"subscribed,omitempty"`
}

func contentID(n *Notification) string { return n.ID + "." + strconv.FormatInt(n.Version, 10) }

// letterOf is n as it is now.
func letterOf(n *Notification, subscribed bool) Letter {
	return Letter{
		n.ID, n.Topic, n.Sender.Name, n.Severity, n.Title, n.Body, n.Data, n.Link, n.Actions, string(n.Device), n.State, n.AckPolicy, n.Step,
		int64(n.Created), int64(n.Expires), n.Version, subscribed,
	}
}

func encodeLetter(n *Notification, subscribed bool) []byte {
	b, err := json.Marshal(letterOf(n, subscribed))
	if err != nil { // plain data; Data is JSON that was checked
		panic(fmt.Errorf("write a letter: %w", err))
	}
	return b
}

// asItIs has a letter of news say how severe its notification is by now, and in which words: it may have waited. What is
// not kept any more, or is over, is said as it was.
func (n *Notify) asItIs(ctx context.Context, l *Letter) error {
	if l.State == Resolved {
		return nil
	}
	note, err := n.store.Notification(ctx, l.ID)
	switch {
	case muster.KindOf(err) == muster.NotFound || err == nil && note.State == Resolved:
		return nil
	case err != nil:
		return err //nolint:wrapcheck // the store says what it was doing
	}
	l.Severity, l.Title, l.Body, l.Data, l.Link, l.Actions = note.Severity, note.Title, note.Body, note.Data, note.Link, note.Actions
	return nil
}

// DecodeLetter reads a delivery's body.
func DecodeLetter(b []byte) (Letter, error) {
	var l Letter
	if err := json.Unmarshal(b, &l); err != nil {
		return Letter{}, fmt.Errorf("read a letter: %w", err)
	}
	return l, nil
}
