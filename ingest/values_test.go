package ingest

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

// plainLatest is what latest should be: the newest value under each name.
type plainLatest map[string]LatestValue

func (p plainLatest) take(v LatestValue, again bool) {
	have, ok := p[v.Key.Name]
	now, then := min(v.Time, v.Arrival), min(have.Time, have.Arrival)
	if v.Key.Kind != muster.JSON && math.IsNaN(v.Num) || ok && (now < then || again && now == then) {
		return
	}
	p[v.Key.Name] = v
}

func (p plainLatest) list() []LatestValue {
	out := make([]LatestValue, 0, len(p))
	for _, v := range p {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b LatestValue) int { return cmp.Compare(a.Key.Name, b.Key.Name) })
	return out
}

func drawFewKeys(t *rapid.T, layouts *Layouts) muster.Reading {
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 1, 4, rapid.ID[string]).Draw(t, "keys")
	keys := make([]muster.Key, len(names))
	for i, n := range names {
		keys[i] = muster.Key{Name: n, Kind: muster.ValueKind(rapid.IntRange(0, 2).Draw(t, "kind"))}
	}
	r := muster.Reading{
		Layout:  muster.NewLayout(keys),
		Time:    muster.Micros(rapid.IntRange(1, 9).Draw(t, "time")),
		Arrival: muster.Micros(rapid.IntRange(1, 9).Draw(t, "arrival")),
	}
	if r.Layout.Loose = rapid.IntRange(0, 3).Draw(t, "loose") == 0; !r.Layout.Loose {
		r.Layout = layouts.Intern(r.Layout)
	}
	for _, k := range r.Layout.Keys {
		if k.Kind == muster.JSON {
			r.Texts = append(r.Texts, rapid.SampledFrom([]string{`"on"`, `[1]`}).Draw(t, "text"))
		} else {
			r.Numbers = append(r.Numbers, rapid.SampledFrom([]float64{0, 1, math.NaN()}).Draw(t, "number"))
		}
	}
	return r
}

func TestLatestValuesAreTheNewestOfEachNameHoweverTheyCame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layouts, sets := NewLayouts(), NewLayouts()
		var l, neighbour latest // which share their keys
		want := plainLatest{}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			r := drawFewKeys(t, layouts)
			back := rapid.Bool().Draw(t, "read back from the store")
			var row []LatestValue
			for v := range r.Values {
				v := LatestValue{Value: v, Time: r.Time, Arrival: r.Arrival}
				want.take(v, back)
				row = append(row, v)
			}
			if back {
				l.merge(row, sets)
			} else {
				l.observe(&r, sets)
			}
			if rapid.Bool().Draw(t, "the neighbour sends the same") {
				before := l.all()
				neighbour.observe(&r, sets)
				if d := gocmp.Diff(before, l.all()); d != "" {
					t.Fatal("changed by the neighbour's values:", d)
				}
			}
			if d := gocmp.Diff(want.list(), l.all()); d != "" {
				t.Fatal(d)
			}
		}
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			v, ok := l.find(name)
			if have, is := want[name]; ok != is || v != have.Value {
				t.Errorf("%s is %+v, %v, want %+v, %v", name, v, ok, have.Value, is)
			}
		}
	})
}

func TestADeviceKeepsNoMoreValuesThanItMay(t *testing.T) {
	var l latest
	sets := NewLayouts()
	for i := range 3 {
		keys, numbers := make([]muster.Key, 600), make([]float64, 600)
		for k := range keys {
			keys[k].Name, numbers[k] = fmt.Sprintf("key-%04d", i*500+k), float64(i)
		}
		at := muster.Micros(i + 1)
		l.observe(&muster.Reading{Layout: muster.NewLayout(keys), Numbers: numbers, Time: at, Arrival: at}, sets)
	}
	if n := len(l.all()); n != maxDeviceValues {
		t.Errorf("%d values are kept", n)
	}
	if v, ok := l.find("key-0000"); !ok || v.Num != 0 {
		t.Errorf("the first is %+v, %v", v, ok)
	}
	if v, ok := l.find("key-1599"); ok {
		t.Errorf("one beyond the bound is kept: %+v", v)
	}
}

func TestDevicesThatSendTheSameKeysHaveThemOnceAndNobodyFillsTheTable(t *testing.T) {
	sets, shared := NewLayouts(), muster.NewLayout([]muster.Key{{Name: "a"}, {Name: "b"}})
	one := muster.Reading{Layout: shared, Numbers: []float64{1, 2}, Time: 1, Arrival: 1}
	var l, m latest
	l.observe(&one, sets)
	m.merge(l.all(), sets) // as after a restart
	m.observe(&one, sets)
	if l.keys != shared || m.keys != shared || l.more != nil || m.more != nil && m.more.slots != nil || cap(l.values) != 2 {
		t.Errorf("the keys are %p and %p, want %p, with %v and %v and room for %d", l.keys, m.keys, shared, l.more, m.more, cap(l.values))
	}
	for i := range 100 { // each with another key
		r := muster.Reading{Layout: muster.NewLayout([]muster.Key{{Name: fmt.Sprint("k", i)}}), Numbers: []float64{1}, Time: 2, Arrival: 2}
		l.observe(&r, sets)
	}
	if len(l.all()) != 102 || sets.count > 1+maxDeviceSets {
		t.Errorf("there are %d values and %d sets of keys", len(l.all()), sets.count)
	}
}

// BenchmarkMemoryOfLatest shows the bytes that ten numbers of a device take.
func BenchmarkMemoryOfLatest(b *testing.B) {
	const n = 20_000
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	keys, numbers := make([]muster.Key, 10), make([]float64, 10)
	for i := range keys {
		keys[i].Name = fmt.Sprintf("key-%d", i)
	}
	r := muster.Reading{Layout: muster.NewLayout(keys), Numbers: numbers, Time: 1, Arrival: 1}
	for b.Loop() {
		before := heap()
		all := make([]latest, n)
		for i := range all {
			all[i].observe(&r, nil)
		}
		b.ReportMetric((heap()-before)/n, "B/device")
		runtime.KeepAlive(all)
	}
}
