package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatIsWrittenOnADeviceIsShownAndChanged(t *testing.T) {
	r := newRig(t)
	for _, g := range []string{"cold", "roof"} {
		r.as("PUT", "/api/v1/groups/"+g, object{"description": "Those " + g}).wantStatus(t, 200)
	}
	r.as("POST", "/api/v1/devices", object{
		"id": "d", "tags": object{"site": "Köln", "rack": "3"}, "groups": []any{"roof", "cold"},
		"location": object{"lat": 50.9, "lon": 6.96, "label": "Hall 2"}, "check_in_s": 60, "notes": "Behind the door.\nKey at the desk.",
	}).wantStatus(t, 201)
	labels := func() object {
		t.Helper()
		d := r.as("GET", "/api/v1/devices/d", nil).wantStatus(t, 200).decode(t)
		out := object{}
		for _, k := range []string{"tags", "groups", "location", "check_in_s", "notes"} {
			if v, ok := d[k]; ok {
				out[k] = v
			}
		}
		return out
	}
	want := object{
		"tags": object{"site": "Köln", "rack": "3"}, "groups": []any{"cold", "roof"},
		"location": object{"lat": 50.9, "lon": 6.96, "label": "Hall 2"}, "check_in_s": 60.0, "notes": "Behind the door.\nKey at the desk.",
	}
	if d := cmp.Diff(want, labels()); d != "" {
		t.Error(d)
	}
	for _, tc := range []struct {
		name string
		body object
		set  func()
	}{
		{"a tag is set, one taken away, others stay", object{"tags": object{"rack": nil, "row": "a"}}, func() { want["tags"] = object{"site": "Köln", "row": "a"} }},
		{"groups are replaced", object{"groups": []any{"cold"}}, func() { want["groups"] = []any{"cold"} }},
		{"an empty location is nowhere", object{"location": object{}}, func() { delete(want, "location") }},
		{"the check-in goes back to the learned rhythm", object{"check_in_s": 0}, func() { want["check_in_s"] = 0.0 }},
		{"notes go", object{"notes": ""}, func() { delete(want, "notes") }},
		{"nothing changes nothing", object{}, func() {}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.as("PATCH", "/api/v1/devices/d", tc.body).wantStatus(t, 200)
			tc.set()
			if d := cmp.Diff(want, labels()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestLabelsThatBreakARuleAreRefused(t *testing.T) {
	r := newRig(t)
	r.as("POST", "/api/v1/devices", object{"id": "d"}).wantStatus(t, 201)
	tags := object{}
	for i := range 33 {
		tags["k"+strings.Repeat("x", i)] = "v"
	}
	for name, body := range map[string]object{
		"a tag's key with a space":      {"tags": object{"a b": "c"}},
		"an empty key":                  {"tags": object{"": "c"}},
		"a tag's value too long":        {"tags": object{"a": strings.Repeat("x", 257)}},
		"a tag with a control":          {"tags": object{"a": "b\u0001"}},
		"33 tags":                       {"tags": tags},
		"a group that does not exist":   {"groups": []any{"nowhere"}},
		"a latitude alone":              {"location": object{"lat": 1.0}},
		"a latitude beyond the pole":    {"location": object{"lat": 91.0, "lon": 0.0}},
		"a negative check-in":           {"check_in_s": -1},
		"notes too long":                {"notes": strings.Repeat("x", 4097)},
		"a note with a control":         {"notes": "a\u0000b"},
		"a field that does not exist":   {"colour": "red"},
		"a group's name that cannot be": {"groups": []any{"a/b"}},
	} {
		t.Run(name, func(t *testing.T) {
			r.as("PATCH", "/api/v1/devices/d", body).wantStatus(t, 422)
			body["id"] = "e"
			r.as("POST", "/api/v1/devices", body).wantStatus(t, 422)
		})
	}
	r.as("GET", "/api/v1/devices/e", nil).wantStatus(t, 404)
}

func TestGroupsAreMadeListedAndDeleted(t *testing.T) {
	r := newRig(t)
	r.as("PUT", "/api/v1/groups/cold", object{"description": "Cold chain"}).wantStatus(t, 200)
	r.as("POST", "/api/v1/devices", object{"id": "d", "groups": []any{"cold"}}).wantStatus(t, 201)
	want := object{"name": "cold", "kind": "static", "description": "Cold chain", "devices": 1.0}
	if d := cmp.Diff(want, r.as("GET", "/api/v1/groups/cold", nil).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(object{"items": []any{want}, "next": nil}, r.as("GET", "/api/v1/groups", nil).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	r.as("PUT", "/api/v1/groups/..", object{}).wantStatus(t, 404)
	r.as("PUT", "/api/v1/groups/a%20b", object{}).wantStatus(t, 422)
	r.as("GET", "/api/v1/groups/warm", nil).wantStatus(t, 404)
	r.as("DELETE", "/api/v1/groups/warm", nil).wantStatus(t, 404)
	r.as("DELETE", "/api/v1/groups/cold", nil).wantStatus(t, 204)
	d := r.as("GET", "/api/v1/devices/d", nil).wantStatus(t, 200).decode(t)
	if diff := cmp.Diff([]any{}, d["groups"]); diff != "" {
		t.Error(diff)
	}
}
