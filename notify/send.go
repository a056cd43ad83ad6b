package notify

import (
	"context"
	"crypto/rand"
	"time"

	"muster"
	"muster/feed"
)

const (
	// MaxEvent is the longest body of a webhook, in bytes (Standard Webhooks, "Payload
	// size": usually smaller than 20 kB).
	MaxEvent = 20_000

	maxTests = 10 // at once
)

// Message is one event as it is sent. ID is the same over every attempt.
type Message struct {
	ID   string // [A-Za-z0-9_-]{1,64}
	Body []byte // JSON of at most MaxEvent bytes
}

// MessageOf returns e as webhooks get it. When its data would make the body longer than
// MaxEvent, data is {"device":...,"truncated":true,"bytes":n} instead: the receiver asks
// the API.
func MessageOf(e feed.Event) Message {
	body := e.Envelope()
	if len(body) <= MaxEvent {
		return Message{e.ID(), body}
	}
	thin := struct {
		Device    muster.DeviceID `json:"device,omitempty"`
		Truncated bool            `json:"truncated"`
		Bytes     int             `json:"bytes"`
	}{e.Device, true, len(e.Data)}
	return Message{e.ID(), feed.NewEvent(e.Type, e.Device, e.At, thin).Envelope()}
}

// Target is where a message goes, and what signs it.
type Target struct {
	URL  string
	Keys [][]byte // one or two, the newest first
}

// Verdict says what follows from an attempt.
type Verdict string

// The verdicts.
const (
	Delivered Verdict = "delivered" // the receiver said 2xx
	Again     Verdict = "again"     // it may work later
	Gone      Verdict = "gone"      // the receiver said 410: the webhook is to be disabled
	Dead      Verdict = "dead"      // trying again is of no use: a bad URL or event, or an address that may not be reached
)

// Attempt is what came of sending one message once.
type Attempt struct {
	Verdict    Verdict
	At         muster.Micros // when it began
	Duration   time.Duration
	Status     int           // of the answer, 0 for none
	Error      string        // in words, empty when delivered; holds no part of the URL's path
	Response   string        // how the answer's body begins, at most 1 KiB of plain text
	RetryAfter time.Duration // as the receiver wishes, 0 when it says nothing
}

// Sender makes one attempt, within a time of its own.
type Sender interface {
	Deliver(ctx context.Context, t Target, m Message) Attempt
}

// Test sends the event webhook.test to a webhook at once, also to a disabled one, and
// says what came of it. A webhook that answers 410 is disabled. At most 10 tests run at
// once: Busy beyond.
func (w *Webhooks) Test(ctx context.Context, id string) (Attempt, error) {
	h, err := w.Get(id)
	if err != nil {
		return Attempt{}, err
	}
	select {
	case w.testing <- struct{}{}:
		defer func() { <-w.testing }()
	default:
		return Attempt{}, muster.Errorf(muster.Busy, "%d webhooks are being tested already", maxTests)
	}
	keys, err := w.Keys(h)
	if err != nil {
		return Attempt{}, err
	}
	e := feed.NewEvent(feed.WebhookTest, "", muster.MicrosOf(w.options.Now()), map[string]string{"webhook": h.ID})
	// The event is none of the feed's, which would give it its number.
	a := w.options.Sender.Deliver(ctx, Target{h.URL, keys}, Message{"evt_" + rand.Text(), e.Envelope()})
	if a.Verdict == Gone {
		if _, err := w.Disable(ctx, id, "it answered 410 Gone"); err != nil && muster.KindOf(err) != muster.NotFound {
			return Attempt{}, err
		}
	}
	return a, nil
}
