package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// controls is what the controls of a page say: what is pressed, current or sorted, chosen and written, and which columns there are.
const controls = `JSON.stringify([
	[...document.querySelectorAll("main :is([aria-pressed=true], [aria-current], button[aria-expanded=true], [aria-sort]:not([aria-sort=none]))")].map(e => e.textContent.trim() + (e.ariaSort ?? "")),
	[...document.querySelectorAll("main select")].map(e => e.value),
	[...document.querySelectorAll("main input:not([type=checkbox], [type=radio], [type=file])")].map(e => e.value),
	[...document.querySelectorAll("main table.devices thead th")].map(e => e.textContent.trim()),
	[...document.querySelectorAll("main .rolloutdevices .chip")].map(e => e.textContent),
	document.querySelectorAll("main .chart").length,
	document.querySelector("main .when:not([hidden])")?.textContent ?? "",
])`

// gesture is one of a user's on a control of a page.
type gesture struct {
	path string
	do   string // press, choose, write, or column: tick one in the menu of columns
	at   string // the words of what is pressed, else a selector
	what string // that is chosen or written
	name string // that the address has for it; empty for another path
}

func gestures(topic, hook, rollout string) []gesture {
	return []gesture{
		{"/", "press", "firmware", "", "by"},
		{"/", "press", "last seen", "", "by"},
		{"/", "press", "Table", "", "dots"},
		{"/devices", "write", ".search input", "tag:site=rome", "q"},
		{"/devices", "press", "Last seen", "", "sort"},
		{"/devices", "press", "Device", "", "sort"},
		{"/devices", "press", "Next 50", "", "after"},
		{"/devices", "column", "Firmware", "", "cols"},
		{"/devices", "column", "battery: value", "", "cols"},
		{"/devices/fresh", "press", "curl", "", "tool"},
		{"/devices/fresh?tool=curl", "press", "PowerShell", "", "shell"},
		{"/devices/rich", "press", "3 h", "", "from"},
		{"/devices/rich", "press", "‹", "", "to"},
		{"/devices/rich", "press", "Show 4 more signals", "", "charts"},
		{"/devices/rich", "press", "History", "", ""},
		{"/devices/rich/history", "choose", "main select", "k03", "key"},
		{"/devices/rich/events", "press", "Logs", "", "show"},
		{"/devices/rich/events?show=logs", "choose", "main select", "warn", "level"},
		{"/devices/rich/events", "write", "main .r input", "door", "type"},
		{"/devices/rich/messages", "write", "main .r input", "k03", "q"},
		{"/inbox", "press", ".filters nav a:first-child", "", "show"},
		{"/inbox", "choose", "main select", topic, "topic"},
		{"/topics/" + topic, "press", "Open", "", "state"},
		{"/webhooks/" + hook, "press", "dead", "", "state"},
		{"/dashboard", "write", ".clients input[type=search]", "nobody", "client"},
		{"/dashboard", "choose", ".clients select", "received", "clients"},
		{"/tasks", "choose", "main select", "succeeded", "state"},
		{"/audit", "write", "main [name=object]", "groups/spare", "object"},
		{"/rollouts", "press", "New rollout", "", "new"},
		{"/rollouts/" + rollout, "choose", ".rolloutdevices select", "queued", "state"},
		{"/rollouts/" + rollout + "?state=queued&reason=offline", "press", ".rolloutdevices .chip", "", "state"},
		{"/rollouts/" + rollout, "press", "Why?", "", "why"},
		{"/rollouts/" + rollout, "write", ".askwhy input", "pump-007", "why"},
	}
}

// does makes a gesture.
func (b *tab) does(g *gesture) {
	b.t.Helper()
	switch g.do {
	case "press":
		at := fmt.Sprintf(`document.querySelector("main "+%q)`, g.at)
		if !strings.HasPrefix(g.at, ".") {
			at = fmt.Sprintf(`[...document.querySelectorAll("main :is(button, a):not(:disabled)")].find(e => e.textContent.trim().toLowerCase() === %q.toLowerCase())`, g.at)
		}
		b.wait(g.at, at)
		evaluate[bool](b, "("+at+".click(), true)")
	case "column":
		menu := `document.querySelector("main .menu.columns > button")`
		box := fmt.Sprintf(`document.querySelector('main .menu.columns input[aria-label=%q]')`, g.at)
		b.wait("the menu of columns", menu)
		evaluate[bool](b, "("+menu+".click(), true)")
		b.wait(g.at, box)
		evaluate[bool](b, "("+box+".click(), "+menu+".click(), true)")
	case "choose":
		b.wait(g.what, fmt.Sprintf(`[...document.querySelector(%q)?.options ?? []].some(o => o.value === %q)`, g.at, g.what))
		evaluate[bool](b, fmt.Sprintf(`(e => { e.value = %q; e.dispatchEvent(new Event("change", {bubbles: true})); return true; })(document.querySelector(%q))`, g.what, g.at))
	case "write":
		b.wait(g.at, fmt.Sprintf(`document.querySelector(%q)`, g.at))
		evaluate[bool](b, fmt.Sprintf(`(e => { e.focus(); e.select(); return true; })(document.querySelector(%q))`, g.at))
		b.do(chromedp.KeyEvent(g.what + "\r"))
	}
}

// TestAnAddressCarriesTheStateOfEachControlToAnotherBrowser has one person in two browsers: what one of them does is in the
// address, which shows the same in the other.
func TestAnAddressCarriesTheStateOfEachControlToAnotherBrowser(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.fleet(60)
	topic, hook := m.rich()
	s := &story{muster: m, dir: t.TempDir()}
	_, rollout := s.ship("id:pump-*")
	b, other := openTab(t, m), openTab(t, m)
	b.comesIn(m)
	other.signsIn("ada@example.com", firstPassword)
	for _, g := range gestures(topic, hook, rollout) {
		b.do(chromedp.Navigate(b.base + g.path))
		b.wait(g.path, `document.querySelector("[data-live=yes] main :is(h1, h2)")`)
		before := b.settled()
		b.does(&g)
		b.wait(fmt.Sprintf("%s %s %s in the address", g.path, g.at, g.what), fmt.Sprintf(`location.pathname + location.search !== %q && (%q === "" || new URLSearchParams(location.search).get(%q))`, g.path, g.name, g.name))
		after := b.settled()
		if after == before {
			t.Errorf("%s, %s %s: the page says the same as before: %s", g.path, g.do, g.at, after)
		}
		address := evaluate[string](b, "location.pathname + location.search")
		other.do(chromedp.Navigate(other.base + address))
		other.wait(fmt.Sprintf("what %s shows in the first browser: %s", address, after), fmt.Sprintf("%s === %q", controls, after))
	}
	b.pinsTheCrosshair(other)
	b.known("-")
	other.known("-")
}

// settled is what the controls say when they have said it twice.
func (b *tab) settled() string {
	b.t.Helper()
	said := ""
	b.wait("the page to come to rest", `(() => {
		const says = `+controls+`;
		const rests = window.__says === says && Date.now() - window.__at > 400;
		if (window.__says !== says) { window.__says = says; window.__at = Date.now(); }
		return rests;
	})()`)
	said = evaluate[string](b, "window.__says")
	evaluate[bool](b, "(window.__says = undefined, true)")
	return said
}

// pinsTheCrosshair clicks into a chart, in which the other browser shows the same time.
func (b *tab) pinsTheCrosshair(other *tab) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + "/devices/rich"))
	b.wait("a chart", `document.querySelector(".chart .u-over")?.getBoundingClientRect().width > 100`)
	box := evaluate[[]float64](b, `(e => { const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })(document.querySelector(".chart .u-over"))`)
	b.do(chromedp.MouseEvent("mouseMoved", box[0], box[1]), chromedp.MouseClickXY(box[0], box[1]))
	b.wait("the time in the address", `new URLSearchParams(location.search).get("at")`)
	address := evaluate[string](b, "location.pathname + location.search")
	at := evaluate[string](b, `new Date(new URLSearchParams(location.search).get("at")).toISOString().slice(11, 18)`)
	other.do(chromedp.Navigate(other.base + address))
	other.wait("the crosshair at "+at, `document.querySelector(".when:not([hidden])")?.textContent.startsWith(new Intl.DateTimeFormat("en-GB", {hour: "2-digit", minute: "2-digit"}).format(new Date(new URLSearchParams(location.search).get("at"))).slice(0, 4))`)
}

// rich makes a device with twelve keys and one that never came, a topic and a webhook, of which it returns the ids.
func (m *muster) rich() (topic, hook string) {
	m.t.Helper()
	for _, id := range []string{"rich", "fresh"} {
		m.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": id}, http.StatusCreated, nil)
	}
	var keys []string
	for i := range 12 {
		keys = append(keys, fmt.Sprintf(`"k%02d":%d`, i, i*10))
	}
	line := `{"device":"rich",` + strings.Join(keys, ",") + "}\n"
	m.post("/api/v1/telemetry", "application/x-ndjson", packed(m.t, []byte(line)), http.StatusOK)
	m.post("/api/v1/telemetry", "application/x-ndjson", packed(m.t, []byte(strings.ReplaceAll(line, ":1", ":2"))), http.StatusOK)
	var made struct{ ID string }
	m.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": "pumps"}, http.StatusCreated, &made)
	var made2 struct{ Webhook struct{ ID string } }
	m.ask(http.MethodPost, "/api/v1/webhooks", map[string]any{"url": "https://192.0.2.1/", "types": []string{"*"}}, http.StatusCreated, &made2)
	return made.ID, made2.Webhook.ID
}
