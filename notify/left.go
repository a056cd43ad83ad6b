package notify

import (
	"context"
	"slices"

	"muster"
	"muster/feed"
)

const (
	leftAtOnce = 100
	// leftNote is kept as the ack's note of what was closed since nobody is left who could ack it.
	leftNote = "Everybody else has acknowledged it; who has not is disabled, or has lost the topic."
)

// closeLeft has those be acked that all recipients must ack, that some have acked, and that only
// those have not who are disabled or deleted or have lost the topic: they would hold it open for ever. With no ack at all it
// stays open, and escalates: nobody takes care of it.
func (n *Notify) closeLeft(ctx context.Context) error {
	after := ""
	for {
		page, err := n.store.AckedBySome(ctx, after, leftAtOnce)
		if err != nil {
			return err //nolint:wrapcheck // the store says what it was doing
		}
		for i := range page {
			err := n.closeOne(ctx, page[i])
			if err != nil && muster.KindOf(err) != muster.Conflict { // then somebody acked, and it is looked at again
				return err
			}
		}
		if len(page) < leftAtOnce {
			return nil
		}
		after = page[len(page)-1].ID
	}
}

func (n *Notify) closeOne(ctx context.Context, old Notification) error {
	if waits, err := n.awaited(ctx, &old); err != nil || waits {
		return err
	}
	note, now := old, n.now()
	note.State, note.AckedBy, note.AckedAt, note.AckNote, note.EscalateAt = Acked, "Muster", now, leftNote, 0
	note.Updated, note.Version = now, old.Version+1
	t, ok := n.topic(note.Topic)
	if !ok {
		t.Name = note.Topic
	}
	ctx = feed.With(ctx)
	feed.Note(ctx, n.event(feed.NotificationAcked, &t, &note, now))
	_, err := n.store.Write(ctx, Write{Updates: []Update{{note, old.Version}}, Touch: []string{note.ID}})
	return err //nolint:wrapcheck // likewise
}

// awaited says whether somebody who is here, and may, has not acked a notification.
func (n *Notify) awaited(ctx context.Context, note *Notification) (bool, error) {
	may := func(s Subject) bool { return n.present(s) && n.shown(s, note.Topic) }
	var after Subject
	for {
		page, err := n.store.Unacked(ctx, note.ID, after, leftAtOnce)
		if err != nil {
			return false, err //nolint:wrapcheck // the store says what it was doing
		}
		if here := slices.ContainsFunc(page, may); here || len(page) < leftAtOnce {
			return here, nil
		}
		after = page[len(page)-1]
	}
}
