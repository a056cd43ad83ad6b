package ui

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// The page's own code tries again and again here, with each wait noted and cut short: what 500 pages wait that have lost one
// server for a while.
func TestFiveHundredPagesComeBackSpread(t *testing.T) {
	f, b := onTheList(t)
	evaluate[bool](b, `(() => {
		window.__waits = [];
		const later = window.setTimeout.bind(window);
		window.setTimeout = (run, ms, ...more) => {
			if (typeof ms !== "number" || Number.isInteger(ms) || window.__waits.length >= 510) return later(run, ms, ...more);
			window.__waits.push(ms);
			return later(run, 0);
		};
		window.WebSocket = class { constructor() { later(() => this.onclose?.({code: 1006}), 0); } close() {} send() {} };
		window.EventSource = class { constructor() { later(() => this.onerror?.(), 0); } addEventListener() {} close() {} };
		return true;
	})()`)
	f.cut(false)
	for n := 30; n <= 510; n += 30 { // each is drawn: a busy machine has the patience for thirty
		b.wait(fmt.Sprintf("%d attempts", n), fmt.Sprintf(`window.__waits.length >= %d`, n))
	}
	waits := evaluate[[]float64](b, `window.__waits`)
	if waits[0] > 500 || waits[1] > 1000 {
		t.Errorf("the first attempts come after %.0f and %.0f ms", waits[0], waits[1])
	}
	late := waits[10:510]
	slices.Sort(late)
	if late[499] > 30_000 || late[474]-late[25] < 5000 {
		t.Errorf("the last waits are from %.0f to %.0f ms", late[25], late[474])
	}
	for from, most := 0.0, 130; from < 30_000; from += 3000 { // 50 in each on average
		n := 0
		for _, w := range late {
			if w >= from && w < from+3000 {
				n++
			}
		}
		if n > most {
			t.Errorf("%d of 500 come within the 3 s from %.0f ms", n, from)
		}
	}
}

// What a server asks for when it stops, and a proxy by closing with 1012, is waited for.
func TestThePageWaitsAsLongAsItIsAskedTo(t *testing.T) {
	f, b := onTheList(t)
	b.expect("WebSocket connection")
	b.expect("503")
	f.mu.Lock()
	f.refuse = true
	f.mu.Unlock()
	f.say(object{"t": "bye", "code": 4001, "retry_ms": 25_000, "why": "the server is stopping"})
	b.wait("25 s to be waited", `/Reconnecting in 2[0-5] s/.test(document.querySelector(".live > span:not(.vh)").textContent)`)
}

// goldenWaits is testdata/backoff.json: how long a page waits at the most before each attempt. The clients of an end-to-end
// test that stand for 500 pages go by the same numbers.
type goldenWaits struct {
	Ceilings []float64 `json:"ceilings_ms"`
	Settled  float64   `json:"settled_ms"`
	Restart  float64   `json:"restart_ms"`
}

// The page's own code waits here by numbers instead of chance, with each wait noted and cut short.
func TestThePagesWaitsAreThoseOfTheGoldenFile(t *testing.T) {
	text, err := os.ReadFile("testdata/backoff.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden goldenWaits
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	f, b := onTheList(t)
	evaluate[bool](b, `(() => {
		window.__waits = [];
		const later = window.setTimeout.bind(window);
		Math.random = () => 0.500113;
		window.setTimeout = (run, ms, ...more) => {
			if (!(ms > 0) || Number.isInteger(ms) || window.__waits.length >= 8) return later(run, ms, ...more);
			window.__waits.push(ms / 0.500113);
			return later(run, 0);
		};
		window.WebSocket = class { constructor() { later(() => this.onclose?.({code: 1006}), 0); } close() {} send() {} };
		window.EventSource = class { constructor() { later(() => this.onerror?.(), 0); } addEventListener() {} close() {} };
		return true;
	})()`)
	f.cut(false)
	b.wait("the attempts", `window.__waits.length >= 8`)
	waits := evaluate[[]float64](b, `window.__waits.slice(0, 8).map(Math.round)`)
	if !slices.Equal(waits, golden.Ceilings) {
		t.Errorf("the page waits at the most %v ms, the golden file says %v", waits, golden.Ceilings)
	}
}

// TestThePageWaitsByChanceWhenAProxySaysThatTheServerRestarts has every connection closed with 1012: the page comes back by itself,
// after its part of ten seconds, which is longer than what it would wait otherwise.
func TestThePageWaitsByChanceWhenAProxySaysThatTheServerRestarts(t *testing.T) {
	f, b := onTheList(t)
	evaluate[bool](b, `(() => {
		window.__same = true;
		window.__waits = [];
		const later = window.setTimeout.bind(window);
		const chances = [0.250313, 0.300117];
		const real = Math.random;
		Math.random = () => chances.shift() ?? real();
		window.setTimeout = (run, ms, ...more) => {
			if (ms > 0 && !Number.isInteger(ms)) window.__waits.push(ms);
			return later(run, ms, ...more);
		};
		return true;
	})()`)
	f.restarting()
	b.wait("its wait to be told", `/Reconnecting in [1-3] s/.test(document.querySelector(".live > span:not(.vh)")?.textContent)`)
	if waits := evaluate[[]float64](b, `window.__waits`); len(waits) != 1 || int(math.Round(waits[0])) != 2503 {
		t.Errorf("the page waits %v ms, want its quarter of ten seconds", waits)
	}
	b.wait("the connection", `document.querySelector("[data-live=yes]") && !document.querySelector(".bar-foot")`)
	f.report("cc-vault-00", object{"temperature": 3.25})
	b.waitText("tbody", "3.25")
	if !evaluate[bool](b, `window.__same === true`) {
		t.Error("the page was loaded again")
	}
}

// restarting closes every connection as a proxy does whose server restarts.
func (f *fakeServer) restarting() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.mu.Lock()
		_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseServiceRestart, "service restart"), time.Now().Add(patience))
		c.mu.Unlock()
	}
}
