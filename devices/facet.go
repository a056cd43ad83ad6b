package devices

import (
	"cmp"
	"slices"
	"strings"

	"muster"
	"muster/devices/query"
)

const (
	// MaxFacets is the most fields that are counted at once.
	MaxFacets = 8
	// maxFacetValues is how many different values of a field are told apart; devices with
	// one that came later are counted in Facet.Other alone.
	maxFacetValues = 10_000
	// maxSavedFacets is how many saved queries are counted, by name: each is asked about
	// every device.
	maxSavedFacets = 16
)

// FacetQuery says what Facets counts.
type FacetQuery struct {
	// Query is what Compile made; nil for all devices.
	Query *query.Expr
	// Fields are status, group, profile, firmware, parent, tag for the keys of tags,
	// tag:KEY for the values of one, and key for the keys of telemetry; at most MaxFacets.
	Fields []string
	// Match is what values must contain, without regard to ASCII case; empty for all.
	Match string
	// Limit is the most values of a field, those that most devices have.
	Limit int
}

// Facets says which values the devices that match have.
type Facets struct {
	Facets []Facet // as FacetQuery.Fields
	Total  int     // how many devices match
	Plan   Plan
}

// Facet is one field.
type Facet struct {
	Field  string
	Values []FacetValue // most devices first, then by value
	More   int          // further values that were told apart
	Other  int          // devices' values beyond those that are told apart
}

// FacetValue is one value of a field. A device can have several: of status it is silent
// beside its state, and it may be in many groups and have many tags and keys.
type FacetValue struct {
	Value   string
	Term    string // of the query language, that finds it
	Devices int
}

// Facets counts what the devices that match now have, from memory and in one pass. Of
// groups that are saved queries the first 16 by name are counted. Invalid when a field is
// not understood.
func (r *Registry) Facets(q FacetQuery) (Facets, error) {
	if len(q.Fields) > MaxFacets {
		return Facets{}, muster.InvalidAt("fields", "at most %d fields are counted at once", MaxFacets)
	}
	counters := make([]*facetCounter, len(q.Fields))
	presence := false
	for i, name := range q.Fields {
		c, err := r.facetCounter(name, strings.ToLower(q.Match))
		if err != nil {
			return Facets{}, err
		}
		counters[i] = c
		presence = presence || name == "status"
	}
	out := Facets{Facets: make([]Facet, len(counters))}
	out.Plan, out.Total = r.visit(q.Query, presence, func(s *subject, now muster.Micros) {
		for _, c := range counters {
			c.count(s, now)
		}
	})
	for i, c := range counters {
		out.Facets[i] = c.facet(q.Limit)
	}
	return out, nil
}

// visit calls fn for each device that matches e, and says how many do.
func (r *Registry) visit(e *query.Expr, presence bool, fn func(*subject, muster.Micros)) (Plan, int) {
	f := finder{
		r: r, by: order{field: "id", plain: true}, query: e, now: muster.MicrosOf(r.now()),
		presence: presence || query.UsesOf(e)&query.UsesPresence != 0,
	}
	if e != nil && e.Root == nil {
		f.query = nil
	}
	plan, matched := f.prepare(), 0
	buf := make([]subject, selectChunk)
	for left := true; left; {
		var subs []subject
		subs, left = f.copy(buf[:0])
		for i := range subs {
			plan.Scanned++
			if f.query == nil || query.Eval(f.query, &subs[i], f.now) {
				matched++
				fn(&subs[i], f.now)
			}
		}
	}
	return plan, matched
}

// facetCounter counts the values of one field.
type facetCounter struct {
	field, tag string
	match      string
	counts     map[string]int
	other      int
	saved      []savedCount
}

// savedCount asks whether devices match a saved query, or are silent.
type savedCount struct {
	value string
	expr  *query.Expr
}

func (r *Registry) facetCounter(name, match string) (*facetCounter, error) {
	c := &facetCounter{field: name, match: match, counts: map[string]int{}}
	if key, ok := strings.CutPrefix(name, "tag:"); ok && label(key) {
		c.field, c.tag = "tag:", key
		return c, nil
	}
	switch name {
	case "profile", "firmware", "parent", "tag", "key":
	case "status":
		e, err := query.Parse("status:" + query.Silent)
		if err != nil {
			return nil, err
		}
		c.saved = []savedCount{{query.Silent, e}}
	case "group":
		c.saved = r.savedCounts()
	default:
		return nil, muster.InvalidAt("fields", "fields are status, group, profile, firmware, parent, tag, tag:KEY and key")
	}
	return c, nil
}

// savedCounts compiles the first saved queries by name. One that is deleted meanwhile, or
// names what was, is left out.
func (r *Registry) savedCounts() []savedCount {
	var out []savedCount
	for _, g := range r.Groups() {
		if g.Query == "" {
			continue
		}
		if len(out) == maxSavedFacets {
			break
		}
		if e, err := r.Compile("group:" + g.Name); err == nil {
			out = append(out, savedCount{g.Name, e})
		}
	}
	return out
}

func (c *facetCounter) count(s *subject, now muster.Micros) {
	switch c.field {
	case "status":
		c.add(string(muster.StatusOf(s.state, s.updating)))
	case "profile":
		c.add(s.d.Profile)
	case "firmware":
		c.add(s.d.Firmware)
	case "parent":
		c.add(string(s.d.Parent))
	case "group":
		for name := range s.d.Groups.All() {
			c.add(name)
		}
	case "tag":
		for key := range s.d.Tags.All() {
			c.add(key)
		}
	case "tag:":
		if v, ok := s.d.Tags.Get(c.tag); ok {
			c.add(v)
		}
	case "key":
		s.r.eachKey(s.d.ID, c.add)
	}
	for i := range c.saved {
		if query.Eval(c.saved[i].expr, s, now) {
			c.add(c.saved[i].value)
		}
	}
}

func (c *facetCounter) add(value string) {
	if n, ok := c.counts[value]; ok {
		c.counts[value] = n + 1
		return
	}
	if c.match != "" && !strings.Contains(strings.ToLower(value), c.match) {
		return
	}
	if len(c.counts) == maxFacetValues {
		c.other++
		return
	}
	c.counts[value] = 1
}

// facet returns the values that most devices have.
func (c *facetCounter) facet(limit int) Facet {
	values := make([]FacetValue, 0, len(c.counts))
	for v, n := range c.counts {
		values = append(values, FacetValue{Value: v, Devices: n})
	}
	slices.SortFunc(values, func(a, b FacetValue) int {
		return cmp.Or(cmp.Compare(b.Devices, a.Devices), strings.Compare(a.Value, b.Value))
	})
	out := Facet{Field: c.field + c.tag, Other: c.other}
	out.Values = values[:min(max(limit, 0), len(values))]
	out.More = len(values) - len(out.Values)
	for i := range out.Values {
		out.Values[i].Term = c.term(out.Values[i].Value)
	}
	return out
}

// term writes what finds a value, quoted where that is needed.
func (c *facetCounter) term(value string) string {
	t := query.Term{Value: query.Value{Kind: query.Text, Text: value}}
	switch c.field {
	case "status":
		t.Field = query.Status
	case "profile":
		t.Field = query.Profile
	case "firmware":
		t.Field = query.Firmware
	case "parent":
		t.Field = query.Parent
	case "group":
		t.Field = query.Group
	case "tag":
		t.Field, t.Path, t.Value = query.Tag, []string{value}, query.Value{Kind: query.Any}
	case "tag:":
		t.Field, t.Path = query.Tag, []string{c.tag}
	case "key":
		t.Field, t.Path, t.Value = query.Telemetry, []string{value}, query.Value{Kind: query.Any}
	}
	return t.String()
}
