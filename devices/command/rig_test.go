package command_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/devices"
	"muster/devices/command"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/sqlite"
)

// servers are databases by the variable that names their server: one for all tests, each
// of which empties it, since making one takes seconds.
var servers = map[string]string{}

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(checks); err != nil {
			panic(err)
		}
	}
	name := "muster_command_" + strings.ToLower(rand.Text())
	for _, env := range []string{"MUSTER_TEST_TIMESCALE", "MUSTER_TEST_POSTGRES"} {
		if server := os.Getenv(env); server != "" {
			admin(server, "CREATE DATABASE "+name)
			u, err := url.Parse(server)
			if err != nil {
				panic("the server's URL cannot be parsed")
			}
			u.Path = "/" + name
			servers[env] = u.String()
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		for env := range servers {
			admin(os.Getenv(env), "DROP DATABASE "+name+" WITH (FORCE)")
		}
		os.Exit(code) //nolint:forbidigo // a test's own end, after goleak
	}))
}

// engine opens one empty database, each time the same one.
type engine struct {
	name string
	open func(t testing.TB) *control.Control
}

// onEach runs a test on SQLite and, where there is a server, on PostgreSQL, beside each other.
func onEach(t *testing.T, run func(t *testing.T, e engine)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		run(t, onSQLite(t, true))
	})
	const env = "MUSTER_TEST_POSTGRES" // the control data asks for nothing of TimescaleDB
	t.Run(env, func(t *testing.T) {
		t.Parallel()
		run(t, onPostgres(t, env))
	})
}

// onSQLite returns SQLite in a directory of its own. Without quick it syncs as it does
// in production.
func onSQLite(t testing.TB, quick bool) engine {
	dir := t.TempDir()
	return engine{"sqlite", func(t testing.TB) *control.Control {
		t.Helper()
		controltest.Fill(t, dir)
		h, err := sqlite.OpenControl(context.Background(), dir)
		must(t, err)
		if quick { // what the disk does is not what these tests are about
			_, err := h.Write.ExecContext(context.Background(), "PRAGMA synchronous = OFF")
			must(t, err)
		}
		c, err := control.Open(context.Background(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
		must(t, err)
		return c
	}}
}

func onPostgres(t *testing.T, env string) engine {
	t.Helper()
	dsn, ok := servers[env]
	if !ok {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set, and CI must not skip", env)
		}
		t.Skipf("%s is not set: start a server with scripts/timescale-up.sh or scripts/postgres-up.sh and set it", env)
	}
	return engine{env, func(t testing.TB) *control.Control {
		t.Helper()
		h, err := postgres.OpenControl(context.Background(), dsn)
		must(t, err)
		h.Write.SetConnMaxIdleTime(0) // its goroutine would be one of the bubble
		c, err := control.Open(context.Background(), h, control.Postgres())
		must(t, err)
		_, err = h.Write.ExecContext(context.Background(), "TRUNCATE device, job, feed CASCADE")
		must(t, err)
		return c
	}}
}

func admin(server, query string) {
	ctx := context.Background()
	h, err := postgres.OpenControl(ctx, server)
	if err != nil {
		panic(err)
	}
	_, err = h.Write.ExecContext(ctx, query)
	if err := errors.Join(err, h.Close()); err != nil {
		panic(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, want muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != want {
		t.Errorf("the answer is %v, want kind %v", err, want)
	}
}

// wire stands for the broker: devices listen or not, and each message is acknowledged
// at once, or when the test says so.
type wire struct {
	mu      sync.Mutex
	now     func() time.Time
	auto    bool // acknowledges at once
	online  map[muster.DeviceID]bool
	flying  map[muster.DeviceID][]command.Delivery
	log     []message
	answers func(d command.Delivery) // called without a lock, when a message was acknowledged at once
}

type message struct {
	device muster.DeviceID
	id     string
	at     time.Time
	d      command.Delivery
}

func newWire(auto bool) *wire {
	return &wire{now: time.Now, auto: auto, online: map[muster.DeviceID]bool{}, flying: map[muster.DeviceID][]command.Delivery{}}
}

// Send implements command.Sender.
func (w *wire) Send(d command.Delivery) bool {
	w.mu.Lock()
	if !w.online[d.Device] {
		w.mu.Unlock()
		return false
	}
	w.log = append(w.log, message{d.Device, string(d.Correlation), w.now(), d})
	if !w.auto {
		w.flying[d.Device] = append(w.flying[d.Device], d)
		w.mu.Unlock()
		return true
	}
	w.mu.Unlock()
	d.Done(command.Acked)
	if w.answers != nil {
		w.answers(d)
	}
	return true
}

func (w *wire) connect(id muster.DeviceID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.online[id] = true
}

func (w *wire) disconnect(id muster.DeviceID) {
	w.mu.Lock()
	lost := w.flying[id]
	delete(w.flying, id)
	delete(w.online, id)
	w.mu.Unlock()
	for _, d := range lost {
		d.Done(command.Lost)
	}
}

// ack ends the deliveries of a device that are under way.
func (w *wire) ack(id muster.DeviceID, o command.Outcome) int {
	w.mu.Lock()
	list := w.flying[id]
	delete(w.flying, id)
	w.mu.Unlock()
	for _, d := range list {
		d.Done(o)
	}
	return len(list)
}

func (w *wire) sent() []message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.log)
}

// ids are what was sent to a device, in order.
func (w *wire) ids(id muster.DeviceID) (out []string) {
	for _, m := range w.sent() {
		if m.device == id {
			out = append(out, m.id)
		}
	}
	return out
}

// faulty is a store that fails when it is told to: before it writes, after it, or not
// at all. It may be used by tests that run in a bubble of time.
type faulty struct {
	*control.Control
	mu   sync.Mutex
	plan []string // of the next writes: "", before, after
	down bool
	n    int // batches
	rows int // of changes
}

var errFaulty = errors.New("the store fails as it was told to")

func (f *faulty) step() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return "before"
	}
	if len(f.plan) == 0 {
		return ""
	}
	s := f.plan[0]
	f.plan = f.plan[1:]
	return s
}

func (f *faulty) fail(plan ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan = append(f.plan, plan...)
}

func (f *faulty) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down, f.plan = down, nil
}

// WriteCommands implements command.Journal.
func (f *faulty) WriteCommands(ctx context.Context, b command.Batch) ([]int64, error) {
	away := muster.Errorf(muster.Unavailable, "away: %w", errFaulty)
	s := f.step()
	if s == "before" {
		return nil, away
	}
	f.mu.Lock()
	f.n++
	f.rows += len(b.Changes) + len(b.Insert)
	f.mu.Unlock()
	missing, err := f.Control.WriteCommands(ctx, b)
	if s == "after" {
		return nil, away
	}
	return missing, err
}

// CommandsWritten implements command.Journal.
func (f *faulty) CommandsWritten(ctx context.Context, token string) (bool, error) {
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	if down {
		return false, muster.Errorf(muster.Unavailable, "away: %w", errFaulty)
	}
	return f.Control.CommandsWritten(ctx, token)
}

// rig is Commands on a real registry and store, with a wire for a broker.
type rig struct {
	testing.TB
	e        engine
	store    *faulty
	registry *devices.Registry
	wire     *wire
	c        *command.Commands
	options  command.Options
	now      func() time.Time
	cancel   context.CancelFunc
	ran      chan error
	loops    int
	events   []command.Event
	eventsMu sync.Mutex
}

func newRig(t testing.TB, e engine, auto bool, change ...func(*command.Options)) *rig {
	t.Helper()
	r := &rig{TB: t, e: e, wire: newWire(auto), now: time.Now}
	r.store = &faulty{Control: e.open(t)}
	r.load()
	for _, f := range change {
		f(&r.options)
	}
	r.start()
	return r
}

func (r *rig) load() {
	r.Helper()
	log := slog.New(slog.DiscardHandler)
	r.registry = devices.NewRegistry(r.store.Control, time.Now, log, devices.Options{OnDeleted: func(id muster.DeviceID) { r.c.Forget(id) }})
	must(r, r.registry.Load(context.Background()))
}

// start makes new Commands on the store, as a new process would, and runs it.
func (r *rig) start() {
	r.Helper()
	o := r.options
	o.Sender, o.Registry, o.Selector = r.wire, r.registry, r.registry
	o.OnChange = func(list []command.Event) {
		r.eventsMu.Lock()
		defer r.eventsMu.Unlock()
		r.events = append(r.events, list...)
	}
	r.c = command.New(r.store, r.now, slog.New(slog.DiscardHandler), o)
	must(r, r.c.Load(context.Background()))
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ran, r.loops = cancel, make(chan error, 3), 2
	go func() { r.ran <- r.c.Run(ctx) }()
	go func() { r.ran <- r.c.RunDesired(ctx) }()
}

// stop ends the loops. What is under way is lost with its connections.
func (r *rig) stop() {
	r.Helper()
	r.cancel()
	for range r.loops {
		must(r, <-r.ran)
	}
}

// restart is a new process: the connections are gone.
func (r *rig) restart() {
	r.Helper()
	r.stop()
	r.wire.mu.Lock()
	r.wire.online, r.wire.flying = map[muster.DeviceID]bool{}, map[muster.DeviceID][]command.Delivery{}
	r.wire.mu.Unlock()
	r.start()
}

func (r *rig) close() {
	r.Helper()
	r.stop()
	must(r, r.store.Close())
}

func (r *rig) device(ids ...muster.DeviceID) {
	r.Helper()
	for _, id := range ids {
		_, _, err := r.registry.Create(context.Background(), devices.Spec{ID: id})
		must(r, err)
	}
}

// devices makes n devices at once: d00000 and so on.
func (r *rig) devices(n int) (ids []muster.DeviceID) {
	r.Helper()
	var list []devices.Spec
	for i := range n {
		id := muster.DeviceID(fmt.Sprintf("d%05d", i))
		ids = append(ids, id)
		list = append(list, devices.Spec{ID: id})
	}
	_, _, err := r.registry.CreateMany(context.Background(), list)
	must(r, err)
	return ids
}

func (r *rig) send(device muster.DeviceID, method string) command.Command {
	r.Helper()
	m, err := r.c.Send(context.Background(), command.Spec{Device: device, Method: method, By: "test"}, 0)
	must(r, err)
	return m
}

// report has a device report on a command and returns the answer.
func (r *rig) report(device muster.DeviceID, id, payload string) error {
	return r.c.Results(context.Background(), []command.Report{{Device: device, Command: id, Payload: []byte(payload)}})[0]
}

// ready connects a device and has the broker say so.
func (r *rig) ready(device muster.DeviceID) {
	r.wire.connect(device)
	r.c.Ready(device, false)
}

func (r *rig) get(device muster.DeviceID, id int64) command.Command {
	r.Helper()
	m, err := r.c.Command(context.Background(), device, id)
	must(r, err)
	return m
}

func (r *rig) wantState(device muster.DeviceID, id int64, want command.State) command.Command {
	r.Helper()
	m := r.get(device, id)
	if m.State != want {
		r.Errorf("command %d of %s is %s, want %s", id, device, m.State, want)
	}
	return m
}

func text(id int64) string { return command.FormatID(id) }
