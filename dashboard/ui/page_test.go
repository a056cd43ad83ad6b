package ui

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// fleetOf25 has 24 devices online and one offline.
func fleetOf25(t *testing.T) *fakeServer {
	f := newFake(t)
	for i := range 24 {
		f.put(fmt.Sprintf("cc-vault-%02d", i), "", "online", object{
			"temperature": 3.4 + float64(i)/10, "humidity": 41.5 + float64(i), "battery": 87 - i, "door_open": i%5 == 0, "fw": "2.8.0",
		})
	}
	f.put("gw-narvik-07", "Gateway <b>Narvik</b>", "offline", object{"rssi": -71})
	f.tally(120.5)
	return f
}

// onTheList opens the list of 25 devices, and is there when it is live.
func onTheList(t *testing.T) (*fakeServer, *tab) {
	t.Helper()
	f := fleetOf25(t)
	b := open(t, f)
	b.visit("/devices")
	b.waitText("tbody", "cc-vault-00")
	b.waitText(".live", "Live")
	return f, b
}

func TestTheDevicesPageCallsTheRollAndFollowsIt(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.expect("willReadFrequently") // this test itself reads the canvases
	b.visit("/devices")
	b.waitText(".roll h1", "24 of 25 answering")
	b.waitText(".roll p", "1 offline.")
	b.waitText(".legend", "24 online")
	b.waitText(".live", "Live")
	b.wait("the round trip", `/^Live \d+ ms$/.test(document.querySelector(".live > span:not(.vh)").textContent.trim())`)
	if n := evaluate[int](b, `document.querySelectorAll("table.devices tbody tr").length`); n != 25 {
		t.Errorf("the table has %d rows, want 25", n)
	}
	if got := b.text(".rail a b"); got != "25" {
		t.Errorf("the rail says %q devices, want 25", got)
	}
	if got := evaluate[string](b, `[...document.querySelectorAll("thead th")].map(e => e.textContent.trim()).join(",")`); got != "State,Device,Last seen,battery,humidity,temperature,door_open" {
		t.Errorf("the columns are %s", got)
	}
	if got := evaluate[string](b, `document.querySelector("tbody tr:last-child th small").textContent`); got != "Gateway <b>Narvik</b>" {
		t.Errorf("the name is shown as %q", got)
	}
	f.report("cc-vault-03", object{"temperature": 9.625})
	b.waitText("tbody tr:nth-child(4) [data-key=temperature]", "9.625")
	for range 12 {
		f.tally(150 + 30*math.Sin(float64(time.Now().UnixNano())))
	}
	f.tally(1520)
	b.waitText(".vitals", "1,520/s")
	b.wait("a line of some seconds under every vital", `[...document.querySelectorAll(".vitals canvas")].every(c => {
		const left = c.getContext("2d").getImageData(0, 0, 87 * devicePixelRatio, c.height).data;
		return left.some((v, i) => i % 4 === 3 && v > 0);
	})`)
	b.shootAll("devices")
}

func TestAChangedCellIsTintedForAMomentAndSaysWhenItWasUnderThePointer(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.visit("/devices")
	b.waitText("tbody tr:nth-child(4)", "cc-vault-03")
	evaluate[bool](b, `(() => {
		const cell = document.querySelector("tbody tr:nth-child(4) [data-key=temperature]");
		Object.assign(window, {plain: cell.className, tints: [], moving: 0, cell});
		return !!new MutationObserver(() => { tints.push(cell.className); moving += document.getAnimations().length; }).observe(cell, {attributeFilter: ["class"]}) || true;
	})()`)
	f.report("cc-vault-03", object{"temperature": 9.625})
	b.wait("the tint to come and go", `tints.length > 1 && tints[0] === plain + " hot" && tints.at(-1) === plain`)
	if n := evaluate[int](b, "moving"); n != 0 {
		t.Errorf("%d animations are under way; each would have the page drawn all the time", n)
	}
	evaluate[bool](b, `cell.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}))`)
	if got := evaluate[string](b, "cell.title"); !strings.HasPrefix(got, "9.625, ") {
		t.Errorf("the cell's title is %q", got)
	}
}

// TestAnEmptyListShowsWhoComesToMatchByItself begins with a query that nobody matches: there is no row that could move.
func TestAnEmptyListShowsWhoComesToMatchByItself(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.visit("/devices?q=zz-")
	b.waitText(".nothing, .quiet-note", "No device matches.")
	f.put("zz-late", "", "offline", nil)
	f.delta("devices", object{"drift": object{"new": 1, "total": 1}}, 0)
	b.waitText("tbody th", "zz-late")
	b.wait("no chip", `!document.querySelector(".chip")`)
}

func TestRowsStayWhereTheyAreWhenDevicesComeAndGo(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.visit("/devices")
	b.waitText(".roll h1", "24 of 25")
	order := `[...document.querySelectorAll("tbody th .mono")].map(e => e.textContent).join(",")`
	before := evaluate[string](b, order)
	f.put("aa-first", "", "online", nil)
	f.delta("devices", object{"drift": object{"new": 1, "total": 26}, "del": []string{"cc-vault-00"}}, 0)
	b.waitText(".chip", "1 new, show")
	b.waitText("tbody tr:first-child", "deleted")
	f.delta("devices", object{"drift": object{"total": 12}}, 0)
	b.wait("as many as there are, with more rows than that", `document.querySelector("#devices-title + p").textContent === "12 devices"`)
	f.delta("devices", object{"drift": object{"new": 1, "total": 26}}, 0)
	if after := evaluate[string](b, order); after != before {
		t.Errorf("the rows moved from %s to %s", before, after)
	}
	b.shoot("devices-chip")
	f.mu.Lock()
	delete(f.devices, "cc-vault-00")
	f.mu.Unlock()
	b.click(".chip")
	b.waitText("tbody tr:first-child", "aa-first")
	b.wait("the chip to go", `!document.querySelector(".chip")`)
}

func TestSearchSortAndPagesAreAskedOfTheServerAndKeptInTheAddress(t *testing.T) {
	f := newFake(t)
	for i := range 120 {
		f.put(fmt.Sprintf("dev-%03d", i), "", "online", object{"v": i})
	}
	f.tally(1)
	b := open(t, f)
	b.visit("/devices")
	b.waitText("tbody", "dev-049")
	b.waitText(".sec header p", "50 of 120")
	b.click(".pager .btn:last-child")
	b.waitText("tbody", "dev-099")
	b.wait("the address", `location.search === "?after=dev-049"`)
	b.click(".pager .btn:first-child")
	b.waitText("tbody", "dev-000")
	b.types(".search input", "11")
	b.waitText(".sec header p", "11 devices")
	b.wait("the address", `location.search === "?q=11"`)
	b.click("thead th:nth-child(3) button")
	b.wait("the address", `location.search === "?q=11&sort=-seen"`)
	b.wait("the order", `document.querySelector("thead th:nth-child(3)").getAttribute("aria-sort") === "descending"`)
	b.until("the list to be asked for", func() bool { return f.seen("devices", "sort", "-seen") > 0 })
	if f.seen("devices", "sort", "-seen") != 1 {
		t.Errorf("the server was asked %d times for -seen, want once", f.seen("devices", "sort", "-seen"))
	}
	b.types(".search input", "zz")
	b.waitText(".quiet-note", "No device matches.")
	b.shoot("devices-nomatch")
	b.visit("/devices?q=dev-00&sort=-seen")
	b.waitText(".sec header p", "10 devices")
	if got := evaluate[string](b, `document.querySelector(".search input").value`); got != "dev-00" {
		t.Errorf("the search box says %q after a reload", got)
	}
}

func TestTheFirstDeviceIsConnectedFromTheEmptyPage(t *testing.T) {
	f := newFake(t)
	f.tally(0)
	b := open(t, f)
	b.visit("/devices")
	b.waitText("#connect-title", "Connect the first device")
	b.waitText("h1", "No devices yet")
	b.shootAll("empty")
	b.types(".create label:nth-of-type(2) input", "Bench")
	b.click(".create .btn.pri")
	want := `mosquitto_pub -h 127.0.0.1 -p 1883 -u tok_9fQ2xLw7 -q 1 -t devices/device-1/telemetry -m '{"temperature":21.5}'`
	b.waitText(".copyline code", want)
	if got := b.text(".copyline code"); got != want {
		t.Errorf("the line is %s", got)
	}
	if len(f.posts) != 1 || f.posts[0] != "device-1 Bench token" {
		t.Errorf("the page posted %q", f.posts)
	}
	b.waitText(".steps", "Waiting for it to connect")
	f.tally(0)
	f.delta("devices", object{"drift": object{"new": 1, "total": 1}}, 0)
	b.waitText("tbody", "device-1")
	b.shootAll("connect")
	f.delta("device:device-1", object{"set": object{"state": "online", "since": time.Now().UnixMilli()}}, 0)
	b.waitText(".steps .done", "Connected")
	f.report("device-1", object{"temperature": 21.5})
	b.waitText(".steps .done", "First value: temperature 21.5")
	b.waitText("tbody [data-key=temperature]", "21.5")
	b.shoot("connected")
	b.click(".first a.btn")
	b.wait("the device's page", `location.pathname === "/devices/device-1"`)
	b.waitText("h1", "device-1")
}

func TestAnIdThatIsTakenIsToldAtTheForm(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.expect("409")
	b.visit("/devices")
	b.waitText("tbody", "cc-vault-00")
	b.click(".sec header .btn")
	b.wait("the focus", `document.activeElement === document.querySelector(".create input")`)
	b.retype(".create input", "cc-vault-00\r")
	b.waitText("#create-error", "there is a device cc-vault-00 already")
	b.do(chromedp.KeyEvent("\x1b"))
	b.wait("the panel to close", `!document.querySelector(".connect")`)
}

func TestAViewerMayNotAddDevices(t *testing.T) {
	f := newFake(t)
	f.role = "viewer"
	f.tally(0)
	b := open(t, f)
	b.visit("/")
	b.wait("the button", `document.querySelector(".create .btn.pri")?.disabled`)
	b.waitText("#create-error", "Needs the role operator")
}

// history of an hour, one reading every 5 s, with a silence of 90 s.
func withHistory(f *fakeServer, id string) {
	now := time.Now()
	var items []object
	for i := range 720 {
		// No reading is near the edge of a range that a test counts: the page asks some time after this, and edges move on.
		if i > 60 && i < 79 || i >= 168 && i < 192 || i >= 708 {
			continue
		}
		at := now.Add(-time.Duration(i) * 5 * time.Second)
		x := float64(720 - i)
		items = append(items, object{"time": at.UTC().Format("2006-01-02T15:04:05.000000Z"), "values": object{
			"temperature": 4 + math.Sin(x/14) + 0.2*math.Sin(x*1.7), "compressor": 20 + 560*float64(int(x/12)%3/2), "battery": 87 - x/900,
			"rssi": -70 + 6*math.Sin(x/20) + 2*math.Sin(x*2.3), "door": "closed",
		}})
	}
	f.history[id] = items
}

func deviceFixture(t *testing.T) *fakeServer {
	f := fleetOf25(t)
	f.put("cc-vault-2-p1", "Cold store, probe 1", "online", object{
		"temperature": 4.6, "compressor": 412, "battery": 87, "rssi": -71, "door": "closed", "defrost": false, "alarm": object{"hi": 8, "lo": 1},
	})
	withHistory(f, "cc-vault-2-p1")
	newest := f.history["cc-vault-2-p1"][0]["values"].(object)
	for k, v := range f.devices["cc-vault-2-p1"]["values"].(object) {
		if now, ok := newest[k]; ok {
			v.(object)["v"] = now
		}
	}
	d := f.devices["cc-vault-2-p1"]
	d["ledger"] = object{"received": 10_812, "recovered": 0, "stored": 10_790, "duplicate": 14, "replaced": 0, "rejected": 3, "dropped": 0, "queued": 5}
	at := time.Now().Add(-9 * time.Minute)
	for i, r := range [][3]string{
		{"malformed", "the payload is not JSON: invalid character 'x' after the value at byte 21", `{"temperature": 21.5}xx`},
		{"topic", "a telemetry key has 300 bytes, at most 256 are allowed", `{"aaaa": 1}`},
		{"malformed", "the payload is no text and no CBOR", "\xff\xfe\x01\x02"},
	} {
		m := object{
			"time": at.Add(-time.Duration(i) * time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z"), "topic": "devices/cc-vault-2-p1/telemetry",
			"code": r[0], "reason": r[1], "payload": base64.StdEncoding.EncodeToString([]byte(r[2])), "size": len(r[2]),
		}
		if i < 2 {
			m["payload_text"] = r[2]
		}
		f.rejected["cc-vault-2-p1"] = append(f.rejected["cc-vault-2-p1"], m)
	}
	f.tally(120.5)
	return f
}

func TestTheDevicePageShowsHistoryAndGoesOnLive(t *testing.T) {
	f := deviceFixture(t)
	b := open(t, f)
	b.visit("/devices/cc-vault-2-p1")
	b.waitText(".dev h1", "cc-vault-2-p1")
	b.waitText(".dev .sub", "Online for 2 h 06 min")
	b.waitText(".facts", "MQTT 5 / TCP keep-alive 60 s")
	b.waitText(".facts", "10.31.7.44:51120")
	b.waitText(".facts", "10,812 10,790 stored")
	b.waitText("[data-ledger=duplicate]", "14")
	b.waitText(".att", "after the value at byte 21")
	b.waitText(".att", "ff fe 01 02")
	b.waitText("#signals-title + p", "150 readings")
	if got := evaluate[string](b, `[...document.querySelectorAll(".chart")].map(e => e.dataset.key).join(",")`); got != "battery,compressor,rssi,temperature" {
		t.Errorf("the charts are %s", got)
	}
	f.report("cc-vault-2-p1", object{"temperature": 9.6, "door": "open"})
	b.waitText(".chart[data-key=temperature] .v", "9.6")
	b.waitText(".chart[data-key=temperature] .m", "to 9.6")
	b.waitText(".side table", "open")
	b.shootAll("device")
	b.click(".tabs[aria-label='Time range'] button:nth-child(2)")
	b.wait("the range in the address", `location.search === "?from=now-1h"`)
	b.waitText("#signals-title + p", "666 readings")
	b.shoot("device-1h")
}

func TestTheDevicePageShowsWhatWaitsForItAndWhatItLost(t *testing.T) {
	f := deviceFixture(t)
	b := open(t, f)
	b.visit("/devices/cc-vault-2-p1")
	b.waitText("[data-ledger=duplicate]", "14")
	b.wait("the page to have asked", `performance.getEntriesByType("resource").some(e => e.name.endsWith("/api/v1/devices/cc-vault-2-p1"))`)
	if evaluate[bool](b, `!!document.querySelector("#sessions-title")`) {
		t.Error("nothing waits and nothing was lost, and the page shows it")
	}
	f.mu.Lock()
	f.sessions["cc-vault-2-p1"] = object{"sessions": 2, "queued": 1000, "inflight": 0, "backlog": 230_000, "dropped": 1234}
	f.mu.Unlock()
	b.waitText("[data-sessions=queued]", "1,000")
	b.waitText("[data-sessions=dropped]", "1,234")
	b.waitText("#sessions-title + p", "its 2 MQTT sessions")
	if got := evaluate[string](b, `[...document.querySelectorAll("[data-sessions]")].map(e => e.dataset.sessions + (e.classList.contains("crit") ? "!" : "")).join(",")`); got != "queued,dropped!" {
		t.Errorf("the lines are %s", got)
	}
	b.shootAll("device-sessions")
	b.expect("503") // of the attempts to connect again
	b.expect("WebSocket")
	f.cut(true)
	b.wait("its age to be told", `/^as of /.test(document.querySelector("#sessions-title + p").textContent)`)
}

func TestTheCrosshairIsSharedAndDraggingZooms(t *testing.T) {
	f := deviceFixture(t)
	b := open(t, f)
	b.visit("/devices/cc-vault-2-p1")
	b.waitText("#signals-title + p", "150 readings")
	box := evaluate[[]float64](b, `(() => { const r = document.querySelector(".chart .u-over").getBoundingClientRect(); return [r.left, r.top, r.width, r.height] })()`)
	at := func(part float64) (float64, float64) { return box[0] + box[2]*part, box[1] + box[3]/2 }
	x, y := at(0.4)
	b.do(chromedp.MouseEvent("mouseMoved", x, y))
	b.wait("a value at every chart", `document.querySelectorAll(".reading:not([hidden])").length === 4`)
	b.wait("the time", `/^\d\d:\d\d:\d\d$/.test(document.querySelector(".when:not([hidden])")?.textContent)`)
	b.shoot("device-crosshair")
	x2, y2 := at(0.6)
	b.do(chromedp.DragAndDropXY(x, y, x2, y2))
	b.wait("an absolute range in the address", `/^\?from=\d{4}-.*Z&to=\d{4}-.*Z$/.test(decodeURIComponent(location.search))`)
	b.until("the part to be asked for", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.charts) >= 2 && f.charts[len(f.charts)-1] == 3*time.Minute
	})
	b.shoot("device-zoom")
	evaluate[bool](b, `(history.back(), true)`)
	b.wait("the range before", `location.search === ""`)
}

func TestASilenceIsAHoleAndNotALine(t *testing.T) {
	f := deviceFixture(t)
	b := open(t, f)
	b.visit("/devices/cc-vault-2-p1")
	b.waitText("#signals-title + p", "150 readings")
	// In the middle of the silence every chart must have no ink of its series: the
	// crosshair finds no value there.
	box := evaluate[[]float64](b, `(() => { const r = document.querySelector(".chart .u-over").getBoundingClientRect(); return [r.left, r.top, r.width, r.height] })()`)
	silence := 1 - (60+79)*5/2.0/900
	b.do(chromedp.MouseEvent("mouseMoved", box[0]+box[2]*silence, box[1]+box[3]/2))
	b.wait("the time", `document.querySelector(".when:not([hidden])")`)
	if n := evaluate[int](b, `document.querySelectorAll(".reading:not([hidden])").length`); n != 0 {
		t.Errorf("%d charts show a value in the silence", n)
	}
}

func TestADeviceThatNeverConnectedShowsHowTo(t *testing.T) {
	f := fleetOf25(t)
	f.put("spare-1", "", "never", nil)
	b := open(t, f)
	b.visit("/devices/spare-1")
	b.waitText(".dev .sub", "Never connected")
	b.waitText(".copyline code", "mosquitto_pub -h 127.0.0.1 -p 1883 -u TOKEN -q 1 -t devices/spare-1/telemetry")
	b.shoot("device-never")
	b.click(".first .act .btn")
	b.waitText(".copyline code", "-u tok_new -q 1")
	f.report("spare-1", object{"temperature": 21.5})
	b.waitText(".chart .v", "21.5")
}

func TestADeviceThatIsNotThereIsSaidSo(t *testing.T) {
	b := open(t, fleetOf25(t))
	b.visit("/devices/nobody")
	b.waitText(".roll p", "There is no device with the id nobody.")
	b.click(".roll a")
	b.waitText(".roll h1", "24 of 25")
}

func TestWhoIsNotSignedInIsAskedTo(t *testing.T) {
	f := fleetOf25(t)
	f.signedOut = true
	b := open(t, f)
	b.expect("401")
	b.expect("403")
	b.visit("/devices")
	b.waitText(".signin h1", "Sign in")
	b.waitText(".signin p", "set-up link printed on the server's console")
	b.shoot("signin")
	b.click(".ways button")
	b.types("[name=key]", "mst_wrong\r")
	b.waitText(".signin .error", "this key is not known")
	b.retype("[name=key]", "mst_right\r")
	b.waitText(".roll h1", "24 of 25")
}

func TestTheLinkTellsTheTruth(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.expect("WebSocket connection to")
	b.expect("503") // of the stream that is tried instead
	b.visit("/devices")
	b.waitText("tbody", "cc-vault-00") // the list comes after the connection
	b.waitText(".live", "Live")
	f.say(object{"t": "rate", "hz": 2, "why": "slow connection"})
	b.waitText(".live", "Slowed to 2 Hz slow connection")
	b.shoot("devices-slow")
	f.say(object{"t": "rate", "hz": 5})
	b.wait("full pace", `document.querySelector(".live.live")`)
	f.cut(true)
	b.wait("the dimming", `document.querySelector("[data-live=no]") && getComputedStyle(document.querySelector("td.val")).color === getComputedStyle(document.querySelector(".rail .group")).color`)
	b.wait("the countdown", `/^Reconnecting in \d+ s$/.test(document.querySelector(".live > span:not(.vh)").textContent)`)
	b.waitText(".bar-foot", "The server has not been reached since")
	b.wait("when it is tried next", `/Next try in \d+ s\.|Trying now\./.test(document.querySelector(".bar-foot").textContent)`)
	b.shootAll("devices-lost")
	f.put("cc-vault-00", "", "online", object{"temperature": 66.6}) // of which only a new list tells
	f.mu.Lock()
	f.refuse = false
	f.mu.Unlock()
	b.wait("the connection", `document.querySelector(".live.live") || (document.querySelector(".live .btn")?.click(), false)`)
	b.wait("the rows", `document.querySelectorAll("tbody tr").length === 25 && document.querySelector("[data-live=yes]")`)
	b.wait("the bar to go", `!document.querySelector(".bar-foot")`)
	b.waitText("tbody tr:first-child", "66.6")
	if n := f.seen("devices", "", nil); n != 2 {
		t.Errorf("the list was asked for %d times, want 2", n)
	}
}

func TestAGapInTheSequenceIsHealedByANewSnapshot(t *testing.T) {
	f, b := onTheList(t)
	f.put("cc-vault-00", "", "online", object{"temperature": 77.7})
	f.delta("devices", object{"set": object{}}, 3)
	b.waitText("tbody tr:first-child", "77.7")
	if n := f.seen("devices", "", nil); n != 2 {
		t.Errorf("the list was asked for %d times, want 2", n)
	}
}

func TestAHiddenTabTellsTheServerAndIsFreshOnReturn(t *testing.T) {
	f, b := onTheList(t)
	turn := func(hidden bool) {
		evaluate[bool](b, fmt.Sprintf(`(Object.defineProperty(document, "hidden", {configurable: true, get: () => %v}), document.dispatchEvent(new Event("visibilitychange")))`, hidden))
	}
	turn(true)
	f.put("cc-vault-00", "", "online", object{"temperature": 66.6})
	turn(false)
	b.waitText("tbody tr:first-child", "66.6")
	f.mu.Lock()
	defer f.mu.Unlock()
	if fmt.Sprint(f.hidden) != "[true false]" {
		t.Errorf("the tab said of being hidden: %v", f.hidden)
	}
}

func TestANewServerVersionOffersToReload(t *testing.T) {
	f := fleetOf25(t)
	f.version = "test-2"
	b := open(t, f)
	b.visit("/devices")
	b.waitText(".bar-foot", "The server now runs test-2. This page is of before, and goes on until you reload it.")
}

func TestAPageWhoseCodeIsGoneOffersToReload(t *testing.T) {
	f := newFake(t)
	f.extra = map[string]http.HandlerFunc{"GET /" + laterScript(t, "set-people-"): http.NotFound}
	b := open(t, f)
	b.expect("404")
	b.visit("/account")
	b.waitText("main [role=alert]", "could not be loaded")
	b.waitText("main [role=alert] .btn", "Reload the page")
}

func TestADeviceThatIsDeletedWhileItIsShownIsSaidSo(t *testing.T) {
	f := deviceFixture(t)
	b := open(t, f)
	b.visit("/devices/cc-vault-2-p1")
	b.waitText(".dev h1", "cc-vault-2-p1")
	f.delta("device:cc-vault-2-p1", object{"del": []string{"cc-vault-2-p1"}}, 0)
	b.waitText(".roll p", "There is no device with the id cc-vault-2-p1.")
}

func TestTheThemeFollowsTheSystemUntilOneIsChosenAndIsRemembered(t *testing.T) {
	b := open(t, fleetOf25(t))
	b.media("prefers-color-scheme", "dark")
	b.visit("/devices")
	b.waitText(".live", "Live")
	theme := `document.documentElement.dataset.theme`
	if got := evaluate[string](b, theme); got != "dark" {
		t.Errorf("the theme is %s, want dark as the system", got)
	}
	b.click(".rail .tabs button:nth-child(2)")
	b.wait("light", theme+` === "light"`)
	b.visit("/devices")
	b.waitText(".live", "Live")
	if got := evaluate[string](b, theme); got != "light" {
		t.Errorf("the theme is %s after a reload, want light as chosen", got)
	}
}

// The engine is axe-core, beside its licence in testdata/axe.
func TestTheAccessibilityEngineFindsNothing(t *testing.T) {
	f := deviceFixture(t)
	f.put("spare-1", "", "never", nil)
	b := open(t, f)
	for _, path := range []string{"/devices", "/devices/cc-vault-2-p1", "/devices/spare-1", "/devices/nobody"} {
		b.visit(path)
		b.waitText(".live", "Live")
		b.wait("the page", `document.querySelector("h1")`)
		b.inspect(path)
	}
}

// engine says what the engine, which the tab has, finds on the page.
func engine(b *tab) []string {
	b.t.Helper()
	found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](`axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
		.then(r => r.passes.length < 10 ? ["the engine looked at nothing"] : r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html).slice(0, 3).join(" ")))`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("run the engine: %v", err)
	}
	return found
}

func TestThePageHasLandmarksNamesAndOneHeading(t *testing.T) {
	f := deviceFixture(t)
	b := open(t, f)
	for _, path := range []string{"/devices", "/devices/cc-vault-2-p1"} {
		b.visit(path)
		b.waitText(".live", "Live")
		b.wait("the page", `document.querySelector("h1")`)
		for _, one := range []string{"main", "nav.rail", "header.top", "h1"} {
			if n := evaluate[int](b, "document.querySelectorAll("+quote(one)+").length"); n != 1 {
				t.Errorf("%s has %d of %s, want one", path, n, one)
			}
		}
		unnamed := evaluate[[]string](b, `[...document.querySelectorAll("button, a[href], input")].filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)`)
		if len(unnamed) > 0 {
			t.Errorf("%s has controls without a name: %s", path, strings.Join(unnamed, " "))
		}
		if evaluate[int](b, `document.querySelectorAll("[style]:not(.uplot *)").length`) > len([]string{"online", "offline"}) {
			t.Errorf("%s sets styles elsewhere than on the bar and in charts", path)
		}
	}
}
