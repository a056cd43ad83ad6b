package hazard

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/broker"
	"muster/broker/journal"
	"muster/broker/listen"
	"muster/bus"
	"muster/devices"
)

// The targets of the attacks.
const (
	stock = "stock"
	ours  = "muster"
)

// idleWorkers are goroutines that the broker may keep when no one is connected.
const idleWorkers = 4

// spec is how a target is made. A zero number leaves the broker's own default,
// except for rates, where it is no limit. The stock server knows NoFile and
// Target only.
type spec struct {
	Target string
	Dir    string // for what the target keeps; it is removed with the test
	NoFile int    // the most open files of the process

	MaxPacket        int
	ConnectTimeout   time.Duration
	MaxHalfOpen      int
	MaxSubscriptions int           // of one session
	MaxRetained      int           // topics with a retained message that one client has set
	Queue            int           // messages of QoS 1 and 2 that wait for one session
	SlowAfter        time.Duration // a client that takes nothing for so long is cut
	MessageRate      int           // PUBLISH packets per second and client, with a burst of two seconds' at most
	ByteRate         int           // bytes per second and client, with the same burst
	OverTime         time.Duration // a client that is over its rate for so long is cut
}

// unlimited is the rate, or far more than a test can send.
func unlimited(rate int) int {
	if rate == 0 {
		return 1 << 30
	}
	return rate
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

// config maps a spec to the broker's configuration: the one place to adapt when
// the broker gets a setting.
func (sp spec) config(reg prometheus.Registerer, log journal.Log) broker.Config {
	return broker.Config{
		Addr: "127.0.0.1:0", Now: time.Now, Metrics: reg, Log: log,
		Logger:           logger(),
		Tick:             10 * time.Millisecond,
		MaxQueued:        sp.Queue,
		MaxRetainedOwn:   sp.MaxRetained,
		Rate:             broker.Rate{Messages: unlimited(sp.MessageRate), Bytes: unlimited(sp.ByteRate)},
		OverTime:         sp.OverTime,
		Limit:            listen.LimitsConfig{AddressRate: -1},
		MaxPacket:        sp.MaxPacket,
		ConnectTimeout:   sp.ConnectTimeout,
		WriteTimeout:     sp.SlowAfter,
		MaxHalfOpen:      sp.MaxHalfOpen,
		MaxSubscriptions: sp.MaxSubscriptions,
	}
}

// dropped is how many messages the broker says it dropped.
func dropped(m map[string]float64) float64 {
	return m["muster_mqtt_dropped_total"] + m["muster_mqtt_inflight_dropped_total"]
}

func panics(m map[string]float64) float64   { return m["muster_mqtt_panics_total"] }
func retained(m map[string]float64) float64 { return m["muster_mqtt_retained"] }

func (sp spec) serve() (running, error) {
	if sp.Target == stock {
		return serveStock()
	}
	return serveMuster(sp)
}

// serveMuster starts Muster's broker on the real log.
func serveMuster(sp spec) (running, error) {
	ctx := context.Background()
	m := &musterServer{reg: prometheus.NewRegistry()}
	var err error
	if m.bus, err = bus.Open(ctx, bus.Config{Dir: sp.Dir, Logger: logger()}); err != nil {
		return nil, fmt.Errorf("open the bus: %w", err)
	}
	log, err := m.bus.OpenLog(ctx, "MQTT_00", m.bus.SessionBytes())
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if m.Broker, err = broker.New(sp.config(m.reg, log), door{}, keeper{}, onlookers{}); err != nil {
		return nil, fmt.Errorf("make the broker: %w", err)
	}
	if err := m.Start(ctx); err != nil {
		return nil, fmt.Errorf("start the broker: %w", err)
	}
	return m, nil
}

// door lets everyone in who names himself: "admin" may use every topic, a name
// "dev-..." is the device of that id. There is nobody else.
type door struct{}

func (door) Authenticate(l broker.Login) (broker.Identity, error) {
	switch {
	case l.Username == "admin":
		return broker.Identity{Name: "admin", Admin: true}, nil
	case strings.HasPrefix(l.Username, "dev-"):
		return broker.Identity{Device: muster.DeviceID(l.Username)}, nil
	}
	return broker.Identity{}, muster.Errorf(muster.Unauthorized, "unknown credential")
}

// Refresh returns an identity as it is: no right changes here.
func (door) Refresh(id broker.Identity) (broker.Identity, error) { return id, nil }

// Parent returns no parent: there are no gateways here.
func (door) Parent(muster.DeviceID) muster.DeviceID { return "" }

// keeper is a sink that keeps everything at once.
type keeper struct{}

func (keeper) Accept(ctx context.Context, m broker.Message) error {
	if m.From != nil {
		m.From.Acked(m.Token, nil)
	}
	return ctx.Err()
}

func (keeper) Refuse(broker.Message, string, string, int) {}

type onlookers struct{}

func (onlookers) Connected(devices.Connection)                       {}
func (onlookers) Disconnected(devices.Connection, string, time.Time) {}

type musterServer struct {
	*broker.Broker
	bus *bus.Bus
	reg *prometheus.Registry
}

func (m *musterServer) addr() string { return m.Addr().String() }

func (m *musterServer) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := m.Stop(ctx)
	m.bus.Close()
	return err
}

func (m *musterServer) metrics() (map[string]float64, error) {
	families, err := m.reg.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather: %w", err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		for _, x := range f.GetMetric() {
			v := x.GetCounter().GetValue() + x.GetGauge().GetValue()
			all[f.GetName()] += v
			for _, l := range x.GetLabel() {
				all[f.GetName()+"{"+l.GetValue()+"}"] += v
			}
		}
	}
	return all, nil
}

// stockServer is the server of the module that the broker takes its codec from,
// as it is by default, with the rights of door.
type stockServer struct {
	srv *mqtt.Server
	ln  *listeners.TCP
}

func serveStock() (running, error) {
	srv := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := srv.AddHook(new(stockRights), nil); err != nil {
		return nil, fmt.Errorf("add hook: %w", err)
	}
	ln := listeners.NewTCP(listeners.Config{ID: "tcp", Address: "127.0.0.1:0"})
	if err := srv.AddListener(ln); err != nil {
		return nil, fmt.Errorf("add listener: %w", err)
	}
	return &stockServer{srv, ln}, srv.Serve()
}

func (s *stockServer) addr() string                         { return s.ln.Address() }
func (s *stockServer) metrics() (map[string]float64, error) { return map[string]float64{}, nil }
func (s *stockServer) stop() error                          { return s.srv.Close() }

// stockRights gives a device its own topics only, and refuses what it publishes
// elsewhere in the two ways that the stock server offers.
type stockRights struct{ mqtt.HookBase }

func (*stockRights) ID() string { return "rights" }

func (*stockRights) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck || b == mqtt.OnPublish
}

func (*stockRights) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

func (*stockRights) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	return write && !strings.HasPrefix(topic, "secret/") || !write && stockMay(cl, topic)
}

func (*stockRights) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if !stockMay(cl, pk.TopicName) {
		return pk, packets.ErrNotAuthorized
	}
	return pk, nil
}

func stockMay(cl *mqtt.Client, topic string) bool {
	user := string(cl.Properties.Username)
	return user == "admin" || strings.HasPrefix(topic, "devices/"+user+"/")
}
