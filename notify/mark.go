package notify

import (
	"context"
	"hash/maphash"

	"muster"
	"muster/feed"
)

const (
	// MaxMarks is how many notifications one Mark may name.
	MaxMarks = 1000
	maxNote  = 500 // bytes
	// toldAtOnce is of how many recipients an ack that changes figures only is told in its own
	// transaction. With more, those of a moment are told together: 10,000 who ack are not
	// 10,000 times as many messages.
	toldAtOnce = 100
)

// The doors by which a notification is acked.
const (
	DoorLive = "live"
	DoorAPI  = "api"
	DoorMail = "mail"
	DoorMQTT = "mqtt"
)

// Marking moves notifications of one inbox on.
type Marking struct {
	Subject Subject
	IDs     []string
	State   ReceiptState // Delivered, Seen, Read or AckedIt
	Note    string       // with an ack, at most 500 bytes
	Door    string
	Name    string // of who does it, as people know them
}

// Marked is what a Mark did.
type Marked struct {
	Moved   []Receipt // as they are now
	Missing []string  // of the IDs that are not in the inbox
}

// Mark moves receipts on: one that is there already, or further, stays. An ack counts for
// the notification as its ack policy says, stops its escalation, and never opens again
// what is resolved.
func (n *Notify) Mark(ctx context.Context, m Marking) (Marked, error) {
	switch {
	case len(m.IDs) == 0 || len(m.IDs) > MaxMarks:
		return Marked{}, muster.InvalidAt("ids", "1 to %d notifications are marked at once", MaxMarks)
	case m.State <= Sent || m.State > AckedIt:
		return Marked{}, muster.InvalidAt("state", "a notification is marked as seen, read or acked")
	case len(m.Note) > maxNote || !text(m.Note):
		return Marked{}, muster.InvalidAt("note", "the note is not plain text of at most %d bytes", maxNote)
	}
	if m.State != AckedIt {
		return n.markAll(ctx, &m)
	}
	var out Marked
	for _, id := range m.IDs {
		receipt, moved, err := n.ack(ctx, id, &m)
		switch {
		case muster.KindOf(err) == muster.NotFound:
			out.Missing = append(out.Missing, id)
		case err != nil:
			return out, err
		case moved:
			out.Moved = append(out.Moved, receipt)
		}
	}
	return out, nil
}

// markAll moves receipts that concern nobody else, in one transaction.
func (n *Notify) markAll(ctx context.Context, m *Marking) (out Marked, err error) {
	now := n.now()
	var w Write
	for _, id := range m.IDs {
		_, err := n.receipt(ctx, id, m.Subject)
		if muster.KindOf(err) == muster.NotFound {
			out.Missing = append(out.Missing, id)
			continue
		}
		if err != nil {
			return out, err //nolint:wrapcheck // the store says what it was doing
		}
		w.Marks = append(w.Marks, Mark{Notification: id, Subject: m.Subject, State: m.State, At: now})
	}
	if len(w.Marks) == 0 {
		return out, nil
	}
	done, err := n.store.Write(ctx, w)
	if err != nil {
		return out, err //nolint:wrapcheck // likewise
	}
	out.Moved = done.Marked
	return out, nil
}

// ack acks one notification, in turn with the other acks of it.
func (n *Notify) ack(ctx context.Context, id string, m *Marking) (r Receipt, moved bool, err error) {
	turn := n.marking[maphash.String(n.seed, id)%stripes]
	err = inTurn(ctx, turn, func(ctx context.Context) error {
		for range maxTurns {
			r, moved, err = n.ackOnce(ctx, id, m)
			if muster.KindOf(err) != muster.Conflict {
				return err
			}
		}
		return err
	})
	return r, moved, err
}

func (n *Notify) ackOnce(ctx context.Context, id string, m *Marking) (Receipt, bool, error) {
	r, err := n.receipt(ctx, id, m.Subject)
	if err != nil || r.State >= AckedIt {
		return r, false, err //nolint:wrapcheck // the store says what it was doing
	}
	old, err := n.store.Notification(ctx, id)
	if err != nil {
		return r, false, err //nolint:wrapcheck // likewise
	}
	now := n.now()
	note := old
	note.Acks, note.Version, note.Updated = old.Acks+1, old.Version+1, now
	w := Write{Marks: []Mark{{Notification: id, Subject: m.Subject, State: AckedIt, At: now, Note: m.Note, Door: m.Door}}}
	done := acks(&note)
	if done || note.Recipients <= toldAtOnce { // "2 of 3 acked" is told too
		w.Touch = []string{id}
	}
	if done {
		note.State, note.AckedBy, note.AckedAt, note.AckNote, note.EscalateAt = Acked, m.Name, now, m.Note, 0
		t, ok := n.topic(note.Topic)
		if !ok {
			t.Name = note.Topic
		}
		ctx = feed.With(ctx)
		feed.Note(ctx, n.event(feed.NotificationAcked, &t, &note, now))
	}
	w.Updates = []Update{{note, old.Version}}
	written, err := n.store.Write(ctx, w)
	if err != nil {
		return r, false, err //nolint:wrapcheck // likewise
	}
	if len(w.Touch) == 0 {
		n.tellSoon(id)
	}
	if note.State == Open && note.AckPolicy == AckAll { // maybe nobody else is left
		n.escalates(now)
	}
	if len(written.Marked) == 0 {
		return r, false, nil
	}
	return written.Marked[0], true, nil
}

// acks says whether the ack that was just counted makes note acked. What is resolved, or
// acked, stays so.
func acks(note *Notification) bool {
	if note.State != Open {
		return false
	}
	return note.AckPolicy == AckAny || note.AckPolicy == AckAll && note.Acks >= note.Recipients
}

// ReadAll marks everything of an inbox as read that is not newer than upTo, empty for
// all, and returns how many that were. Those beyond a million stay.
func (n *Notify) ReadAll(ctx context.Context, s Subject, upTo string) (int, error) {
	total, before := 0, ""
	if !storable(upTo) {
		return 0, muster.InvalidAt("up_to", "up_to is not the id of a notification")
	}
	if upTo != "" {
		before = upTo + "~" // right behind it
	}
	hidden := n.hidden(n.Owner(s))
	for range 1000 {
		page, err := n.store.Inbox(ctx, InboxQuery{Subject: s, Hidden: hidden, Unread: true, Before: before, Limit: pageSize})
		if err != nil {
			return total, err //nolint:wrapcheck // the store says what it was doing
		}
		if len(page) == 0 {
			break
		}
		var w Write
		for i := range page {
			w.Marks = append(w.Marks, Mark{Notification: page[i].Notification.ID, Subject: s, State: Read, At: n.now()})
		}
		done, err := n.store.Write(ctx, w)
		if err != nil {
			return total, err //nolint:wrapcheck // likewise
		}
		total += len(done.Marked)
		before = page[len(page)-1].Notification.ID
	}
	return total, nil
}

// Items returns a page of an inbox, the newest first, without what is of topics that who has lost.
func (n *Notify) Items(ctx context.Context, who Who, q InboxQuery) ([]Item, error) {
	if q.Subject = who.Subject(); q.Subject == "" {
		return nil, muster.Errorf(muster.Invalid, "an API key has no inbox")
	}
	if !storable(q.Before) {
		return nil, muster.InvalidAt("after", "the page begins after the id of a notification")
	}
	q.Hidden = n.hidden(who)
	hidden := false
	if q.Topic != "" {
		t, ok := n.topic(q.Topic)
		if !ok {
			return nil, errNoTopic()
		}
		q.Topic, hidden = t.ID, !n.sees(who, &t)
	}
	items, err := n.store.Inbox(ctx, q)
	if err == nil && hidden && len(items) == 0 { // who is shown nothing of it does not learn that it is there
		return nil, errNoTopic()
	}
	return items, err //nolint:wrapcheck // the store says what it was doing
}

// Counts returns the figures of what Items shows.
func (n *Notify) Counts(ctx context.Context, who Who) (Counts, error) {
	return n.store.InboxCounts(ctx, who.Subject(), n.hidden(who)) //nolint:wrapcheck // the store says what it was doing
}
