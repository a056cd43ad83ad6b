package ui

import (
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestOnAPhoneTheRailShowsThePageThatOneIsOn goes to the first and the last of the places, whose bar is wider than a phone.
func TestOnAPhoneTheRailShowsThePageThatOneIsOn(t *testing.T) {
	b := openAllPlaces(t)
	b.do(chromedp.EmulateViewport(390, 844))
	seen := func(path string) string {
		return `(r => r && document.querySelector(".rail").scrollWidth > 780 && r.left >= 0 && r.right <= 390)(document.querySelector(".rail > a[aria-current=page][href='` + path + `']")?.getBoundingClientRect())`
	}
	b.visit("/audit")
	b.wait("Audit in the bar", seen("/audit"))
	b.shoot("rail-phone")
	b.do(chromedp.KeyEvent("gd"))
	b.wait("Devices in the bar", `location.pathname === "/devices" && `+seen("/devices"))
	b.do(chromedp.KeyEvent("gm"))
	b.wait("My account in the bar", `location.pathname === "/account" && `+seen("/account"))
	b.do(chromedp.EmulateViewport(1440, 900))
	b.wait("the rail at the side", `document.querySelector(".rail").clientHeight > 800`)
	b.do(chromedp.EmulateViewport(390, 844))
	b.wait("My account in the bar again", seen("/account"))
}

// TestOnAPhoneAllWhoWaitForAdoptionAreSelectedAtOnce has the box of the table's head above the table, where rows are stacked.
func TestOnAPhoneAllWhoWaitForAdoptionAreSelectedAtOnce(t *testing.T) {
	f := fleetOf25(t)
	knock := func(id string) object {
		return object{"id": id, "client_id": id, "username": "u", "peer": "10.0.0.7:4411", "listener": "tcp", "adoption_key": "workshop", "first_at": ago(0), "last_at": ago(0), "messages": 3}
	}
	f.answer("/inbox", object{"items": []object{knock("plug-1"), knock("plug-2")}, "next": nil})
	for _, path := range []string{"/adoption-keys", "/blocked-clients", "/profiles"} {
		f.answer(path, object{"items": []object{}, "next": nil})
	}
	b := open(t, f)
	b.expect("Failed to load resource")
	b.visit("/adoption")
	b.waitText(".candidates tbody", "plug-2")
	boxes := `[...document.querySelectorAll(".adoption input[type=checkbox]")].filter(e => e.getClientRects().length > 0 && e.ariaLabel === "Select all that wait").length`
	if n := evaluate[int](b, boxes); n != 1 {
		t.Errorf("there are %d boxes for all, want one", n)
	}
	b.do(chromedp.EmulateViewport(390, 844))
	b.wait("one box on a phone too", boxes+" === 1")
	b.click(".every input")
	b.waitText(".decide", "2")
	b.waitText(".decide [type=submit]", "Adopt 2")
	b.shootAll("adoption-selected")
}

// TestWhoSentACommandIsCalledByName has a command of a key, of a user and of oneself.
func TestWhoSentACommandIsCalledByName(t *testing.T) {
	f, x := fullDevice(t)
	x.set("commands", listed(
		commandOf("9", "led/set", "succeeded", object{"created_by": "key_9d3e", "finished_at": stamped(0)}), commandOf("8", "led/set", "succeeded", object{"created_by": "usr_2", "finished_at": stamped(0)}),
		commandOf("7", "led/set", "succeeded", object{"created_by": "usr_1", "finished_at": stamped(0)}), commandOf("6", "led/set", "succeeded", object{"created_by": "key_gone", "finished_at": stamped(0)}),
	))
	asked := 0
	names := func(items ...object) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			f.mu.Lock()
			asked++
			f.mu.Unlock()
			writeJSON(w, 200, listed(items...))
		}
	}
	f.extra["GET /api/v1/api-keys"] = names(object{"id": "key_9d3e", "name": "night shift"})
	f.extra["GET /api/v1/users"] = names(object{"id": "usr_2", "name": "Bo Lind"})
	b := open(t, f)
	b.visit(tabPath("commands"))
	b.waitText("[data-command='9']", "by night shift")
	b.waitText("[data-command='8']", "by Bo Lind")
	b.waitText("[data-command='7']", "by Ada Kern")
	b.waitText("[data-command='6']", "by key_gone")
	b.shootAll("device-commands")

	f.mu.Lock()
	f.role, asked = "viewer", 0 // who may not see keys
	f.mu.Unlock()
	b.visit(tabPath("commands"))
	b.waitText("[data-command='9']", "by key_9d3e")
	b.waitText("[data-command='7']", "by Ada Kern")
	f.mu.Lock()
	defer f.mu.Unlock()
	if asked != 0 {
		t.Errorf("a viewer's page asks %d times for what it is refused", asked)
	}
}
