package api

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/feed"
	"muster/traffic"
)

const (
	maxStreams    = 2000           // open at once
	maxOwnStreams = 20             // of one user, or of one key
	streamTime    = 24 * time.Hour // then a client comes again
	streamBeat    = 15 * time.Second
	streamRetry   = 2 * time.Second  // that a client waits before it comes again
	streamSpread  = 10 * time.Second // over which clients come again after the server stopped

	eventsChannel  = "events"
	devicesChannel = "devices"
	tasksChannel   = "tasks"
	inboxChannel   = "inbox"
)

// EventFeed is what the API needs of *feed.Feed.
type EventFeed interface {
	Open(a feed.Ask) (*feed.Follower, error)
}

// DeviceMatcher returns what says whether a device is selected by all queries, now; nil
// when all queries are empty.
type DeviceMatcher interface {
	Matcher(queries ...string) (func(muster.DeviceID) bool, error)
}

// ChannelAsk is what a stream of a live channel shows: as the sub command of the
// WebSocket has it.
type ChannelAsk struct {
	Channel, Q, Sort, After string
	Limit                   int
	Cols                    []string
}

// Channels opens the channels of the live gateway to streams.
type Channels interface {
	// OpenChannel opens one for who. It is to be closed. write sends whole events.
	OpenChannel(who accounts.Principal, ask ChannelAsk, write func(events []byte, frames int) error) (Channel, error)
	// Say obeys commands, JSON as a WebSocket is sent it, for the stream of the channel page with
	// the id; NotFound when this server has no such stream of who's.
	Say(who accounts.Principal, id string, commands []byte) error
}

// Channel is one that is open.
type Channel interface {
	// Run writes until ctx ends, write fails, or who may not see it any more.
	Run(ctx context.Context)
	Close()
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

	traffic *traffic.Conn
	pending int // events in buf
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
	st.traffic = st.api.Traffic.Open(traffic.Who{ID: owner, Name: st.who.Name}, traffic.SSE)
	return nil
}

func (s *streams) leave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.traffic.Close()
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
	Channel string `query:"channel" default:"events" maxLength:"140" doc:"What to follow: events, fleet, devices, device:{id}, tasks, task:{id}, rollout:{id}, here:{id}, system or inbox; or page, for all that a WebSocket carries" example:"events"`
	Types   string `query:"types" maxLength:"1024" doc:"Of events: types, or families with .*, separated by commas; all when empty" example:"presence.*,device.created"`
	Q       string `query:"q" maxLength:"4096" doc:"Of events: only those of devices that match now. Of devices: those to show" example:"group:hall-3"`
	After   string `query:"after" maxLength:"4096" doc:"Of events and inbox: the id of the last one that was read, where Last-Event-ID cannot be sent. Of devices: the next of the page before"`
	Sort    string `query:"sort" maxLength:"256" doc:"Of devices: as in GET /devices" example:"-seen"`
	Limit   int    `query:"limit" minimum:"1" maximum:"200" doc:"Of devices, tasks and inbox: how many to show; 50 when absent"`
	Cols    string `query:"cols" maxLength:"4096" doc:"Of devices: keys of values to show, separated by commas; the first of each device when absent" example:"temperature,battery"`
	LastID  string `header:"Last-Event-ID" maxLength:"128" doc:"The id of the last event that was read: what came after it is sent, over a restart of the server too"`
}

func (a *API) streamRoutes() {
	op := huma.Operation{
		OperationID: "stream", Method: http.MethodGet, Path: "/stream", Tags: []string{"events"},
		Summary: "Follow events, devices, tasks or counters as server-sent events",
		Description: "Every channel of the WebSocket is here too; the data of each event is a frame as it is sent there, a snapshot first (docs/stream.md). It needs the scope telemetry:read besides. " +
			"The channel events has a form of its own: every event is `{type,timestamp,data}` with the id `<epoch>-<number>`. A client that comes again with Last-Event-ID gets exactly what it missed. " +
			"So does one of the channel inbox, which signed-in users have; where its place means nothing it gets a snapshot. When an event is not kept any more one named `reset` says so, and the stream goes on from now. A comment is sent every 15 s.",
		Errors: []int{404},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"text/event-stream": {Schema: &huma.Schema{Type: "string", Description: "Server-sent events"}},
		}}},
	}
	a.talkRoute()
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
	run, closed, err := a.openChannel(ctx, st, in)
	if err != nil {
		return nil, err
	}
	ctx, st.end = context.WithCancelCause(ctx)
	if err := a.streams.enter(st); err != nil {
		closed()
		st.end(err)
		return nil, err
	}
	return func(hc huma.Context) {
		defer a.streams.leave(st)
		defer closed()
		defer st.end(nil)
		_, st.w = humago.Unwrap(hc)
		st.serve(ctx, run)
	}, nil
}

// openChannel opens what in asks for; closed gives it back.
func (a *API) openChannel(ctx context.Context, st *stream, in *streamInput) (run func(context.Context) error, closed func(), err error) {
	if err := in.fits(); err != nil {
		return nil, nil, err
	}
	if !st.who.Allows(accounts.TelemetryRead) { // devices:read was asked for
		return nil, nil, muster.Errorf(muster.Forbidden, "this needs the scopes %s and %s", accounts.DevicesRead, accounts.TelemetryRead)
	}
	if in.Channel == eventsChannel {
		events, err := a.followEvents(ctx, st, in)
		if err != nil {
			return nil, nil, err
		}
		return events.run, func() {}, nil
	}
	if a.Channels == nil {
		return nil, nil, muster.Errorf(muster.NotFound, "there is no such channel")
	}
	if in.Channel == inboxChannel { // the only one of them with places
		in.After = cmp.Or(in.LastID, in.After)
	}
	ask := ChannelAsk{Channel: in.Channel, Q: in.Q, Sort: in.Sort, After: in.After, Limit: in.Limit}
	if in.Cols != "" {
		ask.Cols = strings.Split(in.Cols, ",")
	}
	c, err := a.Channels.OpenChannel(st.who, ask, st.put)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) error {
		if err := st.flush(); err != nil { // before the channel's own goroutine writes
			return err
		}
		c.Run(ctx)
		c.Close() // nothing is written from here on
		return nil
	}, c.Close, nil
}

// fits refuses parameters that are of another channel.
func (in *streamInput) fits() error {
	events, list, inbox := in.Channel == eventsChannel, in.Channel == devicesChannel, in.Channel == inboxChannel
	for _, p := range []struct {
		name  string
		given bool
		meant bool
	}{
		{"types", in.Types != "", events},
		{"q", in.Q != "", events || list},
		{"after", in.After != "", events || list || inbox},
		{"sort", in.Sort != "", list},
		{"cols", in.Cols != "", list},
		{"limit", in.Limit != 0, list || inbox || in.Channel == tasksChannel},
	} {
		if p.given && !p.meant {
			return muster.InvalidAt(p.name, "%s is no parameter of the channel %.40s", p.name, in.Channel)
		}
	}
	return nil
}

// put sends events of a channel.
func (st *stream) put(events []byte, frames int) error {
	st.buf = append(st.buf, events...)
	st.pending += frames
	return st.flush()
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
	st.traffic.Sent(st.pending)
	st.buf, st.pending, st.last = st.buf[:0], 0, time.Now()
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
