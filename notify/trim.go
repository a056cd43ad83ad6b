package notify

import (
	"context"
	"time"

	"muster"
)

const (
	trimEvery = time.Minute
	trimStep  = 500
	trimSteps = 20 // of one topic in a row
)

// RunTrim forgets notifications that are older than their topic keeps them, and those of
// topics that are gone, in small steps, until ctx ends. One that escalates stays until
// nobody is to be told any more. What waits to go out goes out all the same, but for what is of a topic
// that was deleted.
func (n *Notify) RunTrim(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.deleted:
		case <-ctx.Done():
			return nil
		}
		if err := n.trim(ctx); err != nil && ctx.Err() == nil {
			n.options.Logger.Warn("old notifications are not forgotten yet", "err", err)
		}
	}
}

func (n *Notify) trim(ctx context.Context) error {
	forgotten := 0
	defer func() {
		if forgotten > 0 { // what was in inboxes is not: their figures are others
			n.inbox.Recount()
		}
	}()
	for _, t := range n.all() {
		gone, err := n.trimTopic(ctx, t.ID, n.now()-muster.Micros(t.Retention.Microseconds()))
		if forgotten += gone; err != nil {
			return err
		}
	}
	orphans, err := n.store.OrphanTopics(ctx, trimSteps)
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	for _, id := range orphans {
		gone, err := n.trimTopic(ctx, id, 0)
		if forgotten += gone; err != nil {
			return err
		}
	}
	return nil
}

// trimTopic returns how many were forgotten, also with an error.
func (n *Notify) trimTopic(ctx context.Context, id string, before muster.Micros) (forgotten int, err error) {
	for range trimSteps {
		gone, err := n.store.TrimNotifications(ctx, id, before, trimStep)
		forgotten += gone
		if err != nil || gone < trimStep {
			return forgotten, err //nolint:wrapcheck // the store says what it was doing
		}
	}
	return forgotten, nil
}
