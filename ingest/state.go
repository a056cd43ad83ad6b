package ingest

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"

	"muster"
)

const shards = 64

// device is what ingest keeps in memory of one device.
type device struct {
	id muster.DeviceID

	mu        sync.Mutex
	ledger    Ledger
	arrival   muster.Micros // newest given out
	latest    latest
	layouts   uint8       // minted by this device since the start
	dirty     bool        // latest changed since the latest saver looked
	forgotten bool        // all data of the device is deleted; nothing is saved any more
	known     atomic.Bool // in the registry; changes under builder.mu

	traceAll, traceRefused allowance
}

// fleet is the sharded map of devices. It is bounded by the registry, whose devices
// alone may publish, and by those that the store has data of.
type fleet struct {
	seed   maphash.Seed
	shards [shards]struct {
		mu sync.RWMutex
		m  map[muster.DeviceID]*device
	}
	sets    *Layouts // of latest values
	dirtyMu sync.Mutex
	dirty   []*device
}

func newFleet() *fleet {
	f := &fleet{seed: maphash.MakeSeed(), sets: NewLayouts()}
	for i := range f.shards {
		f.shards[i].m = map[muster.DeviceID]*device{}
	}
	return f
}

// find returns the device, nil when it has not been seen.
func (f *fleet) find(id muster.DeviceID) *device {
	s := &f.shards[maphash.String(f.seed, string(id))%shards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.m[id]
}

// get returns the device, making it if need be.
func (f *fleet) get(id muster.DeviceID) *device {
	if d := f.find(id); d != nil {
		return d
	}
	s := &f.shards[maphash.String(f.seed, string(id))%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.m[id]; d != nil {
		return d
	}
	d := &device{id: muster.DeviceID(strings.Clone(string(id)))}
	s.m[d.id] = d
	return d
}

// forget drops what is kept of a device, and returns it, nil when there was nothing.
func (f *fleet) forget(id muster.DeviceID) *device {
	s := &f.shards[maphash.String(f.seed, string(id))%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.m[id]
	delete(s.m, id)
	return d
}

// nextArrival returns a time for a message that came at now: strictly later than
// every one before it of this device.
func (d *device) nextArrival(now muster.Micros) muster.Micros {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arrival = max(now, d.arrival+1)
	return d.arrival
}

// mayMint says whether the device may add a layout to the intern table, and counts
// it.
func (d *device) mayMint() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.layouts >= maxDeviceLayouts {
		return false
	}
	d.layouts++
	return true
}

// observe takes r into the latest values, and returns whether the device became
// dirty by it. The caller holds d.mu.
func (d *device) observe(r *muster.Reading, sets *Layouts) bool {
	d.latest.observe(r, sets)
	was := d.dirty
	d.dirty = true
	return !was
}

// snapshot copies the latest values, leaving out what never had one.
func (d *device) snapshot() LatestRow {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.copyValues()
}

func (d *device) copyValues() LatestRow {
	return LatestRow{Device: d.id, Values: d.latest.all()}
}

// merge takes a row read back from the store; what is as new in memory stays. It
// returns the newest arrival that is known of the device then.
func (d *device) merge(row LatestRow, sets *Layouts) muster.Micros {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.latest.merge(row.Values, sets)
	for i := range row.Values {
		d.arrival = max(d.arrival, row.Values[i].Arrival)
	}
	return d.arrival
}

// markDirty queues d for the latest saver.
func (f *fleet) markDirty(ds []*device) {
	if len(ds) == 0 {
		return
	}
	f.dirtyMu.Lock()
	defer f.dirtyMu.Unlock()
	f.dirty = append(f.dirty, ds...)
}

// takeDirty returns the devices whose values changed since the last call.
func (f *fleet) takeDirty() []*device {
	f.dirtyMu.Lock()
	defer f.dirtyMu.Unlock()
	ds := f.dirty
	f.dirty = nil
	return ds
}

// value returns the newest value under a name, of whatever kind.
func (d *device) value(name string) (muster.Value, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.latest.find(name)
}
