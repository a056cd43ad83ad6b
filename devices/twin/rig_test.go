package twin_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/devices"
	"muster/devices/twin"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/postgres/pgtest"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onEach runs a test on SQLite and, where there is a server, on PostgreSQL.
func onEach[T interface {
	testing.TB
	Run(name string, f func(T)) bool
}](t T, run func(t T, store *control.Control),
) {
	t.Run("sqlite", func(t T) { run(t, onSQLite(t)) })
	t.Run("postgres", func(t T) {
		h, err := postgres.OpenControl(t.Context(), controltest.Database(t, pgtest.Server(t, "MUSTER_TEST_POSTGRES")))
		must(t, err)
		run(t, opened(t, h, control.Postgres()))
	})
}

func onSQLite(t testing.TB) *control.Control {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	must(t, err)
	return opened(t, control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
}

func opened(t testing.TB, h control.Handles, d control.Dialect) *control.Control {
	t.Helper()
	c, err := control.Open(t.Context(), h, d)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
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
		t.Errorf("the error is %v, want %v", err, want)
	}
}

var errBroken = errors.New("the store is broken")

// faulty is a store whose write number fail, counted from the last set, is answered
// with an error: before it is done, or after. 0 is none.
type faulty struct {
	twin.Store
	mu    sync.Mutex
	fail  int
	after bool
}

func (f *faulty) set(fail int, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.after = fail, after
}

func (f *faulty) do(fn func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail--
	if f.fail == 0 && !f.after {
		return errBroken
	}
	if err := fn(); err != nil || f.fail != 0 {
		return err
	}
	return errBroken
}

func (f *faulty) PutTwinLevel(ctx context.Context, row twin.LevelRow, last int64) error {
	return f.do(func() error { return f.Store.PutTwinLevel(ctx, row, last) })
}

func (f *faulty) SaveTwins(ctx context.Context, rows []twin.Row, last int64) (gone []muster.DeviceID, err error) {
	err = f.do(func() (err error) {
		gone, err = f.Store.SaveTwins(ctx, rows, last)
		return err
	})
	return gone, err
}

func (f *faulty) SaveEffective(ctx context.Context, rows []twin.Row, last int64) error {
	return f.do(func() error { return f.Store.SaveEffective(ctx, rows, last) })
}

// rig is twins over a real registry and store.
type rig struct {
	testing.TB
	control  *control.Control
	store    *faulty
	registry *devices.Registry
	twins    *twin.Twins
	now      time.Time
	told     map[muster.DeviceID]twin.Change // the last
	changes  int
	unwatch  func()
	onTold   func()
	log      *slog.Logger
}

func (r *rig) nowFunc() time.Time { return r.now }

func newRig(t testing.TB, c *control.Control) *rig {
	r := &rig{TB: t, control: c, store: &faulty{Store: c}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), told: map[muster.DeviceID]twin.Change{}}
	r.restart()
	return r
}

// restart reads everything from the store again.
func (r *rig) restart() {
	r.Helper()
	if r.unwatch != nil {
		r.unwatch()
	}
	now, log := r.nowFunc, slog.New(slog.DiscardHandler)
	r.log = log
	var twins *twin.Twins
	r.registry = devices.NewRegistry(r.control, now, log, devices.Options{
		OnGroupDeleted:   func(name string) { twins.GroupDeleted(name) },
		OnProfileDeleted: func(name string) { twins.ProfileDeleted(name) },
	})
	twins = twin.New(r.store, r.registry, now, log, twin.Options{OnDesired: func(cs []twin.Change) {
		for _, c := range cs {
			if was := r.told[c.Device]; was.Version >= c.Version {
				r.Errorf("%s is told version %d after %d", c.Device, c.Version, was.Version)
			}
			payload, ok := twins.DesiredPayload(c.Device)
			if want := string(twin.Payload(c.Version, c.Next)); !ok || string(payload) != want {
				r.Errorf("%s is told %s and sees %s", c.Device, want, payload)
			}
			r.told[c.Device] = c
			r.changes++
		}
		if r.onTold != nil {
			r.onTold()
		}
	}})
	must(r, r.registry.Load(r.Context()))
	must(r, twins.Load(r.Context()))
	r.unwatch = r.registry.Watch(twins.DevicesChanged)
	r.twins = twins
	r.settle()
}

func (r *rig) settle() {
	r.Helper()
	must(r, r.twins.Settle(r.Context()))
}

func (r *rig) device(ids ...muster.DeviceID) {
	r.Helper()
	for _, id := range ids {
		r.now = r.now.Add(time.Second)
		_, _, err := r.registry.Create(r.Context(), devices.Spec{ID: id})
		must(r, err)
	}
	r.settle()
}

func (r *rig) groups(names ...string) {
	r.Helper()
	for _, n := range names {
		must(r, r.registry.PutGroup(r.Context(), devices.Group{Name: n}))
	}
}

func (r *rig) patch(at twin.Level, patch string) twin.Desired {
	r.Helper()
	r.now = r.now.Add(time.Second)
	d, err := r.twins.PatchDesired(r.Context(), at, []byte(patch), nil)
	must(r, err)
	return d
}

func (r *rig) report(id muster.DeviceID, patch string) {
	r.Helper()
	r.now = r.now.Add(time.Second)
	must(r, r.twins.ApplyReported(r.Context(), []twin.Report{{Device: id, Patch: []byte(patch)}})[0])
}

func (r *rig) get(id muster.DeviceID) twin.Twin {
	r.Helper()
	tw, err := r.twins.Get(id)
	must(r, err)
	return tw
}

func (r *rig) update(id muster.DeviceID, c devices.Change) {
	r.Helper()
	_, err := r.registry.Update(r.Context(), id, c)
	must(r, err)
	r.settle()
}

func groupsOf(t testing.TB, names ...string) *devices.Groups {
	t.Helper()
	g, err := devices.GroupsOf(names)
	must(t, err)
	return &g
}
