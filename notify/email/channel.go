package email

import (
	"context"
	"errors"
	"time"

	"muster"
	"muster/notify/outbox"
)

// Compose makes the mail of deliveries, one or those of one fold: to whom, and in which
// words. Its Key is not used. NotFound means that nobody wants it any more, Invalid that it
// can never be sent; any other error that it may work later.
type Compose func(ctx context.Context, ds []outbox.Delivery) (Mail, error)

// Channel is a Mailer that sends deliveries. It is safe for concurrent use.
type Channel struct {
	mailer  *Mailer
	compose Compose
}

var _ outbox.Channel = (*Channel)(nil)

// NewChannel returns the channel "email", which sends over m what compose makes.
func NewChannel(m *Mailer, compose Compose) *Channel { return &Channel{m, compose} }

// Name implements outbox.Channel.
func (c *Channel) Name() string { return "email" }

// Deliver implements outbox.Channel: it sends one mail for all of ds. Its Message-ID, which
// is the attempt's Reference, follows from the oldest of ds: a mailbox that gets the mail
// again, after an attempt whose end nobody saw, can tell.
func (c *Channel) Deliver(ctx context.Context, ds []outbox.Delivery) outbox.Attempt {
	began := c.mailer.now()
	a := outbox.Attempt{At: muster.MicrosOf(began)}
	a.Verdict, a.Error = c.send(ctx, ds, &a)
	a.Duration = max(c.mailer.now().Sub(began), time.Nanosecond)
	return a
}

func (c *Channel) send(ctx context.Context, ds []outbox.Delivery, a *outbox.Attempt) (outbox.Verdict, string) {
	if err := ctx.Err(); err != nil {
		a.Refused = true
		return outbox.Again, "there was no time left"
	}
	mail, err := c.compose(ctx, ds)
	if err != nil {
		a.Alone, a.Refused = true, true
		return uncomposed(err), "the mail cannot be written: " + muster.Public(err)
	}
	mail.Key, a.Note = oldest(ds), mail.Note
	a.Reference = "<" + c.mailer.messageID(mail.Key) + ">"
	err = c.mailer.Send(ctx, mail)
	if err == nil {
		return outbox.Delivered, ""
	}
	if r, ok := errors.AsType[*reply](err); ok {
		a.Status, a.Alone, a.Refused = r.code, aboutMail(r.code), true // RFC 5321, section 6.1: who refuses it has not taken it
	}
	if muster.KindOf(err) == muster.Invalid {
		return outbox.Dead, err.Error()
	}
	return outbox.Again, err.Error()
}

func uncomposed(err error) outbox.Verdict {
	switch muster.KindOf(err) {
	case muster.NotFound:
		return outbox.Dropped
	case muster.Invalid:
		return outbox.Dead
	default:
		return outbox.Again
	}
}

// aboutMail says whether a 4xx is about this mailbox or mail, and not about the server: grey
// listing, a full mailbox (RFC 5321, section 4.2.3).
func aboutMail(code int) bool { return code == 450 || code == 451 || code == 452 }

// oldest is the least id: ids sort by age.
func oldest(ds []outbox.Delivery) string {
	id := ds[0].ID
	for _, d := range ds[1:] {
		id = min(id, d.ID)
	}
	return id
}

// reply is the code that the server refused something with, and what it wrote; 0 when it was never reached.
type reply struct {
	code int
	err  error // nil when what it wrote may hold a secret
}

func (r *reply) Error() string {
	if r.err == nil {
		return "the server's words are not kept"
	}
	return r.err.Error()
}

func (r *reply) Unwrap() error { return r.err }
