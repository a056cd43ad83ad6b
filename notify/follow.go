package notify

import (
	"context"
	"errors"
	"time"

	"muster"
	"muster/feed"
)

const (
	feedAtOnce = 200
	// cursorTime is how long a cursor may wait to be kept when the events before it made
	// nothing: looking at them again makes nothing again.
	cursorTime = time.Second
)

// Places keeps how far readers of the feed have come.
type Places interface {
	Writer
	Cursor(ctx context.Context, name string) (Cursor, error)
}

// PlaceIn returns how far a reader of f has come. One that was never there, or whose place is in
// another feed, begins at its end, which is kept at once: who asks before the first request is
// answered misses nothing that comes of it, whenever the process ends.
func PlaceIn(ctx context.Context, f *feed.Feed, store Places, name string) (Cursor, error) {
	for range maxTurns - 1 {
		c, err := placeIn(ctx, f, store, name)
		if muster.KindOf(err) != muster.Conflict { // another process has begun
			return c, err
		}
	}
	return placeIn(ctx, f, store, name)
}

func placeIn(ctx context.Context, f *feed.Feed, store Places, name string) (Cursor, error) {
	c, err := store.Cursor(ctx, name)
	if err != nil {
		return c, err //nolint:wrapcheck // the store says what it was doing
	}
	c.kept()
	if c.Epoch == f.Epoch() {
		return c, nil
	}
	c.Epoch, c.Seq = f.Epoch(), f.Last()
	if _, err := store.Write(ctx, Write{Cursor: &c}); err != nil {
		return c, err //nolint:wrapcheck // likewise
	}
	c.kept()
	return c, nil
}

// Writer keeps what was made of events, with the cursor, in one transaction.
type Writer interface {
	Write(ctx context.Context, w Write) (Written, error)
}

// FollowFeed gives events to look, in order, and writes what it makes of them with the
// cursor, until an error; a Conflict when another process did so meanwhile. Each event is
// looked at once, also over a restart, except for those of the last second of which nothing
// was made.
func FollowFeed(ctx context.Context, r *feed.Reader, c Cursor, store Writer, look func(context.Context, []feed.Event) (Write, error)) error {
	write := func(ctx context.Context, w Write) error {
		_, err := store.Write(ctx, w)
		return err //nolint:wrapcheck // the store says what it was doing
	}
	keep := func(ctx context.Context, c Cursor) error { return write(ctx, Write{Cursor: &c}) }
	return followFeed(ctx, r, c, keep, func(events []feed.Event, c *Cursor) (bool, error) {
		w, err := look(ctx, events)
		if err != nil {
			return false, err
		}
		if len(w.Out.Deliveries) == 0 && len(w.New) == 0 {
			return false, nil
		}
		w.Cursor = c
		return true, write(ctx, w)
	})
}

// followFeed gives events to look, which says whether it kept the cursor behind them, and
// else keeps it soon after.
func followFeed(ctx context.Context, r *feed.Reader, c Cursor, keep func(context.Context, Cursor) error, look func([]feed.Event, *Cursor) (bool, error)) error {
	c.Seq = r.At()
	if err := keep(ctx, c); err != nil {
		return err
	}
	c.kept()
	var since time.Time // when the first event was looked at that the kept cursor is before; zero for none
	for {
		events, err := nextEvents(ctx, r, since)
		if err != nil {
			return err
		}
		kept := false
		if len(events) > 0 {
			c.Seq = r.At()
			if kept, err = look(events, &c); err != nil {
				return err
			}
		}
		switch {
		case kept:
			c.kept()
			since = time.Time{}
		case !since.IsZero() && time.Since(since) >= cursorTime:
			if err := keep(ctx, c); err != nil {
				return err
			}
			c.kept()
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
	}
}

// nextEvents waits for events; when a cursor is to be kept, no longer than that may wait.
func nextEvents(ctx context.Context, r *feed.Reader, since time.Time) ([]feed.Event, error) {
	if since.IsZero() {
		return r.Next(ctx, feedAtOnce) //nolint:wrapcheck // the feed says what it was doing
	}
	c, cancel := context.WithDeadline(ctx, since.Add(cursorTime))
	defer cancel()
	events, err := r.Next(c, feedAtOnce)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil
	}
	return events, err //nolint:wrapcheck // likewise
}
