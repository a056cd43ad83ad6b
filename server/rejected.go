package server

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/feed"
)

const (
	maxRejected     = 10_000           // events that wait to be written; further ones are dropped and counted
	maxRejecters    = 100_000          // devices remembered in a minute; of further ones nothing is told
	rejectedBatch   = 1000             // events in one transaction
	rejectedRetry   = time.Second      // after a failure
	rejectedTimeout = 10 * time.Second // for one transaction
)

// noteWriter writes what was noted under a context; it is *control.Control.
type noteWriter interface {
	WriteNotes(ctx context.Context) error
}

// rejections has the feed tell of rejected messages: of the first of a device in each
// minute. It never makes those wait who report one.
type rejections struct {
	store noteWriter
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	minute  int64                        // since 1970
	told    map[muster.DeviceID]struct{} // in it
	queue   []feed.Event
	dropped atomic.Uint64
	wake    chan struct{} // holds one; more means the same
}

func newRejections(store noteWriter, now func() time.Time, log *slog.Logger) *rejections {
	return &rejections{store: store, now: now, log: log, told: map[muster.DeviceID]struct{}{}, wake: make(chan struct{}, 1)}
}

// rejectedNews is the data of an event.
type rejectedNews struct {
	Device muster.DeviceID `json:"device"`
	Code   string          `json:"code"`
	Detail string          `json:"detail"`
}

// add takes a rejected message.
func (j *rejections) add(r *muster.Rejected) {
	if r.Device == "" || !j.first(r.Device) {
		return
	}
	j.note(feed.NewEvent(feed.TelemetryRejected, r.Device, r.Arrival, rejectedNews{r.Device, r.Code, r.Reason}))
}

// note takes an event that is to be written; what finds no room is dropped and counted. It does not wait.
func (j *rejections) note(e feed.Event) {
	j.mu.Lock()
	full := len(j.queue) >= maxRejected
	if !full {
		j.queue = append(j.queue, e)
	}
	j.mu.Unlock()
	if full {
		j.dropped.Add(1)
		return
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// first says whether it is the first of a device in this minute.
func (j *rejections) first(id muster.DeviceID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if m := j.now().Unix() / 60; m != j.minute {
		j.minute = m
		clear(j.told)
	}
	if _, ok := j.told[id]; ok {
		return false
	}
	if len(j.told) >= maxRejecters {
		j.dropped.Add(1)
		return false
	}
	j.told[id] = struct{}{}
	return true
}

func (j *rejections) take() []feed.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := min(rejectedBatch, len(j.queue))
	out := j.queue[:n:n]
	j.queue = j.queue[n:]
	return out
}

func (j *rejections) write(ctx context.Context, events []feed.Event) error {
	ctx, cancel := context.WithTimeout(feed.With(ctx), rejectedTimeout)
	defer cancel()
	feed.Note(ctx, events...)
	return j.store.WriteNotes(ctx)
}

// Run writes what was added until ctx ends, and then what is left, once.
func (j *rejections) Run(ctx context.Context) error {
	for {
		select {
		case <-j.wake:
		case <-ctx.Done():
			return j.last(context.WithoutCancel(ctx))
		}
		for ctx.Err() == nil {
			events := j.take()
			if len(events) == 0 {
				break
			}
			j.persist(ctx, events)
		}
	}
}

// persist tries until the store takes events, or ctx ends: then they wait for last.
func (j *rejections) persist(ctx context.Context, events []feed.Event) {
	for ctx.Err() == nil {
		err := j.write(context.WithoutCancel(ctx), events)
		if err == nil {
			return
		}
		j.log.Warn("events of rejected messages wait for the store", "err", err)
		select {
		case <-time.After(rejectedRetry):
		case <-ctx.Done():
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = append(events, j.queue...)
}

func (j *rejections) last(ctx context.Context) error {
	for events := j.take(); len(events) > 0; events = j.take() {
		if err := j.write(ctx, events); err != nil {
			return err
		}
	}
	return nil
}
