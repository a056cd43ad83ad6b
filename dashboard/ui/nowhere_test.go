package ui

import (
	"bytes"
	"testing"

	"github.com/chromedp/chromedp"
)

func TestAnUnknownPathIsAPageForABrowserAndPlainForOthers(t *testing.T) {
	h := Handler("1")
	index := body(t, get(t, h, "GET", "/"))
	const browser = "text/html,application/xhtml+xml,*/*;q=0.8"
	for _, c := range []struct {
		method, path, accept, dest string
		status                     int
		page                       bool
	}{
		{"GET", "/nowhere", browser, "", 404, true},
		{"GET", "/devices/a/b/c", browser, "document", 404, true},
		{"GET", "/devices/", browser, "", 404, true},
		{"HEAD", "/nowhere", browser, "", 404, false},
		{"GET", "/nowhere", "*/*", "", 404, false},
		{"GET", "/nowhere", browser, "iframe", 404, false},
		{"GET", "/nowhere", "", "script", 404, false},
		{"GET", "/nowhere.js", browser, "document", 404, false},
		{"GET", "/index.html", browser, "", 404, false},
		{"POST", "/nowhere", browser, "", 404, false},
		{"POST", "/devices", browser, "", 405, false},
		{"GET", "/devices", browser, "document", 200, true},
	} {
		r := get(t, h, c.method, c.path, "Accept", c.accept, "Sec-Fetch-Dest", c.dest)
		if r.StatusCode != c.status {
			t.Errorf("%s %s (%s, %s) is answered %d, want %d", c.method, c.path, c.accept, c.dest, r.StatusCode, c.status)
		}
		if got := bytes.Equal(body(t, r), index); got != c.page {
			t.Errorf("%s %s (%s, %s) has the page: %t, want %t", c.method, c.path, c.accept, c.dest, got, c.page)
		}
		if c.page && (r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Content-Security-Policy") != policy) {
			t.Errorf("%s has the header %v", c.path, r.Header)
		}
	}
}

func TestAnUnknownAddressSaysSoAndLeadsBack(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.expect("404")
	b.visit("/rollouts/rol_1/x%3Cb%3E")
	b.waitText(".nowhere h1", "There is no page at this address")
	b.waitText(".nowhere", "You asked for /rollouts/rol_1/x%3Cb%3E")
	b.wait("its title", `document.title === "Not found · Muster" && document.querySelector(".crumb").textContent === "Not found"`)
	b.inspect("nowhere")
	b.click(".nowhere .btn")
	b.waitText(".roll h1", "24 of 25")
	b.wait("the Overview's address", `location.pathname === "/"`)

	f.mu.Lock()
	f.signedOut = true
	f.mu.Unlock()
	b.expect("401")
	b.visit("/nowhere")
	b.waitText(".signin h1", "Sign in")
}

// TestTheSetUpFormIsPutOffForTheSession puts the form off, loads other pages, and finds it at one's account.
func TestTheSetUpFormIsPutOffForTheSession(t *testing.T) {
	f := fleetOf25(t)
	f.answer("/topics", listed())
	f.setUp = true
	b := open(t, f)
	b.visit("/")
	b.waitText("#setup-title", "Make your admin account")
	b.wait("no other way to it yet", `!document.querySelector(".putoff")`)
	b.click(".setup header .btn")
	b.wait("the form to go", `!document.querySelector(".setup")`)
	for _, path := range []string{"/devices", "/inbox", "/"} {
		b.visit(path)
		b.waitText(".rail .putoff", "Make your account")
		if evaluate[bool](b, `!!document.querySelector(".setup")`) {
			t.Errorf("the form is back on %s", path)
		}
	}
	b.do(chromedp.EmulateViewport(390, 844))
	b.wait("the way to it on a phone", `document.querySelector(".rail .putoff").checkVisibility()`)
	b.do(chromedp.EmulateViewport(1440, 900))
	b.visit("/inbox")
	b.waitText("main", "An inbox is a user's.") // and the server is asked for none: it would refuse, which the console would tell
	b.inspect("inbox-nobodys")
	b.click(".rail .putoff")
	b.waitText("#setup-title", "Make your admin account")
	b.wait("its fields", `document.querySelectorAll(".setup input").length === 3 && !document.querySelector(".setup header .btn")`)
}

// TestSimulatedDevicesStayOfferedForRemovalOnTheOverview loads the page anew while the server has some, however they came to be there.
func TestSimulatedDevicesStayOfferedForRemovalOnTheOverview(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.visit("/")
	b.waitText(".roll h1", "24 of 25")
	f.mu.Lock()
	f.simulated = 25
	f.mu.Unlock()
	f.put("simulated-0001", "Simulated meter", "online", nil)
	f.tally(130) // somebody else made them
	b.waitText(".simulation", "25 simulated devices publish, with the tag sim.")
	b.visit("/")
	b.waitText(".simulation", "25 simulated devices publish, with the tag sim.")
	b.shootAll("overview-simulated")
	b.press("Remove the simulated devices")
	b.wait("the line to go", `!document.querySelector(".simulation")`)
	f.mu.Lock()
	left := f.simulated
	f.role = "viewer"
	f.simulated = 25
	f.mu.Unlock()
	if left != 0 {
		t.Errorf("%d devices are left", left)
	}
	b.visit("/")
	b.waitText(".roll h1", "25 of 26")
	b.waitText(".live", "Live")
	if evaluate[bool](b, `performance.getEntriesByType("resource").some(e => e.name.endsWith("/simulation"))`) {
		t.Error("a viewer's page asks for what it may not remove")
	}
}
