package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/devices/query"
	"muster/feed"
)

const (
	maxTypes     = 32               // patterns in types
	eventsAtOnce = 256              // events read before they are written
	queryFresh   = 10 * time.Second // that a compiled query is used: groups may change
)

// eventStream is a stream of the feed's events.
type eventStream struct {
	*stream
	reader  *feed.Reader
	types   []string
	queries []string      // that a device must match, all of them
	exprs   []*query.Expr // of queries, compiled at
	at      time.Time
	broken  bool   // one of queries cannot be compiled now
	reset   string // why the client's place is not known any more, empty when it is
}

// followEvents checks what in asks for and finds the client's place.
func (a *API) followEvents(st *stream, in *streamInput) (*eventStream, error) {
	e := &eventStream{stream: st}
	if in.Types != "" {
		e.types = strings.Split(in.Types, ",")
	}
	if len(e.types) > maxTypes {
		return nil, muster.Errorf(muster.Invalid, "types has %d patterns, at most %d are allowed", len(e.types), maxTypes)
	}
	for _, t := range e.types {
		if !feed.KnownFilter(t) {
			return nil, muster.Errorf(muster.Invalid, "there is no type of event %.64q; /api/v1/event-types has all", t)
		}
	}
	for _, q := range []string{in.Q, st.who.Selector} {
		if q != "" {
			e.queries = append(e.queries, q)
		}
	}
	if err := e.compile(); err != nil {
		return nil, err
	}
	place := in.LastID
	if place == "" {
		place = in.After
	}
	err := e.find(place)
	return e, err
}

func (e *eventStream) compile() error {
	e.exprs, e.at, e.broken = e.exprs[:0], time.Now(), false
	for _, q := range e.queries {
		x, err := e.api.Registry.Compile(q)
		if err != nil {
			e.broken = true
			return err
		}
		e.exprs = append(e.exprs, x)
	}
	return nil
}

// find goes on after place, an id that was sent before, or from now on when it is empty.
func (e *eventStream) find(place string) (err error) {
	seq := int64(-1)
	if place != "" {
		i := strings.LastIndexByte(place, '-')
		seq, err = strconv.ParseInt(place[i+1:], 10, 64)
		if i <= 0 || err != nil || seq < 0 {
			return muster.Errorf(muster.Invalid, "the place in the stream is the id of an event that was read")
		}
		if place[:i] != e.api.Feed.Epoch() {
			e.reset, seq = "this is another feed than the one that was read", -1
		}
	}
	e.reader, err = e.api.Feed.Follow(seq)
	if err != nil && muster.KindOf(err) == muster.NotFound {
		e.reset = muster.Public(err)
		e.reader, err = e.api.Feed.Follow(-1)
	}
	return err
}

// run writes events until ctx ends.
func (e *eventStream) run(ctx context.Context) error {
	if e.reset != "" {
		e.putReset()
	} else {
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
	events, err := e.reader.Next(wait, eventsAtOnce)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && wait.Err() != nil:
		e.buf = append(e.buf, ":\n"...) // a comment
		e.putPlace()
		return nil
	case err != nil && muster.KindOf(err) == muster.NotFound: // it fell behind what is kept
		e.reset = muster.Public(err)
		if e.reader, err = e.api.Feed.Follow(-1); err == nil {
			e.putReset()
		}
		return err
	case err != nil:
		return err
	}
	for i := range events {
		if e.wants(&events[i]) {
			e.put(&events[i])
		}
	}
	if len(e.buf) == 0 && e.due() == 0 { // nothing passes the filter for long
		e.putPlace()
	}
	return nil
}

// wants says whether an event passes the filter: by its type, and by its device as it is
// now. One without a device, or whose device is gone, passes no query.
func (e *eventStream) wants(ev *feed.Event) bool {
	if len(e.types) > 0 && !slices.ContainsFunc(e.types, func(t string) bool { return feed.Matches(t, ev.Type) }) {
		return false
	}
	if len(e.queries) == 0 {
		return true
	}
	if ev.Device == "" {
		return false
	}
	if time.Since(e.at) > queryFresh {
		_ = e.compile() // a query that names a group that is gone selects nothing until it is back
	}
	if e.broken {
		return false
	}
	for _, x := range e.exprs {
		if !e.api.Registry.Matches(ev.Device, x) {
			return false
		}
	}
	return true
}

func (e *eventStream) put(ev *feed.Event) {
	e.putID(ev.Seq)
	e.buf = append(append(e.buf, "data: "...), ev.Envelope()...)
	e.buf = append(e.buf, "\n\n"...)
}

// putPlace tells the client where it is, without an event.
func (e *eventStream) putPlace() {
	e.putID(e.reader.At())
	e.buf = append(e.buf, '\n')
}

func (e *eventStream) putID(seq int64) {
	e.buf = append(append(append(e.buf, "id: "...), e.api.Feed.Epoch()...), '-')
	e.buf = append(strconv.AppendInt(e.buf, seq, 10), '\n')
}

// putReset says that events are missing between the client's place and what follows.
func (e *eventStream) putReset() {
	e.putID(e.reader.At())
	why, err := json.Marshal(e.reset)
	if err != nil { // a string always can be
		panic(fmt.Errorf("write a reason: %w", err))
	}
	e.buf = append(append(append(e.buf, "event: reset\ndata: {\"reason\":"...), why...), "}\n\n"...)
	e.reset = ""
}
