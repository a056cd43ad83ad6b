package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/devices/twin"
)

const mergePatch = "application/merge-patch+json"

// patch sends a merge patch with the admin key.
func (r *rig) patch(path, body string, options ...option) answer {
	r.Helper()
	options = append([]option{header("Content-Type", mergePatch), bearer(r.admin)}, options...)
	return r.do(http.MethodPatch, "/api/v1"+path, body, options...)
}

func (r *rig) reported(id muster.DeviceID, patch string) {
	r.Helper()
	for _, err := range r.twins.ApplyReported(r.Context(), []twin.Report{{Device: id, Patch: []byte(patch)}}) {
		r.must(err)
	}
}

func TestATwinIsShownWithItsLevelsAndWhatDiffers(t *testing.T) {
	r := newRig(t)
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "g"}))
	groups, err := devices.GroupsOf([]string{"g"})
	r.must(err)
	_, _, err = r.registry.Create(t.Context(), devices.Spec{ID: "d", Groups: groups})
	r.must(err)
	bare := r.as("GET", "/api/v1/devices/d/twin", nil).wantStatus(t, 200)
	if bare.Header.Get("ETag") != `"0-0"` {
		t.Errorf("the ETag of an empty twin is %s", bare.Header.Get("ETag"))
	}
	nothing := object{"version": 0.0, "state": object{}}
	want := object{
		"device": "d", "desired": nothing, "reported": nothing, "converged": true, "diverged": []any{}, "diverged_count": 0.0,
		"levels": []any{}, "winners": object{}, "meta": object{},
	}
	if d := cmp.Diff(want, bare.decode(t)); d != "" {
		t.Error(d)
	}
	r.patch("/fleet/desired", `{"mode":"eco","every":60}`).wantStatus(t, 200)
	r.as("PUT", "/api/v1/groups/g/desired", `{"every":10}`).wantStatus(t, 200)
	r.patch("/devices/d/desired", `{"net":{"ssid":"x"}}`).wantStatus(t, 200)
	r.reported("d", `{"mode":"eco","every":10.0}`)

	a := r.as("GET", "/api/v1/devices/d/twin", nil).wantStatus(t, 200)
	if a.Header.Get("ETag") != `"3-4"` || !strings.Contains(string(a.body), `"every":10.0`) {
		t.Errorf("the ETag is %s of %s", a.Header.Get("ETag"), a.body)
	}
	got := a.decode(t)
	meta, _ := got["meta"].(object)
	if m, _ := meta["mode"].(object); m["desired_at"] == nil || m["reported_at"] == nil {
		t.Errorf("meta is %v", got["meta"])
	}
	delete(got, "meta")
	want = object{
		"device":  "d",
		"desired": object{"version": 3.0, "state": object{"mode": "eco", "every": 10.0, "net": object{"ssid": "x"}}}, "reported": object{"version": 4.0, "state": object{"mode": "eco", "every": 10.0}},
		"converged": false, "diverged": []any{"net.ssid"}, "diverged_count": 1.0,
		"levels": []any{
			object{"level": "fleet", "version": 1.0, "state": object{"mode": "eco", "every": 60.0}},
			object{"level": "group:g", "version": 2.0, "state": object{"every": 10.0}},
			object{"level": "device", "version": 3.0, "state": object{"net": object{"ssid": "x"}}},
		},
		"winners": object{"mode": "fleet", "every": "group:g", "net.ssid": "device"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r.as("GET", "/api/v1/devices/none/twin", nil).wantProblem(t, 404, "not_found")
}

func TestADesiredDocumentIsPatchedReplacedAndEmptiedAtEveryLevel(t *testing.T) {
	r := newRig(t)
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "g"}))
	r.must(r.registry.PutProfile(t.Context(), devices.Profile{Name: "p"}))
	groups, err := devices.GroupsOf([]string{"g"})
	r.must(err)
	_, _, err = r.registry.Create(t.Context(), devices.Spec{ID: "d", Groups: groups, Profile: "p"})
	r.must(err)
	for path, level := range map[string]string{
		"/fleet/desired": "fleet", "/profiles/p/desired": "profile:p", "/groups/g/desired": "group:g", "/devices/d/desired": "device",
	} {
		check := func(a answer, state object, changed any) {
			t.Helper()
			got := a.wantStatus(t, 200).decode(t)
			tag := a.Header.Get("ETag")
			want := object{"level": level, "version": got["version"], "state": state}
			if changed != nil {
				want["devices_changed"] = changed
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", path, d)
			}
			again := r.as("GET", "/api/v1"+path, nil).wantStatus(t, 200)
			if again.Header.Get("ETag") != tag || tag == `""` {
				t.Errorf("%s: the ETag is %s, then %s", path, tag, again.Header.Get("ETag"))
			}
		}
		check(r.as("GET", "/api/v1"+path, nil), object{}, nil)
		check(r.patch(path, `{"a":{"`+level+`":1},"b":2}`, header("If-Match", `"0"`)), object{"a": object{level: 1.0}, "b": 2.0}, 1.0)
		check(r.patch(path, `{"b":null}`, header("If-Match", "*")), object{"a": object{level: 1.0}}, 1.0)
		check(r.patch(path, `{"b":null}`), object{"a": object{level: 1.0}}, 0.0)
		check(r.as("PUT", "/api/v1"+path, `{"c":[null]}`), object{"c": []any{nil}}, 1.0)
		check(r.as("DELETE", "/api/v1"+path, nil), object{}, 1.0)
	}
}

func TestADesiredDocumentIsBoundToItsVersionByIfMatch(t *testing.T) {
	r := newRig(t)
	r.device("d")
	r.patch("/devices/d/desired", `{"a":1}`).wantStatus(t, 200) // 1
	r.reported("d", `{"a":1}`)                                  // 2
	r.patch("/fleet/desired", `{"a":0}`).wantStatus(t, 200)     // 3: the device is at 3, its own level at 1
	for _, stale := range []string{`"2"`, `"0"`, `"1-2"`, `"3-1"`, `W/"1"`, `"other"`, `"4", "5"`} {
		p := r.patch("/devices/d/desired", `{"a":2}`, header("If-Match", stale)).wantProblem(t, 412, "stale")
		if detail, _ := p["detail"].(string); !strings.Contains(detail, "version 1 now") {
			t.Errorf("If-Match %s: the problem does not name the version: %v", stale, p)
		}
	}
	for _, bad := range []string{`7`, `"7`, `""`, `"7";`, strings.Repeat(`"7",`, 17)} {
		r.patch("/devices/d/desired", `{"a":2}`, header("If-Match", bad)).wantProblem(t, 422, "invalid")
	}
	r.patch("/devices/d/desired", `{"a":2}`, header("If-Match", `"9", "3-2"`)).wantStatus(t, 200)                      // 4
	r.patch("/devices/d/desired", `{"a":3}`, header("If-Match", `"4"`)).wantStatus(t, 200)                             // 5
	r.patch("/fleet/desired", `{"a":9}`).wantStatus(t, 200)                                                            // 6
	r.do("PUT", "/api/v1/devices/d/desired", `{"a":4}`, bearer(r.admin), header("If-Match", `"6"`)).wantStatus(t, 200) // 7
	r.do("DELETE", "/api/v1/devices/d/desired", nil, bearer(r.admin), header("If-Match", `"6"`)).wantProblem(t, 412, "stale")
	r.do("DELETE", "/api/v1/devices/d/desired", nil, bearer(r.admin), header("If-Match", `"7"`)).wantStatus(t, 200)
}

func TestWhatADesiredDocumentMayNotBe(t *testing.T) {
	r := newRig(t)
	r.device("d")
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "saved", Query: "status:online"}))
	for _, tt := range []struct {
		name, method, path, body, contentType string
		status                                int
		code                                  string
	}{
		{"no JSON", "PATCH", "/devices/d/desired", `{"a":`, mergePatch, 400, "malformed"},
		{"an array", "PATCH", "/devices/d/desired", `[1]`, mergePatch, 422, "invalid"},
		{"a key twice", "PATCH", "/devices/d/desired", `{"a":1,"a":2}`, mergePatch, 400, "malformed"},
		{"no UTF-8", "PATCH", "/devices/d/desired", "{\"a\":\"\xff\"}", mergePatch, 400, "malformed"},
		{"null in a document", "PUT", "/devices/d/desired", `{"a":null}`, "application/json", 422, "invalid"},
		{"too deep", "PUT", "/devices/d/desired", strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17), "application/json", 422, "invalid"},
		{"too large", "PUT", "/devices/d/desired", `{"a":"` + strings.Repeat("x", 64<<10) + `"}`, "application/json", 413, "too_large"},
		{"another content type", "PATCH", "/devices/d/desired", `{"a":1}`, "application/json-patch+json", 415, "unsupported_media_type"},
		{"nothing", "PATCH", "/devices/d/desired", ``, mergePatch, 400, "malformed"},
		{"a saved query", "PATCH", "/groups/saved/desired", `{"a":1}`, mergePatch, 422, "invalid"},
		{"a group that is not there", "PATCH", "/groups/none/desired", `{"a":1}`, mergePatch, 404, "not_found"},
		{"a profile that is not there", "PUT", "/profiles/none/desired", `{"a":1}`, "application/json", 404, "not_found"},
		{"a device that is not there", "PATCH", "/devices/none/desired", `{"a":1}`, mergePatch, 404, "not_found"},
		{"a device that cannot be", "PATCH", "/devices/a%2Fb/desired", `{"a":1}`, mergePatch, 404, "not_found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := r.do(tt.method, "/api/v1"+tt.path, tt.body, header("Content-Type", tt.contentType), bearer(r.admin))
			a.wantProblem(t, tt.status, tt.code)
		})
	}
	if got := r.as("GET", "/api/v1/devices/d/desired", nil).wantStatus(t, 200).decode(t)["version"]; got != 0.0 {
		t.Errorf("what was refused made version %v", got)
	}
}
