package notify

import (
	"context"
	"slices"

	"muster"
	"muster/feed"
)

// endsAtOnce is how many that are open about a device are read at once.
const endsAtOnce = 100

// keyIn is a dedup key of a topic.
type keyIn struct{ topic, key string }

// aboutOf is what is kept of a notification that events about its device end: those that m says, and
// that the device is deleted.
func aboutOf(note *Notification, m *Message) []About {
	if len(m.clears) == 0 || note.Device == "" {
		return nil
	}
	clears := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(m.clears), feed.DeviceDeleted))))
	return []About{{Notification: note.ID, Topic: note.Topic, Device: note.Device, Clears: clears}}
}

// tooLate says whether e is about a device that is gone: what is told of it then would never end.
func (n *Notify) tooLate(e *feed.Event) bool {
	return e.Device != "" && e.Type != feed.DeviceDeleted && !n.hasDevice(e.Device)
}

// composeEnds ends what sources told of the device of e and e clears, also when the topic is inactive
// or has other sources by now. It returns the keys of what it ended. What the sources of today tell
// of e is counted up instead.
func (n *Notify) composeEnds(ctx context.Context, e *feed.Event, topics []Topic, all *composed) (map[keyIn]bool, error) {
	ended := map[keyIn]bool{}
	if e.Device == "" {
		return ended, nil
	}
	tells := n.toldKeys(topics, e)
	after := ""
	for {
		page, err := n.store.OpenAbout(ctx, e.Device, after, endsAtOnce)
		if err != nil {
			return nil, err //nolint:wrapcheck // the store says what it was doing
		}
		for i := range page {
			if !matchesAny(page[i].Clears, e.Type) {
				continue
			}
			if err := n.composeEnd(ctx, &page[i], e, tells, ended, all); err != nil {
				return nil, err
			}
		}
		if len(page) < endsAtOnce {
			return ended, nil
		}
		after = page[len(page)-1].Notification
	}
}

// composeEnd ends one, unless it is told again, gone or over.
func (n *Notify) composeEnd(ctx context.Context, a *About, e *feed.Event, tells, ended map[keyIn]bool, all *composed) error {
	t, err := n.topicFor(ctx, a.Topic)
	if muster.KindOf(err) == muster.NotFound { // it goes with its topic
		return nil
	}
	if err != nil {
		return err
	}
	old, err := n.store.Notification(ctx, a.Notification)
	if muster.KindOf(err) == muster.NotFound {
		return nil
	}
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	at := keyIn{old.Topic, old.DedupKey}
	if old.State == Resolved || tells[at] {
		return nil
	}
	part, err := n.resolve(ctx, &t, old, &Message{Body: words(e)})
	if err != nil {
		return err
	}
	all.add(&part)
	ended[at] = true
	return nil
}

// toldKeys are the dedup keys of what sources tell of e.
func (n *Notify) toldKeys(topics []Topic, e *feed.Event) map[keyIn]bool {
	out := map[keyIn]bool{}
	for i := range topics {
		for _, m := range n.messagesOf(&topics[i], e) {
			if !m.Resolve {
				out[keyIn{topics[i].ID, m.DedupKey}] = true
			}
		}
	}
	return out
}
