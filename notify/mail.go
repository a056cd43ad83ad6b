package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/notify/outbox"
)

// Mail is a mail that tells of one notification, or of many. Key makes its Message-ID: it is
// the same whenever the mail is tried again.
//
// Note says what was not as it was to be, for the attempt; empty for nothing.
type Mail struct{ To, Subject, Text, HTML, Key, Note string }

// ComposeMail words the mail of deliveries of one fold to one user. Unavailable when it
// cannot now, Invalid when it never will be: the user has no address that is known to
// reach him. NotFound when nobody is to get it any more: the user is gone or disabled.
func (n *Notify) ComposeMail(ctx context.Context, ds []outbox.Delivery) (Mail, error) {
	p, ok := n.options.People.Person(ds[0].Target)
	switch {
	case !ok || p.Disabled:
		return Mail{}, muster.Errorf(muster.NotFound, "there is no such user any more")
	case !p.Reachable:
		return Mail{}, muster.Errorf(muster.Invalid, "the user's e-mail address is not confirmed")
	}
	letters := make([]addressed, 0, len(ds))
	for i := range ds {
		l, err := DecodeLetter(ds[i].Body)
		if err != nil {
			return Mail{}, muster.Errorf(muster.Invalid, "the delivery's content is not understood: %w", err)
		}
		t, err := n.topicFor(ctx, l.Topic)
		if err != nil && (muster.KindOf(err) != muster.NotFound || len(ds) == 1) {
			return Mail{}, err
		}
		if err != nil { // a digest leaves out what is of a topic that was deleted
			continue
		}
		if err := n.asItIs(ctx, &l); err != nil {
			return Mail{}, err
		}
		letters = append(letters, addressed{l, t})
	}
	switch {
	case len(letters) == 0:
		return Mail{}, muster.Errorf(muster.NotFound, "their topics were deleted")
	case len(ds) == 1:
		return n.oneMail(p, &ds[0], &letters[0])
	}
	return n.digest(p, ds, letters), nil
}

// addressed is a letter with its topic.
type addressed struct {
	Letter
	topic Topic
}

func (n *Notify) oneMail(p Person, d *outbox.Delivery, l *addressed) (Mail, error) {
	t := &l.topic
	w := n.wording(t, &l.Letter, Subject(p.ID))
	note := ""
	subject, err := mailSubject(t.Template, w)
	if err != nil { // it worked for the sample; the mail matters more than its wording
		subject, _ = mailSubject(Template{}, w)
		note = noteOf("mail_subject")
	}
	text, err := mailText(t.Template, w)
	if err != nil {
		text, _ = mailText(Template{}, w)
		note = noteOf("mail_text")
	}
	return Mail{Note: note, To: p.Email, Subject: subject, Text: text, HTML: htmlOf(text, w.AckLink, w.Link), Key: d.ID}, nil
}

func noteOf(template string) string {
	return "the topic's template " + template + " did not work for this notification: it was sent in Muster's own words"
}

// wording is what templates say of l to s; a webhook is nobody, and has no link to ack by.
func (n *Notify) wording(t *Topic, l *Letter, s Subject) Wording {
	w := Wording{
		Topic: t.title(), Title: l.Title, Body: l.Body, Severity: l.Severity.String(), State: string(l.State), Sender: l.Sender, Device: l.Device,
		Link: l.Link, Time: time.UnixMicro(l.CreatedAt).UTC().Format(time.RFC3339),
	}
	_ = json.Unmarshal(l.Data, &w.Data) // an object that was checked, or nothing
	if l.AckPolicy != AckNone && l.State == Open && s != "" {
		w.AckLink = n.AckLink(l.ID, s)
	}
	return w
}

func (t *Topic) title() string {
	if t.Title != "" {
		return t.Title
	}
	return t.Name
}

// htmlOf shows the plain text with links made links, in one pass: one that begins like
// another is not taken for it.
func htmlOf(text string, links ...string) string {
	slices.SortFunc(links, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, link := range links {
		if link != "" {
			e := html.EscapeString(link)
			pairs = append(pairs, e, `<a href="`+e+`">`+e+`</a>`)
		}
	}
	return `<div style="font-family:sans-serif;white-space:pre-wrap">` + strings.NewReplacer(pairs...).Replace(html.EscapeString(text)) + "</div>\n"
}

const maxDigestText = 128 << 10 // bytes

// digest is one mail of many, the worst first.
func (n *Notify) digest(p Person, ds []outbox.Delivery, letters []addressed) Mail {
	var b strings.Builder
	var links []string
	for s := Critical; s >= Info; s-- {
		for i := range letters {
			l := &letters[i]
			if l.Severity != s {
				continue
			}
			w := n.wording(&l.topic, &l.Letter, Subject(p.ID))
			entry := fmt.Sprintf("[%s] %s: %s (%s)\n", w.Severity, w.Topic, w.Title, w.Time)
			if w.State != string(Open) {
				entry = fmt.Sprintf("[%s] %s: %s: %s (%s)\n", w.Severity, w.Topic, w.State, w.Title, w.Time)
			}
			if w.AckLink != "" {
				entry += w.AckLink + "\n"
				links = append(links, w.AckLink)
			}
			if b.Len()+len(entry) > maxDigestText {
				b.WriteString("and more, in your inbox\n")
				break
			}
			b.WriteString(entry + "\n")
		}
	}
	text := b.String()
	return Mail{
		To: p.Email, Subject: strconv.Itoa(len(letters)) + " notifications", Text: text, HTML: htmlOf(text, links...), Key: ds[0].ID,
	}
}
