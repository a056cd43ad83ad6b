package ingest

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"muster"
)

const shards = 64

// device is what ingest keeps in memory of one device.
type device struct {
	id muster.DeviceID

	mu       sync.Mutex
	ledger   Ledger
	arrival  muster.Micros // newest given out
	layouts  int           // minted by this device since the start
	values   []LatestValue // by key name
	lastFrom *muster.Layout
	slots    []int // where lastFrom's keys are in values
	dirty    bool  // values changed since the latest saver looked

	known     atomic.Bool // in the registry; changes under builder.mu
	forgotten bool        // all data of the device is deleted; nothing is saved any more

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
	dirtyMu sync.Mutex
	dirty   []*device
}

func newFleet() *fleet {
	f := &fleet{seed: maphash.MakeSeed()}
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
func (d *device) observe(r *muster.Reading) bool {
	if d.lastFrom != r.Layout {
		d.place(r.Layout)
	}
	at := min(r.Time, r.Arrival)
	n, t := 0, 0
	for i, k := range r.Layout.Keys {
		v := &d.values[d.slots[i]]
		newer := v.Arrival == 0 || at >= min(v.Time, v.Arrival)
		if k.Kind == muster.JSON {
			if newer {
				*v = LatestValue{Value: muster.Value{Key: k, Text: r.Texts[t]}, Time: r.Time, Arrival: r.Arrival}
			}
			t++
		} else {
			if newer && !math.IsNaN(r.Numbers[n]) { // a hole hides no value
				*v = LatestValue{Value: muster.Value{Key: k, Num: r.Numbers[n]}, Time: r.Time, Arrival: r.Arrival}
			}
			n++
		}
	}
	was := d.dirty
	d.dirty = true
	return !was
}

// place finds or makes room for l's keys among the values. The number of values is
// bounded by maxDeviceValues; keys beyond it share a slot that is never shown.
func (d *device) place(l *muster.Layout) {
	for _, k := range l.Keys {
		if i, ok := d.search(k.Name); !ok {
			if len(d.values) > maxDeviceValues {
				continue
			}
			if len(d.values) == 0 {
				d.values = append(d.values, LatestValue{}) // slot 0 stands for "no room"
				i++
			}
			d.values = slices.Insert(d.values, i, LatestValue{Value: muster.Value{Key: k, Num: math.NaN()}})
		}
	}
	d.slots = d.slots[:0]
	for _, k := range l.Keys {
		i, ok := d.search(k.Name)
		if !ok {
			i = 0
		}
		d.slots = append(d.slots, i)
	}
	d.lastFrom = l
}

// maxDeviceValues is the most latest values kept of one device.
const maxDeviceValues = 1000

func (d *device) search(name string) (int, bool) {
	return slices.BinarySearchFunc(d.values, name, func(v LatestValue, name string) int {
		return strings.Compare(v.Key.Name, name)
	})
}

// snapshot copies the latest values, leaving out what never had one.
func (d *device) snapshot() LatestRow {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.copyValues()
}

func (d *device) copyValues() LatestRow {
	row := LatestRow{Device: d.id, Values: make([]LatestValue, 0, len(d.values))}
	for _, v := range d.values {
		if v.Arrival != 0 && v.Key.Name != "" {
			row.Values = append(row.Values, v)
		}
	}
	return row
}

// merge takes a row read back from the store; what is newer in memory stays.
func (d *device) merge(row LatestRow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range row.Values {
		l := muster.NewLayout([]muster.Key{v.Key})
		r := muster.Reading{Device: d.id, Time: v.Time, Arrival: v.Arrival, Layout: l}
		if v.Key.Kind == muster.JSON {
			r.Texts = []string{v.Text}
		} else {
			r.Numbers = []float64{v.Num}
		}
		dirty := d.dirty
		have, ok := d.search(v.Key.Name)
		if ok && d.values[have].Arrival != 0 && min(d.values[have].Time, d.values[have].Arrival) >= min(v.Time, v.Arrival) {
			continue
		}
		d.observe(&r)
		d.dirty = dirty
		d.arrival = max(d.arrival, v.Arrival)
	}
	d.lastFrom = nil
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

// value returns the newest of the values under a name, which may have several kinds;
// of equally new ones that of the last kind. Holes are none.
func (d *device) value(name string) (muster.Value, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var best *LatestValue
	for i := range d.values {
		v := &d.values[i]
		if v.Key.Name != name || v.Arrival == 0 || v.Key.Kind != muster.JSON && math.IsNaN(v.Num) {
			continue
		}
		if best == nil || min(v.Time, v.Arrival) >= min(best.Time, best.Arrival) {
			best = v
		}
	}
	if best == nil {
		return muster.Value{}, false
	}
	return best.Value, true
}
