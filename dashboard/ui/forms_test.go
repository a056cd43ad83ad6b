package ui

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// faultAt is what is said at the field of a name.
func faultAt(name string) string {
	return `(document.querySelector('[name="` + name + `"]')?.closest(".field").querySelector(".error")?.textContent ?? "")`
}

// refuses answers a change with a problem at a field.
func refuses(at, why string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 422, object{"status": 422, "title": "Unprocessable", "code": "invalid", "detail": why, "errors": []object{{"pointer": "#/" + at, "detail": why}}})
	}
}

func TestWhatIsNoNumberIsRefusedAtItsFieldAndNotSent(t *testing.T) {
	f := shipFixture(t)
	var sent atomic.Int32
	f.extra["POST /api/v1/rollouts"] = func(w http.ResponseWriter, r *http.Request) {
		sent.Add(1)
		refuses("plan/phases/0/failure/percent", "it is at most 100")(w, r)
	}
	b := open(t, f.fakeServer)
	b.expect("422")
	b.visit("/rollouts?new=rel_1")
	b.waitText(".newrollout .matching", "devices match now.")
	b.click(".moreof summary")
	b.click(`fieldset[class*="phases"] > .btn`)
	b.types(`[name="plan/phases/0/devices"]`, "25%")
	for _, c := range []struct{ name, wrong, right, why string }{
		{"plan/concurrent", "many", "50", "This is no number."},
		{"plan/per_minute", "1.5", "", "This is no whole number."},
		{"plan/deadlines/offered_s", "1h", "3600", "This is no number."},
		{"plan/phases/0/success", "all", "90.5", "This is no number."},
		{"plan/phases/0/stop", "few", "500%", "This is no number."},
		{"min_approvals", "one", "1", "This is no number."},
	} {
		b.holds(c.name, c.wrong)
		b.click(".newrollout .btn.pri")
		b.wait(c.name+" to be refused", faultAt(c.name)+" === "+quote(c.why))
		b.holds(c.name, c.right)
	}
	if n := sent.Load(); n != 0 {
		t.Fatalf("%d forms with no numbers were sent", n)
	}
	b.click(".newrollout .btn.pri")
	b.wait("the server's problem at the cell", faultAt("plan/phases/0/stop")+` === "it is at most 100"`)
	b.inspect("rollout-new-refused")
}

// holds has a field hold a text.
func (b *tab) holds(name, text string) {
	b.t.Helper()
	evaluate[bool](b, `(e => { e.value = `+quote(text)+`; return e.dispatchEvent(new Event("input", {bubbles: true})); })(document.querySelector('[name="`+name+`"]'))`)
}

func TestARefusalOnARolloutsPageGoesWhenTheRolloutGoesOn(t *testing.T) {
	f := shipFixture(t)
	f.extra["POST /api/v1/rollouts/{id}/pause"] = func(w http.ResponseWriter, _ *http.Request) {
		problem(w, 409, "conflict", "the rollout is not running")
	}
	b := open(t, f.fakeServer)
	b.expect("409")
	b.visit("/rollouts/rol_1")
	b.until("the rollout to be watched", func() bool { return f.seen("rollout:rol_1", "", nil) > 0 })
	b.press("Pause")
	b.waitText(".rollout > .error", "the rollout is not running")
	f.delta("rollout:rol_1", object{"set": object{"phase": 1, "waiting": true}}, 0)
	b.wait("the refusal to go", `document.querySelector(".rollout > .error").textContent === ""`)
}

func TestWhatIsWrongWithAFilterOfTheAuditLogStandsAtItsField(t *testing.T) {
	f := runFixture(t)
	all := f.extra["GET /api/v1/audit"]
	f.extra["GET /api/v1/audit"] = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("from") == "" {
			all(w, r)
			return
		}
		writeJSON(w, 422, object{"status": 422, "title": "Unprocessable", "code": "invalid", "detail": "it is no time", "errors": []object{{"parameter": "query.from", "detail": "it is no time"}}})
	}
	b := open(t, f.fakeServer)
	b.expect("422")
	b.visit("/audit")
	b.waitText(".auditlog .seal", "records are sealed")
	b.types(".auditfilter [name=from]", "yesterday\r")
	b.wait("the fault at its field", faultAt("from")+` === "it is no time"`)
	if got := evaluate[int](b, `[...document.querySelectorAll(".auditlog .error")].filter(e => e.textContent).length`); got != 1 {
		t.Errorf("it is said %d times", got)
	}
}

func TestTheAuditLogShowsTimesAsTimes(t *testing.T) {
	f := runFixture(t)
	f.extra["GET /api/v1/audit"] = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"next": nil, "items": []object{{
			"seq": 9, "at": ago(time.Minute), "action": "rollout.complete", "object": "rollouts/rol_1", "actor": object{"kind": "system", "id": "", "name": "rollouts", "address": "", "request": ""},
			"before": object{"ended": 0, "upto": 3}, "after": object{"ended": 1_767_225_600_000_000, "upto": 1_767_225_600_000_001},
		}}})
	}
	b := open(t, f.fakeServer)
	b.visit("/audit?tz=utc")
	b.click(`[aria-label="Record 9"]`)
	b.waitText(".change tbody", "ended")
	if got := evaluate[string](b, `[...document.querySelectorAll(".change tbody tr")].map(r => [...r.children].map(c => c.textContent).join(">")).join(" | ")`); got != "ended>nothing>1 Jan 2026, 00:00:00 UTC | upto>3>1767225600000001" {
		t.Errorf("what changed is %s", got)
	}
}

// What others do to what people prepare is seen without a press of the reader.
func TestWhatOthersAgreeToAndSignIsShownWhileThePageIsOpen(t *testing.T) {
	f := shipFixture(t)
	var agreed, signed atomic.Bool
	yes := []object{{"by": object{"id": "usr_2", "name": "Bo Lind"}, "at": ago(time.Minute), "counts": true}}
	draft := progress("rol_7", "draft")
	f.items["rollout:rol_7"] = draft
	f.extra["GET /api/v1/rollouts/rol_7"] = func(w http.ResponseWriter, _ *http.Request) {
		body := rolloutBody("rol_7", draft)
		body["min_approvals"], body["started_at"], body["approvals"] = 1, nil, []object{}
		if agreed.Load() {
			body["approvals"] = yes
		}
		writeJSON(w, 200, body)
	}
	f.extra["GET /api/v1/firmware/releases/{id}"] = func(w http.ResponseWriter, _ *http.Request) {
		body := release("rel_2", "2.1.0", "draft")
		body["signatures"] = []object{}
		if signed.Load() {
			body["signatures"] = []object{{"key": "k1", "sig": "c2ln"}}
		}
		writeJSON(w, 200, body)
	}
	b := open(t, f.fakeServer)
	b.visit("/rollouts/rol_7")
	b.waitText(".rollout .says", "A draft: 0 of 1 person agreed to it.")
	agreed.Store(true)
	b.waitText(".rollout .says", "A draft: 1 of 1 person agreed to it.")
	b.waitText(".plan", "Bo Lind")
	b.visit("/firmware/rel_2")
	b.waitText(".signatures .have", "0 of 1")
	signed.Store(true)
	b.waitText(".signatures .have", "1 of 1")
}
