package ui

import (
	"net/http"
	"net/url"
	"testing"
)

// TestAFilterChangesItsOwnTermOnly takes filters back and puts others in their place, beside an or, a not,
// parentheses and the word and: what else is asked for stays as it is written.
func TestAFilterChangesItsOwnTermOnly(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.put("pump-1", "", "online", object{})
	f.extra = map[string]http.HandlerFunc{"GET /api/v1/devices:facets": f.guarded(func(w http.ResponseWriter, r *http.Request) {
		value := func(v string) object { return object{"value": v, "devices": 1, "term": "status=" + v} }
		writeJSON(w, 200, object{"total": 2, "items": []object{
			{"field": r.URL.Query().Get("fields"), "more": 0, "values": []object{value("online"), value("offline")}},
		}})
	})}
	b := open(t, f)
	for _, c := range []struct{ q, press, want string }{
		{"(tag:a or tag:b) status=online group=x", "online", "(tag:a or tag:b) group=x"},
		{"(tag:a or tag:b) status=online group=x", "offline", "(tag:a or tag:b) group=x status=offline"},
		{"status:online and group=x", "online", "group=x"},
		{"group=x and status:online", "online", "group=x"},
		{"not status=online", "online", "not status=online status=online"},
		{"not (tag:a status=online) status=online", "online", "not (tag:a status=online)"},
		{"status=online or group=x", "online", "(status=online or group=x) status=online"},
		{`name="a and (b" status=online`, "online", `name="a and (b"`},
		{"status=online", "online", ""},
	} {
		b.visit("/devices?q=" + url.QueryEscape(c.q))
		b.wait("the filter", `document.querySelector(".facet-status > .btn")`)
		evaluate[bool](b, `(document.querySelector(".facet-status > .btn").click(), true)`)
		b.waitText(".facet-status li", c.press)
		evaluate[bool](b, `([...document.querySelectorAll(".facet-status li button")].find(e => e.textContent.startsWith(`+quote(c.press)+`)).click(), true)`)
		b.wait("the panel to close", `!document.querySelector(".facet-status li")`)
		if got := evaluate[string](b, `new URLSearchParams(location.search).get("q") ?? ""`); got != c.want {
			t.Errorf("%s with %s pressed is %s, want %s", c.q, c.press, got, c.want)
		}
	}
}

// TestAnAddressWhoseQueryIsNotUnderstoodCanBeMended opens one, as a link may be that was written by hand or is of a
// group that is gone.
func TestAnAddressWhoseQueryIsNotUnderstoodCanBeMended(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.put("pump-1", "", "online", object{})
	b := open(t, f)
	b.visit("/devices?q=stauts:online")
	b.waitText(".query-fault", `there is no field "stauts"; did you mean status?`)
	b.waitText(".query-fault mark", "stauts:online")
	if got := evaluate[string](b, `document.querySelector(".search input").value`); got != "stauts:online" {
		t.Errorf("the box has %q, want what was asked for", got)
	}
	evaluate[bool](b, `(e => { e.focus(); e.select(); window.box = e; return true; })(document.querySelector(".search input"))`)
	b.types(".search input", "pump")
	b.waitText("tbody th", "pump-1")
	if !evaluate[bool](b, `document.activeElement === window.box`) {
		t.Error("the box was taken from under the hands of who writes")
	}
	b.visit("/devices?q=stauts:online")
	b.waitText(".listing .quiet-note a", "Clear the search")
	b.click(".listing .quiet-note a")
	b.waitText("tbody th", "pump-1")
}
