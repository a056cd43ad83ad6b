package ui

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

func counts(received, rate float64) object {
	return object{"connections": object{"mqtt": 41, "websocket": 2, "sse": 0, "total": 43}, "messages": object{"received": received, "sent": 0}, "rates": object{"received": rate, "sent": 0}}
}

// sections is what a server says of itself.
func sections() object {
	ada := counts(5, 0)
	ada["name"], ada["id"] = "Ada Secret", "usr_secret"
	return object{
		"server":   object{"ready": true, "started_at": ago(26 * time.Minute), "version": "test-1"},
		"nodes":    []object{{"id": "NODE1", "host": "secret-host", "started_at": ago(26 * time.Minute), "go": "go1.26", "os": "linux", "arch": "amd64", "cpus": 2, "goroutines": 160, "heap_bytes": 40 << 20, "held_bytes": 52 << 20}},
		"database": object{"engine": "postgres", "version": "17.2", "timescale": "2.17.0", "licence": "apache", "hypertable": true, "bytes": 7_700_000, "down": false},
		"timings":  object{"log": object{"count": 155, "p50_ms": 0.6, "p99_ms": 93}, "store": object{"count": 149, "p50_ms": 0.5, "p99_ms": 7.25}},
		"ingest":   object{"store_down": false, "unstored_bytes": 2048, "log_fill": 0.01, "ack_level": "durable", "ledger": object{"received": 12345, "stored": 12340, "rejected": 5, "queued": 0}},
		"intake":   []object{{"kind": "reported", "failing": false, "received": 20, "stored": 20, "rejected": 0, "dropped": 0, "queued": 3}},
		"broker":   object{"connections": 43, "retained": 7, "journal_bytes": 17_000},
		"services": []object{{"name": "feed", "running": true, "restarts": 0}, {"name": "rollouts", "running": true, "restarts": 2, "last_error": "boom"}},
		"caches":   object{"topics": object{"hits": 63, "misses": 37, "evictions": 4, "entries": 78, "hit_ratio": 0.63}},
		"tasks":    object{"kinds": []object{{"kind": "devices.export", "running": 1, "queued": 2, "concurrency": 2, "queue": 8, "states": object{"succeeded": 4}}}, "kept": 4, "panics": 0, "file_bytes": 0, "memory_bytes": 0},
		"notifications": object{"store_away": false, "leases_lost": 0, "queues": []object{}, "channels": []object{
			{"name": "webhook", "slots": 40, "running": 1, "queued": 2, "sending": 1, "dead": 0, "oldest_seconds": 75, "attempts": 9, "delivered": 6, "failed": 0, "refused": 0},
		}},
		"counters": object{"total": counts(366, 24.9), "accounts": []object{ada}, "stored": object{"total": 294, "rate": 24}},
		"audit":    object{"sealed": 248, "signed_from": 1, "broken": 0},
		"live":     object{"connections": 1, "bytes": 2048},
		"twins":    object{"twins": 25, "diverged": 1},
	}
}

func runFixture(t *testing.T) *shipServer {
	t.Helper()
	f := shipFixture(t)
	f.items["system"] = object{"total": counts(366, 31.5), "stored": object{"total": 294, "rate": 30}, "queues": object{"store": 12, "log_bytes": 0}}
	f.items["tasks"] = []object{task("tsk_2", "running", 40, 100), task("tsk_1", "succeeded", 25, 25)}
	s := sections()
	f.extra["GET /api/v1/system"] = func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		writeJSON(w, 200, object{"version": "test-1", "time": ago(0), "sections": s})
	}
	f.extra["GET /api/v1/clients"] = func(w http.ResponseWriter, r *http.Request) {
		items := []object{client("mtr-1", 0), client("mtr-2", 7)}
		if q := r.URL.Query().Get("q"); q != "" {
			items = items[1:]
		}
		writeJSON(w, 200, object{"items": items, "next": nil})
	}
	f.record("POST /api/v1/clients:kick", 204, nil)
	f.record("DELETE /api/v1/tasks/{id}", 200, task("tsk_2", "running", 40, 100))
	f.record("POST /api/v1/tasks", 202, task("tsk_3", "queued", 0, 0))
	f.extra["GET /api/v1/task-kinds"] = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"next": nil, "items": []object{{"kind": "devices.export", "summary": "Write devices as a list", "scope": "devices:read", "durable": true, "timeout_s": 1800, "concurrency": 2, "queue": 8, "keep_result_s": 86400}}})
	}
	f.extra["GET /api/v1/tasks"] = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"next": nil, "items": []object{task("tsk_0", "failed", 3, 9)}})
	}
	f.extra["GET /api/v1/audit"] = func(w http.ResponseWriter, r *http.Request) {
		items := []object{
			{
				"seq": 249, "at": ago(time.Minute), "action": "device.update", "object": "devices/pump-7", "actor": object{"kind": "user", "id": "usr_2", "name": "Ana", "address": "192.0.2.7", "request": "KX3P"},
				"before": object{"name": "Pump", "tags": object{"site": "a", "hall": "3"}}, "after": object{"name": "Pump 7", "tags": object{"site": "b", "hall": "3"}},
			},
			{"seq": 248, "at": ago(time.Hour), "action": "rollout.log", "object": "rollouts/rol_1", "actor": object{"kind": "system", "id": "", "name": "rollouts", "address": "", "request": ""}, "before": nil, "after": object{"rows": 8}},
		}
		if r.URL.Query().Get("object") == "devices/pump-7" {
			items = items[:1]
		}
		next := any(nil)
		if r.URL.Query().Get("cursor") == "" && r.URL.RawQuery == "limit=50" {
			next = "248"
		} else if r.URL.Query().Get("cursor") == "248" {
			items = []object{{"seq": 247, "at": ago(time.Hour), "action": "user.create", "object": "users/usr_2", "actor": object{"kind": "user", "id": "usr_1", "name": "Ada", "address": "", "request": ""}, "before": nil, "after": nil}}
		}
		writeJSON(w, 200, object{"items": items, "next": next})
	}
	return f
}

func client(id string, dropped int) object {
	return object{
		"client_id": id, "device": id, "connected": true, "peer": "192.0.2.9:4711", "listener": "tcp", "protocol": 5, "keepalive": 60, "since": ago(time.Hour), "subscriptions": 1, "queued": 4, "inflight": 1,
		"backlog": 2048, "dropped": dropped, "unacked": 0, "received": 3366, "sent": 12, "received_bytes": 3360, "sent_bytes": 124, "received_rate": 1.0, "sent_rate": 0,
	}
}

func task(id, state string, done, total int) object {
	t := object{
		"id": id, "kind": "devices.export", "state": state, "done": done, "total": total, "note": "writing", "owner": "usr_1", "owner_name": "Ada Kern", "cancel_requested": false, "durable": true, "input": object{},
		"created_at": ago(time.Minute), "started_at": ago(time.Minute), "ended_at": nil,
	}
	if state == "succeeded" {
		t["ended_at"], t["result"] = ago(time.Second), object{"content_type": "text/csv", "expires_at": ago(-time.Hour), "size": 2867, "url": "/api/v1/tasks/" + id + "/result"}
	}
	return t
}

func TestTheSystemPageNamesWhatNeedsAPersonAndTellsNoNames(t *testing.T) {
	f := runFixture(t)
	b := open(t, f.fakeServer)
	b.visit("/dashboard")
	b.waitText(".system h1", "Everything runs.")
	b.waitText(".system", "Muster test-1, up for 26 min.")
	b.waitText(".system .vitals", "31.5/s")
	b.waitText(".system .vitals", "Write queue12")
	b.waitText("[data-section=database]", "PostgreSQL 17.2, TimescaleDB 2.17.0")
	b.waitText("[data-section=database]", "7.3 MiB")
	b.waitText("[data-section=database]", "0.5 ms median, 7.3 ms p99, 149 times")
	b.waitText("[data-section=ingest] [data-figure=received]", "12,345")
	b.waitText("[data-section=intake] tbody", "3")
	b.waitText("[data-section=services]", "2 restarts")
	b.waitText("[data-section=tasks]", "1 of 2")
	b.waitText("[data-section=caches]", "63 %")
	b.waitText("[data-section=notifications]", "All breakers are closed.")
	b.inspect("system")
	f.delta("system", object{"set": object{"queues": object{"store": 40_000, "log_bytes": 0}}}, 0)
	b.waitText(".system .vitals", "Write queue40,000")
	text := evaluate[string](b, `document.querySelector(".diagnostics code").textContent`)
	for _, secret := range []string{"Ada Secret", "usr_secret", "secret-host"} {
		if strings.Contains(text, secret) {
			t.Errorf("the diagnostics tell %s", secret)
		}
	}
	if !strings.Contains(text, `"sealed": 248`) || !strings.Contains(text, `"timescale": "2.17.0"`) {
		t.Errorf("the diagnostics are %s", text)
	}
	b.retype(`.clients input`, "mtr-2")
	b.wait("the one client", `document.querySelectorAll(".clients tbody tr").length === 1`)
	b.waitText("[data-client=mtr-2]", "2.0 KiB")
	b.click(`[aria-label="Cut off mtr-2"]`)
	b.click(`[aria-label="Really cut off? mtr-2"]`)
	f.wants("POST", "/clients:kick", "", `{"client_id":"mtr-2","reason":"cut off in the dashboard","device":"mtr-2"}`)
}

func TestAServerInTroubleSaysSoFirst(t *testing.T) {
	f := runFixture(t)
	s := sections()
	s["server"].(object)["ready"], s["database"].(object)["down"] = false, true
	s["services"].([]object)[0]["running"], s["services"].([]object)[0]["last_error"] = false, "no disk"
	s["notifications"].(object)["queues"] = []object{{"name": "webhook:plant", "breaker": "open", "failures": 9, "open_until": ago(-time.Minute)}}
	s["audit"].(object)["broken"] = 2
	f.extra["GET /api/v1/system"] = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"version": "test-1", "time": ago(0), "sections": s})
	}
	b := open(t, f.fakeServer)
	b.visit("/dashboard")
	b.waitText(".system h1", "5 things need a person.")
	for _, words := range []string{"The server is not ready", "The database does not take data.", "The loop feed does not run: no disk", "The breaker of webhook:plant is open.", "The audit log is broken in 2 places"} {
		b.waitText(".troubles", words)
	}
	b.inspect("system-trouble")
}

func TestTheAuditLogHasItsFiltersInTheAddressAndShowsWhatChanged(t *testing.T) {
	f := runFixture(t)
	b := open(t, f.fakeServer)
	b.visit("/audit")
	b.waitText(".auditlog .seal", "248 records are sealed, no break")
	b.click(`[aria-label="Record 249"]`)
	b.waitText(".audit .detail", "KX3P")
	if got := evaluate[string](b, `[...document.querySelectorAll(".change tbody tr")].map(r => [...r.children].map(c => c.textContent).join(">")).join(" ")`); got != "name>Pump>Pump 7 tags.site>a>b" {
		t.Errorf("what changed is %s", got)
	}
	b.inspect("audit")
	b.click(".auditlog > .btn")
	b.waitText(".audit tbody", "user.create")
	b.click(".auditlog .nosteps")
	b.wait("no steps of devices", `location.search === "?action=%21rollout.log" && document.querySelector(".auditfilter [name=action]")?.value === "!rollout.log"`)
	b.visit("/audit")
	b.types(".auditfilter [name=object]", "devices/pump-7\r")
	b.wait("the address", `location.search === "?object=devices%2Fpump-7"`)
	b.wait("the one record", `document.querySelectorAll(".audit tbody tr[data-seq]").length === 1`)
	b.visit("/audit?object=devices%2Fpump-7&action=device.update")
	b.wait("the filters", `document.querySelector(".auditfilter [name=action]")?.value === "device.update" && document.querySelector(".auditfilter [name=object]").value === "devices/pump-7"`)
}

func TestTasksAreShownAsTheyGoOnAndCancelled(t *testing.T) {
	f := runFixture(t)
	b := open(t, f.fakeServer)
	b.visit("/tasks")
	b.waitText(".tasks [data-id=tsk_2]", "40 of 100")
	b.waitText(".tasks [data-id=tsk_1] a", "Get it, 2.8 KiB")
	b.inspect("tasks")
	f.delta("tasks", object{"set": object{"tsk_2": task("tsk_2", "running", 90, 100), "tsk_3": task("tsk_3", "queued", 0, 0)}, "del": []string{"tsk_1"}}, 0)
	b.waitText(".tasks [data-id=tsk_2]", "90 of 100")
	if got := evaluate[string](b, `[...document.querySelectorAll(".tasks tbody tr")].map(r => r.dataset.id).join(" ")`); got != "tsk_3 tsk_2" {
		t.Errorf("the tasks are %s", got)
	}
	b.click(`[aria-label="Cancel tsk_2"]`)
	b.click(`[aria-label="Really cancel? tsk_2"]`)
	f.wants("DELETE", "/tasks/tsk_2", "", "")
	b.click(".kinds-of-tasks header .btn")
	f.wants("POST", "/tasks", "", `{"kind":"devices.export","input":{"q":"","format":"csv"}}`)
	b.do(chromedp.SetValue(chromedp.CSS(".tasks select"), "failed"))
	evaluate[bool](b, `document.querySelector(".tasks select").dispatchEvent(new Event("change", {bubbles: true}))`)
	b.wait("the failed", `location.search === "?state=failed" && document.querySelector(".tasks [data-id=tsk_0]")`)
}

func TestThePagesOfTheServerAreForAdmins(t *testing.T) {
	f := runFixture(t)
	f.role = "operator"
	b := open(t, f.fakeServer)
	for path, words := range map[string]string{"/dashboard": "Only admins see how the server is.", "/audit": "Only admins read the audit log."} {
		b.visit(path)
		b.waitText("main", words)
	}
}

func TestThePaletteFindsPagesThingsAndDevices(t *testing.T) {
	f := runFixture(t)
	queries := make(chan string, 64)
	f.extra["GET /api/v1/devices"] = func(w http.ResponseWriter, r *http.Request) {
		queries <- r.URL.Query().Get("q") + " " + r.URL.Query().Get("limit")
		writeJSON(w, 200, object{"items": []object{{"id": "pump-7", "name": "Hall 3"}}, "next": nil, "plan": object{"index": "scan", "scanned": 1}})
	}
	b := open(t, f.fakeServer)
	b.visit("/devices")
	b.waitText(".live", "Live")
	b.do(chromedp.KeyEvent("/"))
	b.wait("the palette", `document.querySelector("dialog.palette[open] input") === document.activeElement`)
	b.inspect("palette")
	b.types(".palette input", `pump"`)
	if got := <-queries; got != `"pump\"" 8` {
		t.Errorf("the server was asked for %s", got)
	}
	b.types(".palette input", "\b")
	b.waitText(".palette [data-kind=device]", "pump-7 Hall 3")
	b.waitText(".palette [data-kind=rollout]", "Pumps rol_1")
	b.waitText(".palette [data-kind=release]", "pump-controller 2.0.0")
	b.types(".palette input", "s rol_3\r")
	b.wait("its page", `location.pathname === "/rollouts/rol_3" && !document.querySelector("dialog.palette")`)
	evaluate[bool](b, `document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "k", ctrlKey: true, bubbles: true, cancelable: true}))`)
	b.wait("the palette", `document.querySelector("dialog.palette[open] input")`)
	b.types(".palette input", "cold")
	b.waitText(".palette [aria-selected=true]", "cold-chain")
	b.types(".palette input", "\r")
	b.wait("its devices", `location.pathname + location.search === "/devices?q=group%3Acold-chain"`)
}

// strike presses keys at once, however slow the machine is: the second of two has to come soon after the first.
func (b *tab) strike(keys ...string) {
	b.t.Helper()
	for i, k := range keys {
		keys[i] = quote(k)
	}
	evaluate[bool](b, `[`+strings.Join(keys, ",")+`].forEach(key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}))) ?? true`)
}

func TestKeysLeadEverywhereAreShownAndCanBeTurnedOff(t *testing.T) {
	f := runFixture(t)
	b := open(t, f.fakeServer)
	b.visit("/devices")
	b.waitText(".live", "Live")
	b.strike("g", "r")
	b.wait("the rollouts", `location.pathname === "/rollouts" && document.querySelector(".ros")`)
	b.do(chromedp.KeyEvent("j"))
	b.do(chromedp.KeyEvent("j"))
	b.wait("the second row", `document.activeElement.textContent === "Pumps rol_2"`)
	b.do(chromedp.KeyEvent("k"), chromedp.KeyEvent("\r"))
	b.wait("its page", `location.pathname === "/rollouts/rol_1" && document.querySelector(".askwhy input")`)
	b.types(".askwhy input", "gf?")
	if got := evaluate[string](b, `location.pathname + document.querySelector(".askwhy input").value + !document.querySelector("dialog")`); got != "/rollouts/rol_1gf?true" {
		t.Errorf("while one types keys do something: %s", got)
	}
	evaluate[bool](b, `(document.activeElement.blur(), true)`)
	b.do(chromedp.KeyEvent("?"))
	b.waitText("dialog.sheet", "go to Rollouts")
	b.waitText("dialog.sheet", "the next row")
	b.inspect("keys-sheet")
	b.click("dialog.sheet .check input")
	b.click("dialog.sheet form .btn")
	b.wait("the sheet to go", `!document.querySelector("dialog.sheet")`)
	b.strike("g", "f")
	b.visit("/devices")
	b.waitText(".live", "Live")
	b.strike("g", "f", "?")
	if got := evaluate[string](b, `location.pathname + !document.querySelector("dialog")`); got != "/devicestrue" {
		t.Errorf("keys that are off do something: %s", got)
	}
}

func TestWhatIsLiveCanBePaused(t *testing.T) {
	f := runFixture(t)
	b := open(t, f.fakeServer)
	b.visit("/tasks")
	b.waitText(".tasks [data-id=tsk_2]", "40 of 100")
	b.do(chromedp.KeyEvent("p"))
	b.waitText(".live.paused", "Paused")
	b.wait("what stands still to be dim", `document.querySelector(".shell").dataset.live === "no"`)
	hidden := func(n int) func() bool {
		return func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.hidden) == n
		}
	}
	b.until("the server to know", hidden(1))
	b.inspect("paused")
	b.click(".live.paused .btn")
	b.until("the server to know", hidden(2))
	b.waitText(".live", "Live")
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.hidden[0] || f.hidden[1] {
		t.Errorf("the tab said it is hidden: %v", f.hidden)
	}
}

// TestWhatNobodyMeasuredIsNotZero opens the page of a server that has stored nothing since it was started.
func TestWhatNobodyMeasuredIsNotZero(t *testing.T) {
	f := runFixture(t)
	s := sections()
	none := object{"count": 0, "p50_ms": 0, "p99_ms": 0}
	s["timings"] = object{"log": none, "store": none}
	f.extra["GET /api/v1/system"] = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"version": "test-1", "time": ago(0), "sections": s})
	}
	b := open(t, f.fakeServer)
	b.visit("/dashboard")
	b.waitText("[data-section=database]", "A batch takes")
	for _, want := range []string{"Log, p99none", "Database, p99none"} {
		b.waitText(".vitals", want)
	}
	if got := b.text("[data-section=database]"); !strings.Contains(got, "none yet") || strings.Contains(got, "p99") {
		t.Errorf("the database section says %q", got)
	}
}
