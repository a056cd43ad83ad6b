package api_test

import (
	"encoding/json"
	"testing"
)

type auditPage struct {
	Items []struct {
		Seq            int64
		Actor          struct{ Kind, ID, Name, Address, Request string }
		Action, Object string
		Before, After  json.RawMessage
	}
	Next *string
}

func auditOf(r *rig, query string) auditPage {
	r.Helper()
	var p auditPage
	r.must(json.Unmarshal(r.do("GET", "/api/v1/audit"+query, nil, bearer(r.admin)).wantStatus(r, 200).body, &p))
	return p
}

func TestAChangeIsInTheAuditLogWithWhoAndWhereAndADryRunIsNot(t *testing.T) {
	r := newRig(t)
	before := len(auditOf(r, "").Items)
	r.do("POST", "/api/v1/devices", map[string]any{"id": "d1"}, bearer(r.admin), header("X-Request-Id", "req-1")).wantStatus(t, 201)
	r.do("POST", "/api/v1/devices", map[string]any{"id": "d1"}, bearer(r.admin)).wantStatus(t, 409)
	r.do("POST", "/api/v1/devices:update", map[string]any{"q": "", "dry_run": true, "tags": map[string]string{"a": "b"}}, bearer(r.admin)).wantStatus(t, 200)
	got := auditOf(r, "")
	if len(got.Items) != before+1 {
		t.Fatalf("%d records, there were %d", len(got.Items), before)
	}
	last := got.Items[0]
	if last.Actor.Kind != "key" || last.Actor.Address != "127.0.0.1" || last.Actor.Request != "req-1" {
		t.Errorf("the actor is %+v", last.Actor)
	}
	r.do("DELETE", "/api/v1/devices/d1?data=keep", nil, bearer(r.admin)).wantStatus(t, 200)
	page := auditOf(r, "?limit=1")
	if len(page.Items) != 1 || page.Next == nil || auditOf(r, "?limit=1&cursor="+*page.Next).Items[0].Seq != last.Seq {
		t.Errorf("the pages are %+v", page)
	}
	if only := auditOf(r, "?object=devices"); len(only.Items) != 2 {
		t.Errorf("of the device there are %d", len(only.Items))
	}
	r.do("GET", "/api/v1/audit?cursor=x", nil, bearer(r.admin)).wantProblem(t, 422, "invalid")
	r.do("GET", "/api/v1/audit/999", nil, bearer(r.admin)).wantProblem(t, 404, "not_found")
	r.do("GET", "/api/v1/audit/1", nil, bearer(r.admin)).wantStatus(t, 200)
}
