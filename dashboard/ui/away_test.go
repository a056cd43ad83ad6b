package ui

import (
	"slices"
	"testing"
)

// The page's own code tries again and again here, with each wait noted and cut short: what 500 pages wait that have lost one
// server for a while.
func TestFiveHundredPagesComeBackSpread(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.visit("/devices")
	b.waitText("tbody", "cc-vault-00")
	b.waitText(".live", "Live")
	evaluate[bool](b, `(() => {
		window.__waits = [];
		const later = window.setTimeout.bind(window);
		window.setTimeout = (run, ms, ...more) => {
			if (Number.isInteger(ms) || window.__waits.length >= 510) return later(run, ms, ...more);
			window.__waits.push(ms);
			return later(run, 0);
		};
		window.WebSocket = class { constructor() { later(() => this.onclose?.({code: 1006}), 0); } close() {} send() {} };
		window.EventSource = class { constructor() { later(() => this.onerror?.(), 0); } addEventListener() {} close() {} };
		return true;
	})()`)
	f.cut(false)
	b.wait("510 attempts", `window.__waits.length >= 510`)
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
	f := fleetOf25(t)
	b := open(t, f)
	b.expect("WebSocket connection")
	b.expect("503")
	b.visit("/devices")
	b.waitText("tbody", "cc-vault-00")
	b.waitText(".live", "Live")
	f.mu.Lock()
	f.refuse = true
	f.mu.Unlock()
	f.say(object{"t": "bye", "code": 4001, "retry_ms": 25_000, "why": "the server is stopping"})
	b.wait("25 s to be waited", `/Reconnecting in 2[0-5] s/.test(document.querySelector(".live > span:not(.vh)").textContent)`)
}
