package ui

import (
	"io"
	"net/http"
	"testing"
)

// TestADeviceGetsARolloutOfItsOwn goes through the steps of a past update, chooses to go back to what the device had
// before, and installs it: a rollout of that device alone.
func TestADeviceGetsARolloutOfItsOwn(t *testing.T) {
	f, x := fullDevice(t)
	bodies := make(chan string, 1)
	old := release("rel_0", "2.7.0", "published")
	f.extra["GET /api/v1/firmware/releases"] = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, listed(release("rel_1", "2.8.0", "published"), old, release("rel_9", "3.0.0", "draft")))
	}
	f.extra["GET /api/v1/rollouts/rol_1/log"] = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("device") != probe {
			problem(w, 400, "invalid", "the page asked "+r.URL.RawQuery)
			return
		}
		writeJSON(w, 200, listed(object{"number": 8, "device": probe, "event": "confirmed", "from": "rebooting", "to": "confirmed", "attempt": 1, "at": ago(0)}))
	}
	f.extra["POST /api/v1/rollouts"] = func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies <- string(b)
		writeJSON(w, 201, rolloutBody("rol_7", progress("rol_7", "running")))
	}
	twin := x.items["twin"].(object)
	twin["reported"] = object{"version": 3, "state": object{"firmware": object{"version": "2.8.0", "slot": "b"}}}
	b := open(t, f)
	b.visit(tabPath("firmware"))
	b.waitText(".reportedfirmware", "firmware.slotb")
	b.click(`[aria-label="Steps of Vaults 2.8"]`)
	b.waitText(".firmwaresteps tbody", "confirmed")
	b.wait("two releases, the draft is none", `document.querySelectorAll(".update [name=release] option").length === 3`)
	b.click(".update .btn.back")
	b.wait("the one before", `document.querySelector(".update [name=release]").value === "rel_0"`)
	b.click(".update .btn.pri")
	const want = `{"name":"pump-controller 2.7.0 on ` + probe + `","release":"rel_0","q":"id=\"` + probe + `\"","supersede":"wait","start":true,"downgrade":true,"plan":{"phases":[{"percent":100}]}}`
	if got := <-bodies; got != want {
		t.Errorf("the page asked for %s, want %s", got, want)
	}
	b.waitText(".update", "It has begun:")
	f.mu.Lock()
	f.role = "viewer"
	f.mu.Unlock()
	b.visit(tabPath("firmware"))
	b.waitText(".update", "This needs the role operator.")
	b.wait("nothing to press", `[...document.querySelectorAll(".update :is(button, select)")].every(e => e.matches(":disabled"))`)
}
