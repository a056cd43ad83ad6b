package ui

import (
	"encoding/json"
	"maps"
	"net/http"
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
