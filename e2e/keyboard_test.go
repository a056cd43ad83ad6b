package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// strikes presses keys, wherever the focus is.
func (b *tab) strikes(keys string, modifiers ...chromedp.Modifier) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys, chromedp.KeyModifiers(modifiers...)))
}

// mostTabs is how often Tab may be pressed to get anywhere on a page.
const mostTabs = 60

// tabsTo presses Tab until the focus is at the element of a selector. On the way each element that has the
// focus must be in sight, and show that it has it.
func (b *tab) tabsTo(selector string) {
	b.t.Helper()
	b.wait(selector, fmt.Sprintf("document.querySelector(%q)", selector))
	for range mostTabs {
		b.strikes(kb.Tab)
		if hidden := evaluate[string](b, `(() => {
			const e = document.activeElement;
			if (!e || e === document.body) return "";
			const shows = x => x && getComputedStyle(x).outlineStyle !== "none" && parseFloat(getComputedStyle(x).outlineWidth) >= 1;
			const r = e.getBoundingClientRect();
			const away = r.width < 1 || r.bottom < 0 || r.right < 0 || r.top > innerHeight || r.left > innerWidth;
			return shows(e) || shows(e.closest(".search")) ? (away ? "out of sight: " + e.outerHTML.slice(0, 160) : "") : "does not show it: " + e.outerHTML.slice(0, 160);
		})()`); hidden != "" {
			b.t.Errorf("what has the focus %s", hidden)
		}
		if evaluate[bool](b, fmt.Sprintf("document.activeElement?.matches(%q) ?? false", selector)) {
			return
		}
	}
	b.t.Fatalf("%d times Tab do not lead to %s, but to %s\n%s", mostTabs, selector, evaluate[string](b, "document.activeElement.outerHTML.slice(0, 160)"), b.page())
}

// jumps opens the palette, types, and takes what it finds first, which says what is expected.
func (b *tab) jumps(text, finds string) {
	b.t.Helper()
	b.strikes("k", chromedp.ModifierCtrl)
	b.wait("the palette", `document.activeElement === document.querySelector("dialog.palette[open] input")`)
	b.strikes(text)
	b.says(".palette [aria-selected=true]", finds)
	b.strikes(kb.Enter)
	b.wait("the palette to go", `!document.querySelector("dialog.palette")`)
}

// TestADaysWorkByKeyboardAlone does without a pointer what an operator does: signs in, finds a device, opens it, sends it
// a command, acknowledges a notification, starts a rollout.
func TestADaysWorkByKeyboardAlone(t *testing.T) {
	t.Parallel()
	s := &story{muster: serve(t), dir: t.TempDir()}
	m := s.muster
	s.run("firmware", "keygen", s.path("release.key"))
	s.run("firmware", "trust", s.path("release.key.pub"), "--name", "build server")
	s.release("2.0.0")
	m.fleet(9)
	var user struct {
		Invitation string
		User       struct{ ID string }
	}
	m.ask(http.MethodPost, "/api/v1/users", map[string]string{"email": "olga@example.com", "role": "operator"}, http.StatusCreated, &user)
	newVisitor(t, m).ask(http.MethodPost, "/api/v1/invitations/accept", map[string]string{"token": linkTo(t, user.Invitation, "/invite/"), "name": "Olga", "password": firstPassword}, http.StatusOK)
	m.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": "cold-chain", "title": "Cold chain"}, http.StatusCreated, nil)
	m.ask(http.MethodPut, "/api/v1/topics/cold-chain/subscriptions/"+user.User.ID, map[string]any{}, http.StatusOK, nil)
	note := m.notify("cold-chain", "The cold store is warm")

	b := openTab(t, m)
	b.do(chromedp.Navigate(b.base + "/"))
	b.wait("the form", `document.querySelector(".signin [name=email]")`)
	evaluate[bool](b, `(window.__pointed = 0, ["pointerdown", "mousedown", "touchstart"].forEach(e => addEventListener(e, () => window.__pointed++, true)), true)`)
	b.tabsTo(".signin [name=email]")
	b.strikes("olga@example.com")
	b.tabsTo(".signin [name=password]")
	b.strikes(firstPassword + kb.Enter)
	b.wait("the overview", `document.querySelector("main h1") && document.querySelector(".live")?.textContent.includes("Live")`)

	b.tabsTo(".skip")
	b.strikes(kb.Enter)
	b.wait("the focus in the content", `document.activeElement.id === "main"`)
	b.tabsTo(".shortcuts")
	b.strikes(kb.Enter)
	b.wait("the sheet", `document.querySelector("dialog.sheet[open]")?.contains(document.activeElement)`)
	b.strikes(kb.Escape)
	b.wait("the focus where it was", `!document.querySelector("dialog") && document.activeElement.matches(".shortcuts")`)

	b.jumps("pump-004", "pump-004")
	b.wait("its page", `location.pathname === "/devices/pump-004" && document.querySelector(".tabbar")`)
	b.wait("the focus on the page", `document.activeElement.id === "main"`)
	b.strikes("c")
	b.wait("the form of a command", `document.activeElement.matches(".sendform [name=method]")`)
	b.strikes("reboot")
	b.tabsTo(".sendform [name=params]")
	b.strikes(`{"in_s":5}`)
	b.tabsTo(".sendform .btn.pri")
	b.strikes(" ")
	b.says(".commands", "reboot")
	var sent struct {
		Items []struct {
			Method string
			Params map[string]int
		}
	}
	m.ask(http.MethodGet, "/api/v1/devices/pump-004/commands", nil, http.StatusOK, &sent)
	if fmt.Sprint(sent.Items) != "[{reboot map[in_s:5]}]" {
		t.Errorf("the commands are %v", sent.Items)
	}

	b.jumps("Inbox", "Inbox")
	b.says(".notes", "The cold store is warm")
	b.tabsTo(".notes .btn.ack")
	b.strikes(kb.Enter)
	m.await("the ack", pageLimit, func() bool {
		var got struct {
			Notification struct {
				State string
				By    string `json:"acked_by"`
			}
		}
		m.ask(http.MethodGet, "/api/v1/notifications/"+note, nil, http.StatusOK, &got)
		return got.Notification.State == "acked"
	})
	b.wait("the ack to show, and the focus to stay in its line", `document.querySelector(".notes li[data-receipt=acked]")?.contains(document.activeElement)`)

	b.jumps("Make a rollout", "Make a rollout")
	b.tabsTo(".newrollout [name=release]")
	b.strikes(kb.ArrowDown)
	b.wait("the release", `document.querySelector(".newrollout [name=release]").value && document.querySelector(".newrollout [name=name]").value`)
	b.says(".newrollout .matching", "9 devices match now.")
	b.tabsTo(".newrollout [name=start]")
	b.strikes(kb.ArrowDown)
	b.tabsTo(".newrollout .btn.pri")
	b.strikes(kb.Enter)
	b.wait("its page", `location.pathname.startsWith("/rollouts/rol_")`)
	var rollouts struct{ Items []shownRollout }
	m.ask(http.MethodGet, "/api/v1/rollouts", nil, http.StatusOK, &rollouts)
	if len(rollouts.Items) != 1 || rollouts.Items[0].Progress.Status != "running" || rollouts.Items[0].Progress.Devices != 9 {
		t.Errorf("the rollouts are %+v", rollouts.Items)
	}
	if n := evaluate[int](b, "window.__pointed"); n != 0 {
		t.Errorf("a pointer was used %d times", n)
	}
	b.known("-")
}
