package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdptarget "github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

const (
	feedEvery = 100 * time.Millisecond
	feedAtOne = 100 // values in each, so 1,000 a second
)

// feeds has devices of fleet say something a thousand times a second until the test ends.
func (m *muster) feeds(n int) {
	m.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(feedEvery)
		defer tick.Stop()
		for i := 0; ; {
			var lines []string
			for range feedAtOne {
				lines = append(lines, fmt.Sprintf(`{"device":"pump-%03d","temperature":%d.5,"battery":%d}`, (i*7)%n, i%97, i%89))
				i++
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.http+"/api/v1/telemetry", strings.NewReader(strings.Join(lines, "\n")+"\n"))
			if err != nil {
				return
			}
			r.Header.Set("Authorization", "Bearer "+m.key)
			r.Header.Set("Content-Type", "application/x-ndjson")
			if res, err := http.DefaultClient.Do(r); err == nil {
				_ = res.Body.Close()
			}
		}
	})
	m.t.Cleanup(func() { cancel(); work.Wait() })
}

// TestUnderAThousandUpdatesASecondWhatIsUnderThePointerStays has the list in the order of the newest, which is another
// all the time, with the pointer on a row; a menu opens at the first click.
func TestUnderAThousandUpdatesASecondWhatIsUnderThePointerStays(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.fleet(60)
	b := openTab(t, m)
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/devices?sort=-seen"))
	b.wait("the list", `document.querySelectorAll("table.devices tbody tr").length === 50`)
	m.feeds(60)
	b.changes("table.devices td.n.val")
	box := evaluate[[]float64](b, `(e => { const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })(document.querySelector("table.devices tbody tr:nth-child(9) td.n"))`)
	b.do(chromedp.MouseEvent("mouseMoved", box[0], box[1]))
	seen := fetched[map[string]int](b, fmt.Sprintf(`new Promise(done => {
		const ids = {}, cells = new Set();
		const until = performance.now() + 30_000;
		const timer = setInterval(() => {
			const tr = document.elementFromPoint(%[1]g, %[2]g)?.closest("tr");
			const id = tr?.querySelector("th")?.textContent ?? "nothing";
			ids[id] = (ids[id] ?? 0) + 1;
			cells.add(tr?.textContent);
			if (performance.now() < until) return;
			clearInterval(timer);
			done({ids: Object.keys(ids).length, texts: cells.size});
		}, 100);
	})`, box[0], box[1]))
	if seen["ids"] != 1 {
		t.Errorf("%d devices were under the pointer", seen["ids"])
	}
	if seen["texts"] < 10 {
		t.Errorf("what is under the pointer was written %d times: nothing happens", seen["texts"])
	}
	for _, menu := range []string{".menu[class*=facet-]", ".menu.columns"} {
		b.do(chromedp.Click(chromedp.CSS(menu + " > button")))
		b.wait("the menu "+menu, fmt.Sprintf(`document.querySelector("%s .panel-menu")`, menu))
	}
	b.once()
}

// counts has the tab keep what WebSockets bring, from now on.
func (b *tab) counts() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frames = []string{}
}

// brought returns what came since, without answers to the page's own pings.
func (b *tab) brought() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, f := range b.frames {
		if !strings.Contains(f, `"t":"pong"`) {
			out = append(out, f)
		}
	}
	return out
}

// TestAHiddenTabIsSentNothingAndOneSnapshotWhenItIsSeenAgain puts another tab in front of it.
func TestAHiddenTabIsSentNothingAndOneSnapshotWhenItIsSeenAgain(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.fleet(30)
	b := openTab(t, m)
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/devices"))
	b.wait("the list", `document.querySelectorAll("table.devices tbody tr").length === 30`)
	m.feeds(30)
	b.changes("table.devices td.n.val")
	b.counts()
	evaluate[bool](b, `(window.__hidden = 0, addEventListener("visibilitychange", () => { if (document.hidden) window.__hidden++; }), true)`)
	var mine cdptarget.ID
	b.do(chromedp.Func(func(ctx context.Context, at *chromedp.Target) error {
		mine = at.TargetID
		made, err := cdp.Call(ctx, at, cdptarget.CreateTarget, cdptarget.CreateTargetParams{URL: "about:blank"})
		if err != nil {
			return err
		}
		_, err = cdp.Call(ctx, at, cdptarget.ActivateTarget, cdptarget.ActivateTargetParams(made))
		return err
	}))
	b.wait("the tab to be hidden", `window.__hidden > 0 && document.hidden`)
	m.await("the server to have been told, and to send nothing", pageLimit, func() bool {
		before := len(b.brought())
		pause(t.Context(), time.Second) // in which ten would come
		return len(b.brought()) == before
	})
	b.counts()
	pause(t.Context(), time.Duration(inSoak(300, 30))*time.Second) // the values go on all the while
	if got := b.brought(); len(got) > 0 {
		t.Errorf("a hidden tab is sent %d messages: %.200s", len(got), got[0])
	}
	b.counts()
	b.do(chromedp.Func(func(ctx context.Context, at *chromedp.Target) error {
		_, err := cdp.Call(ctx, at, cdptarget.ActivateTarget, cdptarget.ActivateTargetParams{TargetID: mine})
		return err
	}))
	b.wait("the tab to be seen", `!document.hidden`)
	b.changes("table.devices td.n.val")
	snapshots := 0
	for _, f := range b.brought() {
		snapshots += strings.Count(f, `"t":"snapshot","ch":"devices"`)
	}
	if snapshots != 1 {
		t.Errorf("%d snapshots of the list came", snapshots)
	}
}
