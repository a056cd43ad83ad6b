package api

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/devices/query"
	"muster/feed"
)

const (
	maxStreams    = 2000           // open at once
	maxOwnStreams = 20             // of one user, or of one key
	streamTime    = 24 * time.Hour // then a client comes again
	streamBeat    = 15 * time.Second
	streamRetry   = 2 * time.Second  // that a client waits before it comes again
	streamSpread  = 10 * time.Second // over which clients come again after the server stopped
	eventsChannel = "events"
)

// EventFeed is what the API needs of *feed.Feed.
type EventFeed interface {
	Epoch() string
	Follow(seq int64) (*feed.Reader, error)
}

// DeviceMatcher says whether a device is selected by a query, now.
type DeviceMatcher interface {
	Matches(id muster.DeviceID, e *query.Expr) bool
}

// streams are those that are open.
type streams struct {
	mu     sync.Mutex
	closed bool
	open   map[*stream]struct{} // at most maxStreams
	owners map[string]int
}

// stream is one answer of server-sent events (WHATWG HTML, section 9.2).
type stream struct {
	api  *API
	who  accounts.Principal
	req  *http.Request
	end  context.CancelCauseFunc
	w    http.ResponseWriter
	last time.Time // when something was written
	buf  []byte
}

var (
	errRevoked  = errors.New("the session or key has ended")
	errStopping = errors.New("the server is stopping")
)

// streamOwner is whose streams are counted together: a user's over all sessions.
func streamOwner(p accounts.Principal) string { return cmp.Or(p.User, p.ID) }

func (s *streams) enter(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner := streamOwner(st.who)
	switch {
	case s.closed:
		return muster.Errorf(muster.Unavailable, "the server is stopping")
	case len(s.open) >= maxStreams:
		return muster.Errorf(muster.Busy, "%d streams are open, more are not allowed", maxStreams)
	case s.owners[owner] >= maxOwnStreams:
		return muster.Errorf(muster.Busy, "%d streams of yours are open, more are not allowed", maxOwnStreams)
	}
	if s.open == nil {
		s.open, s.owners = map[*stream]struct{}{}, map[string]int{}
	}
	s.open[st] = struct{}{}
	s.owners[owner]++
	return nil
}

func (s *streams) leave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, st)
	owner := streamOwner(st.who)
	if s.owners[owner]--; s.owners[owner] == 0 {
		delete(s.owners, owner)
	}
}

func (s *streams) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// stop ends the streams that which says, because of why.
func (s *streams) stop(why error, which func(accounts.Principal) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open {
		if which(st.who) {
			st.end(why) // waits for nobody
		}
	}
}

// Revoke ends the streams of a session or key that has ended, or has other rights now.
func (a *API) Revoke(principal string) {
	a.streams.stop(errRevoked, func(p accounts.Principal) bool { return p.ID == principal })
}

// EndStreams ends all streams, of events and of what is written, and there are no new ones
// from now on: the server stops. It is called before the listener waits for its requests.
func (a *API) EndStreams() {
	a.bodies.end()
	a.streams.mu.Lock()
	a.streams.closed = true
	a.streams.mu.Unlock()
	a.streams.stop(errStopping, func(accounts.Principal) bool { return true })
}

type streamInput struct {
	Channel string `query:"channel" default:"events" maxLength:"140" enum:"events" doc:"What to follow"`
	Types   string `query:"types" maxLength:"1024" doc:"Types, or families with .*, separated by commas; all when empty" example:"presence.*,device.created"`
	Q       string `query:"q" maxLength:"4096" doc:"Only events of devices that match now" example:"group:hall-3"`
	After   string `query:"after" maxLength:"128" doc:"The id of the last event that was read, where Last-Event-ID cannot be sent"`
	LastID  string `header:"Last-Event-ID" maxLength:"128" doc:"The id of the last event that was read: what came after it is sent, over a restart of the server too"`
}

func (a *API) streamRoutes() {
	op := huma.Operation{
		OperationID: "stream", Method: http.MethodGet, Path: "/stream", Tags: []string{"events"},
		Summary: "Follow events as server-sent events",
		Description: "Every event is `{type,timestamp,data}` with the id `<epoch>-<number>`. A client that comes again with Last-Event-ID gets exactly what it missed. " +
			"When that is not kept any more an event named `reset` says so, and the stream goes on from now. A comment is sent every 15 s.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"text/event-stream": {Schema: &huma.Schema{Type: "string", Description: "Server-sent events"}},
		}}},
	}
	a.routeFor(streamTime, accounts.DevicesRead, &op)
	huma.Register(a.huma, op, func(ctx context.Context, in *streamInput) (*huma.StreamResponse, error) {
		body, err := a.stream(ctx, in)
		if err != nil {
			return nil, a.problem(requestOf(ctx), err)
		}
		return &huma.StreamResponse{Body: body}, nil
	})
}

// stream takes a place and returns what writes the stream and gives the place back.
func (a *API) stream(ctx context.Context, in *streamInput) (func(huma.Context), error) {
	req := requestOf(ctx)
	st := &stream{api: a, who: req.who, req: req.Request}
	events, err := a.followEvents(st, in)
	if err != nil {
		return nil, err
	}
	ctx, st.end = context.WithCancelCause(ctx)
	if err := a.streams.enter(st); err != nil {
		st.end(err)
		return nil, err
	}
	return func(hc huma.Context) {
		defer a.streams.leave(st)
		defer st.end(nil)
		_, st.w = humago.Unwrap(hc)
		st.serve(ctx, events.run)
	}, nil
}

func (st *stream) serve(ctx context.Context, run func(ctx context.Context) error) {
	h := st.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform") // a proxy that packs it would hold it back
	h.Set("X-Accel-Buffering", "no")
	st.w.WriteHeader(http.StatusOK)
	st.buf = appendRetry(st.buf, streamRetry)
	err := run(ctx)
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errStopping):
		st.buf = appendRetry(st.buf, streamRetry+rand.N(streamSpread))
		_ = st.flush() // a client that has gone is not told
	case err != nil && ctx.Err() == nil && !errors.Is(err, errGone):
		st.api.logFault(requestOf(ctx), err)
	}
}

// errGone is of a client that takes nothing any more.
var errGone = errors.New("the client is gone")

func appendRetry(b []byte, d time.Duration) []byte {
	return append(strconv.AppendInt(append(b, "retry: "...), d.Milliseconds(), 10), "\n\n"...)
}

// flush sends what was put into buf. The client has a minute to take it.
func (st *stream) flush() error {
	if len(st.buf) == 0 {
		return nil
	}
	err := send(st.w, st.buf)
	if err == nil {
		err = http.NewResponseController(st.w).Flush()
	}
	if err != nil {
		return errors.Join(errGone, err)
	}
	st.buf, st.last = st.buf[:0], time.Now()
	if cap(st.buf) > 1<<20 {
		st.buf = nil // a rare giant is not kept
	}
	return nil
}

// due is how long the client may hear nothing from now on.
func (st *stream) due() time.Duration { return max(0, streamBeat-time.Since(st.last)) }

// admitted says whether the client may still watch, when its session or key would have
// run out had it not been used since.
func (st *stream) admitted() error {
	e := st.who.Expires
	if e == 0 || st.api.Now().Before(e.Time()) {
		return nil
	}
	who, err := st.api.Authenticate(st.req)
	if err == nil {
		st.who.Expires = who.Expires
	}
	return err
}
