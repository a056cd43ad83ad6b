package ui

import (
	"bytes"
	"context"
	"fmt"
	picture "image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

const (
	leastApart  = 1.2  // contrast of two dots, and of a dot and the paper but for devices never seen
	leastUnlike = 0.04 // of the lightness of two marks, on the average of their area; 1 is black on white
	dotsEach    = 60
)

// everyState is the codes of the fake's dots, in the order in which the page lists states.
func everyState() []string {
	return []string{"online", "updating", "quiet", "offline", "never", "unknown"}
}

// TestStatesAreToldApartWithoutSeeingColours draws the Overview as people see it who see no red and green,
// or no colours: the dots of any two states differ in lightness, and their marks in shape.
func TestStatesAreToldApartWithoutSeeingColours(t *testing.T) {
	f := newFake(t)
	counts, codes := object{}, map[string]byte{"never": 0, "online": 1, "quiet": 2, "offline": 3, "unknown": 4, "updating": 5}
	for _, s := range everyState() {
		f.dots.section(s, dotsEach, codes[s])
		counts[s] = dotsEach
	}
	f.fleet = object{
		"total": dotsEach * len(codes), "counts": counts, "rates": object{"received": 1, "stored": 1}, "queued": 0, "log_bytes": 0, "store": "ok",
		"change": object{"since": 0, "counts": object{}, "silent": 0},
	}
	b := open(t, f)
	b.visit("/")
	b.waitText(".legend", "unknown")
	b.wait("the dots", `document.querySelector(".gridwrap canvas")?.width > 10`)
	for _, theme := range []string{"light", "dark"} {
		b.media("prefers-color-scheme", theme)
		b.wait("the theme", fmt.Sprintf(`document.documentElement.dataset.theme === %q`, theme))
		for _, vision := range []emulation.SetEmulatedVisionDeficiencyType{"none", "deuteranopia", "protanopia", "tritanopia", "achromatopsia"} {
			t.Run(fmt.Sprintf("%s, %s", theme, vision), func(t *testing.T) {
				b.do(cdpCall(emulation.SetEmulatedVisionDeficiency, emulation.SetEmulatedVisionDeficiencyParams{Type: vision}))
				b.frames(t)
				drawnApart(t, b, fmt.Sprintf("vision-%s-%s.png", vision, theme))
			})
		}
	}
}

func cdpCall[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, command, params)
		return err
	})
}

// drawnApart compares what is drawn for each two states.
func drawnApart(t *testing.T, b *tab, name string) {
	shot := b.shot(t, name)
	dots, marks := map[string]float64{}, map[string]picture.Rectangle{}
	for i, s := range everyState() {
		block := b.area(t, fmt.Sprintf(`[...document.querySelectorAll(".gridwrap .block")].find(e => e.textContent.startsWith(%q))`, s))
		dots[s] = lightnessOf(shot, picture.Rect(block.Min.X, block.Min.Y+20, block.Min.X+40, block.Min.Y+34))
		marks[s] = b.area(t, fmt.Sprintf(`document.querySelectorAll(".legend li svg")[%d]`, i))
	}
	for i, one := range everyState() {
		for _, other := range everyState()[:i] {
			if got := contrast(dots[one], dots[other]); got < leastApart {
				t.Errorf("the dots of %s and %s have a contrast of %.2f, want at least %.2f", one, other, got, leastApart)
			}
			if got := unlike(shot, marks[one], marks[other]); got < leastUnlike {
				t.Errorf("the marks of %s and %s differ by %.3f, want at least %.2f", one, other, got, leastUnlike)
			}
		}
	}
}

// shot is a picture of the window, which is kept when somebody wants pictures.
func (b *tab) shot(t *testing.T, name string) picture.Image {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	raw, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatalf("take a picture: %v", err)
	}
	if dir := os.Getenv("MUSTER_UI_SHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("read a picture: %v", err)
	}
	return img
}

// frames waits for two frames, after which what was asked for is drawn.
func (b *tab) frames(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(true))))`, chromedp.EvalAwaitPromise)); err != nil {
		t.Fatalf("wait for frames: %v", err)
	}
}

// area is where an element is in the window.
func (b *tab) area(t *testing.T, element string) picture.Rectangle {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	r, err := chromedp.Run(ctx, chromedp.Evaluate[[]float64](`(e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })(`+element+`)`))
	if err != nil {
		t.Fatalf("where %s is: %v", element, err)
	}
	x, y := int(math.Round(r[0])), int(math.Round(r[1]))
	return picture.Rect(x, y, x+int(math.Round(r[2])), y+int(math.Round(r[3])))
}

// lightnessOf is the relative luminance of what is drawn in an area over the ground: of the colour
// that is there most often but for the one at its left upper side, where no dot is.
func lightnessOf(img picture.Image, area picture.Rectangle) float64 {
	ground := img.At(area.Min.X-4, area.Min.Y+10)
	seen := map[color.Color]int{}
	best, most := ground, 0
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			c := img.At(x, y)
			if seen[c]++; c != ground && seen[c] > most {
				best, most = c, seen[c]
			}
		}
	}
	return luminanceOf(best)
}

func luminanceOf(c color.Color) float64 {
	r, g, b, _ := c.RGBA()
	return luminance(fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8))
}

func contrast(a, b float64) float64 { return (math.Max(a, b) + 0.05) / (math.Min(a, b) + 0.05) }

// unlike is by how much two areas of a picture differ in grey, on the average.
func unlike(img picture.Image, a, b picture.Rectangle) float64 {
	sum, n := 0.0, 0
	for y := range min(a.Dy(), b.Dy()) {
		for x := range min(a.Dx(), b.Dx()) {
			one := color.GrayModel.Convert(img.At(a.Min.X+x, a.Min.Y+y)).(color.Gray)
			other := color.GrayModel.Convert(img.At(b.Min.X+x, b.Min.Y+y)).(color.Gray)
			sum += math.Abs(float64(one.Y)-float64(other.Y)) / 255
			n++
		}
	}
	return sum / float64(max(n, 1))
}
