package devices_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster"
	"muster/devices"
)

// drawFleet makes a registry with gateways, groups and versions at random.
func drawFleet(t *testing.T, rt *rapid.T) *devices.Registry {
	t.Helper()
	r := open(t, newMemory(), devices.Options{})
	for _, name := range []string{"a", "b", "c"} {
		if err := r.PutGroup(t.Context(), devices.Group{Name: name}); err != nil {
			rt.Fatal(err)
		}
	}
	for i := range rapid.IntRange(0, 40).Draw(rt, "devices") {
		spec := devices.Spec{ID: muster.DeviceID(fmt.Sprintf("d%02d", i))}
		if rapid.Bool().Draw(rt, "located") {
			degrees := rapid.SampledFrom([]float64{0, -0.01, 0.1 + 0.2, 59.91, 59.914, -33.87, 90, -90})
			spec.Location = devices.Location{Set: true, Lat: degrees.Draw(rt, "lat"), Lon: 2 * degrees.Draw(rt, "lon")}
		}
		spec.Groups = inGroups(rapid.SampledFrom([][]string{nil, {"a"}, {"b"}, {"c"}, {"a", "b"}, {"b", "c"}, {"a", "c"}}).Draw(rt, "groups")...)
		if i > 3 {
			spec.Parent = rapid.SampledFrom([]muster.DeviceID{"", "d00", "d01", "d02"}).Draw(rt, "parent")
		}
		if _, _, err := r.Create(t.Context(), spec); err != nil {
			rt.Fatal(err)
		}
		if v := rapid.SampledFrom([]string{"", "1.0", `2 "b"`}).Draw(rt, "version"); v != "" {
			if err := r.SetFirmware(t.Context(), []devices.FirmwareReport{{Device: spec.ID, Version: v}}); err != nil {
				rt.Fatal(err)
			}
		}
		if rapid.Bool().Draw(rt, "seen") {
			r.Seen(spec.ID, muster.Micros(rapid.Int64Range(1, 1_700_000_000_000_000).Draw(rt, "when")))
		}
	}
	return r
}

// inGroups are groups whose names are fit to be.
func inGroups(names ...string) devices.Groups {
	g, err := devices.GroupsOf(names)
	if err != nil {
		panic(err)
	}
	return g
}

func matches(t interface{ Fatal(args ...any) }, r *devices.Registry, q string) []muster.DeviceID {
	e, err := r.Compile(q)
	if err != nil {
		t.Fatal(q, err)
	}
	return r.MatchAll(e)
}

func TestAnArrangementHasEachDeviceOnceAndItsQueriesChooseWhatItShows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := drawFleet(t, rt)
		by := rapid.SampledFrom([]devices.Arranging{devices.ByGroup, devices.ByFirmware, devices.ByLastSeen, devices.ByMap}).Draw(rt, "by")
		a, err := r.Arrange(by, nil)
		if err != nil {
			rt.Fatal(err)
		}
		all := slices.Sorted(slices.Values(a.IDs))
		if d := cmp.Diff(matches(rt, r, ""), all, cmpopts.EquateEmpty()); d != "" {
			rt.Fatal(d)
		}
		next := 0
		for _, s := range a.Sections {
			if s.First != next || s.Count == 0 {
				rt.Fatalf("section %+v begins at %d", s, next)
			}
			next += s.Count
			want := slices.Sorted(slices.Values(a.IDs[s.First:next]))
			if d := cmp.Diff(want, matches(rt, r, s.Query)); d != "" {
				rt.Fatalf("%q of %+v: %s", s.Query, s, d)
			}
			first := rapid.IntRange(s.First, next-1).Draw(rt, "first")
			last := rapid.IntRange(first, next-1).Draw(rt, "last")
			if p := placeOf(a, first); p.Count > 0 { // a run of several places has no query
				wantPlace(rt, r, a, p)
				last = min(last, p.First+p.Count-1)
			}
			q := a.Query(first, last)
			if q == "" && first == s.First && last == next-1 && len(a.Sections) == 1 {
				continue // all there are
			}
			want = slices.Sorted(slices.Values(a.IDs[first : last+1]))
			if d := cmp.Diff(want, matches(rt, r, q)); d != "" {
				rt.Fatalf("%q of places %d to %d of %+v: %s", q, first, last, s, d)
			}
		}
		if next != len(a.IDs) {
			rt.Fatalf("the sections have %d of %d", next, len(a.IDs))
		}
	})
}

func placeOf(a *devices.Arrangement, at int) devices.Place {
	for _, p := range a.Places {
		if at >= p.First && at < p.First+p.Count {
			return p
		}
	}
	return devices.Place{}
}

// wantPlace wants the devices of a place to be those that its query chooses.
func wantPlace(rt *rapid.T, r *devices.Registry, a *devices.Arrangement, p devices.Place) {
	q := a.Query(p.First, p.First+p.Count-1)
	want := slices.Sorted(slices.Values(a.IDs[p.First : p.First+p.Count]))
	if d := cmp.Diff(want, matches(rt, r, q)); d != "" {
		rt.Fatalf("%q of the place %+v: %s", q, p, d)
	}
}

func TestPlacesAreFewHoweverManyThereAre(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	const side = 70 // 4,900 cells of a hundredth, 196 of five hundredths
	for i := range side * side {
		at := devices.Location{Set: true, Lat: float64(i/side) / 100, Lon: float64(i%side) / 100}
		if _, _, err := r.Create(t.Context(), devices.Spec{ID: muster.DeviceID(fmt.Sprintf("d%04d", i)), Location: at}); err != nil {
			t.Fatal(err)
		}
	}
	a, err := r.Arrange(devices.ByMap, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Cell != 5 || len(a.Places) != 14*14 || len(a.Sections) != 1 || len(a.IDs) != side*side {
		t.Errorf("cells of %d, %d places, %d sections of %d", a.Cell, len(a.Places), len(a.Sections), len(a.IDs))
	}
	p := a.Places[17]
	if got := len(matches(t, r, a.Query(p.First, p.First+p.Count-1))); got != 25 {
		t.Errorf("the place %+v has %d devices", p, got)
	}
	if q := a.Query(p.First, p.First+p.Count); q != "" {
		t.Errorf("%q of two places", q)
	}
}

func TestAnArrangementIsOfTheDevicesOfASelectorAlone(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	for i := range 5 {
		if _, _, err := r.Create(t.Context(), devices.Spec{ID: muster.DeviceID(fmt.Sprint("d", i))}); err != nil {
			t.Fatal(err)
		}
	}
	e, err := r.Compile("id>=d2 id!=d3")
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Arrange(devices.ByGroup, e)
	if err != nil || !slices.Equal(a.IDs, []muster.DeviceID{"d2", "d4"}) {
		t.Errorf("%v, %v", a, err)
	}
	_, err = r.Arrange("colour", nil)
	wantKind(t, err, muster.Invalid)
}

func TestManySmallSectionsArePutTogetherAndNoneIsLost(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	versions := devices.MaxSections + 20
	for i := range versions {
		id := muster.DeviceID(fmt.Sprintf("d%03d", i))
		if _, _, err := r.Create(t.Context(), devices.Spec{ID: id}); err != nil {
			t.Fatal(err)
		}
		if err := r.SetFirmware(t.Context(), []devices.FirmwareReport{{Device: id, Version: fmt.Sprintf("v%03d", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.Create(t.Context(), devices.Spec{ID: "none"}); err != nil {
		t.Fatal(err)
	}
	a, err := r.Arrange(devices.ByFirmware, nil)
	if err != nil {
		t.Fatal(err)
	}
	last, rest := a.Sections[devices.MaxSections-1], a.Sections[devices.MaxSections-2]
	if len(a.Sections) != devices.MaxSections || last.Name != "" || last.Count != 1 || last.Merged != 0 {
		t.Errorf("%d sections, the last is %+v", len(a.Sections), last)
	}
	if rest.Merged != versions-devices.MaxSections+2 || rest.Count != rest.Merged || rest.Query != "" || len(a.IDs) != versions+1 {
		t.Errorf("the rest is %+v", rest)
	}
}

func TestPresencesFollowsTheDevicesAndShapeTellsOfOthers(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a"}, devices.Spec{ID: "b"}, devices.Spec{ID: "c"})
	a, err := g.r.Arrange(devices.ByGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	shape := g.r.Shape()
	g.connect("b")
	if g.r.Shape() != shape {
		t.Error("presence is no change of shape")
	}
	if err := g.r.Delete(t.Context(), "c", devices.KeepData); err != nil {
		t.Fatal(err)
	}
	if g.r.Shape() == shape {
		t.Error("a deleted device is no change of shape")
	}
	states := make([]muster.Status, 3)
	g.r.Statuses(a, nil, states)
	if d := cmp.Diff([]muster.Status{"never", "online", ""}, states); d != "" {
		t.Error(d)
	}
	g.r.Statuses(a, []uint32{1}, states[:1])
	if states[0] != muster.Status(muster.PresenceOnline) {
		t.Error(states[0])
	}
}
