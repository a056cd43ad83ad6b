package ui

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// livesIn has the browser be in a time zone.
func (b *tab) livesIn(zone string) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: zone})
		return err
	}))
}

// created is the time at which the device was made, in full.
const created = `(document.querySelector(".dev .sub small[title]")?.title ?? "")`

// One switch is for every time of every page; the browser remembers it, and a link with a time of its own carries it.
// pointed is the title that the first time of the list gets when it is pointed at.
const pointed = `(e => (e?.dispatchEvent(new PointerEvent("pointerover", {bubbles: true})), e?.closest("td").title ?? ""))(document.querySelector("tbody time"))`

func TestTheZoneIsOneForEveryPage(t *testing.T) {
	f := deviceFixture(t)
	f.mu.Lock()
	f.about = map[string]object{}
	f.about["cc-vault-2-p1"] = object{"groups": []string{}, "tags": object{"tz": "America/New_York"}}
	at := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	f.devices["cc-vault-2-p1"]["created_at"] = at.UnixMilli()
	f.mu.Unlock()
	b := open(t, f)
	b.livesIn("Asia/Tokyo")
	b.visit("/devices/cc-vault-2-p1")
	b.wait("the browser's zone", created+`.includes("21:00:00")`)
	b.wait("the device's zone to be offered", `[...document.querySelectorAll("[aria-label='Time zone'] button")].some(e => e.title === "America/New_York")`)
	for _, c := range []struct{ words, want string }{{"UTC", "12:00:00 UTC"}, {"Device", "07:00:00"}, {"Local", "21:00:00"}, {"UTC", "12:00:00 UTC"}} {
		evaluate[bool](b, `([...document.querySelectorAll(".rail [aria-label='Time zone'] button")].find(e => e.textContent === `+quote(c.words)+`).click(), true)`)
		b.wait(c.words, created+".includes("+quote(c.want)+")")
	}
	b.shootAll("zone")
	b.visit("/devices")
	b.waitText("tbody", "cc-vault")
	b.wait("UTC to be remembered", pointed+`.endsWith("UTC")`)
	b.visit("/devices/cc-vault-2-p1?from=2026-01-15T11:00:00.000Z&to=2026-01-15T13:00:00.000Z&tz=device")
	b.wait("the zone of the address", created+`.includes("07:00:00")`)
	b.wait("the range in it", `document.querySelector(".timerange").textContent.includes("06:00")`)
	evaluate[bool](b, `([...document.querySelectorAll(".rail [aria-label='Time zone'] button")].find(e => e.textContent === "Local").click(), true)`)
	b.wait("the address to name the zone that was chosen", `new URLSearchParams(location.search).get("tz") === "browser"`)
	b.wait("the range in it", `document.querySelector(".timerange").textContent.includes("20:00")`)
	b.press("15 Jan, 20:00 – 15 Jan, 22:00")
	if got := evaluate[string](b, `document.querySelector(".between input").value`); !strings.HasPrefix(got, "2026-01-15T20:00") {
		t.Errorf("the field says %s", got)
	}
	evaluate[bool](b, `(e => { e.value = "2026-01-15T20:30:00"; e.dispatchEvent(new Event("input", {bubbles: true})); return true; })(document.querySelector(".between input"))`)
	zone := func(words, field string) { // what was typed stays the same moment, and is written in the new zone
		evaluate[bool](b, `([...document.querySelectorAll(".rail [aria-label='Time zone'] button")].find(e => e.textContent === `+quote(words)+`).click(), true)`)
		b.wait("the moment in "+words, `document.querySelector(".between input").value.startsWith(`+quote(field)+`)`)
	}
	zone("UTC", "2026-01-15T11:30")
	zone("Device", "2026-01-15T06:30")
	zone("Local", "2026-01-15T20:30")
	b.press("Show")
	b.wait("the time that was written, in UTC in the address", `new URLSearchParams(location.search).get("from") === "2026-01-15T11:30:00.000Z"`)
}

func TestAgesAreTimesForWhoWantsThem(t *testing.T) {
	f := fleetOf25(t)
	b := open(t, f)
	b.livesIn("Asia/Tokyo")
	b.visit("/devices")
	b.wait("ages", `/ago|now/.test(document.querySelector("tbody time")?.textContent)`)
	evaluate[bool](b, `([...document.querySelectorAll(".rail [aria-label='Times'] button")].find(e => e.textContent === "Clock").click(), true)`)
	b.wait("times", `[...document.querySelectorAll("tbody time")].every(e => /^(\d+ \w+, )?\d\d:\d\d:\d\d$/.test(e.textContent) && (e.dispatchEvent(new PointerEvent("pointerover", {bubbles: true})), e.closest("td").title.includes(e.textContent.slice(-8))))`)
	b.visit("/devices")
	b.wait("it to be remembered", `/^(\d+ \w+, )?\d\d:\d\d:\d\d$/.test(document.querySelector("tbody time")?.textContent)`)
}
