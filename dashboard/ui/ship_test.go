package ui

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestARolloutIsShownAsItGoesOnAndSaysWhatStopsIt(t *testing.T) {
	f, b := openShip(t, "/rollouts/rol_1")
	b.waitText(".rollout h1", "Pumps rol_1")
	b.waitText(".crumb", "Rollouts / Pumps rol_1")
	b.waitText(".rollout .says", "2 of at most 4 are being updated.")
	b.waitText(".rollout .legend [data-state=confirmed]", "13 confirmed")
	b.waitText(".rollout .facts", "6.5 a minute")
	b.until("the rollout to be watched", func() bool { return f.seen("rollout:rol_1", "", nil) > 0 })
	f.delta("rollout:rol_1", object{"set": object{"per_minute": 16.34}}, 0)
	b.waitText(".rollout .facts", "16 a minute")
	b.waitText(".rollout .facts", "about 2 min")
	b.waitText("[data-phase='1']", "stops at 3 failing devices: 1 is, 2 left · needs 25 % confirmed · then 1 min")
	b.waitText("[data-phase='2']", "stops at 10 % of the results, from 20 results on")
	b.waitText("[data-phase='2']", "then a person")
	b.waitText(".phases li.on", "all 100 % now")
	b.waitText("[data-phase='1']", "1 late")
	b.waitText(".rollout .facts", "Updated late1 not counted as confirmed")
	b.waitText(".reasons", "device error")
	b.waitText(".plan", "every day 22:00 to 04:00")
	next := progress("rol_1", "running")
	next["phases"].([]object)[1]["states"] = object{"confirmed": 12, "installing": 1, "queued": 7, "rolled_back": 1}
	next["phases"].([]object)[1]["failing"] = 1
	f.delta("rollout:rol_1", object{"set": object{"in_flight": 1, "ended": 17, "phases": next["phases"]}}, 0)
	b.waitText(".rollout .legend [data-state=confirmed]", "15 confirmed")
	b.waitText(".rollout .legend [data-state=rolled_back]", "1 rolled back")
	b.waitText(".rollout .says", "1 of at most 4 are being updated.")
	f.delta("rollout:rol_1", object{"set": object{"status": "paused", "reason": "failure_threshold", "in_flight": 0, "phase": 1}}, 0)
	b.waitText(".rollout .says", "Too many devices failed.")
	b.waitText(".rollout .ways", "Resume with the next phase")
	b.click("[data-state=failed] a")
	b.wait("the failed alone", `document.querySelectorAll(".rolloutdevices tbody tr").length === 1 && location.search === "?state=failed"`)
	b.waitText(".rolloutdevices tbody", "the flash cannot be written")
	b.inspect("rollout")
}

func TestARolloutThatProvedNothingOrHasNobodyInItsPhaseSaysSo(t *testing.T) {
	f, b := openShip(t, "/rollouts/rol_1")
	b.waitText(".rollout .says", "2 of at most 4 are being updated.")
	b.until("the rollout to be watched", func() bool { return f.seen("rollout:rol_1", "", nil) > 0 })
	f.delta("rollout:rol_1", object{"set": object{"status": "paused", "reason": "nothing_proved", "in_flight": 0, "phase": 1}}, 0)
	b.waitText(".rollout .says", "Its phase is over, and no device was confirmed.")
	b.waitText(".rollout .ways", "Resume with the next phase")
	vacant := progress("rol_1", "running")["phases"].([]object)
	vacant[0]["devices"], vacant[0]["states"] = 0, object{}
	f.delta("rollout:rol_1", object{"set": object{"status": "running", "reason": "", "phase": 1, "waiting": true, "phases": vacant}}, 0)
	b.waitText(".rollout .says", "Phase canary has no device yet: it waits until one joins, or a person lets the next begin.")
	b.waitText(".rollout .ways .btn.pri", "Let the next phase begin")
	b.inspect("rollout-vacant")

	g := fleetOf2000(t)
	needy(g)
	of := func(id, name string, set object) object {
		p := progress(id, "running")
		maps.Copy(p, set)
		return object{"id": id, "name": name, "progress": p}
	}
	rollouts := map[string][]object{
		"paused":  {of("rol_1", "Valves", object{"status": "paused", "reason": "nothing_proved"})},
		"running": {of("rol_2", "Meters", object{"phase": 1, "waiting": true, "phases": vacant}), of("rol_3", "Doors", object{"waiting": true})},
	}
	g.extra["GET /api/v1/rollouts"] = func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, 200, object{"items": append([]object{}, rollouts[r.URL.Query().Get("status")]...), "next": nil})
	}
	b = open(t, g)
	b.visit("/")
	for _, want := range []string{
		"The rollout Valves is heldits phase is over, and no device was confirmed",
		"The rollout Meters waits for a personno device is in its phase yet: one that joins, or a person, lets it go on",
		"The rollout Doors waits for a personits phase is over, and the next one needs a decision",
	} {
		b.waitText(".needs", want)
	}
}

func TestARolloutThatIsHeldForApprovalsSaysSoAndIsAgreedTo(t *testing.T) {
	f := shipFixture(t)
	held := progress("rol_4", "scheduled")
	held["reason"] = "approvals"
	f.items["rollout:rol_4"] = held
	body := rolloutBody("rol_4", held)
	body["min_approvals"], body["started_at"], body["approvals"] = 2, nil, []object{
		{"by": object{"id": "usr_2", "name": "Bo Lind"}, "at": ago(time.Hour), "counts": true}, {"by": object{"id": "usr_3", "name": "Cy Moor"}, "at": ago(time.Hour), "counts": false},
	}
	f.extra["GET /api/v1/rollouts/{id}"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"3"`)
		writeJSON(w, 200, body)
	}
	f.record("POST /api/v1/rollouts/{id}/approvals", 200, body)
	b := open(t, f.fakeServer)
	b.visit("/rollouts/rol_4")
	b.waitText(".rollout .says", "Its time has come, and 1 of 2 people agreed to it.")
	b.waitText(".rollout .status", "held")
	b.waitText(".plan", "1 of 2 people")
	b.waitText(".plan", "who may not any more")
	b.inspect("rollout-held")
	b.click(".rollout .ways .btn.pri")
	f.wants("POST", "/rollouts/rol_4/approvals", `"3"`, `{}`)
}

// TestARolloutIsResumedInTheWaysThatTheServerTakes has no button that the server would refuse: a phase that fell short is
// left for the next, and behind the last there is none.
func TestARolloutIsResumedInTheWaysThatTheServerTakes(t *testing.T) {
	f := shipFixture(t)
	is := func(id, status, reason string, phase int, more object) {
		p := progress(id, status)
		p["reason"], p["phase"] = reason, phase
		body := rolloutBody(id, p)
		maps.Copy(body, more)
		f.items["rollout:"+id] = p
		f.extra["GET /api/v1/rollouts/"+id] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"3"`)
			writeJSON(w, 200, body)
		}
	}
	is("rol_3", "paused", "failure_threshold", 1, nil)
	is("rol_4", "paused", "success_threshold", 1, nil)
	is("rol_5", "paused", "nothing_proved", 2, nil)
	is("rol_6", "paused", "failure_threshold", 2, nil)
	is("rol_7", "paused", "operator", 1, object{"started_at": nil})
	is("rol_8", "draft", "", 1, object{"started_at": nil})
	f.record("POST /api/v1/rollouts/rol_4/resume", 200, rolloutBody("rol_4", progress("rol_4", "running")))
	f.record("PATCH /api/v1/rollouts/rol_8", 200, rolloutBody("rol_8", progress("rol_8", "draft")))
	b := open(t, f.fakeServer)
	for id, want := range map[string]string{
		"rol_3": "Resume!, Resume with the next phase, Roll back, Abort", "rol_4": "Resume with the next phase!, Roll back, Abort",
		"rol_5": "Roll back, Abort", "rol_6": "Resume!, Roll back, Abort", "rol_7": "Resume!, Roll back, Abort",
	} {
		b.visit("/rollouts/" + id)
		b.waitText(".rollout .ways", "Abort")
		if got := evaluate[string](b, `[...document.querySelectorAll(".rollout .ways button")].map(e => e.textContent + (e.classList.contains("pri") ? "!" : "")).join(", ")`); got != want {
			t.Errorf("of %s the buttons are %s, want %s", id, got, want)
		}
	}
	b.visit("/rollouts/rol_5")
	b.waitText(".rollout .ways", "Its last phase has ended short of what it asks for: there is nothing to resume. Roll back, or abort.")
	b.inspect("rollout-short")
	b.visit("/rollouts/rol_4")
	b.click(".rollout .ways .btn.pri")
	f.wants("POST", "/rollouts/rol_4/resume", `"3"`, `{"skip_phase":true}`)
	b.wait("no approvals to set of what is no draft", `!document.querySelector(".changeapprovals")`)
	b.visit("/rollouts/rol_8")
	b.waitText(".changeapprovals", "So many others must agree before it starts")
	b.inspect("rollout-approvals")
	b.types(`.changeapprovals [name="min_approvals"]`, "2")
	b.click(".changeapprovals .btn")
	f.wants("PATCH", "/rollouts/rol_8", `"3"`, `{"min_approvals":2}`)
}

func TestTheFirstRuleThatHoldsADeviceBackIsNamed(t *testing.T) {
	_, b := openShip(t, "/rollouts/rol_1?why=mtr-7")
	b.waitText(".answer", "mtr-7: The device waits: the maintenance window is closed. It reports version 1.9.0.")
	b.waitText(".rules .first", "the first that holds it back")
	if got := evaluate[string](b, `[...document.querySelectorAll(".rules li")].map(e => e.dataset.rule + (e.classList.contains("first") ? "!" : "")).join(" ")`); got != "in_rollout window_open! reachable" {
		t.Errorf("the rules are %s", got)
	}
	b.types(".askwhy input", "x\r")
	b.wait("the address to have it", `location.search === "?why=mtr-7x"`)
}

func TestARolloutIsPausedAndAbortedBySayingItTwice(t *testing.T) {
	f, b := openShip(t, "/rollouts/rol_1")
	b.waitText(".rollout .ways", "Abort")
	b.click(`.ways [aria-label="Abort Pumps rol_1"]`)
	b.waitText(".ways", "End it for 11 devices?")
	f.mu.Lock()
	f.items["rollout:rol_1"] = progress("rol_1", "aborted") // what the channel says from then on
	f.mu.Unlock()
	b.click(`.ways [aria-label^="End it"]`)
	f.wants("POST", "/rollouts/rol_1/abort", `"3"`, `{"force":false}`)
	b.waitText(".rollout .status", "aborted")
	b.waitText(".rollout .ways", "Roll back")
}

func TestARolloutIsMadeOfAReleaseForDevicesThatTheServerCounts(t *testing.T) {
	f, b := openShip(t, "/rollouts")
	b.waitText(".ros", "Pumps rol_1")
	b.waitText(".ro[data-id=rol_1]", "13 confirmed, 2 installing, 1 failed, 9 queued")
	b.waitText("#past-title", "Over")
	b.inspect("rollouts")
	b.visit("/rollouts?new=rel_1")
	b.waitText(".newrollout .matching", "1,204 devices match now.")
	b.wait("the name", `document.querySelector(".newrollout [name=name]").value === "pump-controller 2.0.0"`)
	b.click(".moreof summary")
	b.click(`fieldset[class*="phases"] > .btn`)
	b.types(`[name="plan/phases/0/devices"]`, "25%")
	b.types(`[name="plan/phases/0/stop"]`, "10%")
	b.types(`[name="plan/phases/0/sample"]`, "20")
	b.click(`fieldset[class*="phases"] > .btn`)
	b.types(`[name="plan/phases/1/devices"]`, "100%")
	b.types(`[name="plan/concurrent"]`, "50")
	evaluate[bool](b, `(s => { s.value = "yes"; return s.dispatchEvent(new Event("change", {bubbles: true})); })(document.querySelector("[name=downgrade]"))`)
	b.inspect("rollout-new")
	b.click(".newrollout .btn.pri")
	f.wants("POST", "/rollouts", "", `{"name":"pump-controller 2.0.0","release":"rel_1","q":"id:*","membership":"snapshot","supersede":"wait","start":false,"downgrade":true,`+
		`"plan":{"concurrent":50,"phases":[{"percent":25,"success":90,"failure":{"percent":10,"min_sample":20},"gate":"auto"},{"percent":100,"success":90,"gate":"auto"}]}}`)
	b.wait("the rollout's page", `location.pathname === "/rollouts/rol_2"`)
	b.waitText(".rollout .says", "A draft: nothing is offered.")
	b.inspect("rollout-draft")
}

// TestWhatAgreesToARolloutAndWhatADowngradeIsIsSaid: a rollback may need others, who agree anew to what changes before it begins.
func TestWhatAgreesToARolloutAndWhatADowngradeIsIsSaid(t *testing.T) {
	f := shipFixture(t)
	is := func(id, status, reason string, more object) {
		p := progress(id, status)
		p["reason"] = reason
		body := rolloutBody(id, p)
		maps.Copy(body, more)
		f.items["rollout:"+id] = p
		f.extra["GET /api/v1/rollouts/"+id] = func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, body) }
	}
	yes := []object{{"by": object{"id": "usr_2", "name": "Bo"}, "at": ago(time.Hour), "counts": true}}
	is("rol_3", "scheduled", "", object{"min_approvals": 1, "approvals": yes, "started_at": nil, "downgrade": true})
	is("rol_4", "paused", "release_deprecated", object{"started_at": nil})
	is("rol_5", "aborted", "operator", object{"rollback": "rel_0"})
	f.record("POST /api/v1/rollouts/{id}/rollback", 201, rolloutBody("rol_2", progress("rol_2", "draft")))
	b := open(t, f.fakeServer)
	b.visit("/rollouts/rol_3")
	b.waitText(".rollout .says", "It waits for its time: 1 of 1 person agreed to it.")
	b.waitText(".plan .facts", "go back: a downgrade")
	b.waitText(".changerollout", "people must agree to it anew")
	b.inspect("rollout-scheduled")
	b.visit("/rollouts/rol_4")
	b.waitText(".rollout .says", "its release is deprecated, and no rollout begins with it")
	b.waitText(".changerollout", "It holds at once.")
	b.wait("no downgrade", `!document.querySelector(".plan .facts").textContent.includes("downgrade")`)
	b.visit("/rollouts/rol_5")
	b.waitText(".rollout .ways", "Roll back")
	b.click(".rollout .ways .btn")
	b.waitText(".rollbackform", "lower security version")
	b.types(`.rollbackform [name="min_approvals"]`, "1")
	b.inspect("rollback")
	b.click(".rollbackform .btn")
	f.wants("POST", "/rollouts/rol_5/rollback", "", `{"start":false,"release":"rel_0","min_approvals":1}`)
	b.wait("the rollback's page", `location.pathname === "/rollouts/rol_2"`)
}

func TestOfManyRolloutsTheNewestAreFollowed(t *testing.T) {
	f := shipFixture(t)
	var many []object
	for i := range 30 {
		id := fmt.Sprintf("rol_%02d", i)
		f.items["rollout:"+id] = progress(id, "running")
		many = append(many, rolloutBody(id, progress(id, "running")))
	}
	f.extra["GET /api/v1/rollouts"] = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"items": many, "next": nil})
	}
	b := open(t, f.fakeServer)
	b.visit("/rollouts")
	b.wait("all of them", `document.querySelectorAll(".ro").length === 30`)
	b.until("eight to be followed", func() bool { return f.seen("rollout:rol_00", "", nil) == 1 && f.seen("rollout:rol_07", "", nil) == 1 })
	if n := f.seen("rollout:rol_08", "", nil); n != 0 {
		t.Errorf("more are followed than a connection may ask for")
	}
}

func TestFirmwareSaysWhoSignedAndWhichVersionsDevicesReport(t *testing.T) {
	f, b := openShip(t, "/firmware")
	b.waitText(".releases [data-id=rel_1]", "pump-controller 2.0.0 stable")
	b.waitText(".releases [data-id=rel_1]", "build server")
	b.waitText(".releases [data-id=rel_2]", "nobody")
	b.waitText(".releases [data-id=rel_1] .on", "17")
	b.waitText(".releases [data-id=rel_2] .on", "0")
	b.waitText(".versions li[data-version='1.9.0']", "5")
	b.waitText(".versions", "none reported")
	b.waitText(".trust", "A release needs 1 signature; 1 key counts.")
	if got := evaluate[string](b, `document.querySelector(".releases [data-id=rel_1] .on a").getAttribute("href")`); got != "/devices?q=fw%3A2.0.0" {
		t.Errorf("its devices are at %s", got)
	}
	b.inspect("firmware")
	b.click(`[aria-label="Release from it: pump.swu"]`)
	b.wait("what the image says", `document.querySelector("[name='manifest/version']").value === "2.1.0"`)
	b.types(`[name="manifest/product"]`, "pump-controller")
	b.types(`[name="manifest/hw_compat"]`, "pc-1:1.0,1.2; pc-2\r")
	got := <-f.changes
	for _, part := range []string{`"product":"pump-controller"`, `"hw_compat":[{"board":"pc-1","revisions":["1.0","1.2"]},{"board":"pc-2"}]`, `"size":4194304`, `"format":"swupdate"`, `"schema":1`} {
		if !strings.Contains(got.body, part) {
			t.Errorf("the draft has no %s: %s", part, got.body)
		}
	}
	b.wait("the release's page", `location.pathname === "/firmware/rel_2"`)
}

func TestAReleaseIsSignedOfflineAndPublished(t *testing.T) {
	f, b := openShip(t, "/firmware/rel_2")
	b.waitText(".release h1", "pump-controller 2.1.0")
	b.waitText(".signsteps .copyline code", "muster firmware sign --key release.key pump-controller-2.1.0.json")
	b.waitText(".signatures .have", "0 of 1")
	b.inspect("release")
	give := func(text string) {
		evaluate[bool](b, fmt.Sprintf(`(() => { const dt = new DataTransfer(); dt.items.add(new File([%s], "x.json")); const i = document.querySelector("#signed-file"); i.files = dt.files; i.dispatchEvent(new Event("change", {bubbles: true})); return true })()`, quote(text)))
	}
	give(`{"manifest":{"product":"other","version":"2.1.0"},"signatures":[]}`)
	b.waitText(".signsteps .error", "This file is of another release.")
	give("no json")
	b.waitText(".signsteps .error", "This is no signed manifest.")
	give(`{"manifest":{"product":"pump-controller","version":"2.1.0"},"signatures":[{"key":"k1","sig":"c2ln"}]}`)
	f.wants("POST", "/firmware/releases/rel_2/signatures", "", `{"signatures":[{"key":"k1","sig":"c2ln"}]}`)
	b.waitText(".signatures .have", "1 of 1")
	b.waitText(".signatures tbody", "build server")
	b.click(".release .btn.pri")
	f.wants("POST", "/firmware/releases/rel_2/publish", "", "")
	b.waitText(".release .status", "published")
	b.wait("the way to a rollout", `document.querySelector(".release a.btn.pri").getAttribute("href") === "/rollouts?new=rel_2"`)
}

func TestAViewerSeesRolloutsAndFirmwareAndCanPressNothing(t *testing.T) {
	f := shipFixture(t)
	f.role = "viewer"
	b := open(t, f.fakeServer)
	for path, ready := range map[string]string{"/rollouts/rol_1": ".rollout h1", "/rollouts/rol_2": ".rollout h1", "/rollouts": ".ros", "/firmware": ".releases tbody tr", "/firmware/rel_2": ".signatures .have"} {
		b.visit(path)
		b.wait(path, "document.querySelector("+quote(ready)+")")
		b.waitText("main", "role operator")
		enabled := evaluate[[]string](b, `[...document.querySelectorAll("main button:not([disabled])")].map(e => e.textContent).filter(t => !/^(Why\?|Ask|More)/.test(t))`)
		if len(enabled) > 0 {
			t.Errorf("%s lets a viewer press %q", path, enabled)
		}
	}
	if got := evaluate[string](b, `document.querySelector(".rail").textContent`); strings.Contains(got, "System") || strings.Contains(got, "Audit") {
		t.Errorf("a viewer's rail says %s", got)
	}
}

func TestEmptyAndFailingPagesOfFirmwareAndRolloutsSayWhatToDo(t *testing.T) {
	f := shipFixture(t)
	empty := func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"items": []object{}, "next": nil})
	}
	for _, p := range []string{"firmware/releases", "firmware/artifacts", "firmware/keys", "rollouts"} {
		f.extra["GET /api/v1/"+p] = empty
	}
	f.extra["GET /api/v1/rollouts/{id}"] = func(w http.ResponseWriter, _ *http.Request) { problem(w, 404, "not_found", "gone") }
	b := open(t, f.fakeServer)
	b.expect("404")
	b.visit("/firmware")
	b.waitText(".uploads .copyline code", "muster firmware upload image.swu")
	b.waitText(".trust .copyline code", "muster firmware keygen release.key")
	b.inspect("firmware-empty")
	b.visit("/rollouts")
	b.waitText(".rollouts", "There is no rollout yet.")
	b.inspect("rollouts-empty")
	b.visit("/rollouts/rol_x")
	b.waitText("main .error", "There is no such rollout.")
}
