package devices

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"muster"
)

// Data says what becomes of the telemetry of devices that are deleted: their readings,
// latest values and rejected messages. All else that is kept in their names goes with
// them in any case.
type Data string

const (
	// KeepData leaves it in the store: a device made again with the id continues it.
	KeepData Data = "keep"
	// EraseData has it deleted in the background. Until it is gone no device can be made
	// with the id.
	EraseData Data = "delete"
)

// ParseData returns s as a Data, or an Invalid error that says what each means.
func ParseData(s string) (Data, error) {
	switch d := Data(s); d {
	case KeepData, EraseData:
		return d, nil
	}
	return "", muster.InvalidAt("data", "say what becomes of the telemetry by data=keep or data=delete: "+
		"keep leaves it in the store, and a device made again with the id continues it; delete deletes all of it for good, in the background")
}

// Erasure is a deleted device whose telemetry is to be deleted.
type Erasure struct {
	Device muster.DeviceID
	Since  muster.Micros
}

// erasures are the deleted devices whose telemetry is to be deleted. They are bounded
// by the devices that there were.
type erasures struct {
	mu    sync.RWMutex
	since map[muster.DeviceID]muster.Micros
	order []muster.DeviceID // sorted
	more  chan struct{}     // closed and replaced when some are added
}

func newErasures() *erasures {
	return &erasures{since: map[muster.DeviceID]muster.Micros{}, more: make(chan struct{})}
}

func (e *erasures) add(more []Erasure) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range more {
		e.since[x.Device] = x.Since
		e.order = append(e.order, x.Device)
	}
	slices.Sort(e.order)
	e.order = slices.Compact(e.order)
	close(e.more)
	e.more = make(chan struct{})
}

func (e *erasures) remove(ids []muster.DeviceID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		delete(e.since, id)
	}
	e.order = slices.DeleteFunc(e.order, func(id muster.DeviceID) bool {
		_, waits := e.since[id]
		return !waits
	})
}

func (e *erasures) has(id muster.DeviceID) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	_, ok := e.since[id]
	return ok
}

// Erasing returns deleted devices whose telemetry is to be deleted, at most limit of
// those after the given id in bytewise order, and a channel that is closed when more
// come.
func (r *Registry) Erasing(after muster.DeviceID, limit int) (ids []muster.DeviceID, more <-chan struct{}) {
	e := r.erasing
	e.mu.RLock()
	defer e.mu.RUnlock()
	i, found := slices.BinarySearch(e.order, after)
	if found {
		i++
	}
	return slices.Clone(e.order[i:min(i+limit, len(e.order))]), e.more
}

// IsErasing says whether the telemetry of a deleted device with this id is to be
// deleted.
func (r *Registry) IsErasing(id muster.DeviceID) bool { return r.erasing.has(id) }

// Erasures returns how many deleted devices have telemetry that is to be deleted, and
// since when the first of them waits, 0 for none.
func (r *Registry) Erasures() (pending int, oldest muster.Micros) {
	r.erasing.mu.RLock()
	defer r.erasing.mu.RUnlock()
	for _, at := range r.erasing.since {
		if oldest == 0 || at < oldest {
			oldest = at
		}
	}
	return len(r.erasing.since), oldest
}

// Erased records that nothing of the telemetry of deleted devices is left: their ids
// can be used again.
func (r *Registry) Erased(ctx context.Context, ids []muster.DeviceID) error {
	return r.change(ctx, func(ctx context.Context) error {
		if err := r.store.DeleteErasures(ctx, ids); err != nil {
			return fmt.Errorf("record that the data of %d devices is deleted: %w", len(ids), err)
		}
		r.erasing.remove(ids)
		return nil
	})
}

// loadErasures leaves alone the data of devices that are there, an inconsistent store's.
func (r *Registry) loadErasures(ctx context.Context) error {
	var all []Erasure
	err := r.store.LoadErasures(ctx, func(e Erasure) error {
		if r.Has(e.Device) {
			r.log.Warn("the data of a device that exists was to be deleted; it stays", "device", e.Device)
			return nil
		}
		all = append(all, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("load erasures: %w", err)
	}
	r.erasing.add(all)
	return nil
}

func errErasing(id muster.DeviceID) error {
	return muster.Errorf(muster.Conflict, "the data of the device that had the id %q before is being deleted; try again in a moment", id)
}
