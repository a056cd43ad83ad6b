package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestWhatUpdatesIsSeenOnEveryPage has virtual devices soak: each page that tells of a device says that it updates, with
// the figures of the API, until the rollout is ended by force.
func TestWhatUpdatesIsSeenOnEveryPage(t *testing.T) {
	t.Parallel()
	s := &story{muster: serve(t), dir: t.TempDir()}
	t.Cleanup(s.endFleet)
	s.run("firmware", "keygen", s.path("release.key"))
	s.run("firmware", "trust", s.path("release.key.pub"), "--name", "build server")
	release := s.release("2.0.0")
	s.fleet(0)
	b := openTab(t, s.muster)
	b.comesIn(s.muster)
	b.do(chromedp.Navigate(b.base + "/"))
	b.says(".roll h1", fmt.Sprintf("%d of %d answering", storyDevices, storyDevices))
	id := s.roll("Pumps to 2.0.0", release, time.Hour)
	counts := func() map[string]int {
		var f struct{ Counts map[string]int }
		s.ask(http.MethodGet, "/api/v1/fleet", nil, http.StatusOK, &f)
		return f.Counts
	}
	s.await("the canaries to soak", storyLimit, func() bool { f := s.far(id); return f.in("rebooting") == 3 && counts()["updating"] == 3 })
	if c := counts(); c["online"] != storyDevices-3 {
		t.Errorf("the API counts %v", c)
	}
	b.says(".legend", "3 updating")
	b.says(".roll", "3 of them are updating.")
	b.says(".roll h1", fmt.Sprintf("%d of %d answering", storyDevices, storyDevices))
	b.do(chromedp.Navigate(b.base + "/?dots=table"))
	b.says("main table thead", "updating")
	b.do(chromedp.Navigate(b.base + "/devices?q=status:updating"))
	b.wait("three rows", `document.querySelectorAll("tbody tr .state").length === 3 && [...document.querySelectorAll("tbody tr .state")].every(e => e.textContent.includes("updating"))`)
	b.press("tbody tr a")
	b.says(".dev", "Updating")
	b.inspected("device-updating")
	s.ask(http.MethodPost, "/api/v1/rollouts/"+id+"/abort", map[string]any{"force": true}, http.StatusOK, nil)
	b.says(".dev", "Online")
	b.do(chromedp.Navigate(b.base + "/"))
	b.wait("nobody to update", `document.querySelector(".legend") && !document.querySelector(".legend").textContent.includes("updating")`)
}

// TestWhatASecondPersonAgreesToIsSeenByTheFirst has two people at one draft: the page of who made it shows the agreement
// of the other while it is open.
func TestWhatASecondPersonAgreesToIsSeenByTheFirst(t *testing.T) {
	t.Parallel()
	s := &story{muster: serve(t), dir: t.TempDir()}
	s.run("firmware", "keygen", s.path("release.key"))
	s.run("firmware", "trust", s.path("release.key.pub"), "--name", "build server")
	release := s.release("2.0.0")
	ann := openTab(t, s.muster)
	ann.comesIn(s.muster)
	var invited struct{ Invitation string }
	s.ask(http.MethodPost, "/api/v1/users", map[string]string{"email": "bob@example.com", "role": "operator"}, http.StatusCreated, &invited)
	newVisitor(t, s.muster).ask(http.MethodPost, "/api/v1/invitations/accept", map[string]string{"token": linkTo(t, invited.Invitation, "/invite/"), "name": "Bob", "password": firstPassword}, http.StatusOK)
	id := asked[string](ann, fmt.Sprintf(`fetch("/api/v1/rollouts", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({name: "Pumps", release: %q, q: "id:*", min_approvals: 1})}).then(r => r.json()).then(r => r.id)`, release))
	ann.do(chromedp.Navigate(ann.base + "/rollouts/" + id))
	ann.says(".rollout .says", "A draft: 0 of 1 person agreed to it.")
	bob := openTab(t, s.muster)
	bob.signsIn("bob@example.com", firstPassword)
	bob.do(chromedp.Navigate(bob.base + "/rollouts/" + id))
	bob.says(".rollout .ways", "Agree")
	evaluate[bool](bob, `([...document.querySelectorAll(".rollout .ways button")].find(e => e.textContent.startsWith("Agree")).click(), true)`)
	bob.says(".rollout .says", "A draft: 1 of 1 person agreed to it.")
	ann.says(".rollout .says", "A draft: 1 of 1 person agreed to it.")
	ann.says(".plan", "Bob")
	bob.known("-") // he was nobody at first
}
