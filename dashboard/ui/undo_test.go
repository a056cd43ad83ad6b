package ui

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"
)

// offered waits until there is something to take back, and keeps it there as a pointer on it does.
func (b *tab) offered(words string) {
	b.t.Helper()
	b.wait(words, `(e => e?.textContent.includes(`+quote(words)+`) && (e.dispatchEvent(new PointerEvent("pointerenter")), true))(document.querySelector(".undoing"))`)
}

func TestACommandIsTakenBackWhileItIsQueuedAndItIsSaidWhenItIsTooLate(t *testing.T) {
	f, x := fullDevice(t)
	x.set("commands/9", commandOf("9", "led/set", "queued", object{"attempts": 0}))
	cancelled := make(chan bool, 4)
	f.extra["POST /api/v1/devices/{id}/commands/{cid}/cancel"] = func(w http.ResponseWriter, r *http.Request) {
		cancelled <- r.PathValue("cid") == "9"
		writeJSON(w, 200, commandOf("9", "led/set", "cancelled", object{"attempts": 0, "finished_at": stamped(0)}))
	}
	b := open(t, f)
	b.visit(tabPath("commands"))
	b.types("[name=method]", "led/set")
	b.click(".sendform [type=submit]")
	b.offered("is queued for " + probe)
	b.shootAll("undo")
	b.click(".undoing .btn:not(.txt)")
	b.waitText(".undoing", "led/set was called off before it was sent to "+probe)
	if !<-cancelled {
		t.Error("another command was called off")
	}
	b.wait("no second undo", `!document.querySelector(".undoing .btn:not(.txt)")`)

	x.set("commands/9", commandOf("9", "led/set", "delivered", object{"sent_at": stamped(0), "delivered_at": stamped(0)}))
	b.types("[name=method]", "led/set")
	b.click(".sendform [type=submit]")
	b.offered("Too late: led/set was sent to " + probe)
	b.wait("nothing to press but Close", `document.querySelectorAll(".undoing button").length === 1`)
	if len(cancelled) > 0 {
		t.Error("a command that the device has was called off")
	}
	b.click(".undoing .btn.txt")
	b.wait("it to go", `!document.querySelector(".undoing")`)
}

func TestLeavingATopicIsTakenBackWithAllThatWentOut(t *testing.T) {
	f := newFake(t)
	f.user = object{"id": "usr_1", "name": "Ada Kern"}
	now := time.Now().UTC().Format(time.RFC3339Nano)
	mail := object{"channel": "email", "severity": "major", "digest_s": 300}
	mine := object{"topic": "top_1", "topic_name": "doors", "subject": "usr_1", "channels": []object{mail}, "version": 1, "created_at": now, "updated_at": now}
	topic := object{
		"id": "top_1", "name": "doors", "title": "Doors", "visibility": "internal", "ack_policy": "any", "status": "active", "role": "owner", "subscribers": 1, "may_publish": true,
		"subscription": mine,
	}
	was := make(chan object, 1)
	f.extra = map[string]http.HandlerFunc{
		"GET /api/v1/topics": func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, listed(topic)) },
		"DELETE /api/v1/topics/top_1/subscriptions/me": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
		},
		"PUT /api/v1/topics/top_1/subscriptions/me": func(w http.ResponseWriter, r *http.Request) {
			var in object
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			was <- in
			writeJSON(w, 200, mine)
		},
		"GET /api/v1/deliveries": func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, listed()) },
	}
	b := open(t, f)
	b.visit("/topics")
	b.click(`tr[data-topic="doors"] button`)
	b.offered("You are not subscribed to Doors any more.")
	b.click(".undoing .btn:not(.txt)")
	b.waitText(".undoing", "Doors: your subscription is as it was.")
	in := <-was
	if c, ok := in["channels"].([]any); !ok || len(c) != 1 || c[0].(object)["severity"] != "major" || c[0].(object)["digest_s"] != 300.0 {
		t.Errorf("the subscription comes back as %v", in)
	}
}
