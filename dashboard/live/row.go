package live

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"muster"
	"muster/ingest"
)

// field is a part of a row that is sent by itself when it changes.
type field uint8

const (
	fieldName field = iota
	fieldState
	fieldStatus
	fieldSince
	fieldSeen
	fieldReason
	fieldParent
	fieldProfile
	fieldFirmware
	fieldGroups
	fieldTags
	fieldMore // how many keys a list leaves out
	fieldConnection
	fieldLedger
	fieldCount

	fieldsInList = fieldConnection // lists show those before it
)

// The most keys of one device that are shown: those it had first.
const (
	maxListKeys = 64
	maxPageKeys = 1024
)

// row is a device that somebody watches: what was last read of it, and in which
// pass each part changed. All its viewers share it, so a change is found once.
type row struct {
	id     muster.DeviceID
	queued atomic.Bool

	mu       sync.Mutex
	watchers []watcher // in no order: each look goes through them all, and few leave
	pages    int       // of the watchers, device channels
	loaded   bool
	gone     bool   // there is no such device
	epoch    uint32 // grows when a change cannot be told as a patch: the device was removed or made anew
	state    DeviceState
	ledger   ingest.Ledger
	changed  [fieldCount]uint64 // the pass of each field's last change
	listAt   uint64             // the newest of what a list shows
	cells    []cell             // by name
	patch    [2]patch           // the newest list patches, shared by the viewers
}

// watcher is a channel that shows a row, and the row's place among the channel's rows.
type watcher struct {
	s  *sub
	at int
}

// cell is one key's latest value.
type cell struct {
	v    ingest.LatestValue
	pass uint64 // of its last change
	rank int    // how many keys the row had before this one
}

// patch is an encoded list patch, good while the row is at version at.
type patch struct {
	since, at uint64
	body      []byte
}

// fetched is what one look at the sources gave.
type fetched struct {
	state  DeviceState
	found  bool
	latest []ingest.LatestValue
	ledger ingest.Ledger
}

// fetch looks at a device. The values lie in space, which may be used again when they are taken over.
func (g *Gateway) fetch(id muster.DeviceID, space []ingest.LatestValue) fetched {
	var f fetched
	if f.state, f.found = g.deps.Devices.State(id); !f.found {
		return f
	}
	f.latest, f.ledger = g.deps.Devices.Values(id, space)
	f.latest = oneKindPerName(f.latest)
	return f
}

// oneKindPerName keeps of a name that came with several kinds the newest value: an object on
// the wire has a name once. The values lie by name, and stay where they are.
func oneKindPerName(vs []ingest.LatestValue) []ingest.LatestValue {
	out := vs[:0]
	for _, v := range vs {
		last := len(out) - 1
		switch {
		case last < 0 || out[last].Key.Name != v.Key.Name:
			out = append(out, v)
		case min(v.Time, v.Arrival) >= min(out[last].Time, out[last].Arrival):
			out[last] = v
		}
	}
	return out
}

func (r *row) addWatcher(s *sub, at int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers = append(r.watchers, watcher{s, at})
	if s.kind == kindDevice {
		r.pages++
	}
}

func (r *row) removeWatcher(s *sub) (left, pages int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.watchers, func(w watcher) bool { return w.s == s }); i >= 0 {
		last := len(r.watchers) - 1
		r.watchers[i] = r.watchers[last]
		r.watchers[last] = watcher{}
		r.watchers = r.watchers[:last]
		if s.kind == kindDevice {
			r.pages--
		}
	}
	return len(r.watchers), r.pages
}

func (r *row) isLoaded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loaded
}

// load fills a row that is watched for the first time. A pass that was faster has
// something newer, which stays.
func (r *row) load(f fetched) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loaded {
		r.replace(f, 0)
	}
}

func (r *row) isGone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}

// refresh takes f in as of pass, and marks the channels that show a change. It is
// called by the tick loop alone.
func (r *row) refresh(f fetched, pass uint64, mark func(*sub)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.update(f, pass)
	r.listAt = r.listVersion()
	list := r.listAt == pass
	page := list || r.changed[fieldConnection] == pass || r.changed[fieldLedger] == pass
	for _, w := range r.watchers {
		// Whether a device is still one of those that s may show follows from more than is shown.
		if list || page && w.s.kind == kindDevice || w.s.only != nil {
			w.s.markRow(w.at)
			mark(w.s)
		}
	}
}

func (r *row) update(f fetched, pass uint64) {
	switch {
	case !r.loaded:
		r.replace(f, pass)
	case !f.found && r.gone:
	case f.found == r.gone, f.state.Created != r.state.Created, !r.mergeCells(f.latest, pass):
		r.epoch++
		r.replace(f, pass)
	default:
		r.mergeState(f, pass)
	}
}

// replace makes everything in r new as of pass.
func (r *row) replace(f fetched, pass uint64) {
	r.loaded, r.gone = true, !f.found
	r.state, r.ledger = f.state, f.ledger
	r.cells = make([]cell, len(f.latest))
	for i, v := range f.latest {
		r.cells[i] = cell{v: v, pass: pass, rank: i}
	}
	for i := range r.changed {
		r.changed[i] = pass
	}
}

func (r *row) mergeState(f fetched, pass uint64) {
	old := &r.state
	differs := [fieldCount]bool{
		fieldName:       f.state.Name != old.Name,
		fieldState:      f.state.State != old.State,
		fieldStatus:     f.state.Status != old.Status,
		fieldSince:      f.state.Since != old.Since,
		fieldSeen:       f.state.LastSeen != old.LastSeen,
		fieldReason:     f.state.Reason != old.Reason,
		fieldParent:     f.state.Parent != old.Parent,
		fieldProfile:    f.state.Profile != old.Profile,
		fieldFirmware:   f.state.Firmware != old.Firmware,
		fieldGroups:     !f.state.Groups.Equal(old.Groups),
		fieldTags:       !f.state.Tags.Equal(old.Tags),
		fieldConnection: !sameConnection(f.state, *old),
		fieldLedger:     f.ledger != r.ledger,
	}
	for i, d := range differs {
		if d {
			r.changed[i] = pass
		}
	}
	r.state, r.ledger = f.state, f.ledger
}

func sameConnection(a, b DeviceState) bool {
	if a.Connection == nil || b.Connection == nil {
		return a.Connection == b.Connection
	}
	return a.Connection == b.Connection || *a.Connection == *b.Connection
}

// mergeCells takes the newer values of vs. It returns false when a key has gone,
// which a patch cannot tell.
func (r *row) mergeCells(vs []ingest.LatestValue, pass uint64) bool {
	have := r.cells
	added := 0
	for _, v := range vs {
		if len(have) > 0 && have[0].v.Key.Name == v.Key.Name {
			if !sameValue(have[0].v, v) {
				have[0].v, have[0].pass = v, pass
			}
			have = have[1:]
			continue
		}
		if len(have) > 0 && have[0].v.Key.Name < v.Key.Name {
			return false
		}
		added++
	}
	if len(have) > 0 {
		return false
	}
	if added > 0 {
		r.addCells(vs, pass)
	}
	return true
}

// addCells inserts the keys of vs that are not among the cells.
func (r *row) addCells(vs []ingest.LatestValue, pass uint64) {
	old := r.cells
	cells := make([]cell, 0, len(vs))
	rank := len(old)
	for _, v := range vs {
		if len(old) > 0 && old[0].v.Key.Name == v.Key.Name {
			cells = append(cells, old[0])
			old = old[1:]
			continue
		}
		cells = append(cells, cell{v: v, pass: pass, rank: rank})
		rank++
	}
	r.cells = cells
	if len(cells) > maxListKeys {
		r.changed[fieldMore] = pass
	}
}

func sameValue(a, b ingest.LatestValue) bool {
	return a.Time == b.Time && a.Arrival == b.Arrival && a.Key == b.Key && a.Text == b.Text &&
		math.Float64bits(a.Num) == math.Float64bits(b.Num)
}

// listVersion is the last pass that changed something a list shows.
func (r *row) listVersion() uint64 {
	v := slices.Max(r.changed[:fieldsInList])
	for i := range r.cells {
		v = max(v, r.cells[i].pass)
	}
	return v
}

// shown says whether c is wanted in a list with the columns cols (sorted; none
// means the first keys).
func (c *cell) shown(cols []string) bool {
	if cols == nil {
		return c.rank < maxListKeys
	}
	_, ok := slices.BinarySearchFunc(cols, c.v.Key.Name, strings.Compare)
	return ok
}
