package ingest

import (
	"hash/maphash"
	"sync"

	"muster"
)

// Bounds on the layouts kept in memory. A device that sends another random set
// of keys each time must not mint layouts for ever: past its bound its readings
// are Loose.
const (
	maxLayouts       = 50_000
	maxDeviceLayouts = 64
)

// shape is a layout as it arrives: keys in message order, and where each goes.
type shape struct {
	keys   []muster.Key // message order
	slot   []int        // of keys[i] among the layout's numbers or texts, -1 when a later key of the same name wins
	layout *muster.Layout
}

// Layouts interns layouts, so that equal sets of keys are one pointer.
type Layouts struct {
	seed maphash.Seed

	mu     sync.RWMutex
	byKeys map[uint64][]*muster.Layout // by hash of the canonical keys
	shapes map[uint64][]*shape         // by hash of the keys in message order
	count  int
	nshape int
}

// NewLayouts returns an empty intern table.
func NewLayouts() *Layouts {
	return &Layouts{seed: maphash.MakeSeed(), byKeys: map[uint64][]*muster.Layout{}, shapes: map[uint64][]*shape{}}
}

// lookupShape returns the shape whose keys are those, nil when it is new.
func (ls *Layouts) lookupShape(hash uint64, keys []rawKey) *shape {
	ls.mu.RLock()
	defer ls.mu.RUnlock()
next:
	for _, s := range ls.shapes[hash] {
		if len(s.keys) != len(keys) {
			continue
		}
		for i, k := range keys {
			if s.keys[i].Kind != k.kind || s.keys[i].Name != string(k.name) {
				continue next
			}
		}
		return s
	}
	return nil
}

// addShape returns the shape for keys, interning its layout unless the tables are
// full or mint, asked when the layout is new, says no.
func (ls *Layouts) addShape(hash uint64, keys []rawKey, mint func() bool) *shape {
	s := newShape(keys)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s.layout = ls.intern(s.layout, mint)
	if !s.layout.Loose && ls.nshape < 4*maxLayouts {
		ls.shapes[hash] = append(ls.shapes[hash], s)
		ls.nshape++
	}
	return s
}

// Intern returns the shared layout equal to l, or l marked Loose when the table is
// full. It takes what was read back from the log or the store.
func (ls *Layouts) Intern(l *muster.Layout) *muster.Layout {
	if l.Loose {
		return l
	}
	return ls.share(l, func() bool { return true })
}

// share is Intern for a new layout, which mint, asked when there is none like it, may
// have marked Loose.
func (ls *Layouts) share(l *muster.Layout, mint func() bool) *muster.Layout {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.intern(l, mint)
}

func (ls *Layouts) intern(l *muster.Layout, mint func() bool) *muster.Layout {
	var h maphash.Hash
	h.SetSeed(ls.seed)
	for _, k := range l.Keys {
		_ = h.WriteByte(byte(k.Kind))
		_, _ = h.WriteString(k.Name)
		_ = h.WriteByte(0)
	}
	sum := h.Sum64()
	for _, have := range ls.byKeys[sum] {
		if equalKeys(have.Keys, l.Keys) {
			return have
		}
	}
	if ls.count >= maxLayouts || !mint() {
		l.Loose = true
		return l
	}
	ls.byKeys[sum] = append(ls.byKeys[sum], l)
	ls.count++
	return l
}

func equalKeys(a, b []muster.Key) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// newShape copies keys out of the message and works out where each value goes. Of
// two keys with one name the later wins, as in every JSON decoder.
func newShape(keys []rawKey) *shape {
	s := &shape{keys: make([]muster.Key, len(keys)), slot: make([]int, len(keys))}
	last := make(map[string]int, len(keys))
	for i, k := range keys {
		s.keys[i] = muster.Key{Name: string(k.name), Kind: k.kind}
		last[s.keys[i].Name] = i
	}
	kept := make([]muster.Key, 0, len(last))
	for i, k := range s.keys {
		if last[k.Name] == i {
			kept = append(kept, k)
		}
	}
	s.layout = muster.NewLayout(kept)
	at := make(map[string]int, len(kept))
	n, t := 0, 0
	for _, k := range s.layout.Keys {
		if k.Kind == muster.JSON {
			at[k.Name] = t
			t++
		} else {
			at[k.Name] = n
			n++
		}
	}
	for i, k := range s.keys {
		s.slot[i] = -1
		if last[k.Name] == i {
			s.slot[i] = at[k.Name]
		}
	}
	return s
}
