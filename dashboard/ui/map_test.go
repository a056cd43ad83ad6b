package ui

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// fleetOnAMap has 300 devices in Oslo, of which two are offline, 40 beside them, one in Sydney, and
// 7 without a location.
func fleetOnAMap(t *testing.T) *fakeServer {
	f := fleetOf2000(t)
	f.dots = fakeDots{places: []int{-3390, 15120, 1, 5990, 1070, 300, 5990, 1075, 40}}
	f.dots.section("located", 341, 1)
	f.dots.section("", 7, 0)
	f.dots.sections[0]["q"], f.dots.sections[1]["q"] = "has:location", "not has:location"
	f.dots.codes[5], f.dots.codes[6] = 3, 3
	return f
}

// inkJS counts the pixels of the map that have the colour of a token.
const inkJS = `(name => {
	const c = document.querySelector(".map canvas");
	if (!c) return 0;
	const px = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
	const n = parseInt(getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1), 16);
	let k = 0;
	for (let i = 0; i < px.length; i += 4) if (px[i] === n >> 16 && px[i + 1] === (n >> 8 & 255) && px[i + 2] === (n & 255) && px[i + 3] === 255) k++;
	return k;
})`

// markJS is where the page has a mark of a colour: the middle of its pixels, in the window.
const markJS = `(name => {
	const c = document.querySelector(".map canvas");
	const px = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
	const n = parseInt(getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1), 16);
	let k = 0, x = 0, y = 0;
	for (let i = 0; i < px.length; i += 4) {
		if (px[i] !== n >> 16 || px[i + 1] !== (n >> 8 & 255) || px[i + 2] !== (n & 255)) continue;
		k++; x += i / 4 % c.width; y += Math.floor(i / 4 / c.width);
	}
	const box = c.getBoundingClientRect(), ratio = c.width / box.width;
	return [box.left + x / k / ratio, box.top + y / k / ratio];
})`

func TestTheMapHasEachPlaceByItsWorstStateAndOpensItsDevices(t *testing.T) {
	f := fleetOnAMap(t)
	b := open(t, f)
	b.expect("willReadFrequently") // this test itself reads the canvas
	b.visit("/?by=map")
	b.wait("land, a place that is well and one that is not", inkJS+`("--sunken") > 1000 && `+inkJS+`("--ok") > 20 && `+inkJS+`("--off") > 20`)
	b.waitText(".map-note", "7 devices have no location.")
	b.shootAll("map")
	at := evaluate[[]float64](b, markJS+`("--off")`)
	b.mouse(chromedp.MouseMoved, at[0], at[1])
	b.waitText(".tip", "340 devices")
	b.waitText(".tip", "338 online")
	b.waitText(".tip", "2 offline")
	well := evaluate[[]float64](b, markJS+`("--ok")`)
	b.mouse(chromedp.MouseMoved, well[0], well[1])
	b.waitText(".tip", "located-0000")
	b.mouse(chromedp.MouseMoved, at[0], at[1])
	f.turn(5, 5, 1)
	b.waitText(".tip", "1 offline")
	f.turn(6, 6, 1)
	b.wait("all are well", inkJS+`("--off") === 0`)
	b.do(chromedp.MouseClickXY(at[0], at[1]))
	b.wait("the devices of the place", `location.pathname === "/devices" && /^lat>=\d+(\.\d+)? lat<\d+(\.\d+)? lon>=\d+(\.\d+)? lon<\d+(\.\d+)?$/.test(new URLSearchParams(location.search).get("q"))`)
	q := evaluate[string](b, `new URLSearchParams(location.search).get("q")`)
	var south, north, west, east float64
	if _, err := fmt.Sscanf(q, "lat>=%f lat<%f lon>=%f lon<%f", &south, &north, &west, &east); err != nil || south > 59.9 || north < 59.95 || west > 10.7 || east < 10.8 {
		t.Errorf("%s does not have the place, %v", q, err)
	}
}

func TestTheMapIsMovedByKeysAndTheAddressHasIt(t *testing.T) {
	f := fleetOnAMap(t)
	b := open(t, f)
	b.expect("willReadFrequently")
	b.visit("/?by=map")
	b.wait("the map", inkJS+`("--off") > 20`)
	b.types(".map [role=group]", "+")
	b.wait("the view is in the address", `/^-?[\d.]+,-?[\d.]+,[\d.]+$/.test(new URLSearchParams(location.search).get("at") ?? "")`)
	was := evaluate[string](b, "location.search")
	b.types(".map [role=group]", "\u0303") // the arrow to the right
	b.wait("it moved", "location.search !== "+quote(was))
	b.types(".map [role=group]", "0")
	b.wait("all of it", `location.search === "?by=map"`)
	b.visit("/?by=map&at=59.925,10.75,400")
	b.wait("one place of two, which are apart in this view", inkJS+`("--off") > 20 && `+inkJS+`("--ok") > 20`)
	b.click(".map .zoom button:nth-child(3)")
	b.wait("all of it", `location.search === "?by=map"`)
	b.click(".map .zoom button:nth-child(1)")
	b.wait("nearer", `new URLSearchParams(location.search).get("at")`)
}

func TestTheMapIsDrawnAnewForAThemeAndForOtherPixels(t *testing.T) {
	f := fleetOnAMap(t)
	b := open(t, f)
	b.expect("willReadFrequently")
	b.visit("/?by=map")
	for _, theme := range []string{"dark", "light"} {
		b.media("prefers-color-scheme", theme)
		b.wait("the map in "+theme, fmt.Sprintf(`document.documentElement.dataset.theme === %q && %s("--sunken") > 1000 && %s("--off") > 20`, theme, inkJS, inkJS))
	}
	wide := evaluate[int](b, `document.querySelector(".map canvas").width`)
	b.do(chromedp.EmulateViewport(1440, 900, chromedp.EmulateScale(2)))
	evaluate[bool](b, `dispatchEvent(new Event("resize"))`) // as zooming does, and this emulation does not
	b.wait("twice the pixels", fmt.Sprintf(`document.querySelector(".map canvas").width >= %d && %s("--sunken") > 4000`, 2*wide-20, inkJS))
}

func TestTheMapIsATableTooAndSaysWhenThereIsNothingToShow(t *testing.T) {
	f := fleetOnAMap(t)
	b := open(t, f)
	b.visit("/?by=map&dots=table")
	cells := `[...document.querySelectorAll(".sections tr")].map(r => [...r.children].map(c => c.textContent.trim()).join("|")).join("\n")`
	b.wait("the table", cells+" === "+quote("Where|online|offline|Devices\n59.92° N, 10.72° E|298|2|300\n59.92° N, 10.78° E|40|0|40\n33.88° S, 151.22° E|1|0|1"))
	href := evaluate[string](b, `new URL(document.querySelector(".sections tbody tr td:nth-child(3) a").href).searchParams.get("q")`)
	if href != "lat>=59.9 lat<59.95 lon>=10.7 lon<10.75 status:offline" {
		t.Errorf("the two are at %s", href)
	}
	none := fleetOf2000(t)
	none.dots = fakeDots{places: []int{}}
	none.dots.section("", 3, 1)
	none.dots.sections[0]["q"] = "not has:location"
	b = open(t, none)
	b.visit("/?by=map")
	b.waitText(".dots", "No device has a location yet.")
	b.waitText(".map-note", "3 devices have no location.")
}

// touches does one thing with fingers at points of the page.
func (b *tab) touches(kind input.DispatchTouchEventType, points ...[2]float64) {
	b.t.Helper()
	at := make([]*input.TouchPoint, len(points))
	for i, p := range points {
		id := float64(i)
		at[i] = &input.TouchPoint{X: p[0], Y: p[1], ID: &id}
	}
	b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, input.DispatchTouchEvent, input.DispatchTouchEventParams{Type: kind, TouchPoints: at})
		return err
	}))
}

// shownAt is the middle of the map and its scale, as the address has them.
func (b *tab) shownAt() (lat, lon, scale float64) {
	b.t.Helper()
	b.wait("the view in the address", `new URLSearchParams(location.search).get("at")`)
	at := evaluate[string](b, `new URLSearchParams(location.search).get("at")`)
	if _, err := fmt.Sscanf(at, "%f,%f,%f", &lat, &lon, &scale); err != nil {
		b.t.Fatalf("the address has %q: %v", at, err)
	}
	return lat, lon, scale
}

func TestTheMapIsMovedByDraggingAndBroughtNearerByTwoFingers(t *testing.T) {
	f := fleetOnAMap(t)
	b := open(t, f)
	b.expect("willReadFrequently")
	b.visit("/?by=map&at=59.925,10.75,40")
	b.wait("the place", inkJS+`("--off") > 20`)
	at := evaluate[[]float64](b, markJS+`("--off")`)
	b.mouse(chromedp.MouseMoved, at[0]+60, at[1]+40)
	b.mouse(chromedp.MousePressed, at[0]+60, at[1]+40)
	for step := range 5 {
		b.mouse(chromedp.MouseMoved, at[0]+60+float64(16*(step+1)), at[1]+40-float64(8*(step+1)))
	}
	b.mouse(chromedp.MouseReleased, at[0]+140, at[1])
	b.wait("the mark where it was dragged", fmt.Sprintf(`(p => Math.abs(p[0] - %g) < 3 && Math.abs(p[1] - %g) < 3)(%s("--off"))`, at[0]+80, at[1]-40, markJS))
	b.wait("the address to follow", `!location.search.includes("59.925")`)
	lat, lon, scale := b.shownAt()
	if scale != 40 || math.Abs(lat-(59.925-1)) > 0.1 || math.Abs(lon-(10.75-2)) > 0.1 {
		t.Errorf("after 80 px to the right and 40 up, at 40 px to a degree, the middle is %g, %g at %g", lat, lon, scale)
	}
	if got := evaluate[string](b, "location.pathname"); got != "/" {
		t.Errorf("the drag opened %s", got)
	}

	box := evaluate[[]float64](b, `(r => [r.left + r.width / 2, r.top + r.height / 2])(document.querySelector(".map canvas").getBoundingClientRect())`)
	fingers := func(apart float64) [2][2]float64 {
		return [2][2]float64{{box[0] - apart/2, box[1]}, {box[0] + apart/2, box[1]}}
	}
	from := fingers(80)
	b.touches(input.DispatchTouchEventTypeTouchStart, from[0])
	b.touches(input.DispatchTouchEventTypeTouchStart, from[0], from[1])
	for apart := 100.0; apart <= 160; apart += 20 {
		to := fingers(apart)
		b.touches(input.DispatchTouchEventTypeTouchMove, to[0], to[1])
	}
	b.touches(input.DispatchTouchEventTypeTouchEnd)
	b.wait("it is nearer", `Number(new URLSearchParams(location.search).get("at").split(",")[2]) > 70`)
	if _, _, scale := b.shownAt(); math.Abs(scale-80) > 4 {
		t.Errorf("two fingers from 80 to 160 px apart bring it from 40 to %g px to a degree, want 80", scale)
	}
	if got := evaluate[string](b, "location.pathname"); got != "/" {
		t.Errorf("the fingers opened %s", got)
	}
}
