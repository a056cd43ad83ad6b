package notify

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"muster"
	"muster/notify/outbox"
)

const (
	deliveredEvery  = 250 * time.Millisecond
	maxDelivered    = 50_000 // receipts that wait to be marked; beyond, they are not
	deliveredAtOnce = 1000   // in one transaction
	maxTold         = 10_000 // notifications that wait to be told of; beyond, whoever asks sees how they stand
)

// delivered are the receipts that are to be marked as delivered, and the notifications of
// whose figures everybody is to be told.
type delivered struct {
	mu      sync.Mutex
	marks   map[receiptName]muster.Micros // when it was, the first time
	told    map[string]struct{}           // by id
	dropped uint64
}

type receiptName struct {
	notification string
	subject      Subject
}

// Delivered notes that notifications of an inbox were written to a socket, or taken by a channel's receiver: RunDelivered marks
// them a moment later. It waits for nobody. That they were delivered is for people to know
// and changes nothing: when too many wait, further ones are counted and not marked.
func (n *Notify) Delivered(s Subject, ids []string) {
	now := n.now()
	d := &n.delivered
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.marks == nil {
		d.marks = map[receiptName]muster.Micros{}
	}
	for _, id := range ids {
		name := receiptName{id, s}
		if _, ok := d.marks[name]; ok {
			continue
		}
		if len(d.marks) >= maxDelivered {
			d.dropped++
			continue
		}
		d.marks[name] = now
	}
}

// Ended notes which recipients were reached by a channel: what was sent is delivered to them. It implements
// outbox.Config's OnEnded.
func (n *Notify) Ended(list []outbox.Delivery) {
	for i := range list {
		d := &list[i]
		if d.State == outbox.StateSent && d.Notification != "" && (d.Channel == ChannelEmail || d.Channel == ChannelMQTT) {
			n.Delivered(subjectOf(d), []string{d.Notification})
		}
	}
}

// tellSoon has RunDelivered tell the recipients of a notification of its figures.
func (n *Notify) tellSoon(id string) {
	d := &n.delivered
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told == nil {
		d.told = map[string]struct{}{}
	}
	if len(d.told) < maxTold {
		d.told[id] = struct{}{}
	}
}

// DroppedDelivered returns how many receipts were not marked as delivered, since the start.
func (n *Notify) DroppedDelivered() uint64 {
	n.delivered.mu.Lock()
	defer n.delivered.mu.Unlock()
	return n.delivered.dropped
}

// RunDelivered marks what Delivered was told and tells of figures that changed, four times
// a second, until ctx ends, and then what is left.
func (n *Notify) RunDelivered(ctx context.Context) error {
	tick := time.NewTicker(deliveredEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.markDelivered(ctx)
			n.tellFigures(ctx)
		case <-ctx.Done():
			last := context.WithoutCancel(ctx)
			n.markDelivered(last)
			n.tellFigures(last)
			return nil
		}
	}
}

func (n *Notify) markDelivered(ctx context.Context) {
	n.delivered.mu.Lock()
	marks := n.delivered.marks
	n.delivered.marks = nil
	n.delivered.mu.Unlock()
	var w Write
	left := len(marks)
	for name, at := range marks {
		w.Marks = append(w.Marks, Mark{Notification: name.notification, Subject: name.subject, State: Delivered, At: at})
		if left--; left > 0 && len(w.Marks) < deliveredAtOnce {
			continue
		}
		if err := n.writeDelivered(ctx, w); err != nil {
			n.options.Logger.Warn("notifications are not marked as delivered", slog.Int("receipts", len(w.Marks)+left), slog.Any("err", err))
			n.delivered.mu.Lock()
			n.delivered.dropped += uint64(len(w.Marks) + left)
			n.delivered.mu.Unlock()
			return
		}
		w.Marks = w.Marks[:0]
	}
}

func (n *Notify) tellFigures(ctx context.Context) {
	n.delivered.mu.Lock()
	told := n.delivered.told
	n.delivered.told = nil
	n.delivered.mu.Unlock()
	for id := range told {
		if err := n.writeDelivered(ctx, Write{Touch: []string{id}}); err != nil {
			n.options.Logger.Warn("who acked is not told", slog.String("notification", id), slog.Any("err", err))
		}
	}
}

func (n *Notify) writeDelivered(ctx context.Context, w Write) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	_, err := n.store.Write(ctx, w)
	return err //nolint:wrapcheck // the store says what it was doing
}
