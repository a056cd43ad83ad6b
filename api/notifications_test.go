package api_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/accounts"
	"muster/api"
	mail "muster/notify/outbox"
)

func TestANotificationIsSentReadMarkedAndAcked(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		r.device("pump-1")
		ann, bob, eve := r.enters("ann", accounts.Operator), r.enters("bob", accounts.Viewer), r.enters("eve", accounts.Viewer)
		topic := ann.topic(object{"name": "t"})
		bob.subscribes(topic)
		eve.subscribes(topic)
		expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
		a := ann.do("POST", "/notifications", object{
			"topic": "t", "severity": "major", "priority": "urgent", "title": "Pump 1", "body": "It\nleaks", "data": object{"l": 3}, "link": "https://muster.example/x",
			"actions": []object{{"label": "Close", "url": "https://muster.example/close"}}, "device": "pump-1", "expires_at": expires,
			"to": []string{bob.id, ann.id, eve.id, "device:pump-1", ann.id},
		}).wantStatus(t, 202)
		sent := a.decode(t)
		n := sent["notification"].(object)
		id := n["id"].(string)
		want := object{
			"id": id, "topic": topic, "topic_name": "t", "sender": object{"kind": "user", "id": ann.id, "name": "ann"}, "severity": "major", "priority": "urgent",
			"title": "Pump 1", "body": "It\nleaks", "data": object{"l": 3.0}, "link": "https://muster.example/x", "actions": []any{object{"label": "Close", "url": "https://muster.example/close"}},
			"device": "pump-1", "count": 1.0, "state": "open", "ack_policy": "any", "recipients": 2.0, "acks": 0.0, "created_at": n["created_at"], "updated_at": n["created_at"],
			"expires_at": expires.Format("2006-01-02T15:04:05.000000Z"), "version": 1.0,
		}
		if d := cmp.Diff(object{"notification": want, "recipients": 2.0, "duplicate": false, "resolved": false, "not_subscribed": []any{ann.id, "device:pump-1"}}, sent); d != "" {
			t.Error(d)
		}
		if at := a.Header.Get("Location"); at != "/api/v1/notifications/"+id {
			t.Errorf("Location is %s", at)
		}
		if got := ann.do("GET", "/notifications/"+id, nil).wantStatus(t, 200).decode(t); got["receipt"] != nil || !cmp.Equal(got["notification"], any(want)) {
			t.Errorf("the publisher reads %v", got)
		}
		inbox := bob.do("GET", "/me/inbox", nil).listed(t)
		if len(inbox) != 1 || !cmp.Equal(inbox[0]["notification"], any(want)) || field(inbox[0], "receipt", "state") != "sent" {
			t.Fatalf("the inbox has %v", inbox)
		}
		counts := func(s someone) object { return s.do("GET", "/me/inbox/counts", nil).wantStatus(t, 200).decode(t) }
		if c := counts(bob); c["unread"] != 1.0 || c["open"] != 1.0 {
			t.Errorf("counts %v", c)
		}
		mark := func(body object) object {
			return bob.do("POST", "/notifications:mark", body).wantStatus(t, 200).decode(t)
		}
		if got := mark(object{"ids": []string{id, id, "ntf_other", "no id"}, "state": "seen"}); got["moved"] != 1.0 || !cmp.Equal(got["missing"], any([]any{"no id", "ntf_other"})) {
			t.Errorf("seen: %v", got)
		}
		mark(object{"ids": []string{id}, "state": "read"})
		if got := mark(object{"ids": []string{id}, "state": "seen"}); got["moved"] != 0.0 {
			t.Errorf("it went back: %v", got)
		}
		acked := bob.do("POST", "/notifications/"+id+"/ack", object{"note": "on my way"}).wantStatus(t, 200).decode(t)
		for path, want := range map[string]string{"notification state": "acked", "notification acked_by": "bob", "notification ack_note": "on my way", "receipt state": "acked", "receipt door": "api", "receipt note": "on my way", "receipt subject": bob.id} {
			if got := field(acked, strings.Split(path, " ")...); got != want {
				t.Errorf("%s is %q", path, got)
			}
		}
		if got := bob.do("POST", "/notifications/"+id+"/ack", object{"note": "again"}).wantStatus(t, 200).decode(t); field(got, "receipt", "note") != "on my way" {
			t.Errorf("a second ack changed %v", got)
		}
		if c := counts(eve); c["unread"] != 1.0 || c["open"] != 0.0 {
			t.Errorf("the other one counts %v", c)
		}
		receipts := ann.do("GET", "/notifications/"+id+"/receipts", nil).listed(t)
		if len(receipts) != 2 {
			t.Fatalf("the receipts are %v", receipts)
		}
		states := map[string]string{}
		for _, x := range receipts {
			states[field(x, "name")] = field(x, "state")
		}
		if d := cmp.Diff(map[string]string{"bob": "acked", "eve": "sent"}, states); d != "" {
			t.Error(d)
		}
		ann.do("POST", "/notifications/"+id+"/ack", nil).wantProblem(t, 404, "not_found") // it is not in her inbox
	})
}

func TestWhoIsNoRecipientAndNoPublisherLearnsNothingOfANotification(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, bob, out := r.enters("ann", accounts.Operator), r.enters("bob", accounts.Viewer), r.enters("out", accounts.Operator)
		topic := ann.topic(object{"name": "t"})
		bob.subscribes(topic)
		id := ann.sends(object{"topic": "t", "title": "x"})
		for _, end := range []string{"", "/receipts", "/deliveries"} {
			there, none := out.do("GET", "/notifications/"+id+end, nil), out.do("GET", "/notifications/ntf_nobodys"+end, nil)
			if there.StatusCode != http.StatusNotFound || !bytes.Equal(there.body, none.body) {
				t.Errorf("%s: %s, of one that is not there %s", end, there.body, none.body)
			}
		}
		out.do("POST", "/notifications/"+id+"/ack", nil).wantProblem(t, 404, "not_found")
		if got := out.do("POST", "/notifications:mark", object{"ids": []string{id}, "state": "acked"}).wantStatus(t, 200).decode(t); got["moved"] != 0.0 || len(got["missing"].([]any)) != 1 {
			t.Errorf("marked %v", got)
		}
		if list := out.do("GET", "/notifications", nil).listed(t); len(list) != 0 {
			t.Errorf("the list has %v", list)
		}
		if list := bob.do("GET", "/notifications", nil).listed(t); len(list) != 0 {
			t.Errorf("a subscriber's list has %v", list)
		}
		bob.do("GET", "/notifications/"+id+"/receipts", nil).wantProblem(t, 403, "forbidden")
	})
}

func TestDedupKeysCountUpAndResolve(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, bob := r.enters("ann", accounts.Operator), r.enters("bob", accounts.Viewer)
		bob.subscribes(ann.topic(object{"name": "t"}))
		body := object{"topic": "t", "title": "x", "dedup_key": "k"}
		id := ann.sends(body)
		again := ann.do("POST", "/notifications", body).wantStatus(t, 202).decode(t)
		if again["duplicate"] != true || field(again, "notification", "id") != id || field(again, "notification", "count") != "2" {
			t.Errorf("again: %v", again)
		}
		over := ann.do("POST", "/notifications", object{"topic": "t", "dedup_key": "k", "resolve": true}).wantStatus(t, 202).decode(t)
		if over["resolved"] != true || field(over, "notification", "state") != "resolved" {
			t.Errorf("over: %v", over)
		}
		ann.do("POST", "/notifications", object{"topic": "t", "dedup_key": "k", "resolve": true}).wantProblem(t, 404, "not_found")
		got := bob.do("POST", "/notifications/"+id+"/ack", nil).wantStatus(t, 200).decode(t)
		if field(got, "notification", "state") != "resolved" || field(got, "receipt", "state") != "acked" {
			t.Errorf("a late ack gives %v", got)
		}
	})
}

func TestWhatCanNotBeSent(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann := r.enters("ann", accounts.Operator)
		ann.topic(object{"name": "t"})
		ann.topic(object{"name": "off", "status": "inactive"})
		for name, body := range map[string]object{
			"no title": {"topic": "t"}, "two lines": {"topic": "t", "title": "a\nb"}, "a script as link": {"topic": "t", "title": "x", "link": "javascript:alert(1)"},
			"a list as data": {"topic": "t", "title": "x", "data": []int{1}}, "17 KiB of data": {"topic": "t", "title": "x", "data": object{"x": strings.Repeat("x", 17<<10)}},
			"no such severity": {"topic": "t", "title": "x", "severity": "bad"}, "no such priority": {"topic": "t", "title": "x", "priority": "now"},
			"expired": {"topic": "t", "title": "x", "expires_at": "2020-01-01T00:00:00Z"}, "expired in 1960": {"topic": "t", "title": "x", "expires_at": "1960-01-01T00:00:00Z"},
			"no such device": {"topic": "t", "title": "x", "device": "nobody"}, "nobody": {"topic": "t", "title": "x", "to": []string{"a b"}},
			"resolve without key": {"topic": "t", "title": "x", "resolve": true}, "six actions": {"topic": "t", "title": "x", "actions": make([]object, 6)},
			"more": {"topic": "t", "title": "x", "sender": object{"id": "x"}},
		} {
			if a := ann.do("POST", "/notifications", body); a.StatusCode != http.StatusUnprocessableEntity {
				t.Errorf("%s gives %d %s", name, a.StatusCode, a.body)
			}
		}
		ann.do("POST", "/notifications", object{"topic": "nothing", "title": "x"}).wantProblem(t, 404, "not_found")
		ann.do("POST", "/notifications", object{"topic": "off", "title": "x"}).wantProblem(t, 409, "conflict")
		to := make([]string, 10_000)
		for i := range to {
			to[i] = fmt.Sprintf("usr_%026d", i)
		}
		got := ann.do("POST", "/notifications", object{"topic": "t", "title": "x", "to": to}).wantStatus(t, 202).decode(t)
		if n := len(got["not_subscribed"].([]any)); n != 10_000 {
			t.Errorf("%d are not subscribed", n)
		}
		if list := ann.do("GET", "/notifications", nil).listed(t); len(list) != 1 {
			t.Errorf("there are %d", len(list))
		}
	})
}

func TestWhoSendsTooMuchIsToldWhenToComeAgain(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, bob := r.enters("ann", accounts.Operator), r.enters("bob", accounts.Admin)
		ann.topic(object{"name": "t"})
		for i := range 40 {
			ann.sends(object{"topic": "t", "title": strconv.Itoa(i)})
		}
		a := ann.do("POST", "/notifications", object{"topic": "t", "title": "one more"})
		a.wantProblem(t, 429, "busy")
		if s, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || s < 3000 || s > 3600 {
			t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
		}
		bob.sends(object{"topic": "t", "title": "of another"})
	})
}

func TestASendWithAnIdempotencyKeyIsOne(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann := r.enters("ann", accounts.Operator)
		ann.topic(object{"name": "t"})
		body, key := object{"topic": "t", "title": "x"}, header("Idempotency-Key", "k1")
		first, second := ann.do("POST", "/notifications", body, key).wantStatus(t, 202), ann.do("POST", "/notifications", body, key).wantStatus(t, 202)
		if !bytes.Equal(first.body, second.body) || second.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s, then %s", first.body, second.body)
		}
		ann.do("POST", "/notifications", object{"topic": "t", "title": "y"}, key).wantProblem(t, 409, "idempotency_mismatch")
		if list := ann.do("GET", "/notifications", nil).listed(t); len(list) != 1 {
			t.Errorf("there are %d", len(list))
		}
	})
}

// D18: no list is without pages.
func TestListsOfNotificationsHavePages(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		ann, bob := r.enters("ann", accounts.Operator), r.enters("bob", accounts.Viewer)
		bob.subscribes(ann.topic(object{"name": "t"}))
		bob.subscribes(ann.topic(object{"name": "u"}))
		var all, ofT []string
		for i := range 25 {
			topic := []string{"t", "u"}[i%2]
			id := ann.sends(object{"topic": topic, "title": strconv.Itoa(i)})
			all = append([]string{id}, all...)
			if topic == "t" {
				ofT = append([]string{id}, ofT...)
			}
		}
		pages := func(s someone, path string, id ...string) (out []string) {
			for after := ""; ; {
				p := s.do("GET", path+"&limit=7"+strings.Replace(query("after", after), "?", "&", 1), nil).wantStatus(t, 200).decode(t)
				for _, i := range p["items"].([]any) {
					out = append(out, field(i, id...))
				}
				var more bool
				if after, more = p["next"].(string); !more {
					return out
				}
			}
		}
		for _, tt := range []struct {
			who  someone
			path string
			id   []string
			want []string
		}{
			{ann, "/notifications?", []string{"id"}, all},
			{ann, "/notifications?topic=t", []string{"id"}, ofT},
			{ann, "/notifications?state=acked", []string{"id"}, nil},
			{bob, "/me/inbox?", []string{"notification", "id"}, all},
			{bob, "/me/inbox?topic=t", []string{"notification", "id"}, ofT},
			{bob, "/me/inbox?unread=true&unacked=true", []string{"notification", "id"}, all},
		} {
			if d := cmp.Diff(tt.want, pages(tt.who, tt.path, tt.id...)); d != "" {
				t.Errorf("%s: %s", tt.path, d)
			}
		}
		if got := bob.do("POST", "/me/inbox:read-all", object{"up_to": all[10]}).wantStatus(t, 200).decode(t); got["moved"] != 15.0 {
			t.Errorf("up to one: %v", got)
		}
		if d := cmp.Diff(all[:10], pages(bob, "/me/inbox?unread=true", "notification", "id")); d != "" {
			t.Error(d)
		}
		if got := bob.do("POST", "/me/inbox:read-all", nil).wantStatus(t, 200).decode(t); got["moved"] != 10.0 {
			t.Errorf("all: %v", got)
		}
		for _, path := range []string{"/notifications?after=a%20b", "/me/inbox?after=..%2Fx", "/me/inbox?limit=1001", "/notifications?state=none", "/notifications?device=a%20b"} {
			ann.do("GET", path, nil).wantProblem(t, 422, "invalid")
		}
		bob.do("GET", "/me/inbox?topic=nothing", nil).wantProblem(t, 404, "not_found")
	})
}

// D13: no route of topics or notifications shows an e-mail address to anybody but admins.
func TestNoEMailAddressIsShownToWhoIsNoAdmin(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		w := &writer{rig: newRig(t)}
		r := w.rig
		ann, eve := r.enters("ann", accounts.Operator), r.enters("eve", accounts.Operator)
		nameless, err := r.accounts.CreateUser(t.Context(), accounts.NewUser{Email: "nameless@secret-address.example", Role: accounts.Operator, Password: goodPassword})
		r.must(err)
		anon := someone{r, nameless.ID, nameless.Email, withCookie(r.enter(nameless.Email))}
		topic := ann.topic(object{"name": "t"})
		for _, s := range []someone{ann, eve, anon} {
			s.subscribes(topic)
		}
		for _, s := range []someone{eve, anon} {
			ann.do("PUT", "/topics/t/members/"+s.id, object{"role": "publisher"}).wantStatus(t, 200)
		}
		id := anon.sends(object{"topic": "t", "title": "x"})
		anon.do("POST", "/notifications/"+id+"/ack", object{}).wantStatus(t, 200)
		dead := w.deadDelivery("email", eve.id)
		at := w.deadDeliveryOf(id, eve.id)
		asked := 0
		for _, s := range []someone{ann, eve, anon} {
			for _, path := range []string{
				"/topics", "/topics/t", "/topics/t/members", "/topics/t/subscriptions", "/subscriptions", "/notifications", "/notifications/" + id,
				"/notifications/" + id + "/receipts", "/notifications/" + id + "/deliveries", "/me/inbox", "/deliveries", "/deliveries/" + dead, "/deliveries/" + at,
			} {
				a := s.do("GET", path, nil)
				asked++
				if strings.Contains(string(a.body), "secret-address") {
					t.Errorf("%s shows %s", path, a.body)
				}
			}
		}
		list := ann.do("GET", "/notifications/"+id+"/deliveries", nil).listed(t)
		if len(list) != 1 || list[0]["state"] != "dead" || field(list[0]["tries"].([]any)[0], "status") != "550" || asked != 39 {
			t.Errorf("a publisher sees %v", list)
		}
		whole := r.as("GET", "/api/v1/notifications/"+id+"/deliveries", nil).listed(t)
		if !strings.Contains(field(whole[0], "error"), "secret-address") {
			t.Errorf("an admin sees %v", whole)
		}
	})
}

func TestDeliveriesAreSeenAndQueuedAgainByAdmins(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		w := &writer{rig: newRig(t)}
		r := w.rig
		one, two := w.deadDelivery("email", "usr_a"), w.deadDelivery("webhook", "whk_x")
		list := r.as("GET", "/api/v1/deliveries", nil).listed(t)
		if len(list) != 2 || list[0]["id"] != two || list[1]["id"] != one || list[1]["tries"] != nil || list[1]["due_at"] != nil {
			t.Errorf("the list is %v", list)
		}
		for q, want := range map[string]int{"state=dead": 2, "state=sent": 0, "channel=email": 1, "target=whk_x": 1, "notification=ntf_x": 0, "channel=em%00ail": 0, "limit=1": 1} {
			if n := len(r.as("GET", "/api/v1/deliveries?"+q, nil).listed(t)); n != want {
				t.Errorf("%s: %d", q, n)
			}
		}
		got := r.as("GET", "/api/v1/deliveries/"+one, nil).wantStatus(t, 200).decode(t)
		if tries := got["tries"].([]any); len(tries) != 1 || field(tries[0], "response") == "" || got["attempts"] != 1.0 {
			t.Errorf("one is %v", got)
		}
		if strings.Contains(string(r.as("GET", "/api/v1/deliveries/"+one, nil).body), `"body"`) {
			t.Error("it shows the content")
		}
		again := r.as("POST", "/api/v1/deliveries:requeue", object{"ids": []string{one, one, "dlv_nobodys", "no id"}}).wantStatus(t, 200).decode(t)
		if d := cmp.Diff([]any{one}, again["requeued"]); d != "" {
			t.Error(d)
		}
		if again := r.as("POST", "/api/v1/deliveries:requeue", object{"ids": []string{one}}).wantStatus(t, 200).decode(t); len(again["requeued"].([]any)) != 0 {
			t.Errorf("what is queued was queued again: %v", again)
		}
		if got := r.as("GET", "/api/v1/deliveries/"+one, nil).decode(t); got["state"] != "queued" || got["attempts"] != 0.0 || got["due_at"] == nil {
			t.Errorf("it is %v", got)
		}
		r.as("GET", "/api/v1/deliveries/dlv_nobodys", nil).wantProblem(t, 404, "not_found")
		r.as("GET", "/api/v1/deliveries/no%20id", nil).wantProblem(t, 404, "not_found")
	})
}

func TestWhatAWebhookMissedIsReplayed(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		w := &writer{rig: newRig(t)}
		r := w.rig
		id, _, _ := w.newWebhook("https://127.0.0.1:1/x")
		other, _, _ := w.newWebhook("https://127.0.0.1:1/y")
		mine := []string{w.deadDelivery("webhook", id), w.deadDelivery("webhook", id), w.deadDelivery("webhook", id)}
		theirs := w.deadDelivery("webhook", other)
		at := "/api/v1/webhooks/" + id
		if list := r.as("GET", at+"/deliveries", nil).listed(t); len(list) != 3 || list[0]["id"] != mine[2] {
			t.Errorf("its deliveries are %v", list)
		}
		replay := func(body any) object { return r.as("POST", at+"/replay", body).wantStatus(t, 200).decode(t) }
		if got := replay(object{"ids": []string{mine[1], theirs, "dlv_nobodys"}}); got["requeued"] != 1.0 || got["more"] != false {
			t.Errorf("by ids: %v", got)
		}
		if got := replay(object{"since": time.Now().Add(time.Hour)}); got["requeued"] != 0.0 {
			t.Errorf("since a time that is to come: %v", got)
		}
		if got := replay(object{"since": time.Now().Add(-time.Hour)}); got["requeued"] != 2.0 {
			t.Errorf("since an hour: %v", got)
		}
		if got := replay(nil); got["requeued"] != 0.0 {
			t.Errorf("when none is dead: %v", got)
		}
		if got := r.as("GET", "/api/v1/deliveries/"+theirs, nil).decode(t); got["state"] != "dead" {
			t.Errorf("another's is %v", got["state"])
		}
		r.as("POST", at+"/replay", object{"since": time.Now(), "ids": []string{mine[0]}}).wantProblem(t, 422, "invalid")
		r.as("POST", "/api/v1/webhooks/whk_nobodys/replay", nil).wantProblem(t, 404, "not_found")
		r.as("GET", "/api/v1/webhooks/whk_nobodys/deliveries", nil).wantProblem(t, 404, "not_found")
	})
}

func TestTheTestOfAWebhookIsWithinTheLimitOfTests(t *testing.T) {
	w := &writer{rig: newRig(t, func(d *api.Deps) { d.Limits.Tests = 3 })}
	r := w.rig
	boss := r.enters("boss", accounts.Admin)
	id, _, _ := w.newWebhook("https://127.0.0.1:1/x")
	other, _, _ := w.newWebhook("https://127.0.0.1:1/y")
	boss.do("POST", "/channels/inbox/test", nil).wantStatus(t, 200)
	for _, hook := range []string{id, other} {
		boss.do("POST", "/webhooks/"+hook+"/test", nil).wantStatus(t, 200)
	}
	a := boss.do("POST", "/webhooks/"+id+"/test", nil)
	if a.wantProblem(t, 429, "busy"); a.Header.Get("Retry-After") == "" {
		t.Errorf("without Retry-After: %v", a.Header)
	}
	boss.do("POST", "/webhooks/whk_nobodys/test", nil).wantProblem(t, 404, "not_found")
	r.as("POST", "/api/v1/webhooks/"+id+"/test", nil).wantStatus(t, 200) // a key that is nobody's has its own
}

func TestEveryTestOfAChannelNamesTheLimitOfTests(t *testing.T) {
	tests := 0
	for _, o := range operations(newRig(t)) {
		if o.method != "POST" || !strings.HasSuffix(o.path, "/test") {
			continue
		}
		tests++
		if !strings.Contains(strings.ToLower(o.Says), "at most 10 tests a minute") {
			t.Errorf("%s says %q", o.path, o.Says)
		}
	}
	if tests != 4 {
		t.Errorf("there are %d tests", tests)
	}
}

func TestDeliveriesSayWhomTheyAreFor(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		w := &writer{rig: newRig(t)}
		r := w.rig
		ann, eve := r.enters("ann", accounts.Operator), r.enters("eve", accounts.Viewer)
		hook, _, _ := w.newWebhook("https://127.0.0.1:1/x")
		id := ann.sends(object{"topic": ann.topic(object{"name": "t"}), "title": "x"})
		mail, post, lost := w.deadDeliveryOf(id, eve.id), w.deadDelivery("webhook", hook), w.deadDelivery("email", "usr_gone")
		want := map[string]any{mail: "eve", post: "https://127.0.0.1:1/x", lost: nil}
		list := r.as("GET", "/api/v1/deliveries?state=dead", nil).listed(t)
		for _, d := range list {
			one := r.as("GET", "/api/v1/deliveries/"+d["id"].(string), nil).wantStatus(t, 200).decode(t)
			if name := want[d["id"].(string)]; d["target_name"] != name || one["target_name"] != name {
				t.Errorf("%v to %v is for %v, and alone for %v, want %v", d["channel"], d["target"], d["target_name"], one["target_name"], name)
			}
		}
		if len(list) != len(want) {
			t.Errorf("%d are listed", len(list))
		}
		for _, d := range ann.do("GET", "/notifications/"+id+"/deliveries", nil).listed(t) {
			if d["target_name"] != "eve" || d["target"] != eve.id {
				t.Errorf("a publisher is told %v", d)
			}
		}
	})
}

func TestATestMailGoesToOneselfAndSaysWhatCameOfIt(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		eve := r.enters("eve", accounts.Viewer)
		got := eve.do("POST", "/channels/email/test", nil).wantStatus(t, 200).decode(t)
		if got["delivered"] != true || field(got, "attempt", "reference") != "<x@muster.example>" || !cmp.Equal(r.tester.asked, []string{"email " + eve.id}) {
			t.Errorf("asked %v, got %v", r.tester.asked, got)
		}
		r.tester.attempt = mail.Attempt{Verdict: mail.Dead, Status: 550, Error: "no such user"}
		got = eve.do("POST", "/channels/email/test", nil).wantStatus(t, 200).decode(t)
		if got["delivered"] != false || field(got, "attempt", "status") != "550" {
			t.Errorf("got %v", got)
		}
		r.as("POST", "/api/v1/channels/email/test", nil).wantProblem(t, 403, "forbidden")
	})
}

func TestEveryChannelHasATestAndAllOfThemOneLimit(t *testing.T) {
	r := newRig(t, func(d *api.Deps) { d.Limits.Tests = 10 })
	eve := r.enters("eve", accounts.Operator)
	r.as("POST", "/api/v1/devices", object{"id": "pump-1"}).wantStatus(t, 201)
	var want []string
	for i := range 10 {
		at, asked := "/channels/inbox/test", "inbox "+eve.id
		if i%2 == 1 {
			at, asked = "/devices/pump-1/notifications/test", "mqtt pump-1"
		}
		if got := eve.do("POST", at, nil).wantStatus(t, 200).decode(t); got["delivered"] != true {
			t.Errorf("got %v", got)
		}
		want = append(want, asked)
	}
	a := eve.do("POST", "/channels/email/test", nil)
	a.wantProblem(t, 429, "busy")
	if a.Header.Get("Retry-After") == "" || !cmp.Equal(r.tester.asked, want) {
		t.Errorf("asked %v, Retry-After %q", r.tester.asked, a.Header.Get("Retry-After"))
	}
	for range 2 { // another key is no other sender
		_, key, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "eve's", Scopes: []string{accounts.NotifySend}, Owner: eve.id})
		r.must(err)
		a := r.do("POST", "/api/v1/devices/pump-1/notifications/test", nil, bearer(key))
		if a.wantProblem(t, 429, "busy"); a.Header.Get("Retry-After") == "" {
			t.Errorf("without Retry-After: %v", a.Header)
		}
	}
	r.as("POST", "/api/v1/channels/inbox/test", nil).wantProblem(t, 403, "forbidden")
	r.as("POST", "/api/v1/devices/nobody/notifications/test", nil).wantProblem(t, 404, "not_found")
	r.enters("vic", accounts.Viewer).do("POST", "/devices/pump-1/notifications/test", nil).wantProblem(t, 403, "forbidden")
	r.tester.attempt = mail.Attempt{Verdict: mail.Later, Error: "the device is not connected, or not subscribed"}
	got := r.as("POST", "/api/v1/devices/pump-1/notifications/test", nil).wantStatus(t, 200).decode(t)
	if got["delivered"] != false || field(got, "attempt", "verdict") != "later" {
		t.Errorf("got %v", got)
	}
}
