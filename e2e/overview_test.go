package e2e

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/gorilla/websocket"
)

const (
	halls       = 4  // gateways, each with a group of its own
	kidsInAHall = 30 // behind each
)

// fleetFigures is what GET /fleet answers.
type fleetFigures struct {
	Total   int
	Counts  map[string]int
	Storing struct {
		Batches int
		P99     float64 `json:"p99_ms"`
	}
	Change struct {
		Silent int
		Cause  *struct {
			Kind, Name, State string
			Devices, Together int
		}
	}
}

func (m *muster) figures() fleetFigures {
	m.t.Helper()
	var f fleetFigures
	m.ask(http.MethodGet, "/api/v1/fleet", nil, http.StatusOK, &f)
	return f
}

// matching counts the devices that a query chooses.
func (m *muster) matching(q string) int {
	m.t.Helper()
	var page struct{ Total int }
	m.ask(http.MethodGet, "/api/v1/devices?limit=1&total=true&q="+url.QueryEscape(q), nil, http.StatusOK, &page)
	return page.Total
}

// manHalls has all devices of all halls online, and returns their gateways.
func (m *muster) manHalls() []*session3 {
	m.t.Helper()
	gateways := make([]*session3, halls)
	for h := range gateways {
		gw, hall := fmt.Sprint("gw-", h), fmt.Sprint("hall-", h)
		token := m.gateway(gw)
		m.ask(http.MethodPut, "/api/v1/groups/"+hall, map[string]any{}, http.StatusOK, nil)
		gateways[h] = talk(m.t, m, gw, token, "", false)
		for i := range kidsInAHall {
			id := fmt.Sprintf("kid-%d-%02d", h, i)
			m.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": id, "parent": gw, "groups": []string{hall}, "credential": "none"}, http.StatusCreated, nil)
			gateways[h].say("devices/"+id+"/telemetry", fmt.Sprintf(`{"n":%d}`, i))
		}
	}
	return gateways
}

// dotStates reads the channel dots once and counts its states.
func (m *muster) dotStates() map[string]int {
	m.t.Helper()
	conn, res, err := (&websocket.Dialer{Subprotocols: []string{"muster.v1"}}).Dial("ws://"+m.http+"/api/v1/live", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	_ = res.Body.Close()
	defer conn.Close()
	for _, say := range []string{`{"t":"hello","id":1,"token":"` + m.key + `"}`, `{"t":"sub","id":2,"ch":"dots"}`} {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(say)); err != nil {
			m.t.Fatal(err)
		}
	}
	words := []string{"never", "online", "quiet", "offline", "unknown"} // as the snapshot has them
	for {
		kind, b, err := conn.ReadMessage()
		switch {
		case err != nil:
			m.t.Fatal(err)
		case kind != websocket.BinaryMessage:
			continue
		case b[0] != 1 || binary.LittleEndian.Uint32(b[4:]) == 0:
			m.t.Fatalf("the states begin with % x", b[:8])
		}
		out := map[string]int{}
		for _, code := range b[8:] {
			out[words[code]]++
		}
		return out
	}
}

// TestTheOverviewNamesTheGatewayWhoseDevicesWentSilent loses a gateway: the sentence, the bar, the
// dots, their table, the API and the list of devices say the same of it.
func TestTheOverviewNamesTheGatewayWhoseDevicesWentSilent(t *testing.T) {
	t.Parallel()
	m := serve(t, "--presence-grace", "1s")
	gateways := m.manHalls()
	const total, lost = halls * (kidsInAHall + 1), kidsInAHall + 1
	b := openTab(t, m)
	b.do(chromedp.Navigate(m.setupLink()))
	b.wait("the live connection", `document.querySelector(".live")?.textContent.includes("Live")`)
	b.do(chromedp.Navigate(b.base + "/"))
	heading := `document.querySelector(".roll h1")?.textContent`
	b.wait("everybody", fmt.Sprintf(`%s === "%d of %d answering"`, heading, total, total))
	b.wait("the dots", `document.querySelector(".gridwrap .block")?.textContent === "hall-0 30"`)
	if got := m.figures(); got.Total != total || got.Counts["online"] != total || got.Change.Cause != nil {
		t.Fatalf("the API says %+v", got)
	}

	gateways[2].cut()
	b.wait("the cause", fmt.Sprintf(`document.querySelector(".roll p")?.textContent.includes("one gateway, gw-2: %d devices behind it went offline together at")`, kidsInAHall))
	b.wait("the heading", fmt.Sprintf(`%s === "%d of %d answering"`, heading, total-lost, total))
	b.wait("the bar", fmt.Sprintf(`[...document.querySelectorAll(".legend li")].some(e => e.textContent.trim() === "%d offline")`, lost)) // no change in 1 h: nobody was there then
	b.wait("the cluster", fmt.Sprintf(`document.querySelector(".call")?.textContent === "gw-2 %d silent"`, kidsInAHall))
	f := m.figures()
	if c := f.Change.Cause; f.Counts["offline"] != lost || f.Change.Silent != lost || c == nil || c.Kind != "gateway" || c.Name != "gw-2" || c.State != "offline" || c.Devices != kidsInAHall || c.Together != kidsInAHall {
		t.Errorf("the API says %+v", f)
	}
	if got := m.dotStates(); got["offline"] != lost || got["online"] != total-lost {
		t.Errorf("the dots are %v", got)
	}
	if n := m.matching("status:offline"); n != lost {
		t.Errorf("%d devices match status:offline", n)
	}
	call, err := url.Parse(evaluate[string](b, `document.querySelector(".call").getAttribute("href")`))
	if err != nil || m.matching(call.Query().Get("q")) != kidsInAHall {
		t.Errorf("the cluster's link %v finds %d devices", call, m.matching(call.Query().Get("q")))
	}
	b.inspected("overview-silent")

	b.do(chromedp.Navigate(b.base + "/?dots=table"))
	rows := `[...document.querySelectorAll(".sections tbody tr")].map(r => [...r.children].map(c => c.textContent.trim()).join(" ")).join("|")`
	b.wait("the table", rows+` === "hall-0 30 0 30|hall-1 30 0 30|hall-2 0 30 30|hall-3 30 0 30|in no group 3 1 4"`)
	b.do(chromedp.Click(chromedp.CSS(".legend li:last-child a")))
	b.wait("the list of those", `location.pathname === "/devices" && new URLSearchParams(location.search).get("q") === "status:offline" && document.querySelectorAll("main tbody tr").length > 0`)
	if n := evaluate[int](b, `document.querySelectorAll("main tbody tr").length`); n != lost {
		t.Errorf("the list has %d devices", n)
	}
	m.stop()
}

// TestTheOverviewsFiguresAreThoseOfTheAPI has each number of what needs a person from the API.
func TestTheOverviewsFiguresAreThoseOfTheAPI(t *testing.T) {
	m := serve(t)
	m.device("mute", "token")
	c := talk(t, m, "mute", m.device("loud", "token").Token, "", false)
	for range 3 {
		c.say("devices/me/telemetry", `{not JSON`)
	}
	c.say("devices/me/telemetry", `{"n":1}`)
	m.awaitRejected("loud", 3)
	b := openTab(t, m)
	b.do(chromedp.Navigate(m.setupLink()))
	b.wait("the live connection", `document.querySelector(".live")?.textContent.includes("Live")`)
	b.do(chromedp.Navigate(b.base + "/"))
	b.wait("the rejected", `[...document.querySelectorAll(".needs li a")].some(e => e.textContent === "3 messages were rejected in the last hour" && e.getAttribute("href") === "/devices/loud")`)
	b.wait("the tail", `[...document.querySelectorAll(".tail li")].some(e => e.textContent.includes("loud sent what was rejected"))`)
	m.await("the time of storing", pageLimit, func() bool {
		f := m.figures()
		p99 := fmt.Sprintf("Stored within%sms p99", strconv.FormatFloat(math.Round(f.Storing.P99*10)/10, 'f', -1, 64))
		return f.Storing.Batches > 0 && (f.Storing.P99 >= 10 || strings.Contains(evaluate[string](b, `document.querySelector(".vitals").textContent`), p99))
	})
	m.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": "placed", "location": map[string]any{"lat": 59.914, "lon": 10.752}}, http.StatusCreated, nil)
	b.do(chromedp.Navigate(b.base + "/?by=map&dots=table"))
	place := `lat>=59.91 lat<59.92 lon>=10.75 lon<10.76`
	b.wait("its place", fmt.Sprintf(`[...document.querySelectorAll(".sections tbody th a")].some(a => new URL(a.href).searchParams.get("q") === %q)`, place))
	if n := m.matching(place); n != 1 {
		t.Errorf("the query of the place has %d devices", n)
	}
	b.followsOnTheMap(m)
	b.do(chromedp.Navigate(b.base + "/"))
	f := m.figures()
	for _, state := range []string{"online", "never"} {
		want := fmt.Sprint(f.Counts[state], " ", map[string]string{"online": "online", "never": "never seen"}[state])
		b.wait(want, fmt.Sprintf(`document.querySelector(".legend")?.textContent.includes(%q)`, want))
	}
	m.await("the minute's traffic", pageLimit, func() bool {
		var traffic struct {
			Items []struct{ Received, Stored int }
		}
		m.ask(http.MethodGet, "/api/v1/fleet/traffic", nil, http.StatusOK, &traffic)
		received, stored := 0, 0
		for _, minute := range traffic.Items {
			received, stored = received+minute.Received, stored+minute.Stored
		}
		return received == 4 && stored == 1
	})
	b.wait("the chart", `document.querySelector(".traffic canvas")`)
	if said := evaluate[string](b, `document.querySelector(".traffic").ariaLabel`); !strings.Contains(said, "three hours") {
		t.Errorf("the chart is %q", said)
	}
	m.stop()
}

// followsOnTheMap has the device that stands alone on the map move: its mark goes along, without a load, and its row in the table.
func (b *tab) followsOnTheMap(m *muster) {
	b.t.Helper()
	const mark = `(() => {
		const c = document.querySelector(".map canvas");
		if (!c) return [0, 0, 0];
		const px = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
		const n = parseInt(getComputedStyle(document.documentElement).getPropertyValue("--ink-3").trim().slice(1), 16);
		let k = 0, x = 0, y = 0;
		for (let i = 0; i < px.length; i += 4) {
			if (px[i] !== n >> 16 || px[i + 1] !== (n >> 8 & 255) || px[i + 2] !== (n & 255)) continue;
			k++; x += i / 4 % c.width; y += Math.floor(i / 4 / c.width);
		}
		return [k, x / k, y / k];
	})()`
	b.do(chromedp.Navigate(b.base + "/?by=map&at=59.9,10.75,100"))
	b.wait("its mark", mark+`[0] > 4`)
	was := evaluate[[]float64](b, mark)
	evaluate[bool](b, `(window.__same = true)`)
	m.ask(http.MethodPatch, "/api/v1/devices/placed", map[string]any{"location": map[string]any{"lat": 59.914 - 0.5, "lon": 10.752 + 0.8}}, http.StatusOK, nil)
	b.wait("the mark to have moved", fmt.Sprintf(`(p => p[0] > 4 && Math.abs(p[1] - %g) < 6 && Math.abs(p[2] - %g) < 6)(%s)`, was[1]+80, was[2]+50, mark))
	if !evaluate[bool](b, `window.__same === true`) {
		b.t.Error("the page was loaded again")
	}
	b.do(chromedp.Navigate(b.base + "/?by=map&dots=table"))
	b.wait("its new place", `[...document.querySelectorAll(".sections tbody th a")].some(a => new URL(a.href).searchParams.get("q") === "lat>=59.41 lat<59.42 lon>=11.55 lon<11.56")`)
	b.forgives("willReadFrequently") // this test itself reads the canvas
}
