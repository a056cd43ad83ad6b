package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
)

// imported reads the answer of an import.
func imported(t *testing.T, a answer) (made []object, report object, problem object) {
	t.Helper()
	a.wantStatus(t, 200)
	for line := range strings.Lines(string(a.body)) {
		var o map[string]object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if m := o["made"]; m != nil {
			made = append(made, m)
		}
		if r := o["report"]; r != nil {
			report = r
		}
		if e := o["error"]; e != nil {
			problem = e
		}
	}
	if (report == nil) == (problem == nil) {
		t.Fatalf("there is no report, or an error beside it: %s", a.body)
	}
	return made, report, problem
}

func TestDevicesAreImportedAndExported(t *testing.T) {
	r := newRig(t)
	csv := header("Content-Type", "text/csv; charset=utf-8")
	const text = "id,name,tags\nd1,One,site=a\nd2,Two,site=b\n"
	made, report, _ := imported(t, r.do("POST", "/api/v1/devices:import?dry_run=true", text, bearer(r.admin), csv))
	if report["created"] != 2.0 || report["dry_run"] != true || len(made) != 0 || r.registry.Count() != 0 {
		t.Errorf("the dry run says %v and made %d devices", report, r.registry.Count())
	}
	made, report, _ = imported(t, r.do("POST", "/api/v1/devices:import", text, bearer(r.admin), csv))
	if report["created"] != 2.0 || len(made) != 2 {
		t.Fatalf("%v %v", made, report)
	}
	token := made[0]["credential"].(map[string]any)["token"].(string)
	if id, _, err := r.registry.Authenticate(token, nil); err != nil || string(id) != made[0]["id"] {
		t.Errorf("the token of the answer does not let in: %v", err)
	}
	out := r.as("GET", "/api/v1/devices:export?format=csv"+"&q=tag:site%3Da", nil).wantStatus(t, 200)
	if got := string(out.body); !strings.Contains(got, "\nd1,One,default,,site=a,") || strings.Contains(got, "d2") || strings.Contains(got, token) {
		t.Errorf("the export is %s", got)
	}
	nd := r.as("GET", "/api/v1/devices:export?format=ndjson", nil).wantStatus(t, 200)
	_, report, _ = imported(t, r.do("POST", "/api/v1/devices:import?update=true", string(nd.body), bearer(r.admin), header("Content-Type", "application/x-ndjson")))
	if report["same"] != 2.0 || report["refused"] != 0.0 {
		t.Errorf("importing the export again says %v", report)
	}
	_, report, _ = imported(t, r.do("POST", "/api/v1/devices:import", "id\nd1\nd3\n", bearer(r.admin), csv))
	want := []any{map[string]any{"line": 2.0, "id": "d1", "detail": "a device with this id exists"}}
	if d := cmp.Diff(want, report["refusals"]); d != "" || report["created"] != 0.0 {
		t.Error(d, report)
	}
	_, report, problem := imported(t, r.do("POST", "/api/v1/devices:import", "id,colour\n", bearer(r.admin), csv))
	if problem["code"] != "invalid" || report != nil {
		t.Errorf("a bad header says %v, %v", problem, report)
	}
	r.do("POST", "/api/v1/devices:import", "id\n", bearer(r.admin), header("Content-Type", "application/xml")).wantProblem(t, 415, "unsupported_media_type")
	r.do("POST", "/api/v1/devices:import", "id\n", bearer(r.key("devices:read")), csv).wantProblem(t, 403, "forbidden")
	r.as("GET", "/api/v1/devices:export?q=colour:red", nil).wantProblem(t, 422, "invalid")
}

func TestManyDevicesAreChangedAndDeletedByQueryWithACountFirst(t *testing.T) {
	r := newRig(t)
	r.as("PUT", "/api/v1/groups/cold", object{}).wantStatus(t, 200)
	for i := range 12 {
		r.device(muster.DeviceID(fmt.Sprintf("d%02d", i)))
	}
	update := func(body object) answer { return r.as("POST", "/api/v1/devices:update", body) }
	q := object{"q": "id:d0*", "add_groups": []any{"cold"}, "tags": object{"site": "a"}}
	with := func(more object) object {
		out := object{}
		for _, m := range []object{q, more} {
			maps.Copy(out, m)
		}
		return out
	}
	update(q).wantProblem(t, 422, "invalid")
	if d := cmp.Diff(object{"dry_run": true, "matched": 10.0, "changed": 0.0}, update(with(object{"dry_run": true})).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	update(with(object{"expect": 9})).wantProblem(t, 409, "conflict")
	if n, _ := r.registry.Members("cold"); n != 0 {
		t.Errorf("refused actions changed %d devices", n)
	}
	if d := cmp.Diff(object{"dry_run": false, "matched": 10.0, "changed": 10.0}, update(with(object{"expect": 10})).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	if n, _ := r.registry.Members("cold"); n != 10 {
		t.Errorf("%d devices were changed", n)
	}
	for name, body := range map[string]object{
		"q and ids":                   {"q": "d", "ids": []any{"d01"}, "expect": 1},
		"neither":                     {"expect": 1},
		"a query that is no query":    {"q": "status<", "expect": 1},
		"a group that is not there":   {"ids": []any{"d01"}, "add_groups": []any{"warm"}},
		"a parent that is not there":  {"ids": []any{"d01"}, "parent": "nobody"},
		"a tag that cannot be":        {"ids": []any{"d01"}, "tags": object{"a b": "c"}},
		"a profile that is not there": {"ids": []any{"d01"}, "profile": "nope"},
	} {
		t.Run(name, func(t *testing.T) { update(body).wantStatus(t, 422) })
	}
	update(object{"ids": []any{"d01", "nobody"}}).wantProblem(t, 404, "not_found")
	update(object{"ids": []any{"d01", "d02"}, "parent": "d01"}).wantProblem(t, 409, "conflict")
	r.do("POST", "/api/v1/devices:delete", object{"ids": []any{"d01"}}, bearer(r.key("devices:read"))).wantProblem(t, 403, "forbidden")
	r.as("POST", "/api/v1/devices:delete", object{"q": "group:cold", "expect": 10, "data": "keep"}).wantStatus(t, 200)
	if r.registry.Count() != 2 {
		t.Errorf("%d devices are left, want 2", r.registry.Count())
	}
}
