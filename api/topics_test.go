package api_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/accounts"
	"muster/devices"
)

func TestATopicIsMadeChangedByItsOwnerAndDeleted(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, bob := r.enters("ann", accounts.Operator), r.enters("bob", accounts.Operator)
		a := ann.do("POST", "/topics", object{"name": "cold", "title": "Cold chain", "escalation": object{"steps": []object{{"after_s": 60, "to": []string{bob.id}, "channels": []string{"email"}}}, "repeat": 2}})
		made := a.wantStatus(t, 201).decode(t)
		id := made["id"].(string)
		want := object{
			"id": id, "name": "cold", "title": "Cold chain", "description": "", "owner": ann.id, "visibility": "internal", "status": "active", "retention_s": 7776000.0,
			"ack_policy": "any", "role": "owner", "may_publish": true, "subscribers": 0.0, "version": 1.0,
			"escalation": object{"steps": []any{object{"after_s": 60.0, "to": []any{bob.id}, "channels": []any{"email"}}}, "repeat": 2.0},
			"created_at": made["created_at"], "updated_at": made["created_at"],
		}
		if d := cmp.Diff(want, made); d != "" || a.Header.Get("Location") != "/api/v1/topics/"+id || a.Header.Get("ETag") != `"1"` {
			t.Errorf("%s at %s: %s", a.Header.Get("ETag"), a.Header.Get("Location"), d)
		}
		got := ann.do("GET", "/topics/cold", nil).wantStatus(t, 200)
		if d := cmp.Diff(want, got.decode(t)); d != "" {
			t.Error(d)
		}
		seen := bob.do("GET", "/topics/"+id, nil).wantStatus(t, 200).decode(t)
		if seen["role"] != nil || seen["may_publish"] != false || seen["escalation"] != nil {
			t.Errorf("who may not publish sees %v", seen)
		}
		tag := got.Header.Get("ETag")
		bob.do("PATCH", "/topics/cold", object{"title": "Mine"}).wantProblem(t, 403, "forbidden")
		bob.do("DELETE", "/topics/cold", nil).wantProblem(t, 403, "forbidden")
		ann.do("PATCH", "/topics/cold", object{"owner": bob.id}).wantProblem(t, 403, "forbidden")
		changed := ann.do("PATCH", "/topics/cold", object{"name": "warm", "escalation": object{"steps": []object{}}}, header("If-Match", tag)).wantStatus(t, 200)
		if c := changed.decode(t); c["name"] != "warm" || c["title"] != "Cold chain" || c["escalation"] != nil || c["version"] != 2.0 {
			t.Errorf("changed to %v", c)
		}
		ann.do("PATCH", "/topics/warm", object{"title": "Lost"}, header("If-Match", tag)).wantProblem(t, 412, "stale")
		ann.do("DELETE", "/topics/warm", nil, header("If-Match", tag)).wantProblem(t, 412, "stale")
		ann.do("PATCH", "/topics/warm", object{"title": "Kept"}, header("If-Match", changed.Header.Get("ETag"))).wantStatus(t, 200)
		ann.do("GET", "/topics/cold", nil).wantProblem(t, 404, "not_found")
		ann.do("DELETE", "/topics/warm", nil).wantStatus(t, 204)
		ann.do("GET", "/topics/"+id, nil).wantProblem(t, 404, "not_found")
	})
}

// D17: create-if-absent raced on the unique index, and the whole list was fetched on each join.
func TestOfManyWhoMakeOneTopicAtOnceOneDoesAndIfAbsentGivesAllTheSame(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann := r.enters("ann", accounts.Operator)
		const many = 20
		race := func(body func(i int) object) (status map[int]int, ids map[string]int) {
			status, ids = map[int]int{}, map[string]int{}
			var mu sync.Mutex
			var wait sync.WaitGroup
			for i := range many {
				wait.Go(func() {
					a := ann.do("POST", "/topics", body(i))
					mu.Lock()
					defer mu.Unlock()
					status[a.StatusCode]++
					if a.StatusCode < 300 {
						ids[a.decode(t)["id"].(string)]++
					}
				})
			}
			wait.Wait()
			return status, ids
		}
		status, ids := race(func(int) object { return object{"name": "once"} })
		if status[201] != 1 || status[409] != many-1 || len(ids) != 1 {
			t.Errorf("one name for all: %v, %v", status, ids)
		}
		status, ids = race(func(i int) object {
			return object{"name": "shared", "if_absent": true, "title": fmt.Sprint("of ", i)}
		})
		if status[201] != 1 || status[200] != many-1 || len(ids) != 1 {
			t.Errorf("if absent: %v, %v", status, ids)
		}
		if n := len(ann.do("GET", "/topics", nil).listed(t)); n != 2 {
			t.Errorf("there are %d topics", n)
		}
	})
}

func TestAPrivateTopicIsNotThereForWhoIsNoMember(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, eve := r.enters("ann", accounts.Operator), r.enters("eve", accounts.Operator)
		id := ann.topic(object{"name": "secret", "visibility": "private"})
		nobody := func(path, method string, body any) {
			t.Helper()
			there := eve.do(method, strings.Replace(path, "T", id, 1), body)
			none := eve.do(method, strings.Replace(path, "T", "top_NOBODYS", 1), body)
			if there.StatusCode != http.StatusNotFound || !bytes.Equal(there.body, none.body) {
				t.Errorf("%s %s: %d %s, of one that is not there %s", method, path, there.StatusCode, there.body, none.body)
			}
		}
		for _, path := range []string{"/topics/T", "/topics/T/members", "/topics/T/subscriptions", "/topics/T/subscriptions/me", "/notifications?topic=T", "/me/inbox?topic=T"} {
			nobody(path, "GET", nil)
		}
		nobody("/topics/T", "PATCH", object{"title": "x"})
		nobody("/topics/T", "DELETE", nil)
		nobody("/topics/T/subscriptions/me", "PUT", object{})
		nobody("/topics/T/members/"+eve.id, "PUT", object{"role": "owner"})
		nobody("/topics/T/members/"+eve.id, "DELETE", nil)
		eve.do("POST", "/notifications", object{"topic": id, "title": "x"}).wantProblem(t, 404, "not_found")
		eve.do("POST", "/topics", object{"name": "secret", "if_absent": true}).wantProblem(t, 409, "conflict")
		if list := eve.do("GET", "/topics", nil).listed(t); len(list) != 0 {
			t.Errorf("the list has %v", list)
		}
		ann.do("PUT", "/topics/secret/members/"+eve.id, object{"role": "subscriber"}).wantStatus(t, 200)
		if list := eve.do("GET", "/topics", nil).listed(t); len(list) != 1 || list[0]["role"] != "subscriber" {
			t.Errorf("a member's list has %v", list)
		}
		eve.subscribes("secret")
		eve.do("POST", "/notifications", object{"topic": "secret", "title": "x"}).wantProblem(t, 403, "forbidden")
	})
}

func TestOnlyThoseEntitledPublishChangeAndListMembers(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		own, pub, sub, out := r.enters("own", accounts.Operator), r.enters("pub", accounts.Operator), r.enters("sub", accounts.Operator), r.enters("out", accounts.Operator)
		boss, viewer := r.enters("boss", accounts.Admin), r.enters("viewer", accounts.Viewer)
		id := own.topic(object{"name": "t"})
		own.do("PUT", "/topics/t/members/"+pub.id, object{"role": "publisher"}).wantStatus(t, 200)
		own.do("PUT", "/topics/t/members/"+sub.id, object{"role": "subscriber"}).wantStatus(t, 200)
		own.do("PUT", "/topics/t/members/"+viewer.id, object{"role": "publisher"}).wantStatus(t, 200)
		for _, s := range []someone{own, pub, sub, out, boss, viewer} {
			s.subscribes(id)
		}
		sent := own.sends(object{"topic": "t", "title": "first"})
		all := []someone{own, pub, sub, out, boss, viewer}
		for _, tt := range []struct {
			what, method, path string
			body               any
			want               [6]int // own, pub, sub, out, boss, viewer
		}{
			{"publish", "POST", "/notifications", object{"topic": "t", "title": "x"}, [6]int{202, 202, 403, 403, 202, 403}},
			{"list members", "GET", "/topics/t/members", nil, [6]int{200, 200, 200, 403, 200, 200}},
			{"list subscriptions", "GET", "/topics/t/subscriptions", nil, [6]int{200, 200, 403, 403, 200, 200}},
			{"see another's subscription", "GET", "/topics/t/subscriptions/" + sub.id, nil, [6]int{200, 403, 200, 403, 200, 403}},
			{"subscribe another", "PUT", "/topics/t/subscriptions/" + out.id, object{}, [6]int{200, 403, 403, 200, 200, 403}},
			{"change the topic", "PATCH", "/topics/t", object{"title": "x"}, [6]int{200, 403, 403, 403, 200, 403}},
			{"make members", "PUT", "/topics/t/members/" + sub.id, object{"role": "subscriber"}, [6]int{200, 403, 403, 403, 200, 403}},
			{"read the notification", "GET", "/notifications/" + sent, nil, [6]int{200, 200, 200, 200, 200, 200}},
			{"see its receipts", "GET", "/notifications/" + sent + "/receipts", nil, [6]int{200, 200, 403, 403, 200, 200}},
			{"see its deliveries", "GET", "/notifications/" + sent + "/deliveries", nil, [6]int{200, 200, 403, 403, 200, 200}},
			{"list the topic's notifications", "GET", "/notifications?topic=t", nil, [6]int{200, 200, 403, 403, 200, 200}},
			{"see deliveries", "GET", "/deliveries", nil, [6]int{403, 403, 403, 403, 200, 403}},
			{"make a topic", "POST", "/topics", object{"name": "t", "if_absent": true}, [6]int{200, 200, 200, 200, 200, 403}},
			{"unsubscribe another", "DELETE", "/topics/t/subscriptions/" + viewer.id, nil, [6]int{204, 403, 403, 403, 404, 404}},
		} {
			for i, s := range all {
				if a := s.do(tt.method, tt.path, tt.body); a.StatusCode != tt.want[i] {
					t.Errorf("%s: %s gets %d %s, want %d", tt.what, s.email, a.StatusCode, a.body, tt.want[i])
				}
			}
		}
		sub.do("DELETE", "/topics/t/members/"+sub.id, nil).wantStatus(t, 204)
		viewer.do("DELETE", "/topics/t/members/"+pub.id, nil).wantProblem(t, 403, "forbidden")
		pub.do("DELETE", "/topics/t/members/"+viewer.id, nil).wantProblem(t, 403, "forbidden")
	})
}

func TestAKeyPublishesAsItsOwnerMayAndOwnsWhatItMakesWithoutOne(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, bob := r.enters("ann", accounts.Operator), r.enters("bob", accounts.Operator)
		ann.topic(object{"name": "anns"})
		bob.topic(object{"name": "bobs"})
		bob.subscribes("anns")
		k, secret, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "the plant", Scopes: []string{accounts.TopicsRead, accounts.TopicsWrite, accounts.NotifySend}, Owner: ann.id})
		r.must(err)
		key := bearer(secret)
		a := r.do("POST", "/api/v1/notifications", object{"topic": "anns", "title": "by a key"}, key).wantStatus(t, 202).decode(t)
		if s := a["notification"].(object)["sender"]; !cmp.Equal(s, any(object{"kind": "key", "id": k.ID, "name": "the plant"})) {
			t.Errorf("it was sent by %v", s)
		}
		r.do("POST", "/api/v1/notifications", object{"topic": "bobs", "title": "x"}, key).wantProblem(t, 403, "forbidden")
		bob.do("PUT", "/topics/bobs/members/"+k.ID, object{"role": "publisher"}).wantStatus(t, 200)
		bob.do("PUT", "/topics/bobs/members/key_nobodys", object{"role": "publisher"}).wantProblem(t, 422, "invalid")
		r.do("POST", "/api/v1/notifications", object{"topic": "bobs", "title": "x"}, key).wantStatus(t, 202)
		for _, path := range []string{"/me/inbox", "/me/inbox/counts", "/subscriptions", "/topics/anns/subscriptions/me"} {
			r.do("GET", "/api/v1"+path, nil, key).wantProblem(t, 403, "forbidden")
		}
		r.do("POST", "/api/v1/notifications/ntf_x/ack", nil, key).wantProblem(t, 403, "forbidden")
		r.do("POST", "/api/v1/notifications:mark", object{"ids": []string{"ntf_x"}, "state": "seen"}, key).wantProblem(t, 403, "forbidden")
		r.do("PUT", "/api/v1/topics/anns/subscriptions/me", object{}, key).wantProblem(t, 403, "forbidden")

		own, mine, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "alone", Scopes: []string{accounts.TopicsRead, accounts.TopicsWrite}})
		r.must(err)
		made := r.do("POST", "/api/v1/topics", object{"name": "keys", "visibility": "private"}, bearer(mine)).wantStatus(t, 201).decode(t)
		if made["owner"] != "" || made["role"] != "owner" {
			t.Errorf("made %v", made)
		}
		r.do("PATCH", "/api/v1/topics/keys", object{"title": "x"}, bearer(mine)).wantStatus(t, 200)
		members := r.do("GET", "/api/v1/topics/keys/members", nil, bearer(mine)).listed(t)
		if len(members) != 1 || members[0]["principal"] != own.ID || members[0]["name"] != nil {
			t.Errorf("its members are %v", members)
		}
	})
}

func TestAKeyWithASelectorMayNotUseTopics(t *testing.T) {
	r := newReachRig(t)
	r.as("POST", "/api/v1/topics", object{"name": "t"}).wantStatus(t, 201)
	for _, o := range operations(r.rig) {
		if strings.Contains(o.path, "/devices/") { // of devices such keys may ask, within their reach
			continue
		}
		if !strings.Contains(o.path, "/topics") && !strings.Contains(o.path, "/notifications") && !strings.Contains(o.path, "/subscriptions") && !strings.Contains(o.path, "/me/inbox") {
			continue
		}
		for kind, who := range r.who {
			if a := r.do(o.method, strings.Replace(o.at(), "top_x", "t", 1), "{}", who); a.StatusCode != http.StatusForbidden {
				t.Errorf("%s: %s gives %d %s", kind, o.ID, a.StatusCode, a.body)
			}
		}
	}
}

// Who lost a private topic has his subscription to it, which he may end, and is not told what it is called by now.
func TestWhoLostATopicIsNotToldItsNewName(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, eve := r.enters("ann", accounts.Operator), r.enters("eve", accounts.Operator)
		id := ann.topic(object{"name": "secret", "visibility": "private"})
		member := "/topics/" + id + "/members/" + eve.id
		ann.do("PUT", member, object{"role": "subscriber"}).wantStatus(t, 200)
		eve.subscribes(id)
		named := func(want string) {
			t.Helper()
			if mine := eve.do("GET", "/subscriptions", nil).listed(t); len(mine) != 1 || mine[0]["topic"] != id || mine[0]["topic_name"] != want {
				t.Errorf("her subscriptions are %v, want one to %q", mine, want)
			}
		}
		named("secret")
		ann.do("DELETE", member, nil).wantStatus(t, 204)
		ann.do("PATCH", "/topics/"+id, object{"name": "new-words"}).wantStatus(t, 200)
		named("")
		for _, guess := range []string{"new-words", "other-words"} {
			if a := eve.do("DELETE", "/topics/"+guess+"/subscriptions/me", nil); a.StatusCode != http.StatusNotFound {
				t.Errorf("by the name %s it is %d", guess, a.StatusCode)
			}
		}
		ann.do("PUT", member, object{"role": "subscriber"}).wantStatus(t, 200)
		named("new-words")
		ann.do("DELETE", member, nil).wantStatus(t, 204)
		eve.do("DELETE", "/topics/"+id+"/subscriptions/me", nil).wantStatus(t, 204)
	})
}

func TestSubscriptionsKeepWhatIsWishedAndAreBoundToVersions(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, eve := r.enters("ann", accounts.Operator), r.enters("eve", accounts.Viewer)
		r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "g"}))
		r.device("a.b:c")
		id := ann.topic(object{"name": "t"})
		me := "/topics/t/subscriptions/me"
		eve.do("PUT", me, object{"channels": []object{{"channel": "email"}}}).wantProblem(t, 422, "invalid") // not confirmed
		email := eve.do("PUT", me, object{"muted_until": "2026-12-24T00:00:00Z"}, header("If-None-Match", "*")).wantStatus(t, 200)
		eve.do("PUT", me, object{}, header("If-None-Match", "*")).wantProblem(t, 412, "stale")
		tag := email.Header.Get("ETag")
		want := object{
			"topic": id, "topic_name": "t", "subject": eve.id, "name": "eve", "version": 1.0, "muted_until": "2026-12-24T00:00:00.000000Z",
			"created_at": email.decode(t)["created_at"], "updated_at": email.decode(t)["created_at"],
		}
		if d := cmp.Diff(want, email.decode(t)) + cmp.Diff(want, eve.do("GET", me, nil).wantStatus(t, 200).decode(t)); d != "" {
			t.Error(d)
		}
		eve.do("PUT", me, object{}, header("If-Match", tag)).wantStatus(t, 200)
		eve.do("PUT", me, object{}, header("If-Match", tag)).wantProblem(t, 412, "stale")
		eve.do("DELETE", me, nil, header("If-Match", tag)).wantProblem(t, 412, "stale")
		if mine := eve.do("GET", "/subscriptions", nil).listed(t); len(mine) != 1 || mine[0]["version"] != 2.0 || mine[0]["muted_until"] != nil {
			t.Errorf("mine are %v", mine)
		}
		quiet := object{"from": "22:00", "to": "07:30", "days": []any{"mon", "sun"}, "zone": "Europe/Berlin", "except": "none"}
		via := object{"channel": "mqtt", "severity": "warning", "quiet": quiet, "digest_s": 60.0}
		at := "/topics/t/subscriptions/device:a.b:c"
		got := ann.do("PUT", at, object{"channels": []object{via}}).wantStatus(t, 200).decode(t)
		if d := cmp.Diff(object{"s": "device:a.b:c", "c": []any{via}}, object{"s": got["subject"], "c": got["channels"]}); d != "" {
			t.Error(d)
		}
		if got := ann.do("GET", "/topics/t/subscriptions/device%2Fa.b:c", nil).wantStatus(t, 200).decode(t); got["subject"] != "device:a.b:c" {
			t.Errorf("by the other spelling: %v", got)
		}
		eve.do("PUT", at, object{}).wantProblem(t, 403, "forbidden")
		ann.do("PUT", "/topics/t/subscriptions/device:nobody", object{}).wantProblem(t, 422, "invalid")
		ann.do("PUT", "/topics/t/subscriptions/usr_nobody", object{}).wantProblem(t, 422, "invalid")
		ann.do("GET", "/topics/t/subscriptions/no%20id", nil).wantProblem(t, 422, "invalid")
		list := ann.do("GET", "/topics/t/subscriptions?limit=1", nil).wantStatus(t, 200).decode(t)
		rest := ann.do("GET", "/topics/t/subscriptions"+query("after", list["next"].(string)), nil).listed(t)
		if len(rest) != 1 || rest[0]["subject"] != eve.id || field(list["items"].([]any)[0], "subject") != "device:a.b:c" {
			t.Errorf("pages: %v, %v", list, rest)
		}
		one := ann.do("GET", "/topics/t", nil).wantStatus(t, 200).decode(t)
		if one["subscribers"] != 2.0 || one["subscription"] != nil {
			t.Errorf("the topic says %v", one)
		}
		eve.do("DELETE", me, nil).wantStatus(t, 204)
		eve.do("DELETE", me, nil).wantProblem(t, 404, "not_found")
	})
}

func TestOfManyChangesOfASubscriptionBoundToOneVersionOneIsMade(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann := r.enters("ann", accounts.Operator)
		ann.topic(object{"name": "t"})
		me := "/topics/t/subscriptions/me"
		tag := ann.do("PUT", me, object{}).wantStatus(t, 200).Header.Get("ETag")
		var mu sync.Mutex
		status := map[int]int{}
		var wait sync.WaitGroup
		for range 20 {
			wait.Go(func() {
				a := ann.do("PUT", me, object{}, header("If-Match", tag))
				mu.Lock()
				defer mu.Unlock()
				status[a.StatusCode]++
			})
		}
		wait.Wait()
		if status[200] != 1 || status[412] != 19 {
			t.Errorf("%v", status)
		}
	})
}

func TestTopicsArePagedByName(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann := r.enters("ann", accounts.Operator)
		var want []string
		for i := range 25 {
			name := fmt.Sprintf("t.%02d", i)
			ann.topic(object{"name": name})
			want = append(want, name)
		}
		var got []string
		for after := ""; ; {
			p := ann.do("GET", "/topics"+query("limit", "10", "after", after), nil).wantStatus(t, 200).decode(t)
			for _, i := range p["items"].([]any) {
				got = append(got, i.(object)["name"].(string))
			}
			var more bool
			if after, more = p["next"].(string); !more {
				break
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func TestATemplateIsPreviewedWithASampleOrTheFieldsThatAreGiven(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann := r.enters("ann", accounts.Operator)
		got := ann.do("POST", "/topics:preview", object{
			"template": object{"mail_subject": "{{upper .Severity}} {{.Title}}", "webhook": `{"t":{{json .Title}},"v":{{.Data.v}}}`}, "fields": object{"title": `a "b"`, "data": object{"v": 7}},
		}).wantStatus(t, 200).decode(t)
		if d := cmp.Diff(object{"t": `a "b"`, "v": 7.0}, got["webhook"]); d != "" || got["mail_subject"] != `MAJOR a "b"` || !strings.Contains(got["mail_text"].(string), "It was last heard") {
			t.Errorf("%s: %v", d, got)
		}
		for _, body := range []object{
			{"template": object{"mail_text": "{{range .Data}}x{{end}}"}},
			{"template": object{"mail_text": "{{.Nothing}}"}},
			{"template": object{"webhook": "no JSON"}},
			{"template": object{"mail_subject": "{{"}},
			{"template": object{}, "fields": object{"data": []int{1}}},
			{"template": object{"mail_text": strings.Repeat("x", 16385)}},
		} {
			ann.do("POST", "/topics:preview", body).wantProblem(t, 422, "invalid")
		}
	})
}

func TestARoleInATopicGivesNoScope(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, eve, viewer := r.enters("ann", accounts.Operator), r.enters("eve", accounts.Viewer), r.enters("viewer", accounts.Viewer)
		ann.topic(object{"name": "t"})
		ann.do("PUT", "/topics/t/members/"+viewer.id, object{"role": "owner"}).wantStatus(t, 200)
		ann.do("PUT", "/topics/t/members/"+eve.id, object{"role": "subscriber"}).wantStatus(t, 200)
		eve.subscribes("t")
		_, reads, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "reads", Scopes: []string{accounts.TopicsRead}, Owner: ann.id})
		r.must(err)
		_, sends, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "sends", Scopes: []string{accounts.NotifySend}, Owner: ann.id})
		r.must(err)
		for name, who := range map[string]option{"a viewer who is an owner": viewer.as, "an owner's key that reads": bearer(reads), "an owner's key that sends": bearer(sends)} {
			do := func(method, path string, body any) answer { return r.do(method, "/api/v1/topics/t"+path, body, who) }
			for _, a := range []answer{
				do("PUT", "/subscriptions/"+eve.id, object{}), do("DELETE", "/subscriptions/"+eve.id, nil), do("DELETE", "/members/"+eve.id, nil),
				do("PUT", "/members/"+eve.id, object{"role": "owner"}), do("PATCH", "", object{"title": "x"}), do("DELETE", "", nil),
			} {
				if detail, _ := a.wantProblem(t, 403, "forbidden")["detail"].(string); detail != "this needs the scope topics:write" {
					t.Errorf("%s: %s", name, detail)
				}
			}
		}
		r.do("GET", "/api/v1/topics/t/subscriptions/"+eve.id, nil, bearer(sends)).wantProblem(t, 403, "forbidden")
		r.do("GET", "/api/v1/topics/t/subscriptions/"+eve.id, nil, bearer(reads)).wantStatus(t, 200)
		viewer.do("GET", "/topics/t/subscriptions/"+eve.id, nil).wantStatus(t, 200)
		viewer.do("DELETE", "/topics/t/members/"+viewer.id, nil).wantStatus(t, 204)
	})
}
