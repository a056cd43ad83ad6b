package ui

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// faulty answers whatever a page asks with a status, but what the shell itself needs. It wraps the server's handler.
func (f *fakeServer) faulty(next http.Handler, status func() int) http.Handler {
	codes := map[int]string{403: "forbidden", 404: "not_found", 500: "internal"}
	said := map[int]string{403: "this needs the role operator", 404: "there is no such thing", 500: "the server could not do this"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, api := strings.CutPrefix(r.URL.Path, "/api/v1/")
		switch {
		case !api, rest == "me", rest == "live", strings.HasPrefix(rest, "session"), status() == 0:
			next.ServeHTTP(w, r)
		default:
			problem(w, status(), codes[status()], said[status()])
		}
	})
}

// faultPages are all pages, and the words that stay when nothing can be had: a heading.
func faultPages() []string {
	pages := []string{
		"/", "/devices", "/groups", "/groups/cold", "/profiles", "/profiles/pump", "/adoption?of=plug", "/import", "/import?task=tsk_1", "/firmware", "/firmware/rel_1", "/rollouts", "/rollouts?new=rel_1", "/rollouts/rol_1",
		"/inbox", "/topics", "/topics?show=dead", "/topics/cold", "/webhooks", "/webhooks/wh_1", "/dashboard", "/tasks", "/keys", "/service-accounts", "/users", "/audit", "/account", "/claim/ABCD-EFGH",
	}
	for _, tab := range tabNames {
		pages = append(pages, "/devices/"+probe+"/"+tab)
	}
	return pages
}

// TestEveryPageIsForEverybodyWhenTheServerFails looks at each page while the API answers 500, 403 and 404: it says so where
// it asked for something, and the accessibility engine finds nothing, in both themes, wide and narrow.
func TestEveryPageIsForEverybodyWhenTheServerFails(t *testing.T) {
	f := deviceFixture(t)
	f.user = object{"id": "usr_1", "name": "Ada Kern"}
	status := 0
	f.wrap = func(h http.Handler) http.Handler {
		return f.faulty(h, func() int {
			f.mu.Lock()
			defer f.mu.Unlock()
			return status
		})
	}
	b := open(t, f)
	b.expect("Failed to load resource")
	silent := map[string]bool{"/": true, "/devices": true, "/import": true, "/claim/ABCD-EFGH": true, "/inbox": true} // these live by the socket, or ask for nothing
	for _, code := range []int{500, 403, 404} {
		f.mu.Lock()
		status = code
		f.mu.Unlock()
		for _, path := range faultPages() {
			b.visit(path)
			b.wait(path, `document.querySelector("main h1, main h2") || document.querySelector("main [role=alert]")?.textContent.trim()`)
			if !silent[path] && !strings.HasPrefix(path, "/devices/") {
				b.wait(fmt.Sprintf("%s to say that it failed with %d", path, code), `[...document.querySelectorAll("main [role=alert], main .quiet-note")].some(e => e.textContent.trim())`)
			}
			b.sound(fmt.Sprintf("%s with %d", path, code), code)
		}
	}
}

// sound has the accessibility engine look at the page in both themes, wide and narrow. What a theme changes is
// colour alone: in the second one contrast is what is looked at.
func (b *tab) sound(name string, code int) {
	b.t.Helper()
	b.loadAxe()
	b.everyLook(func(theme string, width int64) {
		only := `{runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}`
		if theme == "dark" {
			only = `{runOnly: {type: "rule", values: ["color-contrast"]}}`
		}
		for _, v := range b.found(only) {
			b.t.Errorf("%s, %s, %d px: %s", name, theme, width, v)
		}
		if over := evaluate[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
			b.t.Errorf("%s, %s: %d px are cut off at a width of %d", name, theme, over, width)
		}
		if code == 500 && theme == "light" {
			b.shoot("fault-" + strings.Trim(strings.NewReplacer("/", "-", "?", "-", "=", "-").Replace(strings.SplitN(name, " ", 2)[0]), "-") + fmt.Sprint("-", width))
		}
	})
}

// loadAxe gives the page the accessibility engine: axe-core, beside its licence in testdata/axe.
func (b *tab) loadAxe() {
	b.t.Helper()
	axe, err := os.ReadFile("testdata/axe/axe.min.js")
	if err != nil {
		b.t.Fatal(err)
	}
	evaluate[bool](b, string(axe)+"; true")
}

// found runs the engine, and says what it finds.
func (b *tab) found(options string) []string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](`axe.run(`+options+`)
		.then(r => r.passes.length === 0 ? ["the engine looked at nothing"] : r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html).slice(0, 3).join(" ")))`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("run the engine: %v", err)
	}
	return v
}
