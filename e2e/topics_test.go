package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"muster/notify/email/mailtest"
)

// choose sets a select or ticks a box of a form by its name.
func (b *tab) choose(form, name, value string) {
	b.t.Helper()
	field := fmt.Sprintf("%s [name=%q]", form, name)
	b.wait(field, fmt.Sprintf("document.querySelector(%q)", field))
	evaluate[bool](b, fmt.Sprintf(`(e => {
		if (e.type === "checkbox") e.click();
		else { e.value = %q; e.dispatchEvent(new Event(e.tagName === "SELECT" ? "change" : "input", {bubbles: true})); }
		return true;
	})(document.querySelector(%q))`, value, field))
}

// TestATopicFromItsMakingToItsFirstAnswer walks the pages of topics as an admin: make,
// subscribe, say how to be told, send, member, settings, templates, delete.
func TestATopicFromItsMakingToItsFirstAnswer(t *testing.T) {
	t.Parallel()
	m := serve(t)
	b := openTab(t, m)
	b.comesIn(m)
	b.press(`.rail a[href="/topics"]`)
	b.says(".topics", "There is no topic yet.")
	b.labelled()
	b.fill(".maketopic", "name", "Cold Chain\r")
	b.says(".maketopic .error", "a-z")
	b.fill(".maketopic", "name", "cold-chain", "title", "Cold chain\r")
	b.says("h1", "Cold chain")
	b.says(".top .crumb", "Cold chain")
	b.says(".send", "Nobody is subscribed")
	b.press(".subscription .btn.pri")
	b.says(".subscription", "Everything comes to your inbox")
	b.says(".send .preview", "1 recipient: Ada Kern")
	b.choose(".subscription", "muted_until", "8")
	b.press(".subscription form .btn.pri")
	b.says(".subscription", "Muted until")
	b.says(".subscribers", "Ada Kern")
	b.says(".subscription", "not confirmed") // so e-mail can not be chosen
	if !evaluate[bool](b, `document.querySelector(".subscription [name=channels]").disabled`) {
		t.Error("mails can be asked for to an address that is not confirmed")
	}
	b.labelled()
	b.inspected("topic")

	b.fill(".send", "title", "The cold store is warm")
	b.choose(".send", "severity", "critical")
	b.press(".send .btn.txt")
	b.fill(".send", "device", "nobody\r")
	b.says(".send .field .error", "there is no such device")
	b.choose(".send", "device", "")
	b.choose(".send", "data", "[1]")
	b.press(".send .btn.pri")
	b.says(".send .field .error", "not a JSON object")
	b.choose(".send", "data", `{"hall":3}`)
	b.press(".send .btn.pri")
	b.says(".send", "Sent to 1 inbox.")
	b.says(".sent .notes", "The cold store is warm")
	b.wait("the bell", `document.querySelector(".bell b.open")?.textContent === "1"`)

	b.settles(t, m)
	b.known("-")
}

// settles changes the topic that is shown, and deletes it.
func (b *tab) settles(t *testing.T, m *muster) {
	t.Helper()
	var users struct{ Items []struct{ ID string } }
	m.ask(http.MethodGet, "/api/v1/users", nil, http.StatusOK, &users)
	me := users.Items[0].ID
	b.press(".settings .lines.escalation > .btn")
	b.choose(".settings", "escalation/0/after", "2.5")
	b.choose(".settings", "escalation/0/to", "usr_nobody")
	b.press(".settings form > .btn.pri")
	b.wait("the server's refusal of the steps", `document.querySelector(".settings .lines.escalation .error:not(:empty)")`)
	b.choose(".settings", "escalation/0/to", me)
	b.choose(".settings", "repeat", "3")
	b.press(".settings .lines.sources > .btn")
	b.choose(".settings", "sources/0/types", "presence.offline presence.quiet")
	b.choose(".settings", "sources/0/severity", "major")
	b.choose(".settings", "sources/0/clears", "presence.online")
	b.press(".settings .lines.sources > .btn")
	b.press(".settings .lines.sources .row:nth-of-type(2) .btn")
	b.choose(".settings", "description", "Doors and probes of the cold stores")
	b.labelled()
	b.inspected("topicsettings")
	b.press(".settings form > .btn.pri")
	b.says(".dev .sub", "Doors and probes")
	var topic map[string]any
	m.ask(http.MethodGet, "/api/v1/topics/cold-chain", nil, http.StatusOK, &topic)
	want := map[string]any{
		"escalation": map[string]any{"repeat": json.Number("3"), "steps": []any{map[string]any{"after_s": json.Number("150"), "to": []any{me}, "channels": []any{"email"}}}},
		"sources":    []any{map[string]any{"types": []any{"presence.offline", "presence.quiet"}, "severity": "major", "clears": []any{"presence.online"}}},
	}
	if d := cmp.Diff(want, map[string]any{"escalation": topic["escalation"], "sources": topic["sources"]}); d != "" {
		t.Errorf("the topic is another than its form says:\n%s", d)
	}
	m.ask(http.MethodPatch, "/api/v1/topics/cold-chain", map[string]any{"title": "Another's"}, http.StatusOK, nil)
	b.choose(".settings", "title", "Mine")
	b.press(".settings form > .btn.pri")
	b.says(".settings form > .error", "Somebody changed this meanwhile")
	b.do(chromedp.Reload())
	b.says("h1", "Another's")
	b.press(".settings .lines.escalation .row .btn")
	b.press(".settings form > .btn.pri")
	b.says(".dev .facts", "none")
	b.choose(".templates", "template/mail_subject", "{{.Nope}}")
	b.press(".templates .ways .btn:not(.pri)")
	b.wait("a refusal of the template", `document.querySelector(".templates .error:not(:empty)")`)
	b.choose(".templates", "template/mail_subject", "Cold: {{.Title}}")
	b.press(".templates .ways .btn:not(.pri)")
	b.says(".templates .seen", "Cold: ")
	b.press(".members .row .btn.pri")
	b.fill(".members", "principal", "usr_nobody\r")
	b.wait("a refusal of the member", `document.querySelector(".members .error:not(:empty)")`)
	b.labelled()
	b.press(".settings header .btn.txt")
	b.press(".settings header .btn")
	b.wait("the list", `location.pathname === "/topics"`)
	b.says(".topics", "There is no topic yet.")
}

// TestAWebhookFromItsMakingToItsReplay walks the pages of webhooks with a receiver that fails
// at first.
func TestAWebhookFromItsMakingToItsReplay(t *testing.T) {
	t.Parallel()
	var works atomic.Bool
	var got atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil || !works.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got.Add(1)
	}))
	t.Cleanup(receiver.Close)
	m := serve(t, "--webhook-allow", "127.0.0.1/32")
	b := openTab(t, m)
	b.comesIn(m)
	b.press(`.rail a[href="/webhooks"]`)
	b.says(".webhooks", "There is no webhook yet.")
	b.fill(".makewebhook", "url", "ftp://x", "types", "device.*\r")
	b.wait("a refusal of the URL", `document.querySelector(".makewebhook .field .error:not(:empty)")`)
	b.fill(".makewebhook", "url", receiver.URL+"/in", "topics", "nothing\r")
	b.says(".makewebhook .field .error", "there is no such topic")
	b.choose(".makewebhook", "topics", "")
	b.press(".makewebhook .btn.pri")
	b.wait("the secret", `document.querySelector(".makewebhook .copyline code")?.textContent.startsWith("whsec_")`)
	secret := evaluate[string](b, `document.querySelector(".makewebhook .copyline code").textContent`)
	b.labelled()
	b.inspected("webhooks")
	b.press(".webhooks .to")
	b.says("h1", receiver.URL)
	b.press(".dev .btn.pri")
	b.says(".tested", "would be tried again")
	works.Store(true)
	b.press(".dev .btn.pri")
	b.says(".tested", "answered 200")
	m.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": "lamp"}, http.StatusCreated, nil)
	m.await("the event", workLimit, func() bool { return got.Load() >= 2 })
	b.press(".sent .tabs button:nth-child(3)")
	b.says(".sent .outgo", "sent")
	b.press(".sent .outgo summary")
	b.says(".sent .tries", "answered 200")
	b.labelled()
	b.inspected("webhook")
	b.press(".sent .outgo .btn")
	m.await("the event again", workLimit, func() bool { return got.Load() >= 3 })
	b.press(".secrets .btn.pri")
	b.wait("another secret", fmt.Sprintf(`(c => c?.startsWith("whsec_") && c !== %q)(document.querySelector(".secrets .copyline code")?.textContent)`, secret))
	b.says(".secrets tbody", "signs until")
	m.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": "alarms"}, http.StatusCreated, nil)
	b.choose(".changewebhook", "topics", "alarms")
	b.press(".changewebhook .btn.pri")
	b.says(".dev .facts", "alarms")
	path := "/api/v1/webhooks/" + evaluate[string](b, `location.pathname.split("/").pop()`)
	m.ask(http.MethodPatch, path, map[string]any{"description": "Another's"}, http.StatusOK, nil)
	b.choose(".changewebhook", "description", "Mine")
	b.press(".changewebhook .btn.pri")
	b.says(".changewebhook .error", "Somebody changed this meanwhile")
	b.do(chromedp.Reload())
	b.says(".dev .sub", "Another's")
	b.press(".dev .ways .btn:not(.pri):not(.txt)")
	b.says(".dev .facts", "disabled")
	b.press(".dev .ways .btn.txt")
	b.press(`.dev .ways .btn[aria-label^="Really"]`)
	b.says(".webhooks", "There is no webhook yet.")
	b.known("-")
}

// TestAViewerSeesWhatHeMayNotDoAndCanNotDoIt has an admin make a topic, and a viewer look at it.
func TestAViewerSeesWhatHeMayNotDoAndCanNotDoIt(t *testing.T) {
	m := serve(t)
	m.ask(http.MethodPost, "/api/v1/users", map[string]string{"email": "eve@example.com", "name": "Eve Lind", "role": "viewer", "password": secondPassword}, http.StatusCreated, nil)
	m.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": "alarms"}, http.StatusCreated, nil)
	b := openTab(t, m)
	b.signsIn("eve@example.com", secondPassword)
	b.press(`.rail a[href="/topics"]`)
	b.says(".topics", "alarms")
	if !evaluate[bool](b, `document.querySelector(".topics header .btn").disabled`) {
		t.Error("a viewer may press New topic")
	}
	if evaluate[bool](b, `document.querySelector('.rail a[href="/webhooks"]') !== null || document.querySelector(".dead") !== null`) {
		t.Error("a viewer is shown what is for admins")
	}
	b.press(`tr[data-topic="alarms"] button`)
	b.says(`tr[data-topic="alarms"]`, "subscribed")
	b.inspected("topics")
	b.press(".topics .to")
	b.says(".subscription", "Everything comes to your inbox")
	if evaluate[bool](b, `document.querySelector(".send, .settings, .members form, .subscribers") !== null`) {
		t.Error("a viewer is shown how to send to a topic, or to change it")
	}
	id := m.notify("alarms", "Look here")
	b.press(".bell")
	b.press(row(id) + " .ack")
	b.wait("the ack", rowIs(id, "acked")+` && document.querySelector(".bell b") === null`)
	b.do(chromedp.Click(chromedp.CSS(row(id) + " .what > a")))
	b.says(".note", "Publishers of the topic see")
	b.known("-")
}

// TestMailsAreAskedForAndSentAgainInTheBrowser has an admin, whose address is confirmed, ask for mails,
// look at one that the mail server refused, and send it again.
func TestMailsAreAskedForAndSentAgainInTheBrowser(t *testing.T) {
	t.Parallel()
	post := mailtest.Start(t, mailtest.Config{})
	m := newMuster(t)
	m.args = []string{"--public-url", "http://" + m.http, "--smtp", post.URL("muster@example.org")}
	m.start()
	m.ready()
	m.device("gate", "token") // without any the Overview is the way in
	ann, _ := caretakers(t, m, post)
	m.ask(http.MethodPatch, "/api/v1/users/"+ann.id, map[string]any{"role": "admin"}, http.StatusOK, nil)
	b := openTab(t, m)
	b.signsIn(ann.email, firstPassword)
	b.subscribes(m, "doors")
	b.press(".topics .to")
	b.choose(".subscription", "channels", "on")
	b.choose(".subscription", "channels/0/severity", "major")
	b.choose(".subscription", "quiet", "on")
	b.choose(".subscription", "channels/0/quiet/from", "25:00")
	b.press(".subscription form .btn.pri")
	b.wait("a refusal of the hour", `document.querySelector(".subscription .error:not(:empty)")`)
	b.choose(".subscription", "quiet", "")
	b.labelled()
	b.inspected("subscription")
	b.press(".subscription form .btn.pri")
	b.wait("the test button", `[...document.querySelectorAll(".subscription form .btn")].some(e => e.textContent === "Mail me a test")`)
	b.press(".subscription form .row .btn:not(.pri)")
	b.says(".subscription", "The mail server took it.")

	post.Fail(mailtest.Content, mailtest.Fault{Code: 550, Text: "no such mailbox here"})
	b.do(chromedp.Navigate(b.base + "/topics"))
	m.notify("doors", "The gate is open")
	m.await("the mail to be given up", workLimit, func() bool {
		var page struct{ Items []any }
		m.ask(http.MethodGet, "/api/v1/deliveries?state=dead", nil, http.StatusOK, &page)
		return len(page.Items) == 1
	})
	b.do(chromedp.Navigate(b.base + "/"))
	b.wait("what needs a person", `[...document.querySelectorAll(".needs li a")].some(e => e.textContent === "1 delivery was given up" && e.getAttribute("href") === "/topics?show=dead")`)
	b.do(chromedp.Navigate(b.base + "/topics?show=dead"))
	b.says(".dead .outgo", "refused the mail (550")
	b.inspected("dead")
	post.Fail(mailtest.Content, mailtest.Fault{})
	b.press(".dead > .ways .btn")
	b.says(".dead > .ways .btn.pri", "Send 1 delivery again?")
	b.press(".dead > .ways .btn.pri:not(:disabled)")
	b.says(".dead", "1 delivery is queued again.")
	m.await("the mail", workLimit, func() bool {
		mails := ann.mails(post)
		return len(mails) > 0 && strings.Contains(mails[len(mails)-1].Text, "The gate is open")
	})
	b.known("-")
}
