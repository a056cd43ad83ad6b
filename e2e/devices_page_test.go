package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestOneListOfDevicesIsFoundSavedAndChangedTogether walks the page of devices: the box for
// the query, filters, columns, a saved view, all that match, and what is done to them. Each
// number is compared with the API's.
func TestOneListOfDevicesIsFoundSavedAndChangedTogether(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.fleet(260)
	b := openTab(t, m)
	b.comesIn(m)
	b.asksForDevices(m)
	b.savesAView(m)
	b.changesAllThatMatch(m)
	b.sendsACommand(m)
	b.selectsOverPages(m)
	b.deletesWhatItCounted(m)
	b.known("-")
}

// fleet makes devices in two places, with values of the last minute.
func (m *muster) fleet(n int) {
	m.t.Helper()
	var list, values []string
	for i := range n {
		site := []string{"berlin", "berlin", "rome"}[i%3]
		list = append(list, fmt.Sprintf("pump-%03d,Pump %d,site=%s", i, i, site))
		values = append(values, fmt.Sprintf(`{"device":"pump-%03d","temperature":%d,"battery":%d}`, i, i%40, 100-i%90))
	}
	m.ask(http.MethodPut, "/api/v1/groups/spare", map[string]any{"description": "in the store room"}, http.StatusOK, nil)
	m.ask(http.MethodPut, "/api/v1/groups/roman", map[string]any{"query": "tag:site=rome"}, http.StatusOK, nil)
	m.post("/api/v1/devices:import", "text/csv", packed(m.t, []byte("id,name,tags\n"+strings.Join(list, "\n"))), http.StatusOK)
	m.post("/api/v1/telemetry", "application/x-ndjson", packed(m.t, []byte(strings.Join(values, "\n")+"\n")), http.StatusOK)
}

// fetched is what a promise of the page comes to.
func fetched[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, pageLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

// types writes into the box for the query, over what it holds.
func (b *tab) types(text string) {
	b.t.Helper()
	b.wait("the box", `document.querySelector(".search input")`)
	evaluate[bool](b, `(e => { e.focus(); e.select(); return true; })(document.querySelector(".search input"))`)
	b.do(chromedp.SendKeys(chromedp.CSS(".search input"), text))
}

// shown waits until the list says how many match, as the API does.
func (b *tab) shown(m *muster, q string) {
	b.t.Helper()
	b.says("#devices-title + p", fmt.Sprint(m.matching(q)))
	b.wait("the query in the address", fmt.Sprintf(`(new URLSearchParams(location.search).get("q") ?? "") === %q`, q))
}

func (b *tab) asksForDevices(m *muster) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + "/devices"))
	b.shown(m, "")
	b.types("tag:site=")
	b.says(".offers", "tag:site=berlin")
	b.says(".offers li:first-child small", fmt.Sprint(m.matching("tag:site=berlin")))
	b.inspected("devices-suggested")
	b.do(chromedp.SendKeys(chromedp.CSS(".search input"), kb.ArrowDown+kb.Enter))
	b.shown(m, "tag:site=berlin")
	b.press(".facet-group > .btn")
	b.says(".facet-group .hint", "No device has any.")
	b.do(chromedp.SendKeys(chromedp.CSS(".facet-group > .btn"), kb.Escape))
	b.press(".facet-status > .btn")
	b.says(".facet-status li", fmt.Sprint("online", m.matching("tag:site=berlin status:online")))
	b.press(".facet-status li button")
	b.shown(m, "tag:site=berlin status=online")
	b.types("tag:site=berlin stauts:online ")
	b.says(".query-fault", `Column 17: there is no field "stauts"; did you mean status?`)
	b.says(".query-fault mark", "stauts:online")
	b.inspected("devices-refused")
	b.types("tag:site=berlin group:spare ")
	b.says(".nothing", "No device matches.")
	b.says(".nothing li", fmt.Sprintf("Without group=spare there are %d.", m.matching("tag:site=berlin")))
	b.inspected("devices-nobody")
	b.press(".nothing li a")
	b.shown(m, "tag:site=berlin")
}

func (b *tab) savesAView(m *muster) {
	b.t.Helper()
	b.press(".columns > .btn")
	b.says(".columns .key", "temperature")
	b.press(`.columns input[aria-label="temperature: line"]`)
	b.wait("the column in the address", `new URLSearchParams(location.search).get("cols")?.endsWith("spark.temperature")`)
	b.says("table.devices thead", "temperature, line")
	b.wait("lines", `document.querySelectorAll(".sparkline path").length > 10`)
	b.inspected("devices-columns")
	b.do(chromedp.SendKeys(chromedp.CSS(".columns > .btn"), kb.Escape))
	b.press("thead .sort")
	b.wait("the order", `new URLSearchParams(location.search).get("sort") === "-id"`)
	b.press(".views > .btn")
	b.fill(".views .save", "name", "Berlin by line\r")
	b.says(".views .saved a", "Berlin by line")
	b.inspected("devices-views")
	here := evaluate[string](b, "location.pathname + location.search")
	b.do(chromedp.Navigate(b.base + "/devices"))
	b.shown(m, "")
	b.press(".views > .btn")
	b.press(".views .saved a")
	b.wait("the address of the view", fmt.Sprintf("location.pathname + location.search === %q", here))
	b.says("tbody tr:first-child th", "pump-259")
	csv := fetched[string](b, `fetch(document.querySelector("a[download]").href).then(r => r.text())`)
	lines := strings.Split(strings.TrimSpace(csv), "\n")
	if len(lines) > 1 && !strings.HasPrefix(lines[1], "pump-259,") { // the largest first, as the list
		b.t.Errorf("the first device of the table is %s", lines[1])
	}
	if len(lines)-1 != m.matching("tag:site=berlin") || lines[0] != "id,name,status,seen,v.battery,v.temperature" {
		b.t.Errorf("the table has %d lines and begins %s", len(lines), lines[0])
	}
}

// done waits until the last work has ended well.
func (b *tab) done(word string, n int) {
	b.t.Helper()
	b.says(".work.done b", word)
	b.says(".work", fmt.Sprintf("done: %d", n))
}

// confirms counts, and does it when the count is the API's.
func (b *tab) confirms(word string, n int) {
	b.t.Helper()
	b.press(".ask .stack [type=submit]")
	b.says(".ask .confirm p", fmt.Sprintf("%d devices match now.", n))
	b.says(".ask .confirm .pri", fmt.Sprintf("%s %d devices", word, n))
}

func (b *tab) changesAllThatMatch(m *muster) {
	b.t.Helper()
	n := m.matching("tag:site=berlin")
	b.do(chromedp.Navigate(b.base + "/devices?q=tag:site%3Dberlin"))
	b.shown(m, "tag:site=berlin")
	b.press("thead input")
	b.says(".bulk", "50 selected")
	b.press(".bulk .btn.txt")
	b.says(".bulk", fmt.Sprintf("All %d that match are selected", n))
	b.inspected("devices-selected")
	b.press(`.bulk [data-kind="tag"]`)
	b.fill(".ask", "key", "lot", "value", "7")
	b.confirms("Tag", n)
	b.inspected("devices-confirm")
	b.press(".ask .confirm .pri")
	b.done("Tag", n)
	if got := m.matching("tag:lot=7"); got != n {
		b.t.Errorf("%d devices have the tag, want %d", got, n)
	}
	b.says(".work .btn", "Undo")
	b.press(".work .btn")
	b.says(".work", "Undone.")
	if got := m.matching("tag:lot"); got != 0 {
		b.t.Errorf("after the undo %d devices have the tag", got)
	}
	b.press(`.bulk [data-kind="group"]`)
	b.says(".ask [name=group]", "spare")
	b.confirms("Change the group of", n)
	b.press(".ask .confirm .pri")
	b.done("Change the group of", n)
	b.says(".facet-group", "Group")
	if got := m.matching("group:spare"); got != n {
		b.t.Errorf("%d devices are in the group, want %d", got, n)
	}
}

func (b *tab) sendsACommand(m *muster) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + "/devices?q=id:pump-00*"))
	b.shown(m, "id:pump-00*")
	b.do(chromedp.SendKeys(chromedp.CSS("tbody tr:first-child th a"), "xjx"))
	b.says(".bulk", "2 selected")
	b.press(`.bulk [data-kind="command"]`)
	b.fill(".ask", "method", "reboot")
	b.confirms("Send reboot to", 2)
	b.press(".ask .confirm .pri")
	b.says(".work", "0 of 2")
	var jobs struct {
		Items []struct{ ID, Method, State string }
	}
	m.ask(http.MethodGet, "/api/v1/jobs", nil, http.StatusOK, &jobs)
	if len(jobs.Items) != 1 || jobs.Items[0].Method != "reboot" || jobs.Items[0].State != "running" {
		b.t.Errorf("the jobs are %v", jobs.Items)
	}
	b.press(".work .btn")
	b.says(".work.stopped", "stopped: 0 of 2")
}

// selectsOverPages ticks the rows of two pages, more than a query has terms, goes back and forth, and tags them.
func (b *tab) selectsOverPages(m *muster) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + "/devices?q=tag:site%3Dberlin"))
	b.shown(m, "tag:site=berlin")
	b.press("thead input")
	b.says(".bulk", "50 selected")
	b.press(".pager .btn:last-child")
	b.wait("the second page", `new URLSearchParams(location.search).get("after") && !document.querySelector("tbody tr.on")`)
	b.says(".bulk", "50 selected, 50 of them on other pages")
	b.press("thead input")
	b.says(".bulk", "100 selected, 50 of them on other pages")
	b.do(chromedp.NavigateBack())
	b.wait("the first page, still selected", `!new URLSearchParams(location.search).get("after") && document.querySelectorAll("tbody tr.on").length === 50`)
	b.says(".bulk", "100 selected, 50 of them on other pages")
	b.press(`.bulk [data-kind="tag"]`)
	b.fill(".ask", "key", "lot", "value", "8")
	b.confirms("Tag", 100)
	b.press(".ask .confirm .pri")
	b.done("Tag", 100)
	if got := m.matching("tag:lot=8 tag:site=berlin"); got != 100 {
		b.t.Errorf("%d devices have the tag, want 100", got)
	}
	b.press(".work .btn")
	b.says(".work", "Undone.")
	if got := m.matching("tag:lot"); got != 0 {
		b.t.Errorf("after the undo %d devices have the tag", got)
	}
	b.press(`.bulk [data-kind="command"]`)
	b.fill(".ask", "method", "reboot")
	b.confirms("Send reboot to", 100)
	b.press(".ask .confirm .pri")
	b.says(".work", "0 of 100")
	b.press(".work .btn")
	b.says(".work.stopped", "stopped: 0 of 100")
	b.press(".bulk .r .btn.txt")
	b.wait("nothing to be selected", `!document.querySelector(".bulk")`)
}

func (b *tab) deletesWhatItCounted(m *muster) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + "/devices?q=group:roman"))
	n := m.matching("group:roman")
	b.shown(m, "group:roman")
	b.press("thead input")
	b.press(".bulk .btn.txt")
	b.press(`.bulk [data-kind="delete"]`)
	b.confirms("Delete", n)
	b.wait("a button that waits for the count", `document.querySelector(".ask .confirm .pri").disabled`)
	b.inspected("devices-delete")
	b.do(chromedp.SendKeys(chromedp.CSS(".ask .confirm input"), fmt.Sprint(n)+"\r"))
	b.done("Delete", n)
	if got := m.matching("group:roman"); got != 0 {
		b.t.Errorf("%d devices are left", got)
	}
}

// TestAViewerSeesWhatHeMayNotDo has the page show it, and the server refuse it.
func TestAViewerSeesWhatHeMayNotDo(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.fleet(3)
	m.ask(http.MethodPost, "/api/v1/users", map[string]any{"email": "vic@example.com", "role": "viewer", "password": firstPassword}, http.StatusCreated, nil)
	b := openTab(t, m)
	b.signsIn("vic@example.com", firstPassword)
	b.do(chromedp.Navigate(b.base + "/devices"))
	b.shown(m, "")
	b.press("tbody input")
	b.says(".bulk", "1 selected")
	for _, at := range []string{`.bulk [data-kind]`, `.listing .add`} {
		if open := evaluate[int](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].filter(e => !e.disabled || e.title !== "This needs the role operator.").length`, at)); open != 0 {
			t.Errorf("%d of %s are open to a viewer", open, at)
		}
	}
	b.do(chromedp.Navigate(b.base + "/groups/spare"))
	b.says("#group-title", "spare")
	if open := evaluate[int](b, `document.querySelectorAll("main :is(button, input, textarea):enabled").length`); open != 0 {
		t.Errorf("%d controls of a group are open to a viewer", open)
	}
	for _, try := range [][3]string{
		{"POST", "/devices:update", `{"ids":["pump-000"],"tags":{"a":"b"}}`},
		{"POST", "/devices:delete", `{"ids":["pump-000"],"data":"keep"}`},
		{"POST", "/jobs", `{"q":"id:*","kind":"command","method":"reboot"}`},
		{"PUT", "/groups/new", `{}`},
		{"DELETE", "/groups/spare", ``},
		{"PUT", "/groups/spare/desired", `{"a":1}`},
	} {
		status := fetched[int](b, fmt.Sprintf(`fetch("/api/v1%s", {method: %q, body: %q || undefined, headers: {"Content-Type": "application/json"}}).then(r => r.status)`, try[1], try[0], try[2]))
		if status != http.StatusForbidden {
			t.Errorf("%s %s by a viewer gives %d, want 403", try[0], try[1], status)
		}
	}
	if status := fetched[int](b, `fetch("/api/v1/views", {method: "POST", body: '{"name":"mine"}', headers: {"Content-Type": "application/json"}}).then(r => r.status)`); status != http.StatusCreated {
		t.Errorf("a viewer's own view gives %d", status)
	}
	b.known("-")
}

// TestAGroupFromItsMakingToItsEnd walks the pages of groups.
func TestAGroupFromItsMakingToItsEnd(t *testing.T) {
	t.Parallel()
	m := serve(t)
	b := openTab(t, m)
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/groups"))
	b.says(".groups", "There is no group yet.")
	b.inspected("groups-empty")
	m.fleet(9)
	b.do(chromedp.Navigate(b.base + "/groups"))
	b.says(`tr[data-group="roman"] td:last-child`, fmt.Sprint(m.matching("group:roman")))
	b.press(".groups header .btn")
	b.fill(".makegroup", "name", "warm romans", "description", "to be looked at")
	b.choose(".makegroup", "kind", "query")
	b.fill(".makegroup", "query", "group:roman v.temperature>2 ")
	b.says(".makegroup .hint", fmt.Sprintf("%d devices match now.", m.matching("group:roman v.temperature>2")))
	b.labelled()
	b.inspected("groups-new")
	b.press(".makegroup [type=submit]")
	b.says(".makegroup .error", "a group's name has")
	b.fill(".makegroup", "name", "warm-romans\r")
	b.says("#group-title", "warm-romans")
	b.says(".members", fmt.Sprint(m.matching("group:warm-romans")))
	b.press(`main a[href="/groups/roman"]`)
	b.says("#group-title", "roman")
	b.says(".group", "warm-romans")
	b.press(".group header .btn")
	b.press(".group header .btn")
	b.says(".group .error", "refers to it")
	b.inspected("group-query")
	b.do(chromedp.Navigate(b.base + "/groups/spare"))
	b.says(".wanted .hint", "Nothing is wanted of them yet.")
	b.fill(".wanted", "state", `{"interval_s":60}`)
	b.press(".wanted [type=submit]")
	b.says(".wanted .reaches", fmt.Sprintf("It reaches %d devices", m.matching("group:spare")))
	b.press(".review .pri")
	b.says(".wanted .hint", "Version 1.")
	var desired struct{ State map[string]any }
	m.ask(http.MethodGet, "/api/v1/groups/spare/desired", nil, http.StatusOK, &desired)
	if fmt.Sprint(desired.State) != "map[interval_s:60]" {
		t.Errorf("what is wanted is %v", desired.State)
	}
	b.inspected("group-static")
	b.press(".group header .btn")
	b.press(".group header .btn")
	b.says(".groups", "warm-romans")
	b.wait("the group to be gone", `!document.querySelector('tr[data-group="spare"]')`)
	b.known("-")
}
