package server

import (
	"context"
	"crypto/rand"
	"time"

	"muster"
	"muster/api"
	"muster/notify"
	"muster/notify/email"
	"muster/notify/mqtt"
	"muster/notify/outbox"
)

// testers send tests over channels, at once and past the outbox.
type testers struct{ server *Server }

// testTime is for one attempt to test.
const testTime = 15 * time.Second

// TestChannel implements api.ChannelTester.
func (t testers) TestChannel(ctx context.Context, channel, target string) (outbox.Attempt, error) {
	ctx, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	switch channel {
	case notify.ChannelEmail:
		return t.mail(ctx, target)
	case notify.ChannelMQTT:
		return t.device(ctx, target), nil
	case api.InboxChannel:
		return t.inbox(ctx, target)
	}
	return outbox.Attempt{}, muster.Errorf(muster.NotFound, "there is no such channel to be tested")
}

func (t testers) mail(ctx context.Context, user string) (outbox.Attempt, error) {
	s := t.server
	if s.mail == nil {
		return outbox.Attempt{}, muster.Errorf(muster.Unavailable, "no mail can be sent: the server has no --smtp")
	}
	p, ok := people{s.accounts}.Person(user)
	if !ok || !p.Reachable {
		return outbox.Attempt{}, muster.Errorf(muster.Invalid, "your e-mail address is not confirmed")
	}
	one := email.NewChannel(s.mail, func(context.Context, []outbox.Delivery) (email.Mail, error) {
		return email.Mail{
			To: p.Email, Subject: "A test from Muster", Text: "This mail shows that Muster's notifications reach you at " + s.URL() + ".\n",
		}, nil
	})
	return one.Deliver(ctx, []outbox.Delivery{{ID: outbox.IDPrefix + rand.Text(), Channel: notify.ChannelEmail, Target: user}}), nil
}

// device publishes a test to a device, as any notification for it goes out.
func (t testers) device(ctx context.Context, device string) outbox.Attempt {
	id, body := t.server.notify.TestLetter()
	one := mqtt.New(t.server.notify.device, t.server.cfg.Now)
	return one.Deliver(ctx, []outbox.Delivery{{ID: outbox.IDPrefix + rand.Text(), Channel: notify.ChannelMQTT, Target: device, Content: id, Body: body}})
}

// inbox writes a test into the inbox of a user. It is delivered when it is stored: who has no
// page open finds it there.
func (t testers) inbox(ctx context.Context, user string) (outbox.Attempt, error) {
	began := t.server.cfg.Now()
	note, err := t.server.notify.TestInbox(ctx, user)
	if err != nil {
		return outbox.Attempt{}, err //nolint:wrapcheck // it says what it was doing
	}
	return outbox.Attempt{
		Verdict: outbox.Delivered, At: muster.MicrosOf(began), Duration: t.server.cfg.Now().Sub(began), Reference: note.ID,
	}, nil
}
