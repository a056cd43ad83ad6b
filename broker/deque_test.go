package broker

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestADequeIsASliceWithTwoEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d deque[*int]
		var want []*int
		fresh := func() *int { n := len(want); return &n }
		t.Repeat(map[string]func(*rapid.T){
			"push":      func(*rapid.T) { v := fresh(); d.push(v); want = append(want, v) },
			"pushFront": func(*rapid.T) { v := fresh(); d.pushFront(v); want = slices.Insert(want, 0, v) },
			"pop": func(t *rapid.T) {
				if len(want) == 0 {
					t.Skip("empty")
				}
				if got := d.pop(); got != want[0] {
					t.Fatal("pop returns another than the first")
				}
				want = want[1:]
			},
			"": func(t *rapid.T) {
				if d.len() != len(want) {
					t.Fatalf("len %d, want %d", d.len(), len(want))
				}
				for i, v := range want {
					if *d.at(i) != v {
						t.Fatalf("element %d is another", i)
					}
				}
				held := 0
				for _, v := range d.ring {
					if v != nil {
						held++
					}
				}
				if held != len(want) || d.n == 0 && len(d.ring) > keptRing {
					t.Fatalf("the ring holds %d values of %d in %d places", held, len(want), len(d.ring))
				}
			},
		})
	})
}
