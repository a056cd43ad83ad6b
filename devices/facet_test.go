package devices_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/devices"
)

// drawLabelled makes devices with random labels.
func drawLabelled(t *testing.T, rt *rapid.T, r *devices.Registry) []devices.Device {
	for _, g := range []devices.Group{{Name: "a"}, {Name: "b"}, {Name: "saved", Query: "tag:site=x or name:pump"}} {
		if err := r.PutGroup(t.Context(), g); err != nil {
			rt.Fatal(err)
		}
	}
	var all []devices.Device
	for i := range rapid.IntRange(0, 40).Draw(rt, "devices") {
		tags := map[string]string{}
		for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"site", "row"}), 0, 2, rapid.ID).Draw(rt, "tags") {
			tags[k] = rapid.SampledFrom([]string{"x", "y z", ""}).Draw(rt, "tag")
		}
		made, err := devices.TagsOf(tags)
		if err != nil {
			rt.Fatal(err)
		}
		groups, err := devices.GroupsOf(rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b"}), 0, 2, rapid.ID).Draw(rt, "groups"))
		if err != nil {
			rt.Fatal(err)
		}
		d, _, err := r.Create(t.Context(), devices.Spec{
			ID: muster.DeviceID(fmt.Sprintf("d%02d", i)), Name: rapid.SampledFrom([]string{"", "pump", "fan"}).Draw(rt, "name"), Tags: made, Groups: groups,
		})
		if err != nil {
			rt.Fatal(err)
		}
		if rapid.Bool().Draw(rt, "online") {
			r.Connected(devices.Connection{Device: d.ID, Session: uint64(i + 1), At: time.Unix(1, 0)})
		}
		all = append(all, d)
	}
	return all
}

func TestAFacetsTermFindsAsManyDevicesAsTheFacetSays(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := open(t, newMemory(), devices.Options{
			Values:  keyed{},
			EachKey: func(id muster.DeviceID, visit func(string)) { keyed{}.each(id, visit) },
		})
		drawLabelled(t, rt, r)
		q := rapid.SampledFrom([]string{"", "pump", "group:a", "not tag:site", "status!=online"}).Draw(rt, "query")
		e, err := r.Compile(q)
		if err != nil {
			rt.Fatal(err)
		}
		fields := []string{"status", "group", "profile", "firmware", "parent", "tag", "tag:site", "key"}
		got, err := r.Facets(devices.FacetQuery{Query: e, Fields: fields, Limit: 100})
		if err != nil {
			rt.Fatal(err)
		}
		if want := len(r.MatchAll(e)); got.Total != want {
			rt.Fatalf("%d devices match, want %d", got.Total, want)
		}
		for i, f := range got.Facets {
			if f.Field != fields[i] || f.More != 0 || f.Other != 0 {
				rt.Errorf("facet %d: %+v", i, f)
			}
			for _, v := range f.Values {
				both := v.Term
				if q != "" {
					both = "(" + q + ") " + v.Term
				}
				e, err := r.Compile(both)
				if err != nil {
					rt.Fatal(err)
				}
				if n := len(r.MatchAll(e)); n != v.Devices {
					rt.Errorf("%s: %d devices have %q, %s finds %d", f.Field, v.Devices, v.Value, both, n)
				}
			}
		}
	})
}

// keyed gives devices keys by their ids.
type keyed struct{}

func (keyed) each(id muster.DeviceID, visit func(string)) {
	for _, k := range []string{"0", "odd key", "2"} {
		if strings.HasSuffix(string(id), k[:1]) || k == "odd key" && len(id)%2 == 1 {
			visit(k)
		}
	}
}

func (k keyed) Value(id muster.DeviceID, key string) (v muster.Value, ok bool) {
	k.each(id, func(have string) { ok = ok || have == key })
	return muster.Value{Key: muster.Key{Name: key}, Num: 1}, ok
}

func TestFacetsAreTheMostFrequentThatContainTheText(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	for i := range 9 {
		site := []string{"Berlin", "Bonn", "Bern", "Berlin"}[i%4]
		tags, err := devices.TagsOf(map[string]string{"site": site})
		if err != nil {
			t.Fatal(err)
		}
		mustCreate(t, r, devices.Spec{ID: muster.DeviceID(fmt.Sprintf("d%d", i)), Tags: tags})
	}
	got, err := r.Facets(devices.FacetQuery{Fields: []string{"tag:site"}, Match: "bER", Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := []devices.Facet{{Field: "tag:site", Values: []devices.FacetValue{{Value: "Berlin", Term: "tag:site=Berlin", Devices: 5}}, More: 1}}
	if d := gocmp.Diff(want, got.Facets); d != "" {
		t.Error(d)
	}
	for _, fields := range [][]string{{"colour"}, {"tag:"}, {"tag:a b"}, slices.Repeat([]string{"tag"}, devices.MaxFacets+1)} {
		if _, err := r.Facets(devices.FacetQuery{Fields: fields}); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%q: %v, want invalid", fields, err)
		}
	}
}

func TestFacetsTellABoundedNumberOfValuesApart(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	const n = 10_400
	specs := make([]devices.Spec, n)
	for i := range specs {
		tags, err := devices.TagsOf(map[string]string{"serial": fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		specs[i] = devices.Spec{ID: muster.DeviceID(fmt.Sprintf("d%05d", i)), Tags: tags}
	}
	for part := range slices.Chunk(specs, devices.MaxBatch) {
		if _, _, err := r.CreateMany(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Facets(devices.FacetQuery{Fields: []string{"tag:serial"}, Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	f := got.Facets[0]
	if got.Total != n || len(f.Values) != 50 || f.More != 9_950 || f.Other != 400 {
		t.Errorf("%d of %d values, %d more, %d other", len(f.Values), got.Total, f.More, f.Other)
	}
}

func TestExplainSaysWhatMatchesWithoutEachPart(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := open(t, newMemory(), devices.Options{})
		drawLabelled(t, rt, r)
		parts := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
			"pump", "group:a", "group:saved", "tag:site=x", "(tag:row or name:fan)", "not status:online", "group!=b",
		}), 0, 4, rapid.ID).Draw(rt, "parts")
		got, err := r.Explain(strings.Join(parts, " "), nil)
		if err != nil {
			rt.Fatal(err)
		}
		if n := matched(t, r, parts); n != got.Total || len(got.Parts) != len(parts) {
			rt.Fatalf("%d match in %d parts, want %d in %d", got.Total, len(got.Parts), n, len(parts))
		}
		at := 0
		for i, p := range got.Parts {
			rest := slices.Delete(slices.Clone(parts), i, i+1)
			if n := matched(t, r, rest); n != p.Without {
				rt.Errorf("%d match without %s, want %d", p.Without, p.Text, n)
			}
			if p.At < at || p.At >= at+len(parts[i]) {
				rt.Errorf("%s is said to begin at %d, it is at %d", p.Text, p.At, at)
			}
			at += len(parts[i]) + 1
		}
	})
}

func matched(t *testing.T, r *devices.Registry, parts []string) int {
	t.Helper()
	e, err := r.Compile(strings.Join(parts, " "))
	if err != nil {
		t.Fatal(err)
	}
	return len(r.MatchAll(e))
}

func TestExplainStaysWithinWhatSomebodyMaySee(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	for _, id := range []muster.DeviceID{"a1", "a2", "b1"} {
		mustCreate(t, r, devices.Spec{ID: id})
	}
	only, err := r.Compile("id:a*")
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Explain("has:parent", only)
	if err != nil {
		t.Fatal(err)
	}
	if got.Total != 0 || len(got.Parts) != 1 || got.Parts[0].Without != 2 {
		t.Errorf("%+v, want 2 without has:parent", got)
	}
	if _, err := r.Explain("colour:red", nil); muster.KindOf(err) != muster.Invalid {
		t.Errorf("%v, want invalid", err)
	}
}

// BenchmarkFacets counts five fields of 100,000 devices, and what an empty answer of three
// terms would be without each.
func BenchmarkFacets(b *testing.B) {
	r := open(b, newMemory(), devices.Options{})
	fill(b, r, numbers{})
	b.Run("facets", func(b *testing.B) {
		for b.Loop() {
			got, err := r.Facets(devices.FacetQuery{Fields: []string{"status", "group", "profile", "firmware", "tag:site"}, Limit: 50})
			if err != nil || got.Total != 100_000 {
				b.Fatal(got.Total, err)
			}
		}
	})
	b.Run("explain", func(b *testing.B) {
		for b.Loop() {
			if got, err := r.Explain("tag:site=s7 tag:row=9 status:online", nil); err != nil || got.Total != 0 {
				b.Fatal(got.Total, err)
			}
		}
	})
}
