package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// toldWithin is how soon all browsers of a person show what one of them did.
const toldWithin = time.Second

// comesIn makes the first person of a server in a browser.
func (b *tab) comesIn(m *muster) {
	b.t.Helper()
	b.do(chromedp.Navigate(m.setupLink()))
	b.fill(".setup", "name", "Ada Kern", "email", "ada@example.com", "password", firstPassword+"\r")
	b.wait("the form to go", `!document.querySelector(".setup")`)
}

// signsIn comes in as somebody who is there.
func (b *tab) signsIn(email, password string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + "/inbox"))
	b.fill(".signin", "email", email, "password", password+"\r")
	b.wait("the page", `document.querySelector("main#main .inbox")`)
}

// subscribes makes a topic by the API, and subscribes to it on its page.
func (b *tab) subscribes(m *muster, name string) {
	b.t.Helper()
	m.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": name, "title": strings.ToUpper(name[:1]) + name[1:]}, http.StatusCreated, nil)
	b.do(chromedp.Navigate(b.base + "/topics"))
	b.press(`tr[data-topic="` + name + `"] button`)
	b.says(`tr[data-topic="`+name+`"]`, "subscribed")
}

// notify sends a notification by the API and returns its id.
func (m *muster) notify(topic, title string, more ...any) string {
	m.t.Helper()
	in := map[string]any{"topic": topic, "title": title, "severity": "major"}
	for i := 0; i+1 < len(more); i += 2 {
		in[more[i].(string)] = more[i+1]
	}
	var out struct{ Notification struct{ ID string } }
	m.ask(http.MethodPost, "/api/v1/notifications", in, http.StatusAccepted, &out)
	return out.Notification.ID
}

// looks has the page note when an expression becomes true, in ms since 1970: __lit, 0 before.
func (b *tab) looks(expression string) {
	b.t.Helper()
	evaluate[bool](b, fmt.Sprintf(`(() => {
		window.__eye?.disconnect();
		window.__lit = 0;
		const look = () => { if (!window.__lit && (%s)) window.__lit = Date.now(); };
		window.__eye = new MutationObserver(look);
		window.__eye.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
		look();
		return true;
	})()`, expression))
}

// lit returns how long after began the page saw it.
func (b *tab) lit(what string, began int64) time.Duration {
	b.t.Helper()
	b.wait(what, `window.__lit > 0`)
	return time.Duration(evaluate[int64](b, `window.__lit`)-began) * time.Millisecond
}

// acts does something with the page and returns when its click or key reached the page.
func (b *tab) acts(do ...chromedp.Action[chromedp.Void]) int64 {
	b.t.Helper()
	evaluate[bool](b, `(() => {
		window.__acted = 0;
		for (const kind of ["click", "keydown"]) addEventListener(kind, () => { window.__acted ||= Date.now(); }, {capture: true, once: true});
		return true;
	})()`)
	b.do(do...)
	b.wait("the page to be reached", `window.__acted > 0`)
	return evaluate[int64](b, `window.__acted`)
}

func row(id string) string { return fmt.Sprintf(`.notes li[data-id=%q]`, id) }

func rowIs(id, receipt string) string {
	return fmt.Sprintf(`document.querySelector(%q)?.dataset.receipt === %q`, row(id), receipt)
}

func within(t *testing.T, what string, took time.Duration) {
	t.Helper()
	t.Logf("%s after %s", what, took)
	if took > toldWithin {
		t.Errorf("%s after %s, want at most %s", what, took, toldWithin)
	}
}

// live waits until the tab shows the inbox and follows it.
func (b *tab) live() {
	b.t.Helper()
	b.wait("the bell", `document.querySelector(".live.live") && document.querySelector(".bell")`)
}

// TestWhatOneBrowserDoesWithANotificationShowsInTheOther has one person in two browsers.
func TestWhatOneBrowserDoesWithANotificationShowsInTheOther(t *testing.T) {
	m := serve(t)
	one, two := openTab(t, m), openTab(t, m)
	one.comesIn(m)
	one.subscribes(m, "alarms")
	one.do(chromedp.Navigate(one.base + "/inbox"))
	one.says(".firstnote", "You are subscribed to Alarms")
	one.inspected("inbox-empty")
	two.signsIn("ada@example.com", firstPassword)
	two.known("-")
	both := []*tab{one, two}
	for _, b := range both {
		b.live()
		b.labelled()
	}

	var first string
	for i, title := range []string{"The door is open", "The pump stands still", "The roof leaks"} {
		for _, b := range both {
			b.looks(fmt.Sprintf(`[...document.querySelectorAll(".notes .what > a")].some(a => a.textContent.includes(%q)) && document.querySelector(".bell b")?.textContent === "%d"`, title, i+1))
		}
		began := time.Now().UnixMilli()
		first = m.notify("alarms", title, "priority", "urgent", "body", "Hall 3", "data", map[string]int{"hall": 3})
		for i, b := range both {
			within(t, fmt.Sprintf("%q is in browser %d", title, i+1), b.lit(title, began))
		}
	}
	one.acksWhatTheOtherIsToldOf(m, two)

	two.looks(rowIs(first, "acked") + ` && document.querySelector("` + strings.ReplaceAll(row(first), `"`, `\"`) + `").textContent.includes("you acknowledged")`)
	began := one.acts(chromedp.Click(chromedp.CSS(row(first) + " .ack")))
	within(t, "an ack by a click in one browser is in the other", two.lit("the ack", began))
	one.says(row(first), "you acknowledged")
	two.wait("the figures", `document.querySelector(".bell b")?.textContent === "3" && document.querySelector(".filters").textContent.includes("Needs an ack3")`)

	two.acksByKeys(t, one)
	for _, b := range both {
		b.do(chromedp.Reload())
		b.live()
		b.wait("three of five to be acked", `[...document.querySelectorAll(".notes li")].map(li => li.dataset.receipt === "acked").join() === "true,false,true,true,false"`)
	}
	var receipts struct {
		Items []struct{ State, Door string }
	}
	m.ask(http.MethodGet, "/api/v1/notifications/"+first+"/receipts", nil, http.StatusOK, &receipts)
	if len(receipts.Items) != 1 || receipts.Items[0].State != "acked" || receipts.Items[0].Door != "live" {
		t.Errorf("the receipts are %+v, want one that was acked over the socket", receipts.Items)
	}
	one.shows(m, first)
}

// acksWhatTheOtherIsToldOf has the other look at another page: a toast tells of what is
// urgent there, until somebody acks it.
func (b *tab) acksWhatTheOtherIsToldOf(m *muster, other *tab) {
	b.t.Helper()
	other.press(`.rail a[href="/devices"]`)
	other.wait("the devices", `!document.querySelector(".inbox")`)
	m.notify("alarms", "Nothing much", "severity", "info")
	id := m.notify("alarms", "The cold store is warm", "severity", "critical")
	other.says(".toast", "The cold store is warm")
	if got := evaluate[string](other, `document.querySelector(".toast").textContent`); strings.Contains(got, "more") {
		b.t.Errorf("the toast says %q, want what is urgent only", got)
	}
	other.keepAs("e2e-toast.png")
	b.press(row(id) + " .ack")
	other.wait("the toast to go", `!document.querySelector(".toast")`)
	other.press(".bell")
	other.wait("the inbox", rowIs(id, "acked"))
	b.press(`[href="/inbox?show=open"]`)
	b.wait("what is open", `document.querySelectorAll(".notes li").length === 4`)
	b.press(`.tabs [href="/inbox"]`)
	b.wait("all", `document.querySelectorAll(".notes li").length === 5`)
}

// acksByKeys goes to the fourth of the list and acks it, without a mouse.
func (b *tab) acksByKeys(t *testing.T, other *tab) {
	t.Helper()
	fourth := evaluate[string](b, `document.querySelectorAll(".notes li")[3].dataset.id`)
	b.do(chromedp.KeyEvent("?"))
	b.wait("the sheet of keys", `document.querySelector("dialog.sheet[open]")`)
	b.do(chromedp.KeyEvent("\x1b"))
	b.wait("the sheet to go", `!document.querySelector("dialog.sheet")`)
	b.do(chromedp.KeyEvent("jjjjjk"))
	b.wait("the focus on the fourth", fmt.Sprintf(`document.activeElement.closest("li")?.dataset.id === %q`, fourth))
	other.looks(rowIs(fourth, "acked"))
	began := b.acts(chromedp.KeyEvent("e"))
	within(t, "an ack by a key in one browser is in the other", other.lit("the ack", began))
	b.wait("it to stay where it was", fmt.Sprintf(`document.querySelectorAll(".notes li")[3].dataset.id === %q`, fourth))
	b.do(chromedp.KeyEvent("o"))
	b.says(".panel .note", "You take care of it.")
	b.says(".panel .note", "Hall 3")
	b.do(chromedp.KeyEvent("\x1b"))
	b.wait("the panel to close", `location.pathname === "/inbox" && !document.querySelector(".note")`)
}

// shows opens one that was acked as an admin does, who may see who did.
func (b *tab) shows(m *muster, id string) {
	b.t.Helper()
	m.notify("alarms", "Bent", "severity", "critical", "link", "https://example.com/x", "body", "The valve of line 4 is bent.\nClose it by hand.")
	b.says(".notes", "Bent")
	b.inspected("inbox-list")
	b.do(chromedp.Click(chromedp.CSS(row(id) + " .what > a")))
	b.says(".note [data-subject]", "Ada Kern")
	b.says(".note [data-subject]", "in the dashboard")
	b.labelled()
	b.inspected("inbox")
}

// TestAnInboxThatWasAwayShowsExactlyWhatItMissed kills the server under a page, and sends
// before the page is back: the page goes on where it was, and asks for no list anew.
func TestAnInboxThatWasAwayShowsExactlyWhatItMissed(t *testing.T) {
	m := serve(t)
	b := openTab(t, m)
	b.comesIn(m)
	b.subscribes(m, "alarms")
	m.notify("alarms", "Before")
	b.do(chromedp.Navigate(b.base + "/inbox"))
	b.live()
	b.says(".notes", "Before")
	const lists = `performance.getEntriesByType("resource").filter(e => e.name.includes("/me/inbox")).length`
	b.wait("the list to have been read", lists+" > 0 && !document.querySelector('.inbox .quiet-note')?.textContent.includes('Asking')")
	before := evaluate[int](b, lists)
	evaluate[bool](b, `(() => {
		window.__away = true;
		window.WebSocket = new Proxy(WebSocket, {construct: (of, [url, proto]) => new of(window.__away ? url.replace("/live", "/away") : url, proto)});
		return true;
	})()`)
	m.kill()
	b.wait("the page to say so", `document.querySelector(".live.waiting")`)
	m.start()
	m.ready()
	var missed []string
	for i := range 5 {
		missed = append(missed, m.notify("alarms", fmt.Sprintf("While away %d", i)))
	}
	m.notify("alarms", "Over", "dedup_key", "k")
	m.notify("alarms", "", "dedup_key", "k", "resolve", true)
	evaluate[bool](b, `(window.__away = false, true)`)
	b.live()
	b.wait("what was missed", fmt.Sprintf(`document.querySelectorAll(".notes li").length === %d && document.querySelector(".notes li").dataset.state === "resolved"`, len(missed)+2))
	for i, id := range missed {
		at := len(missed) - i
		if got := evaluate[string](b, fmt.Sprintf(`document.querySelectorAll(".notes li")[%d].dataset.id`, at)); got != id {
			t.Errorf("row %d is %s, want %s", at, got, id)
		}
	}
	b.wait("the bell", fmt.Sprintf(`document.querySelector(".bell b").textContent === "%d"`, len(missed)+1))
	if n := evaluate[int](b, lists); n != before {
		t.Errorf("the list was read %d times more, want that the channel tells all", n-before)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errors = nil // the browser's own lines about a server that is not there
}

// TestWhatComesMovesNothingUnderThePointer has the pointer on the list, then in the corner
// where a toast would be.
func TestWhatComesMovesNothingUnderThePointer(t *testing.T) {
	m := serve(t)
	b := openTab(t, m)
	b.comesIn(m)
	b.subscribes(m, "alarms")
	for i := range 3 {
		m.notify("alarms", fmt.Sprintf("Old %d", i))
	}
	b.do(chromedp.Navigate(b.base + "/inbox"))
	b.live()
	b.wait("three", `document.querySelectorAll(".notes li").length === 3`)
	b.hovers(`document.querySelectorAll(".notes li")[1]`)
	under := `document.querySelector(".notes li:hover")?.dataset.id`
	before := evaluate[string](b, under)
	m.notify("alarms", "New", "priority", "urgent")
	b.says(".chip", "1 new, show")
	b.says(".toast", "New")
	if after := evaluate[string](b, under); after != before || before == "" {
		t.Errorf("%q is under the pointer, %q was", after, before)
	}
	b.hovers(`document.querySelector(".brand")`)
	b.wait("the new one at the top", `document.querySelector(".notes li .what").textContent.includes("New")`)
	b.wait("the toast to go by itself", `!document.querySelector(".toast")`)

	b.press(`.rail a[href="/devices"]`)
	b.wait("the devices", `!document.querySelector(".inbox")`)
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, 1400, 860))
	m.notify("alarms", "Newer", "severity", "critical")
	b.says(".toast", "Newer")
	if at := evaluate[string](b, `document.querySelector(".toast").dataset.at`); at != "ne" {
		t.Errorf("the toast is in the corner %s, where the pointer is", at)
	}
	b.press(`.toast a.btn`)
	b.says(".note h2", "Newer")
	if evaluate[bool](b, `document.querySelector(".toast") !== null`) {
		t.Error("the toast stays when what it tells of is opened")
	}
}

// hovers moves the pointer into the middle of an element.
func (b *tab) hovers(element string) {
	b.t.Helper()
	at := evaluate[[]float64](b, `(r => [r.x + r.width / 2, r.y + r.height / 2])(`+element+`.getBoundingClientRect())`)
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, at[0], at[1]))
}
