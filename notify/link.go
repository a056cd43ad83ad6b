package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"muster"
)

// linkLife is how long a mail's ack link works.
const linkLife = 30 * 24 * time.Hour

// LinkPath is where ack links lead, with a token behind it.
const LinkPath = "/n/"

// AckLink returns the link by which a subject acks a notification without signing in: who
// has the mail has the right. It works for 30 days.
func (n *Notify) AckLink(notification string, s Subject) string {
	until := strconv.FormatInt(n.options.Now().Add(linkLife).Unix(), 36)
	text := notification + "." + string(s) + "." + until
	return n.options.URL() + LinkPath + base64.RawURLEncoding.EncodeToString([]byte(text)) + "." + n.sign(text)
}

// sign makes a tag of 128 bits (RFC 2104, truncated as its section 5 allows).
func (n *Notify) sign(text string) string {
	mac := hmac.New(sha256.New, n.options.Key)
	mac.Write([]byte("ack link\n" + text)) // never fails
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// AckPage is what somebody with a link sees, and may ack.
type AckPage struct {
	Topic Topic
	Item  Item
}

// OpenLink returns what a link's token is for: Forbidden when it is not one of ours or too
// old, NotFound when the notification is gone, or whose link it is has lost its topic.
func (n *Notify) OpenLink(ctx context.Context, token string) (AckPage, error) {
	id, subject, err := n.readLink(token)
	if err != nil {
		return AckPage{}, err
	}
	r, err := n.receipt(ctx, id, subject)
	if err != nil {
		return AckPage{}, err
	}
	note, err := n.store.Notification(ctx, id)
	if err != nil {
		return AckPage{}, err //nolint:wrapcheck // likewise
	}
	t, _ := n.topic(note.Topic)
	return AckPage{t, Item{note, r}}, nil
}

// AckByLink acks what a link's token is for.
func (n *Notify) AckByLink(ctx context.Context, token, note string) (AckPage, error) {
	id, subject, err := n.readLink(token)
	if err != nil {
		return AckPage{}, err
	}
	p, _ := n.options.People.Person(string(subject))
	done, err := n.Mark(ctx, Marking{Subject: subject, IDs: []string{id}, State: AckedIt, Note: note, Door: DoorMail, Name: p.Name})
	if err != nil {
		return AckPage{}, err
	}
	if len(done.Missing) > 0 {
		return AckPage{}, muster.Errorf(muster.NotFound, "the notification is not kept any more")
	}
	return n.OpenLink(ctx, token)
}

func (n *Notify) readLink(token string) (id string, s Subject, err error) {
	bad := muster.Errorf(muster.Forbidden, "this link does not work, or not any more")
	if len(token) > 1024 {
		return "", "", bad
	}
	head, tag, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil || !hmac.Equal([]byte(tag), []byte(n.sign(string(raw)))) {
		return "", "", bad
	}
	first := strings.IndexByte(string(raw), '.')
	last := strings.LastIndexByte(string(raw), '.')
	until, err := strconv.ParseInt(string(raw[last+1:]), 36, 64)
	if err != nil || n.options.Now().Unix() > until {
		return "", "", bad
	}
	s = Subject(raw[first+1 : last])
	if p, ok := n.options.People.Person(string(s)); !ok || p.Disabled { // who is gone takes care of nothing, and gets no news
		return "", "", bad
	}
	return string(raw[:first]), s, nil
}
