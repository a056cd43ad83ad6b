package topic

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func alias(b []byte) string { return unsafe.String(&b[0], len(b)) }

func TestTreeFindsWhatAPlainMapFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree, plain := NewTree[string](), map[string]string{}
		n := 0
		set := func(t *rapid.T, name string) {
			n++
			v := fmt.Sprint(name, " ", n)
			old, had := tree.Set(name, v)
			if was, ok := plain[name]; ok != had || was != old {
				t.Fatalf("set %q: old %q %v, want %q %v", name, old, had, was, ok)
			}
			plain[name] = v
		}
		remove := func(t *rapid.T, name string) {
			old, had := tree.Delete(name)
			if was, ok := plain[name]; ok != had || was != old {
				t.Fatalf("delete %q: old %q %v, want %q %v", name, old, had, was, ok)
			}
			delete(plain, name)
		}
		t.Repeat(map[string]func(*rapid.T){
			"set":    func(t *rapid.T) { set(t, drawName(t)) },
			"delete": func(t *rapid.T) { remove(t, drawName(t)) },
			"set many": func(t *rapid.T) {
				prefix := drawName(t)
				for i := range rapid.IntRange(1, 700).Draw(t, "how many") {
					set(t, fmt.Sprintf("%s/%d/%s", prefix, i*7919%1000, []string{"a", "b", "a/b"}[i%3]))
				}
			},
			"delete many": func(t *rapid.T) {
				keep := rapid.IntRange(2, 50).Draw(t, "keep one in")
				for i, name := range slices.Sorted(maps.Keys(plain)) {
					if i%keep != 0 {
						remove(t, name)
					}
				}
			},
			"match": func(t *rapid.T) {
				compareMatch(t, tree, plain, drawFilter(t), rapid.SampledFrom([]int{0, 1, 2, 100, 1 << 20}).Draw(t, "limit"))
			},
			"match what many have": func(t *rapid.T) {
				for _, filter := range []string{"#", "+/+/a", "+/+/+/b", "a/+/a/b", "a/+", "+/#", "b/5/#", "a/a/+/a"} {
					compareMatch(t, tree, plain, filter, 1<<20)
				}
			},
			"": func(t *rapid.T) { compareAll(t, tree, plain) },
		})
	})
}

func compareMatch(t *rapid.T, tree *Tree[string], plain map[string]string, filter string, limit int) {
	var want []string
	for _, name := range slices.Sorted(maps.Keys(plain)) {
		if plainMatches(filter, name) {
			want = append(want, plain[name])
		}
	}
	over := len(want) > limit
	want = want[:min(len(want), limit)]
	got, more := tree.Match(filter, limit)
	if d := cmp.Diff(slices.Clip(want), got, cmp.Transformer("empty", func(s []string) []string { return append([]string{}, s...) })); d != "" && len(want)+len(got) > 0 {
		t.Fatalf("%q, limit %d: %s", filter, limit, d)
	}
	if more != over {
		t.Fatalf("%q, limit %d: more is %v, want %v", filter, limit, more, over)
	}
}

func compareAll(t *rapid.T, tree *Tree[string], plain map[string]string) {
	var names []string
	tree.Each(func(name, v string) bool {
		if got, ok := tree.Get(name); plain[name] != v || got != v || !ok {
			t.Fatalf("%q is %q, then %q, want %q", name, v, got, plain[name])
		}
		names = append(names, name)
		return true
	})
	if !slices.Equal(names, slices.Sorted(maps.Keys(plain))) || tree.Len() != len(plain) {
		t.Fatalf("names %q, %d of them, want %d", names, tree.Len(), len(plain))
	}
	compareChunks(t, &tree.names)
}

func compareChunks(t failer, n *names) {
	last := chunkSize
	for i, chunk := range n.chunks {
		if len(chunk) == 0 || len(chunk) > chunkSize || last+len(chunk) <= chunkSize/2 {
			t.Fatalf("chunk %d has %d names, the one before %d", i, len(chunk), last)
		}
		last = len(chunk)
	}
}

func TestChunksStayFullHoweverNamesGo(t *testing.T) {
	for what, order := range map[string]func(i int) int{
		"ascending": func(i int) int { return i }, "descending": func(i int) int { return 2047 - i }, "scattered": func(i int) int { return i * 1021 % 2048 },
	} {
		var n names
		for i := range 2048 {
			n.insert(fmt.Sprintf("%04d", i))
		}
		if len(n.chunks) != 2048/chunkSize {
			t.Errorf("%s: names in order fill %d chunks", what, len(n.chunks))
		}
		for i := range 2048 {
			if order(i)%10 != 0 {
				n.remove(fmt.Sprintf("%04d", order(i)))
				compareChunks(t, &n)
			}
		}
	}
}

func TestEachStopsWhenItIsTold(t *testing.T) {
	tree := NewTree[int]()
	for i := range 10 {
		tree.Set(fmt.Sprint(i), i)
	}
	var seen []int
	tree.Each(func(name string, v int) bool {
		tree.Delete(name) // no lock is held
		seen = append(seen, v)
		return v < 3
	})
	if d := cmp.Diff([]int{0, 1, 2, 3}, seen); d != "" || tree.Len() != 6 {
		t.Errorf("%d left: %s", tree.Len(), d)
	}
}

func TestASearchJumpsOverWhatCannotMatch(t *testing.T) {
	tree := NewTree[string]()
	for d := range 200 {
		tree.Set(fmt.Sprintf("devices/%03d/presence", d), fmt.Sprint(d))
		for k := range 50 {
			tree.Set(fmt.Sprintf("devices/%03d/many/%02d", d, k), "")
		}
	}
	for filter, want := range map[string]struct{ found, most int }{
		"devices/+/presence": {200, 3 * 200}, "+/+/presence": {200, 3 * 200}, "devices/007/#": {51, 60},
		"devices/7/+": {0, 5}, "devices/+": {0, 300}, "other/#": {0, 1}, "devices/+/many/07": {200, 4 * 200}, "devices/+/many/02": {200, 4 * 200},
	} {
		if found, more := tree.Match(filter, 1<<20); len(found) != want.found || more {
			t.Errorf("%q finds %d, more %v, want %d", filter, len(found), more, want.found)
		}
		s := search[string]{filter: filter, key: []byte(literal(filter, strings.IndexAny(filter, wildcards))), limit: 1 << 20}
		looks := 0
		for p := tree.names.seek(s.key); ; looks++ {
			name, ok := tree.names.get(p)
			if !ok {
				break
			}
			v := s.judge(name)
			if v == noneMay {
				break
			}
			if v == fromKey {
				p = tree.names.seekFrom(p, s.key)
			} else {
				p = tree.names.after(p)
			}
		}
		if looks > want.most {
			t.Errorf("%q looks at %d names, want at most %d", filter, looks, want.most)
		}
	}
}

func TestATreeGivesMemoryBackWhenItsNamesGo(t *testing.T) {
	tree := NewTree[int]()
	for i := range 100_000 {
		tree.Set(fmt.Sprint("a/", i), i)
	}
	if tree.peak != tree.Len() {
		t.Errorf("the most names are %d, want %d", tree.peak, tree.Len())
	}
	for i := range 99_990 {
		tree.Delete(fmt.Sprint("a/", i))
	}
	if len(tree.names.chunks) > 2 || tree.peak > 4*chunkSize {
		t.Errorf("%d chunks, a map that held %d", len(tree.names.chunks), tree.peak)
	}
	if got, more := tree.Match("a/#", 100); len(got) != 10 || more {
		t.Errorf("%v, more %v", got, more)
	}
}

func TestATreeIsSearchedWhileItChanges(t *testing.T) {
	tree := NewTree[int]()
	const fixed = 3000
	for i := range fixed {
		tree.Set(fmt.Sprintf("stay/%04d", i), i)
	}
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := range 2000 {
				name := fmt.Sprintf("stay/%04d-%d", i*31%fixed, w)
				tree.Set(name, -1)
				tree.Delete(name)
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range 20 {
				found, _ := tree.Match("stay/+", 2*fixed)
				next := 0
				for _, v := range found {
					if v == next {
						next++
					} else if v != -1 {
						t.Errorf("%d follows %d", v, next-1)
						return
					}
				}
				if next != fixed {
					t.Errorf("%d of %d are found", next, fixed)
				}
			}
		})
	}
	wg.Wait()
	if tree.Len() != fixed {
		t.Errorf("%d names are left", tree.Len())
	}
}
