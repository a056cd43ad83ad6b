package live

import (
	"encoding/binary"
	"slices"
	"strconv"
	"sync"

	"muster"
	"muster/devices"
)

// dotStates are the statuses of dots: the code of each is its place. codeGone is a device that
// was removed, or that who looks may not see any more.
var dotStates = muster.Statuses()

const (
	codeGone  = 255
	maxDots   = 1 << 24 // what the place of a dot has room for
	dotHeader = 8       // bytes before the states or changes of a frame

	dotsWhole   = 1 // a frame with the state of each dot, a byte each
	dotsChanges = 2 // a frame with place<<8|state of those that changed, four bytes each

	keptPasses = 8 // passes of which it is remembered which dots changed in them
)

func codeOf(s muster.Status) byte {
	if i := slices.Index(dotStates, s); i >= 0 {
		return byte(i)
	}
	return codeGone
}

// gridKey is what a layout of dots is of: all who ask for the same share it.
type gridKey struct {
	by   devices.Arranging
	only string // as Principal.Only
}

// grid is one layout of dots with their states, shared by all who watch it. What is kept of
// changes is bounded by the dots: the pass of the last change of each, and some frames.
type grid struct {
	key  gridKey
	sees func(muster.DeviceID) bool // nil for all
	subs map[*sub]struct{}          // guarded by grids.mu

	making sync.Mutex // one look at the order at a time

	mu       sync.Mutex
	a        *devices.Arrangement // nil before the first
	index    map[muster.DeviceID]uint32
	version  uint64 // of the layout
	shape    uint64 // of the registry when it was made
	tick     uint64 // when the order was looked at last
	stale    bool   // somebody left what may be seen
	head     []byte // the layout as the snapshot has it
	states   []byte
	pending  []uint32 // places to be looked at, each once
	marked   []bool
	pass     uint64 // grows with each change, over all layouts
	changed  []uint64
	recent   [keptPasses][]uint32 // what changed in each of the last passes
	whole    dotFrame
	frames   [4]dotFrame
	nextSlot int
	buf      []muster.Status
}

// dotFrame is an encoded frame from one pass to another; it is not changed any more.
type dotFrame struct {
	since, at uint64
	body      []byte
}

func (gr *grid) touch(ids []muster.DeviceID) {
	gr.mu.Lock()
	defer gr.mu.Unlock()
	for _, id := range ids {
		if at, ok := gr.index[id]; ok && !gr.marked[at] {
			gr.marked[at] = true
			gr.pending = append(gr.pending, at)
		}
	}
}

// look reads the states of the dots that were touched.
func (gr *grid) look(source Dots) {
	gr.mu.Lock()
	defer gr.mu.Unlock()
	if len(gr.pending) == 0 {
		return
	}
	now := gr.room(len(gr.pending))
	source.Statuses(gr.a, gr.pending, now)
	var news []uint32
	for i, at := range gr.pending {
		gr.marked[at] = false
		code := gr.code(at, now[i])
		if code != gr.states[at] {
			gr.states[at] = code
			news = append(news, at)
		}
	}
	gr.pending = gr.pending[:0]
	gr.note(news)
}

// code returns the code of the state of a dot. mu is held.
func (gr *grid) code(at uint32, state muster.Status) byte {
	if gr.sees != nil && !gr.sees(gr.a.IDs[at]) {
		gr.stale = true
		return codeGone
	}
	return codeOf(state)
}

// note begins a pass in which some dots changed. mu is held.
func (gr *grid) note(news []uint32) {
	if len(news) == 0 {
		return
	}
	gr.pass++
	for _, at := range news {
		gr.changed[at] = gr.pass
	}
	gr.recent[gr.pass%keptPasses] = news
}

func (gr *grid) room(n int) []muster.Status {
	if cap(gr.buf) < n {
		gr.buf = make([]muster.Status, n)
	}
	return gr.buf[:n]
}

func indexOf(a *devices.Arrangement) map[muster.DeviceID]uint32 {
	index := make(map[muster.DeviceID]uint32, len(a.IDs))
	for i, id := range a.IDs {
		index[id] = uint32(i)
	}
	return index
}

// take makes a the layout as of a shape: a new version with an index, or, with none, one that
// has the same places as before.
func (gr *grid) take(a *devices.Arrangement, source Dots, shape uint64, index map[muster.DeviceID]uint32, version uint64) {
	gr.mu.Lock()
	defer gr.mu.Unlock()
	gr.stale, gr.a, gr.shape = false, a, shape
	now := gr.room(len(a.IDs))
	source.Statuses(a, nil, now)
	if index != nil {
		gr.renew(index, version)
	}
	var news []uint32
	for i, state := range now {
		if code := gr.code(uint32(i), state); code != gr.states[i] {
			gr.states[i] = code
			news = append(news, uint32(i))
		}
	}
	gr.note(news)
	if gr.buf = nil; index != nil {
		gr.pass++
	}
}

// renew makes room for the dots of gr.a. mu is held.
func (gr *grid) renew(index map[muster.DeviceID]uint32, version uint64) {
	n := len(gr.a.IDs)
	gr.version, gr.head = version, gr.encodeHead(version)
	gr.states, gr.changed, gr.marked = make([]byte, n), make([]uint64, n), make([]bool, n)
	gr.pending, gr.recent, gr.whole, gr.frames = nil, [keptPasses][]uint32{}, dotFrame{}, [4]dotFrame{}
	gr.index = index
}

func (gr *grid) encodeHead(version uint64) []byte {
	b := appendString([]byte(`,"by":`), string(gr.key.by))
	b = strconv.AppendUint(append(b, `,"version":`...), version, 10)
	b = strconv.AppendInt(append(b, `,"total":`...), int64(len(gr.a.IDs)), 10)
	b = append(b, `,"states":[`...)
	first := true
	for _, s := range dotStates {
		b = appendString(appendComma(b, &first), string(s))
	}
	b = append(b, `],"sections":[`...)
	first = true
	for _, s := range gr.a.Sections {
		b = appendString(append(appendComma(b, &first), `{"name":`...), s.Name)
		if s.Merged > 0 {
			b = strconv.AppendInt(append(b, `,"merged":`...), int64(s.Merged), 10)
		}
		b = strconv.AppendInt(append(b, `,"first":`...), int64(s.First), 10)
		b = strconv.AppendInt(append(b, `,"count":`...), int64(s.Count), 10)
		b = append(appendString(append(b, `,"q":`...), s.Query), '}')
	}
	b = append(b, ']')
	if gr.key.by == devices.ByMap {
		b = appendPlaces(b, gr.a)
	}
	return b
}

// appendPlaces appends where the dots of the first section lie: three numbers for each place.
func appendPlaces(b []byte, a *devices.Arrangement) []byte {
	b = strconv.AppendInt(append(b, `,"cell":`...), int64(a.Cell), 10)
	b = append(b, `,"places":[`...)
	first := true
	for _, p := range a.Places {
		for _, n := range [...]int{p.Lat, p.Lon, p.Count} {
			b = strconv.AppendInt(appendComma(b, &first), int64(n), 10)
		}
	}
	return append(b, ']')
}

// snapshot returns the layout, its version, the states of all dots, and the pass of both.
func (gr *grid) snapshot() (head []byte, version uint64, states []byte, pass uint64) {
	gr.mu.Lock()
	defer gr.mu.Unlock()
	return gr.head, gr.version, gr.wholeFrame(), gr.pass
}

// wholeFrame is called with mu held.
func (gr *grid) wholeFrame() []byte {
	if gr.whole.body == nil || gr.whole.at != gr.pass {
		gr.whole = dotFrame{at: gr.pass, body: append(dotHead(dotsWhole, gr.version, len(gr.states)), gr.states...)}
	}
	return gr.whole.body
}

func dotHead(kind byte, version uint64, size int) []byte {
	b := make([]byte, dotHeader, dotHeader+size)
	b[0] = kind
	binary.LittleEndian.PutUint32(b[4:], uint32(version)) // #nosec G115 -- who compares it has 32 bits of it too
	return b
}

// since returns a frame with what changed after a pass, nil for nothing, and the pass that it
// leads to; false when the layout is not that version any more.
func (gr *grid) since(version, pass uint64) (frame []byte, at uint64, ok bool) {
	gr.mu.Lock()
	defer gr.mu.Unlock()
	if version != gr.version {
		return nil, 0, false
	}
	if pass == gr.pass {
		return nil, pass, true
	}
	for i := range gr.frames {
		if f := &gr.frames[i]; f.body != nil && f.since == pass && f.at == gr.pass {
			return f.body, gr.pass, true
		}
	}
	f := dotFrame{since: pass, at: gr.pass, body: gr.encode(pass)}
	gr.frames[gr.nextSlot] = f
	gr.nextSlot = (gr.nextSlot + 1) % len(gr.frames)
	return f.body, gr.pass, true
}

// encode is called with mu held. Of many changes the states of all dots are shorter.
func (gr *grid) encode(since uint64) []byte {
	places := gr.changedSince(since)
	if 4*len(places) >= len(gr.states) {
		return gr.wholeFrame()
	}
	b := dotHead(dotsChanges, gr.version, 4*len(places))
	for _, at := range places {
		b = binary.LittleEndian.AppendUint32(b, at<<8|uint32(gr.states[at]))
	}
	return b
}

// changedSince returns each place that changed after a pass once.
func (gr *grid) changedSince(since uint64) []uint32 {
	var places []uint32
	if gr.pass-since <= keptPasses {
		for p := since + 1; p <= gr.pass; p++ {
			for _, at := range gr.recent[p%keptPasses] {
				if gr.changed[at] == p { // else it comes with a later one
					places = append(places, at)
				}
			}
		}
		return places
	}
	for at, p := range gr.changed {
		if p > since {
			places = append(places, uint32(at))
		}
	}
	return places
}
