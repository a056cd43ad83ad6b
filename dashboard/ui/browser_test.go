package ui

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"
)

// oneBrowser is what all tests share: to start one takes longer than most of them.
var oneBrowser browser

func TestMain(m *testing.M) { goleak.VerifyTestMain(closing{m}) }

// closing runs the tests and closes the browser after them.
type closing struct{ tests *testing.M }

func (c closing) Run() int {
	code := c.tests.Run()
	if err := oneBrowser.close(); err != nil {
		fmt.Fprintln(os.Stderr, "close the browser:", err)
		return max(code, 1)
	}
	return code
}

// browser is a Chromium that is started when it is first asked for.
type browser struct {
	mu  sync.Mutex
	ctx context.Context
	end context.CancelFunc
}

// started returns the context of the running browser.
func (b *browser) started(path string) (context.Context, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx != nil {
		return b.ctx, nil
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.Flag("headless", "new"), chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("no-sandbox", os.Geteuid() == 0),
		chromedp.WindowSize(1440, 900))
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	if err := chromedp.Do(ctx); err != nil {
		end()
		return nil, err
	}
	b.ctx, b.end = ctx, end
	return ctx, nil
}

func (b *browser) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil {
		return nil
	}
	defer b.end()
	return chromedp.Cancel(b.ctx)
}

// patience bounds every wait for the page.
const patience = 20 * time.Second

// tab is a browser tab on a fake server. When the test ends it fails if a request
// left the origin or the console shows an error that the test did not expect.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu       sync.Mutex
	foreign  []string
	errors   []string
	expected []string
}

func chromium(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser is not for -short")
	}
	for _, p := range []string{os.Getenv("MUSTER_CHROMIUM"), "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"} {
		if info, err := os.Stat(p); p != "" && err == nil && !info.IsDir() {
			return p
		}
	}
	t.Skip("there is no Chromium; name one in MUSTER_CHROMIUM")
	return ""
}

func open(t *testing.T, f *fakeServer) *tab {
	t.Helper()
	shared, err := oneBrowser.started(chromium(t))
	if err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	handler := f.handler()
	if f.wrap != nil {
		handler = f.wrap(handler)
	}
	server := httptest.NewServer(handler)
	ctx, _ := chromedp.NewContext(shared, chromedp.WithNewBrowserContext()) // a profile of its own
	b := &tab{t: t, ctx: ctx, base: server.URL}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the tab: %v", err)
		}
		f.cut(true)
		server.Close()
		f.done.Wait()
		b.verify()
	})
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatalf("open a tab: %v", err)
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
		if !strings.HasPrefix(ev.Request.URL, b.base) && !strings.HasPrefix(ev.Request.URL, "about:") && !strings.HasPrefix(ev.Request.URL, "data:") {
			b.foreign = append(b.foreign, ev.Request.URL)
		}
	case *network.EventWebSocketCreated:
		if !strings.HasPrefix(ev.URL, "ws"+strings.TrimPrefix(b.base, "http")) {
			b.foreign = append(b.foreign, ev.URL)
		}
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if what := ev.ExceptionDetails.Exception; what != nil {
			text += " " + what.Description
		}
		b.errors = append(b.errors, text)
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeWarning {
			b.errors = append(b.errors, "console: "+ev.Args[0].Description)
		}
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning {
			b.errors = append(b.errors, ev.Entry.Text)
		}
	}
}

// expect says that the browser will report an error with the given text, which a
// page cannot keep from the console.
func (b *tab) expect(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, text)
}

func (b *tab) verify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.foreign {
		b.t.Errorf("the page asked for %s", url)
	}
next:
	for _, e := range b.errors {
		for _, known := range b.expected {
			if strings.Contains(e, known) {
				continue next
			}
		}
		b.t.Errorf("the console says: %s", e)
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.shoot("failed")
		b.t.Fatalf("%v", err)
	}
}

func (b *tab) visit(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + path))
}

// wait waits until the JavaScript expression is true.
func (b *tab) wait(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	err := poll(ctx, expression)
	for err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "Cannot find context") {
		err = poll(ctx, expression) // the page that it began on has just gone
	}
	if err != nil {
		b.shoot("failed")
		text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText.slice(0, 1500)"))
		b.t.Fatalf("waited in vain for %s: %v\nthe page says:\n%s", what, err, text)
	}
}

func poll(ctx context.Context, expression string) error {
	_, err := chromedp.Run(ctx, chromedp.Poll[bool]("!!("+expression+")", chromedp.WithPollingTimeout(patience-time.Second)))
	return err
}

// until waits until ok says so.
func (b *tab) until(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			b.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// waitText waits until the elements of the selector hold text together.
func (b *tab) waitText(selector, text string) {
	b.t.Helper()
	b.wait(selector+" to say "+text, "[...document.querySelectorAll("+quote(selector)+")].map(e => e.textContent.trim()).join(' ').includes("+quote(text)+")")
}

func (b *tab) text(selector string) string {
	b.t.Helper()
	return evaluate[string](b, "document.querySelector("+quote(selector)+")?.textContent.trim() ?? ''")
}

func evaluate[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// retype types text over what a field holds.
func (b *tab) retype(selector, text string) {
	b.t.Helper()
	evaluate[bool](b, "(document.querySelector("+quote(selector)+").select(), true)")
	b.types(selector, text)
}

// media sets a media feature, such as prefers-color-scheme.
func (b *tab) media(name, value string) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: name, Value: value}},
		})
		return err
	}))
}

// shoot keeps a picture in the folder named by MUSTER_UI_SHOTS, if there is one.
func (b *tab) shoot(name string) {
	dir := os.Getenv("MUSTER_UI_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Errorf("take a picture: %v", err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "ui-"+strings.NewReplacer("/", "-", "?", "-", " ", "-").Replace(name)+".png"), png, 0o644); err != nil {
		b.t.Errorf("keep a picture: %v", err)
	}
}

// shootAll keeps pictures in both themes, wide and narrow.
func (b *tab) shootAll(name string) {
	if os.Getenv("MUSTER_UI_SHOTS") == "" {
		return
	}
	b.everyLook(func(theme string, width int64) {
		b.shoot(name + "-" + theme + map[int64]string{1440: "", 390: "-390"}[width])
	})
}

// everyLook calls look with the page in both themes, wide and narrow, from its top.
func (b *tab) everyLook(look func(theme string, width int64)) {
	b.t.Helper()
	for _, theme := range []string{"light", "dark"} {
		b.media("prefers-color-scheme", theme)
		b.wait("the theme", "document.documentElement.dataset.theme === "+quote(theme))
		for _, width := range []int64{1440, 390} {
			b.do(chromedp.EmulateViewport(width, 900))
			evaluate[bool](b, "(scrollTo(0, 0), true)") // what stays at the top lies over nothing
			b.frames(b.t)
			look(theme, width)
		}
	}
	b.media("prefers-color-scheme", "light")
	b.do(chromedp.EmulateViewport(1440, 900))
}

// quote makes a JavaScript string literal.
func quote(s string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`", "$", "\\$").Replace(s) + "`"
}

// types focuses the element of a selector and presses keys. It looks at no node: chromedp reads a
// node's attributes while it writes them as the page changes them.
func (b *tab) types(selector, keys string) {
	b.t.Helper()
	b.wait(selector, "document.querySelector("+quote(selector)+")")
	evaluate[bool](b, "(document.querySelector("+quote(selector)+").focus(), true)")
	b.do(chromedp.KeyEvent(keys))
}
