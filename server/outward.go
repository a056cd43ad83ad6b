package server

import (
	"net/netip"

	"muster"
	"muster/notify/chat"
	"muster/notify/email"
	"muster/notify/hooks"
	"muster/notify/webhook"
)

// buildOutward makes what reaches out to others: mail, webhooks and notifications.
func (s *Server) buildOutward() error {
	if err := s.buildMail(); err != nil {
		return err
	}
	if err := s.buildWebhooks(); err != nil {
		return err
	}
	return s.buildNotifications()
}

// buildMail gives accounts a mailer, when there is a mail server.
func (s *Server) buildMail() error {
	if s.cfg.SMTP == "" {
		return nil
	}
	m, err := email.New(email.Config{URL: s.cfg.SMTP, Now: s.cfg.Now})
	if err != nil {
		return err
	}
	s.mail = m
	s.accounts.SetMailer(posted{s})
	return nil
}

// buildWebhooks makes the webhooks and what sends to them.
func (s *Server) buildWebhooks() error {
	allow, err := s.cfg.webhookAllow()
	if err != nil {
		return err
	}
	s.hooks = webhook.New(webhook.Config{Allow: allow, Version: s.cfg.Version, Now: s.cfg.Now})
	s.chats = chat.New(chat.Config{Next: s.hooks, Poster: s.hooks, Services: chat.Services(), Now: s.cfg.Now})
	s.webhooks = hooks.New(s.stores.control, hooks.Options{
		Devices: s.registry, Sealer: s.vault, Sender: s.chats, Chats: s.chats, Now: s.cfg.Now,
	})
	return nil
}

// webhookAllow reads the networks that webhooks may reach.
func (c *Config) webhookAllow() ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(c.WebhookAllow))
	for _, s := range c.WebhookAllow {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return nil, muster.Errorf(muster.Invalid, "webhook-allow %.60q is not a network such as 10.1.0.0/16", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// checkOutward refuses a mail server or networks that are not understood.
func (c *Config) checkOutward() error {
	if c.SMTP != "" {
		if _, err := email.New(email.Config{URL: c.SMTP, Now: c.Now}); err != nil {
			return err
		}
	}
	_, err := c.webhookAllow()
	return err
}
