package webhook

import (
	"context"
	"time"

	"muster"
	"muster/notify/hooks"
	"muster/notify/outbox"
)

// Source knows where deliveries go and what they say.
type Source interface {
	// Webhook returns the address and the keys of the webhook that ds go to, and their
	// message, whose ID is the same for each attempt. NotFound when there is no such
	// webhook any more, or it is disabled; Invalid when the message can never be sent; any
	// other error when it may work later.
	Webhook(ctx context.Context, ds []outbox.Delivery) (hooks.Target, hooks.Message, error)
}

// Channel sends deliveries. It is safe for concurrent use.
type Channel struct {
	sender hooks.Sender
	source Source
	now    func() time.Time
}

var _ outbox.Channel = (*Channel)(nil)

// NewChannel returns the channel "webhook", which sends over s what source says.
func NewChannel(s hooks.Sender, source Source, now func() time.Time) *Channel {
	return &Channel{s, source, now}
}

// Name implements outbox.Channel.
func (c *Channel) Name() string { return "webhook" }

// Deliver implements outbox.Channel by the sender's. The attempt's Reference is the
// webhook-id.
func (c *Channel) Deliver(ctx context.Context, ds []outbox.Delivery) outbox.Attempt {
	began := c.now()
	a := outbox.Attempt{At: muster.MicrosOf(began), Verdict: outbox.Again}
	if ctx.Err() != nil {
		a.Error = "there was no time left"
		return a
	}
	target, message, err := c.source.Webhook(ctx, ds)
	if err != nil {
		a.Duration, a.Error = c.now().Sub(began), "the webhook cannot be sent to: "+muster.Public(err)
		switch muster.KindOf(err) {
		case muster.NotFound:
			a.Verdict = outbox.Dropped
		case muster.Invalid, muster.TooLarge:
			a.Verdict = outbox.Dead
		default:
		}
		return a
	}
	a = c.sender.Deliver(ctx, target, message)
	a.Reference, a.Note = message.ID, message.Note
	return a
}
