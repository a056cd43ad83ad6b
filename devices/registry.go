package devices

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/cache"
	"muster/devices/query"
	"muster/feed"
)

const (
	// MaxBatch is the most devices one CreateMany takes.
	MaxBatch = 10_000
	// MaxName is the longest name of a device, in bytes.
	MaxName = 200

	writeTimeout = 10 * time.Second // for one change in the store
)

// Options are the parts of a Registry that belong to other rooms. Each may be nil.
type Options struct {
	// OnRights is called after a change of what devices may do, so that their live
	// connections can be cut or get their new rights: affects says whether the
	// change is about a connection of device that came in by credential. It is called
	// without a lock held, after the change can be seen, and must not keep affects.
	OnRights func(affects func(device muster.DeviceID, credential string) bool)
	// OnDeleted is called after a device was deleted, before OnRights, so that what
	// others keep in its name does not pass to the next device with its id.
	OnDeleted func(muster.DeviceID)
	// OnChildren is told of devices that have become the children of another device,
	// made so or moved, after OnRights. It must not block and must not keep ids.
	OnChildren func(ids []muster.DeviceID)
	// OnGroupDeleted is called after a group was deleted, before another can be made under
	// its name. It must be quick and must not change the registry.
	OnGroupDeleted func(name string)
	// OnProfileDeleted is OnGroupDeleted for profiles.
	OnProfileDeleted func(name string)
	// Values and Twins are asked by queries.
	Values Values
	Twins  Twins
	// EachKey calls visit with the name of each telemetry key of which a device has a value,
	// from memory; visit is quick and asks nothing. Facets asks it.
	EachKey func(id muster.DeviceID, visit func(key string))
	// Grace is how long a device that lost its connection may take to come back before
	// it is offline, 10 s when zero, none when negative. It is judged every second.
	Grace time.Duration
	// OnPresence is told of changes of presence, at most 1,000 at once, after they can
	// be seen, from one goroutine (RunEvents) and each device's in their order. It must
	// not block for long and may keep what it gets.
	OnPresence func([]Transition)
}

// Registry holds every device, its credentials and its presence in memory and
// writes changes through to its Store. It is safe for concurrent use; reads
// never wait for the store.
type Registry struct {
	store     Store
	now       func() time.Time
	log       *slog.Logger
	onRights  func(affects func(muster.DeviceID, string) bool)
	deleted   func(muster.DeviceID)
	children  func(ids []muster.DeviceID)
	noGroup   func(name string) // after a group was deleted
	noProfile func(name string) // after a profile was
	values    Values
	twins     Twins
	eachKey   func(id muster.DeviceID, visit func(key string))

	onPresence func([]Transition) // may be nil

	turn chan struct{} // held by the one change in flight; readers never take it

	mu       sync.RWMutex
	byID     map[muster.DeviceID]*entry
	order    []*entry            // sorted by id
	profiles map[string]*profile // at most MaxProfiles
	groups   map[string]*group   // at most MaxGroups
	shape    atomic.Uint64       // grows when devices come, go, or are said something else of
	names    atomic.Uint64       // grows when what a compiled query depends on changes: groups, and which profiles there are

	selectors *cache.Cache[selectorKey, *query.Expr]

	erasing  *erasures
	auth     *authIndex
	expiry   expiries
	uses     uses
	presence tracker
	watch    watchers
}

// entry is one device. Its id never changes. The rest changes under Registry.mu,
// by the holder of the turn; creds is replaced, never changed in place.
type entry struct {
	Device
	track    *track // its presence, which the tracker's lock guards
	creds    []*held
	children []muster.DeviceID // sorted
}

// NewRegistry returns an empty registry: Load fills it. now gives the time of
// all that is recorded.
func NewRegistry(store Store, now func() time.Time, log *slog.Logger, o Options) *Registry {
	r := &Registry{
		store: store, now: now, log: log, onRights: o.OnRights, deleted: o.OnDeleted,
		noGroup: o.OnGroupDeleted, noProfile: o.OnProfileDeleted, children: o.OnChildren,
		turn:     make(chan struct{}, 1),
		byID:     map[muster.DeviceID]*entry{},
		profiles: map[string]*profile{DefaultProfile: {Profile: Profile{Name: DefaultProfile}}},
		groups:   map[string]*group{},
		erasing:  newErasures(), auth: newAuthIndex(), values: o.Values, twins: o.Twins, eachKey: o.EachKey, onPresence: o.OnPresence,
		expiry: expiries{wake: make(chan struct{}, 1)},
		uses:   uses{dirty: map[*held]struct{}{}},
	}
	if r.values == nil {
		r.values = nothing{}
	}
	if r.twins == nil {
		r.twins = nothing{}
	}
	if r.eachKey == nil {
		r.eachKey = func(muster.DeviceID, func(string)) {}
	}
	if r.onRights == nil {
		r.onRights = func(func(muster.DeviceID, string) bool) {}
	}
	if r.deleted == nil {
		r.deleted = func(muster.DeviceID) {}
	}
	if r.children == nil {
		r.children = func([]muster.DeviceID) {}
	}
	if r.noGroup == nil {
		r.noGroup = func(string) {}
	}
	if r.noProfile == nil {
		r.noProfile = func(string) {}
	}
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	r.presence.init(muster.Micros(o.Grace.Microseconds()))
	r.selectors = newSelectors(now)
	return r
}

// Load reads the whole registry into memory. Call it once, before anything else.
// A device that was online when the server went down becomes unknown: Run
// declares it offline when it is not back in time.
func (r *Registry) Load(ctx context.Context) error {
	if err := r.store.LoadProfiles(ctx, r.loadProfile); err != nil {
		return fmt.Errorf("load profiles: %w", err)
	}
	if err := r.store.LoadGroups(ctx, r.loadGroup); err != nil {
		return fmt.Errorf("load groups: %w", err)
	}
	lost := 0
	err := r.store.LoadDevices(ctx, func(d Device) error { return r.loadDevice(d, &lost) })
	if err != nil {
		return fmt.Errorf("load devices: %w", err)
	}
	r.sortOrder()
	if lost += r.linkParents(); lost > 0 {
		r.log.Warn("devices have a profile or parent that cannot be theirs and go without", "devices", lost)
	}
	if err := r.store.LoadCredentials(ctx, r.loadCredential); err != nil {
		return fmt.Errorf("load credentials: %w", err)
	}
	if err := r.loadPresence(ctx); err != nil {
		return err
	}
	return r.loadErasures(ctx)
}

// loadDevice counts in lost a device whose profile is not there, an inconsistent
// store's: it gets no further rights.
func (r *Registry) loadDevice(d Device, lost *int) error {
	if _, err := muster.ParseDeviceID(string(d.ID)); err != nil {
		return fmt.Errorf("stored device: %w", err)
	}
	r.mu.Lock()
	if _, ok := r.profiles[d.Profile]; !ok {
		d.Profile = DefaultProfile
		*lost++
	}
	e := &entry{Device: d, track: r.presence.add(&d)}
	r.useProfile(e)
	r.joinGroups(e)
	r.byID[d.ID] = e
	r.order = append(r.order, e)
	r.mu.Unlock()
	return nil
}

func (r *Registry) sortOrder() {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.order, compareEntries)
}

// loadCredential leaves out a credential whose device is gone: it opens nothing.
func (r *Registry) loadCredential(c Credential) error {
	r.mu.RLock()
	e := r.byID[c.Device]
	r.mu.RUnlock()
	if e != nil {
		r.keep(e, hold(c))
	}
	return nil
}

// change waits for its turn to change the registry and runs fn. fn's context is
// one that a caller who goes away does not cancel: a change whose end nobody saw
// would leave memory and store apart.
func (r *Registry) change(ctx context.Context, fn func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil { // of two that are ready select takes either
		return muster.Errorf(muster.Busy, "waiting to change the registry: %w", err)
	}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting to change the registry: %w", ctx.Err())
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	return fn(feed.With(c))
}

// Get returns the device id, or a NotFound error.
func (r *Registry) Get(id muster.DeviceID) (Device, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[id]
	if !ok {
		return Device{}, errNoDevice()
	}
	return e.Device, nil
}

// Seen is a device with its presence, and its newest connection.
type Seen struct {
	Device
	muster.Presence
	Status     muster.Status
	Connection *Connection // nil while not connected; not changed after it is returned
}

// Look returns all that is known of a device at one time; false when there is none.
func (r *Registry) Look(id muster.DeviceID) (Seen, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[id]
	if !ok {
		return Seen{}, false
	}
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	out := Seen{Device: e.Device, Presence: e.track.presence(), Status: e.track.status()}
	if live := e.track.live(); len(live) > 0 {
		newest := live[len(live)-1]
		out.Connection = &newest
	}
	return out, true
}

// Has says whether there is a device with this id.
func (r *Registry) Has(id muster.DeviceID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byID[id] != nil
}

// Made returns when the device of an id was made, which may be another than had it before; ok is false for none.
func (r *Registry) Made(id muster.DeviceID) (at muster.Micros, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byID[id]
	if e == nil {
		return 0, false
	}
	return e.Created, true
}

// Level says when messages of a device are acknowledged, as its profile has it; empty for
// the server's default, and for a device that is not there.
func (r *Registry) Level(id muster.DeviceID) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.byID[id]
	if e == nil || r.profiles[e.Profile] == nil {
		return ""
	}
	return r.profiles[e.Profile].Level
}

// Count returns how many devices there are.
func (r *Registry) Count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.order)
}

func compareEntries(a, b *entry) int { return strings.Compare(string(a.ID), string(b.ID)) }

func errNoDevice() error { return muster.Errorf(muster.NotFound, "there is no such device") }
