//go:build linux

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	pageRounds  = 3
	pageFor     = 8 * time.Second
	pageWarm    = 3 * time.Second
	pageLimit   = time.Minute
	pageTick    = 10 * time.Millisecond
	onThePage   = 50     // rows
	pageRate    = 1000   // readings a second of the devices on the page
	fleetRate   = 10_000 // of the whole fleet, in the last case
	heapMinutes = 3
)

// BenchmarkPage measures in a browser what the dashboard costs it: the first load with a slow
// processor, and the main thread's time a second while nothing on the page changes, while 50 rows
// get 1,000 readings a second, and while the fleet of 100,000 devices gets 10,000; then what the
// page keeps after minutes of that.
func BenchmarkPage(b *testing.B) {
	s, _ := startMuster(b, "", 0)
	logins, _ := s.importFleet()
	conns := s.gateways(logins)
	s.sayOnce(conns)
	s.await("all devices to have values", settleLimit, func() bool { return s.metric("muster_ingest_queued") == 0 })
	for range b.N {
		fmt.Printf("\nthe dashboard in a browser: %d devices behind %d gateways\n", fleetSize, fleetGateways)
		w := s.openBrowser()
		w.loads()
		sp := s.speaker(conns)
		w.rows(sp)
		w.keeps(sp)
		sp.close()
	}
	b.ReportMetric(0, "ns/op")
}

// window is a browser's tab that is signed in.
type window struct {
	s     *server
	b     *testing.B
	ctx   context.Context
	bytes atomic.Int64 // of the frames that came over WebSockets
}

func (s *server) openBrowser() *window {
	s.b.Helper()
	path := os.Getenv("MUSTER_CHROMIUM")
	if path == "" {
		found, err := exec.LookPath("chromium")
		if err != nil {
			s.b.Fatal("there is no chromium; name one in MUSTER_CHROMIUM")
		}
		path = found
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("headless", "new"),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("no-sandbox", os.Geteuid() == 0), chromedp.WindowSize(1440, 900), chromedp.WSURLReadTimeout(pageLimit))
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	w := &window{s: s, b: s.b, ctx: ctx}
	s.b.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // it ends with the allocator at the latest
		end()
	})
	if err := chromedp.Listen(ctx, func(ev any) {
		if f, ok := ev.(*network.EventWebSocketFrameReceived); ok {
			w.bytes.Add(int64(len(f.Response.PayloadData)))
		}
	}); err != nil {
		s.b.Fatalf("start the browser: %v", err)
	}
	w.do(chromedp.EmulateViewport(1440, 900))
	call(w, network.Enable, network.EnableParams{})
	call(w, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks})
	w.do(chromedp.Navigate("http://" + s.http + "/licenses.txt"))
	in := fmt.Sprintf(`fetch("/api/v1/session", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({key: %q})}).then(r => r.ok)`, s.key)
	ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](in, chromedp.EvalAwaitPromise))
	if err != nil || !ok {
		s.b.Fatalf("sign in: %v, %v", ok, err)
	}
	return w
}

func (w *window) do(steps ...chromedp.Action[chromedp.Void]) {
	w.b.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, pageLimit)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		w.b.Fatalf("browser: %v", err)
	}
}

// call sends a command of the DevTools protocol.
func call[P, R any](w *window, c cdp.Command[P, R], params P) (out R) {
	w.b.Helper()
	w.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) (err error) {
		out, err = cdp.Call(ctx, target, c, params)
		return err
	}))
	return out
}

// visit opens a path and waits until it is live and shows what is at drawn.
func (w *window) visit(path, drawn string) {
	w.b.Helper()
	w.do(chromedp.Navigate("http://" + w.s.http + path))
	ctx, cancel := context.WithTimeout(w.ctx, pageLimit)
	defer cancel()
	live := fmt.Sprintf(`document.querySelector(".live")?.textContent.includes("Live") && document.querySelector(%q) !== null`, drawn)
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](live, chromedp.WithPollingTimeout(pageLimit))); err != nil {
		w.b.Fatalf("wait for %s: %v", path, err)
	}
}

// ready notes when the page is live and its first row or figure is there, in ms since its
// navigation began.
const ready = `(() => {
	const look = () => {
		if (window.__ready || !document.querySelector(".live.live") || !document.querySelector("main h1 .n, main h1, tbody tr")) return;
		requestAnimationFrame(() => { window.__ready ||= performance.now(); });
	};
	new MutationObserver(look).observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
})()`

// loads measures the first load with a processor of a quarter of this one's speed.
func (w *window) loads() {
	w.b.Helper()
	call(w, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: ready})
	call(w, emulation.SetCPUThrottlingRate, emulation.SetCPUThrottlingRateParams{Rate: 4})
	for _, path := range []string{"/", "/devices"} {
		for _, kept := range []bool{false, true} {
			var took []float64
			for range pageRounds {
				if !kept {
					call(w, network.ClearBrowserCache, cdp.Empty{})
				}
				w.visit(path, "main h1")
				took = append(took, evaluate[float64](w, `new Promise(r => { const t = setInterval(() => { if (window.__ready) { clearInterval(t); r(window.__ready); } }, 5); })`))
			}
			what, goal := "cold", 1500
			if kept {
				what, goal = "warm", 600
			}
			fmt.Printf("  %-44s %8.0f ms   median of %d; goal <= %d\n", fmt.Sprintf("%s live, %s, processor at a quarter", path, what), median(took), pageRounds, goal)
			w.b.ReportMetric(median(took), strings.Trim(path, "/")+what+"-ms")
		}
	}
	call(w, emulation.SetCPUThrottlingRate, emulation.SetCPUThrottlingRateParams{Rate: 1})
}

func evaluate[T any](w *window, expression string) T {
	w.b.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, pageLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		w.b.Fatalf("evaluate: %v", err)
	}
	return v
}

// pageFigures are milliseconds of the page's main thread a second, and KiB a second on the wire.
type pageFigures struct{ all, script, layout, wire float64 }

// spends measures the page for a while.
func (w *window) spends() pageFigures {
	w.b.Helper()
	from, bytes, began := w.metrics(), w.bytes.Load(), time.Now()
	w.s.await("some seconds to pass", pageLimit, func() bool { return time.Since(began) > pageFor })
	to, took := w.metrics(), time.Since(began).Seconds()
	per := func(name string) float64 { return (to[name] - from[name]) * 1000 / took }
	return pageFigures{per("TaskDuration"), per("ScriptDuration"), per("LayoutDuration") + per("RecalcStyleDuration"), float64(w.bytes.Load()-bytes) / 1024 / took}
}

func (w *window) metrics() map[string]float64 {
	w.b.Helper()
	out := map[string]float64{}
	for _, m := range call(w, performance.GetMetrics, cdp.Empty{}).Metrics {
		out[m.Name] = m.Value
	}
	return out
}

// rows measures each page while rows get readings and while they do not, in turns.
func (w *window) rows(sp *speaker) {
	w.b.Helper()
	fmt.Printf("  %-44s %9s %9s %9s %9s\n", "ms of the main thread a second, medians", "all", "script", "layout", "KiB/s")
	for _, p := range []struct{ path, drawn string }{{"/devices", "tbody tr:nth-child(50)"}, {"/", "main canvas"}} {
		w.visit(p.path, p.drawn)
		cases := []struct {
			name         string
			rows, others int
		}{{"no row changes", 0, pageRate}, {"1,000/s on the page", pageRate, 0}, {"and 10,000/s in the fleet", pageRate, fleetRate - pageRate}}
		got := make([][4][]float64, len(cases))
		for range pageRounds {
			for i, c := range cases {
				sp.rate(c.rows, c.others)
				began := time.Now()
				w.s.await("it to be steady", pageLimit, func() bool { return time.Since(began) > pageWarm })
				f := w.spends()
				for k, v := range []float64{f.all, f.script, f.layout, f.wire} {
					got[i][k] = append(got[i][k], v)
				}
			}
		}
		for i, c := range cases {
			fmt.Printf("  %-44s %9.1f %9.1f %9.1f %9.1f\n", p.path+": "+c.name, median(got[i][0]), median(got[i][1]), median(got[i][2]), median(got[i][3]))
		}
		idle, busy, full := median(got[0][0]), median(got[1][0]), median(got[2][0])
		fmt.Printf("  %-44s %9.2f %9.2f   goals <= 2.5, <= 1.3 of that, <= 250 ms/s, <= 30 KiB/s\n", p.path+": ratios", busy/idle, full/busy)
		name := "devices"
		if p.path == "/" {
			name = "overview"
		}
		w.b.ReportMetric(busy/idle, name+"-ratio")
		w.b.ReportMetric(full/busy, name+"-10x-ratio")
	}
	sp.rate(0, 0)
}

// keeps measures the page's heap after one minute and after some more, at ten times the rate.
func (w *window) keeps(sp *speaker) {
	w.b.Helper()
	w.visit("/devices", "tbody tr:nth-child(50)")
	sp.rate(fleetRate, 0)
	var first float64
	for i := range heapMinutes + 1 {
		began := time.Now()
		w.s.await("a minute to pass", 2*time.Minute, func() bool { return time.Since(began) > time.Minute })
		call(w, heapprofiler.CollectGarbage, cdp.Empty{})
		heap := call(w, runtime.GetHeapUsage, cdp.Empty{}).UsedSize / (1 << 20)
		nodes := w.metrics()["Nodes"]
		if i == 0 {
			first = heap
		}
		fmt.Printf("  %-44s %9.2f MiB %7.0f nodes   %.2f of the first; goal <= 1.3\n", fmt.Sprintf("heap after minute %d at %d/s on the page", i+1, fleetRate), heap, nodes, heap/first)
		w.b.ReportMetric(heap/first, "heap-ratio")
	}
	sp.rate(0, 0)
}

// speaker publishes readings of devices through their gateways, at QoS 0, until close.
type speaker struct {
	s            *server
	conns        []*conn
	rows, others atomic.Int64 // messages a second
	quit         chan struct{}
	done         sync.WaitGroup
}

func (s *server) speaker(conns []*conn) *speaker {
	sp := &speaker{s: s, conns: conns, quit: make(chan struct{})}
	sp.done.Go(sp.run)
	return sp
}

// rate sets how many readings a second the devices on the first page and all others send.
func (sp *speaker) rate(rows, others int) {
	sp.rows.Store(int64(rows))
	sp.others.Store(int64(others))
}

func (sp *speaker) close() {
	close(sp.quit)
	sp.done.Wait()
}

func (sp *speaker) run() {
	tick := time.NewTicker(pageTick)
	defer tick.Stop()
	ticks := int64(time.Second / pageTick)
	for n := 0; ; n++ {
		select {
		case <-sp.quit:
			return
		case <-tick.C:
		}
		for i := range sp.rows.Load() / ticks {
			sp.say((n*int(pageRate/ticks)+int(i))%onThePage, n)
		}
		for i := range sp.others.Load() / ticks {
			sp.say(onThePage+(n*101+int(i)*997)%(fleetSize-onThePage), n)
		}
		if err := sp.flush(); err != nil {
			sp.s.b.Errorf("publish: %v", err)
			return
		}
	}
}

func (sp *speaker) say(device, n int) {
	c := sp.conns[device%fleetGateways]
	c.out = appendPublish(c.out, fmt.Sprintf("devices/dev-%06d/telemetry", device),
		fmt.Appendf(nil, `{"temperature":%d.%d,"humidity":%d.25,"battery":%d.5,"voltage":3.%02d}`, 10+n%30, n%10, n%90, n%100, n%100))
}

func (sp *speaker) flush() error {
	for _, c := range sp.conns {
		if len(c.out) == 0 {
			continue
		}
		if err := c.SetDeadline(time.Now().Add(ackLimit)); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
	return nil
}
