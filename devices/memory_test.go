package devices_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/devices"
	"muster/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("store is down")

// memory is a Store that survives the registries over it.
type memory struct {
	mu       sync.Mutex
	devices  map[muster.DeviceID]devices.Device
	creds    map[string]devices.Credential
	presence map[muster.DeviceID]devices.PresenceRow
	profiles map[string]devices.Profile
	groups   map[string]devices.Group
	history  map[muster.DeviceID]devices.HistoryRow
	alive    muster.Micros
	erasures map[muster.DeviceID]muster.Micros
	batches  []int        // sizes of SavePresence
	feed     []feed.Event // that came with presence
	down     bool
}

func newMemory() *memory {
	return &memory{
		devices:  map[muster.DeviceID]devices.Device{},
		creds:    map[string]devices.Credential{},
		presence: map[muster.DeviceID]devices.PresenceRow{},
		history:  map[muster.DeviceID]devices.HistoryRow{},
		profiles: map[string]devices.Profile{},
		groups:   map[string]devices.Group{},
		erasures: map[muster.DeviceID]muster.Micros{},
	}
}

func (m *memory) setDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

// do runs fn as a store call: alone, unless the store is down or ctx is over.
func (m *memory) do(ctx context.Context, fn func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return errDown
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fn()
}

func each[T any](vs []T, fn func(T) error) error {
	for _, v := range vs {
		if err := fn(v); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) LoadDevices(ctx context.Context, fn func(devices.Device) error) error {
	return m.do(ctx, func() error { return each(slices.Collect(maps.Values(m.devices)), fn) })
}

func (m *memory) LoadCredentials(ctx context.Context, fn func(devices.Credential) error) error {
	return m.do(ctx, func() error { return each(slices.Collect(maps.Values(m.creds)), fn) })
}

func (m *memory) LoadPresence(ctx context.Context, fn func(devices.PresenceRow) error) error {
	return m.do(ctx, func() error { return each(slices.Collect(maps.Values(m.presence)), fn) })
}

func (m *memory) InsertDevices(ctx context.Context, ds []devices.Device, cs []devices.Credential) error {
	return m.do(ctx, func() error {
		for _, d := range ds {
			if _, ok := m.devices[d.ID]; ok {
				return muster.Errorf(muster.Conflict, "taken")
			}
		}
		for _, d := range ds {
			m.devices[d.ID] = d
		}
		for _, c := range cs {
			m.creds[c.ID] = c
		}
		return nil
	})
}

func (m *memory) DeleteDevices(ctx context.Context, ids []muster.DeviceID) error {
	return m.do(ctx, func() error { return m.delete(ids) })
}

// delete is what DeleteDevices does within do.
func (m *memory) delete(ids []muster.DeviceID) error {
	for _, id := range ids {
		if _, ok := m.devices[id]; !ok {
			return muster.Errorf(muster.NotFound, "no device")
		}
	}
	for _, id := range ids {
		delete(m.devices, id)
		delete(m.presence, id)
		delete(m.history, id)
		for child, d := range m.devices {
			if d.Parent == id {
				d.Parent = ""
				m.devices[child] = d
			}
		}
		maps.DeleteFunc(m.creds, func(_ string, c devices.Credential) bool { return c.Device == id })
	}
	return nil
}

func (m *memory) EraseDevices(ctx context.Context, ids []muster.DeviceID, since muster.Micros) error {
	return m.do(ctx, func() error {
		if err := m.delete(ids); err != nil {
			return err
		}
		for _, id := range ids {
			m.erasures[id] = since
		}
		return nil
	})
}

func (m *memory) LoadErasures(ctx context.Context, fn func(devices.Erasure) error) error {
	return m.do(ctx, func() error {
		for id, since := range m.erasures {
			if err := fn(devices.Erasure{Device: id, Since: since}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *memory) DeleteErasures(ctx context.Context, ids []muster.DeviceID) error {
	return m.do(ctx, func() error {
		for _, id := range ids {
			delete(m.erasures, id)
		}
		return nil
	})
}

func (m *memory) UpdateDevices(ctx context.Context, ds []devices.Device) error {
	return m.do(ctx, func() error {
		for _, d := range ds {
			if _, ok := m.devices[d.ID]; !ok {
				return muster.Errorf(muster.NotFound, "no device")
			}
		}
		for _, d := range ds {
			m.devices[d.ID] = d
		}
		return nil
	})
}

func (m *memory) LoadGroups(ctx context.Context, fn func(devices.Group) error) error {
	return m.do(ctx, func() error { return each(slices.Collect(maps.Values(m.groups)), fn) })
}

func (m *memory) PutGroup(ctx context.Context, g devices.Group) error {
	return m.do(ctx, func() error { m.groups[g.Name] = g; return nil })
}

func (m *memory) DeleteGroup(ctx context.Context, name string) error {
	return m.do(ctx, func() error {
		delete(m.groups, name)
		for id, d := range m.devices {
			names := slices.DeleteFunc(d.Groups.Names(), func(n string) bool { return n == name })
			gs, err := devices.GroupsOf(names)
			if err != nil {
				return err
			}
			d.Groups = gs
			m.devices[id] = d
		}
		return nil
	})
}

func (m *memory) LoadProfiles(ctx context.Context, fn func(devices.Profile) error) error {
	return m.do(ctx, func() error { return each(slices.Collect(maps.Values(m.profiles)), fn) })
}

func (m *memory) PutProfile(ctx context.Context, p devices.Profile) error {
	return m.do(ctx, func() error { m.profiles[p.Name] = p; return nil })
}

func (m *memory) DeleteProfile(ctx context.Context, name string) error {
	return m.do(ctx, func() error {
		if _, ok := m.profiles[name]; !ok {
			return muster.Errorf(muster.NotFound, "no profile")
		}
		delete(m.profiles, name)
		return nil
	})
}

func (m *memory) ReplaceCredentials(ctx context.Context, put []devices.Credential, drop []string) error {
	return m.do(ctx, func() error {
		for _, id := range drop {
			delete(m.creds, id)
		}
		for _, c := range put {
			m.creds[c.ID] = c
		}
		return nil
	})
}

func (m *memory) SaveCredentials(ctx context.Context, cs []devices.Credential) error {
	return m.do(ctx, func() error {
		for _, c := range cs {
			if _, ok := m.devices[c.Device]; ok {
				m.creds[c.ID] = c
			}
		}
		return nil
	})
}

func (m *memory) SavePresence(ctx context.Context, rows []devices.PresenceRow) error {
	return m.do(ctx, func() error {
		m.batches = append(m.batches, len(rows))
		m.feed = append(m.feed, feed.Of(ctx).Take()...)
		for _, r := range rows {
			m.presence[r.Device] = r
		}
		return nil
	})
}

func (m *memory) LoadHistory(ctx context.Context, fn func(devices.HistoryRow) error) error {
	return m.do(ctx, func() error { return each(slices.Collect(maps.Values(m.history)), fn) })
}

func (m *memory) SaveHistory(ctx context.Context, rows []devices.HistoryRow) error {
	return m.do(ctx, func() error {
		for _, r := range rows {
			m.history[r.Device] = r
		}
		return nil
	})
}

func (m *memory) LoadAlive(ctx context.Context) (at muster.Micros, err error) {
	err = m.do(ctx, func() error { at = m.alive; return nil })
	return at, err
}

func (m *memory) SaveAlive(ctx context.Context, at muster.Micros) error {
	return m.do(ctx, func() error { m.alive = at; return nil })
}

func (m *memory) saved(id muster.DeviceID) muster.Presence {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.presence[id].Presence
}

func (m *memory) lastUsed(id string) muster.Micros {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.creds[id].LastUsed
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// open returns a loaded registry over m.
func open(t testing.TB, m *memory, o devices.Options) *devices.Registry {
	t.Helper()
	r := devices.NewRegistry(m, time.Now, quiet(), o)
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func wantKind(t testing.TB, err error, kind muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != kind {
		t.Errorf("error is %v (%v), want kind %v", err, muster.KindOf(err), kind)
	}
}
