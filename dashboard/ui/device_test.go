package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// box is what a test's server has of one device, by the path below /devices/{id}.
type box struct {
	mu    sync.Mutex
	items map[string]any // what GET answers
	asked []string       // method, path and body of the others
}

func (x *box) set(path string, v any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.items[path] = v
}

func (x *box) did(what string) func() bool {
	return func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, a := range x.asked {
			if strings.Contains(a, what) {
				return true
			}
		}
		return false
	}
}

const probe = "cc-vault-2-p1"

func stamped(ago time.Duration) string {
	return time.Now().Add(-ago).UTC().Format("2006-01-02T15:04:05.000000Z")
}

func listed(items ...object) object {
	return object{"items": append([]object{}, items...), "next": nil} // none are [], as of the server
}

func commandOf(id, method, state string, more object) object {
	c := object{
		"id": id, "device": probe, "method": method, "params": object{"on": true}, "state": state, "created_by": "ada", "created_at": stamped(90 * time.Second),
		"expires_at": stamped(-time.Hour), "attempts": 1, "progress": 0, "sent_at": nil, "delivered_at": nil, "accepted_at": nil, "progress_at": nil,
		"finished_at": nil, "result": nil, "error": nil,
	}
	maps.Copy(c, more)
	return c
}

// fullDevice has something on every tab.
func fullDevice(t *testing.T) (*fakeServer, *box) {
	t.Helper()
	f := deviceFixture(t)
	f.user = object{"id": "usr_1", "name": "Ada Kern"}
	f.about = map[string]object{probe: {"groups": []string{"cold-chain"}, "tags": object{"site": "oslo"}, "firmware": "2.8.0"}}
	f.viewers = []object{{"name": "Ada Kern", "edits": "", "you": true}, {"name": "Nora", "edits": "twin", "you": false}}
	x := &box{items: map[string]any{
		"twin": object{
			"device": probe, "converged": false, "diverged": []string{"setpoint_c"}, "diverged_count": 1, "levels": []object{},
			"desired":  object{"version": 7, "state": object{"setpoint_c": 3.0, "net": object{"ntp": "on"}}},
			"reported": object{"version": 3, "state": object{"setpoint_c": 4.0, "net": object{"ntp": "on"}, "door_count": 1482}},
			"meta":     object{"setpoint_c": object{"desired_at": stamped(12 * time.Second), "reported_at": stamped(time.Hour)}},
			"winners":  object{"setpoint_c": "device", "net.ntp": "group:cold-chain"},
		},
		"desired": object{"level": "device", "version": 7, "state": object{"setpoint_c": 3.0}},
		"commands": listed(
			commandOf("5", "log/level", "progress", object{"sent_at": stamped(80 * time.Second), "delivered_at": stamped(79 * time.Second), "progress_at": stamped(time.Second), "progress": 40}),
			commandOf("4", "defrost/start", "succeeded", object{"sent_at": stamped(80 * time.Second), "delivered_at": stamped(79 * time.Second), "finished_at": stamped(60 * time.Second), "result": object{"was": false}}),
			commandOf("3", "led/set", "failed", object{"sent_at": stamped(80 * time.Second), "delivered_at": stamped(79 * time.Second), "finished_at": stamped(60 * time.Second), "error": "too hot"}),
			commandOf("2", "reboot", "expired", object{"finished_at": stamped(60 * time.Second)}),
		),
		"events": listed(object{"type": "door", "time": stamped(time.Hour), "arrival": stamped(time.Hour), "source": "device", "payload": object{"open": true}}),
		"logs":   listed(object{"time": stamped(time.Hour), "arrival": stamped(time.Hour), "level": "warn", "text": "compressor is hot", "fields": object{"c": 91}}),
		"trace": listed(
			object{"kind": "telemetry", "topic": "devices/" + probe + "/telemetry", "qos": 1, "payload": "e30=", "payload_text": `{"temperature":4.6}`, "size": 19, "count": 1, "verdict": "stored", "received_at": stamped(time.Second)},
			object{"kind": "telemetry", "topic": "devices/" + probe + "/telemetry", "qos": 0, "payload": "//4B", "size": 3, "count": 0, "verdict": "rejected", "reason": "the payload is not JSON", "received_at": stamped(2 * time.Second)},
		),
		"credentials": listed(object{"id": "cred_1", "kind": "token", "label": "factory", "state": "active", "created_at": stamped(48 * time.Hour), "expires_at": nil, "last_used_at": stamped(2 * time.Hour)}),
		"logins":      listed(object{"reason": "the password is none of the device's secrets", "username": probe, "peer": "10.0.0.9:4321", "listener": "tcp", "first_at": stamped(time.Hour), "last_at": stamped(time.Minute), "count": 3}),
		"firmware": object{
			"device": probe, "version": "2.8.0", "files": []object{},
			"actions": []object{{"device": probe, "rollout": "rol_1", "name": "Vaults 2.8", "release": "rel_1", "state": "confirmed", "status": "completed", "attempt": 1, "failures": 0, "phase": 1, "progress": 100, "from": "2.7.0", "updated_at": stamped(time.Hour)}},
			"waiting": []object{{"device": probe, "rollout": "rol_2", "name": "Vaults 2.9", "release": "rel_2", "state": "queued", "status": "running", "attempt": 0, "failures": 0, "phase": 2, "progress": 0, "updated_at": stamped(time.Hour)}},
		},
	}}
	f.extra = map[string]http.HandlerFunc{
		"/api/v1/devices/{id}/{what...}": x.serve,
		"DELETE /api/v1/devices/{id}":    x.serve,
		"GET /api/v1/rollouts/rol_2/devices/{id}/why": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 200, object{"device": probe, "rollout": "rol_2", "held": "window", "words": "The window opens at 22:00.", "rules": []object{
				{"name": "phase", "holds": true, "detail": "phase 2 is open"}, {"name": "window", "holds": false, "detail": "it is 10:00 where the device is"},
			}})
		},
	}
	for _, path := range []string{"twin", "commands", "events", "logs", "trace", "credentials", "logins", "firmware"} {
		f.extra["GET /api/v1/devices/{id}/"+path] = x.serve
	}
	return f, x
}

func (x *box) serve(w http.ResponseWriter, r *http.Request) {
	what := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v1/devices/"+probe), "/")
	body, _ := io.ReadAll(r.Body) // of the page itself
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.Method == http.MethodGet {
		if what == "desired" {
			w.Header().Set("ETag", fmt.Sprintf(`"%v"`, x.items[what].(object)["version"]))
		}
		writeJSON(w, 200, x.items[what])
		return
	}
	x.asked = append(x.asked, strings.TrimSpace(strings.ReplaceAll(fmt.Sprintf("%s %s?%s %s %s", r.Method, what, r.URL.RawQuery, r.Header.Get("If-Match"), body), "  ", " ")))
	switch {
	case what == "desired" && r.Header.Get("If-Match") != fmt.Sprintf(`"%v"`, x.items[what].(object)["version"]):
		problem(w, 412, "stale", "the document is at another version")
	case what == "desired":
		var state object
		if err := json.Unmarshal(body, &state); err != nil {
			problem(w, 400, "malformed", "no JSON")
			return
		}
		d := object{"level": "device", "version": x.items[what].(object)["version"].(int) + 1, "state": state}
		x.items[what] = d
		writeJSON(w, 200, d)
	case what == "":
		writeJSON(w, 200, object{"id": probe, "data": r.URL.Query().Get("data"), "detail": ""})
	case strings.HasSuffix(what, "/rotate"), what == "credentials":
		writeJSON(w, 201, object{"credential": object{"id": "cred_2", "kind": "secret", "username": probe, "password": "S3cret-shown-once"}})
	case what == "messages":
		w.WriteHeader(http.StatusAccepted)
	default:
		writeJSON(w, 200, commandOf("9", "m", "queued", nil))
	}
}

var tabNames = []string{"live", "history", "twin", "commands", "events", "firmware", "messages", "access"}

func tabPath(tab string) string {
	if tab == "live" {
		return "/devices/" + probe
	}
	return "/devices/" + probe + "/" + tab
}

func TestTheTabsOfADeviceAreInTheAddressAndKeepItsConnection(t *testing.T) {
	f, _ := fullDevice(t)
	b := open(t, f)
	b.visit(tabPath("twin"))
	b.waitText(".tabbar [aria-current]", "Twin")
	b.waitText(".dev .sub", "cold-chain")
	b.waitText(".dev .sub", "site:oslo")
	b.waitText(".dev .here", "Nora (edits the twin) is here too")
	b.waitText(".tabbar", "Firmware 2.8.0")
	for i, tab := range tabNames {
		b.do(chromedp.KeyEvent(fmt.Sprint(i + 1)))
		b.wait("the tab "+tab, "location.pathname === "+quote(tabPath(tab))+` && document.querySelector(".tabbar [aria-current]")`)
	}
	evaluate[bool](b, `(history.back(), true)`)
	b.wait("the tab before", "location.pathname === "+quote(tabPath("messages")))
	if n := f.seen("device:"+probe, "", nil); n != 1 {
		t.Errorf("the device was subscribed to %d times, want once for all tabs", n)
	}
	b.do(chromedp.KeyEvent("c"))
	b.wait("the field of a command", `location.pathname.endsWith("/commands") && document.activeElement?.name === "method"`)
	b.do(chromedp.KeyEvent("1"))
	b.wait("a key that is typed", `document.activeElement.value === "1" && location.pathname.endsWith("/commands")`)
}

func TestTheNextDeviceIsThatOfTheListOneCameFrom(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.visit("/devices?sort=-seen")
	b.waitText(".roll h1", "24 of 25")
	order := evaluate[[]string](b, `[...document.querySelectorAll("tbody th .mono")].map(e => e.textContent)`)
	b.click("tbody tr:nth-child(3) th a")
	b.waitText(".dev h1", order[2])
	b.do(chromedp.KeyEvent("]"))
	b.waitText(".dev h1", order[3])
	for range 2 {
		b.do(chromedp.KeyEvent("["))
	}
	b.waitText(".dev h1", order[1])
}

func TestTheTwinShowsWhatDiffersAndAnEditThatMeetsAnothersIsTold(t *testing.T) {
	f, x := fullDevice(t)
	b := open(t, f)
	b.expect("412")
	b.visit(tabPath("twin"))
	b.waitText("#twin-title + p", "1 not as wanted")
	if got := evaluate[string](b, `[...document.querySelectorAll(".twin tbody tr")].map(r => r.dataset.path + (r.classList.contains("differs") ? "!" : "")).join(" ")`); got != "setpoint_c! door_count net.ntp" {
		t.Errorf("the lines are %s", got)
	}
	b.waitText("[data-path=door_count]", "device owns")
	b.waitText("[data-path='net.ntp']", "group:cold-chain")
	b.click(".twin header .btn")
	b.wait("the document", `document.querySelector("#twin-doc")?.value.includes("setpoint_c")`)
	b.waitText(".editor .warn", "Nora edits this too.")
	b.until("the others to be told", func() bool { return f.seen("here:"+probe, "edits", "twin") == 1 })
	b.retype("#twin-doc", "{nonsense")
	b.click(".editor [type=submit]")
	b.waitText("#twin-doc-error", "This is not JSON")
	x.set("desired", object{"level": "device", "version": 8, "state": object{"setpoint_c": 5.5}})
	b.retype("#twin-doc", `{"setpoint_c":2}`)
	b.click(".editor [type=submit]")
	b.waitText(".conflict", "Somebody changed it meanwhile: it is at version 8 now. Nothing of yours was saved.")
	b.waitText(".conflict pre", "5.5")
	b.shootAll("device-conflict")
	if !x.did(`PUT desired? "7" {"setpoint_c":2}`)() {
		t.Errorf("the page asked %q", x.asked)
	}
	b.click(".conflict .btn:nth-child(2)")
	b.wait("the editor to close", `!document.querySelector(".editor")`)
	if !x.did(`PUT desired? "8" {"setpoint_c":2}`)() {
		t.Errorf("the page asked %q", x.asked)
	}
}

func TestACommandIsSentFollowedCancelledAndSentAgain(t *testing.T) {
	f, x := fullDevice(t)
	b := open(t, f)
	b.visit(tabPath("commands"))
	b.waitText("[data-command='5']", "under way, 40 %")
	b.waitText("[data-command='4']", "done in 30 s")
	b.waitText("[data-command='3']", "too hot")
	if got := evaluate[string](b, `[...document.querySelectorAll(".four")].map(e => e.ariaLabel[0] + "/" + e.querySelectorAll(".on").length + "/" + e.querySelectorAll(".no").length).join(" ")`); got != "3/3/0 4/4/0 3/3/1 1/1/1" {
		t.Errorf("the steps are %s", got)
	}
	b.types("[name=method]", "led/set")
	b.types("[name=params]", "{on")
	b.click(".sendform [type=submit]")
	b.waitText(".sendform", "This is not JSON")
	b.retype("[name=params]", `{"on":true}`)
	b.click(".sendform [type=submit]")
	b.until("the command", x.did(`POST commands? {"method":"led/set","params":{"on":true}}`))
	b.click("[data-command='5'] .act .btn")
	b.until("the cancelling", x.did("POST commands/5/cancel"))
	x.set("commands", listed(commandOf("6", "led/set", "queued", nil)))
	f.say(object{"t": "event", "ch": "events", "seq": 8, "ev": object{"type": "command.queued"}})
	b.waitText("[data-command='6']", "queued, waits for the device")
	x.set("commands", listed(commandOf("6", "led/set", "succeeded", object{"finished_at": stamped(0)})))
	f.say(object{"t": "event", "ch": "events", "seq": 9, "ev": object{"type": "command.succeeded"}})
	b.waitText("[data-command='6']", "done in 1 min")
	b.click("[data-command='6'] .act .btn")
	b.wait("the form to be filled", `document.querySelector("[name=method]").value === "led/set" && document.querySelector("[name=params]").value.includes('"on": true')`)
}

func TestMessagesComeAsTheyAreSentAndCanBeHeldAndPublished(t *testing.T) {
	f, x := fullDevice(t)
	b := open(t, f)
	b.visit(tabPath("messages"))
	b.waitText(".msgs", `{"temperature":4.6}`)
	b.waitText(".msgs", "ff fe 01")
	b.waitText(".msgs", "the payload is not JSON")
	b.waitText("#messages-title + p", "0 messages since") // those came before the page was opened
	b.click("[aria-labelledby=messages-title] header .btn")
	trace := x.items["trace"].(object)["items"].([]object)
	x.set("trace", listed(object{"kind": "event", "topic": "devices/" + probe + "/events/door", "qos": 1, "payload": "e30=", "payload_text": `{"open":1}`, "size": 10, "count": 0, "verdict": "pending", "received_at": stamped(0)}, trace[0]))
	b.waitText("[aria-labelledby=messages-title] header", "1 held")
	if strings.Contains(b.text(".msgs"), "events/door") {
		t.Error("a message is shown while the page is paused")
	}
	b.click("[aria-labelledby=messages-title] header .btn")
	b.waitText(".msgs li:first-child", "events/door")
	b.waitText("#messages-title + p", "1 message since")
	b.types("[name=topic]", "display/text")
	b.types("[name=payload]", "hello")
	b.click("[aria-labelledby=publish-title] [type=submit]")
	b.waitText("[aria-labelledby=publish-title] [role=status]", "Published.")
	if !x.did(`POST messages? {"topic":"display/text","payload_text":"hello","qos":1,"retain":false}`)() {
		t.Errorf("the page asked %q", x.asked)
	}
}

func TestAccessShowsASecretOnceAndADeviceIsDeletedByItsId(t *testing.T) {
	f, x := fullDevice(t)
	b := open(t, f)
	b.visit(tabPath("access"))
	b.waitText("[data-credential=cred_1]", "token factory")
	b.waitText("[data-credential=cred_1]", "2 h ago")
	b.waitText(".att", "the password is none of the device's secrets")
	b.waitText(".att", "3 times")
	b.click("[data-credential=cred_1] .acts .btn")
	b.waitText(".fresh", "S3cret-shown-once")
	b.until("the rotation", x.did("POST credentials/cred_1/rotate? {}"))
	b.visit(tabPath("access"))
	b.waitText("[data-credential=cred_1]", "token factory")
	if strings.Contains(b.text("main"), "S3cret") {
		t.Error("the secret is shown twice")
	}
	b.types("#end-id", "cc-vault")
	b.wait("the button to be off", `document.querySelector(".end [type=submit]").disabled`)
	b.types("#end-id", "-2-p1")
	b.click(".end .check:nth-of-type(2) input")
	b.click(".end [type=submit]")
	b.wait("the list", `location.pathname === "/devices"`)
	if !x.did("DELETE ?data=delete")() {
		t.Errorf("the page asked %q", x.asked)
	}
}

func TestWhatHoldsAnUpdateBackIsNamed(t *testing.T) {
	f, _ := fullDevice(t)
	b := open(t, f)
	b.visit(tabPath("firmware"))
	b.waitText("[data-version]", "2.8.0")
	b.waitText("[data-rollout=rol_1]", "confirmed")
	b.click(".pending .btn")
	b.waitText(".pending", "The window opens at 22:00.")
	b.waitText(".holds .held", "window it is 10:00 where the device is holds it back")
}

func TestHistoryIsATableAndFiles(t *testing.T) {
	f, _ := fullDevice(t)
	b := open(t, f)
	b.visit(tabPath("history") + "?from=now-1h")
	b.wait("a page of readings", `document.querySelectorAll(".readings tbody tr").length === 100`)
	if got := evaluate[string](b, `[...document.querySelectorAll(".readings th[scope=col]")].map(e => e.textContent).join(",")`); got != "Time,battery,compressor,door,rssi,temperature" {
		t.Errorf("the columns are %s", got)
	}
	b.click(".btn.more")
	b.wait("the next page", `document.querySelectorAll(".readings tbody tr").length === 200`)
	b.wait("its place in the address", `new URLSearchParams(location.search).get("older") === "1"`)
	b.click(".rail a[href='/devices']")
	b.wait("another page", `location.pathname === "/devices"`)
	evaluate[bool](b, `(history.back(), true)`)
	b.wait("both pages again", `document.querySelectorAll(".readings tbody tr").length === 200`)
	evaluate[bool](b, `(() => { const s = document.querySelector("header select"); s.value = "temperature"; s.dispatchEvent(new Event("change", {bubbles: true})); return true })()`)
	b.wait("one key in the address", `new URLSearchParams(location.search).get("key") === "temperature"`)
	b.wait("the place of another list to go", `!new URLSearchParams(location.search).has("older")`)
	b.wait("one column", `document.querySelectorAll(".readings th[scope=col]").length === 2`)
	csv := evaluate[string](b, `document.querySelector("a[download$='.csv']").getAttribute("href")`)
	if !strings.Contains(csv, "format=csv") || !strings.Contains(csv, "keys=temperature") || !strings.Contains(csv, "/api/v1/devices/"+probe+"/telemetry?") {
		t.Errorf("the file is at %s", csv)
	}
}

// press clicks the button that says the words.
func (b *tab) press(words string) {
	b.t.Helper()
	b.wait("the button "+words, "[...document.querySelectorAll(`button`)].some(e => e.textContent.trim() === "+quote(words)+")")
	evaluate[bool](b, "([...document.querySelectorAll(`button`)].find(e => e.textContent.trim() === "+quote(words)+").click(), true)")
}

func TestTheTimeZoneAndTheStepsOfTheRange(t *testing.T) {
	f, _ := fullDevice(t)
	b := open(t, f)
	b.visit(tabPath("live") + "?from=2026-01-02T10:00:00.000Z&to=2026-01-02T11:00:00.000Z")
	b.waitText(".timerange", "2 Jan, 10:00 – 2 Jan, 11:00")
	b.click(".timerange .step")
	b.waitText(".timerange", "2 Jan, 09:30 – 2 Jan, 10:30")
	b.click(".timerange .step:nth-of-type(2)")
	b.waitText(".timerange", "2 Jan, 10:00 – 2 Jan, 11:00")
	b.press("Zoom out")
	b.waitText(".timerange", "2 Jan, 09:30 – 2 Jan, 11:30")
	b.press("Back to now")
	b.wait("the default", `location.search === ""`)
	for _, bad := range []string{"?from=yesterday", "?from=now&to=now-1h", "?from=now-99999999d"} {
		b.visit(tabPath("live") + bad)
		b.wait("the default range", `document.querySelector(".timerange [aria-pressed=true]")?.textContent === "15 min"`)
	}
}

func TestAViewerSeesWhatHeMayNotDo(t *testing.T) {
	f, _ := fullDevice(t)
	f.role = "viewer"
	b := open(t, f)
	for _, tab := range []string{"twin", "commands", "messages", "access"} {
		b.visit(tabPath(tab))
		b.wait("the tab", `document.querySelector(".tabbar [aria-current]")`)
		b.wait("no control that changes something", `document.querySelector("main form, main .twin") && ![...document.querySelectorAll("main .sec :is(input, select, textarea, button[type=submit]):not(header *)")].some(e => !e.matches(":disabled"))`)
	}
	b.waitText("main", "Needs the role operator")
}

// The engine is axe-core, beside its licence in testdata/axe.
func TestTheEngineFindsNothingOnAnyTabFullAndEmpty(t *testing.T) {
	full, _ := fullDevice(t)
	bare := deviceFixture(t)
	for name, f := range map[string]*fakeServer{"full": full, "empty": bare} {
		b := open(t, f)
		for _, tab := range tabNames {
			b.visit(tabPath(tab))
			b.waitText(".live", "Live")
			b.wait("the tab", `document.querySelector(".tabbar [aria-current]") && document.querySelector("main .sec")`)
			if tab == "twin" && name == "full" {
				b.click(".twin header .btn")
			}
			if tab == "live" {
				b.click(".timerange [aria-expanded]")
			}
			b.inspect("tab-" + name + "-" + tab)
		}
	}
}
