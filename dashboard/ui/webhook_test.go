package ui

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// A chat service verifies no signatures, and of its URL only a name is known: the page offers no new
// secret, and sends the URL only when another was typed.
func TestAChatServiceHasNoSecretsAndKeepsItsURL(t *testing.T) {
	f := newFake(t)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	hook := object{
		"id": "whk_chat", "url": "shoutrrr:discord", "types": []string{"notification.*"}, "topics": []string{"doors"}, "q": "", "description": "", "disabled": false,
		"owner": "Ada", "secrets": []object{}, "created_at": now, "updated_at": now,
	}
	changes := make(chan object, 4)
	empty := func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"items": []object{}, "next": nil})
	}
	f.extra = map[string]http.HandlerFunc{
		"GET /api/v1/webhooks/{id}": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"7"`)
			one := maps.Clone(hook)
			if r.PathValue("id") == "whk_plain" {
				one["url"], one["secrets"] = "https://x.example/in", []object{{"created_at": now}}
			}
			writeJSON(w, 200, one)
		},
		"PATCH /api/v1/webhooks/{id}": func(w http.ResponseWriter, r *http.Request) {
			var in object
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			in["If-Match"] = r.Header.Get("If-Match")
			changes <- in
			writeJSON(w, 200, hook)
		},
		"GET /api/v1/webhooks/{id}/deliveries": empty, "GET /api/v1/event-types": empty, "GET /api/v1/topics": empty,
	}
	b := open(t, f)
	b.visit("/webhooks/whk_plain")
	b.waitText(".secrets .btn", "New secret")
	b.visit("/webhooks/whk_chat")
	b.waitText("h1", "shoutrrr:discord")
	b.wait("the form", "document.querySelector('.changewebhook .btn')")
	if evaluate[bool](b, "document.querySelector('.secrets') !== null") {
		t.Error("a new secret is offered for a chat service")
	}
	b.click(".changewebhook .btn")
	in := <-changes
	if _, sent := in["url"]; sent || in["If-Match"] != `"7"` || len(in["topics"].([]any)) != 1 {
		t.Errorf("the change is %v", in)
	}
}

// TestAWebhooksPageFollowsItsDeliveries has deliveries come, fail and arrive, and the webhook be disabled, while its page is
// open: the page says so by itself, and keeps the attempts that are folded out.
func TestAWebhooksPageFollowsItsDeliveries(t *testing.T) {
	f := newFake(t)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	one := func(id, state string) object {
		return object{
			"id": id, "channel": "webhook", "queue": "whk_1", "target": "whk_1", "priority": "normal", "state": state, "attempts": 1, "due_at": nil, "ended_at": nil, "created_at": now,
			"tries": []object{{"at": now, "verdict": "again", "status": 500, "duration_ms": 2, "error": "it answered 500"}},
		}
	}
	var mu sync.Mutex
	items, disabled := []object{}, false
	f.extra = map[string]http.HandlerFunc{
		"GET /api/v1/webhooks/{id}": func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			writeJSON(w, 200, object{
				"id": "whk_1", "url": "https://x.example/in", "types": []string{"*"}, "topics": []string{}, "q": "", "description": "", "disabled": disabled, "reason": "it answered 410",
				"owner": "Ada", "secrets": []object{}, "created_at": now, "updated_at": now,
			})
		},
		"GET /api/v1/webhooks/{id}/deliveries": func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			writeJSON(w, 200, object{"items": items, "next": nil})
		},
		"GET /api/v1/event-types": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 200, object{"items": []object{}, "next": nil})
		},
	}
	is := func(off bool, list ...object) {
		mu.Lock()
		defer mu.Unlock()
		items, disabled = list, off
	}
	b := open(t, f)
	b.visit("/webhooks/whk_1")
	b.waitText(".sent .quiet-note", "Nothing was sent yet.")
	is(false, one("dlv_1", "queued"))
	b.waitText(".sent .outgo li:nth-child(1)", "queued webhook to https://x.example/in")
	evaluate[bool](b, "(document.querySelector('.sent details').open = true)")
	b.waitText(".sent .tries", "it answered 500")
	is(true, one("dlv_2", "queued"), one("dlv_1", "sent"))
	b.waitText(".sent .outgo li:nth-child(2)", "sent webhook to")
	b.waitText(".facts", "disabled it answered 410")
	if !evaluate[bool](b, "document.querySelector('.sent li:nth-child(2) details').open") {
		t.Error("the attempts were folded away")
	}
}

func TestWhatWasGivenUpSaysWhomItWasFor(t *testing.T) {
	f := newFake(t)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	dead := func(id, target, name string) object {
		d := object{
			"id": id, "channel": "email", "queue": "email", "target": target, "priority": "normal", "state": "dead", "attempts": 1, "due_at": nil,
			"created_at": now, "ended_at": now, "error": "no such mailbox",
		}
		if name != "" {
			d["target_name"] = name
		}
		return d
	}
	f.extra = map[string]http.HandlerFunc{
		"GET /api/v1/topics": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 200, object{"items": []object{}, "next": nil})
		},
		"GET /api/v1/deliveries": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 200, object{"items": []object{dead("dlv_2", "usr_2b7a", "Ada Kern"), dead("dlv_1", "usr_gone", "")}, "next": nil})
		},
	}
	b := open(t, f)
	b.visit("/topics")
	b.waitText(".dead .outgo li:nth-child(1)", "email to Ada Kern")
	b.waitText(".dead .outgo li:nth-child(2)", "email to usr_gone")
	if evaluate[bool](b, "document.querySelector('.dead').textContent.includes('usr_2b7a')") {
		t.Error("a user is shown by his id")
	}
}

// What was given up is a list by its own address: of one channel or of all, sent again one by one or
// all that match, after they were counted.
func TestAllThatWasGivenUpIsCountedAndSentAgain(t *testing.T) {
	f := newFake(t)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	dead := func(id, channel, target string) object {
		return object{
			"id": id, "channel": channel, "queue": channel, "target": target, "priority": "normal", "state": "dead", "attempts": 1, "due_at": nil,
			"created_at": now, "ended_at": now, "error": "it answered 410",
		}
	}
	var mu sync.Mutex
	all := []object{dead("dlv_3", "webhook", "whk_1"), dead("dlv_2", "mqtt", "pump-1"), dead("dlv_1", "webhook", "whk_1")}
	asked := make(chan []any, 4)
	f.extra = map[string]http.HandlerFunc{
		"GET /api/v1/deliveries": func(w http.ResponseWriter, r *http.Request) { // a delivery to a page, so that there are several
			mu.Lock()
			defer mu.Unlock()
			q := r.URL.Query()
			var found []object
			for _, d := range all {
				if (q.Get("channel") == "" || d["channel"] == q.Get("channel")) && (q.Get("after") == "" || d["id"].(string) < q.Get("after")) {
					found = append(found, d)
				}
			}
			page := object{"items": append([]object{}, found[:min(1, len(found))]...), "next": nil}
			if len(found) > 1 {
				page["next"] = found[0]["id"]
			}
			writeJSON(w, 200, page)
		},
		"POST /api/v1/deliveries:requeue": func(w http.ResponseWriter, r *http.Request) {
			var in object
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			asked <- in["ids"].([]any)
			mu.Lock()
			all = slices.DeleteFunc(all, func(d object) bool { return slices.Contains(in["ids"].([]any), d["id"]) })
			mu.Unlock()
			writeJSON(w, 200, object{"requeued": in["ids"]})
		},
	}
	b := open(t, f)
	b.visit("/topics?show=dead")
	b.waitText("h1", "What was given up")
	b.waitText(".dead .outgo", "webhook to whk_1")
	if href := evaluate[string](b, `document.querySelector(".dead .outgo li .sub a").getAttribute("href")`); href != "/webhooks/whk_1" {
		t.Errorf("a webhook links to %s", href)
	}
	b.press("webhook")
	b.wait("the channel in the address", `new URLSearchParams(location.search).get("channel") === "webhook"`)
	b.press("Send all by webhook again")
	b.waitText(".dead .btn.pri:not(:disabled)", "Send 2 deliveries again?")
	b.click(".dead .btn.pri:not(:disabled)")
	if ids := <-asked; len(ids) != 2 || ids[0] != "dlv_3" || ids[1] != "dlv_1" {
		t.Errorf("%v are sent again", ids)
	}
	b.waitText(".dead", "2 deliveries are queued again.")
	b.waitText(".dead", "Nothing by webhook.")
	b.press("All")
	b.waitText(".dead .outgo", "mqtt to pump-1")
	b.shootAll("dead")
	b.click(".dead .outgo .btn")
	if ids := <-asked; len(ids) != 1 || ids[0] != "dlv_2" {
		t.Errorf("%v is sent again", ids)
	}
	b.waitText(".dead", "Nothing: all that went out arrived, or is still tried.")

	viewer := newFake(t)
	viewer.role = "viewer"
	b = open(t, viewer)
	b.visit("/topics?show=dead")
	b.waitText("main", "Only admins see what was given up.")
}
