package twin_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/devices"
	"muster/devices/twin"
	"muster/store/control"
)

// model is what twins must be, recomputed as a whole each time.
type model struct {
	*rig
	d        *rapid.T
	levels   map[string]any // by Level.String, the devices' by "device:ID"
	reported map[muster.DeviceID]any
	seen     map[muster.DeviceID]twin.Twin // as last looked at
	fresh    bool                          // restarted since anything was told
}

var (
	modelDevices  = []muster.DeviceID{"a", "b", "c", "d"}
	modelGroups   = []string{"g", "h"}
	modelProfiles = []string{"p", devices.DefaultProfile}
)

func TestRandomChangesGiveWhatANaiveModelGives(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		rapid.Check(t, func(d *rapid.T) {
			m := &model{rig: r, d: d, levels: map[string]any{}, reported: map[muster.DeviceID]any{}, seen: map[muster.DeviceID]twin.Twin{}}
			m.begin()
			for range rapid.IntRange(1, 25).Draw(d, "steps") {
				m.step()
				m.check()
			}
		})
	})
}

// begin empties the store but for the documents of levels that cannot be deleted.
func (m *model) begin() {
	m.store.set(0, false)
	m.settle()
	m.registry.Each(func(d devices.Device) bool {
		must(m, m.registry.Delete(m.Context(), d.ID, devices.KeepData))
		return true
	})
	for _, g := range m.registry.Groups() {
		must(m, m.registry.DeleteGroup(m.Context(), g.Name))
	}
	if _, err := m.registry.Profile("p"); err == nil {
		must(m, m.registry.DeleteProfile(m.Context(), "p"))
	}
	for _, at := range []twin.Level{twin.Fleet(), twin.Profile(devices.DefaultProfile)} {
		_, err := m.twins.DeleteDesired(m.Context(), at, nil)
		must(m, err)
	}
	m.groups(modelGroups...)
	must(m, m.registry.PutProfile(m.Context(), devices.Profile{Name: "p"}))
	m.told = map[muster.DeviceID]twin.Change{}
	m.device(modelDevices...)
}

func (m *model) step() {
	fault := rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(m.d, "fault")
	after := rapid.Bool().Draw(m.d, "after")
	m.store.set(fault, after)
	m.now = m.now.Add(time.Second)
	switch rapid.SampledFrom([]string{"level", "level", "report", "report", "move", "move", "delete", "group"}).Draw(m.d, "op") {
	case "level":
		m.changeLevel()
	case "report":
		m.applyReports()
	case "move":
		m.move()
	case "delete":
		m.deleteDevice()
	case "group":
		m.deleteGroup()
	}
	crash := rapid.IntRange(0, 5).Draw(m.d, "crash") == 0
	if crash && (fault == 0 || !after) { // else nobody knows whether the last write was kept
		m.store.set(0, false)
		m.fresh = true
		m.restart()
	}
	_ = m.twins.Settle(m.Context()) // may meet the fault
	m.store.set(0, false)
	m.settle()
	if rapid.IntRange(0, 7).Draw(m.d, "restart") == 0 {
		m.fresh = true
		m.restart()
	}
}

func (m *model) existing() []muster.DeviceID {
	var ids []muster.DeviceID
	m.registry.Each(func(d devices.Device) bool { ids = append(ids, d.ID); return true })
	return ids
}

func key(at twin.Level, id muster.DeviceID) string {
	if at == twin.Device(id) {
		return "device:" + string(id)
	}
	return at.String()
}

func (m *model) changeLevel() {
	id := rapid.SampledFrom(modelDevices).Draw(m.d, "device")
	at := rapid.SampledFrom([]twin.Level{
		twin.Fleet(), twin.Group("g"), twin.Group("h"), twin.Profile("p"), twin.Profile(devices.DefaultProfile), twin.Device(id), twin.Device(id),
	}).Draw(m.d, "level")
	patch := rapid.SampledFrom([]string{twin.Patches().Draw(m.d, "patch"), `{"a":1}`, `{"a":null}`}).Draw(m.d, "or")
	var err error
	doc := m.levels[key(at, id)]
	switch rapid.IntRange(0, 5).Draw(m.d, "how") {
	case 0:
		_, err = m.twins.DeleteDesired(m.Context(), at, nil)
		doc = map[string]any{}
	case 1:
		whole := twin.NaiveMerge(nil, twin.Decode(m, patch))
		_, err = m.twins.PutDesired(m.Context(), at, encode(m, whole), nil)
		doc = whole
	default:
		_, err = m.twins.PatchDesired(m.Context(), at, []byte(patch), nil)
		doc = twin.NaiveMerge(doc, twin.Decode(m, patch))
	}
	if err == nil {
		m.levels[key(at, id)] = doc
	}
}

func (m *model) applyReports() {
	var batch []twin.Report
	for range rapid.IntRange(1, 4).Draw(m.d, "reports") {
		id := rapid.SampledFrom(modelDevices).Draw(m.d, "device")
		patch := rapid.SampledFrom([]string{twin.Patches().Draw(m.d, "patch"), `{"a":1.0}`, `{"firmware":"1"}`, `{"firmware":null}`, `[`}).Draw(m.d, "or")
		batch = append(batch, twin.Report{Device: id, Patch: []byte(patch)})
	}
	for i, err := range m.twins.ApplyReported(m.Context(), batch) {
		if err == nil {
			id := batch[i].Device
			m.reported[id] = twin.NaiveMerge(m.reported[id], twin.Decode(m, string(batch[i].Patch)))
		}
	}
}

func (m *model) move() {
	id := rapid.SampledFrom(modelDevices).Draw(m.d, "device")
	profile := rapid.SampledFrom(modelProfiles).Draw(m.d, "profile")
	groups := groupsOf(m, rapid.SliceOfDistinct(rapid.SampledFrom(modelGroups), rapid.ID).Draw(m.d, "groups")...)
	if _, err := m.registry.Get(id); err == nil {
		_, err := m.registry.Update(m.Context(), id, devices.Change{Profile: &profile, Groups: groups})
		must(m, err)
	}
}

// deleteDevice deletes a device, or makes it again.
func (m *model) deleteDevice() {
	id := rapid.SampledFrom(modelDevices).Draw(m.d, "device")
	if err := m.registry.Delete(m.Context(), id, devices.KeepData); err != nil {
		_, _, err := m.registry.Create(m.Context(), devices.Spec{ID: id})
		must(m, err)
		return
	}
	delete(m.levels, "device:"+string(id))
	delete(m.reported, id)
	delete(m.seen, id)
	delete(m.told, id)
	if rapid.Bool().Draw(m.d, "again") {
		m.now = m.now.Add(time.Second)
		_, _, err := m.registry.Create(m.Context(), devices.Spec{ID: id})
		must(m, err)
	}
}

func (m *model) deleteGroup() {
	name := rapid.SampledFrom(modelGroups).Draw(m.d, "group")
	must(m, m.registry.DeleteGroup(m.Context(), name))
	delete(m.levels, "group:"+name)
	m.groups(name)
}

func (m *model) check() {
	for _, id := range m.existing() {
		d, err := m.registry.Get(id)
		must(m, err)
		var want any = map[string]any{}
		for _, level := range slices.Concat([]string{"fleet", "profile:" + d.Profile}, prefixed("group:", d.Groups.Names()), []string{"device:" + string(id)}) {
			if doc, ok := m.levels[level]; ok {
				want = twin.NaiveMerge(want, doc)
			}
		}
		tw := m.get(id)
		reported, ok := m.reported[id]
		if !ok {
			reported = map[string]any{}
		}
		if got := twin.Decode(m, string(tw.Desired)); !reflect.DeepEqual(got, want) {
			m.d.Fatalf("%s is told %v, want %v", id, got, want)
		}
		if got := twin.Decode(m, string(tw.Reported)); !reflect.DeepEqual(got, reported) {
			m.d.Fatalf("%s reported %v, want %v", id, got, reported)
		}
		m.checkDiverged(tw, twin.NaiveDiverged(m, want, reported))
		m.checkVersions(tw)
		m.checkFirmware(d, reported)
	}
	wantRows(m, m.rig)
	m.fresh = false
}

func (m *model) checkDiverged(tw twin.Twin, want map[string]bool) {
	if got := slices.Sorted(slices.Values(tw.Diverged)); !slices.Equal(got, slices.Sorted(maps.Keys(want))) || tw.Converged != (len(want) == 0) {
		m.d.Fatalf("%s differs in %v, want %v", tw.Device, got, want)
	}
	for path := range want {
		if _, differs := m.twins.Difference(tw.Device, path); !differs {
			m.d.Fatalf("%s does not differ at %s", tw.Device, path)
		}
	}
	for _, w := range tw.Winners {
		if _, differs := m.twins.Difference(tw.Device, w.Path); differs != want[w.Path] {
			m.d.Fatalf("%s at %s: %v", tw.Device, w.Path, !want[w.Path])
		}
	}
}

// checkVersions: they never go back, another document has a newer one, and the newest
// was told.
func (m *model) checkVersions(tw twin.Twin) {
	was, known := m.seen[tw.Device]
	m.seen[tw.Device] = tw
	if known && (tw.Version < was.Version || tw.ReportedVersion < was.ReportedVersion ||
		!bytes.Equal(tw.Desired, was.Desired) && tw.Version == was.Version ||
		!bytes.Equal(tw.Reported, was.Reported) && tw.ReportedVersion == was.ReportedVersion) {
		m.d.Fatalf("%s had %s at %d and %s at %d, has %s at %d and %s at %d", tw.Device,
			was.Desired, was.Version, was.Reported, was.ReportedVersion, tw.Desired, tw.Version, tw.Reported, tw.ReportedVersion)
	}
	changed := !known && tw.Version > 0 || known && tw.Version != was.Version
	if told := m.told[tw.Device]; changed && !m.fresh && (told.Version != tw.Version || told.Next != string(tw.Desired) || known && told.Version > 0 && told.Prev == "") {
		m.d.Fatalf("%s is at %d with %s and was told %+v", tw.Device, tw.Version, tw.Desired, told)
	}
}

func (m *model) checkFirmware(d devices.Device, reported any) {
	o, _ := reported.(map[string]any)
	if version, ok := o["firmware"].(string); ok && d.Firmware != version {
		m.d.Fatalf("%s has firmware %q, reported %q", d.ID, d.Firmware, version)
	}
}

func prefixed(prefix string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + n
	}
	return out
}

// encode writes a document that has no null outside of arrays.
func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}
