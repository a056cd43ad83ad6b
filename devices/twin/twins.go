package twin

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"muster"
	"muster/devices"
)

const (
	writeTimeout = 10 * time.Second // for one transaction
	// chunk is how many rows one transaction writes of a change that touches many.
	chunk = 2000
)

// Change is one device's effective desired document that has a new version.
type Change struct {
	Device  muster.DeviceID
	Version int64
	// Prev and Next are the documents before and now, canonical JSON; they may be equal,
	// since a level that has no say here may have changed.
	Prev, Next string
}

// Options are the parts of Twins that belong to other rooms.
type Options struct {
	// OnDesired is told of the devices whose effective document has a new version, after
	// it can be seen, in the order of the changes and without a lock held; others that
	// change a twin wait meanwhile. It may be nil.
	OnDesired func([]Change)
}

// Twins holds every twin. It is safe for concurrent use.
type Twins struct {
	store     Store
	registry  Registry
	now       func() time.Time
	log       *slog.Logger
	onDesired func([]Change)

	turn  chan struct{} // held by the one change in flight; readers never take it
	last  int64         // the newest version given out; the holder of the turn's
	bases bases         // likewise

	mu       sync.RWMutex
	byID     map[muster.DeviceID]*twin
	levels   *levels
	changing bool // a level is: whoever changes in the registry meanwhile is looked at after

	todo todo
}

// New returns twins without any: Load reads them.
func New(store Store, registry Registry, now func() time.Time, log *slog.Logger, o Options) *Twins {
	t := &Twins{
		store: store, registry: registry, now: now, log: log, onDesired: o.OnDesired,
		turn: make(chan struct{}, 1), byID: map[muster.DeviceID]*twin{}, levels: &levels{},
	}
	if t.onDesired == nil {
		t.onDesired = func([]Change) {}
	}
	t.bases.levels = t.levels
	t.todo.init()
	return t
}

// change waits for its turn and runs fn, with a context that a caller who goes away
// does not cancel: memory and store must end alike. Levels whose group or profile is
// gone are taken away first.
func (t *Twins) change(ctx context.Context, fn func(ctx context.Context) error) error {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting to change a twin: %w", ctx.Err())
	}
	t.dropLevels()
	return fn(context.WithoutCancel(ctx))
}

// bump gives out a version. It is called in turn.
func (t *Twins) bump() int64 {
	t.last++
	return t.last
}

func (t *Twins) twin(id muster.DeviceID) *twin {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id]
}

// current returns the twin of d for a change, a new one when there is none or it is
// that of an older device with d's id. It is called in turn.
func (t *Twins) current(d *devices.Device) twin {
	if tw := t.twin(d.ID); tw != nil && tw.created == d.Created {
		return *tw
	}
	return twin{created: d.Created, effective: empty, base: &base{text: empty}}
}

// edit is one device's twin as it is going to be.
type edit struct {
	id   muster.DeviceID
	prev twin
	next derived
	gone bool // the store has no such device any more: nothing was written
}

// saveWhole writes whole rows in transactions of at most chunk rows, returns how many
// edits it got through, and marks those whose device is gone. It is called in turn.
func (t *Twins) saveWhole(ctx context.Context, edits []edit) (int, error) {
	return t.save(ctx, edits, t.store.SaveTwins)
}

// saveEffective is saveWhole for what follows from the levels, and marks none.
func (t *Twins) saveEffective(ctx context.Context, edits []edit) (int, error) {
	return t.save(ctx, edits, func(ctx context.Context, rows []Row, last int64) ([]muster.DeviceID, error) {
		return nil, t.store.SaveEffective(ctx, rows, last)
	})
}

func (t *Twins) save(ctx context.Context, edits []edit, write func(context.Context, []Row, int64) ([]muster.DeviceID, error)) (int, error) {
	for done := 0; done < len(edits); done += chunk {
		part := edits[done:min(done+chunk, len(edits))]
		rows := make([]Row, len(part))
		for i := range part {
			rows[i] = part[i].next.row(part[i].id)
		}
		c, cancel := context.WithTimeout(ctx, writeTimeout)
		gone, err := write(c, rows, t.last)
		cancel()
		if err != nil {
			return done, fmt.Errorf("save %d twins: %w", len(rows), err)
		}
		for i := range part {
			part[i].gone = slices.Contains(gone, part[i].id)
		}
	}
	return len(edits), nil
}

// admit makes edits visible and tells of those with a new version. It is called in turn.
func (t *Twins) admit(edits []edit) {
	if changes := t.show(edits); len(changes) > 0 {
		t.onDesired(changes)
	}
}

// show makes edits visible and returns those with a new version.
func (t *Twins) show(edits []edit) (changes []Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range edits {
		e := &edits[i]
		// In the lock, which DevicesChanged takes after the registry let go of a device.
		if d, err := t.registry.Get(e.id); e.gone || err != nil || d.Created != e.next.created {
			continue
		}
		next := e.next.twin
		t.byID[e.id] = &next
		if next.version != e.prev.version {
			changes = append(changes, Change{Device: e.id, Version: next.version, Prev: e.prev.effective, Next: next.effective})
		}
	}
	return changes
}

// errGone is what a change of the twin of a device is answered that was deleted meanwhile.
func errGone(id muster.DeviceID) error {
	return muster.Errorf(muster.NotFound, "there is no device %s any more", id)
}
