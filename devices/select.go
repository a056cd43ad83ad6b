package devices

import (
	"cmp"
	"container/heap"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strings"

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
	candidates, plan := r.candidates(s.Query, by.plain)
	f := finder{
		r: r, by: by, after: after, limit: s.Limit, query: s.Query, now: muster.MicrosOf(r.now()), total: s.Total,
		top: topDevices{by: by}, sub: subject{r: r}, ordered: plan.Index == "order",
	}
	if s.Query != nil && s.Query.Root == nil {
		f.query = nil
	}
	f.run(candidates)
	plan.Scanned = f.scanned
	out := Selected{Devices: f.page(), Total: f.matched, Plan: plan}
	if f.more {
		out.Next = by.next(f.last)
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

// candidates returns the entries that may match, by id: by the best index there is, or
// all of them.
func (r *Registry) candidates(e *query.Expr, byID bool) ([]*entry, Plan) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var best []*entry
	index := ""
	for _, t := range query.Necessary(e) {
		found, name, ok := r.indexed(t)
		if ok && (index == "" || len(found) < len(best)) {
			best, index = found, name
		}
	}
	switch {
	case index != "":
		slices.SortFunc(best, compareEntries)
		return best, Plan{Index: index}
	case byID && (e == nil || e.Root == nil):
		return slices.Clone(r.order), Plan{Index: "order"}
	default:
		return slices.Clone(r.order), Plan{Index: "scan"}
	}
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
	r       *Registry
	by      order
	after   *sortKey
	limit   int
	query   *query.Expr
	now     muster.Micros
	total   bool
	ordered bool // candidates come in the order of the page

	sub     subject
	top     topDevices
	scanned int
	matched int
	more    bool
	last    sortKey
}

// selectChunk is how many devices are copied before writers are let in.
const selectChunk = 512

func (f *finder) run(candidates []*entry) {
	if f.ordered && f.after != nil {
		at, found := slices.BinarySearchFunc(candidates, f.after.id, func(e *entry, id muster.DeviceID) int {
			return cmp.Compare(e.ID, id)
		})
		if found {
			at++
		}
		if f.total {
			f.matched = at
		}
		candidates = candidates[at:]
	}
	if f.ordered && f.total {
		f.matched += len(candidates)
		f.total = false
	}
	subs := make([]subject, 0, selectChunk)
	for part := range slices.Chunk(candidates, selectChunk) {
		subs = f.copy(part, subs[:0])
		for i := range subs {
			f.sub = subs[i]
			f.look()
		}
		if f.by.plain && f.more && !f.total {
			return
		}
	}
}

// copy takes what is asked of entries over, of those that are still there.
func (f *finder) copy(part []*entry, into []subject) []subject {
	f.r.mu.RLock()
	defer f.r.mu.RUnlock()
	for _, e := range part {
		if f.r.byID[e.ID] == e {
			into = append(into, subject{r: f.r})
			into[len(into)-1].fill(e)
		}
	}
	return into
}

func (f *finder) look() {
	f.scanned++
	if f.query != nil && !query.Eval(f.query, &f.sub, f.now) {
		return
	}
	if f.total {
		f.matched++
	}
	key := f.by.of(&f.sub)
	if f.after != nil && f.by.compare(&key, f.after) <= 0 {
		return
	}
	if f.limit <= 0 {
		f.more = true
		return
	}
	if len(f.top.items) < f.limit {
		f.top.add(found{key, f.sub.d})
		return
	}
	f.more = true
	if f.by.compare(&key, &f.top.items[0].key) < 0 {
		f.top.items[0] = found{key, f.sub.d}
		heap.Fix(&f.top, 0)
	}
}

// page returns what was kept, in order.
func (f *finder) page() []Device {
	items := f.top.items
	slices.SortFunc(items, func(a, b found) int { return f.by.compare(&a.key, &b.key) })
	out := make([]Device, len(items))
	for i := range items {
		out[i] = items[i].device
	}
	if len(items) > 0 {
		f.last = items[len(items)-1].key
	}
	return out
}

type found struct {
	key    sortKey
	device Device
}

// topDevices is a heap with the last of the page at its top.
type topDevices struct {
	by    order
	items []found
}

func (t *topDevices) add(f found) {
	if t.by.plain { // they come in order: no heap is needed until the page is full
		t.items = append(t.items, f)
		return
	}
	heap.Push(t, f)
}

func (t *topDevices) Len() int           { return len(t.items) }
func (t *topDevices) Less(i, j int) bool { return t.by.compare(&t.items[i].key, &t.items[j].key) > 0 }
func (t *topDevices) Swap(i, j int)      { t.items[i], t.items[j] = t.items[j], t.items[i] }

// Push implements heap.Interface.
func (t *topDevices) Push(x any) {
	f, _ := x.(found)
	t.items = append(t.items, f)
}

// Pop implements heap.Interface.
func (t *topDevices) Pop() any {
	last := t.items[len(t.items)-1]
	t.items = t.items[:len(t.items)-1]
	return last
}

// maxSortText is how much of a text value counts when a list is sorted by it, in bytes.
const maxSortText = 128

// order is how a list is sorted.
type order struct {
	field string // id, name, ... or v
	key   string // of v
	down  bool
	plain bool // by id upwards, as candidates come
}

// sortKey is what a device is sorted by. None is for what it does not have.
type sortKey struct {
	none bool
	num  float64
	text string
	id   muster.DeviceID
}

func parseSort(s string) (order, error) {
	o := order{field: cmp.Or(s, "id")}
	if rest, ok := strings.CutPrefix(o.field, "-"); ok {
		o.field, o.down = rest, true
	}
	if key, ok := strings.CutPrefix(o.field, "v."); ok && key != "" {
		o.field, o.key = "v", key
	}
	switch o.field {
	case "id":
		o.plain = !o.down
	case "name", "profile", "firmware", "status", "seen", "created", "v":
	default:
		return o, muster.Errorf(muster.Invalid, "sort is none of id, name, profile, firmware, status, seen, created and v.KEY, with a - for the largest first")
	}
	return o, nil
}

// of returns what s is sorted by.
func (o *order) of(s *subject) sortKey {
	k := sortKey{id: s.d.ID}
	switch o.field {
	case "id":
	case "name":
		k.text = s.d.Name
	case "profile":
		k.text = s.d.Profile
	case "firmware":
		k.text = s.d.Firmware
	case "status":
		k.text = string(s.state())
		return k
	case "created":
		k.num = float64(s.d.Created)
		return k
	case "seen":
		k.num = float64(s.now().LastSeen)
		k.none = k.num == 0
		return k
	default:
		v, ok := s.Value(o.key)
		k.none, k.num, k.text = !ok || math.IsNaN(v.Num), v.Num, v.Text[:min(len(v.Text), maxSortText)]
		return k
	}
	k.none = k.text == "" && o.field != "id"
	return k
}

func (o *order) compare(a, b *sortKey) int {
	if a.none != b.none {
		if a.none {
			return 1
		}
		return -1
	}
	c := cmp.Or(cmp.Compare(a.num, b.num), cmp.Compare(a.text, b.text))
	if o.field == "id" {
		c = cmp.Compare(a.id, b.id)
	}
	if o.down {
		c = -c
	}
	return cmp.Or(c, cmp.Compare(a.id, b.id))
}

// mark is a cursor as it is written.
type mark struct {
	Field string  `json:"f"`
	None  bool    `json:"x,omitempty"`
	Num   float64 `json:"n,omitempty"`
	Text  []byte  `json:"t,omitempty"` // may end within a character, which a JSON string cannot
	ID    string  `json:"i"`
}

func (o *order) name() string {
	name := o.field
	if o.key != "" {
		name += "." + o.key
	}
	if o.down {
		name = "-" + name
	}
	return name
}

func (o *order) next(k sortKey) string {
	m := mark{Field: o.name(), None: k.none, Text: []byte(k.text), ID: string(k.id)}
	if !k.none {
		m.Num = k.num
	}
	b, err := json.Marshal(m)
	if err != nil {
		return "" // numbers that JSON cannot have are none
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxCursor is the longest cursor that is read, in bytes.
const maxCursor = 4 << 10

func (o *order) cursor(s string) (*sortKey, error) {
	if s == "" {
		return nil, nil
	}
	bad := muster.Errorf(muster.Invalid, "the cursor is not one of this list and sort")
	if len(s) > maxCursor {
		return nil, bad
	}
	text, err := base64.RawURLEncoding.DecodeString(s)
	var m mark
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || m.Field != o.name() {
		return nil, bad
	}
	return &sortKey{none: m.None, num: m.Num, text: string(m.Text), id: muster.DeviceID(m.ID)}, nil
}
