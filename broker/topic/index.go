package topic

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Index finds the subscriptions that match a topic. S is the owner of subscriptions:
// a session's pointer. It is safe for concurrent use.
//
// Filters are kept as a trie by levels. Subscribe and Unsubscribe cost their levels
// however many subscribers a filter has; a branch without subscribers is taken away at
// once. What Match found is remembered and stands until one of the filters that match
// that very name changes.
type Index[S comparable] struct {
	changes atomic.Uint64 // of the index since the start
	_       [56]byte      // publishers read changes all the time: not on the line of the locks

	mu      sync.RWMutex
	root    node[S]
	count   int
	waste   int // targets and members in snapshots that were outdated since the last cache.drop
	results cache[S]
}

// audience is who subscribes to one filter.
type audience[S comparable] struct {
	set[S]                              // the plain subscriptions
	version uint64                      // changes as it was after the last change here
	groups  map[string]*group[S]        // the shared ones by group
	flat    atomic.Pointer[[]Target[S]] // the plain ones as targets; nil until Match asks
}

// group is the live side of Group.
type group[S comparable] struct {
	set[S]
	name, filter string
	turn         atomic.Uint64
	view         atomic.Pointer[Group[S]] // nil until Match asks
}

// NewIndex returns an empty Index. About cached topics' results are remembered: half of
// them since the last time that half was full, and half from before; then the older
// half is forgotten. A result counts as more than one when it has more than 16
// targets of its own (several filters match); one with more than 8 x cached targets is
// not remembered. cached 0 remembers nothing.
func NewIndex[S comparable](cached int) *Index[S] {
	return &Index[S]{results: newCache[S](cached)}
}

// Remembered returns how many results are remembered, and how often one was found and not
// found since the start. One that was found may have been outdated.
func (x *Index[S]) Remembered() (results int, hits, misses uint64) {
	c := &x.results
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.young) + len(c.old), c.hits.Load(), c.misses.Load()
}

// Len returns how many subscriptions there are.
func (x *Index[S]) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.count
}

// Subscribe adds a subscription of owner to filter, in the shared group or, when group
// is empty, to itself. One that is there gets the new options and keeps its place in
// the group; existed says so. The filter has passed CheckFilter and comes without
// $share/{group}/ (SplitShare).
func (x *Index[S]) Subscribe(group, filter string, owner S, o Options) (existed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.reach(filter)
	existed, changed := a.of(group, filter).put(owner, o)
	if !existed {
		x.count++
	}
	if changed {
		x.changed(a, group)
	}
	return existed
}

// Unsubscribe takes the subscription of owner to filter away; existed says whether
// there was one.
func (x *Index[S]) Unsubscribe(group, filter string, owner S) (existed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var room [MaxLevels + 1]*node[S]
	path, slot := x.path(room[:1], filter)
	if slot == nil || *slot == nil {
		return false
	}
	a := *slot
	if !a.leave(group, owner) {
		return false
	}
	x.count--
	x.changed(a, group)
	if g := a.groups[group]; g != nil && g.len() == 0 {
		delete(a.groups, group)
	}
	if a.len() > 0 || len(a.groups) > 0 {
		return true
	}
	*slot = nil
	for i := len(path) - 1; i > 0 && path[i].empty(); i-- {
		path[i-1].cut(path[i])
	}
	return true
}

// reach returns the audience of filter, with its nodes made where they are missing.
func (x *Index[S]) reach(filter string) *audience[S] {
	n := &x.root
	slot := &n.here
	for level, tail, more := "", filter, true; more; {
		level, tail, more = strings.Cut(tail, "/")
		if level == "#" && !more {
			slot = &n.below
			break
		}
		n = n.grow(level)
		slot = &n.here
	}
	if *slot == nil {
		*slot = &audience[S]{}
	}
	return *slot
}

// path returns the nodes of filter from the root on, in nodes, which has one place for
// the root and room for more, and where its audience is kept; nil when there is no such
// filter.
func (x *Index[S]) path(nodes []*node[S], filter string) (path []*node[S], slot **audience[S]) {
	n := &x.root
	nodes[0] = n
	path = nodes
	for level, tail, more := "", filter, true; more; {
		level, tail, more = strings.Cut(tail, "/")
		if level == "#" && !more {
			return path, &n.below
		}
		if n = n.step(level); n == nil {
			return path, nil
		}
		path = append(path, n)
	}
	return path, &n.here
}

// changed outdates what was found of a, or of a group of it.
func (x *Index[S]) changed(a *audience[S], group string) {
	a.version = x.changes.Add(1)
	if group != "" {
		if v := a.groups[group].view.Swap(nil); v != nil {
			x.waste += len(v.members)
		}
	} else if flat := a.flat.Swap(nil); flat != nil {
		x.waste += len(*flat)
	}
	if x.waste > x.results.budget {
		x.results.drop() // its results may hold all those snapshots
		x.waste = 0
	}
}

// of returns the set that a subscription with this group belongs to.
func (a *audience[S]) of(name, filter string) *set[S] {
	if name == "" {
		return &a.set
	}
	g := a.groups[name]
	if g == nil {
		g = &group[S]{name: strings.Clone(name), filter: strings.Clone(filter)}
		if a.groups == nil {
			a.groups = map[string]*group[S]{}
		}
		a.groups[g.name] = g
	}
	return &g.set
}

func (a *audience[S]) leave(group string, owner S) (existed bool) {
	if group == "" {
		return a.drop(owner)
	}
	g := a.groups[group]
	return g != nil && g.drop(owner)
}
