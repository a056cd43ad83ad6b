package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync/atomic"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/dashboard/live"
	"muster/notify"
	"muster/once"
)

const (
	pubRoute = "live pub" // stands for the route in the memory of what was done once
	pubUse   = "live pub" // of the key that seals what is kept
)

// liveInbox shows the live gateway the inboxes.
type liveInbox struct{ *notify.Notify }

// Follow implements live.Inbox.
func (l liveInbox) Follow(s notify.Subject, place string, wake func()) (*notify.Follower, error) {
	return l.Inbox().Follow(s, place, wake) //nolint:wrapcheck // it says what is wrong with the place
}

// Newest implements live.Inbox.
func (l liveInbox) Newest(ctx context.Context, s notify.Subject, limit int) ([]notify.Item, error) {
	return l.Items(ctx, l.Owner(s), notify.InboxQuery{Limit: limit}) //nolint:wrapcheck // the store says what it was doing
}

// Counts implements live.Inbox.
func (l liveInbox) Counts(ctx context.Context, s notify.Subject) (notify.Counts, error) {
	return l.Notify.Counts(ctx, l.Owner(s)) //nolint:wrapcheck // likewise
}

// itemWriter writes items of inboxes in the API's words. It keeps the notification that it
// wrote last: the next follower is mostly told of the same.
type itemWriter struct {
	topic func(id string) string
	last  atomic.Pointer[writtenNote]
}

// writtenNote is a notification as it is written. It is the same as long as its version is.
type writtenNote struct {
	id      string
	version int64
	topic   string // name of its topic
	body    []byte
}

// add appends it.
func (w *itemWriter) add(b []byte, it *notify.Item) []byte {
	n, topic := &it.Notification, w.topic(it.Notification.Topic)
	last := w.last.Load()
	if last == nil || last.id != n.ID || last.version != n.Version || last.topic != topic {
		last = &writtenNote{n.ID, n.Version, topic, encodeItem(api.NotificationOf(n, topic))}
		w.last.Store(last)
	}
	b = append(append(b, `{"notification":`...), last.body...)
	b = append(append(b, `,"receipt":`...), encodeItem(api.ReceiptOf(&it.Receipt))...)
	return append(b, '}')
}

func encodeItem(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // plain data; data is JSON that was checked
		panic(fmt.Errorf("write a notification: %w", err))
	}
	return b
}

// liveNotes does what the sockets' commands ask for.
type liveNotes struct {
	*notify.Notify
	once *once.Keeper
	// secret seals what is kept of answers. Sockets have no credential at hand, so it is
	// made of the data directory's key: the database alone opens none.
	secret string
	log    *slog.Logger
}

// Publish implements live.Notes.
func (l liveNotes) Publish(ctx context.Context, who live.Principal, p live.Publication) (live.Published, error) {
	if p.Key == "" {
		return l.publish(ctx, who, p)
	}
	if !api.PlainKey(p.Key) {
		return live.Published{}, muster.Errorf(muster.Invalid, "the key is not 1 to 256 printable ASCII characters")
	}
	turn, answer, err := l.once.Begin(ctx, once.Request{
		Principal: who.ID, Secret: l.secret + who.ID, Route: pubRoute, Key: p.Key, Print: append([]byte(p.Topic+"\x00"), p.Message...),
	})
	switch {
	case err != nil:
		return live.Published{}, err //nolint:wrapcheck // a RefusedError says why
	case answer != nil:
		var out live.Published
		if err := json.Unmarshal(answer.Body, &out); err != nil {
			return out, fmt.Errorf("read a kept answer: %w", err)
		}
		return out, nil
	}
	defer turn.Abandon() // when it panics
	out, err := l.publish(turn.Context(ctx), who, p)
	var kept once.Answer
	if err == nil {
		kept = once.Answer{Status: 200, Body: encodeItem(out)}
	}
	if ended := turn.End(context.WithoutCancel(ctx), kept, err == nil); ended != nil { // what was done is done
		l.log.ErrorContext(ctx, "an answer is not kept for its key", "err", ended)
	}
	return out, err
}

func (l liveNotes) publish(ctx context.Context, who live.Principal, p live.Publication) (live.Published, error) {
	m, err := api.ReadMessage(p.Topic, p.Message)
	if err != nil {
		return live.Published{}, err //nolint:wrapcheck // it says what is wrong
	}
	r, err := l.Send(ctx, who.Who, m)
	if err != nil {
		return live.Published{}, err //nolint:wrapcheck // likewise
	}
	return live.Published(api.PublishedOf(&r)), nil
}

// asking is who p is to notifications. A key is also who owns it; a session that a key made
// is the key.
func (v viewers) asking(p accounts.Principal) notify.Who {
	who := notify.Who{Kind: "key", ID: cmp.Or(p.Key, p.ID), Name: p.Name, Admin: p.Allows(accounts.Admin)}
	if p.User != "" {
		who.Kind, who.ID, who.User, who.Name = "user", p.User, p.User, p.User
		if u, err := v.accounts.User(p.User); err == nil { // the name, and never the e-mail address
			who.Name = cmp.Or(u.Name, p.User)
		}
		return who
	}
	if k, err := v.accounts.Key(who.ID); err == nil {
		who.User, who.Name = k.Owner, k.Name
	}
	return who
}
