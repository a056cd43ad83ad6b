//go:build linux

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
	pageFor     = 5 * time.Second
	pageWarm    = 2 * time.Second
	pageLimit   = time.Minute
	pageTick    = 10 * time.Millisecond
	onThePage   = 50     // rows
	pageRate    = 1000   // changes a second of what is on the page
	fleetRate   = 10_000 // messages a second of the whole fleet, in the last case
	heapMinutes = 3

	coldGoal, warmGoal = 1500, 600 // ms
	pageGoal           = 2.5       // of the page on which nothing changes
	tenfoldGoal        = 1.3       // of the page at a tenth of the rate
	threadGoal         = 250       // ms of the main thread a second
	wireGoal           = 30        // KiB a second
	heapGoal           = 1.3       // of minute one
	nodesGoal          = 1.05      // of minute one
)

// BenchmarkPage measures in a browser what the dashboard costs it: the first load with a slow
// processor; the main thread's time a second on the list of 50 rows and on the Overview with its
// 100,000 dots, each with a chart and counters that are drawn ten times a second beside it, while
// nothing else changes, while 1,000 readings a second change the rows and 1,000 changes of presence
// the dots, and while the fleet sends 10,000 messages a second; then what the page keeps after
// minutes of ten times the rate.
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
	via   string       // host:port of what counts
	bytes atomic.Int64 // that the server sent, as they went over the wire
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
	w.via = s.counted(&w.bytes)
	s.b.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // it ends with the allocator at the latest
		end()
	})
	if err := chromedp.Do(ctx); err != nil { // with a deadline the browser would end at it
		s.b.Fatalf("start the browser: %v", err)
	}
	w.do(chromedp.EmulateViewport(1440, 900))
	call(w, network.Enable, network.EnableParams{})
	call(w, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks})
	w.do(chromedp.Navigate("http://" + w.via + "/licenses.txt"))
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
	w.do(chromedp.Navigate("http://" + w.via + path))
	ctx, cancel := context.WithTimeout(w.ctx, pageLimit)
	defer cancel()
	live := fmt.Sprintf(`document.querySelector(".live")?.textContent.includes("Live") && document.querySelector(%q) !== null`, drawn)
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](live, chromedp.WithPollingTimeout(pageLimit))); err != nil {
		w.b.Fatalf("wait for %s: %v", path, err)
	}
}

// ready notes when the page is live, what is at __drawn is there and painted, and the main thread is free
// again, in ms since its navigation began.
const ready = `(() => {
	const drawn = location.pathname === "/devices" ? "tbody tr:nth-child(50)" : "main h1 .n";
	let seen = false;
	const look = () => {
		if (seen || !document.querySelector(".live.live") || !document.querySelector(drawn)) return;
		seen = true;
		requestAnimationFrame(() => setTimeout(() => { window.__ready = performance.now(); }, 0));
	};
	new MutationObserver(look).observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
})()`

// loads measures the first load with a processor of a quarter of this one's speed.
func (w *window) loads() {
	w.b.Helper()
	script := call(w, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: ready})
	call(w, emulation.SetCPUThrottlingRate, emulation.SetCPUThrottlingRateParams{Rate: 4})
	for _, p := range pages {
		for _, kept := range []bool{false, true} {
			var took []float64
			for range pageRounds {
				if !kept {
					call(w, network.ClearBrowserCache, cdp.Empty{})
				}
				w.visit(p.path, p.drawn)
				took = append(took, evaluate[float64](w, `new Promise(r => { const t = setInterval(() => { if (window.__ready) { clearInterval(t); r(window.__ready); } }, 5); })`))
			}
			what, goal := "cold", float64(coldGoal)
			if kept {
				what, goal = "warm", warmGoal
			}
			fmt.Printf("  %-44s %8.0f ms   median of %d; %s\n", fmt.Sprintf("%s interactive, %s, processor at a quarter", p.path, what), median(took), pageRounds, atMost(median(took), goal))
			w.b.ReportMetric(median(took), p.name+"-"+what+"-ms")
		}
	}
	call(w, emulation.SetCPUThrottlingRate, emulation.SetCPUThrottlingRateParams{Rate: 1})
	call(w, page.RemoveScriptToEvaluateOnNewDocument, page.RemoveScriptToEvaluateOnNewDocumentParams(script))
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

// pages are those that show what changes most.
var pages = [...]struct{ name, path, drawn, changes string }{
	{"devices", "/devices", "tbody tr:nth-child(50)", "readings of 50 rows"},
	{"overview", "/", "main canvas", "presences of 100,000 dots"},
}

// rows measures each page while what it shows changes and while it does not, in turns.
func (w *window) rows(sp *speaker) {
	w.b.Helper()
	fmt.Printf("  %-44s %9s %9s %9s %9s\n", "ms of the main thread a second, medians", "all", "script", "layout", "KiB/s")
	var sums [3]float64
	for _, p := range pages {
		w.visit(p.path, p.drawn)
		w.evaluate(besideTheRows())
		dots, rows := 0, pageRate
		if p.name == "overview" {
			dots, rows = pageRate, 0
		}
		cases := []struct {
			name               string
			rows, dots, others int
		}{
			{"nothing but chart and counters at 10 Hz", 0, 0, pageRate},
			{"and 1,000/s " + p.changes, rows, dots, 0},
			{"and 10,000/s in the fleet", rows, dots, fleetRate - pageRate},
		}
		got := make([][4][]float64, len(cases))
		for range pageRounds {
			for i, c := range cases {
				sp.rate(c.rows, c.dots, c.others)
				w.pass(pageWarm)
				f := w.spends()
				for k, v := range []float64{f.all, f.script, f.layout, f.wire} {
					got[i][k] = append(got[i][k], v)
				}
			}
		}
		for i, c := range cases {
			sums[i] += median(got[i][0])
			fmt.Printf("  %-44s %9.1f %9.1f %9.1f %9.1f\n", p.path+": "+c.name, median(got[i][0]), median(got[i][1]), median(got[i][2]), median(got[i][3]))
		}
		w.judge(p.name, [3]float64{median(got[0][0]), median(got[1][0]), median(got[2][0])}, max(median(got[1][3]), median(got[2][3])))
	}
	w.judge("both", sums, 0)
	sp.rate(0, 0, 0)
}

// judge compares what a page takes at rest, with changes, and with ten times the rate, and the KiB a
// second of it.
func (w *window) judge(name string, all [3]float64, wire float64) {
	w.b.Helper()
	idle, busy, full := all[0], all[1], all[2]
	show := func(what string, got, goal float64) {
		fmt.Printf("  %-44s %9.2f   %s\n", name+": "+what, got, atMost(got, goal))
	}
	show("with changes, of without", busy/idle, pageGoal)
	show("at 10,000/s, of at 1,000/s", full/busy, tenfoldGoal)
	show("ms of the main thread a second", max(busy, full), threadGoal)
	if wire > 0 {
		show("KiB/s over the wire", wire, wireGoal)
		w.b.ReportMetric(wire, name+"-KiB/s")
	}
	w.b.ReportMetric(busy/idle, name+"-ratio")
	w.b.ReportMetric(full/busy, name+"-10x-ratio")
	w.b.ReportMetric(max(busy, full), name+"-ms/s")
}

// besideTheRows is a script that draws a chart of two lines and four counters beside the page, ten times
// a second, by the library that the page draws its charts with.
func besideTheRows() string {
	source, err := os.ReadFile(filepath.Join("..", "dashboard", "ui", "vendor", "uplot", "dist", "uPlot.esm.js"))
	if err != nil {
		return "throw new Error(" + strconv.Quote(err.Error()) + ")"
	}
	library := strings.Replace(string(source), "export { uPlot as default };", "", 1)
	return `(() => {` + library + `
	const beside = document.createElement("div");
	Object.assign(beside.style, {position: "fixed", right: "0", bottom: "0", width: "600px", background: "#fff"});
	document.body.append(beside);
	const line = stroke => ({stroke, width: 1.4});
	const data = [[], [], []];
	const next = t => { data[0].push(t / 10); data[1].push(Math.sin(t / 20) * 50 + t % 7); data[2].push(Math.cos(t / 30) * 50 + t % 5); };
	let t = 0;
	while (t < 600) next(t++);
	const plot = new uPlot({width: 600, height: 180, series: [{}, line("#2446b8"), line("#0b7a63")]}, data, beside);
	const counters = [0, 1, 2, 3].map(() => beside.appendChild(document.createElement("b")));
	setInterval(() => {
		next(t++);
		for (const d of data) d.shift();
		plot.setData(data);
		counters.forEach((c, i) => { c.textContent = (t * 37 + i * 1111).toLocaleString("en"); });
	}, 100);
	return true;
})()`
}

// evaluate runs a script that returns true.
func (w *window) evaluate(script string) {
	w.b.Helper()
	if !evaluate[bool](w, script) {
		w.b.Fatal("a script in the page did not do what it should")
	}
}

// pass waits.
func (w *window) pass(long time.Duration) {
	w.b.Helper()
	began := time.Now()
	w.s.await("time to pass", 2*time.Minute, func() bool { return time.Since(began) > long })
}

// keeps measures the page's heap and nodes after each minute at ten times the rate.
func (w *window) keeps(sp *speaker) {
	w.b.Helper()
	w.visit("/devices", "tbody tr:nth-child(50)")
	sp.rate(fleetRate, 0, 0)
	var first, firstNodes, heap, nodes float64
	for i := range heapMinutes {
		w.pass(time.Minute)
		call(w, heapprofiler.CollectGarbage, cdp.Empty{})
		heap, nodes = call(w, runtime.GetHeapUsage, cdp.Empty{}).UsedSize/(1<<20), w.metrics()["Nodes"]
		if i == 0 {
			first, firstNodes = heap, nodes
		}
		fmt.Printf("  %-44s %9.2f MiB %7.0f nodes\n", fmt.Sprintf("heap after minute %d at %d/s on the page", i+1, fleetRate), heap, nodes)
	}
	change := max(nodes/firstNodes, firstNodes/nodes)
	fmt.Printf("  %-44s %9.2f   %s\n", "heap after the last minute, of the first", heap/first, atMost(heap/first, heapGoal))
	fmt.Printf("  %-44s %9.2f   %s\n", "nodes, likewise, more or fewer", change, atMost(change, nodesGoal))
	w.b.ReportMetric(heap/first, "heap-ratio")
	w.b.ReportMetric(change, "nodes-ratio")
	sp.rate(0, 0, 0)
}
