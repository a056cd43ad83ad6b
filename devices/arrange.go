package devices

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"muster"
	"muster/devices/query"
)

// Arranging is by what devices are put into sections.
type Arranging string

// What devices can be arranged by.
const (
	ByGroup    Arranging = "group"     // the first of its static groups
	ByFirmware Arranging = "firmware"  // the version that it reports
	ByLastSeen Arranging = "last_seen" // how long ago it was last seen
	ByMap      Arranging = "map"       // whether it has a position; those that have by where that is
)

// MaxSections is the most sections of an Arrangement: what is small beyond them is put together.
const MaxSections = 48

// Arrangement is all devices in one order: by section, in it by gateway, and by id.
type Arrangement struct {
	Sections []Section         // their Firsts and Counts follow one another
	Places   []Place           // by map: of the first section, one after the other; at most MaxPlaces
	Cell     int               // by map: how wide and high each is, in hundredths of a degree
	IDs      []muster.DeviceID // the device at each place
	Parents  []muster.DeviceID // its gateway when they were arranged, empty for none
	tracks   []*track
}

// Section is the devices of one group, one version or one age.
type Section struct {
	Name         string // of the group or version, "" for none; of an age "5m", "1h", "1d", "7d", "older" or "never"; by map "located" or ""
	Merged       int    // how many groups or versions are together in it; 0 for one alone
	First, Count int    // places
	Query        string // chooses exactly its devices; empty when no short query does
}

// Shape grows with each change of which devices there are and of what the registry says of
// them, presence apart.
func (r *Registry) Shape() uint64 { return r.shape.Load() }

// reshaped tells the watchers of devices that the registry says something else of, or that
// are new or gone.
func (r *Registry) reshaped(ids []muster.DeviceID) {
	r.shape.Add(1)
	r.watch.changed(ids)
}

// Arrange puts the devices that match only in order, all of them when it is nil. Invalid when
// by is none of those there are.
func (r *Registry) Arrange(by Arranging, only *query.Expr) (*Arrangement, error) {
	if by != ByGroup && by != ByFirmware && by != ByLastSeen && by != ByMap {
		return nil, muster.InvalidAt("by", "devices are arranged by %s, %s, %s or %s", ByGroup, ByFirmware, ByLastSeen, ByMap)
	}
	a := arranger{by: by, now: muster.MicrosOf(r.now()), sections: map[string]*gathered{}}
	if only == nil {
		r.eachPresent(a.add)
	} else {
		ids := r.MatchAll(only)
		for len(ids) > 0 {
			n := min(selectChunk, len(ids))
			r.gatherSome(&a, ids[:n])
			ids = ids[n:]
		}
	}
	return a.arrange(), nil
}

// eachPresent calls see for every device, with the registry and presence held for some of them at a time.
func (r *Registry) eachPresent(see func(*entry)) {
	last := muster.DeviceID("")
	for more := true; more; {
		r.mu.RLock()
		r.presence.mu.Lock()
		part := r.after(last)
		more = len(part) > selectChunk
		part = part[:min(selectChunk, len(part))]
		for _, e := range part {
			see(e)
			last = e.ID
		}
		r.presence.mu.Unlock()
		r.mu.RUnlock()
	}
}

func (r *Registry) gatherSome(a *arranger, ids []muster.DeviceID) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	for _, id := range ids {
		if e, ok := r.byID[id]; ok {
			a.add(e)
		}
	}
}

// Statuses fills into with the statuses of the devices at some places, or of all when at is
// nil; that of one that is gone is empty. into has room for them.
func (r *Registry) Statuses(a *Arrangement, at []uint32, into []muster.Status) {
	n := len(a.tracks)
	if at != nil {
		n = len(at)
	}
	for from := 0; from < n; from += eachChunk {
		to := min(from+eachChunk, n)
		r.presence.mu.Lock()
		for i := from; i < to; i++ {
			place := i
			if at != nil {
				place = int(at[i])
			}
			into[i] = ""
			if p := a.tracks[place]; !p.gone {
				into[i] = p.status()
			}
		}
		r.presence.mu.Unlock()
	}
}

// arranger gathers devices by section.
type arranger struct {
	by       Arranging
	now      muster.Micros
	sections map[string]*gathered
}

// gathered is a section that is being made.
type gathered struct {
	name    string
	dots    []dot
	earlier map[string]struct{} // groups whose section has devices that are in this group too
	parts   []string            // the names of what is together in it
}

type dot struct {
	id, parent muster.DeviceID
	track      *track
	lat, lon   float64 // by map
	y, x       int     // the cell of these
}

// compare orders by gateway, and by id.
func (d *dot) compare(o *dot) int {
	return cmp.Or(strings.Compare(string(d.parent), string(o.parent)), strings.Compare(string(d.id), string(o.id)))
}

// add is called with the locks of the registry and of presence held.
func (a *arranger) add(e *entry) {
	name := a.sectionOf(e)
	s := a.of(name)
	s.dots = append(s.dots, dot{id: e.ID, parent: e.Parent, track: e.track, lat: e.Location.Lat, lon: e.Location.Lon})
	if a.by != ByGroup {
		return
	}
	for other := range e.Groups.All() {
		if other == name {
			continue
		}
		o := a.of(other)
		if o.earlier == nil {
			o.earlier = map[string]struct{}{}
		}
		o.earlier[name] = struct{}{}
	}
}

func (a *arranger) of(name string) *gathered {
	s := a.sections[name]
	if s == nil {
		s = &gathered{name: name}
		a.sections[name] = s
	}
	return s
}

func (a *arranger) sectionOf(e *entry) string {
	switch a.by {
	case ByGroup:
		for name := range e.Groups.All() {
			return name
		}
		return ""
	case ByFirmware:
		return e.Firmware
	case ByMap:
		if e.Location.Set {
			return located
		}
		return ""
	default:
		return ageOf(a.now, max(e.track.seen, e.track.heard))
	}
}

// ages are the sections by when a device was last seen, the newest first, each with the age
// that it ends at.
var ages = [...]struct {
	name  string
	until muster.Micros
	query string
}{
	{"5m", 5 * minute, "seen<5m"},
	{"1h", hour, "seen>=5m seen<1h"},
	{"1d", 24 * hour, "seen>=1h seen<1d"},
	{"7d", 7 * 24 * hour, "seen>=1d seen<7d"},
	{"older", 1 << 62, "seen>=7d seen=*"},
	{"never", 0, "not seen=*"},
}

func ageOf(now, seen muster.Micros) string {
	if seen == 0 {
		return "never"
	}
	for _, a := range ages {
		if now-seen < a.until {
			return a.name
		}
	}
	return "never"
}

func (a *arranger) arrange() *Arrangement {
	all := a.ordered()
	n := 0
	for _, s := range all {
		n += len(s.dots)
	}
	out := &Arrangement{
		Sections: make([]Section, 0, len(all)),
		IDs:      make([]muster.DeviceID, 0, n), Parents: make([]muster.DeviceID, 0, n), tracks: make([]*track, 0, n),
	}
	for _, s := range all {
		if a.by == ByMap && s.name == located {
			out.put(s)
		} else {
			slices.SortFunc(s.dots, func(x, y dot) int { return x.compare(&y) })
		}
		section := Section{Name: s.name, Merged: len(s.parts), First: len(out.IDs), Count: len(s.dots), Query: a.query(s)}
		out.Sections = append(out.Sections, section)
		for _, d := range s.dots {
			out.IDs, out.Parents, out.tracks = append(out.IDs, d.id), append(out.Parents, d.parent), append(out.tracks, d.track)
		}
	}
	return out
}

// ordered returns the sections that have devices: ages from new to old, others the largest
// first, those without a name last, with the small ones together.
func (a *arranger) ordered() []*gathered {
	var all []*gathered
	if a.by == ByLastSeen {
		for _, age := range ages {
			if s := a.sections[age.name]; s != nil {
				all = append(all, s)
			}
		}
		return all
	}
	for _, s := range a.sections {
		if len(s.dots) > 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(x, y *gathered) int {
		return cmp.Or(cmp.Compare(boolInt(x.name == ""), boolInt(y.name == "")), cmp.Compare(len(y.dots), len(x.dots)), strings.Compare(x.name, y.name))
	})
	if len(all) <= MaxSections {
		return all
	}
	return merged(all)
}

// merged puts all beyond what there is room for together, but those without a name.
func merged(all []*gathered) []*gathered {
	var nameless []*gathered
	if last := len(all) - 1; all[last].name == "" {
		nameless, all = all[last:], all[:last]
	}
	room := MaxSections - 1 - len(nameless)
	rest := &gathered{}
	for _, s := range all[room:] {
		rest.parts = append(rest.parts, s.name)
		rest.dots = append(rest.dots, s.dots...)
	}
	return append(append(all[:room:room], rest), nameless...)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// maxExcluded is how many groups a section's query leaves out at most.
const maxExcluded = 16

// query returns what chooses exactly the devices of a section.
func (a *arranger) query(s *gathered) string {
	switch {
	case len(s.parts) > 0:
		return ""
	case a.by == ByFirmware:
		return "fw=" + Quoted(s.name)
	case a.by == ByMap && s.name == located:
		return "has:location"
	case a.by == ByMap:
		return "not has:location"
	case a.by == ByLastSeen:
		for _, age := range ages {
			if age.name == s.name {
				return age.query
			}
		}
		return ""
	}
	excluded := s.earlier
	words := []string{"group:" + Quoted(s.name)}
	if s.name == "" { // in no group: not in any of those that have devices
		words, excluded = nil, map[string]struct{}{}
		for name := range a.sections {
			if name != "" {
				excluded[name] = struct{}{}
			}
		}
	}
	if len(excluded) > maxExcluded {
		return ""
	}
	for _, name := range sortedNames(excluded) {
		words = append(words, "group!="+Quoted(name))
	}
	return strings.Join(words, " ")
}

func sortedNames(set map[string]struct{}) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Quoted returns s as a query has it in quotes.
func Quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// maxBlocks is how many gateways the query of a run of places names at most.
const maxBlocks = 12

// SectionAt returns the index of the section with the place at, which is less than the number of devices.
func (a *Arrangement) SectionAt(at int) int {
	i, found := slices.BinarySearchFunc(a.Sections, at, func(s Section, at int) int { return cmp.Compare(s.First, at) })
	if found {
		return i
	}
	return i - 1
}

// Query returns the query that chooses exactly the devices at the places from first to last,
// of one section; empty when no short one does, or they are in several sections.
func (a *Arrangement) Query(first, last int) string {
	s := a.Sections[a.SectionAt(first)]
	if s.Query == "" && len(a.Sections) > 1 || last >= s.First+s.Count {
		return ""
	}
	if first == s.First && last == s.First+s.Count-1 {
		return s.Query
	}
	if p, placed := a.placeAt(first); placed { // only within one place the order is by gateway
		if s = p; last >= s.First+s.Count {
			return ""
		}
		if first == s.First && last == s.First+s.Count-1 {
			return s.Query
		}
	}
	blocks := make([]string, 0, maxBlocks)
	for at := first; at <= last; {
		if len(blocks) == maxBlocks {
			return ""
		}
		end := at
		for end < last && a.Parents[end+1] == a.Parents[at] {
			end++
		}
		blocks = append(blocks, a.block(&s, at, end))
		at = end + 1
	}
	run := strings.Join(blocks, " or ")
	if len(blocks) > 1 {
		run = "(" + run + ")"
	}
	return strings.TrimSpace(s.Query + " " + run)
}

// block chooses the devices of one gateway at the places from first to last.
func (a *Arrangement) block(s *Section, first, last int) string {
	parent := a.Parents[first]
	words := []string{fmt.Sprintf("parent=%s", Quoted(string(parent)))}
	if first > s.First && a.Parents[first-1] == parent {
		words = append(words, fmt.Sprintf("id>=%s", Quoted(string(a.IDs[first]))))
	}
	if end := s.First + s.Count - 1; last < end && a.Parents[last+1] == parent {
		words = append(words, fmt.Sprintf("id<=%s", Quoted(string(a.IDs[last]))))
	}
	return strings.Join(words, " ")
}
