package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	pageLimit  = 90 * time.Second // a machine that is busy with other tests is slow to draw
	lightLimit = 2 * time.Second  // from publishing a value to seeing it, at its quickest
)

// tab is a browser tab on a server. When the test ends it fails if a request left
// the origin or the console shows an error.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu      sync.Mutex
	foreign []string
	errors  []string
	frames  []string // what WebSockets brought since it was asked for; nil when nobody counts
}

func openTab(t *testing.T, m *muster) *tab {
	t.Helper()
	return openTabBy(t, chromium(t), m.http)
}

// chromium returns the path of the browser.
func chromium(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("MUSTER_CHROMIUM"); path != "" {
		return path
	}
	return needs(t, "chromium")
}

// openTabBy opens a tab of the browser at path for the server at host. They talk over a pipe: the
// browser may be where no port of it is reached.
func openTabBy(t *testing.T, path, host string) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.Flag("remote-debugging-pipe", true), chromedp.Flag("headless", "new"), chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("no-sandbox", os.Geteuid() == 0),
		chromedp.WindowSize(1440, 900), chromedp.WSURLReadTimeout(pageLimit))
	allocator, end := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	b := &tab{t: t, ctx: ctx, base: "http://" + host}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && t.Context().Err() == nil {
			t.Errorf("close the browser: %v", err)
		}
		end()
		b.verdict()
	})
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	b.do(chromedp.EmulateViewport(1440, 900), chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, network.Enable, network.EnableParams{})
		return err
	}))
	return b
}

func (b *tab) hear(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(ev.Request.URL, b.base+"/") && !strings.HasPrefix(ev.Request.URL, "about:") && !strings.HasPrefix(ev.Request.URL, "data:") {
			b.foreign = append(b.foreign, ev.Request.URL)
		}
	case *network.EventWebSocketCreated:
		if !strings.HasPrefix(ev.URL, "ws"+strings.TrimPrefix(b.base, "http")+"/") {
			b.foreign = append(b.foreign, ev.URL)
		}
	case *network.EventWebSocketFrameReceived:
		if b.frames != nil {
			b.frames = append(b.frames, string(ev.Response.PayloadData))
		}
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if what := ev.ExceptionDetails.Exception; what != nil {
			text += " " + what.Description
		}
		b.errors = append(b.errors, text)
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeWarning {
			b.errors = append(b.errors, fmt.Sprintf("%s: %v", ev.Type, ev.Args))
		}
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning {
			b.errors = append(b.errors, ev.Entry.Text+" "+ev.Entry.URL)
		}
	}
}

func (b *tab) verdict() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.foreign {
		b.t.Errorf("the page asked for %s", url)
	}
	for _, e := range b.errors {
		b.t.Errorf("the console says: %s", e)
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, pageLimit)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("browser: %v\n%s", err, b.page())
	}
}

// page returns what the page says, for failures.
func (b *tab) page() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("location.pathname + location.search + ' says:\\n' + document.body.innerText.slice(0, 1500)"))
	if err != nil {
		return "the page does not answer: " + err.Error()
	}
	return text
}

// wait waits until the JavaScript expression is true.
func (b *tab) wait(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, pageLimit)
	defer cancel()
	err := poll(ctx, expression)
	for err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "Cannot find context") {
		err = poll(ctx, expression) // the page that it began on has just gone
	}
	if err != nil {
		b.t.Fatalf("waited in vain for %s: %v\n%s", what, err, b.page())
	}
}

func poll(ctx context.Context, expression string) error {
	_, err := chromedp.Run(ctx, chromedp.Poll[bool]("!!("+expression+")", chromedp.WithPollingTimeout(pageLimit-time.Second)))
	return err
}

func evaluate[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, pageLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

var setupAddress = regexp.MustCompile(`http://\S+/setup/\S+`)

// setupLink returns the one-time link that the server printed.
func (m *muster) setupLink() string {
	m.t.Helper()
	found := ""
	m.await("the set-up link to be printed", pageLimit, func() bool { // it is ready a moment before
		out, err := os.ReadFile(m.outPath)
		found = setupAddress.FindString(string(out))
		return err == nil && found != ""
	})
	return found
}

// watch has the page note when the text at selector becomes value: evaluating
// __lit gives the milliseconds since 1970, 0 before.
const watch = `(() => {
	window.__eye?.disconnect();
	window.__lit = 0;
	const look = () => {
		if (!window.__lit && document.querySelector(%[1]q)?.textContent.trim() === %[2]q) window.__lit = Date.now();
	};
	window.__eye = new MutationObserver(look);
	window.__eye.observe(document.body, {subtree: true, childList: true, characterData: true});
	look();
	return true;
})()`

// TestFirstLight walks the way of a new user: the link on the console, the first
// device, the command that the page shows, the device's page; and measures how long
// a value takes from the command line to the screen.
func TestFirstLight(t *testing.T) {
	needs(t, "mosquitto_pub")
	m := serve(t)
	b := openTab(t, m)
	b.do(chromedp.Navigate(m.setupLink()))
	b.wait("the empty page", `document.querySelector("#connect-title")?.textContent.includes("Connect the first device")`)
	b.wait("the live connection", `document.querySelector(".live")?.textContent.includes("Live")`)
	b.do(chromedp.Click(chromedp.CSS(".create .btn.pri")))
	b.wait("the command", `document.querySelector(".copyline code")`)
	line := evaluate[string](b, `document.querySelector(".copyline code").textContent`)
	shell(t, line)
	b.wait("the page to see the device connect", `document.querySelector(".steps")?.textContent.includes("First value: temperature 21.5")`)
	b.do(chromedp.Click(chromedp.CSS(".first a.btn")))
	b.wait("the device's page", `location.pathname.startsWith("/devices/")`)
	const value = `.chart[data-key=temperature] .v`
	b.wait("the first value on the device's page", `document.querySelector("`+value+`")?.textContent.trim() === "21.5"`)

	quickest := pageLimit
	for _, next := range []string{"22.75", "-4.5", "19.25"} {
		evaluate[bool](b, fmt.Sprintf(watch, value, strings.Replace(next, "-", "−", 1)))
		began := time.Now()
		shell(t, strings.Replace(line, "21.5", next, 1))
		b.wait("the value "+next, `window.__lit > 0`)
		took := time.Duration(evaluate[int64](b, `window.__lit`)-began.UnixMilli()) * time.Millisecond
		t.Logf("%s was on the screen %s after mosquitto_pub was started", next, took)
		quickest = min(quickest, took)
	}
	if quickest > lightLimit {
		t.Errorf("a value was on the screen after %s at its quickest, want at most %s", quickest, lightLimit)
	}
	b.wait("the history", `document.querySelector(".chart canvas")`)
}

// shell runs a line as the page shows it.
func shell(t *testing.T, line string) {
	t.Helper()
	r := execute(t, pageLimit, func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, "sh", "-c", line) })
	if r.code != 0 {
		t.Fatalf("%s: %s", line, r)
	}
}

// TestTheSetupLinkWorksOnce opens it a second time, as somebody else.
func TestTheSetupLinkWorksOnce(t *testing.T) {
	m := serve(t)
	link := m.setupLink()
	first, second := openTab(t, m), openTab(t, m)
	first.do(chromedp.Navigate(link))
	first.wait("the page", `document.querySelector("#connect-title")`)
	second.do(chromedp.Navigate(link))
	second.wait("a refusal", `document.body.textContent.includes("has been used")`)
	second.mu.Lock()
	second.errors = nil // the browser's own line about the status of the refusal
	second.mu.Unlock()
}

// TestTheLinkOfAClaimCodeClaimsTheDevice opens what a claim code's QR code holds.
func TestTheLinkOfAClaimCodeClaimsTheDevice(t *testing.T) {
	m := serve(t)
	b := openTab(t, m)
	b.do(chromedp.Navigate(m.setupLink()))
	b.wait("the page", `document.querySelector("#connect-title")`)
	m.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": "lamp"}, http.StatusCreated, nil)
	var code struct{ Code, URL string }
	m.ask(http.MethodPost, "/api/v1/devices/lamp/claim-code", nil, http.StatusCreated, &code)
	at, err := url.Parse(code.URL)
	if err != nil || at.Path != "/claim/"+code.Code {
		t.Fatalf("the link is %q: %v", code.URL, err)
	}
	b.do(chromedp.Navigate(b.base + "/claim/WRONGONE"))
	b.wait("the form", `document.querySelector("#code")?.value === "WRONGONE"`)
	b.do(chromedp.Click(chromedp.CSS(".claim .btn.pri")))
	b.wait("a refusal", `document.querySelector("#code-error")?.textContent.trim()`)
	b.do(chromedp.Navigate(b.base + at.Path))
	b.wait("the code in the form", fmt.Sprintf(`document.querySelector("#code")?.value === %q`, code.Code))
	b.do(chromedp.Click(chromedp.CSS(".claim .btn.pri")))
	b.wait("the device's page", `location.pathname === "/devices/lamp"`)
	var device struct{ Tags map[string]string }
	m.ask(http.MethodGet, "/api/v1/devices/lamp", nil, http.StatusOK, &device)
	if device.Tags["owner"] == "" {
		t.Error("the device has no owner")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errors = nil // the browser's own line about the status of the refusal
}

// TestTheDemoIsAlive starts a server with --demo: the list shows its devices online
// with values that change.
func TestTheDemoIsAlive(t *testing.T) {
	m := serve(t, "--demo")
	b := openTab(t, m)
	b.do(chromedp.Navigate(m.setupLink()))
	b.wait("25 devices online", `document.querySelector(".roll h1")?.textContent.includes("25 of 25 answering")`)
	b.press(`.rail a[href="/devices"]`)
	b.wait("25 rows with values", `document.querySelectorAll("table.devices tbody tr td.n.val:not(:empty)").length >= 25`)
	const values = `[...document.querySelectorAll("table.devices tbody td.val")].map(e => e.textContent).join()`
	before := evaluate[string](b, values)
	b.wait("values to change", values+" !== "+fmt.Sprintf("%q", before))
	if n := evaluate[int](b, `document.querySelectorAll("table.devices tbody tr").length`); n != 25 {
		t.Errorf("the list has %d rows, want 25", n)
	}
	if got := evaluate[string](b, `document.querySelector("table.devices tbody tr th").textContent`); !strings.Contains(got, "demo-0001") || !strings.Contains(got, "Simulated") {
		t.Errorf("the first row is %q, want it labelled as simulated", got)
	}
}
