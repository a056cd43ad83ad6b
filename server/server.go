package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/api/ddi"
	"muster/audit"
	"muster/broker"
	"muster/broker/listen"
	"muster/bus"
	"muster/cache"
	"muster/dashboard/live"
	"muster/devices"
	"muster/devices/command"
	"muster/devices/join"
	"muster/devices/twin"
	"muster/feed"
	"muster/firmware/blob"
	"muster/firmware/budget"
	"muster/firmware/catalog"
	"muster/firmware/deliver"
	"muster/firmware/depot"
	"muster/firmware/s3"
	"muster/ingest"
	"muster/internal/lifecycle"
	"muster/internal/logctx"
	"muster/notify/chat"
	"muster/notify/email"
	"muster/notify/hooks"
	"muster/notify/webhook"
	"muster/oidc"
	"muster/once"
	"muster/tasks"
	"muster/traffic"
)

// Server is every room, wired.
type Server struct {
	cfg        Config
	lock       *os.File
	stores     *stores
	feed       *feed.Feed
	rejected   *rejections     // told by the feed
	vault      *sealer         // of secrets that must be read again
	linkKey    []byte          // signs ack links
	images     *blob.Store     // on this server's disk
	bucket     *s3.Store       // nil when images lie there alone
	depot      *depot.Depot    // likewise; it is over images
	patches    *patches        // nil when there are none
	links      *deliver.Signer // of addresses of images
	budgets    *budget.Budgets // of what devices are sent
	delivery   *deliver.Handler
	offerKey   []byte // the seed of the key that offers of firmware are signed with
	sealer     *audit.Sealer
	bus        *bus.Bus
	metrics    *prometheus.Registry
	registry   *devices.Registry
	twins      *twin.Twins
	commands   *command.Commands
	simulation *simulation
	tasks      *tasks.Tasks
	firmware   *catalog.Catalog
	once       *once.Keeper
	accounts   *accounts.Accounts
	notify     notifications
	mail       *email.Mailer // nil without --smtp
	webhooks   *hooks.Webhooks
	hooks      *webhook.Sender
	chats      *chat.Sender // over hooks
	caches     *cache.Book
	openID     *oidc.OpenID // nil without a provider
	instance   string       // the name of this data directory's server
	size       *sizes
	join       *join.Join
	rollouts   *rollouts
	logins     *devices.Logins
	ddi        *ddi.Handler // nil when it is off
	ingest     *ingest.Ingest
	said       said
	updates    updates
	broker     *broker.Broker
	certs      *listen.Certs // nil without TLS
	live       *live.Gateway
	fleet      *fleet
	traffic    *traffic.Meter
	counters   *counters
	listener   net.Listener
	web        *api.API
	http       *http.Server
	loops      *lifecycle.Group
	unwatch    func()

	unwatchTwins func()
	tellPresence func([]devices.Transition)
	deliveryKey  []byte // signs addresses of images

	stopping atomic.Bool
	setup    string // token of the one-time link, empty when it was used
	failed   chan error
	began    time.Time
}

// New checks cfg, opens the stores and the log, and builds every room. Nothing is
// served yet. What it opened is closed again when it fails.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, failed: make(chan error, 1), began: cfg.Now(), metrics: prometheus.NewRegistry(), traffic: traffic.New()}
	s.loops = lifecycle.NewGroup(cfg.Logger)
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	return s, nil
}

func (s *Server) progress(what string) {
	if s.cfg.Progress != nil {
		s.cfg.Progress(what)
	}
}

// build makes the rooms from the lowest floor up.
func (s *Server) build(ctx context.Context) (err error) {
	cfg := &s.cfg
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if s.lock, err = lockDir(cfg.DataDir); err != nil {
		return err
	}
	cfg.Logger = slog.New(logctx.Handler(cfg.Logger.Handler())) // lines of a request have its id
	s.progress("opening the store")
	if s.stores, err = openStores(ctx, cfg); err != nil {
		return err
	}
	s.size = &sizes{ask: s.stores.engine.size, now: cfg.Now}
	s.feed = feed.New(s.stores.control, cfg.Logger)
	s.stores.control.OnEvents(s.feed.Publish)
	s.rejected = newRejections(s.stores.control, cfg.Now, cfg.Logger)
	s.once = once.New(s.stores.control, cfg.Now, cfg.Logger, once.Limits{})
	if err := s.buildSecrets(ctx); err != nil {
		return err
	}
	s.progress("opening the log")
	s.bus, err = bus.Open(ctx, bus.Config{Dir: filepath.Join(cfg.DataDir, "log"), MaxBytes: cfg.LogMaxBytes, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	log, err := s.bus.TelemetryLog(ctx)
	if err != nil {
		return err
	}
	s.buildAccounts() //nolint:contextcheck // wills take their own time
	s.buildDevices()
	if err := s.buildOutward(); err != nil {
		return err
	}
	if err := s.buildTasks(); err != nil {
		return err
	}
	if err := s.buildFirmware(); err != nil {
		return err
	}
	if err := s.buildSaid(); err != nil { //nolint:contextcheck // what is refused waits for nobody
		return err
	}
	s.ingest = ingest.New(ingest.Config{
		Log: log, Store: s.stores.telemetry, Latest: s.stores.telemetry, Level: cfg.AckLevel, Now: cfg.Now,
		Logger: cfg.Logger, Metrics: s.metrics, Tracer: tracer{s.said.trace},
		Known: s.registry.Has, Erasures: s.registry, Eraser: s.stores.telemetry,
		Observe: func(rs []muster.Reading) {
			s.registry.Observe(rs) // before those who look at the device then
			s.live.Observe(rs)
			s.updates.talk.Observe(rs)
		},
		OnRejected: func(r muster.Rejected) {
			s.registry.Heard(r.Device, r.Arrival)
			s.broker.TellRejected(r)
			if s.registry.Has(r.Device) {
				s.rejected.add(&r)
			}
		},
		Seen:    s.registry.Seen,
		LevelOf: func(id muster.DeviceID) ingest.AckLevel { return ingest.AckLevel(s.registry.Level(id)) },
	})
	s.measureErasures()
	s.fleet = &fleet{registry: s.registry, in: s.ingest, now: cfg.Now, vitals: newVitals(s.ingest.StoreSeconds(), s.stores.control, cfg.Now, cfg.Logger)}
	mqtt, err := s.brokerConfig(ctx)
	if err != nil {
		return err
	}
	s.broker, err = broker.New(mqtt, login{s.registry, s.accounts, s.join, s.logins}, s.sink(), s.registry)
	if err != nil {
		return fmt.Errorf("build the broker: %w", err)
	}
	s.tellPresence = tellPresence(context.WithoutCancel(ctx), s.broker, cfg.Logger)
	s.buildCaches()
	return s.buildHTTP() //nolint:contextcheck // handlers take the context of their request
}

// Start loads the registry and brings the rooms up, the listeners last.
func (s *Server) Start(ctx context.Context) error {
	err := s.start(ctx)
	if err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return errors.Join(err, s.Stop(stopCtx))
	}
	return nil
}

func (s *Server) start(ctx context.Context) (err error) {
	s.progress("loading the registry")
	if err := s.loadDevices(ctx); err != nil {
		return err
	}
	if err := s.ensureAdmins(ctx); err != nil {
		return err
	}
	s.progress("reading the log")
	if err := s.ingest.Start(ctx); err != nil {
		return err
	}
	s.said.start(s)
	s.updates.start(s)
	s.loops.Go("memory", s.freeMemory)
	s.loops.Go("traffic", s.fleet.countMinutes)
	s.loops.Go("vitals", s.fleet.vitals.run)
	s.startDevices()
	s.loops.Go("feed", s.feed.Run)
	s.loops.Go("feed-rejected", s.rejected.Run)
	s.loops.Go("audit-seals", s.sealer.Run)
	s.loops.Go("idempotency", s.once.Run)
	if s.depot != nil {
		s.loops.Go("firmware-bucket", s.depot.Run)
	}
	s.loops.Go("firmware-sweep", s.firmware.Run)
	s.loops.Go("accounts-sessions", s.accounts.Run)
	s.loops.Go("accounts-expiry", s.accounts.RunExpiry)
	s.loops.Go("accounts-mail", s.accounts.RunMail)
	s.unwatch = s.registry.Watch(s.live.DevicesChanged)
	if err := s.live.Start(ctx); err != nil {
		return err
	}
	if s.listener, err = net.Listen("tcp", s.cfg.HTTPAddr); err != nil { //nolint:noctx // binding does not wait
		return muster.Errorf(muster.Unavailable, "cannot listen on %s: %w", s.cfg.HTTPAddr, err)
	}
	if err := s.broker.Start(ctx); err != nil {
		return err
	}
	s.loops.Go("devices-absence", s.registry.RunAbsence) // devices can come back from now on
	if s.certs != nil {
		s.loops.Go("certificates", s.certs.Watch)
	}
	if err := s.tasks.Load(ctx); err != nil { // what goes on needs all the rooms
		return err
	}
	s.loops.Go("tasks", s.tasks.Run)
	s.rollouts.start()
	s.startNotifications() // links need to know where people reach us
	s.loops.Go("http", s.serveHTTP)
	if s.cfg.Demo {
		return s.startDemo(ctx)
	}
	return nil
}

// Failed yields the error of a server that cannot go on.
func (s *Server) Failed() <-chan error { return s.failed }

// Stop takes the rooms down in order: listeners, broker, ingest (which stores what
// it accepted while ctx allows), the loops, the store. It may be called once.
func (s *Server) Stop(ctx context.Context) error {
	s.stopping.Store(true)
	var errs []error
	s.tasks.EndWaits()
	s.commands.EndWaits() // or the API's listener would wait for them
	if s.http != nil {
		s.web.EndStreams()                        // likewise
		s.delivery.End()                          // likewise
		s.images.Close()                          // likewise
		errs = append(errs, s.http.Shutdown(ctx)) // closes the listener at once
	}
	if s.listener != nil {
		_ = s.listener.Close() // when Serve had not begun
	}
	// Tasks first: they tell the others of what they do.
	errs = append(errs, s.simulation.stop(ctx), s.tasks.Stop(ctx), s.live.Stop(ctx), s.counters.sampler.Stop(ctx), s.broker.Stop(ctx), s.said.intake.Stop(ctx), s.ingest.Stop(ctx))
	if s.unwatch != nil {
		s.unwatch()
	}
	if s.unwatchTwins != nil {
		s.unwatchTwins()
	}
	errs = append(errs, s.loops.Stop(ctx))
	s.updates.pump.End()
	errs = append(errs, s.budgets.End(ctx), s.close(ctx))
	return errors.Join(errs...)
}

// close closes what New opened.
func (s *Server) close(context.Context) error {
	var err error
	if s.hooks != nil {
		s.hooks.Close()
	}
	if s.openID != nil {
		s.openID.Close()
	}
	if s.images != nil {
		s.images.Close()
	}
	if s.bucket != nil {
		s.bucket.Close()
	}
	if s.bus != nil {
		s.bus.Close()
	}
	if s.stores != nil {
		err = s.stores.close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// MQTTAddr returns where the broker listens.
func (s *Server) MQTTAddr() string { return s.broker.Addr().String() }

// MQTTSAddr returns where the broker listens over TLS, empty when it does not.
func (s *Server) MQTTSAddr() string {
	if s.certs == nil {
		return ""
	}
	return s.broker.Addrs()[1].String()
}

// HTTPAddr returns where the API and the dashboard listen.
func (s *Server) HTTPAddr() string { return s.listener.Addr().String() }

// URL returns the dashboard's address for a browser.
func (s *Server) URL() string {
	if s.cfg.PublicURL != "" {
		return s.cfg.PublicURL
	}
	return "http://" + reachable(s.HTTPAddr())
}

// BrokerAddr returns the broker's address as a client on this machine writes it.
func (s *Server) BrokerAddr() string { return reachable(s.MQTTAddr()) }

// reachable puts localhost in the place of "every address".
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// mqttPort returns the port clients are told, 0 when it is not known yet.
func (s *Server) mqttPort() int {
	_, port, err := net.SplitHostPort(s.cfg.MQTTAddr)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return n
}

// SetupLink returns the one-time link that signs in as admin, empty when one has
// been used.
func (s *Server) SetupLink() string {
	if s.setup == "" {
		return ""
	}
	return s.URL() + "/setup/" + s.setup
}
