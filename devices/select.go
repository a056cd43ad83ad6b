package devices

import (
	"math"
	"slices"

	"muster"
	"muster/devices/query"
)

// Selection says which devices Select returns, and in which order.
type Selection struct {
	// Query is what Compile made; nil for all devices.
	Query *query.Expr
	// Sort is id, name, profile, firmware, status, seen, created or v.KEY for the
	// latest value of a telemetry key, with a - before it for the largest first; empty
	// for id. What a device does not have comes last, and equal ones by id.
	Sort string
	// After is the Next of the page before, empty for the first. It fits one Sort only.
	After string
	// Limit is the most devices of a page.
	Limit int
	// Total asks how many devices match on all pages.
	Total bool
}

// Selected is one page of devices.
type Selected struct {
	Devices []Device
	Next    string // of the next page, empty on the last
	Total   int    // when it was asked for
	Plan    Plan
}

// Plan says how devices were found.
type Plan struct {
	Index   string // id, group or parent; "order" for a page of all devices by id; "scan" when each device was looked at
	Scanned int    // how many devices were looked at
}

// Select returns a page of the devices that match now, from memory. Invalid when the
// sort or the cursor is not understood.
func (r *Registry) Select(s Selection) (Selected, error) {
	by, err := parseSort(s.Sort)
	if err != nil {
		return Selected{}, err
	}
	after, err := by.cursor(s.After)
	if err != nil {
		return Selected{}, err
	}
	f := finder{
		r: r, by: by, after: after, limit: s.Limit, query: s.Query, now: muster.MicrosOf(r.now()), total: s.Total,
		top:      topDevices{by: by},
		presence: by.field == "seen" || by.field == "status" || query.UsesOf(s.Query)&query.UsesPresence != 0,
	}
	if s.Query != nil && s.Query.Root == nil {
		f.query = nil
	}
	plan := f.prepare()
	f.run()
	plan.Scanned = f.scanned
	out := Selected{Devices: f.page(), Total: f.matched, Plan: plan}
	if f.more {
		out.Next = by.next(f.final)
	}
	return out, nil
}

// MatchAll returns the ids of all devices that match now, by id.
func (r *Registry) MatchAll(e *query.Expr) []muster.DeviceID {
	page, err := r.Select(Selection{Query: e, Limit: math.MaxInt})
	if err != nil {
		return nil // no sort and no cursor are always understood
	}
	ids := make([]muster.DeviceID, len(page.Devices))
	for i, d := range page.Devices {
		ids[i] = d.ID
	}
	return ids
}

// prepare finds the devices that may match: by the best index there is, or all of them.
func (f *finder) prepare() Plan {
	f.r.mu.RLock()
	defer f.r.mu.RUnlock()
	index := ""
	for _, t := range query.Necessary(f.query) {
		found, name, ok := f.r.indexed(t)
		if ok && (index == "" || len(found) < len(f.listed)) {
			f.listed, index = found, name
		}
	}
	if index != "" {
		slices.SortFunc(f.listed, compareEntries)
		return Plan{Index: index}
	}
	f.all, index = true, "scan"
	if f.by.plain && f.query == nil {
		index = "order"
		if f.total {
			f.matched, f.total = len(f.r.order), false
		}
	}
	if f.by.plain && f.after != nil && !f.total {
		f.last = f.after.id
	}
	return Plan{Index: index}
}

// indexed returns the entries that a term allows, with the lock held.
func (r *Registry) indexed(t *query.Term) ([]*entry, string, bool) {
	switch t.Field {
	case query.ID:
		e, ok := r.byID[muster.DeviceID(t.Value.Text)]
		if !ok {
			return nil, "id", true
		}
		return []*entry{e}, "id", true
	case query.Group:
		g, ok := r.groups[t.Value.Text]
		if !ok {
			return nil, "group", true
		}
		out := make([]*entry, 0, len(g.members))
		for e := range g.members {
			out = append(out, e)
		}
		return out, "group", true
	case query.Parent:
		e, ok := r.byID[muster.DeviceID(t.Value.Text)]
		if !ok {
			return nil, "parent", true
		}
		out := make([]*entry, 0, len(e.children))
		for _, id := range e.children {
			out = append(out, r.byID[id])
		}
		return out, "parent", true
	default:
		return nil, "", false
	}
}

// finder looks at candidates one after the other and keeps the first of a page.
type finder struct {
	r        *Registry
	by       order
	after    *sortKey
	limit    int
	query    *query.Expr
	now      muster.Micros
	total    bool
	presence bool // is asked of each

	listed []*entry        // the candidates that are left, by id
	all    bool            // there is no list, but all devices
	last   muster.DeviceID // of them, the one that was copied last

	top     topDevices
	scanned int
	matched int
	more    bool
	final   sortKey // of the page
}

// selectChunk is how many devices are copied before writers are let in.
const selectChunk = 512

func (f *finder) run() {
	buf := make([]subject, selectChunk)
	for {
		subs, left := f.copy(buf[:0])
		for i := range subs {
			f.look(&subs[i])
		}
		if !left || f.by.plain && f.more && !f.total {
			return
		}
	}
}

// copy takes what is asked of the next candidates over, of those that are still there,
// and says whether any are left.
func (f *finder) copy(into []subject) (subs []subject, left bool) {
	r := f.r
	r.mu.RLock()
	defer r.mu.RUnlock()
	part, left := f.next()
	if f.presence {
		r.presence.mu.Lock()
		defer r.presence.mu.Unlock()
	}
	for _, e := range part {
		if !f.all && r.byID[e.ID] != e {
			continue
		}
		into = into[:len(into)+1]
		s := &into[len(into)-1]
		s.fill(r, e)
		if f.presence {
			s.attend(e.track)
		}
	}
	return into, left
}

// next takes the next candidates, with the lock held.
func (f *finder) next() (part []*entry, left bool) {
	list := f.listed
	if f.all {
		list = f.r.after(f.last)
	}
	part = list[:min(selectChunk, len(list))]
	if !f.all {
		f.listed = list[len(part):]
	} else if len(part) > 0 {
		f.last = part[len(part)-1].ID
	}
	return part, len(part) < len(list)
}

func (f *finder) look(s *subject) {
	f.scanned++
	if f.query != nil && !query.Eval(f.query, s, f.now) {
		return
	}
	if f.total {
		f.matched++
	}
	key := f.by.of(s)
	if f.after != nil && f.by.compare(&key, f.after) <= 0 {
		return
	}
	if f.limit <= 0 {
		f.more = true
		return
	}
	if len(f.top.items) < f.limit {
		f.top.add(key, &s.d)
		return
	}
	f.more = true
	if f.by.compare(&key, &f.top.items[0].key) < 0 {
		f.top.replace(key, &s.d)
	}
}

// page returns what was kept, in order.
func (f *finder) page() []Device {
	items := f.top.items
	slices.SortFunc(items, func(a, b found) int { return f.by.compare(&a.key, &b.key) })
	out := make([]Device, len(items))
	for i := range items {
		out[i] = f.top.devices[items[i].at]
	}
	if len(items) > 0 {
		f.final = items[len(items)-1].key
	}
	return out
}

type found struct {
	key sortKey
	at  int // in topDevices.devices, which are too large to be moved about
}

// topDevices is a heap with the last of the page at its top.
type topDevices struct {
	by      order
	items   []found
	devices []Device
}

func (t *topDevices) add(key sortKey, d *Device) {
	t.devices = append(t.devices, *d)
	t.items = append(t.items, found{key, len(t.devices) - 1})
	if !t.by.plain { // else they come in order, and no heap is needed
		t.up(len(t.items) - 1)
	}
}

// replace puts d in the place of the last of the page.
func (t *topDevices) replace(key sortKey, d *Device) {
	t.devices[t.items[0].at] = *d
	t.items[0].key = key
	t.down(0)
}

// behind says whether item i comes later on the page than item j.
func (t *topDevices) behind(i, j int) bool {
	return t.by.compare(&t.items[i].key, &t.items[j].key) > 0
}

func (t *topDevices) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !t.behind(i, parent) {
			return
		}
		t.items[i], t.items[parent] = t.items[parent], t.items[i]
		i = parent
	}
}

func (t *topDevices) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t.items) {
			return
		}
		if child+1 < len(t.items) && t.behind(child+1, child) {
			child++
		}
		if !t.behind(child, i) {
			return
		}
		t.items[i], t.items[child] = t.items[child], t.items[i]
		i = child
	}
}
