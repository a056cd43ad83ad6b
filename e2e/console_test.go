package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestNoPageMakesTheConsoleComplain opens every page as whoever came by the set-up link, as a viewer, an operator and an admin:
// none asks for what it is refused, and none has an error of another kind.
func TestNoPageMakesTheConsoleComplain(t *testing.T) {
	t.Parallel()
	s := &story{muster: serve(t, "--demo"), dir: t.TempDir()}
	root := openTab(t, s.muster)
	root.do(chromedp.Navigate(s.setupLink()))
	root.wait("the form", `document.querySelector(".setup")`)
	ada := newVisitor(t, s.muster)
	for _, role := range []string{"viewer", "operator", "admin"} {
		var invited struct{ Invitation string }
		s.ask(http.MethodPost, "/api/v1/users", map[string]string{"email": role + "@example.com", "role": role}, http.StatusCreated, &invited)
		ada.ask(http.MethodPost, "/api/v1/invitations/accept", map[string]string{"token": linkTo(t, invited.Invitation, "/invite/"), "name": role, "password": firstPassword}, http.StatusOK)
	}
	pages := append(everyPage(), s.everyThing()...)
	root.complains("set-up", pages)
	for _, role := range []string{"viewer", "operator", "admin"} {
		b := openTab(t, s.muster)
		b.signsIn(role+"@example.com", firstPassword)
		b.known("-") // that nobody was signed in
		b.complains(role, pages)
	}
}

// answeredBy404 is how the browser ends its line about an answer 404 that says what there is: no page, nobody who registers
// himself by a profile, and a notification that is another's.
func answeredBy404(line string) bool {
	if !strings.Contains(line, "a status of 404") {
		return false
	}
	return strings.HasSuffix(line, "/nowhere") || strings.HasSuffix(line, "/provisioning") || strings.Contains(line, "/api/v1/notifications/ntf_")
}

// complains fails for what the console says of each page.
func (b *tab) complains(role string, pages []onePage) {
	b.t.Helper()
	for _, p := range pages {
		b.do(chromedp.Navigate(b.base + p.path))
		b.wait(p.path, `document.querySelector("main")?.textContent.trim() && document.querySelector(".live")?.textContent.includes("Live")`)
		b.rests(drawsWithin)
		b.mu.Lock()
		said := slices.DeleteFunc(b.errors, answeredBy404)
		b.errors = nil
		b.mu.Unlock()
		for _, line := range said {
			b.t.Errorf("%s, %s: the console says: %s", role, p.path, line)
		}
	}
}
