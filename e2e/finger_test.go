package e2e

import (
	"context"
	"fmt"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// touches has the browser say that what points is a finger, or no longer.
func (b *tab) touches(on bool) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: on})
		return err
	}))
	b.wait("the pointer", fmt.Sprintf(`matchMedia("(pointer: coarse)").matches === %t`, on))
}

// smallTargets is what a page has in sight that can be pressed and is smaller than 36 CSS pixels either way. A field counts
// with the label around it. Of links, those in a line of text are left out (WCAG 2.5.8, Inline): their line sets their height.
const smallTargets = `(() => {
	const least = 36 - 0.5;
	const inText = e => {
		if (!e.matches("a[href], button") || !getComputedStyle(e).display.startsWith("inline")) return false;
		let block = e.parentElement;
		while (getComputedStyle(block).display === "inline") block = block.parentElement;
		if (/flex|grid/.test(getComputedStyle(block).display)) return false;
		const links = [...block.querySelectorAll("a[href], button")].map(l => l.textContent).join("");
		return getComputedStyle(e).display === "inline" && block.textContent.replace(/\s/g, "").length > links.replace(/\s/g, "").length;
	};
	const small = new Set();
	for (const e of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, [role=button], [role=tab], [role=option], [role=menuitem]")) {
		const whole = e.closest("label") ?? e;
		const r = whole.getBoundingClientRect();
		if (!e.checkVisibility({visibilityProperty: true}) || r.width <= 1 || r.right <= 0 || getComputedStyle(e).clipPath !== "none") continue;
		if ((r.width >= least && r.height >= least) || inText(e)) continue;
		const words = (e.getAttribute("aria-label") || e.textContent || e.name || e.type || "").trim().slice(0, 30);
		small.add(Math.round(r.width) + " by " + Math.round(r.height) + " px: " + e.localName + "." + e.className + " in " + e.parentElement.localName + "." + e.parentElement.className + " " + words);
	}
	return [...small];
})()`

// fingered sees that all that can be pressed on a page is large enough for a finger on a phone, also in what its buttons
// fold out.
func (b *tab) fingered(name string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(390, 900))
	b.touches(true)
	b.rests(drawsWithin)
	found := evaluate[[]string](b, smallTargets)
	folded := evaluate[int](b, foldedOut+`.length`)
	for i := range folded {
		evaluate[bool](b, fmt.Sprintf(`(%s[%d]?.click(), true)`, foldedOut, i))
		b.rests(drawsWithin)
		found = append(found, evaluate[[]string](b, smallTargets)...)
		evaluate[bool](b, `([...document.querySelectorAll("main [aria-expanded=true]")].at(-1)?.click(), true)`)
	}
	told := map[string]bool{}
	for _, f := range found {
		if !told[f] {
			told[f] = true
			b.t.Errorf("%s, for a finger: %s", name, f)
		}
	}
	b.keepAs(name + "-finger.png")
	b.touches(false)
	b.do(chromedp.EmulateViewport(1440, 900))
}

// foldedOut is the buttons that fold something out.
const foldedOut = `[...document.querySelectorAll("main button[aria-expanded=false]:not(:disabled), main button[aria-expanded=true]:not(:disabled)")].filter(e => e.checkVisibility())`
