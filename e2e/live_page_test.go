package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
)

// Ways in which a proxy treats a WebSocket.
const (
	letsThrough = 0
	holdsBack   = -1 // takes it, and never answers; what is greater is the status that it refuses with
)

// refuser is a proxy before a server.
type refuser struct {
	mode    atomic.Int64
	sockets atomic.Int64 // that were asked for
	addr    string
	done    chan struct{}
}

func refuserOf(t *testing.T, m *muster, mode int64) *refuser {
	t.Helper()
	r := &refuser{done: make(chan struct{})}
	r.mode.Store(mode)
	through := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: m.http})
	through.FlushInterval = -1
	through.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Upgrade") == "" {
			through.ServeHTTP(w, req)
			return
		}
		r.sockets.Add(1)
		switch mode := r.mode.Load(); mode {
		case letsThrough:
			through.ServeHTTP(w, req)
		case holdsBack:
			select {
			case <-req.Context().Done():
			case <-r.done:
			}
		default:
			w.WriteHeader(int(mode))
		}
	}))
	r.addr = strings.TrimPrefix(s.URL, "http://")
	t.Cleanup(func() { close(r.done); s.CloseClientConnections(); s.Close() })
	return r
}

// forgives drops what the browser writes about connections that a test has cut or refused.
func (b *tab) forgives(parts ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errors = slices.DeleteFunc(b.errors, func(e string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(e, p) })
	})
}

// cutErrors are the browser's words about what is not reached.
func cutErrors() []string {
	return []string{"WebSocket connection to", "net::ERR_", "the server responded with a status of 40", "the server responded with a status of 50"}
}

// comesInBy is comesIn through another address of the server.
func (b *tab) comesInBy(m *muster) {
	b.t.Helper()
	_, path, _ := strings.Cut(m.setupLink(), "/setup/")
	b.do(chromedp.Navigate(b.base + "/setup/" + path))
	b.fill(".setup", "name", "Ada Kern", "email", "ada@example.com", "password", firstPassword+"\r")
	b.wait("the form to go", `!document.querySelector(".setup")`)
}

// TestBehindAProxyThatRefusesWebSocketsThePageIsLiveByAStream has a proxy that refuses them, holds them back, and lets them
// through at last. Everything that is live stays live, and no page is loaded again.
func TestBehindAProxyThatRefusesWebSocketsThePageIsLiveByAStream(t *testing.T) {
	t.Parallel()
	m := serve(t, "--demo")
	proxy := refuserOf(t, m, http.StatusForbidden)
	b := openTabBy(t, chromium(t), proxy.addr)
	t.Cleanup(func() { b.forgives(cutErrors()...) }) // before the verdict, which was registered earlier
	b.comesInBy(m)
	const byStream = `document.querySelector(".live")?.textContent.includes("by stream") && document.querySelector("[data-live=yes]")`
	for _, mode := range []int64{http.StatusBadRequest, http.StatusNotFound, holdsBack} {
		proxy.mode.Store(mode)
		before := proxy.sockets.Load()
		b.do(chromedp.Navigate(b.base + "/"))
		b.wait(fmt.Sprintf("the stream, when WebSockets get %d", mode), byStream)
		if proxy.sockets.Load() == before {
			t.Errorf("with %d no WebSocket was tried", mode)
		}
	}
	b.followsByStream(m)
	evaluate[bool](b, `(window.__same = true)`)
	proxy.mode.Store(letsThrough)
	evaluate[bool](b, `window.dispatchEvent(new Event("online"))`)
	b.wait("the WebSocket", `document.querySelector(".live.live") && !document.querySelector(".live").textContent.includes("by stream") && document.querySelector("[data-live=yes]")`)
	b.changes("table.devices td.n.val")
	if !evaluate[bool](b, `window.__same === true`) {
		t.Error("the page was loaded again")
	}
}

// changes waits until the text of elements is another.
func (b *tab) changes(selector string) {
	b.t.Helper()
	text := fmt.Sprintf(`[...document.querySelectorAll(%q)].map(e => e.textContent).join()`, selector)
	b.wait(selector, fmt.Sprintf(`document.querySelector(%q)?.textContent`, selector))
	b.wait(selector+" to change", fmt.Sprintf("%s !== %q", text, evaluate[string](b, text)))
}

// followsByStream looks at each kind of channel.
func (b *tab) followsByStream(m *muster) {
	b.t.Helper()
	b.wait("the fleet", `document.querySelector(".roll h1")?.textContent.includes("25 of 25 answering")`)
	b.wait("the dots", `[...document.querySelectorAll("canvas")].some(c => c.width > 100)`)
	b.wait("the words of the tail", `document.querySelector(".tail li")`)
	m.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": "pumps"}, http.StatusCreated, nil)
	var me struct{ User struct{ ID string } }
	me.User.ID = fetched[string](b, `fetch("/api/v1/me").then(r => r.json()).then(m => m.user.id)`)
	evaluate[bool](b, `(fetch("/api/v1/topics/pumps/subscriptions/me", {method: "PUT", headers: {"Content-Type": "application/json"}, body: "{}"}).then(r => { window.__subscribed = r.ok }), true)`)
	b.wait("the subscription", `window.__subscribed`)
	m.notify("pumps", "Pump 3 is hot")
	b.wait("the notification to ring", `document.querySelector(".bell b")?.textContent === "1"`)
	b.press(`.rail a[href="/devices"]`)
	b.changes("table.devices td.n.val")
	b.do(chromedp.Navigate(b.base + "/devices/demo-0001"))
	b.changes(".chart .v")
	b.do(chromedp.Navigate(b.base + "/dashboard"))
	b.wait("the system", `document.querySelector("main h1, main h2")`)
	b.wait("the stream again", `document.querySelector(".live")?.textContent.includes("by stream")`)
	b.press(`.rail a[href="/devices"]`)
}

// plug is a wire to a server that can be pulled: what is under way is held back, and nothing is refused.
type plug struct {
	addr string
	to   string
	mu   sync.Mutex
	wait chan struct{} // closed while the plug is in
	all  map[net.Conn]bool
	over bool
}

func plugOf(t *testing.T, m *muster) *plug {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &plug{addr: l.Addr().String(), to: m.http, wait: make(chan struct{}), all: map[net.Conn]bool{}}
	close(p.wait)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { p.carry(c, &work) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.in()
		p.mu.Lock()
		p.over = true
		for c := range p.all {
			_ = c.Close()
		}
		p.mu.Unlock()
		work.Wait()
	})
	return p
}

func (p *plug) out() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait = make(chan struct{})
}

func (p *plug) in() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.wait:
	default:
		close(p.wait)
	}
}

func (p *plug) gate() {
	p.mu.Lock()
	w := p.wait
	p.mu.Unlock()
	<-w
}

func (p *plug) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[c] = true
	return !p.over
}

func (p *plug) carry(c net.Conn, work *sync.WaitGroup) {
	defer c.Close()
	p.gate()
	s, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer s.Close()
	if !p.keep(c) || !p.keep(s) {
		return
	}
	work.Go(func() { p.copy(s, c); _ = s.Close() })
	p.copy(c, s)
}

func (p *plug) copy(to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.gate()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// TestWhenThePlugIsPulledThePageSaysSoAndComesBackWhole holds back all that goes between page and server, until the page has
// noticed by itself, and lets it through again.
func TestWhenThePlugIsPulledThePageSaysSoAndComesBackWhole(t *testing.T) {
	t.Parallel()
	m := serve(t, "--demo")
	p := plugOf(t, m)
	b := openTabBy(t, chromium(t), p.addr)
	t.Cleanup(func() { b.forgives(cutErrors()...) })
	b.comesInBy(m)
	b.do(chromedp.Navigate(b.base + "/devices/demo-0001"))
	b.changes(".chart .v")
	evaluate[bool](b, `(window.__same = true)`)
	p.out()
	b.wait("the bar", `document.querySelector(".bar-foot")?.textContent.includes("has not been reached since") && /is \d+ s old|is \d+ min old/.test(document.querySelector(".bar-foot").textContent)`)
	b.wait("the numbers to be dim", `document.querySelector("[data-live=no]") || document.querySelector("[data-live=soon]")`)
	b.wait("the chart to show what nobody saw", `document.querySelector(".plot[role=img]").ariaLabel.includes("not connected since")`)
	if n := evaluate[int](b, `document.querySelectorAll(".bar-foot").length`); n != 1 {
		t.Errorf("there are %d bars", n)
	}
	p.in()
	b.wait("the connection", `document.querySelector("[data-live=yes]") || (document.querySelector(".bar-foot .btn:not(:disabled)")?.click(), false)`)
	b.wait("the bar to go", `!document.querySelector(".bar-foot")`)
	b.wait("the gap to go", `!document.querySelector(".plot[role=img]").ariaLabel.includes("not connected")`)
	b.filledUp(m, "demo-0001")
	b.press(`.rail a[href="/devices"]`)
	b.wait("the list", `document.querySelectorAll("table.devices tbody tr").length >= 25`)
	b.once()
	if !evaluate[bool](b, `window.__same === true`) {
		t.Error("the page was loaded again")
	}
}

// filledUp waits until the page counts as many readings as are stored in what it shows, less those of its last seconds.
func (b *tab) filledUp(m *muster, id string) {
	b.t.Helper()
	at := "/api/v1/devices/" + id + "/telemetry/chart?from=now-15m&px=800"
	m.await("the readings to be all there", pageLimit, func() bool {
		var chart struct{ Readings int }
		m.ask(http.MethodGet, at, nil, http.StatusOK, &chart)
		shown := evaluate[int](b, `Number((document.querySelector("#signals-title + p").textContent.match(/[\d,]+(?= readings)/)?.[0] ?? "0").replaceAll(",", ""))`)
		return shown > 0 && shown >= chart.Readings-10
	})
}

// once fails when a row is there twice.
func (b *tab) once() {
	b.t.Helper()
	if got := evaluate[string](b, `(() => {
		const ids = [...document.querySelectorAll("table.devices tbody th")].map(e => e.textContent);
		return ids.filter((id, i) => ids.indexOf(id) !== i).join();
	})()`); got != "" {
		b.t.Errorf("there are twice: %s", got)
	}
}

// TestAServerThatIsKilledAndStartedAgainIsFoundByThePage kills it in mid-view.
func TestAServerThatIsKilledAndStartedAgainIsFoundByThePage(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.fleet(40)
	b := openTab(t, m)
	t.Cleanup(func() { b.forgives(cutErrors()...) })
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/devices"))
	b.wait("the list", `document.querySelectorAll("table.devices tbody tr").length === 40`)
	evaluate[bool](b, `(window.__same = true)`)
	m.kill()
	b.wait("the bar", `document.querySelector(".bar-foot")?.textContent.includes("has not been reached since")`)
	b.wait("when it is tried next", `/Next try in \d+ s|Trying now/.test(document.querySelector(".bar-foot").textContent)`)
	b.wait("the values to be dim", `(e => getComputedStyle(e).color === getComputedStyle(document.querySelector(".rail .group")).color)(document.querySelector("table.devices td.val"))`)
	m.start()
	m.ready()
	b.wait("the connection", `document.querySelector("[data-live=yes]")`)
	b.wait("the bar to go", `!document.querySelector(".bar-foot")`)
	m.post("/api/v1/telemetry", "application/x-ndjson", packed(t, []byte(`{"device":"pump-000","temperature":77.25}`+"\n")), http.StatusOK)
	b.says("table.devices tbody", "77.25")
	if n := evaluate[int](b, `document.querySelectorAll("table.devices tbody tr").length`); n != 40 {
		t.Errorf("the list has %d rows", n)
	}
	b.once()
	if !evaluate[bool](b, `window.__same === true`) {
		t.Error("the page was loaded again")
	}
}
