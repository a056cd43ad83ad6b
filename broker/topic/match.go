package topic

import (
	"cmp"
	"slices"
	"strings"
)

// Match returns who gets a message that is published to name, which has passed
// CheckName. The result is immutable. It is the same pointer for the same name while
// none of the filters that match it has changed and the result is remembered (see
// NewIndex). When Subscribe has returned, every later Match knows of it.
func (x *Index[S]) Match(name string) *Result[S] {
	r := x.results.get(name)
	if x.Fresh(r) {
		return r
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	var room [8]*audience[S]
	found := x.root.walk(room[:0], name, true, !hidden(name))
	now := x.changes.Load() // writers hold the lock: the same for all who are here
	if r != nil && r.from(found) {
		r.at.Store(now)
		return r
	}
	r = newResult(name, found)
	r.at.Store(now)
	return x.results.put(r)
}

// Fresh says whether r, a result of this index's Match or nil, is still what Match
// would find: two atomic loads, so that a publisher keeps its last result without a
// look-up. It is false for nil, and may be false for a result that still stands: then
// Match says so at the price of a look-up.
func (x *Index[S]) Fresh(r *Result[S]) bool {
	return r != nil && r.at.Load() == x.changes.Load()
}

func newResult[S comparable](name string, found []*audience[S]) *Result[S] {
	r := &Result[S]{name: strings.Clone(name), sources: make([]source[S], len(found))}
	plain := 0 // how many of found have plain subscriptions, which then lie first
	for i, a := range found {
		r.sources[i] = source[S]{a, a.version}
		for _, g := range a.groups {
			r.Shared = append(r.Shared, g.snapshot())
		}
		if a.len() > 0 {
			found[plain], found[i] = found[i], found[plain]
			plain++
		}
	}
	switch plain {
	case 0:
	case 1:
		r.Plain = found[0].targets()
	default:
		r.Plain = merge(found[:plain])
		r.weight = cap(r.Plain) // one owner may have had several places
	}
	slices.SortFunc(r.Shared, func(a, b *Group[S]) int {
		return cmp.Or(cmp.Compare(a.filter, b.filter), cmp.Compare(a.name, b.name))
	})
	r.weight += len(r.Shared) + len(r.sources)
	return r
}

// from says whether r was made of these audiences as they are now.
func (r *Result[S]) from(found []*audience[S]) bool {
	if len(found) != len(r.sources) {
		return false
	}
	for i, a := range found {
		if r.sources[i] != (source[S]{a, a.version}) {
			return false
		}
	}
	return true
}

// targets returns the plain subscriptions as targets, for all results that have only
// these.
func (a *audience[S]) targets() []Target[S] {
	if flat := a.flat.Load(); flat != nil {
		return *flat
	}
	flat := make([]Target[S], a.len())
	ids := make([]uint32, 0, a.identified()) // one array for all
	n := 0
	for i := range a.entries {
		if e := &a.entries[i]; !e.gone {
			ids = flat[n].begin(&e.Member, ids)
			n++
		}
	}
	if !a.flat.CompareAndSwap(nil, &flat) {
		return *a.flat.Load() // writers hold the lock: another reader has made the same
	}
	return flat
}

func (s *set[S]) identified() (n int) {
	for i := range s.entries {
		if s.entries[i].Identifier != 0 {
			n++
		}
	}
	return n
}

// merge makes one target of each owner's subscriptions in two or more audiences. Owners
// of the largest one are found by its own index; only the others need a map.
func merge[S comparable](found []*audience[S]) []Target[S] {
	slices.SortStableFunc(found, func(a, b *audience[S]) int { return cmp.Compare(b.len(), a.len()) })
	total, identified := 0, 0
	for _, a := range found {
		total += a.len()
		identified += a.identified()
	}
	base, last := found[0], len(found)-1
	m := merged[S]{targets: make([]Target[S], 0, total), ids: make([]uint32, 0, identified)}
	place := make([]int32, len(base.entries)) // of base's entries in targets
	for i := range base.entries {
		if e := &base.entries[i]; !e.gone {
			place[i] = int32(m.begin(&e.Member))
		}
	}
	var others map[S]int // places of owners that base has not, while audiences follow
	if last > 1 {
		others = map[S]int{}
	}
	for n, a := range found[1:] {
		for i := range a.entries {
			e := &a.entries[i]
			if e.gone {
				continue
			}
			if at := base.find(e.Owner); at >= 0 {
				m.targets[place[at]].add(e.Options)
			} else if at, ok := others[e.Owner]; ok {
				m.targets[at].add(e.Options)
			} else if at := m.begin(&e.Member); n+1 < last {
				others[e.Owner] = at
			}
		}
	}
	return m.targets
}

// merged are the targets of a merge. Both slices have room for all to come.
type merged[S comparable] struct {
	targets []Target[S]
	ids     []uint32
}

// begin appends the target of one subscription and returns its place.
func (m *merged[S]) begin(one *Member[S]) int {
	at := len(m.targets)
	m.targets = m.targets[:at+1]
	m.ids = m.targets[at].begin(one, m.ids)
	return at
}

// snapshot returns the group as it is, for all results that have it.
func (g *group[S]) snapshot() *Group[S] {
	if v := g.view.Load(); v != nil {
		return v
	}
	v := &Group[S]{name: g.name, filter: g.filter, members: g.members(), turn: &g.turn}
	if !g.view.CompareAndSwap(nil, v) {
		return g.view.Load()
	}
	return v
}
