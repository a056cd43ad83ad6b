package twin

import (
	"iter"
	"slices"
	"strconv"

	"muster"
	"muster/devices/query"
)

// KeyTimes says when the value of a top-level member changed last; 0 where there is no
// such member.
type KeyTimes struct{ DesiredAt, ReportedAt muster.Micros }

// Winner says which level a leaf of the effective document comes from.
type Winner struct {
	Path  string
	Level Level
}

// Twin is all that is known of one device's twin. Documents are canonical JSON.
type Twin struct {
	Device          muster.DeviceID
	Desired         []byte // the effective document
	Version         int64  // its version, 0 while no level ever had a document for it
	Reported        []byte
	ReportedVersion int64     // 0 while it never reported
	Levels          []Desired // that have a document for it, the lowest first
	Winners         []Winner  // by path
	Times           map[string]KeyTimes
	Converged       bool
	Diverged        []string // paths, at most MaxDiverged of DivergedCount
	DivergedCount   int
}

// Get returns the twin of a device, an empty one when nothing was written yet. NotFound
// when there is no such device.
func (t *Twins) Get(id muster.DeviceID) (Twin, error) {
	d, err := t.registry.Get(id)
	if err != nil {
		return Twin{}, err
	}
	tw := t.twin(id)
	if tw == nil || tw.created != d.Created {
		tw = &twin{effective: empty, base: &base{}}
	}
	out := Twin{
		Device: id, Desired: []byte(tw.effective), Version: tw.version,
		Reported: []byte(tw.reported.body()), ReportedVersion: tw.reported.vers(),
		Times: make(map[string]KeyTimes), Converged: tw.differs == 0, DivergedCount: tw.differs,
	}
	all := tw.base.levels
	if tw.own != nil {
		all = append(slices.Clip(all), levelDocument{Device(id), tw.own})
	}
	effective, err := out.addLevels(all)
	if err != nil {
		return Twin{}, err
	}
	reported, err := parseOrEmpty(tw.reported.body())
	if err != nil {
		return Twin{}, err
	}
	out.Diverged, _ = diverged(&effective, &reported)
	tw.reported.keyTimes(func(key string, at muster.Micros) {
		k := out.Times[key]
		k.ReportedAt = at
		out.Times[key] = k
	})
	return out, nil
}

// addLevels fills in what is known of the levels and returns their merge.
func (t *Twin) addLevels(all []levelDocument) (node, error) {
	var root node
	times := make([]map[string]muster.Micros, len(all))
	for i, l := range all {
		n, err := parse(l.text, i)
		if err != nil {
			return root, err
		}
		root = merge(root, n)
		t.Levels = append(t.Levels, Desired{Level: l.Level, State: []byte(l.text), Version: l.version})
		times[i] = make(map[string]muster.Micros)
		l.keyTimes(func(key string, at muster.Micros) { times[i][key] = at })
	}
	for i := range root.members {
		m := &root.members[i]
		top := node{members: []member{*m}}
		var newest muster.Micros
		leaves(&top, "", func(path string, leaf *node) {
			t.Winners = append(t.Winners, Winner{path, all[leaf.from].Level})
			newest = max(newest, times[leaf.from][m.key])
		})
		t.Times[m.key] = KeyTimes{DesiredAt: newest}
	}
	return root, nil
}

// Leaf returns the JSON text of what lies at path, key by key, in one side of a twin:
// query.Reported, or query.Desired for the effective document. An object counts too;
// empty when nothing lies there. It does not allocate, but for keys that JSON escapes.
func (t *Twins) Leaf(id muster.DeviceID, side query.Field, path []string) string {
	tw := t.twin(id)
	if tw == nil || len(path) == 0 {
		return ""
	}
	doc := tw.effective
	if side == query.Reported {
		doc = tw.reported.body()
	}
	value, _ := lookupKeys(doc, path)
	return value
}

// HasTwin says whether something is reported or desired.
func (t *Twins) HasTwin(id muster.DeviceID) bool {
	tw := t.twin(id)
	return tw != nil && (tw.effective != empty || tw.reported.body() != empty)
}

// Difference says whether a device reports every leaf of its effective document, which
// it does when there is none, and when path is not empty whether that is one of the
// paths that Twin.Diverged lists. It allocates only when a twin differs in more than
// MaxDiverged and for paths in quotes.
func (t *Twins) Difference(id muster.DeviceID, path string) (converged, differs bool) {
	tw := t.twin(id)
	if tw == nil || tw.differs == 0 {
		return true, false
	}
	if path == "" {
		return false, false
	}
	want, ok := lookup(tw.effective, path)
	if !ok || want[0] == '{' && want != empty {
		return false, false
	}
	got, ok := lookup(tw.reported.body(), path)
	switch {
	case ok && want == empty && got[0] == '{', ok && got[0] != '{' && equal(want, got):
		return false, false
	case tw.differs <= MaxDiverged:
		return false, true
	}
	return false, tw.keeps(path)
}

// keeps says whether path is among the first MaxDiverged that differ.
func (t *twin) keeps(path string) bool {
	desired, err := parseOrEmpty(t.effective)
	if err != nil {
		return false
	}
	reported, err := parseOrEmpty(t.reported.body())
	if err != nil {
		return false
	}
	paths, _ := diverged(&desired, &reported)
	return slices.Contains(paths, path)
}

// DesiredPayload returns what a device is told at devices/{id}/desired, false while no
// level ever had a document for it: {"version":n,"state":{...}}.
func (t *Twins) DesiredPayload(id muster.DeviceID) ([]byte, bool) {
	tw := t.twin(id)
	if tw == nil || tw.version == 0 {
		return nil, false
	}
	return Payload(tw.version, tw.effective), true
}

// Payload writes what devices are told of a desired document.
func Payload(version int64, state string) []byte {
	b := make([]byte, 0, len(state)+len(`{"version":,"state":}`)+20)
	b = append(b, `{"version":`...)
	b = strconv.AppendInt(b, version, 10)
	b = append(b, `,"state":`...)
	b = append(b, state...)
	return append(b, '}')
}

// Told yields the devices for which DesiredPayload has something, in no order and
// without a lock held.
func (t *Twins) Told() iter.Seq[muster.DeviceID] {
	return func(yield func(muster.DeviceID) bool) {
		t.mu.RLock()
		ids := make([]muster.DeviceID, 0, len(t.byID))
		for id, tw := range t.byID {
			if tw.version > 0 {
				ids = append(ids, id)
			}
		}
		t.mu.RUnlock()
		for _, id := range ids {
			if !yield(id) {
				return
			}
		}
	}
}

// Attributes returns the top-level members of what a device reports and of its
// effective document that are named, as two JSON objects: all for nil, none for an empty
// list. NotFound when there is no such device.
func (t *Twins) Attributes(id muster.DeviceID, reportedKeys, desiredKeys []string) (reported, desired []byte, err error) {
	if _, err := t.registry.Get(id); err != nil {
		return nil, nil, err
	}
	tw := t.twin(id)
	if tw == nil {
		return []byte(empty), []byte(empty), nil
	}
	return picked(tw.reported.body(), reportedKeys), picked(tw.effective, desiredKeys), nil
}

// picked returns the object with the members named only, in its order.
func picked(object string, keys []string) []byte {
	if keys == nil {
		return []byte(object)
	}
	wanted := make(map[string]struct{}, len(keys))
	for _, k := range keys {
		wanted[k] = struct{}{}
	}
	out := []byte{'{'}
	for key, value := range objectMembers(object) {
		if _, ok := wanted[unquote(`"`+key+`"`)]; !ok {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), key...), `":`...)
		out = append(out, value...)
	}
	return append(out, '}')
}

// Stats is what the System page shows.
type Stats struct {
	Twins    int   `json:"twins"`
	Diverged int   `json:"diverged"` // twins that have not converged
	Levels   int   `json:"levels"`   // with a desired document, above the devices
	Behind   int   `json:"behind"`   // devices that Run has still to look at or to write
	Version  int64 `json:"version"`  // the newest effective version
}

// Stats counts. It looks at every twin.
func (t *Twins) Stats() Stats {
	var s Stats
	t.mu.RLock()
	s.Twins = len(t.byID)
	s.Levels = len(t.levels.profiles) + len(t.levels.groups)
	if t.levels.fleet != nil {
		s.Levels++
	}
	for _, tw := range t.byID {
		if tw.differs > 0 {
			s.Diverged++
		}
		s.Version = max(s.Version, tw.version)
	}
	t.mu.RUnlock()
	t.todo.mu.Lock()
	s.Behind = len(t.todo.moved) + len(t.todo.late) + len(t.todo.firmware)
	t.todo.mu.Unlock()
	return s
}
