package hooks

import (
	"context"
	"crypto/rand"

	"muster"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
)

const (
	// MaxEvent is the longest body of a webhook, in bytes (Standard Webhooks, "Payload
	// size": usually smaller than 20 kB).
	MaxEvent = notify.MaxWebhook

	maxTests = 10 // at once
)

// Message is one event as it is sent. ID is the same over every attempt.
type Message struct {
	ID   string // [A-Za-z0-9_-]{1,64}
	Body []byte // JSON of at most MaxEvent bytes
	Note string // what of it is otherwise than was wished, for the attempt
}

// MessageOf returns e as webhooks get it. When its data would make the body longer than
// MaxEvent, data is {"device":...,"truncated":true,"bytes":n} instead: the receiver asks
// the API.
func MessageOf(e feed.Event) Message {
	body := e.Envelope()
	if len(body) <= MaxEvent {
		return Message{ID: e.ID(), Body: body}
	}
	thin := struct {
		Device    muster.DeviceID `json:"device,omitempty"`
		Truncated bool            `json:"truncated"`
		Bytes     int             `json:"bytes"`
	}{e.Device, true, len(e.Data)}
	return Message{ID: e.ID(), Body: feed.NewEvent(e.Type, e.Device, e.At, thin).Envelope()}
}

// Target is where a message goes, and what signs it.
type Target struct {
	URL  string   // as Webhook's
	Keys [][]byte // one or two, the newest first; of a chat service its service URL alone
}

// Sender makes one attempt, within a time of its own.
type Sender interface {
	Deliver(ctx context.Context, t Target, m Message) outbox.Attempt
}

// Test sends the event webhook.test to a webhook at once, also to a disabled one, and
// says what came of it. A webhook that answers 410 is disabled. At most 10 tests run at
// once: Busy beyond.
func (w *Webhooks) Test(ctx context.Context, id string) (outbox.Attempt, error) {
	h, err := w.Get(id)
	if err != nil {
		return outbox.Attempt{}, err
	}
	select {
	case w.testing <- struct{}{}:
		defer func() { <-w.testing }()
	default:
		return outbox.Attempt{}, muster.Errorf(muster.Busy, "%d webhooks are being tested already", maxTests)
	}
	keys, err := w.Keys(h)
	if err != nil {
		return outbox.Attempt{}, err
	}
	e := feed.NewEvent(feed.WebhookTest, "", muster.MicrosOf(w.options.Now()), map[string]string{"webhook": h.ID})
	// The event is none of the feed's, which would give it its number.
	a := w.options.Sender.Deliver(ctx, Target{h.URL, keys}, Message{ID: "evt_" + rand.Text(), Body: e.Envelope()})
	if a.Verdict == outbox.Gone {
		if _, err := w.Disable(ctx, id, "it answered 410 Gone"); err != nil && muster.KindOf(err) != muster.NotFound {
			return outbox.Attempt{}, err
		}
	}
	return a, nil
}
