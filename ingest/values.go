package ingest

import (
	"math"
	"slices"
	"strings"
	"unique"

	"muster"
)

const (
	// maxDeviceValues is the most latest values kept of one device.
	maxDeviceValues = 1000
	// noRoom is the place of a key beyond them.
	noRoom = math.MaxUint16
)

// latest is the newest value of each key of one device. There are as many as devices:
// a number takes 32 bytes, and what is the same for many devices is kept once.
type latest struct {
	values []kept         // by the key's name
	texts  []string       // of values, at the same places; nil until one is JSON
	from   *muster.Layout // of the reading before
	slots  []uint16       // where from's keys are in values, or noRoom
}

// kept is one key's newest value.
type kept struct {
	key     unique.Handle[muster.Key]
	num     float64 // of Number and Bool
	time    muster.Micros
	arrival muster.Micros // 0 before the first value
}

// newest is what of two values the newer has more of.
func (v *kept) newest() muster.Micros { return min(v.time, v.arrival) }

// value returns what is kept at slot.
func (l *latest) value(slot int) LatestValue {
	v := &l.values[slot]
	out := LatestValue{Value: muster.Value{Key: v.key.Value(), Num: v.num}, Time: v.time, Arrival: v.arrival}
	if l.texts != nil {
		out.Text = l.texts[slot]
	}
	return out
}

// observe takes r in.
func (l *latest) observe(r *muster.Reading) {
	if l.from != r.Layout {
		l.place(r.Layout)
	}
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
		if slot := l.slots[i]; slot != noRoom {
			l.put(int(slot), &v)
		}
	}
}

// put takes v in at slot, unless what is there is newer. A hole hides no value.
func (l *latest) put(slot int, v *LatestValue) {
	have := &l.values[slot]
	text := v.Key.Kind == muster.JSON
	if have.arrival != 0 && min(v.Time, v.Arrival) < have.newest() || !text && math.IsNaN(v.Num) {
		return
	}
	if have.key.Value().Kind != v.Key.Kind {
		have.key = unique.Make(v.Key)
	}
	have.num, have.time, have.arrival = v.Num, v.Time, v.Arrival
	if text && l.texts == nil {
		l.texts = make([]string, len(l.values), cap(l.values))
	}
	if l.texts != nil {
		l.texts[slot] = v.Text
	}
}

// place finds or makes room for lay's keys.
func (l *latest) place(lay *muster.Layout) {
	l.reserve(lay.Keys)
	if cap(l.slots) < len(lay.Keys) {
		l.slots = make([]uint16, 0, len(lay.Keys))
	}
	l.slots = l.slots[:0]
	for i := range lay.Keys {
		slot, ok := l.search(lay.Keys[i].Name)
		if !ok {
			slot = noRoom
		}
		l.slots = append(l.slots, uint16(slot))
	}
	l.from = lay
}

// reserve makes room for keys, as far as there is any, and none to spare: most
// devices always send the same.
func (l *latest) reserve(keys []muster.Key) {
	more := 0
	for i := range keys {
		if _, ok := l.search(keys[i].Name); !ok {
			more++
		}
	}
	if more = min(more, maxDeviceValues-len(l.values)); more == 0 {
		return
	}
	l.values = append(make([]kept, 0, len(l.values)+more), l.values...)
	for _, k := range keys {
		slot, ok := l.search(k.Name)
		if ok || len(l.values) == maxDeviceValues {
			continue
		}
		l.values = slices.Insert(l.values, slot, kept{key: unique.Make(k)})
		if l.texts != nil {
			l.texts = slices.Insert(l.texts, slot, "")
		}
	}
}

func (l *latest) search(name string) (int, bool) {
	return slices.BinarySearchFunc(l.values, name, func(v kept, name string) int {
		return strings.Compare(v.key.Value().Name, name)
	})
}

// merge takes what was read back from the store; what is as new in memory stays.
func (l *latest) merge(vs []LatestValue) {
	keys := make([]muster.Key, len(vs))
	for i := range vs {
		keys[i] = vs[i].Key
	}
	l.reserve(keys)
	l.from = nil // places may have changed
	for i := range vs {
		slot, ok := l.search(vs[i].Key.Name)
		if !ok {
			continue
		}
		if have := &l.values[slot]; have.arrival == 0 || have.newest() < min(vs[i].Time, vs[i].Arrival) {
			l.put(slot, &vs[i])
		}
	}
}

// all returns a copy, without keys that never had a value.
func (l *latest) all() []LatestValue {
	out := make([]LatestValue, 0, len(l.values))
	for i := range l.values {
		if l.values[i].arrival != 0 {
			out = append(out, l.value(i))
		}
	}
	return out
}

// find returns the newest value under a name, of whatever kind.
func (l *latest) find(name string) (muster.Value, bool) {
	slot, ok := l.search(name)
	if !ok || l.values[slot].arrival == 0 {
		return muster.Value{}, false
	}
	return l.value(slot).Value, true
}
