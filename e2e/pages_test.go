package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// onePage is a page of the dashboard, by its name in docs/screenshots, and the selector of what is
// there once it is drawn.
type onePage struct{ name, path, drawn string }

// everyPage has the pages that need nothing to have happened, but with a server where things have.
func everyPage() []onePage {
	return []onePage{
		{"overview", "/", "main h1"},
		{"devices", "/devices", "main h1"},
		{"groups", "/groups", "main h1"},
		{"profiles", "/profiles", ".wanted form"},
		{"adoption", "/adoption", ".adoptionkeys form"},
		{"import", "/import", ".drop"},
		{"service-accounts", "/service-accounts", ".makeservice"},
		{"inbox", "/inbox", ".inbox"},
		{"topics", "/topics", ".topics"},
		{"webhooks", "/webhooks", ".webhooks"},
		{"firmware", "/firmware", ".trust"},
		{"rollouts", "/rollouts", "#rollouts-title"},
		{"system", "/dashboard", ".system .vitals"},
		{"tasks", "/tasks", ".kinds-of-tasks tbody tr"},
		{"audit", "/audit", ".audit tbody tr"},
		{"keys", "/keys", "main h1"},
		{"users", "/users", "main h1"},
		{"account", "/account", "#account-title"},
		{"claim", "/claim/ABCD-EFGH", ".claim"},
	}
}

// TestEveryPageIsForEverybodyFull looks at each page of a server where much has happened, and
// TestEveryPageIsForEverybodyEmpty at those of one where nothing has: both themes, wide and narrow,
// with the accessibility engine, nothing is cut off, and all is large enough for a finger.
func TestEveryPageIsForEverybodyFull(t *testing.T) {
	t.Parallel()
	s := &story{muster: serve(t, "--demo"), dir: t.TempDir()}
	b := openTab(t, s.muster)
	b.comesIn(s.muster)
	for _, p := range append(everyPage(), s.everyThing()...) {
		b.look("", p)
	}
	b.do(chromedp.Navigate(b.base + "/"))
	b.press(".jump")
	b.wait("the palette", `document.querySelector(".palette li")`)
	b.fingered("palette")
	b.lengthened("palette")
	b.known("-") // of an address at which there is no page
}

// everyThing makes one of each kind of thing, and returns their pages, with those that one comes to only from others.
func (s *story) everyThing() []onePage {
	s.t.Helper()
	s.happens()
	s.run("firmware", "keygen", s.path("release.key"))
	s.run("firmware", "trust", s.path("release.key.pub"), "--name", "build server")
	release := s.release("2.0.0")
	rollout := s.begins("Pumps to 2.0.0", release, "id:demo-*", []any{map[string]any{"name": "canary", "count": 2}, map[string]any{"name": "all", "percent": 100}})
	s.ask(http.MethodPut, "/api/v1/groups/cold-chain", map[string]any{"description": "cold stores"}, http.StatusOK, nil)
	s.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": "oslo-1", "location": map[string]any{"lat": 59.91, "lon": 10.75, "label": "Oslo"}}, http.StatusCreated, nil)
	var hooks struct{ Items []struct{ ID string } }
	s.ask(http.MethodGet, "/api/v1/webhooks", nil, http.StatusOK, &hooks)
	all := []onePage{
		{"overview-map", "/?by=map", ".map canvas"},
		{"overview-table", "/?dots=table", ".sections"},
		{"topic", "/topics/cold-chain", "h1"},
		{"dead", "/topics?show=dead", ".dead"},
		{"profile", "/profiles/meter", ".joining form"},
		{"group", "/groups/cold-chain", "main h1"},
		{"webhook", "/webhooks/" + hooks.Items[0].ID, "main h1"},
		{"note", "/inbox/" + s.notify("cold-chain", "The door of vault 2 stands open"), ".note"},
		{"release", "/firmware/" + release, "main h1"},
		{"rollout", "/rollouts/" + rollout, "main h1"},
		{"newrollout", "/rollouts?new=" + release, ".newrollout"},
		{"nowhere", "/nowhere", ".nowhere"},
	}
	for _, tab := range []string{"live", "history", "twin", "commands", "events", "firmware", "messages", "access"} {
		all = append(all, onePage{"device-" + tab, "/devices/demo-0001/" + tab, ".tabbar a[aria-current]"})
	}
	return all
}

func TestEveryPageIsForEverybodyEmpty(t *testing.T) {
	t.Parallel()
	m := serve(t)
	b := openTab(t, m)
	b.do(chromedp.Navigate(b.base + "/devices"))
	b.wait("the form", `document.querySelector(".signin")`)
	b.inspected("signin")
	b.fingered("signin")
	b.lengthened("signin")
	for _, door := range []string{"forgot", "invite", "reset", "confirm"} {
		b.do(chromedp.Navigate(b.base + "/" + door))
		b.wait(door, `document.querySelector(".signin h1")`)
		b.fingered(door)
		b.lengthened(door)
	}
	b.do(chromedp.Navigate(m.setupLink()))
	b.wait("the form", `document.querySelector(".setup")`)
	b.inspected("setup")
	b.fingered("setup")
	b.fill(".setup", "name", "Ada Kern", "email", "ada@example.com", "password", firstPassword+"\r")
	b.wait("the form to go", `!document.querySelector(".setup")`)
	for _, p := range everyPage() {
		b.look("empty-", p)
	}
	b.look("empty-", onePage{"profile", "/profiles/default", ".joining form"})
	b.look("empty-", onePage{"dead", "/topics?show=dead", ".dead .quiet-note"})
	b.look("empty-", onePage{"device", "/devices/nobody", "main h1"})
	b.known("-")
}

// happens makes what the pages show, over the API.
func (m *muster) happens() {
	m.t.Helper()
	m.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": "cold-chain", "title": "Cold chain"}, http.StatusCreated, nil)
	m.ask(http.MethodPost, "/api/v1/webhooks", map[string]any{"url": "https://plant.example/hook", "types": []string{"device.*"}}, http.StatusCreated, nil)
	m.ask(http.MethodPut, "/api/v1/profiles/meter", map[string]any{"publish": []string{"site/{id}/#", "hall/{id}/alarm"}, "subscribe": []string{"site/all"}, "message_rate": 20}, http.StatusOK, nil)
	m.ask(http.MethodPut, "/api/v1/profiles/meter/provisioning", map[string]any{"strategy": "create"}, http.StatusOK, nil)
	m.ask(http.MethodPut, "/api/v1/fleet/desired", map[string]any{"interval_s": 60}, http.StatusOK, nil)
	m.ask(http.MethodPost, "/api/v1/service-accounts", map[string]any{"name": "billing", "subscribe": []string{"devices/+/telemetry"}}, http.StatusCreated, nil)
	m.ask(http.MethodPost, "/api/v1/adoption-keys", map[string]any{"name": "workshop"}, http.StatusCreated, nil)
	m.ask(http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "billing export", "scopes": []string{"devices:read"}}, http.StatusCreated, nil)
	var users struct{ Items []struct{ ID string } }
	m.ask(http.MethodGet, "/api/v1/users", nil, http.StatusOK, &users)
	m.ask(http.MethodPut, "/api/v1/topics/cold-chain/subscriptions/"+users.Items[0].ID, map[string]any{}, http.StatusOK, nil)
	for i, title := range []string{"The cold store is warm", "Pump 3 stands", "Battery of probe 7 is low"} {
		m.notify("cold-chain", title, "severity", []string{"critical", "major", "warning"}[i])
	}
}

// look opens a page and has it inspected.
func (b *tab) look(prefix string, p onePage) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + p.path))
	b.wait(p.path, fmt.Sprintf("document.querySelector(%q)", p.drawn))
	b.wait("the live connection", `document.querySelector(".live")?.textContent.includes("Live")`)
	if n := evaluate[int](b, `document.querySelectorAll("h1").length`); n != 1 {
		b.t.Errorf("%s has %d headings of the first order, want one", p.path, n)
	}
	b.inspected(prefix + p.name)
	b.fingered(prefix + p.name)
	b.lengthened(prefix + p.name)
}

// longer makes every word of the page as long as in a language that needs two fifths more room, and says whether there were any.
const longer = `(() => {
	const accents = {a: "á", e: "é", i: "ï", o: "ö", u: "ü", A: "Å", E: "É", I: "Î", O: "Ö", U: "Û"};
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	const texts = [];
	while (walk.nextNode()) texts.push(walk.currentNode);
	let longer = 0;
	for (const t of texts) {
		if (t.parentElement.closest(".mono, code, script, style, svg, option") || !/[a-z]{2}/i.test(t.data)) continue;
		longer++;
		t.data = t.data.replace(/[A-Za-z]{2,}/g, w => w.replace(/[aeiouAEIOU]/g, v => accents[v]) + "n".repeat(Math.round(w.length * 0.4)));
	}
	return longer >= 3;
})()`

// clipped is what one cannot read on a page: text that is cut off by something that neither scrolls nor has an ellipsis and all of
// it in a title, text that runs out of its block, and a page that is wider than the window.
const clipped = `(() => {
	const found = new Set();
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	const range = document.createRange();
	while (walk.nextNode()) {
		const own = walk.currentNode.parentElement;
		if (!walk.currentNode.data.trim() || own.closest("script, style, svg, option, noscript") || !own.checkVisibility({visibilityProperty: true})) continue;
		range.selectNodeContents(walk.currentNode);
		const r = range.getBoundingClientRect();
		if (r.width === 0 || r.right <= 0) continue;
		const say = (what, by) => found.add(what + " " + by.outerHTML.slice(0, 100) + ": " + walk.currentNode.data.trim().slice(0, 60));
		let block = null;
		for (let e = own; e !== document.body; e = e.parentElement) {
			const s = getComputedStyle(e);
			if (s.display === "inline" || s.display === "contents") continue;
			if (s.clipPath !== "none") break; // for who listens
			const at = e.getBoundingClientRect();
			const out = r.right > at.right + 1.5 || r.left < at.left - 1.5;
			if (/auto|scroll/.test(s.overflowX)) break;
			if (/hidden|clip/.test(s.overflowX)) {
				if (out && !(s.textOverflow === "ellipsis" && own.closest("[title]"))) say("cut off by", e);
				if (/hidden|clip/.test(s.overflowY) && r.bottom > at.bottom + 2) say("cut off below by", e);
				break;
			}
			if (!block && out) say("runs out of", e);
			block ??= e;
			if (s.position === "fixed") break;
		}
	}
	const page = document.documentElement;
	if (page.scrollWidth > page.clientWidth) {
		const wide = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > page.clientWidth + 1).slice(0, 3).map(e => e.outerHTML.slice(0, 120));
		found.add("the page is " + (page.scrollWidth - page.clientWidth) + " px too wide: " + wide.join(" | "));
	}
	return [...found];
})()`

// lengthened sees that everything can be read at both widths, as it is and in a longer language. What the page shows afterwards
// is of no use.
func (b *tab) lengthened(name string) {
	b.t.Helper()
	told := map[string]bool{}
	for _, language := range []string{"as it is", "in a longer language"} {
		if language != "as it is" && !evaluate[bool](b, longer) {
			b.t.Errorf("%s: hardly a text was there to lengthen", name)
		}
		for _, width := range widths() {
			b.do(chromedp.EmulateViewport(width, 900))
			b.rests(drawsWithin)
			for _, c := range evaluate[[]string](b, clipped) {
				if !told[c] {
					told[c] = true
					b.t.Errorf("%s, %s, %d px: %s", name, language, width, c)
				}
			}
		}
	}
	b.do(chromedp.EmulateViewport(1440, 900))
}

// widths are those of a screen and of a phone, in CSS pixels.
func widths() []int64 { return []int64{1440, 390} }

// inspected has the accessibility engine look at the page in both themes, wide and narrow, and
// sees that nothing is wider than the page; it keeps pictures in the folder that MUSTER_UI_SHOTS names.
func (b *tab) inspected(name string) {
	b.t.Helper()
	axe, err := os.ReadFile(filepath.Join("..", "dashboard", "ui", "testdata", "axe", "axe.min.js"))
	if err != nil {
		b.t.Fatal(err)
	}
	evaluate[bool](b, string(axe)+"; true")
	for _, theme := range []string{"light", "dark"} {
		b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
			})
			return err
		}))
		for _, width := range widths() {
			b.do(chromedp.EmulateViewport(width, 900))
			b.wait("the theme", fmt.Sprintf(`document.documentElement.dataset.theme === %q`, theme))
			b.rests(drawsWithin)
			if over := evaluate[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
				b.t.Errorf("%s, %s: %d px are cut off at a width of %d", name, theme, over, width)
			}
			for _, v := range b.violations() {
				b.t.Errorf("%s, %s, %d px: %s", name, theme, width, v)
			}
			b.keepAs(fmt.Sprintf("%s-%s-%d.png", name, theme, width))
		}
	}
	b.do(chromedp.EmulateViewport(1440, 900))
}

// violations says what the engine, which the tab has, finds on the page.
func (b *tab) violations() []string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, pageLimit)
	defer cancel()
	found, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](`axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
		.then(r => r.passes.length < 10 ? ["the engine looked at nothing"] : r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html).slice(0, 3).join(" ")))`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("run the engine: %v", err)
	}
	return found
}

// keepAs keeps a picture of the whole page, when somebody wants pictures.
func (b *tab) keepAs(name string) {
	b.t.Helper()
	dir := os.Getenv("MUSTER_UI_SHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, pageLimit)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatalf("take a picture: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), png, 0o644); err != nil {
		b.t.Fatalf("keep a picture: %v", err)
	}
}

// drawsWithin is how long a page may take to draw what it has.
const drawsWithin = 400 * time.Millisecond

// rests lets the page be for a time, which is after a frame was drawn.
func (b *tab) rests(d time.Duration) {
	b.t.Helper()
	fetched[bool](b, fmt.Sprintf(`new Promise(r => requestAnimationFrame(() => setTimeout(() => r(true), %d)))`, d.Milliseconds()))
}
