package topic

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
)

// session stands for an owner.
type session struct{ _ [8]byte }

// fleet has n filters of one device each, and services that see all of them.
func fleet(n, cached int) *Index[*session] {
	x := NewIndex[*session](cached)
	for i := range n {
		x.Subscribe("", fmt.Sprintf("a/%d/b", i), &session{}, Options{QoS: 1})
	}
	x.Subscribe("", "a/+/b", &session{}, Options{})
	x.Subscribe("", "#", &session{}, Options{Identifier: 7})
	return x
}

func audienceOf(n int, filter string) (*Index[*session], []*session) {
	x, owners := NewIndex[*session](1024), make([]*session, n)
	for i := range owners {
		owners[i] = &session{}
		x.Subscribe("", filter, owners[i], Options{QoS: 1})
	}
	return x, owners
}

func BenchmarkFresh(b *testing.B) {
	x := fleet(100_000, 1024)
	r := x.Match("a/5/b")
	b.ReportAllocs()
	for b.Loop() {
		if !x.Fresh(r) {
			b.Fatal("not fresh")
		}
	}
}

func BenchmarkMatch100kFilters(b *testing.B) {
	names := make([]string, 100_000)
	for i := range names {
		names[i] = fmt.Sprintf("a/%d/b", i)
	}
	for _, bb := range []struct {
		name           string
		cached, topics int
		parallel       bool
	}{
		{"cached", 1024, 256, false},
		{"cached, parallel", 1024, 256, true},
		{"uncached", 0, len(names), false},
		{"uncached, parallel", 0, len(names), true},
		{"cache overrun", 1024, len(names), false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			x := fleet(len(names), bb.cached)
			var workers atomic.Int64
			match := func(i int) {
				if r := x.Match(names[i%bb.topics]); len(r.Plain) != 3 {
					b.Errorf("%d targets", len(r.Plain))
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			if bb.parallel {
				b.RunParallel(func(pb *testing.PB) {
					for i := int(workers.Add(1)) * 7919; pb.Next(); i++ {
						match(i)
					}
				})
				return
			}
			for i := range b.N {
				match(i)
			}
		})
	}
}

func BenchmarkMatchAfterChangeElsewhere(b *testing.B) {
	x := fleet(100_000, 1024)
	s := &session{}
	b.ReportAllocs()
	for b.Loop() {
		x.Subscribe("", "x/1", s, Options{})
		x.Match("a/5/b")
		x.Unsubscribe("", "x/1", s)
		x.Match("a/5/b")
	}
}

func BenchmarkMatchManySubscribers(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		for _, filters := range []int{1, 2} {
			b.Run(fmt.Sprintf("%d subscribers, %d filters, changed each time", n, filters), func(b *testing.B) {
				x, owners := audienceOf(n, "news/today")
				if filters == 2 {
					for _, s := range owners {
						x.Subscribe("", "news/+", s, Options{})
					}
				}
				qos := byte(0)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					qos ^= 1
					x.Subscribe("", "news/today", owners[0], Options{QoS: qos})
					if r := x.Match("news/today"); len(r.Plain) != n {
						b.Fatalf("%d targets", len(r.Plain))
					}
				}
			})
		}
	}
}

func BenchmarkSubscribeUnsubscribe(b *testing.B) {
	for _, bb := range []struct {
		name string
		at   int // subscribers at the filter, besides 100k filters
	}{{"new filter", 0}, {"beside 100000 subscribers", 100_000}} {
		b.Run(bb.name, func(b *testing.B) {
			x := fleet(100_000, 1024)
			for range bb.at {
				x.Subscribe("", "devices/x/desired", &session{}, Options{})
			}
			s := &session{}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				x.Subscribe("", "devices/x/desired", s, Options{QoS: 1})
				x.Unsubscribe("", "devices/x/desired", s)
			}
		})
	}
}

// BenchmarkStorm is a reconnect storm: 15,000 sessions leave one filter and join it
// again.
func BenchmarkStorm(b *testing.B) {
	for _, group := range []string{"", "g"} {
		b.Run("group "+group, func(b *testing.B) {
			x, owners := NewIndex[*session](1024), make([]*session, 15_000)
			for i := range owners {
				owners[i] = &session{}
				x.Subscribe(group, "all/+", owners[i], Options{QoS: 1})
			}
			b.ResetTimer()
			for range b.N {
				for _, s := range owners {
					x.Unsubscribe(group, "all/+", s)
				}
				for _, s := range owners {
					x.Subscribe(group, "all/+", s, Options{QoS: 1})
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*2*len(owners)), "ns/change")
		})
	}
}

func BenchmarkDeepFilter(b *testing.B) {
	deep := "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/#"
	x, s := NewIndex[*session](0), &session{}
	b.ReportAllocs()
	for b.Loop() {
		if CheckFilter(deep) != "" {
			b.Fatal("invalid")
		}
		x.Subscribe("", deep, s, Options{})
		x.Match(deep[:len(deep)-2])
		x.Unsubscribe("", deep, s)
	}
}

func BenchmarkMatches(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if !Matches("devices/+/telemetry/#", "devices/sensor-0042/telemetry/temperature") {
			b.Fatal("no match")
		}
	}
}

func BenchmarkCheckName(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if CheckName("devices/sensor-0042/telemetry/temperature") != "" {
			b.Fatal("invalid")
		}
	}
}

// BenchmarkMemory reports what one subscription or one retained name keeps in memory,
// without the value and the owner.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	owners := make([]*session, n)
	for i := range owners {
		owners[i] = &session{}
	}
	index := func(filter func(i int) (group, filter string)) func() any {
		return func() any {
			x := NewIndex[*session](1024)
			for i, s := range owners {
				group, f := filter(i)
				x.Subscribe(group, f, s, Options{QoS: 1})
			}
			return x
		}
	}
	for _, bb := range []struct {
		name string
		fill func() any
	}{
		{"index a/n/b", index(func(i int) (string, string) { return "", fmt.Sprintf("a/%d/b", i) })},
		{"index one filter", index(func(int) (string, string) { return "", "a/b" })},
		{"index one group", index(func(int) (string, string) { return "g", "a/b" })},
		{"index three filters per device", index(func(i int) (string, string) {
			return "", fmt.Sprintf("devices/sensor-%06d/%s", i/3, [3]string{"commands/+", "desired", "firmware"}[i%3])
		})},
		{"tree a/n/b", func() any {
			t, v := NewTree[*session](), &session{}
			for i := range n {
				t.Set(fmt.Sprintf("a/%d/b", i), v)
			}
			return t
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var total uint64
			for range b.N {
				before := heap()
				kept := bb.fill()
				total += heap() - before
				runtime.KeepAlive(kept)
			}
			b.ReportMetric(float64(total)/float64(b.N)/n, "B/entry")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkTree(b *testing.B) {
	const n = 100_000
	tree, names := NewTree[int](), make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("devices/%d/%s", i/2, [2]string{"presence", "desired"}[i%2])
		tree.Set(names[i], i)
	}
	b.Run("Get", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			tree.Get(names[i%n])
		}
	})
	b.Run("Set what is there", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			tree.Set(names[i%n], i)
		}
	})
	b.Run("Set and Delete", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			tree.Set("devices/777x/presence", i)
			tree.Delete("devices/777x/presence")
		}
	})
	for _, bb := range []struct {
		filter string
		limit  int
	}{{"devices/777/#", 100}, {"#", 100}, {"devices/+/presence", n}, {"devices/+/none", n}, {"#", n}} {
		b.Run(fmt.Sprintf("Match %s limit %d", bb.filter, bb.limit), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				tree.Match(bb.filter, bb.limit)
			}
		})
	}
}
