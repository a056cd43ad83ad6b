package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// pick presses the button of a group that says the words.
func (b *tab) pick(group, words string) {
	b.t.Helper()
	at := fmt.Sprintf("[...document.querySelectorAll(%q)].find(e => e.textContent === %q)", "[aria-label='"+group+"'] button", words)
	b.wait(group+" "+words, at)
	evaluate[bool](b, "("+at+".click(), true)")
	b.wait(words+" to be chosen", at+".ariaPressed === 'true'")
}

// click presses the button that says the words.
func (b *tab) click(words string) {
	b.t.Helper()
	at := fmt.Sprintf("[...document.querySelectorAll('button')].find(e => e.textContent.trim() === %q && !e.disabled)", words)
	b.wait("the button "+words, at)
	evaluate[bool](b, "("+at+".click(), true)")
}

// TestEveryWayToAFirstValueIsValid walks from an empty database to the first chart: a login that
// fails is told with its reason, and each line that the page shows does what it says.
func TestEveryWayToAFirstValueIsValid(t *testing.T) {
	needs(t, "mosquitto_pub")
	needs(t, "curl")
	m := serve(t)
	b := openTab(t, m)
	b.do(chromedp.Navigate(m.setupLink()))
	b.wait("the empty page", `document.querySelector("#connect-title")`)
	b.do(chromedp.Click(chromedp.CSS(".create .btn.pri")))
	code := func() string { return evaluate[string](b, `document.querySelector(".copyline code").textContent`) }
	b.pick("Shell", "sh")
	line := code()
	_, rest, _ := strings.Cut(line, "-u ")
	token, _, _ := strings.Cut(rest, " ")
	wrong := execute(t, pageLimit, func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, "sh", "-c", strings.Replace(line, "-u "+token, "-u device-1 -P wrong-password-00", 1))
	})
	if wrong.code == 0 {
		t.Fatalf("a wrong password is let in: %s", wrong)
	}
	b.says(".steps .bad", "Refused: ")
	var logins struct{ Items []struct{ Reason string } }
	m.ask(http.MethodGet, "/api/v1/devices/device-1/logins", nil, http.StatusOK, &logins)
	if len(logins.Items) != 1 {
		t.Fatalf("the API knows of %v", logins.Items)
	}
	b.says(".steps .bad", logins.Items[0].Reason)
	shell(t, line)
	b.says(".steps", "Authenticated")
	b.says(".steps", "First value: temperature 21.5")
	b.wait("its chart", `document.querySelector(".firstchart")`)

	b.pick("With", "curl")
	shell(t, strings.Replace(strings.Replace(code(), "KEY", m.key, 1), "21.5", "23.5", 1))
	b.wait("the second value in its chart", `document.querySelector(".firstchart").ariaLabel === "temperature, 2 values"`)
	b.says(".steps", "First value: temperature 21.5") // as before
	b.pick("With", "Python")
	validPython(t, code())
	b.pick("With", "Go")
	validGo(t, code())

	b.do(chromedp.Click(chromedp.CSS(".first a.btn")))
	b.wait("the value on its page", `document.querySelector(".chart[data-key=temperature] .v")?.textContent.trim() === "23.5"`)
	b.says("#signals-title + p", "2 readings")
	var chart struct{ Readings int }
	m.ask(http.MethodGet, "/api/v1/devices/device-1/telemetry/chart?from=now-15m", nil, http.StatusOK, &chart)
	if chart.Readings != 2 {
		t.Errorf("the API says %d readings, the page 2", chart.Readings)
	}
	b.do(chromedp.KeyEvent("2"))
	b.wait("the readings as a table", `location.pathname.endsWith("/history") && [...document.querySelectorAll(".readings tbody td")].map(e => e.textContent).join() === "23.5,21.5"`)
	b.do(chromedp.KeyEvent("7"))
	b.says(".msgs", `{"temperature":23.5}`)
	b.do(chromedp.KeyEvent("8"))
	b.says(".att", logins.Items[0].Reason)
}

func validPython(t *testing.T, text string) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Log("there is no python3 to compile it with")
		return
	}
	file := filepath.Join(t.TempDir(), "first.py")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := command(t, python, "-m", "py_compile", file); r.code != 0 {
		t.Errorf("python says: %s\n%s", r, text)
	}
}

func validGo(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := command(t, needs(t, "go"), "vet", file); r.code != 0 {
		t.Errorf("go vet says: %s\n%s", r, text)
	}
}

// TestTwoPeopleMeetAtADevice has two browsers edit one twin: each sees the other, and who comes
// second is told and overwrites nothing unasked.
func TestTwoPeopleMeetAtADevice(t *testing.T) {
	m := serve(t)
	m.device("pump-1", "token")
	m.ask(http.MethodPut, "/api/v1/devices/pump-1/desired", map[string]any{"interval": 60}, http.StatusOK, nil)
	var made struct{ Invitation string }
	root, ada := openTab(t, m), openTab(t, m)
	root.do(chromedp.Navigate(m.setupLink()))
	root.fill(".setup", "name", "Root", "email", "root@example.com", "password", firstPassword+"\r")
	root.wait("the form to go", `!document.querySelector(".setup")`)
	m.ask(http.MethodPost, "/api/v1/users", map[string]any{"email": "ada@example.com", "role": "operator"}, http.StatusCreated, &made)
	ada.do(chromedp.Navigate(made.Invitation))
	ada.fill(".signin", "name", "Ada Kern", "password", secondPassword+"\r")
	ada.wait("Ada to be in", `document.querySelector(".ava")`)
	for _, b := range []*tab{root, ada} {
		b.do(chromedp.Navigate(b.base + "/devices/pump-1/twin"))
		b.says(".twin tbody", "interval")
	}
	root.says(".here", "Ada Kern is here too")
	ada.says(".here", "Root is here too")
	for _, b := range []*tab{root, ada} {
		b.click("Edit what is wanted")
		b.wait("the document", `document.querySelector("#twin-doc")?.value.includes("60")`)
	}
	root.says(".editor > :last-child", "Ada Kern edits this too.")
	save := `document.querySelector(".editor [type=submit]").getBoundingClientRect().top`
	before := evaluate[float64](root, save)
	write := func(b *tab, doc string) {
		evaluate[bool](b, `(document.querySelector("#twin-doc").select(), true)`)
		b.do(chromedp.SendKeys(chromedp.CSS("#twin-doc"), doc))
		b.do(chromedp.Click(chromedp.CSS(".editor [type=submit]")))
	}
	write(ada, `{"interval":30}`)
	ada.wait("her editor to close", `!document.querySelector(".editor")`)
	root.wait("her to edit it no more", `!document.querySelector(".editor").textContent.includes("edits this too")`)
	if after := evaluate[float64](root, save); after != before {
		t.Errorf("her going moved the button Save from %v to %v", before, after)
	}
	evaluate[bool](root, `(window.asked = window.fetch, window.fetch = (at, how) => how.method === "GET" && at.endsWith("/desired") ? Promise.reject(new TypeError("cut")) : window.asked(at, how), true)`)
	write(root, `{"interval":90}`)
	root.says("#twin-doc-error", "how it is now cannot be read: The server cannot be reached. Nothing of yours was saved")
	evaluate[bool](root, `(window.fetch = window.asked, true)`)
	root.click("Save")
	root.says(".conflict", "Nothing of yours was saved.")
	root.says(".conflict pre", "30")
	wanted := func() any {
		var doc struct{ State map[string]any }
		m.ask(http.MethodGet, "/api/v1/devices/pump-1/desired", nil, http.StatusOK, &doc)
		return doc.State["interval"]
	}
	if got := fmt.Sprint(wanted()); got != "30" {
		t.Errorf("what is wanted is %s, want hers", got)
	}
	root.click("Keep mine over theirs")
	root.wait("his editor to close", `!document.querySelector(".editor")`)
	if got := fmt.Sprint(wanted()); got != "90" {
		t.Errorf("what is wanted is %s, want his", got)
	}
	ada.says(".twin [data-path=interval]", "90")
	root.known("-")
	ada.known("-") // she was nobody at first
}

// TestADevicesPageSaysWhatIs has a device with a range whose ends are no round numbers, with messages of before its page was
// opened, and with news that come quicker than its commands are told.
func TestADevicesPageSaysWhatIs(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.device("pump-1", "token")
	b := openTab(t, m)
	b.comesIn(m)
	write := func(value string) {
		t.Helper()
		m.post("/api/v1/telemetry", "application/x-ndjson", packed(t, []byte(`{"device":"pump-1","temperature":`+value+"}\n")), http.StatusOK)
	}
	b.do(chromedp.Navigate(b.base + "/devices/pump-1/messages"))
	b.says("#messages-title + p", "0 messages since this page was opened")
	write("10.06")
	b.says("#messages-title + p", "1 message since this page was opened")
	write("19.92")
	b.says("#messages-title + p", "2 messages since this page was opened")
	b.do(chromedp.Navigate(b.base + "/devices/pump-1/messages"))
	b.says(".msgs", "19.92")
	b.says("#messages-title + p", "0 messages since this page was opened")
	b.do(chromedp.Navigate(b.base + "/devices/pump-1"))
	b.says(".chart[data-key=temperature] .m", "10 to 20") // not 10.1 to 19.9
	b.do(chromedp.Navigate(b.base + "/devices/pump-1/commands"))
	b.says("main", "No command was sent to this device yet.")
	evaluate[bool](b, `(window.asked = window.fetch, window.fetch = (at, how) => how.method !== "GET" || !at.includes("/pump-1/commands") ? window.asked(at, how) : new Promise((done, cut) => {
		how.signal.addEventListener("abort", () => cut(how.signal.reason));
		setTimeout(() => done(window.asked(at, how)), 1500);
	}), true)`)
	m.await("the commands under a stream of news", pageLimit, func() bool {
		m.ask(http.MethodPost, "/api/v1/devices/pump-1/commands", map[string]any{"method": "reboot"}, http.StatusCreated, nil)
		return evaluate[bool](b, `document.querySelector("[data-command]") !== null`)
	})
	b.known("-")
}
