package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/broker/journal"
	"muster/broker/listen"
	"muster/broker/park"
	"muster/broker/topic"
	"muster/broker/wire"
	"muster/broker/ws"
	"muster/internal/lifecycle"
	"muster/traffic"
)

// Limits that are not configured.
const (
	maxPanicsLogged = 32     // different panics whose stack is logged
	matchCache      = 16_384 // topics whose subscriptions are remembered
)

// Config is what New needs. Zero numbers stand for their defaults.
type Config struct {
	Addr  string         // TCP address to listen at, such as ":1883"
	TLS   string         // TLS address, such as ":8883"; empty for none
	Unix  string         // path of a unix socket; empty for none
	Certs *listen.Certs  // for TLS
	Proxy []netip.Prefix // whose connections begin with a PROXY protocol header
	Log   journal.Log    // where sessions, their queues and retained messages are kept
	Limit listen.LimitsConfig

	MaxPacket        int           // bytes of the largest packet with its header; 256 KiB
	ConnectTimeout   time.Duration // from accepting a connection to its CONNECT; 10 s
	WriteTimeout     time.Duration // that a client may take to read 64 KiB; 10 s
	MaxOwnSessions   int           // of one device; 32, and of one account 32 times as many
	Window           int           // messages of one client that may be unacknowledged; 64, at most 65535
	MaxConnections   int           // admitted connections; 100,000
	MaxHalfOpen      int           // connections without CONNECT, beyond which the oldest is cut; 10,000
	MaxSessions      int           // connected or kept sessions; 200,000
	MaxSessionExpiry time.Duration // that a session outlives its connection; 7 days
	MaxKeepAlive     time.Duration // imposed on MQTT 5 clients that ask for more or none; 0: none is imposed
	MaxSubscriptions int           // of one session; 200
	MaxQueued        int           // QoS 1 and 2 messages that wait for one session; 1,000
	MaxQueuedBytes   int           // their bytes; 4 MiB
	MaxRetained      int           // topics with a retained message; 100,000
	MaxRetainedOwn   int           // those that one client published; 1,000
	MaxRetainedBytes int           // their bytes; 8 MiB
	Rate             Rate          // what one client may publish; 20,000 messages and 16 MiB per second
	OverTime         time.Duration // of publishing more without a pause, after which a client is cut; 1 min
	Drain            time.Duration // that Stop takes to tell clients to go; 10 s for 10,000, in proportion
	MaxTakeovers     int           // of one client id within a minute, beyond which a CONNECT waits 1, 5, then 30 s; 5
	Tick             time.Duration // granularity of timeouts; 50 ms
	SysInterval      time.Duration // between $SYS messages; 10 s

	// States knows what state topics are at; nil when there are none.
	States States
	// Ready is told that a client now listens to devices/{device}/commands/+ or
	// devices/{device}/notifications, or as the gateway device to those of all its children: when it subscribes and when
	// it comes back. It runs on the connection's goroutine, without locks, and may be
	// told again. It may be nil.
	Ready func(device muster.DeviceID, children bool)
	// Updates is Ready for devices/{device}/firmware, and what ThingsBoard has for it.
	Updates func(device muster.DeviceID, children bool)
	// Children is told what gateways say of the devices behind them; it may be nil.
	Children Children

	Now     func() time.Time
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	Traffic *traffic.Meter // counts the connections and messages of accounts; nil for nobody
}

func (c Config) withDefaults() (Config, error) {
	for _, n := range []struct {
		field *int
		value int
	}{
		{&c.MaxPacket, 256 << 10},
		{&c.Window, 64},
		{&c.MaxConnections, 100_000},
		{&c.MaxHalfOpen, 10_000},
		{&c.MaxSessions, 200_000},
		{&c.MaxSubscriptions, 200},
		{&c.MaxQueued, 1000},
		{&c.MaxQueuedBytes, 4 << 20},
		{&c.MaxRetained, 100_000},
		{&c.MaxRetainedOwn, 1000},
		{&c.MaxRetainedBytes, 8 << 20},
		{&c.MaxTakeovers, 5},
		{&c.MaxOwnSessions, 32},
		{&c.Rate.Messages, defaultMessages},
		{&c.Rate.Bytes, defaultBytes},
	} {
		if *n.field == 0 {
			*n.field = n.value
		}
		if *n.field < 1 {
			return c, muster.Errorf(muster.Invalid, "limits of the MQTT broker must be positive")
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.ConnectTimeout, 10 * time.Second},
		{&c.WriteTimeout, 10 * time.Second},
		{&c.MaxSessionExpiry, 7 * 24 * time.Hour},
		{&c.OverTime, overTime},
		{&c.Tick, 50 * time.Millisecond},
		{&c.SysInterval, 10 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return c, muster.Errorf(muster.Invalid, "times of the MQTT broker must be positive")
		}
	}
	switch {
	case c.MaxPacket < 1024 || c.MaxPacket > journal.MaxRecord/2:
		return c, muster.Errorf(muster.Invalid, "the largest MQTT packet must have 1 KiB to 512 KiB")
	case c.Window > 65535:
		return c, muster.Errorf(muster.Invalid, "the window must be 1 to 65535 messages")
	case c.Now == nil || c.Logger == nil || c.Metrics == nil || c.Log == nil:
		return c, muster.Errorf(muster.Internal, "broker: Log, Now, Logger and Metrics must be set")
	}
	return c, nil
}

// Broker is the MQTT server. Its methods may be called from any goroutine.
type Broker struct {
	cfg      Config
	auth     Authenticator
	sink     Sink
	presence Presence
	metrics  *metrics
	journal  *journal.Journal
	limits   *listen.Limits
	upgrader *ws.Upgrader
	lot      *park.Lot // nil where sockets cannot be parked

	clock    atomic.Int64 // unix milliseconds, a tick old at most
	tight    atomic.Bool  // the log of sessions is more than half full of what is still wanted
	wheel    *wheel
	conns    *registry
	sessions *sessions
	index    *topic.Index[*session]
	retained *retainedSet
	flaps    *flaps
	later    chan copied
	outcomes *outcomes
	guests   atomic.Int64 // connections in a place other than Normal
	scratch  scratches
	buffers  buffers
	writers  rawWriters

	epoch       atomic.Uint64 // of connections
	lastSession atomic.Uint64 // number given
	lastStored  atomic.Uint64
	in          [3]atomic.Uint64 // PUBLISH packets received, by QoS
	sent        atomic.Uint64    // PUBLISH packets sent
	began       time.Time

	serving   group // connections
	work      group // writers, wills and other short work
	loops     *lifecycle.Group
	doors     *lifecycle.Group // listeners
	listeners []*listen.Listener
	started   atomic.Bool
	stopping  atomic.Bool

	panicsMu   sync.Mutex
	panicsSeen map[string]struct{}
}

// New returns a Broker that Start brings to life. It fails on an invalid
// configuration and on metrics that are registered already.
func New(cfg Config, auth Authenticator, sink Sink, presence Presence) (*Broker, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Broker{
		cfg: cfg, auth: auth, sink: sink, presence: presence,
		metrics:    newMetrics(),
		limits:     listen.NewLimits(cfg.Limit),
		upgrader:   ws.NewUpgrader(),
		conns:      newRegistry(cfg.MaxHalfOpen),
		sessions:   newSessions(),
		index:      topic.NewIndex[*session](matchCache),
		flaps:      newFlaps(cfg.MaxTakeovers),
		later:      make(chan copied, maxLater),
		outcomes:   newOutcomes(),
		panicsSeen: make(map[string]struct{}),
	}
	b.began = cfg.Now()
	b.clock.Store(b.began.UnixMilli())
	b.wheel = newWheel(cfg.Tick, b.clock.Load())
	b.retained = newRetainedSet(b)
	b.journal, err = journal.New(journal.Config{Log: cfg.Log, Now: cfg.Now, Logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("make the journal of sessions: %w", err)
	}
	if b.lot, err = park.New(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	if err := b.metrics.register(cfg.Metrics, b); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return b, nil
}

// Start restores the sessions, listens and serves connections until Stop. It fails
// when the journal cannot be read or an address cannot be had. A Broker is started
// once.
func (b *Broker) Start(ctx context.Context) error {
	if err := b.restore(ctx); err != nil {
		return fmt.Errorf("restore MQTT sessions: %w", err)
	}
	if err := b.listen(ctx); err != nil {
		return err
	}
	b.loops = lifecycle.NewGroup(b.cfg.Logger)
	b.loops.Go("mqtt-journal", b.journal.Run)
	b.loops.Go("mqtt-clock", b.runWheel)
	b.loops.Go("mqtt-later", b.routeLater)
	b.loops.Go("mqtt-outcomes", b.runOutcomes)
	b.loops.Go("mqtt-sys", b.runSys)
	if b.lot != nil {
		b.loops.Go("mqtt-sockets", b.lot.Run)
	}
	b.doors = lifecycle.NewGroup(b.cfg.Logger)
	for _, ln := range b.listeners {
		b.doors.Go("mqtt-"+ln.Addr().Network()+"-"+ln.Addr().String(), func(ctx context.Context) error { return b.serveListener(ctx, ln) })
	}
	b.started.Store(true)
	return nil
}

// Loops returns the state of the broker's loops, for the System page.
func (b *Broker) Loops() []lifecycle.LoopStatus {
	if !b.started.Load() {
		return nil
	}
	return slices.Concat(b.doors.Status(), b.loops.Status())
}

// FailLoop is lifecycle.Group.Fail for tests, of all loops but the listeners': those end
// with their sockets.
func (b *Broker) FailLoop(name, why string) bool { return b.started.Load() && b.loops.Fail(name, why) }

// listen opens what is configured.
func (b *Broker) listen(ctx context.Context) error {
	open := func(kind listen.Kind, addr string) error {
		if addr == "" {
			return nil
		}
		cfg := listen.Config{Kind: kind, Addr: addr, Limits: b.limits, Logger: b.cfg.Logger, Hooks: b.metrics.hooks()}
		if kind == listen.TLS {
			cfg.Certs = b.cfg.Certs
		}
		if kind != listen.Unix { // whose peers have no address
			cfg.Proxy = b.cfg.Proxy
		}
		ln, err := listen.Open(ctx, cfg)
		if err != nil {
			return fmt.Errorf("listen for MQTT at %s: %w", addr, err)
		}
		b.listeners = append(b.listeners, ln)
		b.cfg.Logger.Info("MQTT listens", "kind", string(kind), "addr", ln.Addr().String())
		return nil
	}
	err := open(listen.TCP, b.cfg.Addr)
	if err == nil {
		err = open(listen.TLS, b.cfg.TLS)
	}
	if err == nil {
		err = open(listen.Unix, b.cfg.Unix)
	}
	if err != nil {
		for _, ln := range b.listeners {
			err = errors.Join(err, ln.Close())
		}
	}
	return err
}

func (b *Broker) running() bool { return b.started.Load() && !b.stopping.Load() }

// Addr returns the address that the broker listens at over TCP, nil before Start.
func (b *Broker) Addr() net.Addr {
	if !b.started.Load() || len(b.listeners) == 0 {
		return nil
	}
	return b.listeners[0].Addr()
}

// Addrs returns the address of every listener, in the order tcp, tls, unix.
func (b *Broker) Addrs() []net.Addr {
	all := make([]net.Addr, 0, len(b.listeners))
	for _, ln := range b.listeners {
		all = append(all, ln.Addr())
	}
	return all
}

// Publish sends a message to the clients that subscribe to name, a canonical
// topic. It never waits for them. With qos 1 and 2 it returns when what was queued
// for kept sessions, or retained, is durable, or with ctx's error. A wildcard, an
// overlong topic, or a state topic to retain, is Invalid, a broker that does not run Unavailable.
func (b *Broker) Publish(ctx context.Context, name string, payload []byte, retain bool, qos byte) error {
	if why := topic.CheckName(name); why != "" || qos > 2 {
		return muster.Errorf(muster.Invalid, "publish: %s", firstOf(why, "no such QoS"))
	}
	if _, rest, ok := splitDevice(name); ok && isState(rest) && retain {
		return muster.Errorf(muster.Invalid, "publish: %s is a state topic, of which nothing is retained: see PublishState", name)
	}
	if !b.running() {
		return muster.Errorf(muster.Unavailable, "publish: the MQTT broker does not run")
	}
	var k kicks
	m := &message{topic: name, payload: payload, retain: retain, qos: qos}
	m.own()
	if err := b.journal.Room(ctx); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	r := route{b: b, m: m, kicks: &k, now: b.clock.Load()}
	done := make(chan error, 1)
	waits := r.run(nil, func(err error) { done <- err })
	k.flush(b)
	if !waits || qos == 0 {
		return nil
	}
	select {
	case err := <-done:
		return unavailable(err)
	case <-ctx.Done():
		return fmt.Errorf("publish: %w", ctx.Err())
	}
}

// kick cuts the live connection, after telling a MQTT 5 client reason. It says whether
// there was one.
func (s *session) kick(reason string) bool {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c == nil {
		return false
	}
	_ = c.bye(wire.CodeAdministrative, reason, cause{labelKicked, reason})
	return true
}

// Recheck asks again what those live connections may do whose identity matches, and
// cuts those that may not be connected any more. It returns how many it asked for.
func (b *Broker) Recheck(match func(Identity) bool) int {
	n := 0
	for s := range b.sessions.each {
		s.mu.Lock()
		c := s.conn
		s.mu.Unlock()
		if c == nil {
			continue
		}
		if a := c.allowed.Load(); a != nil && match(a.who) {
			n++
			if c.refresh() == nil { // else it has cut the connection
				c.tellReady(s.state.Load().subs)
			}
		}
	}
	return n
}
