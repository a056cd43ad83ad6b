package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
	if len(got.Items) != before+2 { // the device and its token
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
	if only := auditOf(r, "?object=devices"); len(only.Items) != 3 {
		t.Errorf("of the device there are %d", len(only.Items))
	}
	r.do("GET", "/api/v1/audit?cursor=x", nil, bearer(r.admin)).wantProblem(t, 422, "invalid")
	r.do("GET", "/api/v1/audit/999", nil, bearer(r.admin)).wantProblem(t, 404, "not_found")
	r.do("GET", "/api/v1/audit/1", nil, bearer(r.admin)).wantStatus(t, 200)
}

func TestWhatADeviceWasAndIsStandsInTheAuditLogAndTheFeed(t *testing.T) {
	r := newRig(t)
	last, err := r.control.AuditLast(t.Context())
	r.must(err)
	say := func(method, path string, body any) answer {
		r.Helper()
		a := r.do(method, "/api/v1"+path, body, bearer(r.admin))
		if a.StatusCode/100 != 2 {
			r.Fatalf("%s %s gives %d: %s", method, path, a.StatusCode, a.body)
		}
		return a
	}
	say("POST", "/devices", map[string]any{"id": "d1", "name": "Pump", "credential": "token"})
	say("PATCH", "/devices/d1", map[string]any{"name": "Big pump", "tags": map[string]string{"hall": "3"}})
	var made struct{ Credential struct{ ID string } }
	r.must(json.Unmarshal(say("POST", "/devices/d1/credentials", map[string]any{"kind": "secret"}).body, &made))
	say("DELETE", "/devices/d1/credentials/"+made.Credential.ID, nil)
	say("PUT", "/groups/g", map[string]any{"description": "x"})
	say("PUT", "/groups/g", map[string]any{"description": "y"})
	say("DELETE", "/groups/g", nil)
	say("PUT", "/profiles/p", map[string]any{"publish": []string{"plant/#"}})
	say("DELETE", "/profiles/p", nil)
	say("DELETE", "/devices/d1?data=keep", nil)
	records, err := r.control.AuditAfter(t.Context(), last, 100)
	r.must(err)
	var got []string
	for _, rec := range records {
		got = append(got, rec.Action+" "+strings.ReplaceAll(rec.Object, made.Credential.ID, "C"))
		if strings.Contains(string(rec.Before)+string(rec.After), "hash") {
			t.Errorf("%s holds a hash: %s", rec.Action, rec.After)
		}
	}
	want := []string{
		"device.create devices/d1", "credential.create devices/d1/credentials/", "device.update devices/d1",
		"credential.create devices/d1/credentials/C", "credential.delete devices/d1/credentials/C",
		"group.put groups/g", "group.put groups/g", "group.delete groups/g", "profile.put profiles/p", "profile.delete profiles/p", "device.delete devices/d1",
	}
	for i := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], want[i]) {
			t.Fatalf("record %d of %v is not %q", i, got, want[i])
		}
	}
	if b, a := string(records[2].Before), string(records[2].After); !strings.Contains(b, `"name":"Pump"`) || !strings.Contains(a, `"name":"Big pump"`) || !strings.Contains(a, `"hall":"3"`) {
		t.Errorf("the change is %s, %s", b, a)
	}
	events, err := r.control.FeedAfter(t.Context(), 0, 100)
	r.must(err)
	var types []string
	for _, e := range events {
		types = append(types, e.Type)
	}
	if d := cmp.Diff([]string{"device.created", "device.updated", "device.credential_added", "device.credential_removed", "device.deleted"}, types); d != "" {
		t.Error(d)
	}
	if string(events[1].Data) != `{"changed":["name","tags"],"device":"d1"}` {
		t.Errorf("the change is told as %s", events[1].Data)
	}
}

func TestJoiningTwinsAndCommandsAreInTheAuditLogWithoutSecrets(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	last, err := r.control.AuditLast(t.Context())
	r.must(err)
	var secrets []string
	say := func(method, path string, body any) {
		r.Helper()
		a := r.do(method, "/api/v1"+path, body, bearer(r.admin))
		if a.StatusCode/100 != 2 {
			r.Fatalf("%s %s gives %d: %s", method, path, a.StatusCode, a.body)
		}
		var issued struct{ Key, Secret, Code string }
		r.must(json.Unmarshal(orObject(a.body), &issued))
		for _, s := range []string{issued.Secret, issued.Code} {
			if s != "" {
				secrets = append(secrets, s)
			}
		}
	}
	say("PUT", "/profiles/p", map[string]any{})
	say("PUT", "/profiles/p/provisioning", map[string]any{"strategy": "create"})
	say("DELETE", "/profiles/p/provisioning", nil)
	say("POST", "/adoption-keys", map[string]any{"name": "line 1"})
	say("POST", "/devices/d1/claim-code", map[string]any{})
	say("PUT", "/fleet/desired", map[string]any{"rate": 5})
	say("PATCH", "/devices/d1/desired", map[string]any{"rate": 7})
	say("POST", "/devices/d1/commands", map[string]any{"method": "reboot", "params": map[string]any{"pin": "the-secret-pin"}})
	records, err := r.control.AuditAfter(t.Context(), last, 100)
	r.must(err)
	var got []string
	for _, rec := range records {
		got = append(got, rec.Action)
		for _, secret := range append(secrets, "the-secret-pin") {
			if strings.Contains(string(rec.Before)+string(rec.After), secret) {
				t.Errorf("%s holds a secret", rec.Action)
			}
		}
		if rec.Actor.Kind != "key" || rec.Actor.Request == "" {
			t.Errorf("%s was done by %+v", rec.Action, rec.Actor)
		}
	}
	want := []string{"profile.put", "provisioning.put", "provisioning.delete", "adoption_key.create", "claim_code.create", "desired.put", "desired.put", "command.send"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(secrets) < 2 {
		t.Errorf("%d secrets were issued", len(secrets))
	}
}

// orObject is an answer's body, or an empty object for none.
func orObject(body []byte) []byte {
	if len(body) == 0 {
		return []byte("{}")
	}
	return body
}
