package ingest

import (
	"cmp"
	"math"
	"slices"

	"muster"
)

const (
	gapFactor  = 5    // times its usual interval after which a silence is a gap
	gapSamples = 1024 // intervals of a key that are looked at for the usual one
	maxGaps    = 200  // of a key; the longest
	minRhythm  = 3    // intervals from which on there is a usual one
)

// Fold makes what a chart of some pixels needs of any number of readings: the least and
// the greatest value of each key in each pixel, and the silences. Its memory is bounded
// by keys and pixels, never by readings. It is for one goroutine.
type Fold struct {
	from, step muster.Micros
	px         int
	maxKeys    int
	keys       map[string]*folding
	left       map[string]struct{}
}

// Folded is one numeric key of a Fold.
type Folded struct {
	Key   string
	Count int // readings that had it
	// T, Min and Max have an entry for each pixel with readings, in the order of time: the
	// time of its oldest reading, and the least and greatest value.
	T        []muster.Micros
	Min, Max []float64
	// Gaps are silences of more than five times the usual interval, and of more than a
	// pixel: from the reading before to the one after, in the order of time.
	Gaps [][2]muster.Micros
}

// folding is a key on the way. Readings come newest first.
type folding struct {
	count  int
	last   muster.Micros // the one that came before, which is later
	bins   []bin
	sample []muster.Micros
	every  int // of how many intervals one is kept
	skip   int
	gaps   [][2]muster.Micros
}

type bin struct {
	at       int
	t        muster.Micros
	min, max float64
}

// NewFold begins a Fold of [from, to) onto px pixels and at most maxKeys keys.
func NewFold(from, to muster.Micros, px, maxKeys int) *Fold {
	step := max(1, (to-from+muster.Micros(px)-1)/muster.Micros(px))
	return &Fold{from: from, step: step, px: px, maxKeys: maxKeys, keys: map[string]*folding{}, left: map[string]struct{}{}}
}

// Step is the time of one pixel.
func (f *Fold) Step() muster.Micros { return f.step }

// Left is how many keys there was no room for, counted up to maxKeys.
func (f *Fold) Left() int { return len(f.left) }

// Add takes the numbers of r. Readings come newest first; what is not a number is no
// matter of a chart.
func (f *Fold) Add(r *muster.Reading) {
	for v := range r.Values {
		if v.Key.Kind != muster.Number || math.IsNaN(v.Num) || math.IsInf(v.Num, 0) {
			continue
		}
		k := f.keys[v.Key.Name]
		if k == nil {
			if len(f.keys) >= f.maxKeys {
				if len(f.left) < f.maxKeys {
					f.left[v.Key.Name] = struct{}{}
				}
				continue
			}
			k = &folding{every: 1}
			f.keys[v.Key.Name] = k
		}
		k.add(r.Time, v.Num, int((r.Time-f.from)/f.step), f.step)
	}
}

func (k *folding) add(t muster.Micros, v float64, at int, step muster.Micros) {
	if k.count > 0 {
		k.interval(t, step)
	}
	k.count++
	k.last = t
	if n := len(k.bins); n > 0 && k.bins[n-1].at == at {
		b := &k.bins[n-1]
		b.t, b.min, b.max = t, min(b.min, v), max(b.max, v)
		return
	}
	k.bins = append(k.bins, bin{at: at, t: t, min: v, max: v})
}

// interval notes the time from t to the reading after it.
func (k *folding) interval(t, step muster.Micros) {
	d := k.last - t
	if d == 0 { // two layouts at one time
		return
	}
	if d > step {
		k.gaps = append(k.gaps, [2]muster.Micros{t, k.last})
		if len(k.gaps) >= 2*maxGaps {
			k.gaps = longest(k.gaps)
		}
	}
	if k.skip++; k.skip < k.every {
		return
	}
	k.skip = 0
	k.sample = append(k.sample, d)
	if len(k.sample) == gapSamples { // every second one stands for all
		for i := range gapSamples / 2 {
			k.sample[i] = k.sample[2*i]
		}
		k.sample, k.every = k.sample[:gapSamples/2], k.every*2
	}
}

func longest(gaps [][2]muster.Micros) [][2]muster.Micros {
	if len(gaps) <= maxGaps {
		return gaps
	}
	slices.SortStableFunc(gaps, func(a, b [2]muster.Micros) int { return cmp.Compare(b[1]-b[0], a[1]-a[0]) })
	return gaps[:maxGaps]
}

// Keys returns what was folded, the keys in bytewise order.
func (f *Fold) Keys() []Folded {
	out := make([]Folded, 0, len(f.keys))
	for name, k := range f.keys {
		out = append(out, k.folded(name))
	}
	slices.SortFunc(out, func(a, b Folded) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

func (k *folding) folded(name string) Folded {
	n := len(k.bins)
	out := Folded{Key: name, Count: k.count, T: make([]muster.Micros, n), Min: make([]float64, n), Max: make([]float64, n)}
	for i := range k.bins {
		b := &k.bins[n-1-i]
		out.T[i], out.Min[i], out.Max[i] = b.t, b.min, b.max
	}
	if len(k.sample) < minRhythm {
		return out
	}
	slices.Sort(k.sample)
	patience := gapFactor * k.sample[len(k.sample)/2]
	gaps := slices.DeleteFunc(k.gaps, func(g [2]muster.Micros) bool { return g[1]-g[0] <= patience })
	out.Gaps = longest(gaps)
	slices.SortFunc(out.Gaps, func(a, b [2]muster.Micros) int { return cmp.Compare(a[0], b[0]) })
	return out
}
