package devices_test

import (
	"cmp"
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

// numbers are the latest values of some devices.
type numbers map[muster.DeviceID]float64

func (n numbers) Value(id muster.DeviceID, key string) (muster.Value, bool) {
	v, ok := n[id]
	return muster.Value{Key: muster.Key{Name: key}, Num: v}, ok && key == "temp"
}

func TestSelectPagesInEveryOrderLikeASortedList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		values, seen := numbers{}, numbers{}
		r := open(t, newMemory(), devices.Options{Values: values})
		var all []devices.Device
		for i := range rapid.IntRange(0, 60).Draw(rt, "devices") {
			d, _, err := r.Create(t.Context(), devices.Spec{
				ID: muster.DeviceID(fmt.Sprintf("d%02d", i)), Name: rapid.SampledFrom([]string{"", "a", "b", "Ä"}).Draw(rt, "name"),
			})
			if err != nil {
				rt.Fatal(err)
			}
			if rapid.Bool().Draw(rt, "was seen") {
				seen[d.ID] = float64(rapid.IntRange(1, 3).Draw(rt, "seen"))
				r.Seen(d.ID, muster.Micros(seen[d.ID]))
			}
			if rapid.Bool().Draw(rt, "has a value") {
				values[d.ID] = float64(rapid.IntRange(-2, 2).Draw(rt, "value"))
			}
			all = append(all, d)
		}
		sort := rapid.SampledFrom([]string{"", "id", "-id", "name", "-name", "v.temp", "-v.temp", "created", "seen", "-seen", "status"}).Draw(rt, "sort")
		q := rapid.SampledFrom([]string{"", "d1", "v.temp>=0", "name:a or id:d2*", "not seen<1970-01-01T00:00:00.000002Z"}).Draw(rt, "query")
		e, err := r.Compile(q)
		if err != nil {
			rt.Fatal(err)
		}
		want := make([]muster.DeviceID, 0, len(all))
		slices.SortFunc(all, func(a, b devices.Device) int { return naive(sort, values, seen, a, b) })
		for _, d := range all {
			if r.Matches(d.ID, e) {
				want = append(want, d.ID)
			}
		}
		got := make([]muster.DeviceID, 0, len(all))
		limit := rapid.IntRange(1, 7).Draw(rt, "limit")
		for after := ""; ; {
			page, err := r.Select(devices.Selection{Query: e, Sort: sort, After: after, Limit: limit, Total: true})
			if err != nil {
				rt.Fatal(err)
			}
			if page.Total != len(want) {
				rt.Fatalf("the total is %d, want %d", page.Total, len(want))
			}
			for _, d := range page.Devices {
				got = append(got, d.ID)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if d := gocmp.Diff(want, got); d != "" {
			rt.Fatal(sort, q, d)
		}
	})
}

// naive compares as the documentation of Sort says.
func naive(sort string, values, seen numbers, a, b devices.Device) int {
	missing := func(x, y bool) int {
		switch {
		case x == y:
			return 0
		case x:
			return 1
		default:
			return -1
		}
	}
	c := 0
	if sort == "seen" || sort == "-seen" {
		sort, values = strings.Replace(sort, "seen", "v.temp", 1), seen
	}
	va, oka := values[a.ID]
	vb, okb := values[b.ID]
	switch sort {
	case "-id":
		c = -cmp.Compare(a.ID, b.ID)
	case "name":
		c = cmp.Or(missing(a.Name == "", b.Name == ""), cmp.Compare(a.Name, b.Name))
	case "-name":
		c = cmp.Or(missing(a.Name == "", b.Name == ""), -cmp.Compare(a.Name, b.Name))
	case "v.temp":
		c = cmp.Or(missing(!oka, !okb), cmp.Compare(va, vb))
	case "-v.temp":
		c = cmp.Or(missing(!oka, !okb), -cmp.Compare(va, vb))
	case "created":
		c = cmp.Compare(a.Created, b.Created)
	}
	return cmp.Or(c, cmp.Compare(a.ID, b.ID))
}

func TestSelectSaysHowItFoundDevices(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	if err := r.PutGroup(t.Context(), devices.Group{Name: "cold"}); err != nil {
		t.Fatal(err)
	}
	cold, err := devices.GroupsOf([]string{"cold"})
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, r, devices.Spec{ID: "gw"})
	for i := range 100 {
		s := devices.Spec{ID: muster.DeviceID(fmt.Sprintf("d%02d", i))}
		if i%10 == 0 {
			s.Groups = cold
		}
		if i%20 == 0 {
			s.Parent = "gw"
		}
		mustCreate(t, r, s)
	}
	for q, want := range map[string]devices.Plan{
		"":                        {Index: "order", Scanned: 3},
		"id:d01":                  {Index: "id", Scanned: 1},
		"group:cold":              {Index: "group", Scanned: 10},
		"group:cold parent:gw":    {Index: "parent", Scanned: 5},
		"d0 group:cold":           {Index: "group", Scanned: 10},
		"group:cold or parent:gw": {Index: "scan", Scanned: 41},
		"not group:cold":          {Index: "scan", Scanned: 4},
		"status:never":            {Index: "scan", Scanned: 3},
	} {
		page := selected(t, r, q, devices.Selection{Limit: 2})
		if page.Plan.Index != want.Index || page.Plan.Scanned > max(want.Scanned, 101) || page.Plan.Index != "scan" && page.Plan.Index != "order" && page.Plan.Scanned != want.Scanned {
			t.Errorf("%q: %+v, want %+v", q, page.Plan, want)
		}
	}
}

func TestASavedQueryIsAGroup(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	tags := func(site string) devices.Tags {
		ts, err := devices.TagsOf(map[string]string{"site": site})
		if err != nil {
			t.Fatal(err)
		}
		return ts
	}
	mustCreate(t, r, devices.Spec{ID: "a", Tags: tags("oslo")})
	mustCreate(t, r, devices.Spec{ID: "b", Tags: tags("rome")})
	put := func(name, q string) error { return r.PutGroup(t.Context(), devices.Group{Name: name, Query: q}) }
	for _, g := range []struct{ name, query string }{{"north", "tag:site=oslo"}, {"south", "not group:north"}} {
		if err := put(g.name, g.query); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, m, devices.Options{}) // groups are loaded in any order
	for name, r := range map[string]*devices.Registry{"at once": r, "after a restart": again} {
		t.Run(name, func(t *testing.T) {
			if got := listIDs(t, r, 10, "group:south"); !slices.Equal(got, []muster.DeviceID{"b"}) {
				t.Errorf("south has %v", got)
			}
			if n, err := r.Members("north"); n != 1 || err != nil {
				t.Errorf("north has %d: %v", n, err)
			}
		})
	}
	for name, tc := range map[string]struct {
		err  error
		kind muster.Kind
	}{
		"a circle":                     {put("north", "group:south"), muster.Invalid},
		"itself":                       {put("east", "group:east"), muster.Invalid},
		"a group that is not there":    {put("east", "group:west"), muster.Invalid},
		"a query that cannot be read":  {put("east", "status<"), muster.Invalid},
		"deleting one that is used":    {r.DeleteGroup(t.Context(), "north"), muster.Conflict},
		"being listed in a query":      {second(r.Update(t.Context(), "a", devices.Change{AddGroups: []string{"north"}})), muster.Invalid},
		"a query that names no group":  {second(r.Compile("group:nort")), muster.Invalid},
		"a query that names a profile": {second(r.Compile("profile:nope")), muster.Invalid},
	} {
		if tc.err == nil || muster.KindOf(tc.err) != tc.kind {
			t.Errorf("%s: %v, want %v", name, tc.err, tc.kind)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// BenchmarkSelect is the first page of 100,000 devices, half of them online, with the
// number of all that match.
func BenchmarkSelect(b *testing.B) {
	values := numbers{}
	r := open(b, newMemory(), devices.Options{Values: values})
	fill(b, r, values)
	for _, bc := range []struct{ name, q, sort string }{
		{"all by id", "", ""},
		{"all by name", "", "name"},
		{"by last seen", "status:online", "-seen"},
		{"a tag and a value, by value", "tag:site=s7 v.temp>50", "-v.temp"},
		{"a word", "9999", "name"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			e, err := r.Compile(bc.q)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Select(devices.Selection{Query: e, Sort: bc.sort, Limit: 100, Total: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fill makes 100,000 devices, half of them online.
func fill(b *testing.B, r *devices.Registry, values numbers) {
	b.Helper()
	for from := 0; from < 100_000; from += 10_000 {
		specs := make([]devices.Spec, 10_000)
		for i := range specs {
			id := muster.DeviceID(fmt.Sprintf("dev-%06d", from+i))
			tags, err := devices.TagsOf(map[string]string{"site": fmt.Sprint("s", i%50), "row": fmt.Sprint(i % 7)})
			if err != nil {
				b.Fatal(err)
			}
			specs[i] = devices.Spec{ID: id, Name: fmt.Sprintf("Device %d", (from+i)*7919%100_000), Tags: tags}
			values[id] = float64(i % 100)
		}
		if _, _, err := r.CreateMany(b.Context(), specs); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 50_000 {
		r.Connected(devices.Connection{Device: muster.DeviceID(fmt.Sprintf("dev-%06d", i*2)), Session: uint64(i + 1), At: time.Unix(int64(i), 0)})
	}
}

// texts are the latest values of some devices.
type texts map[muster.DeviceID]string

func (x texts) Value(id muster.DeviceID, key string) (muster.Value, bool) {
	v, ok := x[id]
	return muster.Value{Key: muster.Key{Name: key, Kind: muster.JSON}, Text: v}, ok
}

func TestSelectPagesByTextsWhoseSortedPartEndsWithinACharacter(t *testing.T) {
	values := texts{}
	r := open(t, newMemory(), devices.Options{Values: values})
	var want []muster.DeviceID
	for i := range 5 {
		id := muster.DeviceID(fmt.Sprintf("d%d", i))
		mustCreate(t, r, devices.Spec{ID: id})
		values[id] = strings.Repeat("a", 127) + "é"
		want = append(want, id)
	}
	for _, sort := range []string{"v.text", "-v.text"} {
		var got []muster.DeviceID
		for after, pages := "", 0; pages == 0 || after != "" && pages < 2*len(want); pages++ {
			page, err := r.Select(devices.Selection{Sort: sort, After: after, Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range page.Devices {
				got = append(got, d.ID)
			}
			after = page.Next
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Error(sort, d)
		}
	}
}
