package broker

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/broker/ws"
	"muster/internal/lifecycle"
)

// Limits that are not configured.
const (
	maxSession      = 24 * time.Hour // that a session outlives its connection
	maxInflight     = 256            // messages of QoS 1 and 2 on their way to one session
	maxQueued       = 512            // messages between a publisher and one subscriber's outbox; more are dropped
	maxPanicsLogged = 32             // different panics whose stack is logged
	readBuffer      = 1024           // bytes per connection
	sysTopicSeconds = 60
)

// Config is what New needs. Zero numbers stand for their defaults.
type Config struct {
	Addr             string        // TCP address to listen at, such as ":1883"
	MaxPacket        int           // bytes of the largest packet with its header; 256 KiB
	ConnectTimeout   time.Duration // from accepting a connection to its CONNECT; 10 s
	Window           int           // messages of one client that may be unacknowledged; 64, at most 65535
	MaxConnections   int           // admitted connections; 100,000
	MaxHalfOpen      int           // connections without CONNECT, beyond which the oldest is cut; 1,000
	MaxSessions      int           // connected or kept sessions; 200,000
	MaxSubscriptions int           // of one session; 200
	MaxRetained      int           // topics with a retained message; 100,000

	Now     func() time.Time
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

func (c Config) withDefaults() (Config, error) {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&c.MaxPacket, 256<<10)
	set(&c.Window, 64)
	set(&c.MaxConnections, 100_000)
	set(&c.MaxHalfOpen, 1000)
	set(&c.MaxSessions, 200_000)
	set(&c.MaxSubscriptions, 200)
	set(&c.MaxRetained, 100_000)
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	switch {
	case c.MaxPacket < 1024 || c.MaxPacket > 256<<20:
		return c, muster.Errorf(muster.Invalid, "the largest MQTT packet must have 1 KiB to 256 MiB")
	case c.Window < 1 || c.Window > 65535:
		return c, muster.Errorf(muster.Invalid, "the window must be 1 to 65535 messages")
	case min(c.MaxConnections, c.MaxHalfOpen, c.MaxSessions, c.MaxSubscriptions, c.MaxRetained) < 1 || c.ConnectTimeout < 0:
		return c, muster.Errorf(muster.Invalid, "limits of the MQTT broker must be positive")
	case c.Now == nil || c.Logger == nil || c.Metrics == nil:
		return c, muster.Errorf(muster.Internal, "broker: Now, Logger and Metrics must be set")
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

	srv      *mqtt.Server
	upgrader *ws.Upgrader
	shadows  sync.Pool // of *mqtt.Client in whose name messages are delivered
	buffers  buffers
	conns    *registry
	taps     taps
	wills    delayedWills
	seed     maphash.Seed
	turns    [turns]sync.Mutex // see conn.await
	session  atomic.Uint64
	in       [3]atomic.Uint64 // PUBLISH packets received, by QoS
	sent     atomic.Uint64    // PUBLISH packets sent

	serving  group // connections
	work     group // writers and wills
	loops    *lifecycle.Group
	listener net.Listener
	started  atomic.Bool
	stopping atomic.Bool

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
		upgrader:   ws.NewUpgrader(),
		conns:      newRegistry(cfg.MaxHalfOpen),
		seed:       maphash.MakeSeed(),
		panicsSeen: make(map[string]struct{}),
	}
	b.taps.subs = make(map[tap]struct{})
	b.wills = delayedWills{work: &b.work, waiting: make(map[string]*delayedWill)}
	b.srv = newServer(cfg)
	b.shadows.New = func() any { return b.srv.NewClient(nil, mqtt.LocalListener, "", true) }
	if err := b.srv.AddHook(newHook(b), nil); err != nil {
		return nil, fmt.Errorf("add hook: %w", err)
	}
	if err := b.metrics.register(cfg.Metrics, b); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return b, nil
}

// newServer returns mochi's server without listeners. It logs nothing, because it
// logs payloads.
func newServer(cfg Config) *mqtt.Server {
	caps := mqtt.NewDefaultServerCapabilities()
	caps.MaximumPacketSize = uint32(cfg.MaxPacket)
	caps.MaximumClientWritesPending = maxQueued
	caps.MaximumInflight = maxInflight
	caps.MaximumMessageExpiryInterval = 0 // retained messages stay, queued ones go with their session
	caps.MaximumSessionExpiryInterval = uint32(maxSession / time.Second)
	caps.ReceiveMaximum = uint16(cfg.Window)
	caps.TopicAliasMaximum = maxAliases
	caps.Compatibilities.NoInheritedPropertiesOnAck = true
	return mqtt.New(&mqtt.Options{
		Capabilities:             caps,
		ClientNetReadBufferSize:  readBuffer,
		ClientNetWriteBufferSize: 1, // the outbox gathers writes
		Logger:                   slog.New(slog.DiscardHandler),
		SysTopicResendInterval:   sysTopicSeconds,
	})
}

// Start listens at Config.Addr and serves connections until Stop. It fails when
// the address cannot be had. A Broker is started once.
func (b *Broker) Start(ctx context.Context) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", b.cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen for MQTT at %s: %w", b.cfg.Addr, err)
	}
	return b.startOn(ln)
}

func (b *Broker) startOn(ln net.Listener) error {
	if err := b.srv.Serve(); err != nil {
		return errors.Join(fmt.Errorf("start MQTT sessions: %w", err), ln.Close())
	}
	b.listener = ln
	b.loops = lifecycle.NewGroup(b.cfg.Logger)
	b.loops.Go("mqtt-listener", func(ctx context.Context) error { return b.accept(ctx, ln) })
	b.started.Store(true)
	b.cfg.Logger.Info("MQTT listens", "addr", ln.Addr().String())
	return nil
}

// Stop stops accepting, gives messages that are with the sink up to two seconds to
// be acknowledged, disconnects every client (MQTT 5: 0x8B) and waits for all
// goroutines. Last wills are not sent. When ctx ends first, sockets are closed
// hard and its error is returned. Stopping a Broker that does not run does nothing.
func (b *Broker) Stop(ctx context.Context) error {
	if !b.started.Load() || b.stopping.Swap(true) {
		return nil
	}
	err := b.listener.Close()
	err = errors.Join(err, b.loops.Stop(ctx))
	b.serving.close()
	for _, c := range b.conns.every() {
		c.cut(causeStopped)
	}
	if werr := b.serving.wait(ctx, "MQTT connections"); werr != nil {
		for _, c := range b.conns.every() {
			err = errors.Join(err, c.nc.Close())
		}
		err = errors.Join(err, werr)
	}
	b.wills.stop()
	b.work.close()
	err = errors.Join(err, b.work.wait(ctx, "MQTT writers"))
	return errors.Join(err, b.stopSessions(ctx))
}

// stopSessions ends mochi's event loop. Its Close waits for connections, of which
// there are none by now unless one hangs.
func (b *Broker) stopSessions(ctx context.Context) error {
	var last group
	last.start(func() { _ = b.srv.Close() }) // it has no error to give
	last.close()
	return last.wait(ctx, "MQTT sessions")
}

func (b *Broker) running() bool { return b.started.Load() && !b.stopping.Load() }

// Addr returns the address that the broker listens at, nil before Start.
func (b *Broker) Addr() net.Addr {
	if !b.started.Load() {
		return nil
	}
	return b.listener.Addr()
}

// ServeWebSocket serves MQTT over WebSocket, subprotocol mqtt, until the
// connection ends. It answers 503 when the broker does not run.
func (b *Broker) ServeWebSocket(w http.ResponseWriter, r *http.Request) {
	if !b.running() || !b.serving.enter() {
		http.Error(w, "the MQTT broker does not run", http.StatusServiceUnavailable)
		return
	}
	defer b.serving.leave()
	nc, err := b.upgrader.Upgrade(w, r)
	if err != nil {
		b.cfg.Logger.Debug("no MQTT over WebSocket", "peer", r.RemoteAddr, "err", err)
		return
	}
	b.serve(nc, "ws") //nolint:contextcheck // the connection has its own life, the request ends with the upgrade
}

// Publish sends a message to the clients that subscribe to topic, a canonical
// name. It never waits for them: with qos 1 and 2 it returns when the message is
// in their sessions' queues, which are in memory. A wildcard or an overlong topic
// is Invalid, a broker that does not run Unavailable.
func (b *Broker) Publish(topic string, payload []byte, retain bool, qos byte) error {
	if err := checkPublish(topic, qos); err != nil {
		return err
	}
	if !b.running() {
		return muster.Errorf(muster.Unavailable, "publish: the MQTT broker does not run")
	}
	b.deliver(&delivery{topic: topic, payload: payload, qos: qos, retain: retain, version: 5})
	return nil
}

// Kick cuts all live connections of a device, after telling MQTT 5 clients reason.
func (b *Broker) Kick(id muster.DeviceID, reason string) {
	for _, c := range b.conns.kicked(id) {
		c.bye(codeAdministrative, reason, cause{labelKicked, reason})
	}
}

// Stats is what the broker says of itself on the System page.
type Stats struct {
	Connections int    `json:"connections"` // admitted
	HalfOpen    int    `json:"half_open"`   // without CONNECT yet
	Received    uint64 `json:"received"`    // PUBLISH packets since start
	Sent        uint64 `json:"sent"`        // PUBLISH packets since start
}

// Stats returns the broker's counts.
func (b *Broker) Stats() Stats {
	known, half := b.conns.count()
	s := Stats{Connections: known, HalfOpen: half, Sent: b.sent.Load()}
	for i := range b.in {
		s.Received += b.in[i].Load()
	}
	return s
}
