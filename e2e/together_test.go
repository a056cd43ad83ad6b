package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestTwoAtOneThingSeeEachOtherAndWhoWasFirst has two people at a group, a topic, a webhook, a release and a rollout.
func TestTwoAtOneThingSeeEachOtherAndWhoWasFirst(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.ask(http.MethodPut, "/api/v1/groups/cold-store", map[string]any{"description": "one"}, http.StatusOK, nil)
	topic, hook := m.rich()
	s := &story{muster: m, dir: t.TempDir()}
	release, rollout := s.ship("id:rich")
	ada, ben := openTab(t, m), openTab(t, m)
	ada.comesIn(m)
	m.ask(http.MethodPost, "/api/v1/users", map[string]any{"email": "ben@example.com", "name": "Ben Ray", "role": "admin", "password": firstPassword}, http.StatusCreated, nil)
	ben.signsIn("ben@example.com", firstPassword)
	for _, path := range []string{"/groups/cold-store", "/topics/" + topic, "/webhooks/" + hook, "/firmware/" + release, "/rollouts/" + rollout} {
		ada.do(chromedp.Navigate(ada.base + path))
		ben.do(chromedp.Navigate(ben.base + path))
		ada.says(".top .here", "Ben Ray is here too")
		ben.says(".top .here", "Ada Kern is here too")
	}
	for _, b := range []*tab{ada, ben} {
		b.do(chromedp.Navigate(b.base + "/groups/cold-store"))
		b.wait("the form", `document.querySelector("main form [name=description]")`)
	}
	ben.describes("two")
	ada.says(".top .here", "Ben Ray (editing) is here too")
	ben.saves()
	ada.says(".top .here", "Ben Ray is here too")
	ada.describes("three")
	ada.saves()
	ada.says("main form .error", "Ben Ray, at ")
	ada.says("main form .error", "changed this meanwhile")
	if got := evaluate[string](ada, `document.querySelector("main form [name=description]").value`); got != "three" {
		t.Errorf("what she wrote is %q by now", got)
	}
	ben.do(chromedp.Navigate(ben.base + "/groups"))
	ada.wait("him to be gone", `!document.querySelector(".top .here").textContent`)
	ada.known("-")
	ben.known("-")
}

// describes writes into the form of a group, and sends nothing.
func (b *tab) describes(text string) {
	b.t.Helper()
	evaluate[bool](b, `(e => { e.focus(); e.select(); return true; })(document.querySelector("main form [name=description]"))`)
	b.do(chromedp.KeyEvent(text))
	b.wait("the words", fmt.Sprintf(`document.querySelector("main form [name=description]").value === %q`, text))
}

func (b *tab) saves() {
	b.t.Helper()
	evaluate[bool](b, `(document.querySelector("main form:has([name=description])").requestSubmit(), true)`)
}
