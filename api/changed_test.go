package api_test

import (
	"testing"

	"muster/accounts"
)

// A refusal because somebody changed it meanwhile says who to people, and to no key.
func TestWhoComesTooLateIsToldWhoWasFirst(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		w := &writer{rig: newRig(t)}
		w.mailing()
		w.do("GET", "/setup/"+w.setup, nil).wantStatus(t, 303)
		ann, bob := w.enters("ann", accounts.Operator), w.enters("bob", accounts.Operator)
		w.do("PUT", "/api/v1/groups/pumps", object{"description": "one"}, ann.as).wantStatus(t, 200)
		topic := "/api/v1/topics/" + w.do("POST", "/api/v1/topics", object{"name": "heat"}, ann.as).wantStatus(t, 201).decode(t)["id"].(string)
		for _, c := range []struct {
			method, path string
			one, two     object
			late         someone
		}{
			{"PUT", "/api/v1/groups/pumps", object{"description": "two"}, object{"description": "three"}, bob},
			{"PUT", "/api/v1/groups/pumps/desired", object{"on": true}, object{"on": false}, bob},
			{"PATCH", topic, object{"title": "Heat"}, object{"title": "Warmth"}, ann},
		} {
			seen := w.do("GET", c.path, nil, ann.as).wantStatus(t, 200).Header.Get("ETag")
			w.do(c.method, c.path, c.one, ann.as, header("If-Match", seen)).wantStatus(t, 200)
			p := w.do(c.method, c.path, c.two, c.late.as, header("If-Match", seen)).wantProblem(t, 412, "stale")
			by, _ := p["changed_by"].(object)
			if by["name"] != "ann" || by["at"] == nil {
				t.Errorf("%s: one is told %v", c.path, p)
			}
			p = w.do(c.method, c.path, c.two, bearer(w.admin), header("If-Match", seen)).wantProblem(t, 412, "stale")
			if p["changed_by"] != nil {
				t.Errorf("%s: a key is told %v", c.path, p)
			}
		}
	})
}
