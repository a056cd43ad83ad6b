package hooks

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"time"

	"muster"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
)

const (
	// Channel is the outbox's channel that sends to webhooks.
	Channel = "webhook"

	fanOutCursor = "notify.webhooks"
	fanOutPause  = time.Second
)

// Queue returns the outbox's queue of a webhook: each has its own breaker.
func Queue(id string) string { return Channel + ":" + id }

// Deliveries keeps what is to be delivered, and how far the feed was read, in one
// transaction.
type Deliveries interface {
	Write(ctx context.Context, w notify.Write) (notify.Written, error)
	Cursor(ctx context.Context, name string) (notify.Cursor, error)
}

// Words knows the topics of notifications, and how they word webhooks.
type Words interface {
	// TopicOf returns the id of a notification's topic; NotFound when either is gone.
	TopicOf(ctx context.Context, notification string) (string, error)
	// Shows says whether who answers for the webhook may learn of an event now.
	Shows(ctx context.Context, h Webhook, e *feed.Event) (bool, error)
	// Words words a notification, as it stood in a state, for a webhook that names its topic.
	// NotFound when it or its topic is gone, Forbidden when who answers for the webhook does
	// not see the topic.
	Words(ctx context.Context, h Webhook, notification string, state notify.NotificationState) (notify.Words, error)
}

// FanOut makes a delivery of each event for each webhook that wants it. It goes on where it
// was before a restart: each event is looked at once.
type FanOut struct {
	hooks *Webhooks
	feed  *feed.Feed
	store Deliveries
	words Words
	now   func() time.Time
	log   *slog.Logger
}

// NewFanOut returns a FanOut that reads f.
func NewFanOut(w *Webhooks, f *feed.Feed, store Deliveries, words Words, now func() time.Time, log *slog.Logger) *FanOut {
	return &FanOut{w, f, store, words, now, log}
}

// Begin keeps where Run begins to read the feed when it has no place yet: here. Call it once,
// before the first request is answered.
func (f *FanOut) Begin(ctx context.Context) error {
	_, err := notify.PlaceIn(ctx, f.feed, f.store, fanOutCursor)
	return err //nolint:wrapcheck // the store says what it was doing
}

// Run follows the feed until ctx ends.
func (f *FanOut) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if err != nil && ctx.Err() == nil {
			f.log.Warn("webhooks wait for their events", "err", err)
		}
		select {
		case <-time.After(fanOutPause):
		case <-ctx.Done():
		}
	}
	return nil
}

// follow runs until an error, or returns when there is nothing to be read here yet.
func (f *FanOut) follow(ctx context.Context) error {
	c, err := notify.PlaceIn(ctx, f.feed, f.store, fanOutCursor)
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	if c.Seq > f.feed.Last() {
		return nil // another process has looked at what this one does not know of yet
	}
	r, err := f.feed.Follow(c.Seq)
	if muster.KindOf(err) == muster.NotFound {
		f.log.Error("events went by that webhooks are not told of", "after", c.Seq)
		r, err = f.feed.Follow(-1)
	}
	if err != nil {
		return err //nolint:wrapcheck // it says what is not kept
	}
	return notify.FollowFeed(ctx, r, c, f.store, func(ctx context.Context, events []feed.Event) (notify.Write, error) {
		var batch outbox.Batch
		for i := range events {
			b, err := f.deliveries(ctx, &events[i])
			if err != nil {
				return notify.Write{}, err
			}
			batch.Add(b)
		}
		return notify.Write{Out: batch}, nil
	})
}

// deliveries are those of one event, of which all have one content.
func (f *FanOut) deliveries(ctx context.Context, e *feed.Event) (b outbox.Batch, err error) {
	now := muster.MicrosOf(f.now())
	own := deadTarget(e)
	about, note := aboutOf(e)
	if note && about.TopicID == "" && f.hooks.naming(e.Type) { // of a private topic: the feed does not tell which
		about.TopicID, err = f.words.TopicOf(ctx, about.Notification)
		if err != nil && muster.KindOf(err) != muster.NotFound {
			return b, err //nolint:wrapcheck // it says what it was doing
		}
	}
	for _, h := range f.hooks.matching(e, about.TopicID) {
		if h.ID == own { // it does not take what it is told: this would never end
			continue
		}
		if named := note && len(h.Topics) > 0; !named { // of a topic that it names it is dropped, and says so
			shown, err := f.words.Shows(ctx, h, e)
			if err != nil {
				return b, err //nolint:wrapcheck // it says what it was doing
			}
			if !shown {
				continue
			}
		}
		b.Deliveries = append(b.Deliveries, outbox.Delivery{
			ID: outbox.NewID(outbox.IDPrefix, now), Channel: Channel, Queue: Queue(h.ID), Target: h.ID, Content: e.ID(), Lane: outbox.Normal,
			Notification: about.Notification, State: outbox.StateQueued, Due: now, Created: now,
		})
	}
	if len(b.Deliveries) > 0 {
		b.Contents = []outbox.Content{{ID: e.ID(), Body: MessageOf(*e).Body}}
	}
	return b, nil
}

// deadTarget returns the webhook whose delivery was given up, when e tells of that.
func deadTarget(e *feed.Event) string {
	if e.Type != feed.DeliveryDead {
		return ""
	}
	var d struct {
		Channel string `json:"channel"`
		Target  string `json:"target"`
	}
	if err := json.Unmarshal(e.Data, &d); err != nil || d.Channel != Channel {
		return ""
	}
	return d.Target
}

// about is what of an event's data is looked at here.
type about struct {
	Notification string `json:"notification"`
	TopicID      string `json:"topic_id"`
}

func aboutOf(e *feed.Event) (a about, ok bool) {
	if !strings.HasPrefix(e.Type, "notification.") {
		return a, false
	}
	_ = json.Unmarshal(e.Data, &a) // always an object
	return a, true
}

// Webhook returns where deliveries of a webhook go and what they say. NotFound when there
// is no such webhook any more, or it is disabled, or who answers for it may not learn any more of
// what is told.
func (f *FanOut) Webhook(ctx context.Context, ds []outbox.Delivery) (Target, Message, error) {
	h, err := f.hooks.Get(ds[0].Target)
	if err != nil {
		return Target{}, Message{}, err
	}
	if h.Disabled {
		return Target{}, Message{}, muster.Errorf(muster.NotFound, "the webhook is disabled")
	}
	m, err := f.message(ctx, &h, &ds[0])
	if err != nil {
		return Target{}, Message{}, err
	}
	keys, err := f.hooks.Keys(h)
	if err != nil {
		return Target{}, Message{}, err
	}
	return Target{h.URL, keys}, m, nil
}
