package notify

import (
	"encoding/json"

	"muster"
)

// MaxWebhook is the longest body of a webhook, in bytes (Standard Webhooks, "Payload size").
const MaxWebhook = 20_000

// Wording is what templates are about: {{.Title}} and so on.
type Wording struct {
	Topic    string // its title, or its name
	Title    string
	Body     string
	Severity string
	State    string // open, acked or resolved
	Sender   string
	Device   string
	Link     string
	AckLink  string // empty where there is nothing to ack
	Time     string // RFC 3339, UTC
	Data     map[string]any
}

// SampleWording is what previews are made of.
func SampleWording() Wording {
	return Wording{
		Topic: "Cold chain", Title: "Pump 1 is offline", Body: "It was last heard 10 minutes ago.", Severity: "major", State: "open", Sender: "Muster",
		Device: "pump-1", Link: "https://muster.example/devices/pump-1", AckLink: "https://muster.example/n/example", Time: "2026-01-02T03:04:05Z",
		Data: map[string]any{"reason": "keep alive ran out"},
	}
}

// Preview is how a template words something.
type Preview struct{ MailSubject, MailText, Webhook string }

// PreviewTemplate words w by t; parts that t leaves empty are in Muster's own words.
// Invalid when a part does not work.
func PreviewTemplate(t Template, w Wording) (p Preview, err error) {
	if !text(t.MailSubject) || !text(t.MailText) || !text(t.Webhook) {
		return Preview{}, muster.Errorf(muster.Invalid, "a template is not plain text")
	}
	if p.MailSubject, err = mailSubject(t, w); err != nil {
		return Preview{}, err
	}
	if p.MailText, err = mailText(t, w); err != nil {
		return Preview{}, err
	}
	if t.Webhook != "" {
		if p.Webhook, err = webhookText(t, w); err != nil {
			return Preview{}, err
		}
	}
	return p, nil
}

// webhookText is the body of a webhook: JSON.
func webhookText(t Template, w Wording) (string, error) {
	s, err := expand("webhook", t.Webhook, w)
	switch {
	case err != nil:
		return "", err
	case !json.Valid([]byte(s)):
		return "", muster.Errorf(muster.Invalid, "the template webhook makes no JSON")
	case len(s) > MaxWebhook:
		return "", muster.Errorf(muster.Invalid, "the template webhook makes %d bytes, at most %d are sent", len(s), MaxWebhook)
	}
	return s, nil
}

// checkTemplate refuses what does not work for the sample.
func checkTemplate(t Template) error {
	for name, body := range map[string]string{"mail_subject": t.MailSubject, "mail_text": t.MailText, "webhook": t.Webhook} {
		if len(body) > maxTemplate {
			return muster.Errorf(muster.Invalid, "the template %s has %d bytes, at most %d are allowed", name, len(body), maxTemplate)
		}
		if !text(body) {
			return muster.Errorf(muster.Invalid, "the template %s is not plain text", name)
		}
		if _, err := parseTemplate(name, body); err != nil {
			return err
		}
	}
	_, err := PreviewTemplate(t, SampleWording())
	return err
}

func mailSubject(t Template, w Wording) (string, error) {
	if t.MailSubject != "" {
		s, err := expand("mail_subject", t.MailSubject, w)
		return cut(flat(s), maxSubject), err
	}
	s := "[" + w.Topic + "] " + w.Title
	if w.State == string(Resolved) {
		s = "[" + w.Topic + "] Resolved: " + w.Title
	}
	return cut(flat(s), maxSubject), nil
}

const maxSubject = 300 // bytes

func mailText(t Template, w Wording) (string, error) {
	if t.MailText != "" {
		return expand("mail_text", t.MailText, w)
	}
	s := w.Title + "\n\n"
	if w.Body != "" {
		s += w.Body + "\n\n"
	}
	s += "Severity: " + w.Severity + "\nSent by: " + w.Sender + "\nAt: " + w.Time + "\n"
	if w.Device != "" {
		s += "Device: " + w.Device + "\n"
	}
	if w.State != string(Open) {
		s += "State: " + w.State + "\n"
	}
	if w.Link != "" {
		s += "\n" + w.Link + "\n"
	}
	if w.AckLink != "" {
		s += "\nTake care of it:\n" + w.AckLink + "\n"
	}
	return s, nil
}

// flat is s on one line.
func flat(s string) string {
	b := []rune(s)
	for i, r := range b {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' {
			b[i] = ' '
		}
	}
	return string(b)
}
