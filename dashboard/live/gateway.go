package live

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"muster"
	"muster/ingest"
	"muster/internal/lifecycle"
	"muster/notify"
)

// Subprotocol is what a client offers in Sec-WebSocket-Protocol.
const Subprotocol = "muster.v1"

// Config sets the limits of a Gateway. A zero field takes the default named
// beside it.
type Config struct {
	Version  string   // shown in welcome
	MQTTPort int      // shown in welcome, for the snippets on the page
	Origins  []string // hosts, or scheme://host, allowed beside the request's own

	MaxConns     int           // 10,000; a quarter of it may wait without a session for their hello
	MaxPerUser   int           // 20 connections of one Principal.ID
	CommandBurst int           // 30 commands at once, and 30 more in each 10 s
	HelloTimeout time.Duration // 10 s from the upgrade to hello
	WriteTimeout time.Duration // 5 s for each 16 KiB of a frame
	// SilenceTimeout is how long a peer may say nothing, pongs included: 60 s. It is
	// longer than the 25 s between two pings.
	SilenceTimeout time.Duration
	// StallWait is how long those that write news of inboxes may all hang before more begin: 100 ms.
	StallWait time.Duration

	// MostFrames is how many state frames all clients together are written in a second before all of
	// them have theirs at 2 Hz, and then at 1: 1,000 for each processor.
	MostFrames int

	// Phases is in how many parts a tick goes, in one of which each client has its turn: 5, and 1 with Ticks.
	Phases int
	// Ticks drives all timed work, five times Phases a second. Nil means a ticker of the
	// gateway's own; a test sends on an unbuffered channel instead.
	Ticks <-chan time.Time
}

const (
	ticksPerSecond = 5
	pingSeconds    = 25       // between two pings of one connection
	readLimit      = 64 << 10 // bytes in one client frame
	sendBuffer     = 64 << 10 // kernel bytes a stalled reader may hold
	maxChannels    = 128      // per connection
	sourceTimeout  = 2 * time.Second

	framesPerProcessor = 1000 // a second

	// Text messages of a size between these go deflated to who inflates: shorter ones are few
	// bytes a second however they go, longer ones go in pieces.
	minDeflated = 2 << 10
	maxDeflated = 64 << 10
)

func (c Config) withDefaults() Config {
	if c.MaxConns == 0 {
		c.MaxConns = 10_000
	}
	if c.MaxPerUser == 0 {
		c.MaxPerUser = 20
	}
	if c.CommandBurst == 0 {
		c.CommandBurst = 30
	}
	if c.HelloTimeout == 0 {
		c.HelloTimeout = 10 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 5 * time.Second
	}
	if c.SilenceTimeout == 0 {
		c.SilenceTimeout = 60 * time.Second
	}
	if c.MostFrames == 0 {
		c.MostFrames = framesPerProcessor * runtime.GOMAXPROCS(0)
	}
	switch {
	case c.Phases == 0 && c.Ticks == nil:
		c.Phases = 5
	case c.Phases == 0:
		c.Phases = 1
	}
	if c.StallWait == 0 {
		c.StallWait = 100 * time.Millisecond
	}
	return c
}

// Gateway serves the dashboards' sockets.
type Gateway struct {
	cfg      Config
	deps     Deps
	upgrader websocket.Upgrader

	index    index
	fleet    fleetFeed
	counts   matchCounts
	polled   polled
	here     gathering
	woken    woken
	writers  *writers // of what a tick has for clients
	urgent   *writers // of news of inboxes
	counting counting
	grids    grids
	version  atomic.Uint64 // the last pass that is wholly in the rows
	tick     atomic.Uint64 // ticks since the start
	pace     pace
	ready    []*client            // have something to be sent; the loop's own
	space    []ingest.LatestValue // of the row under way; the loop's own
	buffers  sync.Pool            // of *[]byte, for frames

	mu      sync.Mutex
	open    bool // between Start and Stop
	conns   int  // admitted, with or without hello
	streams int  // of server-sent events
	waiting int  // of those, without a session and before hello
	next    int  // wheel slot of the next client
	wheel   [pingSeconds]map[*client]struct{}
	users   map[string]int
	lines   map[string]*Stream // of the channel page, by their ids
	clients sync.WaitGroup     // one per reader and per flush
	loops   *lifecycle.Group
	baseCtx context.Context //nolint:containedctx // the gateway's life, which sockets share and requests do not

	stats counters
}

// New returns a gateway that refuses connections until Start.
func New(cfg Config, deps Deps) *Gateway {
	g := &Gateway{cfg: cfg.withDefaults(), deps: deps, users: map[string]int{}, lines: map[string]*Stream{}}
	g.index.rows = map[muster.DeviceID]*row{}
	g.index.pages = map[*row]struct{}{}
	g.counts.groups = map[matched]*matchGroup{}
	g.fleet.subs = map[*sub]struct{}{}
	g.polled.subs = map[*sub]struct{}{}
	g.here.rooms = map[string]map[*sub]struct{}{}
	g.grids.all, g.grids.signal = map[gridKey]*grid{}, make(chan struct{}, 1)
	g.woken.signal, g.counting.signal = make(chan struct{}, 1), make(chan struct{}, 1)
	g.counting.owed = map[notify.Subject]map[*sub]struct{}{}
	for i := range g.wheel {
		g.wheel[i] = map[*client]struct{}{}
	}
	g.writers = &writers{most: max(runtime.GOMAXPROCS(0)/2, 1), life: &g.clients}
	g.urgent = &writers{most: maxUrgent, life: &g.clients}
	g.pace = newPace(g.cfg.MostFrames)
	g.stats.hz.Store(ticksPerSecond)
	g.buffers.New = func() any { b := make([]byte, 0, 4096); return &b }
	g.upgrader = websocket.Upgrader{
		ReadBufferSize:  128, // enough for a control frame, and kept by each idle socket
		WriteBufferSize: 4096,
		WriteBufferPool: &sync.Pool{},
		Subprotocols:    []string{Subprotocol},
		CheckOrigin:     g.originAllowed,
		Error:           refuseUpgrade,

		EnableCompression: true, // without context takeover: an idle socket keeps nothing for it
	}
	return g
}

// Start begins to serve. The gateway ends with Stop, not with ctx: ctx only
// carries values.
func (g *Gateway) Start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.loops != nil {
		return errors.New("start the live gateway: it was started before")
	}
	g.baseCtx = context.WithoutCancel(ctx)
	g.open = true
	g.loops = lifecycle.NewGroup(g.deps.Log)
	g.loops.Go("live", g.loop)
	if g.deps.Dots != nil {
		g.loops.Go("live-dots", g.dotsLoop)
	}
	if g.deps.Inbox != nil {
		g.loops.Go("live-inbox", g.wakeLoop)
		g.loops.Go("live-counts", g.countLoop)
	}
	return nil
}

// Stop says bye to every client, with reconnect times spread over 30 s, and
// returns when all goroutines have ended. When ctx ends first the sockets are cut
// and ctx's error is returned.
func (g *Gateway) Stop(ctx context.Context) error {
	all, loops := g.shut()
	if loops == nil {
		return nil
	}
	for _, c := range all {
		c.bye(codeShutdown, "the server is stopping")
	}
	gone := make(chan struct{})
	go func() { g.clients.Wait(); close(gone) }()
	var err error
	select {
	case <-gone:
	case <-ctx.Done():
		err = context.Cause(ctx)
		for _, c := range all {
			c.cut()
		}
		<-gone
	}
	return errors.Join(err, loops.Stop(context.WithoutCancel(ctx))) // a tick ends soon
}

// Loops returns the state of the gateway's loop, for the System page.
func (g *Gateway) Loops() []lifecycle.LoopStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.loops == nil {
		return nil
	}
	return g.loops.Status()
}

// FailLoop is lifecycle.Group.Fail for tests.
func (g *Gateway) FailLoop(name, why string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.loops != nil && g.loops.Fail(name, why)
}

func (g *Gateway) shut() ([]*client, *lifecycle.Group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = false
	return g.connected(), g.loops
}

// connected returns all clients. The caller holds mu.
func (g *Gateway) connected() []*client {
	all := make([]*client, 0, g.conns)
	for _, slot := range g.wheel {
		for c := range slot {
			all = append(all, c)
		}
	}
	return all
}

// Revoke ends the connections of a principal whose rights have changed.
func (g *Gateway) Revoke(principal string) {
	g.mu.Lock()
	all := g.connected()
	g.mu.Unlock()
	for _, c := range all {
		if c.owner() == principal {
			c.bye(codeExpired, "your rights have changed")
		}
	}
}

// Stats are figures for /metrics and the System page.
type Stats struct {
	Connections int    `json:"connections"`  // open sockets
	Streams     int    `json:"streams"`      // of server-sent events that show its channels
	Hz          int    `json:"hz"`           // how often in a second a client is told of changes: 5, or fewer when many are told
	Rows        int    `json:"rows"`         // devices that somebody watches
	Messages    uint64 `json:"messages"`     // WebSocket messages written
	Bytes       uint64 `json:"bytes"`        // in them, before they are deflated
	Failed      uint64 `json:"failed"`       // connections ended because a write failed or did not drain
	Overflows   uint64 `json:"overflows"`    // connections ended because they did not read their answers
	Slowed      uint64 `json:"slowed"`       // steps down in rate
	Panics      uint64 `json:"panics"`       // caught in a connection or a tick
	InboxFaults uint64 `json:"inbox_faults"` // times that an inbox could not be read or counted; it is tried again
}

type counters struct {
	messages, bytes, failed, overflows, slowed, panics, inboxFaults atomic.Uint64

	hz atomic.Uint32
}

// Stats returns the figures since the start.
func (g *Gateway) Stats() Stats {
	g.mu.Lock()
	conns, streams := g.conns, g.streams
	g.mu.Unlock()
	return Stats{
		Connections: conns,
		Streams:     streams,
		Hz:          int(g.stats.hz.Load()),
		Rows:        g.index.size(),
		Messages:    g.stats.messages.Load(),
		Bytes:       g.stats.bytes.Load(),
		Failed:      g.stats.failed.Load(),
		Overflows:   g.stats.overflows.Load(),
		Slowed:      g.stats.slowed.Load(),
		Panics:      g.stats.panics.Load(),
		InboxFaults: g.stats.inboxFaults.Load(),
	}
}
