package feed

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"muster"
)

// maxTypes is how many patterns one follower may have.
const maxTypes = 32

// Ask is what a follower is to be told of, and from where on.
type Ask struct {
	Types string // types, or families with .*, separated by commas; empty for all
	Place string // the place of the last event that was read, "<epoch>-<number>"; empty for from now on
	// Match says whether a device is asked for, now. With it, events without a device
	// are not; nil asks for all.
	Match func(muster.DeviceID) bool
	// Show says whether who asks may learn of an event, now; nil for any.
	Show func(context.Context, *Event) bool
}

// Follower is a place in the feed and a filter: what server-sent events and the live
// gateway have in common. It is for one goroutine, but Ready may be asked by any.
type Follower struct {
	feed   *Feed
	reader *Reader
	types  []string
	match  func(muster.DeviceID) bool
	show   func(context.Context, *Event) bool
	at     atomic.Int64
	reset  string // why events are missing before what comes next; empty when none are
}

// Open returns a follower as a asks. Invalid when there is no such type, or what is given
// as a place is none. A place that is of another feed, or not kept any more, is no error:
// see Reset.
func (f *Feed) Open(a Ask) (*Follower, error) {
	w := &Follower{feed: f, match: a.Match, show: a.Show}
	if a.Types != "" {
		w.types = strings.Split(a.Types, ",")
	}
	if len(w.types) > maxTypes {
		return nil, muster.InvalidAt("types", "types has %d patterns, at most %d are allowed", len(w.types), maxTypes)
	}
	for _, t := range w.types {
		if !KnownFilter(t) {
			return nil, muster.InvalidAt("types", "there is no type of event %.64q; /api/v1/event-types has all", t)
		}
	}
	seq := int64(-1)
	if a.Place != "" {
		i := strings.LastIndexByte(a.Place, '-')
		n, err := strconv.ParseInt(a.Place[i+1:], 10, 64)
		if i <= 0 || err != nil || n < 0 {
			return nil, muster.InvalidAt("after", "the place in the stream is the id of an event that was read")
		}
		if seq = n; a.Place[:i] != f.Epoch() {
			w.reset, seq = "this is another feed than the one that was read", -1
		}
	}
	err := w.follow(seq)
	return w, err
}

// follow goes on after seq, or from now on when what came after it is not kept.
func (w *Follower) follow(seq int64) (err error) {
	w.reader, err = w.feed.Follow(seq)
	if err != nil && muster.KindOf(err) == muster.NotFound {
		w.reset = muster.Public(err)
		w.reader, err = w.feed.Follow(-1)
	}
	if err == nil {
		w.at.Store(w.reader.At())
	}
	return err
}

// Reset returns why events are missing between what was read last and what comes next,
// once; empty when none are.
func (w *Follower) Reset() string {
	why := w.reset
	w.reset = ""
	return why
}

// Ready says whether Next has something to look at, or something to tell by Reset.
func (w *Follower) Ready() bool { return w.feed.Last() > w.at.Load() }

// At returns the number of the last event that was looked at.
func (w *Follower) At() int64 { return w.at.Load() }

// Place returns it with the feed's epoch: to be given as Ask.Place by who comes again.
func (w *Follower) Place() string { return w.PlaceOf(w.At()) }

// PlaceOf returns the place of event seq.
func (w *Follower) PlaceOf(seq int64) string {
	return w.feed.Epoch() + "-" + strconv.FormatInt(seq, 10)
}

// Next waits for events, looks at up to limit and returns those that are asked for, maybe
// none, in their order. Of a follower that fell behind what is kept it returns none, and
// Reset says so. It fails with ctx's error when ctx ends, and when the store does.
func (w *Follower) Next(ctx context.Context, limit int) ([]Event, error) {
	events, err := w.reader.Next(ctx, limit)
	if err != nil && muster.KindOf(err) == muster.NotFound {
		w.reset = muster.Public(err)
		return nil, w.follow(-1)
	}
	if err != nil {
		return nil, err
	}
	w.at.Store(w.reader.At())
	kept := events[:0]
	for i := range events {
		if w.wants(&events[i]) && (w.show == nil || w.show(ctx, &events[i])) {
			kept = append(kept, events[i])
		}
	}
	return kept, nil
}

// wants says whether an event passes the filter: by its type, and by its device as it is
// now. One without a device, or whose device is gone, passes no query.
func (w *Follower) wants(e *Event) bool {
	if len(w.types) > 0 && !slices.ContainsFunc(w.types, func(t string) bool { return Matches(t, e.Type) }) {
		return false
	}
	return w.match == nil || e.Device != "" && w.match(e.Device)
}
