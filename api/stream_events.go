package api

import (
	"context"
	"encoding/json"
	"fmt"

	"muster"
	"muster/accounts"
	"muster/feed"
)

const (
	eventsAtOnce = 256 // events read before they are written
	maxPlace     = 128 // bytes of a place
)

// eventStream is a stream of the feed's events.
type eventStream struct {
	*stream
	follow *feed.Follower
}

// followEvents checks what in asks for and finds the client's place.
func (a *API) followEvents(ctx context.Context, st *stream, in *streamInput) (*eventStream, error) {
	if !st.who.Allows(accounts.TelemetryRead) { // as the other channels; devices:read was asked for
		return nil, muster.Errorf(muster.Forbidden, "this needs the scopes %s and %s", accounts.DevicesRead, accounts.TelemetryRead)
	}
	match, err := a.Registry.Matcher(in.Q, st.who.Selector)
	if err != nil {
		return nil, muster.At(err, "q")
	}
	place := in.LastID
	if place == "" {
		place = in.After
	}
	if len(place) > maxPlace {
		return nil, muster.InvalidAt("after", "a place in the stream has at most %d bytes", maxPlace)
	}
	who := a.asking(ctx)
	follow, err := a.Feed.Open(feed.Ask{Types: in.Types, Place: place, Match: match, Show: func(ctx context.Context, e *feed.Event) bool {
		return a.Notify.Shows(ctx, who, e)
	}})
	if err != nil {
		return nil, err
	}
	return &eventStream{st, follow}, nil
}

// run writes events until ctx ends.
func (e *eventStream) run(ctx context.Context) error {
	if !e.putReset() {
		e.putPlace() // so that a client knows its place before the first event
	}
	for {
		if err := e.flush(); err != nil {
			return err
		}
		if err := e.admitted(); err != nil {
			return nil //nolint:nilerr // the session or key has ended: so does the stream
		}
		if err := e.next(ctx); err != nil {
			return err
		}
	}
}

// next puts what comes next into the buffer: events, or a sign of life.
func (e *eventStream) next(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, e.due())
	defer cancel()
	events, err := e.follow.Next(wait, eventsAtOnce)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && wait.Err() != nil:
		e.buf = append(e.buf, ":\n"...) // a comment
		e.putPlace()
		return nil
	case err != nil:
		return err
	}
	e.putReset()
	for i := range events {
		e.putEvent(&events[i])
	}
	if len(e.buf) == 0 && e.due() == 0 { // nothing passes the filter for long
		e.putPlace()
	}
	e.pending += len(events)
	return nil
}

func (e *eventStream) putEvent(ev *feed.Event) {
	e.putID(e.follow.PlaceOf(ev.Seq))
	e.buf = append(append(e.buf, "data: "...), ev.Envelope()...)
	e.buf = append(e.buf, "\n\n"...)
}

// putPlace tells the client where it is, without an event.
func (e *eventStream) putPlace() {
	e.putID(e.follow.Place())
	e.buf = append(e.buf, '\n')
}

func (e *eventStream) putID(place string) {
	e.buf = append(append(append(e.buf, "id: "...), place...), '\n')
}

// putReset says, when it is so, that events are missing between the client's place and
// what follows.
func (e *eventStream) putReset() bool {
	reset := e.follow.Reset()
	if reset == "" {
		return false
	}
	e.putID(e.follow.Place())
	why, err := json.Marshal(reset)
	if err != nil { // a string always can be
		panic(fmt.Errorf("write a reason: %w", err))
	}
	e.buf = append(append(append(e.buf, "event: reset\ndata: {\"reason\":"...), why...), "}\n\n"...)
	return true
}
