package ui

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// moody answers requests to the paths that end so with a status, as often as it was told; others pass.
type moody struct {
	mu     sync.Mutex
	end    string
	status int
	left   int // -1 for always
	seen   int
}

func (m *moody) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		hit := strings.HasPrefix(r.URL.Path, "/api/") && strings.HasSuffix(r.URL.Path, m.end) && m.left != 0
		status := m.status
		if hit {
			m.seen++
			m.left--
		}
		m.mu.Unlock()
		if hit {
			problem(w, status, map[int]string{404: "not_found", 500: "internal"}[status], fmt.Sprintf("no answer by %d", status))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// is fails so many of the coming requests to a path.
func (m *moody) is(end string, status, times int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end, m.status, m.left, m.seen = end, status, times, 0
}

func (m *moody) met() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// TestWhatWasAskedOnceIsAskedAgainUntilItIsAnswered has questions of a press, of a list and of a whole page fail: while the
// server is too busy they are asked again without anybody doing anything, otherwise by a button, and a refusal stays one.
func TestWhatWasAskedOnceIsAskedAgainUntilItIsAnswered(t *testing.T) {
	f := shipFixture(t)
	var m moody
	m.is("/-", 0, 0)
	f.wrap = m.wrap
	b := open(t, f.fakeServer)
	b.expect("Failed to load resource")
	b.visit("/rollouts/rol_1")
	b.waitText(".rolloutdevices tbody", "mtr-7")

	m.is("/why", 503, 1)
	b.click(".rolloutdevices tbody tr:last-child .btn")
	b.waitText(".whysection .error", "no answer by 503")
	b.waitText(".whysection .error", "Try again")
	b.waitText(".answer", "It reports version 1.9.0.")
	b.wait("the fault to be gone", `document.querySelector(".whysection .error").textContent === ""`)
	if n := m.met(); n != 1 {
		t.Errorf("it failed %d times, want once", n)
	}

	m.is("/why", 500, 1)
	b.retype(".askwhy input", "mtr-8\r")
	b.waitText(".whysection .error", "no answer by 500")
	if b.text(".answer") != "" {
		t.Error("the answer about another device stands below the fault")
	}
	b.click(".whysection .again")
	b.waitText(".answer", "It reports version 1.9.0.")

	m.is("/why", 404, -1)
	b.retype(".askwhy input", "mtr-9\r")
	b.waitText(".whysection .error", "There is no such device.")
	if b.text(".whysection .again") != "" {
		t.Error("it offers to ask again for what is not there")
	}

	m.is("/devices", 503, 2)
	b.visit("/rollouts/rol_1?state=failed")
	b.waitText(".rolloutdevices tbody", "the flash cannot be written")
	b.wait("the fault to be gone", `document.querySelector(".rolloutdevices .error").textContent === ""`)
	if n := m.met(); n != 2 {
		t.Errorf("the list failed %d times, want twice", n)
	}

	m.is("/rollouts/rol_1", 503, 1)
	b.visit("/rollouts/rol_1")
	b.waitText("main [role=alert]", "Try again")
	b.shootAll("asked-again")
	b.waitText(".rollout h1", "Pumps rol_1")
}

// TestTheRolloutsAreAskedForOnceForAllWhoShowThem counts what the rail, what needs a person and the rollouts of the
// Overview ask together.
func TestTheRolloutsAreAskedForOnceForAllWhoShowThem(t *testing.T) {
	f := fleetOf2000(t)
	needy(f)
	var mu sync.Mutex
	asked := map[string]int{}
	answer := f.extra["GET /api/v1/rollouts"]
	f.extra["GET /api/v1/rollouts"] = func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Query().Get("status")]++
		mu.Unlock()
		answer(w, r)
	}
	b := open(t, f)
	b.visit("/")
	b.waitText(".rail a[href='/rollouts']", "1 held")
	b.waitText(".needs", "The rollout Pumps 2.1 is held")
	b.waitText(".ro", "Pumps 2.1")
	b.until("another look, of which nobody is left out", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return asked["scheduled"] >= 2
	})
	mu.Lock()
	defer mu.Unlock()
	for _, status := range []string{"running", "paused"} {
		if asked[status] > asked["scheduled"] || len(asked) != 3 {
			t.Errorf("they were asked for by status %v: want each as often", asked)
		}
	}
}

// TestARolloutThatPeopleHaveNotAgreedToIsHeldEverywhere looks at the rail, at what needs a person and at the rollouts.
func TestARolloutThatPeopleHaveNotAgreedToIsHeldEverywhere(t *testing.T) {
	f := fleetOf2000(t)
	held := progress("rol_4", "scheduled")
	held["reason"] = "approvals"
	body := rolloutBody("rol_4", held)
	body["min_approvals"], body["started_at"] = 2, nil
	f.items["rollout:rol_4"] = held
	f.extra = map[string]http.HandlerFunc{"GET /api/v1/rollouts": func(w http.ResponseWriter, r *http.Request) {
		items := []object{}
		if s := r.URL.Query().Get("status"); s == "scheduled" || s == "" {
			items = append(items, body)
		}
		writeJSON(w, 200, object{"items": items, "next": nil})
	}}
	b := open(t, f)
	b.visit("/")
	b.waitText(".rail a[href='/rollouts']", "1 held")
	b.waitText(".needs", "The rollout Pumps rol_4 is held")
	b.waitText(".needs", "its time has come, and more people must agree to it")
	b.waitText(".ro .warn", "held")
	b.shootAll("overview-held")
	b.click(".rail a[href='/rollouts']")
	b.waitText(".rollouts + .sec .status", "held")
	b.waitText(".rollouts + .sec .sub", "Its time has come, and 0 of 2 people agreed to it.")
}

// TestEveryPlaceIsCalledTheSameInRailBarAndTitle goes to each place of the rail, and to one thing of some.
func TestEveryPlaceIsCalledTheSameInRailBarAndTitle(t *testing.T) {
	b := openAllPlaces(t)
	b.visit("/")
	b.waitText(".rail", "Inbox")
	at := evaluate[[]string](b, `[...document.querySelectorAll(".rail > a")].map(a => a.getAttribute("href"))`)
	if len(at) < 15 || !slices.Contains(at, "/inbox") {
		t.Fatalf("the rail has %v", at)
	}
	for _, path := range at {
		b.click(".rail > a[href='" + path + "']")
		b.wait(path+" to be called as in the rail", fmt.Sprintf(`(word => document.title === word + " · Muster" && document.querySelector(".crumb b").textContent === word &&
			document.querySelector(".rail [aria-current=page]").getAttribute("href") === %[1]q)(document.querySelector(".rail > a[href='%[2]s']").firstChild.textContent)`, path, path))
	}
	for path, want := range map[string][2]string{
		"/rollouts/rol_1": {"Rollouts / Pumps rol_1", "Pumps rol_1 · Muster"}, "/firmware/rel_2": {"Firmware / pump-controller 2.1.0", "pump-controller 2.1.0 · Muster"},
		"/groups/cold-chain": {"Groups / cold-chain", "cold-chain · Muster"}, "/devices/cc-vault-00": {"Devices / cc-vault-00", "cc-vault-00 · Muster"},
		"/import": {"Import a list", "Import a list · Muster"}, "/claim/ABCD": {"Claim a device", "Claim a device · Muster"},
	} {
		b.visit(path)
		b.waitText(".crumb", want[0])
		b.wait("the title of "+path, "document.title === "+quote(want[1]))
	}
}

// faultless answers every list that nothing else answers as an empty one.
func (f *shipServer) faultless() {
	for _, path := range []string{"webhooks", "tasks", "task-kinds", "api-keys", "service-accounts", "users", "audit", "sessions", "profiles", "adoption/candidates", "me/inbox"} {
		if f.extra["GET /api/v1/"+path] == nil {
			f.answer("/"+path, object{"items": []object{}, "next": nil})
		}
	}
}
