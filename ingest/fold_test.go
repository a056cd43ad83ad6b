package ingest_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"muster"
	"muster/ingest"
)

func one(key string, t muster.Micros, v float64) *muster.Reading {
	return &muster.Reading{Device: "d", Time: t, Layout: muster.NewLayout([]muster.Key{{Name: key}}), Numbers: []float64{v}}
}

// What a fold says of each pixel is what all its readings say, whatever they are.
func TestAFoldHasTheLeastAndTheGreatestOfEveryPixel(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 50 {
		from, to, px := muster.Micros(1000), muster.Micros(1000+rng.IntN(100_000)+1), rng.IntN(200)+1
		f := ingest.NewFold(from, to, px, 8)
		times := make([]muster.Micros, rng.IntN(2000))
		for i := range times {
			times[i] = from + muster.Micros(rng.Int64N(int64(to-from)))
		}
		slices.Sort(times)
		slices.Reverse(times)
		want := map[int][3]float64{} // by pixel: oldest time, least, greatest
		for _, at := range times {
			v := rng.NormFloat64()
			f.Add(one("x", at, v))
			pixel := int((at - from) / f.Step())
			old, ok := want[pixel]
			if !ok {
				old = [3]float64{0, v, v}
			}
			want[pixel] = [3]float64{float64(at), min(old[1], v), max(old[2], v)}
		}
		keys := f.Keys()
		if len(times) == 0 {
			if len(keys) != 0 {
				t.Fatalf("nothing folds to %v", keys)
			}
			continue
		}
		k := keys[0]
		if len(k.T) != len(want) || len(k.T) > px || k.Count != len(times) || !slices.IsSorted(k.T) {
			t.Fatalf("%d readings are %d, in %d pixels of %d, want %d", len(times), k.Count, len(k.T), px, len(want))
		}
		for i, at := range k.T {
			if got, w := [3]float64{float64(at), k.Min[i], k.Max[i]}, want[int((at-from)/f.Step())]; got != w {
				t.Fatalf("a pixel is %v, want %v", got, w)
			}
		}
	}
}

func TestAFoldTellsSilencesByTheUsualInterval(t *testing.T) {
	f := ingest.NewFold(0, 1_000_000, 500, 8)
	for at := muster.Micros(999_000); at >= 0; at -= 1000 {
		if at > 300_000 && at < 400_000 || at > 700_000 && at < 703_000 { // 100 intervals, and 3
			continue
		}
		f.Add(one("x", at, 1))
	}
	got := f.Keys()[0].Gaps
	if want := [][2]muster.Micros{{300_000, 400_000}}; !slices.Equal(got, want) {
		t.Errorf("the gaps are %v, want %v", got, want)
	}
}

func TestAFoldOfTwoReadingsKnowsNoSilence(t *testing.T) {
	f := ingest.NewFold(0, 1_000_000, 100, 8)
	f.Add(one("x", 900_000, 1))
	f.Add(one("x", 100_000, 2))
	if k := f.Keys()[0]; len(k.Gaps) != 0 || len(k.T) != 2 {
		t.Errorf("it is %+v", k)
	}
}

func TestAFoldLeavesOutWhatIsNoNumberAndTooManyKeys(t *testing.T) {
	f := ingest.NewFold(0, 100, 10, 2)
	l := muster.NewLayout([]muster.Key{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "hole"}, {Name: "on", Kind: muster.Bool}, {Name: "text", Kind: muster.JSON}})
	for i := range 20 {
		f.Add(&muster.Reading{Time: muster.Micros(20 - i), Layout: l, Numbers: []float64{1, 2, 3, math.NaN(), 1}, Texts: []string{`"x"`}})
	}
	var names []string
	for _, k := range f.Keys() {
		names = append(names, k.Key)
	}
	if !slices.Equal(names, []string{"a", "b"}) || f.Left() != 1 {
		t.Errorf("it has %v, and %d are left out", names, f.Left())
	}
}

// A silence every other reading is bounded like everything else.
func TestAFoldKeepsTheLongestSilences(t *testing.T) {
	f := ingest.NewFold(0, 100_000_000, 100_000, 1)
	at := muster.Micros(90_000_000)
	for i := range 5000 {
		f.Add(one("x", at, 1))
		at -= 1000
		if i%10 == 9 {
			at -= 8000 + muster.Micros(i%7)*100
		}
	}
	k := f.Keys()[0]
	if len(k.Gaps) != 200 || !slices.IsSortedFunc(k.Gaps, func(a, b [2]muster.Micros) int { return int(a[0] - b[0]) }) {
		t.Fatalf("%d gaps are kept", len(k.Gaps))
	}
	for _, g := range k.Gaps {
		if g[1]-g[0] < 9400 {
			t.Fatalf("a gap of %d is kept, where there are longer ones", g[1]-g[0])
		}
	}
}
