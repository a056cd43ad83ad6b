package ui

import (
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// openDocs opens the page about the API on the document that the repository keeps. The tab
// fails the test when the page asks another host for anything, or breaks its policy.
func openDocs(t *testing.T, path string) *tab {
	t.Helper()
	text, err := os.ReadFile("../../api/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	f.extra = map[string]http.HandlerFunc{"GET /api/openapi.json": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // a browser that has gone needs no answer
	}}
	b := open(t, f)
	b.visit(path)
	b.waitText("h1", "HTTP API")
	return b
}

// operationsKept counts the operations of the document.
func operationsKept(t *testing.T) (n int) {
	t.Helper()
	text, err := os.ReadFile("../../api/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for _, methods := range doc.Paths {
		n += len(methods)
	}
	return n
}

func TestTheAPIPageShowsEveryOperationAndWhatItNeeds(t *testing.T) {
	b := openDocs(t, "/api/docs")
	want := operationsKept(t)
	b.wait("every operation", `document.querySelectorAll(".op").length === `+strconv.Itoa(want))
	b.waitText(".filter p", strconv.Itoa(want)+" operations")
	if got := evaluate[int](b, `performance.getEntriesByType("resource").filter(e => !e.name.startsWith(location.origin)).length`); got != 0 {
		t.Errorf("the page loaded %d things from elsewhere", got)
	}
	b.shootAll("docs")
	b.click("#send-command > summary")
	b.waitText("#send-command .needs", "commands:send, or a user who is at least operator")
	b.waitText("#send-command .example", `"method": "reboot"`)
	b.waitText("#send-command .fieldlist", "How long to wait for the end")
	b.waitText("#send-command .errors", "idempotency_mismatch")
	line := evaluate[string](b, `document.querySelector("#send-command .copyline code").textContent`)
	for _, word := range []string{"curl " + b.base + "/api/v1/devices/pump-7/commands", `-H "Authorization: Bearer $MUSTER_KEY"`, `-d '{"method":"reboot"`} {
		if !strings.Contains(line, word) {
			t.Errorf("no %s in %s", word, line)
		}
	}
	b.shootAll("docs-operation")
	for _, path := range []string{"/api/openapi.json", "/api/asyncapi.json"} {
		if evaluate[int](b, `document.querySelectorAll(".papers a[href='`+path+`']").length`) != 1 {
			t.Errorf("there is no link to %s", path)
		}
	}
}

func TestTheAPIPageIsFilteredAndLinkedToByTheAddress(t *testing.T) {
	b := openDocs(t, "/api/docs#create-api-key")
	b.waitText("#create-api-key .copyline code", "/api/v1/api-keys")
	b.wait("the operation in sight", `(r => r.top >= 0 && r.top < innerHeight)(document.getElementById("create-api-key").getBoundingClientRect())`)
	if evaluate[bool](b, `document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "/", bubbles: true, cancelable: true}))`) {
		t.Error("the slash that leads to the filter is typed into it")
	}
	b.wait("the filter to have the focus", `document.activeElement.id === "filter"`)
	b.types("#filter", "webhooks test")
	b.waitText(".filter p", "1 of ")
	if got := evaluate[string](b, `[...document.querySelectorAll(".op")].map(e => e.id).join()`); got != "test-webhook" {
		t.Errorf("the filter shows %s", got)
	}
	b.wait("the filter in the address", `location.search === "?q=webhooks%20test"`)
	b.retype("#filter", "zebra")
	b.waitText("main", "No operation has “zebra”.")
	b.visit("/api/docs?q=audit:")
	b.wait("the filter from the address", `document.querySelector("#filter")?.value === "audit:"`)
	b.visit("/api/docs")
	b.wait("the page", `document.querySelector("#list-devices > summary")`)
	evaluate[bool](b, `(document.querySelector("#list-devices > summary").focus(), true)`)
	b.do(chromedp.KeyEvent("\r"))
	b.waitText("#list-devices .example", "pump-7")
}

func TestTheAccessibilityEngineFindsNothingOnTheAPIPage(t *testing.T) {
	b := openDocs(t, "/api/docs?q=device#send-command")
	b.waitText("#send-command .example", "reboot")
	evaluate[bool](b, `(document.querySelector("#create-device > summary").click(), true)`)
	b.waitText("#create-device .example", "pump-7")
	b.inspect("docs-engine")
}
