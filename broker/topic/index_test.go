package topic

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// sub is one subscription in the plain list that the Index is compared with.
type sub struct {
	Group, Filter string
	Owner         int
	Options       Options
}

// want is a Target without its order and its inner parts.
type want struct {
	QoS         byte
	RAP, Local  bool // Local: No Local on all
	Identifiers []uint32
}

type list []sub

func (l list) find(group, filter string, owner int) int {
	return slices.IndexFunc(l, func(s sub) bool { return s.Group == group && s.Filter == filter && s.Owner == owner })
}

func (w want) with(o Options) want {
	w.QoS, w.RAP, w.Local = max(w.QoS, o.QoS), w.RAP || o.RetainAsPublished, w.Local && o.NoLocal
	if o.Identifier != 0 {
		w.Identifiers = append(slices.Clone(w.Identifiers), o.Identifier)
		slices.Sort(w.Identifiers)
	}
	return w
}

// match returns what each owner gets of another's message, of its own, and the groups'
// members.
func (l list) match(name string) (plain, own map[int]want, groups map[string][]Member[int]) {
	plain, own, groups = map[int]want{}, map[int]want{}, map[string][]Member[int]{}
	for _, s := range l {
		if !plainMatches(s.Filter, name) {
			continue
		}
		if s.Group != "" {
			key := s.Group + " " + s.Filter
			groups[key] = append(groups[key], Member[int]{s.Owner, s.Options})
			continue
		}
		if _, ok := plain[s.Owner]; !ok {
			plain[s.Owner] = want{Local: true}
		}
		plain[s.Owner] = plain[s.Owner].with(s.Options)
		if !s.Options.NoLocal {
			own[s.Owner] = own[s.Owner].with(s.Options)
		}
	}
	return plain, own, groups
}

func wanted(t Target[int]) want {
	ids := slices.Clone(t.Identifiers)
	slices.Sort(ids)
	return want{t.QoS, t.RetainAsPublished, t.NoLocal, ids}
}

// diff compares a result with the plain list.
func (l list) diff(name string, r *Result[int]) string {
	plain, own, groups := map[int]want{}, map[int]want{}, map[string][]Member[int]{}
	for i := range r.Plain {
		target := &r.Plain[i]
		if _, ok := plain[target.Owner]; ok {
			return fmt.Sprintf("owner %d is there twice", target.Owner)
		}
		plain[target.Owner] = wanted(*target)
		if o, ok := target.ForPublisher(); ok {
			if o.Owner != target.Owner {
				return fmt.Sprintf("the publisher's view of %d is %d's", target.Owner, o.Owner)
			}
			own[o.Owner] = wanted(o)
		}
	}
	for _, g := range r.Shared {
		groups[g.Name()+" "+g.Filter()] = g.Members()
	}
	wantPlain, wantOwn, wantGroups := l.match(name)
	return cmp.Diff(wantPlain, plain) + cmp.Diff(wantOwn, own) + cmp.Diff(wantGroups, groups)
}

func drawOptions(t *rapid.T) Options {
	return Options{
		QoS: rapid.ByteRange(0, 2).Draw(t, "qos"), NoLocal: rapid.Bool().Draw(t, "no local"),
		RetainAsPublished: rapid.Bool().Draw(t, "rap"), Identifier: rapid.Uint32Range(0, 3).Draw(t, "identifier"),
	}
}

func TestIndexFindsWhatAPlainListFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := NewIndex[int](rapid.SampledFrom([]int{0, 1, 4, 1000}).Draw(t, "cached"))
		var subs list
		held := map[string]*Result[int]{}
		key := func(t *rapid.T) (group, filter string, owner int) {
			return rapid.SampledFrom([]string{"", "", "", "g", "h"}).Draw(t, "group"), drawFilter(t), rapid.IntRange(1, 5).Draw(t, "owner")
		}
		check := func(t *rapid.T, name string) {
			r := x.Match(name)
			if d := subs.diff(name, r); d != "" {
				t.Fatalf("%q: %s", name, d)
			}
			if !x.Fresh(r) {
				t.Fatalf("the result for %q is not fresh at once", name)
			}
			held[name] = r
		}
		drop := func(t *rapid.T, i int) {
			if !x.Unsubscribe(subs[i].Group, subs[i].Filter, subs[i].Owner) {
				t.Fatalf("%+v did not exist", subs[i])
			}
			subs = slices.Delete(subs, i, i+1)
		}
		t.Repeat(map[string]func(*rapid.T){
			"subscribe": func(t *rapid.T) {
				group, filter, owner := key(t)
				o := drawOptions(t)
				at := subs.find(group, filter, owner)
				if existed := x.Subscribe(group, filter, owner, o); existed != (at >= 0) {
					t.Fatalf("existed: %v, want %v", existed, at >= 0)
				}
				if at >= 0 {
					subs[at].Options = o
				} else {
					subs = append(subs, sub{group, filter, owner, o})
				}
			},
			"many subscribe": func(t *rapid.T) {
				group, filter, _ := key(t)
				o := drawOptions(t)
				for owner := 100; owner < 130; owner++ {
					if !x.Subscribe(group, filter, owner, o) {
						subs = append(subs, sub{group, filter, owner, o})
					} else {
						subs[subs.find(group, filter, owner)].Options = o
					}
				}
			},
			"unsubscribe": func(t *rapid.T) {
				if len(subs) > 0 {
					drop(t, rapid.IntRange(0, len(subs)-1).Draw(t, "which"))
				}
			},
			"most unsubscribe": func(t *rapid.T) {
				for i := range slices.Backward(subs) {
					if i%5 != 0 {
						drop(t, i)
					}
				}
			},
			"unsubscribe what may not be there": func(t *rapid.T) {
				group, filter, owner := key(t)
				at := subs.find(group, filter, owner)
				if at >= 0 {
					drop(t, at)
				} else if x.Unsubscribe(group, filter, owner) {
					t.Fatalf("%q %q of %d existed", group, filter, owner)
				}
			},
			"match": func(t *rapid.T) { check(t, drawName(t)) },
			"match again": func(t *rapid.T) {
				for _, name := range slices.Sorted(maps.Keys(held)) {
					check(t, name)
				}
			},
			"": func(t *rapid.T) {
				if x.Len() != len(subs) {
					t.Fatalf("%d subscriptions, want %d", x.Len(), len(subs))
				}
				for name, r := range held {
					if d := subs.diff(name, r); x.Fresh(r) && d != "" {
						t.Fatalf("a result for %q is fresh and wrong: %s", name, d)
					}
				}
			},
		})
		for i := range slices.Backward(subs) {
			drop(t, i)
		}
		if !x.root.empty() {
			t.Fatal("an index without subscriptions keeps nodes")
		}
	})
}

func TestAResultStandsWhileNothingThatMattersToItChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := NewIndex[int](100)
		for i := range 20 {
			x.Subscribe(rapid.SampledFrom([]string{"", "g"}).Draw(t, "group"), drawFilter(t), i, Options{})
		}
		name := drawName(t)
		r := x.Match(name)
		for range 20 {
			group, filter := rapid.SampledFrom([]string{"", "g"}).Draw(t, "group"), drawFilter(t)
			owner := rapid.IntRange(0, 25).Draw(t, "owner")
			if rapid.Bool().Draw(t, "leave") {
				x.Unsubscribe(group, filter, owner)
			} else {
				x.Subscribe(group, filter, owner, Options{})
			}
			again := x.Match(name)
			if again != r && !plainMatches(filter, name) {
				t.Fatalf("a change at %q made a new result for %q", filter, name)
			}
			r = again
		}
	})
}

func TestTheSameSubscriptionAgainOutdatesNothing(t *testing.T) {
	x := NewIndex[int](8)
	x.Subscribe("", "a", 1, Options{QoS: 1})
	r := x.Match("a")
	if existed := x.Subscribe("", "a", 1, Options{QoS: 1}); !existed || !x.Fresh(r) {
		t.Errorf("existed %v, fresh %v", existed, x.Fresh(r))
	}
	if existed := x.Subscribe("", "a", 1, Options{QoS: 2}); !existed || x.Fresh(r) || x.Match("a").Plain[0].QoS != 2 {
		t.Errorf("existed %v, fresh %v, now %+v", existed, x.Fresh(r), x.Match("a").Plain)
	}
	if x.Fresh(nil) {
		t.Error("nil is fresh")
	}
}

func TestAnInvalidFilterMatchesNothing(t *testing.T) {
	x := NewIndex[int](8)
	for _, filter := range []string{"#/a", "a/#/b", "a+", "a#", ""} {
		x.Subscribe("", filter, 1, Options{})
	}
	for _, name := range []string{"a", "a/b", "a/x/b", "/", "ab"} {
		if r := x.Match(name); len(r.Plain) != 0 {
			t.Errorf("%q: %+v", name, r.Plain)
		}
	}
}

func TestAGroupKeepsItsOrderAndItsTurnWhileMembersComeAndGo(t *testing.T) {
	x := NewIndex[string](8)
	for _, owner := range []string{"c", "a", "b"} {
		x.Subscribe("g", "t/+", owner, Options{QoS: 1})
	}
	x.Subscribe("f", "t/+", "z", Options{})
	x.Subscribe("g", "#", "z", Options{})
	owners := func() (names []string, g *Group[string]) {
		r := x.Match("t/1")
		if len(r.Plain) != 0 || len(r.Shared) != 3 {
			t.Fatalf("plain %+v, %d groups", r.Plain, len(r.Shared))
		}
		if r.Shared[0].Filter() != "#" || r.Shared[1].Name() != "f" {
			t.Fatalf("groups lie as %q %q first", r.Shared[0].Filter(), r.Shared[1].Name())
		}
		g = r.Shared[2]
		for _, m := range g.Members() {
			names = append(names, m.Owner)
		}
		return names, g
	}
	names, g := owners()
	if d := cmp.Diff([]string{"c", "a", "b"}, names); d != "" {
		t.Error(d)
	}
	for n := range 3 {
		if got := g.Next(); got != n {
			t.Errorf("turn %d, want %d", got, n)
		}
	}
	x.Unsubscribe("g", "t/+", "c")
	x.Subscribe("g", "t/+", "a", Options{})
	x.Subscribe("g", "t/+", "c", Options{})
	names, now := owners()
	if d := cmp.Diff([]string{"a", "b", "c"}, names); d != "" {
		t.Error(d)
	}
	if got := now.Next(); got != 3 {
		t.Errorf("the turn is %d after a change, want 3", got)
	}
	if len(g.Members()) != 3 || g.Members()[0].Owner != "c" {
		t.Errorf("an earlier view has changed: %+v", g.Members())
	}
}

func TestWhatIsKeptDoesNotLieInTheCallersBuffer(t *testing.T) {
	const name = "devices/a1/x"
	for _, cached := range []int{0, 8} {
		buf := []byte(name)
		x, tree := NewIndex[int](cached), NewTree[int]()
		x.Subscribe("", alias(buf), 1, Options{})
		x.Subscribe(alias(buf)[:7], alias(buf), 1, Options{})
		x.Match(alias(buf))
		tree.Set(alias(buf), 7)
		copy(buf, "overwritten!")
		if cached > 0 && x.results.get(name) == nil {
			t.Error("the result is remembered under another name")
		}
		r := x.Match(name)
		if len(r.Plain) != 1 || len(r.Shared) != 1 || r.Shared[0].Name() != "devices" || r.Shared[0].Filter() != name {
			t.Errorf("cached %d: plain %+v, %d shared", cached, r.Plain, len(r.Shared))
		}
		tree.Each(func(got string, v int) bool {
			if got != name || v != 7 {
				t.Errorf("%q is %d", got, v)
			}
			return true
		})
	}
}

func TestATargetCountsEverySubscriptionOnce(t *testing.T) {
	// The array of identifiers grows to four before the owner's own view parts from it.
	countAll(t, []Options{{Identifier: 1}, {Identifier: 2}, {Identifier: 3}, {NoLocal: true, Identifier: 4}, {Identifier: 5}})
	rapid.Check(t, func(t *rapid.T) {
		countAll(t, rapid.SliceOfN(rapid.Custom(drawOptions), 1, 12).Draw(t, "subscriptions"))
	})
}

func countAll(t failer, options []Options) {
	var target Target[int]
	var subs list
	for i, o := range options {
		subs = append(subs, sub{Filter: "#", Owner: 1, Options: o})
		if i == 0 {
			target.begin(&Member[int]{1, o}, make([]uint32, 0, len(options)))
		} else {
			target.add(o)
		}
		if d := subs.diff("a", &Result[int]{Plain: []Target[int]{target}}); d != "" {
			t.Fatalf("%s", d)
		}
	}
}

func TestAnIndexGivesMemoryBackWhenSubscribersGo(t *testing.T) {
	const n = 20_000
	x := NewIndex[int](8)
	for i := range n {
		x.Subscribe("", "all", i, Options{})
		x.Subscribe("", fmt.Sprint("one/", i), i, Options{})
	}
	for i := range n - 20 {
		x.Unsubscribe("", "all", i)
		x.Unsubscribe("", fmt.Sprint("one/", i), i)
	}
	a, one := *x.slot("all"), x.root.child("one")
	if len(a.entries) > 50 || cap(a.entries) > 100 || one.many == nil || one.many.peak > 100 {
		t.Errorf("%d entries of %d, kids %+v", len(a.entries), cap(a.entries), one.many)
	}
	for i := n - 20; i < n-2; i++ {
		x.Unsubscribe("", "all", i)
		x.Unsubscribe("", fmt.Sprint("one/", i), i)
	}
	if a.index != nil || a.len() != 2 || one.many != nil || one.child(fmt.Sprint(n-1)) == nil {
		t.Errorf("index %v, %d members, kids %+v", a.index, a.len(), one.many)
	}
}

// slot returns where the audience of filter is kept.
func (x *Index[S]) slot(filter string) **audience[S] {
	_, slot := x.path(make([]*node[S], 1), filter)
	return slot
}

func TestTheCacheIsBoundedByTopicsAndByTargets(t *testing.T) {
	held := func(x *Index[int]) (topics, targets int) {
		for _, half := range []map[string]*Result[int]{x.results.young, x.results.old} {
			topics += len(half)
			for _, r := range half {
				targets += r.weight
			}
		}
		return topics, targets
	}
	const cached = 64
	x := NewIndex[int](cached)
	for owner := range 200 {
		x.Subscribe("", "#", owner, Options{})
		x.Subscribe("", "+/+", owner, Options{})
	}
	for i := range 1000 {
		x.Match(fmt.Sprintf("flat%d", i))
		x.Match(fmt.Sprintf("merged/%d", i))
		if topics, targets := held(x); topics > cached || targets > cached*targetsPerTopic {
			t.Fatalf("%d topics with %d targets are remembered", topics, targets)
		}
	}
	for owner := range 1000 {
		x.Subscribe("", "+/+", owner, Options{})
	}
	x.Match("giant/1")
	if _, targets := held(x); targets > cached*targetsPerTopic || x.results.get("giant/1") != nil {
		t.Errorf("a result above the budget is remembered; %d targets", targets)
	}
}

func TestATopicInUseStaysRememberedWhileOthersPass(t *testing.T) {
	x := NewIndex[int](16)
	x.Subscribe("", "hot", 1, Options{})
	r := x.Match("hot")
	for i := range 1000 {
		x.Match(fmt.Sprint("cold", i))
		if i%4 == 0 && x.Match("hot") != r {
			t.Fatalf("forgotten after %d other topics", i)
		}
	}
}

func TestOutdatedSnapshotsDoNotPileUpInTheCache(t *testing.T) {
	x := NewIndex[int](1024)
	for owner := range 4000 {
		x.Subscribe("", "fleet/#", owner, Options{})
		x.Subscribe("g", "fleet/#", owner, Options{})
	}
	for i := range 300 {
		x.Match(fmt.Sprint("fleet/", i))
		x.Unsubscribe("", "fleet/#", i)
		x.Unsubscribe("g", "fleet/#", i)
	}
	arrays := map[any]int{}
	for _, half := range []map[string]*Result[int]{x.results.young, x.results.old} {
		for _, r := range half {
			arrays[&r.Plain[0]] = len(r.Plain)
			arrays[r.Shared[0]] = len(r.Shared[0].Members())
		}
	}
	total := 0
	for _, n := range arrays {
		total += n
	}
	if total > 2*1024*targetsPerTopic {
		t.Errorf("%d outdated targets are held", total)
	}
}

func TestAThousandSlashesCostMicroseconds(t *testing.T) {
	x, tree := NewIndex[int](8), NewTree[int]()
	deep := strings.Repeat("/", MaxBytes)
	if steps := testing.AllocsPerRun(10, func() {
		if CheckFilter(deep) == "" || CheckName(deep) == "" {
			t.Error("valid")
		}
	}); steps != 0 {
		t.Errorf("the check allocates %v times", steps)
	}
	// Nobody stores it, but nothing breaks if one did.
	x.Subscribe("", deep, 1, Options{})
	tree.Set(deep, 1)
	if got, _ := tree.Match(deep[:MaxBytes-1]+"/#", 2); len(got) != 1 || len(x.Match(deep).Plain) != 1 {
		t.Errorf("not found: %v, %+v", got, x.Match(deep).Plain)
	}
	if !x.Unsubscribe("", deep, 1) || !x.root.empty() {
		t.Error("nodes are left")
	}
}

func TestConcurrentMatchesNeverMissAFinishedSubscription(t *testing.T) {
	x := NewIndex[int](16)
	const workers, rounds = 4, 300
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var last *Result[int]
			for i := range rounds {
				filter := fmt.Sprintf("a/%d/+", i%7)
				name := fmt.Sprintf("a/%d/x", i%7)
				x.Subscribe("", filter, w, Options{QoS: 1})
				x.Subscribe("g", "a/#", w, Options{})
				if r := x.Match(name); !has(r, w) {
					t.Errorf("worker %d subscribed to %q and is not found", w, filter)
				}
				x.Unsubscribe("", filter, w)
				if last = x.Match(name); has(last, w) {
					t.Errorf("worker %d left %q and is found", w, filter)
				}
				x.Subscribe("", "#", w, Options{})
				if x.Fresh(last) {
					t.Error("fresh after a change")
				}
				x.Unsubscribe("", "#", w)
				x.Unsubscribe("g", "a/#", w)
			}
		})
	}
	wg.Wait()
	if x.Len() != 0 || !x.root.empty() {
		t.Errorf("%d subscriptions are left", x.Len())
	}
}

func has(r *Result[int], owner int) bool {
	return slices.ContainsFunc(r.Plain, func(t Target[int]) bool { return t.Owner == owner })
}
