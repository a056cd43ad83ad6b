package ui

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"
)

// fakeDots is a layout: sections of devices with the code of each one's state.
type fakeDots struct {
	version  uint32
	sections []object
	ids      []string
	codes    []byte
	asked    []object // every dots command
	places   []int    // by map: latitude, longitude and how many, for each
}

// section adds devices, named after it.
func (d *fakeDots) section(name string, n int, code byte) {
	d.sections = append(d.sections, object{"name": name, "first": len(d.ids), "count": n, "q": "group:" + name})
	for i := range n {
		d.ids = append(d.ids, fmt.Sprintf("%s-%04d", name, i))
		d.codes = append(d.codes, code)
	}
}

// calm is what the API answers of a fleet that needs nobody.
func calm() map[string]object {
	none := object{"items": []object{}, "next": nil}
	return map[string]object{
		"GET /api/v1/fleet/traffic": {"since": "2026-01-01T00:00:00.000000Z", "items": []object{}},
		"GET /api/v1/rejected":      none, "GET /api/v1/rollouts": none, "GET /api/v1/deliveries": none, "GET /api/v1/firmware/releases": none,
		"GET /api/v1/api-keys": none, "GET /api/v1/users": none,
		"GET /api/v1/devices": {"items": []object{}, "next": nil, "total": 0, "plan": object{}},
	}
}

// arrange answers a sub of dots. The caller holds mu.
func (f *fakeServer) arrange(m, out object) {
	by, _ := m["by"].(string)
	f.dots.version++
	out["by"], out["version"], out["total"] = by, f.dots.version, len(f.dots.ids)
	out["states"], out["sections"] = []string{"never", "online", "quiet", "offline", "unknown", "updating"}, f.dots.sections
	if by == "map" {
		out["cell"], out["places"] = 5, f.dots.places
	}
	if f.dots.sections == nil {
		out["sections"] = []object{}
	}
}

func (c *fakeConn) sendBinary(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.ws.WriteMessage(websocket.BinaryMessage, b)
}

func (f *fakeServer) dotHead(kind byte) []byte {
	return binary.LittleEndian.AppendUint32([]byte{kind, 0, 0, 0}, f.dots.version)
}

func (f *fakeServer) sendStates(c *fakeConn) { c.sendBinary(append(f.dotHead(1), f.dots.codes...)) }

// turn gives dots a state, and tells who shows them.
func (f *fakeServer) turn(first, last int, code byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.dotHead(2)
	for at := first; at <= last; at++ {
		f.dots.codes[at] = code
		b = binary.LittleEndian.AppendUint32(b, uint32(at)<<8|uint32(code))
	}
	for c := range f.conns {
		if _, ok := c.seq["dots"]; ok {
			c.sendBinary(b)
		}
	}
}

// nameDots answers who is at some places. The caller holds mu.
func (f *fakeServer) nameDots(c *fakeConn, m object) {
	f.dots.asked = append(f.dots.asked, m)
	from, to := int(m["from"].(float64)), int(m["to"].(float64))
	ids := f.dots.ids[from:min(to+1, from+256)]
	c.send(object{"t": "ok", "re": m["id"], "version": m["version"], "ids": ids, "gateway": "", "q": fmt.Sprintf("run:%d-%d", from, to)})
}

// tell answers a sub of events. The caller holds mu.
func (f *fakeServer) tell(c *fakeConn, m object) {
	at := len(f.events)
	if after, ok := m["after"].(string); ok {
		_, _ = fmt.Sscanf(after, "E-%d", &at) // the page made it
	}
	c.seq["events"] = 0
	c.send(object{"t": "snapshot", "re": m["id"], "ch": "events", "epoch": "E", "seq": at})
	for i, ev := range f.events[at:] {
		c.send(object{"t": "event", "ch": "events", "seq": at + i + 1, "ev": ev})
	}
}

// happen adds an event to the feed.
func (f *fakeServer) happen(kind string, data object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ev := object{"type": kind, "timestamp": "2026-03-01T08:30:00.000000Z", "data": data}
	f.events = append(f.events, ev)
	for c := range f.conns {
		if _, ok := c.seq["events"]; ok {
			c.send(object{"t": "event", "ch": "events", "seq": len(f.events), "ev": ev})
		}
	}
}

// answer has the API answer a GET.
func (f *fakeServer) answer(path string, v any) {
	if f.extra == nil {
		f.extra = map[string]http.HandlerFunc{}
	}
	f.extra["GET /api/v1"+path] = func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, v) }
}

// fleetOf2000 has two groups, all online but a gateway's 400 that went offline together.
func fleetOf2000(t *testing.T) *fakeServer {
	f := newFake(t)
	f.dots.section("north", 1200, 1)
	f.dots.section("south", 800, 1)
	for at := 300; at < 700; at++ {
		f.dots.codes[at] = 3
	}
	f.dots.codes[5] = 2
	f.fleet = object{
		"total": 2000, "counts": object{"online": 1599, "offline": 400, "quiet": 1, "never": 0, "unknown": 0},
		"rates": object{"received": 120.5, "stored": 120.1}, "queued": 12, "log_bytes": 48_123, "store": "ok",
		"storing": object{"batches": 40, "p99_ms": 86.2}, "commands": object{"ended": 250, "acked": 248},
		"change": object{
			"since": time.Now().Add(-time.Hour).UnixMilli(), "counts": object{"online": -400, "offline": 400, "quiet": 0, "never": 0, "unknown": 0}, "silent": 401,
			"cause": object{"kind": "gateway", "name": "gw-7", "state": "offline", "devices": 400, "together": 400, "at": time.Now().Add(-time.Minute).UnixMilli()},
		},
	}
	return f
}

// spot is where the dot at a place is in the window, as the page's own geometry has it: of the
// section that begins at first, with its name above the dots.
const spotJS = `(() => {
	const c = document.querySelector(".gridwrap canvas").getBoundingClientRect();
	return [c.left, c.top, c.width, c.height];
})()`

func TestTheOverviewSaysWhatChangedAndWhy(t *testing.T) {
	f := fleetOf2000(t)
	b := open(t, f)
	b.visit("/")
	b.waitText(".roll h1", "1,599 of 2,000 answering")
	b.waitText(".roll p", "400 offline, 1 quiet for longer than usual. Most of the change since")
	b.waitText(".roll p", "is one gateway, gw-7: 400 devices behind it went offline together at")
	if got := evaluate[string](b, `document.querySelector(".roll p a").getAttribute("href")`); got != "/devices/gw-7" {
		t.Errorf("the gateway links to %s", got)
	}
	b.waitText(".vitals", "Stored within86ms p99")
	b.waitText(".vitals", "Commands acked99.2% 1 h")
	b.waitText(".legend", "400 offline+400 in 1 h")
	b.waitText(".legend", "1,599 online−400 in 1 h")
	hrefs := evaluate[string](b, `[...document.querySelectorAll(".legend a")].map(a => a.getAttribute("href")).join(" ")`)
	if hrefs != "/devices?q=status%3Aonline /devices?q=status%3Aquiet /devices?q=status%3Aoffline" {
		t.Errorf("the legend links to %s", hrefs)
	}
	if title := evaluate[string](b, "document.title"); title != "Overview · Muster" {
		t.Errorf("the title is %s", title)
	}
	f.mu.Lock()
	delete(f.fleet["change"].(object), "cause")
	item := f.fleet
	f.mu.Unlock()
	f.delta("fleet", object{"set": item}, 0)
	b.wait("no cause", `document.querySelector(".roll p").textContent === "400 offline, 1 quiet for longer than usual."`)
	b.shootAll("overview")
}

// colours counts the pixels of the canvas by what token they have.
const coloursJS = `(() => {
	const c = document.querySelector(".gridwrap canvas");
	const px = new Uint32Array(c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer);
	const of = name => { const n = parseInt(getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1), 16);
		const want = (0xff000000 | (n & 255) << 16 | n & 0xff00 | n >> 16) >>> 0; let k = 0; for (const p of px) if (p === want) k++; return k; };
	return [of("--d-ok"), of("--d-off"), of("--d-warn"), of("--accent")];
})()`

// TestNothingStoredIsNotStoredAtOnce has a server to which nobody has sent anything for a minute.
func TestNothingStoredIsNotStoredAtOnce(t *testing.T) {
	f := fleetOf2000(t)
	f.fleet["storing"] = object{"batches": 0, "p99_ms": 0}
	b := open(t, f)
	b.visit("/")
	b.waitText(".vitals", "Stored withinnonein 1 min")
}

func TestEveryDeviceIsADotThatFollowsItsState(t *testing.T) {
	f := fleetOf2000(t)
	b := open(t, f)
	b.expect("willReadFrequently") // this test itself reads the canvas
	b.visit("/")
	b.wait("the dots", `document.querySelector(".gridwrap .block")`)
	if got := b.text(".gridwrap .block"); got != "north 1,200" {
		t.Errorf("the first section is %q", got)
	}
	b.wait("the canvas to be painted", coloursJS+"[0] > 0")
	px := evaluate[[]int](b, coloursJS)
	if px[0] == 0 || px[1]*1599 != px[0]*400 || px[2]*1599 != px[0] {
		t.Fatalf("1599 online, 400 offline and one quiet are painted as %v", px)
	}
	dot := px[2]
	f.turn(300, 699, 1)
	b.wait("no dark dot", coloursJS+"[1] === 0")
	f.turn(0, 9, 3)
	b.wait("ten dark dots", fmt.Sprintf("%s[1] === %d", coloursJS, 10*dot))
	for _, theme := range []string{"dark", "light"} { // the canvas has no style of its own
		b.media("prefers-color-scheme", theme)
		b.wait("the canvas in "+theme, fmt.Sprintf("document.documentElement.dataset.theme === %q && %s[1] === %d && %s[0] === %d", theme, coloursJS, 10*dot, coloursJS, 1990*dot))
	}
	b.do(chromedp.EmulateViewport(390, 844))
	b.wait("the canvas on a phone", `(() => { const c = document.querySelector(".gridwrap canvas"); return c.clientWidth <= 360 && `+coloursJS+`[1] > 0; })()`)
	b.click(".dots .tabs button:nth-child(2)")
	b.until("the dots by firmware", func() bool { return f.seen("dots", "by", "firmware") > 0 })
	b.wait("the address", `location.search === "?by=firmware"`)
}

// mouse does one thing at a point of the page.
func (b *tab) mouse(kind input.DispatchMouseEventType, x, y float64) {
	b.t.Helper()
	b.do(chromedp.MouseEvent(kind, x, y, chromedp.ButtonLeft))
}

func TestADotIsNamedOpenedAndSelected(t *testing.T) {
	f := fleetOf2000(t)
	b := open(t, f)
	b.visit("/")
	b.wait("the dots", `document.querySelector(".gridwrap .block")`)
	box := evaluate[[]float64](b, spotJS)
	x, y := box[0]+2, box[1]+22 // the first dot of the first section
	b.mouse(chromedp.MouseMoved, x, y)
	b.waitText(".tip", "north-0000")
	b.waitText(".tip", "online")
	b.mouse(chromedp.MousePressed, x, y)
	for i := range 4 {
		b.mouse(chromedp.MouseMoved, x+float64(10*i), y)
	}
	b.mouse(chromedp.MouseReleased, x+30, y)
	b.wait("the run", `/^\d+ devices selected/.test(document.querySelector(".chosen")?.textContent ?? "")`)
	b.wait("its query", `document.querySelector(".chosen a.link")`)
	n := evaluate[int](b, `parseInt(document.querySelector(".chosen b").textContent)`)
	if href := evaluate[string](b, `decodeURIComponent(document.querySelector(".chosen a.link").getAttribute("href"))`); href != fmt.Sprintf("/devices?q=run:0-%d", n-1) {
		t.Errorf("%d are selected by %s", n, href)
	}
	b.click(".chosen button")
	b.wait("no run", `!document.querySelector(".chosen")`)
	b.do(chromedp.MouseClickXY(x, y))
	b.wait("the device's page", `location.pathname === "/devices/north-0000"`)
}

func TestTheEmptyOverviewIsTheWayIn(t *testing.T) {
	f := newFake(t)
	f.tally(0)
	b := open(t, f)
	b.visit("/")
	b.waitText("h1", "No devices yet")
	b.waitText("#connect-title", "Connect the first device")
	b.wait("nothing of a fleet", `!document.querySelector(".dots, .needs, .tail, .traffic")`)
	b.click(".create .btn.pri")
	b.waitText(".copyline code", "devices/device-1/telemetry")
	f.mu.Lock()
	f.dots.section("", 1, 0)
	f.mu.Unlock()
	f.tally(0)
	b.waitText(".legend", "1 never seen")
	b.wait("its dot", `document.querySelector(".gridwrap canvas")`)
	b.waitText(".copyline code", "devices/device-1/telemetry") // what one was doing stays
}

func TestTheLargestClusterIsNamed(t *testing.T) {
	f := fleetOf2000(t)
	b := open(t, f)
	b.visit("/")
	b.waitText(".call", "north 400 silent")
	if href := evaluate[string](b, `decodeURIComponent(document.querySelector(".call").getAttribute("href"))`); !strings.HasPrefix(href, "/devices?q=run:300-699") {
		t.Errorf("it links to %s", href)
	}
	f.turn(300, 699, 1)
	b.wait("it to go", `!document.querySelector(".call")`)
}

func TestTheDotsAreATableToo(t *testing.T) {
	f := fleetOf2000(t)
	b := open(t, f)
	b.visit("/?dots=table")
	cells := `[...document.querySelectorAll(".sections tr")].map(r => [...r.children].map(c => c.textContent.trim()).join("|")).join("\n")`
	want := "Group|online|quiet|offline|Devices\nnorth|799|1|400|1,200\nsouth|800|0|0|800"
	b.wait("the table", cells+" === "+quote(want))
	f.turn(1200, 1209, 3)
	b.wait("ten of the south", cells+".includes('south|790|0|10|800')")
	if href := evaluate[string](b, `document.querySelector(".sections tbody tr:nth-child(2) td:nth-child(4) a").getAttribute("href")`); href != "/devices?q=group%3Asouth+status%3Aoffline" {
		t.Errorf("the ten are at %s", href)
	}
}

// needy has one of each that needs a person.
func needy(f *fakeServer) {
	rollout := object{"id": "rol_1", "name": "Pumps 2.1", "progress": object{
		"id": "rol_1", "status": "paused", "reason": "failure_threshold", "phase": 1, "devices": 20, "ended": 8, "in_flight": 2, "waiting": false,
		"phases": []object{{"name": "canary", "devices": 10, "failing": 3, "soaking": 0, "states": object{"confirmed": 5, "failed": 3}}, {"name": "rest", "devices": 10, "failing": 0, "soaking": 0, "states": object{}}},
	}}
	f.extra = map[string]http.HandlerFunc{"GET /api/v1/rollouts": func(w http.ResponseWriter, r *http.Request) {
		items := []object{}
		if r.URL.Query().Get("status") == "paused" {
			items = append(items, rollout)
		}
		writeJSON(w, 200, object{"items": items, "next": nil})
	}}
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")
	f.answer("/devices", object{"items": []object{}, "next": nil, "total": 401, "plan": object{}})
	f.answer("/rejected", object{"items": []object{{"device": "north-0004", "time": now, "code": "bad_payload", "reason": "the payload is not JSON", "topic": "t", "payload": "", "size": 0}, {
		"device": "north-0004", "time": "2020-01-01T00:00:00.000000Z", "code": "bad_payload", "reason": "old", "topic": "t", "payload": "", "size": 0,
	}}, "next": nil})
	f.answer("/deliveries", object{"items": []object{{"id": "dlv_1", "channel": "webhook", "target": "whk_1", "state": "dead", "error": "it answered 410", "created_at": now, "ended_at": now}}, "next": nil})
}

func TestWhatNeedsAPersonIsThereOnlyWhenItIs(t *testing.T) {
	f := fleetOf2000(t)
	b := open(t, f)
	b.visit("/")
	b.waitText(".needs", "Nothing needs you now.")

	g := fleetOf2000(t)
	needy(g)
	b = open(t, g)
	b.visit("/")
	lines := `[...document.querySelectorAll(".needs li")].map(e => e.textContent.trim().replace(/now$|\d+ s ago/, "").trim() + " " + e.querySelector("a").getAttribute("href")).join("\n")`
	b.wait("four lines", lines+".split('\\n').length === 4")
	got := evaluate[string](b, lines)
	for _, want := range []string{
		"The rollout Pumps 2.1 is heldtoo many devices failed /rollouts/rol_1",
		"401 devices are silentpast their expected check-in, or quiet while connected /devices?q=status%3Asilent",
		"1 message was rejected in the last hour", "north-0004: the payload is not JSON /devices/north-0004",
		"1 delivery was given up", "webhook: it answered 410 /topics?show=dead",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("nothing says %q:\n%s", want, got)
		}
	}
	b.waitText(".rail a[href='/rollouts']", "1 held")
	b.waitText(".ro", "Pumps 2.1")
	b.waitText(".ro", "held")
	b.waitText(".ro small", "2 updating, 8 of 20 devices through, 3 failing.")
	b.shootAll("overview-needs")

	i := fleetOf2000(t)
	needy(i)
	second := object{"device": "south-0001", "time": time.Now().UTC().Format(time.RFC3339Nano), "code": "bad_payload", "reason": "r", "topic": "t", "payload": "", "size": 0}
	first := maps.Clone(second)
	first["device"] = "north-0004"
	i.answer("/rejected", object{"items": []object{first, second, second}, "next": nil})
	b = open(t, i)
	b.visit("/")
	b.wait("both devices", lines+`.includes("3 messages of 2 devices were rejected in the last hour") && `+lines+`.includes("/devices?q=id%3Dnorth-0004+or+id%3Dsouth-0001")`)

	h := fleetOf2000(t)
	needy(h)
	h.role = "viewer" // who may not see deliveries
	b = open(t, h)
	b.visit("/")
	b.wait("three lines", lines+".split('\\n').length === 3")
}

func TestTheTailShowsWhatHappensAndHoldsItBack(t *testing.T) {
	f := fleetOf2000(t)
	for i := range 50 {
		f.events = append(f.events, object{"type": "device.created", "timestamp": "2026-03-01T08:29:00.000000Z", "data": object{"device": fmt.Sprintf("d-%02d", i)}})
	}
	b := open(t, f)
	b.visit("/")
	first := `document.querySelector(".tail li")?.textContent ?? ""`
	b.wait("the newest of before", first+`.includes("d-49 was made")`)
	if n := evaluate[int](b, `document.querySelectorAll(".tail li").length`); n != 30 {
		t.Errorf("%d lines of before", n)
	}
	f.happen("presence.offline", object{"device": "north-0001", "state": "offline", "reason": "keepalive"})
	b.wait("what happens", first+`.includes("north-0001 is offline: keepalive")`)
	b.click(`.sec:has(.tail) header button`)
	b.wait("the pause", `document.querySelector(".sec:has(.tail) header button").textContent === "Go on"`)
	for i := range 70 {
		f.happen("rollout.phase", object{"rollout": "r", "name": fmt.Sprint("Pumps ", i), "phase_number": 2, "phases": 3})
	}
	b.waitText(".sec:has(.tail) header button", "Show 70 more")
	if !strings.Contains(evaluate[string](b, first), "north-0001") {
		t.Error("a paused tail moved")
	}
	b.click(`.sec:has(.tail) header button`)
	b.wait("the newest", first+`.includes("Pumps 69 rollout phase 2 of 3")`)
	if n := evaluate[int](b, `document.querySelectorAll(".tail li").length`); n != 60 {
		t.Errorf("%d lines are kept", n)
	}
	f.cut(false) // it goes on where it was
	b.until("the tail to come again", func() bool { return f.seen("events", "after", "E-121") > 0 })
	f.happen("device.deleted", object{"device": "d-00"})
	b.wait("what happens after", first+`.includes("d-00 was deleted")`)
}

func TestTrafficHasGapsWhereNothingIsKnown(t *testing.T) {
	f := fleetOf2000(t)
	now := time.Now().UTC().Truncate(time.Minute)
	items := []object{}
	for i := 100; i > 0; i-- {
		if i > 40 && i < 60 {
			continue
		}
		items = append(items, object{"at": now.Add(-time.Duration(i) * time.Minute).Format(time.RFC3339), "seconds": 60, "received": int(600 + 300*math.Sin(float64(i)/9)), "stored": 580})
	}
	f.answer("/fleet/traffic", object{"since": now.Add(-100 * time.Minute).Format(time.RFC3339), "items": items})
	b := open(t, f)
	b.expect("willReadFrequently")
	b.visit("/")
	b.wait("the chart", `document.querySelector(".traffic canvas")`)
	b.waitText(".sec:has(.traffic) header p", "counted since")
	// The line is there, and there is none in the twenty minutes of which nothing is known.
	b.wait("the line with its gap", `(() => {
		const c = document.querySelector(".traffic canvas"), r = devicePixelRatio, over = document.querySelector(".traffic .u-over");
		const left = over.offsetLeft * r, width = over.clientWidth * r;
		const ink = (a, z) => { const d = c.getContext("2d").getImageData(left + width * a, over.offsetTop * r, width * (z - a), over.clientHeight * r).data;
			let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200 && d[i + 2] > d[i] + 60) n++; return n; };
		return ink(0.05, 0.3) > 20 && ink(0.43, 0.57) === 0 && ink(0.7, 0.95) > 20;
	})()`)
	b.shootAll("overview-traffic")
}

func TestTheAccessibilityEngineFindsNothingOnTheOverview(t *testing.T) {
	f := fleetOf2000(t)
	needy(f)
	f.dots.places = []int{5990, 1070, 1200, -3390, 15120, 800}
	f.happen("presence.offline", object{"device": "north-0001", "reason": "keepalive"})
	empty := newFake(t)
	empty.tally(0)
	for name, page := range map[string]*fakeServer{"full": f, "empty": empty} {
		b := open(t, page)
		for _, path := range []string{"/", "/?dots=table&by=firmware", "/?by=map", "/?by=map&dots=table"} {
			b.visit(path)
			b.waitText(".live", "Live")
			b.wait("the page", `document.querySelector(".call, .sections, .connect, .map canvas")`)
			b.inspect(name + " " + path)
		}
	}
}
