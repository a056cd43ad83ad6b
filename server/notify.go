package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"muster"
	"muster/accounts"
	"muster/notify"
	"muster/notify/email"
	"muster/notify/hooks"
	"muster/notify/mqtt"
	"muster/notify/outbox"
	"muster/notify/webhook"
)

const (
	ackLinkUse = "ack links" // of the key that signs them
	mailUse    = "mail"      // what sealed mails are bound to
)

// notifications are the rooms that tell people, devices and third parties.
type notifications struct {
	*notify.Notify
	outbox  *outbox.Dispatcher
	fanOut  *hooks.FanOut
	device  *toDevices
	figures *notifyFigures
}

// buildNotifications makes them. Mail and webhooks are there already.
func (s *Server) buildNotifications() error {
	control := s.stores.control
	n := &s.notify
	n.Notify = notify.New(control, notify.Options{
		People: people{s.accounts}, Devices: s.registry, Feed: s.feed, Key: s.linkKey, URL: s.URL, WebhookOwner: s.webhookOwner,
		Now: s.cfg.Now, Logger: s.cfg.Logger, Limits: s.cfg.Notify.Limits,
	})
	n.fanOut = hooks.NewFanOut(s.webhooks, s.feed, control, hookWords{s}, s.cfg.Now, s.cfg.Logger)
	n.device = newToDevices(s)
	channels := []outbox.Channel{webhook.NewChannel(s.chats, n.fanOut, s.cfg.Now), mqtt.New(n.device, s.cfg.Now)}
	if s.mail != nil {
		channels = append(channels, email.NewChannel(s.mail, s.compose))
	}
	settings := map[string]outbox.Settings{
		notify.ChannelEmail: outbox.MailSettings(), hooks.Channel: outbox.WebhookSettings(), notify.ChannelMQTT: outbox.MQTTSettings(),
	}
	maps.Copy(settings, s.cfg.Notify.Channels)
	var err error
	if s.instance, err = instance(s.cfg.DataDir); err != nil {
		return err
	}
	n.outbox = outbox.New(outbox.Config{
		Instance: s.instance,
		Store:    control, Channels: channels, Settings: settings, Now: s.cfg.Now, Logger: s.cfg.Logger, Poll: s.cfg.Notify.Poll,
		OnGone: s.webhookGone, Pass: n.Pass, OnEnded: n.Ended,
	})
	control.OnInbox(n.Inbox().Publish)
	control.OnDeliveries(n.outbox.Wake)
	n.figures = &notifyFigures{outbox: n.outbox, store: control, now: s.cfg.Now}
	s.metrics.MustRegister(n.figures)
	return nil
}

// startNotifications starts their loops.
func (s *Server) startNotifications() {
	n := &s.notify
	s.loops.Go("notify-inbox", n.Inbox().Run)
	s.loops.Go("notify-sources", n.RunSources)
	s.loops.Go("notify-escalation", n.RunEscalation)
	s.loops.Go("notify-trim", n.RunTrim)
	s.loops.Go("notify-delivered", n.RunDelivered)
	s.loops.Go("notify-webhooks", n.fanOut.Run)
	s.loops.Go("notify-devices", n.device.Run)
	s.loops.Go("notify-outbox", n.outbox.Run)
}

// people are the users as notifications know them.
type people struct{ *accounts.Accounts }

// Person implements notify.People.
func (p people) Person(id string) (notify.Person, bool) {
	u, err := p.User(id)
	if err != nil {
		return notify.Person{}, false
	}
	name := u.Name
	if name == "" { // never the e-mail: others see it
		name = u.ID
	}
	return notify.Person{ID: u.ID, Name: name, Email: u.Email, Reachable: u.Confirmed, Disabled: u.Disabled, Admin: u.Role == accounts.Admin}, true
}

// webhookOwner returns the user who answers for a webhook.
func (s *Server) webhookOwner(id string) string {
	h, err := s.webhooks.Get(id)
	if err != nil {
		return ""
	}
	return h.OwnerID
}

// webhookGone disables a webhook whose receiver wants nothing any more.
func (s *Server) webhookGone(ctx context.Context, d outbox.Delivery, why string) error {
	if d.Channel != hooks.Channel {
		return nil
	}
	_, err := s.webhooks.Disable(ctx, d.Target, why)
	if muster.KindOf(err) == muster.NotFound {
		return nil
	}
	return err
}

// compose words a mail: one of accounts, which is sealed, or of notifications.
func (s *Server) compose(ctx context.Context, ds []outbox.Delivery) (email.Mail, error) {
	if ds[0].Notification != "" {
		m, err := s.notify.ComposeMail(ctx, ds)
		return email.Mail(m), err
	}
	text, err := s.vault.Open(ds[0].Body, mailUse)
	if err != nil {
		return email.Mail{}, muster.Errorf(muster.Invalid, "the mail cannot be opened: %w", err)
	}
	var m email.Mail
	if err := json.Unmarshal(text, &m); err != nil {
		return email.Mail{}, muster.Errorf(muster.Invalid, "the mail is not understood: %w", err)
	}
	return m, nil
}

// posted takes the mails of accounts into the outbox, sealed: they hold links that sign in.
type posted struct{ server *Server }

// Send implements accounts.Mailer.
func (p posted) Send(ctx context.Context, m accounts.Mail) error {
	text, err := json.Marshal(email.Mail{To: m.To, Subject: m.Subject, Text: m.Text, HTML: m.HTML, Key: m.Key})
	if err != nil {
		return fmt.Errorf("write a mail: %w", err)
	}
	s := p.server
	body, err := s.vault.Seal(text, mailUse)
	if err != nil {
		return err
	}
	now := muster.MicrosOf(s.cfg.Now())
	return s.stores.control.AddDeliveries(ctx, outbox.Batch{
		Contents: []outbox.Content{{ID: m.Key, Body: body}},
		Deliveries: []outbox.Delivery{{
			ID: outbox.NewID(outbox.IDPrefix, now), Channel: notify.ChannelEmail, Queue: notify.ChannelEmail, Target: "account", Content: m.Key, Lane: outbox.Urgent,
			State: outbox.StateQueued, Due: now, Created: now, Expires: now + muster.Micros(mailLife.Microseconds()),
		}},
	})
}
