package ingest

import (
	"math"
	"slices"
	"strings"

	"muster"
)

const (
	// maxDeviceValues is the most latest values kept of one device.
	maxDeviceValues = 1000
	// maxDeviceSets is how many sets of keys a device may add to those that devices share.
	// Beyond it has its own.
	maxDeviceSets = 4
	// noRoom is the place of a key beyond them.
	noRoom = math.MaxUint16
)

// latest is the newest value of each key of one device. There are as many as devices,
// and most send the same numbers in every message: those share the names, have nothing
// but values, and a number takes 24 bytes.
type latest struct {
	keys   *muster.Layout // of values: each name once; never changed, for others have it too
	values []kept         // by the key's name
	more   *various       // nil until it is needed
}

// various is what a device needs that sends texts, or not always the same keys.
type various struct {
	texts []string       // of values, at the same places; nil until one is JSON
	from  *muster.Layout // of the newest reading that had not the same keys as latest
	slots []uint16       // where from's keys are in values, or noRoom
	sets  uint8          // of keys, that were added for it
}

func (l *latest) need() *various {
	if l.more == nil {
		l.more = &various{}
	}
	return l.more
}

// kept is one key's newest value.
type kept struct {
	num     float64 // of Number and Bool
	time    muster.Micros
	arrival muster.Micros // 0 before the first value
}

// newest is what of two values the newer has more of.
func (v *kept) newest() muster.Micros { return min(v.time, v.arrival) }

// names are the keys of values.
func (l *latest) names() []muster.Key {
	if l.keys == nil {
		return nil
	}
	return l.keys.Keys
}

// value returns what is kept at slot.
func (l *latest) value(slot int) LatestValue {
	v := &l.values[slot]
	out := LatestValue{Value: muster.Value{Key: l.keys.Keys[slot], Num: v.num}, Time: v.time, Arrival: v.arrival}
	if l.more != nil && l.more.texts != nil {
		out.Text = l.more.texts[slot]
	}
	return out
}

// observe takes r in. sets has the sets of keys that no single message has.
func (l *latest) observe(r *muster.Reading, sets *Layouts) {
	if r.Layout != l.keys && (l.more == nil || r.Layout != l.more.from) {
		l.place(r.Layout, sets)
	}
	same := r.Layout == l.keys
	var other []muster.Key // the names, when kinds have changed
	n, t := 0, 0
	v := LatestValue{Time: r.Time, Arrival: r.Arrival}
	for i := range r.Layout.Keys {
		v.Key, v.Num, v.Text = r.Layout.Keys[i], 0, ""
		if v.Key.Kind == muster.JSON {
			v.Text = r.Texts[t]
			t++
		} else {
			v.Num = r.Numbers[n]
			n++
		}
		slot := i
		if !same {
			slot = int(l.more.slots[i])
		}
		if slot != noRoom && l.put(slot, &v) {
			other = l.retype(other, slot, v.Key.Kind)
		}
	}
	if other != nil {
		l.share(other, r.Layout, sets)
	}
}

// put takes v in at slot, unless what is there is newer, and says whether it did. A
// hole hides no value.
func (l *latest) put(slot int, v *LatestValue) bool {
	have := &l.values[slot]
	text := v.Key.Kind == muster.JSON
	if have.arrival != 0 && min(v.Time, v.Arrival) < have.newest() || !text && math.IsNaN(v.Num) {
		return false
	}
	have.num, have.time, have.arrival = v.Num, v.Time, v.Arrival
	if text && l.need().texts == nil {
		l.more.texts = make([]string, len(l.values))
	}
	if l.more != nil && l.more.texts != nil {
		l.more.texts[slot] = v.Text
	}
	return true
}

// retype sets the kind at slot in other, which is made of the names when it is needed.
func (l *latest) retype(other []muster.Key, slot int, kind muster.ValueKind) []muster.Key {
	if other == nil {
		if l.keys.Keys[slot].Kind == kind {
			return nil
		}
		other = slices.Clone(l.keys.Keys)
	}
	other[slot].Kind = kind
	return other
}

// share makes keys the names: as lay, which may be nil, when it has the same, else as one of sets.
func (l *latest) share(keys []muster.Key, lay *muster.Layout, sets *Layouts) {
	switch {
	case lay != nil && lay.Loose: // too many of them are made
		l.keys = muster.NewLayout(keys)
	case lay != nil && equalKeys(keys, lay.Keys):
		l.keys = lay
	default:
		l.keys = sets.share(muster.NewLayout(keys), l.mayAdd)
	}
}

func (l *latest) mayAdd() bool {
	m := l.need()
	if m.sets >= maxDeviceSets {
		return false
	}
	m.sets++
	return true
}

// place finds or makes room for lay's keys.
func (l *latest) place(lay *muster.Layout, sets *Layouts) {
	l.reserve(lay.Keys, lay, sets)
	if l.keys == lay {
		return
	}
	m := l.need()
	m.from = lay
	if cap(m.slots) < len(lay.Keys) {
		m.slots = make([]uint16, 0, len(lay.Keys))
	}
	m.slots = m.slots[:0]
	for i := range lay.Keys {
		slot, ok := search(l.names(), lay.Keys[i].Name)
		if !ok {
			slot = noRoom
		}
		m.slots = append(m.slots, uint16(slot))
	}
}

// reserve makes room for keys, as far as there is any, and none to spare.
func (l *latest) reserve(keys []muster.Key, lay *muster.Layout, sets *Layouts) {
	before := l.names()
	all := before
	for _, k := range keys {
		slot, ok := search(all, k.Name)
		if ok || len(all) == maxDeviceValues {
			continue
		}
		if len(all) == len(before) {
			all = append(make([]muster.Key, 0, len(before)+len(keys)), before...)
		}
		all = slices.Insert(all, slot, k)
	}
	if len(all) > len(before) {
		l.move(before, all)
		l.share(all, lay, sets)
	} else if lay != nil && !lay.Loose && equalKeys(all, lay.Keys) {
		l.keys = lay
	}
}

// move puts the values of the keys before where they belong among the keys after.
func (l *latest) move(before, after []muster.Key) {
	values := make([]kept, len(after))
	for i := range before {
		slot, _ := search(after, before[i].Name)
		values[slot] = l.values[i]
	}
	l.values = values
	if l.more == nil {
		return
	}
	l.more.from = nil // its keys are elsewhere now
	if old := l.more.texts; old != nil {
		l.more.texts = make([]string, len(after))
		for i := range before {
			slot, _ := search(after, before[i].Name)
			l.more.texts[slot] = old[i]
		}
	}
}

func search(keys []muster.Key, name string) (int, bool) {
	return slices.BinarySearchFunc(keys, name, func(k muster.Key, name string) int { return strings.Compare(k.Name, name) })
}

// merge takes what was read back from the store; what is as new in memory stays.
func (l *latest) merge(vs []LatestValue, sets *Layouts) {
	keys := make([]muster.Key, len(vs))
	for i := range vs {
		keys[i] = vs[i].Key
	}
	l.reserve(keys, nil, sets)
	var other []muster.Key
	for i := range vs {
		v := &vs[i]
		slot, ok := search(l.names(), v.Key.Name)
		if !ok || l.values[slot].arrival != 0 && l.values[slot].newest() >= min(v.Time, v.Arrival) {
			continue
		}
		if l.put(slot, v) {
			other = l.retype(other, slot, v.Key.Kind)
		}
	}
	if other != nil {
		l.share(other, nil, sets)
	}
}

// all returns a copy, without keys that never had a value.
func (l *latest) all() []LatestValue {
	return l.appendTo(make([]LatestValue, 0, len(l.values)))
}

// appendTo appends copies, without keys that never had a value.
func (l *latest) appendTo(out []LatestValue) []LatestValue {
	for i := range l.values {
		if l.values[i].arrival != 0 {
			out = append(out, l.value(i))
		}
	}
	return out
}

// eachName visits the names of what has a value.
func (l *latest) eachName(visit func(string)) {
	for i, k := range l.names() {
		if l.values[i].arrival != 0 {
			visit(k.Name)
		}
	}
}

// find returns the newest value under a name, of whatever kind.
func (l *latest) find(name string) (muster.Value, bool) {
	slot, ok := search(l.names(), name)
	if !ok || l.values[slot].arrival == 0 {
		return muster.Value{}, false
	}
	return l.value(slot).Value, true
}
