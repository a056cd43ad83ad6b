package live

import (
	"context"
	"sync"
)

// maxRecounts bounds the work for drift: so many queries are counted again in a
// second, the others later.
const maxRecounts = 4

// fleetFeed is the fleet channel: computed once a second, encoded once per
// change, shared by all who watch it.
type fleetFeed struct {
	mu      sync.Mutex
	subs    map[*sub]struct{}
	item    FleetItem
	body    []byte
	version uint64
}

// add returns true for the first of the watchers: what the feed has may be old.
func (f *fleetFeed) add(s *sub) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[s] = struct{}{}
	return len(f.subs) == 1 || f.body == nil
}

func (f *fleetFeed) remove(s *sub) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.subs, s)
}

func (f *fleetFeed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs) > 0
}

func (f *fleetFeed) set(it FleetItem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.body == nil || it != f.item {
		f.item, f.body = it, it.append(nil)
		f.version++
	}
}

// behind calls mark for each watcher that has not been sent the newest.
func (f *fleetFeed) behind(mark func(*sub)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		if s.fleetSent.Load() != f.version {
			mark(s)
		}
	}
}

// get returns the encoded item, which is never changed, and its version.
func (f *fleetFeed) get() ([]byte, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.body, f.version
}

func (g *Gateway) tellFleet() {
	if !g.fleet.watched() {
		return
	}
	g.fleet.set(g.deps.Fleet.Stats())
	g.fleet.behind(g.markReady)
}

// matchCounts counts how many devices match the queries of the lists shown, once
// for all lists with the same query.
type matchCounts struct {
	mu     sync.Mutex
	groups map[matched]*matchGroup
}

// matched is what is counted: the devices of a query among those of a Principal.
type matched struct{ q, only string }

func (s *sub) matched() matched { return matched{s.query.Q, s.query.Only} }

type matchGroup struct {
	subs   map[*sub]struct{}
	seen   uint64 // index.changes at the last count
	drifts bool   // the answer changes without changes to devices
	again  uint64 // the tick from which on it is counted again when it drifts
}

func (m *matchCounts) join(s *sub) {
	m.mu.Lock()
	defer m.mu.Unlock()
	group := m.groups[s.matched()]
	if group == nil {
		group = &matchGroup{subs: map[*sub]struct{}{}}
		m.groups[s.matched()] = group
	}
	group.subs[s] = struct{}{}
	group.seen = 0 // its total may be older than the last count
}

func (m *matchCounts) leave(s *sub) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if group := m.groups[s.matched()]; group != nil {
		delete(group.subs, s)
		if len(group.subs) == 0 {
			delete(m.groups, s.matched())
		}
	}
}

// driftTicks is how often the matches of a query that drifts are counted.
const driftTicks = 5 * ticksPerSecond

// stale returns at most limit queries not counted since changes, or at tick for a
// while.
func (m *matchCounts) stale(changes, tick uint64, limit int) []matched {
	m.mu.Lock()
	defer m.mu.Unlock()
	var qs []matched
	for q, group := range m.groups {
		if len(qs) < limit && (group.seen != changes || group.drifts && tick >= group.again) {
			qs = append(qs, q)
		}
	}
	return qs
}

func (m *matchCounts) counted(q matched, page *ListPage, changes, tick uint64, mark func(*sub)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	group := m.groups[q]
	if group == nil {
		return
	}
	group.seen, group.drifts, group.again = changes, page.Drifts, tick+driftTicks
	total := page.Total
	for s := range group.subs {
		if s.matches.Swap(int64(total)) != int64(total) {
			s.drifted.Store(true)
			mark(s)
		}
	}
}

func (g *Gateway) recount(ctx context.Context) {
	changes := g.index.changes.Load() + 1 // never 0, which means not counted
	tick := g.tick.Load()
	for _, q := range g.counts.stale(changes, tick, maxRecounts) {
		ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
		page, err := g.deps.Fleet.List(ctx, ListQuery{Q: q.q, Only: q.only, Sort: SortID})
		cancel()
		if err != nil {
			g.deps.Log.Warn("live: count the matches of a list", "err", err)
			continue
		}
		g.counts.counted(q, &page, changes, tick, g.markReady)
	}
}
