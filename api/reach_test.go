package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/devices/join"
)

// hidden is in everything that there is of devices outside the selector.
const hidden = "outside"

// reachRig is a rig with two devices within a selector and three outside, a key that has
// every scope but admin for those within, and a browser signed in with it.
type reachRig struct {
	*rig
	who map[string]option
}

const reachSelector = "tag:site=berlin or id:new-*"

func newReachRig(t *testing.T) *reachRig {
	t.Helper()
	r := &reachRig{rig: newRig(t)}
	berlin, err := devices.TagsOf(map[string]string{"site": "berlin"})
	r.must(err)
	rome, err := devices.TagsOf(map[string]string{"site": hidden})
	r.must(err)
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "all"}))
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "saved", Query: "id:*"}))
	groups, err := devices.GroupsOf([]string{"all"})
	r.must(err)
	var rejected []muster.Rejected
	for i, id := range []muster.DeviceID{"in-1", "in-2", "outside-1", "outside-2", "outside-3"} {
		spec := devices.Spec{ID: id, Name: "device in Berlin", Tags: berlin, Groups: groups, Credential: devices.Token}
		if i >= 2 {
			spec.Name, spec.Tags, spec.Notes = hidden+" name", rome, hidden+" notes"
		}
		_, _, err := r.registry.Create(t.Context(), spec)
		r.must(err)
		for n := range 10 {
			rejected = append(rejected, muster.Rejected{
				Device: id, Arrival: muster.Micros(1e15 + i + 10*n), Topic: "devices/" + string(id) + "/telemetry", Code: "payload",
				Reason: "bad " + string(id), Payload: []byte(id),
			})
		}
		r.store([]muster.Reading{numbers(id, i, "t", float64(i))})
	}
	r.store(nil, rejected...)
	_, adopting, err := r.joining.CreateAdoptionKey(t.Context(), "any", time.Time{})
	r.must(err)
	for _, client := range []string{"new-candidate", "outside-candidate"} {
		_, _, _, _, err := r.joining.Greet(join.Hello{ClientID: client, Username: "x", Password: []byte(adopting), Peer: "10.0.0.9:1", Listener: "tcp"})
		r.must(err)
	}
	scopes := slices.DeleteFunc(accounts.Scopes(), func(s string) bool { return s == accounts.Admin })
	_, secret, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "berlin", Scopes: scopes, Selector: reachSelector})
	r.must(err)
	r.who = map[string]option{"key": bearer(secret), "session": withCookie(signIn(r.rig, secret))}
	return r
}

// outside is all that is known of the devices outside, and how many there are.
func (r *reachRig) outside() string {
	r.Helper()
	var b strings.Builder
	for _, id := range []muster.DeviceID{"outside-1", "outside-2", "outside-3"} {
		for _, path := range []string{"", "/twin", "/credentials", "/commands", "/desired", "/telemetry/latest", "/telemetry", "/rejected", "/events"} {
			b.Write(r.as("GET", "/api/v1/devices/"+string(id)+path, nil).wantStatus(r, 200).body)
		}
	}
	for _, path := range []string{"/inbox/outside-candidate", "/inbox-blocks", "/jobs", "/profiles", "/fleet/desired", "/groups/all/desired"} {
		b.Write(r.as("GET", "/api/v1"+path, nil).wantStatus(r, 200).body)
	}
	return b.String()
}

// The problem of a request that is refused says nothing of the device but what the client
// said itself, and a list of it is empty.
func (r *reachRig) without(a answer, id string) string {
	return fmt.Sprint(a.StatusCode, strings.ReplaceAll(string(a.body), id, "ID"))
}

func TestAKeyWithASelectorReachesNothingOfDevicesOutsideByAnyRoute(t *testing.T) {
	r := newReachRig(t)
	before := r.outside()
	for _, o := range operations(r.rig) {
		for kind, who := range r.who {
			t.Run(kind+" "+o.method+" "+o.path, func(t *testing.T) {
				for _, body := range []any{nil, "not even JSON", "{}", `{"method":"reboot"}`, `{"name":"changed"}`} {
					if strings.Contains(o.path, "{device}") {
						theirs := r.do(o.method, strings.Replace(o.at(), "/d1", "/outside-1", 1), body, who)
						nobodys := r.do(o.method, strings.Replace(o.at(), "/d1", "/nobody", 1), body, who)
						if d := cmp.Diff(r.without(nobodys, "nobody"), r.without(theirs, "outside-1")); d != "" {
							t.Errorf("a device outside is told from one that is not there: %s", d)
						}
						if theirs.StatusCode != http.StatusNotFound && theirs.StatusCode != http.StatusForbidden { // 403: the session's role
							t.Errorf("it gives %d", theirs.StatusCode)
						}
						continue
					}
					for _, of := range []string{"/d1", "/outside-candidate"} {
						a := r.do(o.method, strings.NewReplacer("/inbox/c", "/inbox"+of).Replace(o.at()), body, who)
						if strings.Contains(strings.ReplaceAll(string(a.body), "outside-candidate\"", ""), hidden) {
							t.Errorf("it gives %s", a.body)
						}
					}
				}
			})
		}
	}
	if d := cmp.Diff(before, r.outside()); d != "" {
		t.Errorf("something outside changed: %s", d)
	}
}

func TestAnOperationThatNobodyHasOpenedIsForbiddenToAKeyWithASelector(t *testing.T) {
	r := newReachRig(t)
	open := map[string]bool{
		"get-me": true, "sign-out": true, "list-profiles": true, "get-profile": true, "list-event-types": true, "list-devices": true,
		"list-device-facets": true, "explain-device-query": true, "list-sparklines": true, "export-devices": true, "list-groups": true, "get-group": true, "create-device": true, "import-devices": true,
		"update-devices": true, "delete-devices": true, "list-rejected": true, "list-candidates": true, "get-candidate": true,
		"adopt-candidate": true, "refuse-candidate": true, "stream": true, "send-to-stream": true, "write-telemetry": true, "list-rollout-devices": true,
	}
	for _, o := range operations(r.rig) {
		public := cmp.Equal(o.Security, []map[string][]string{{}})
		a := r.do(o.method, strings.Replace(o.at(), "/d1", "/in-1", 1), "not even JSON", r.who["key"])
		admin := !public && slices.Contains(o.Security[0]["key"], accounts.Admin)
		switch {
		case public:
		case strings.Contains(o.path, "{device}") || open[o.ID]:
			if a.StatusCode == http.StatusForbidden || a.StatusCode == http.StatusUnauthorized {
				t.Errorf("%s is closed: %s", o.ID, a.body)
			}
			delete(open, o.ID)
		default:
			p := a.wantProblem(t, 403, "forbidden")
			if detail, _ := p["detail"].(string); !admin && detail != "a key with a device selector may not do this" {
				t.Errorf("%s: %s", o.ID, detail)
			}
		}
	}
	if len(open) > 0 {
		t.Errorf("there are no operations %v", open)
	}
}

func TestWithinItsSelectorAKeyReadsAndChanges(t *testing.T) {
	r := newReachRig(t)
	key := r.who["key"]
	for _, o := range operations(r.rig) {
		if o.method == "GET" && strings.Contains(o.path, "{device}") && strings.Count(o.path, "{") == 1 {
			r.do("GET", strings.Replace(o.at(), "/d1", "/in-1", 1), nil, key).wantStatus(t, 200)
		}
	}
	r.do("PATCH", "/api/v1/devices/in-1", object{"name": "renamed"}, key).wantStatus(t, 200)
	r.do("POST", "/api/v1/devices/in-1/commands", object{"method": "reboot"}, key).wantStatus(t, 201)
	r.do("PATCH", "/api/v1/devices/in-2/desired", object{"on": true}, key).wantStatus(t, 200)
	r.do("POST", "/api/v1/devices", object{"id": "new-1", "parent": "in-1"}, key).wantStatus(t, 201)
	r.do("POST", "/api/v1/inbox/new-candidate/adopt", object{}, key).wantStatus(t, 201)
	r.do("POST", "/api/v1/devices:update", object{"ids": []string{"in-1", "in-2"}, "tags": object{"floor": "2"}}, key).wantStatus(t, 200)
	got := r.do("POST", "/api/v1/devices:update", object{"q": "id:*", "expect": 4, "tags": object{"floor": "3"}}, key).wantStatus(t, 200).decode(t)
	if got["changed"] != 4.0 {
		t.Errorf("%v", got)
	}
	r.do("DELETE", "/api/v1/devices/in-2?data=keep", nil, key).wantStatus(t, 200)
	made, report, _ := imported(t, r.do("POST", "/api/v1/devices:import", "id,tags\nnew-2,\nx-1,site=berlin\n", key, header("Content-Type", "text/csv")))
	if len(made) != 2 || report["created"] != 2.0 {
		t.Errorf("%v", report)
	}
}

func TestNothingOutsideIsCountedForAKeyWithASelector(t *testing.T) {
	r := newReachRig(t)
	for kind, who := range r.who {
		get := func(path string) object { return r.do("GET", "/api/v1"+path, nil, who).wantStatus(t, 200).decode(t) }
		for _, q := range []string{"", "id:*", "group:all", "group:saved", "id:in-1 or id:outside-1 or id:in-2", ") or (id:*", "not id:zzz"} {
			if q == ") or (id:*" {
				r.do("GET", "/api/v1/devices"+query("q", q), nil, who).wantProblem(t, 422, "invalid")
				continue
			}
			l := get("/devices" + query("q", q, "total", "true"))
			if l["total"] != 2.0 || len(l["items"].([]any)) != 2 || l["plan"].(object)["scanned"] != 2.0 || l["next"] != nil {
				t.Errorf("%s, %q: total %v, plan %v, %d items", kind, q, l["total"], l["plan"], len(l["items"].([]any)))
			}
			if l := get("/devices" + query("q", q, "limit", "1")); l["plan"].(object)["scanned"] != 1.0 || l["next"] == nil {
				t.Errorf("%s, %q: %v", kind, q, l["plan"])
			}
		}
		if l := get("/devices" + query("q", "tag:site="+hidden, "total", "true")); l["total"] != 0.0 {
			t.Errorf("%s: total %v", kind, l["total"])
		}
		for _, g := range []string{"all", "saved"} {
			if n := get("/groups/" + g)["devices"]; n != 2.0 {
				t.Errorf("%s: group %s has %v devices", kind, g, n)
			}
		}
		if n := len(get("/rejected?limit=1000")["items"].([]any)); n != 20 {
			t.Errorf("%s: %d rejected messages", kind, n)
		}
		if n := len(get("/rejected?limit=7")["items"].([]any)); n != 7 {
			t.Errorf("%s: %d rejected messages of 7", kind, n)
		}
		if n := len(get("/inbox")["items"].([]any)); n != 1 {
			t.Errorf("%s: %d candidates", kind, n)
		}
		out := string(r.do("GET", "/api/v1/devices:export?format=csv", nil, who).wantStatus(t, 200).body)
		if strings.Count(out, "\n") != 3 || strings.Contains(out, hidden) {
			t.Errorf("%s: the export is %s", kind, out)
		}
	}
}

func TestAKeyWithASelectorChangesNothingOutsideThroughACollection(t *testing.T) {
	r := newReachRig(t)
	before, key := r.outside(), r.who["key"]
	const noParent = "the device that is to be the parent does not exist"
	for _, tt := range []struct {
		name, method, path string
		body               any
		status             int
		detail             string
	}{
		{"a device that the selector does not select is not made", "POST", "/devices", object{"id": "d9"}, 403, ""},
		{"nor one under a gateway outside", "POST", "/devices", object{"id": "new-9", "parent": "outside-1"}, 422, noParent},
		{"nor one under a gateway that is not there", "POST", "/devices", object{"id": "new-9", "parent": "nobody"}, 422, noParent},
		{"no device moves to a gateway outside", "PATCH", "/devices/in-1", object{"parent": "outside-1"}, 422, noParent},
		{"nor to one that is not there", "PATCH", "/devices/in-1", object{"parent": "nobody"}, 422, noParent},
		{"nor do many", "POST", "/devices:update", object{"ids": []string{"in-1"}, "parent": "outside-1"}, 422, "device in-1: " + noParent},
		{"devices named outside are not changed", "POST", "/devices:update", object{"ids": []string{"in-1", "outside-1"}, "tags": object{"a": "b"}}, 404, "there is no device with the id at 1 of ids"},
		{"nor those that are not there", "POST", "/devices:update", object{"ids": []string{"in-1", "nobody"}, "tags": object{"a": "b"}}, 404, "there is no device with the id at 1 of ids"},
		{"a count of all is not what matches", "POST", "/devices:update", object{"q": "id:*", "expect": 5, "tags": object{"a": "b"}}, 409, "2 devices match now, 5 were expected: nothing was changed"},
		{"devices named outside are not deleted", "POST", "/devices:delete", object{"ids": []string{"outside-1"}, "data": "delete"}, 404, "there is no device with the id at 0 of ids"},
		{"nor those that a query names", "POST", "/devices:delete", object{"q": "id:outside-1", "expect": 1, "data": "delete"}, 409, "0 devices match now, 1 were expected: nothing was changed"},
		{"a candidate outside is not adopted", "POST", "/inbox/outside-candidate/adopt", object{"id": "new-7"}, 404, ""},
		{"a candidate is not adopted to be outside", "POST", "/inbox/new-candidate/adopt", object{"id": "d7"}, 403, ""},
		{"a candidate outside is not refused", "DELETE", "/inbox/outside-candidate", nil, 404, ""},
		{"no job is made", "POST", "/jobs", object{"q": "id:*", "kind": "command", "method": "reboot"}, 403, ""},
		{"no key is made", "POST", "/api-keys", object{"name": "n", "scopes": []string{"devices:read"}}, 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := r.do(tt.method, "/api/v1"+tt.path, tt.body, key)
			if detail := a.wantStatus(t, tt.status).decode(t)["detail"]; tt.detail != "" && detail != tt.detail {
				t.Errorf("the detail is %q", detail)
			}
		})
	}
	_, report, _ := imported(t, r.do("POST", "/api/v1/devices:import?update=true&partial=true",
		"id,name,tags,parent\noutside-1,stolen,site=berlin,\nd8,,,\nnew-8,,,outside-2\n", key, header("Content-Type", "text/csv")))
	text, err := json.Marshal(report)
	r.must(err)
	if report["created"] != 0.0 || report["refused"] != 3.0 || strings.Contains(string(text), hidden+" ") {
		t.Errorf("the import says %s", text)
	}
	if d := cmp.Diff(before, r.outside()); d != "" {
		t.Errorf("something outside changed: %s", d)
	}
}

func TestADeviceThatLeavesTheSelectorIsOutOfReachAtOnce(t *testing.T) {
	r := newReachRig(t)
	key := r.who["key"]
	r.do("GET", "/api/v1/devices/in-1", nil, key).wantStatus(t, 200)
	r.as("PATCH", "/api/v1/devices/in-1", object{"tags": object{"site": "rome"}}).wantStatus(t, 200)
	r.do("GET", "/api/v1/devices/in-1", nil, key).wantProblem(t, 404, "not_found")
	r.as("PATCH", "/api/v1/devices/in-1", object{"tags": object{"site": "berlin"}}).wantStatus(t, 200)
	r.do("GET", "/api/v1/devices/in-1", nil, key).wantStatus(t, 200)
}

func TestASelectorWhoseGroupIsGoneReachesNothing(t *testing.T) {
	r := newReachRig(t)
	_, secret, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "grouped", Scopes: []string{accounts.DevicesRead}, Selector: "group:saved"})
	r.must(err)
	r.do("GET", "/api/v1/devices/in-1", nil, bearer(secret)).wantStatus(t, 200)
	r.as("DELETE", "/api/v1/groups/saved", nil).wantStatus(t, 204)
	for _, path := range []string{"/devices/in-1", "/devices", "/devices:export"} {
		r.do("GET", "/api/v1"+path, nil, bearer(secret)).wantProblem(t, 403, "forbidden")
	}
}
