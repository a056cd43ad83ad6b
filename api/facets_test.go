package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/ingest"
)

// newFleetRig is a rig with three pumps and a fan.
func newFleetRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "cold"}))
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "pumps", Query: "name:pump*"}))
	for i, site := range []string{"Berlin", "Berlin", "Bonn", "Rome (old)"} {
		tags, err := devices.TagsOf(map[string]string{"site": site})
		r.must(err)
		spec := devices.Spec{ID: muster.DeviceID(fmt.Sprintf("d%d", i+1)), Name: "pump", Tags: tags}
		if i == 3 {
			spec.Name = "fan"
			spec.Groups, err = devices.GroupsOf([]string{"cold"})
			r.must(err)
		}
		_, _, err = r.registry.Create(t.Context(), spec)
		r.must(err)
	}
	return r
}

func ask[T any](r *rig, at string, query ...string) T {
	r.Helper()
	v := url.Values{}
	for i := 0; i < len(query); i += 2 {
		v.Set(query[i], query[i+1])
	}
	var out T
	r.must(json.Unmarshal(r.as("GET", "/api/v1"+at+"?"+v.Encode(), nil).wantStatus(r, 200).body, &out))
	return out
}

type facetsAnswer struct {
	Total int
	Items []struct {
		Field  string
		Values []struct {
			Value, Term string
			Devices     int
		}
		More, Other int
	}
	Plan struct {
		Index   string
		Scanned int
	}
}

func TestFacetsCountWhatTheDevicesThatMatchHave(t *testing.T) {
	r := newFleetRig(t)
	got := ask[facetsAnswer](r, "/devices:facets", "fields", "group,tag:site", "q", "tag:site")
	var lines []string
	for _, f := range got.Items {
		for _, v := range f.Values {
			lines = append(lines, fmt.Sprintf("%s %s %d %s", f.Field, v.Value, v.Devices, v.Term))
		}
	}
	want := []string{
		"group pumps 3 group=pumps", "group cold 1 group=cold",
		"tag:site Berlin 2 tag:site=Berlin", "tag:site Bonn 1 tag:site=Bonn", `tag:site Rome (old) 1 tag:site="Rome (old)"`,
	}
	if d := cmp.Diff(want, lines); d != "" || got.Total != 4 || got.Plan.Scanned != 4 {
		t.Error(got.Total, got.Plan, d)
	}
	for _, v := range got.Items[1].Values { // each term finds as many
		if n := ask[struct{ Total int }](r, "/devices", "q", v.Term, "total", "true").Total; n != v.Devices {
			t.Errorf("%s finds %d, want %d", v.Term, n, v.Devices)
		}
	}
	few := ask[facetsAnswer](r, "/devices:facets", "fields", "tag:site", "match", "b", "limit", "1")
	if f := few.Items[0]; len(f.Values) != 1 || f.Values[0].Value != "Berlin" || f.More != 1 {
		t.Errorf("%+v", f)
	}
	for _, bad := range []string{"", "?fields=", "?fields=colour", "?fields=status&q=colour:red", "?fields=status&limit=0"} {
		r.as("GET", "/api/v1/devices:facets"+bad, nil).wantProblem(t, 422, "invalid")
	}
}

func TestExplainSaysWhichTermLeavesNobody(t *testing.T) {
	r := newFleetRig(t)
	got := ask[struct {
		Total int
		Parts []struct {
			Term            string
			Column, Without int
		}
	}](r, "/devices:explain", "q", `name:pump "é" tag:site=Berlin`)
	want := []string{"name=pump 1 0", "é 11 2", "tag:site=Berlin 15 0"}
	var lines []string
	for _, p := range got.Parts {
		lines = append(lines, fmt.Sprintf("%s %d %d", p.Term, p.Column, p.Without))
	}
	if d := cmp.Diff(want, lines); d != "" || got.Total != 0 {
		t.Error(got.Total, d)
	}
	p := r.as("GET", "/api/v1/devices:explain?q=stauts:online", nil).wantProblem(t, 422, "invalid")
	if !strings.Contains(p["detail"].(string), "column 1") {
		t.Error(p)
	}
}

func TestAKeyWithASelectorCountsItsDevicesOnly(t *testing.T) {
	r := newReachRig(t)
	for _, at := range []string{
		"/devices:facets?fields=status,group,profile,firmware,parent,tag,tag:site,key", "/devices:explain?q=tag:site", "/devices:explain?q=id:none",
	} {
		a := r.do("GET", "/api/v1"+at, nil, r.who["key"]).wantStatus(t, 200)
		if strings.Contains(string(a.body), hidden) || strings.Contains(string(a.body), `:5`) {
			t.Errorf("%s tells of devices outside: %s", at, a.body)
		}
		if !strings.Contains(string(a.body), `:2`) {
			t.Errorf("%s tells of no devices within: %s", at, a.body)
		}
	}
	a := r.do("GET", "/api/v1/devices:sparklines?key=t&ids=in-1,outside-1&from=2026-01-01T00:00:00Z", nil, r.who["key"]).wantStatus(t, 200)
	if strings.Contains(string(a.body), hidden) || !strings.Contains(string(a.body), `"in-1"`) {
		t.Errorf("lines of devices outside, or none within: %s", a.body)
	}
}

func TestSparklinesHaveTheLeastAndTheGreatestOfEachPoint(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	r.device("d2")
	r.store([]muster.Reading{
		numbers("d1", 0, "t", 5.0), numbers("d1", 1, "t", 9.0), numbers("d1", 2, "t", 7.0, "u", 1.0), numbers("d1", 30, "t", -1.0), numbers("d1", 59, "u", 3.0),
	})
	type line struct {
		Device   string
		Min, Max []*float64
		Since    *string
	}
	got := ask[struct {
		Key, From, To string
		Items         []line
	}](r, "/devices:sparklines", "ids", "d1,d2,d1,nobody", "key", "t", "points", "4", "from", "2026-01-01T00:00:00Z", "to", "2026-01-01T00:01:00Z")
	n := func(v float64) *float64 { return &v }
	want := []line{
		{Device: "d1", Min: []*float64{n(5), nil, n(-1), nil}, Max: []*float64{n(9), nil, n(-1), nil}},
		{Device: "d2", Min: make([]*float64, 4), Max: make([]*float64, 4)},
	}
	if d := cmp.Diff(want, got.Items); d != "" || got.Key != "t" || got.From != "2026-01-01T00:00:00.000000Z" {
		t.Error(got.Key, got.From, d)
	}
	for _, bad := range []string{
		"", "?key=t", "?ids=d1", "?ids=d%201&key=t", "?ids=d1&key=t%00", "?ids=d1&key=t&from=now&to=now-1h", "?ids=d1&key=t&from=soon", "?ids=d1&key=t&points=1",
		"?key=t&ids=d1" + strings.Join(many("x", 101), ""),
	} {
		r.as("GET", "/api/v1/devices:sparklines"+bad, nil).wantProblem(t, 422, "invalid")
	}
}

func TestASparklineSaysWhereItsReadingsWereCut(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	var readings []muster.Reading
	for i := range 700 {
		readings = append(readings, numbers("d1", i, "t", float64(i)))
	}
	r.store(readings)
	got := ask[struct {
		Items []struct {
			Min   []*float64
			Since string
		}
	}](r, "/devices:sparklines", "ids", "d1", "key", "t", "points", "7", "from", "2026-01-01T00:00:00Z", "to", "2026-01-01T00:11:40Z")
	if least := got.Items[0].Min; got.Items[0].Since != "2026-01-01T00:01:40.000000Z" || least[0] != nil || least[1] == nil || *least[1] != 100 {
		t.Errorf("%+v", got)
	}
}

// many returns n different ids.
func many(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(",%s%d", prefix, i)
	}
	return out
}

func TestATableHasTheColumnsThatWereChosen(t *testing.T) {
	r := newFleetRig(t)
	r.live.rows["d1"] = ingest.LatestRow{Device: "d1", Values: []ingest.LatestValue{
		{Value: muster.Value{Key: muster.Key{Name: "mode", Kind: muster.JSON}, Text: `"=1+1"`}, Time: 1, Arrival: 1},
		{Value: muster.Value{Key: muster.Key{Name: "t"}, Num: -1.5}, Time: 2, Arrival: 2},
		{Value: muster.Value{Key: muster.Key{Name: "t", Kind: muster.JSON}, Text: `"old"`}, Time: 1, Arrival: 1},
	}}
	a := r.as("GET", "/api/v1/devices:export?columns=id,tag:site,groups,status,seen,v.t,v.mode&q=not%20tag:site=Bonn", nil).wantStatus(t, 200)
	want := "id,tag:site,groups,status,seen,v.t,v.mode\n" +
		"d1,Berlin,,never,,-1.5,'=1+1\n" + "d2,Berlin,,never,,,\n" + "d4,Rome (old),cold,never,,,\n"
	if d := cmp.Diff(want, string(a.body)); d != "" || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/csv") {
		t.Error(a.Header, d)
	}
	sorted := r.as("GET", "/api/v1/devices:export?columns=id&sort=-id&q=not%20tag:site=Bonn", nil).wantStatus(t, 200)
	if d := cmp.Diff("id\nd4\nd2\nd1\n", string(sorted.body)); d != "" {
		t.Error("the largest first:", d)
	}
	prefers := header("Prefer", "respond-async")
	r.do("GET", "/api/v1/devices:export?columns=id", nil, bearer(r.admin), prefers).wantStatus(t, 200) // a table is answered at once
	reader := bearer(r.key("devices:read"))
	r.do("GET", "/api/v1/devices:export?columns=id", nil, reader).wantStatus(t, 200)
	r.do("GET", "/api/v1/devices:export?columns=v.t", nil, reader).wantProblem(t, 403, "forbidden")
	for _, bad := range []string{"columns=colour", "columns=id,id", "columns=spark.t", "columns=id&format=ndjson", "columns=id&sort=colour", "sort=-id", "columns=,"} {
		r.as("GET", "/api/v1/devices:export?"+bad, nil).wantProblem(t, 422, "invalid")
	}
}
