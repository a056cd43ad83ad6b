package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestClientsThatKnockAreAdoptedAndRefusedOnThePage makes an adoption key on the page, has clients come with it, and
// looks at what they send. Two are adopted at once, one is refused, and one that somebody else saw to meanwhile says so.
func TestClientsThatKnockAreAdoptedAndRefusedOnThePage(t *testing.T) {
	t.Parallel()
	m := serve(t)
	b := openTab(t, m)
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/adoption"))
	b.says(".adoption", "Nobody waits to be adopted.")
	b.fill(".adoptionkeys", "name", "workshop\r")
	b.says(".adoptionkeys tbody", "workshop")
	b.wait("the key", `document.querySelector(".adoptionkeys .copyline code")?.textContent.startsWith("mak_")`)
	secret := evaluate[string](b, `document.querySelector(".adoptionkeys .copyline code").textContent`)
	for i, id := range []string{"plug-1", "plug-2", "plug-3", "plug-4"} {
		c := &returning{m: m, login: login{clientID: id, user: "esp", password: secret}}
		c.connect()
		must(t, c.now.Publish("devices/me/telemetry", 1, false, fmt.Sprintf(`{"temperature":%d}`, 20+i)))
	}
	b.same(m, "who waits", `[...document.querySelectorAll(".candidates tbody tr")].map(r => [r.dataset.candidate, r.children[3].textContent, r.querySelector("td.n").textContent].join(" ")).sort().join(", ")`, func() string {
		var l struct{ Items []candidate }
		m.ask(http.MethodGet, "/api/v1/inbox", nil, http.StatusOK, &l)
		lines := make([]string, len(l.Items))
		for i, c := range l.Items {
			lines[i] = fmt.Sprintf("%s %s %d", c.ID, c.Key, c.Messages)
		}
		slices.Sort(lines)
		return strings.Join(lines, ", ")
	})
	b.press(`[aria-label="Look at plug-1"]`)
	b.says(".candidate .msgs", `{"temperature":20}`)
	b.labelled()
	b.inspected("adoption")
	b.lengthened("adoption")
	b.do(chromedp.Navigate(b.base + "/adoption"))
	m.ask(http.MethodPut, "/api/v1/profiles/plug", map[string]any{}, http.StatusOK, nil)
	for _, id := range []string{"plug-1", "plug-2", "plug-4"} {
		b.press(fmt.Sprintf("[aria-label='Select %s']", id))
	}
	m.ask(http.MethodPost, "/api/v1/inbox/plug-4/adopt", nil, http.StatusCreated, nil) // somebody else was quicker
	b.wait("the profiles", `[...document.querySelectorAll(".decide option")].some(o => o.value === "plug")`)
	b.choose(".decide", "profile", "plug")
	b.fill(".decide", "tags", "hall=3\r")
	b.says(`[data-candidate="plug-1"]`, "adopted")
	b.says(`[data-candidate="plug-2"]`, "adopted")
	b.says(`[data-candidate="plug-4"]`, "no longer there")
	for _, id := range []string{"plug-1", "plug-2"} {
		var d struct {
			Profile string
			Tags    map[string]string
		}
		m.ask(http.MethodGet, "/api/v1/devices/"+id, nil, http.StatusOK, &d)
		if d.Profile != "plug" || d.Tags["hall"] != "3" {
			t.Errorf("%s is %+v", id, d)
		}
	}
	if lines := strings.Fields(evaluate[string](b, `document.querySelector(".tokens code").textContent`)); len(lines) != 2 || !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "plug-1,mdt_") }) {
		t.Errorf("the tokens are %q", lines)
	}
	b.press(`[aria-label="Select plug-3"]`)
	b.press(`.decide header .btn`)
	b.press(`.decide header .btn`)
	b.says(`[data-candidate="plug-3"]`, "refused")
	b.says(".blocked", "plug-3")
	b.press(`[aria-label="Let plug-3 knock again"]`)
	b.wait("nobody to be kept out", `!document.querySelector(".blocked")`)
	b.known("-")
}

// TestAProfileIsMadeChangedAndMeetsAnothersChange makes a profile, changes it while somebody else does, sets what is wanted
// of its devices and of the fleet, and compares whom that reaches with what the API counts.
func TestAProfileIsMadeChangedAndMeetsAnothersChange(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.fleet(9)
	b := openTab(t, m)
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/profiles"))
	b.says(`tr[data-profile="default"] td:last-child`, fmt.Sprint(m.matching("profile:default")))
	b.press(".profiles header .btn")
	m.ask(http.MethodPut, "/api/v1/profiles/valve", map[string]any{}, http.StatusOK, nil)
	b.fill(".makeprofile", "name", "valve\r")
	b.says(".makeprofile .error", "There is a profile with this name.")
	b.fill(".makeprofile", "name", "pump\r")
	b.says("#profile-title", "pump")
	m.ask(http.MethodPost, "/api/v1/devices:update", map[string]any{"q": "tag:site=rome", "expect": m.matching("tag:site=rome"), "profile": "pump"}, http.StatusOK, nil)
	b.do(chromedp.Navigate(b.base + "/profiles/pump"))
	b.says(".having", fmt.Sprint(m.matching("profile:pump"), " devices have it"))
	b.fill(".rights", "publish", "site/{id}/#", "message_rate", "20")
	m.ask(http.MethodPut, "/api/v1/profiles/pump", map[string]any{"message_rate": 7}, http.StatusOK, nil)
	b.press(".rights [type=submit]")
	b.says(".rights .error", "Somebody changed this meanwhile.")
	b.says(".rights .conflict", "Messages a second, at most7")
	b.inspected("profile-conflict")
	b.press(".rights .conflict .btn:last-child")
	b.press(".rights [type=submit]")
	b.says(".rights", "Saved.")
	var p struct {
		Publish []string
		Rate    int `json:"message_rate"`
	}
	m.ask(http.MethodGet, "/api/v1/profiles/pump", nil, http.StatusOK, &p)
	if fmt.Sprint(p) != "{[site/{id}/#] 20}" {
		t.Errorf("the profile is %v", p)
	}
	b.says(".joining", "do not register themselves")
	b.press(".joining [type=submit]")
	b.wait("the secret", `document.querySelector(".joining .copyline code")?.textContent.startsWith("mps_")`)

	b.wants(m, "/profiles/pump", "profile:pump", `{"interval_s":60,"net":{"ntp":"on"}}`, []string{"interval_s", "net.ntp"})
	b.inspected("profile")
	b.lengthened("profile")
	b.wants(m, "/profiles", "", `{"interval_s":30}`, []string{"interval_s"})
	var twin struct {
		Desired struct{ State map[string]any }
	}
	m.ask(http.MethodGet, "/api/v1/devices/pump-000/twin", nil, http.StatusOK, &twin)
	if fmt.Sprint(twin.Desired.State) != "map[interval_s:30]" {
		t.Errorf("a device of the fleet is wanted to have %v", twin.Desired.State)
	}
	b.fill(".wanted", "state", `{"interval_s":15}`)
	m.ask(http.MethodPut, "/api/v1/fleet/desired", map[string]any{"interval_s": 20}, http.StatusOK, nil)
	b.press(".wanted [type=submit]")
	b.press(".review .pri")
	b.says(".wanted .conflict", `"interval_s": 20`)
	b.press(".wanted .conflict .btn:last-child")
	b.press(".wanted [type=submit]")
	b.says(`.review [data-path="interval_s"]`, "interval_s2015")
	b.press(".review .pri")
	b.says(".wanted .said", fmt.Sprint(m.matching("profile:default"), " devices have another document now."))
	b.known("-")
}

// wants sets a wanted document on a page, and compares whom it reaches, and what differs, before it is set.
func (b *tab) wants(m *muster, path, query, doc string, differs []string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + path))
	b.fill(".wanted", "state", doc)
	b.press(".wanted [type=submit]")
	b.wait("what changes", `document.querySelector(".review")`)
	if got := evaluate[[]string](b, `[...document.querySelectorAll(".review [data-path]")].map(r => r.dataset.path)`); strings.Join(got, " ") != strings.Join(differs, " ") {
		b.t.Errorf("%s: %v differ, want %v", path, got, differs)
	}
	n := m.matching(query)
	if got := evaluate[string](b, `document.querySelector(".reaches").dataset.reach`); got != fmt.Sprint(n) {
		b.t.Errorf("%s: it reaches %s, and the API counts %d", path, got, n)
	}
	b.wait("the focus to be at what comes next", `document.activeElement === document.querySelector(".review .pri")`)
	b.says(".review .pri", fmt.Sprintf("Set it for %d devices", n))
	b.press(".review .pri")
	b.says(".wanted .said", "another document now.")
}

// drops puts a file into the drop zone.
func (b *tab) drops(name, text string) {
	b.t.Helper()
	evaluate[bool](b, fmt.Sprintf(`(() => {
		const dt = new DataTransfer();
		dt.items.add(new File([%q], %q));
		const zone = document.querySelector(".drop");
		zone.dispatchEvent(new DragEvent("dragover", {bubbles: true, cancelable: true, dataTransfer: dt}));
		zone.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: dt}));
		return true;
	})()`, text, name))
}

// TestAListIsDroppedCheckedAndImportedAsATask drops lists, sees the server's judgement of each line, and makes the devices.
func TestAListIsDroppedCheckedAndImportedAsATask(t *testing.T) {
	t.Parallel()
	m := serve(t)
	b := openTab(t, m)
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/import"))
	b.says(".drop", "Drop a list here")
	b.drops("devices.txt", "id\na\n")
	b.says(".import .error", "A list is a file that ends in")
	var list strings.Builder
	list.WriteString("id,name,tags\n")
	for i := range 40 {
		fmt.Fprintf(&list, "pump-%02d,Pump %d,site=rome\n", i, i)
	}
	b.drops("devices.csv", list.String()+"bad id,Pump,\n")
	const figures = `[...document.querySelectorAll(".import [data-figure]")].map(d => d.dataset.figure + "=" + d.querySelector("dd").textContent).join(" ")`
	b.wait("what it would do", figures+` === "lines=41 created=40 updated=0 same=0 refused=1"`)
	b.says(`.refusals [data-line="42"]`, "id")
	b.says(".found", "One refused line keeps all others back")
	b.wait("no way on", `document.querySelector(".found .pri").disabled`)
	b.inspected("import-refused")
	b.lengthened("import-refused")
	if n := m.matching(""); n != 0 {
		t.Errorf("a list that was only looked at has made %d devices", n)
	}
	b.do(chromedp.Navigate(b.base + "/import"))
	b.says(".drop", "Drop a list here")
	b.drops("devices.csv", list.String())
	b.says(".found .pri", "Import: 40 new devices")
	b.press(".found .pri")
	b.wait("the end", `document.querySelector(".running")?.dataset.state === "succeeded"`)
	b.wait("what it did", figures+` === "lines=40 created=40 updated=0 same=0 refused=0"`)
	if n := m.matching("tag:site=rome"); n != 40 {
		t.Errorf("there are %d devices", n)
	}
	b.inspected("import-done")
	result := fetched[string](b, `fetch(document.querySelector(".running a[download]").href).then(r => r.text())`)
	var made struct {
		Made struct {
			ID         string
			Credential struct{ Token string }
		}
	}
	if err := json.Unmarshal([]byte(strings.SplitN(result, "\n", 2)[0]), &made); err != nil || made.Made.ID != "pump-00" || made.Made.Credential.Token == "" {
		t.Errorf("the result begins with %.200s: %v", result, err)
	}
	b.press(".running .act .btn")
	b.says(".drop", "Drop a list here")
	b.known("-")
}

// TestAServiceAccountIsMadeAndChangedOnItsPage makes an account, comes in with what is shown once, and turns it off.
func TestAServiceAccountIsMadeAndChangedOnItsPage(t *testing.T) {
	t.Parallel()
	m := serve(t)
	b := openTab(t, m)
	b.comesIn(m)
	b.do(chromedp.Navigate(b.base + "/service-accounts"))
	b.says(".services", "There is no service account yet.")
	b.fill(".makeservice", "name", "billing", "subscribe", "devices/+/telemetry")
	b.press(".makeservice [type=submit]")
	b.wait("the password", `document.querySelector(".makeservice .copyline code")?.textContent.startsWith("mss_")`)
	secret := evaluate[string](b, `document.querySelector(".makeservice .copyline code").textContent`)
	b.says(`[data-account="billing"]`, "devices/+/telemetry")
	paho3Client(t, m, "tcp://"+m.mqtt, "billing", "billing", secret)
	b.press(`[aria-label="Change billing"]`)
	b.fill(".changeservice", "publish", "site/#")
	b.press(".changeservice [type=submit]")
	b.says(`[data-account="billing"]`, "site/#")
	b.press(`[aria-label="Turn off billing"]`)
	b.wait("it to be off", `document.querySelector('[aria-label="Turn on billing"]')`)
	var l struct {
		Items []struct {
			Name               string
			Publish, Subscribe []string
			Disabled           bool
		}
	}
	m.ask(http.MethodGet, "/api/v1/service-accounts", nil, http.StatusOK, &l)
	if fmt.Sprint(l.Items) != "[{billing [site/#] [devices/+/telemetry] true}]" {
		t.Errorf("the API has %v", l.Items)
	}
	b.inspected("service-accounts")
}

// mayPress are buttons that change nothing on the server, by their words.
const mayPress = "/^(CSV|Columns|Views|Status|Group|Tag|Profile|Firmware|Gateway|Next|Previous|More|Pause|Go on|Ask|Why|Show|Look|Copy|devices\\.|identicon)/"

// TestAViewerChangesNothing looks at each page as a viewer: what would be refused cannot be pressed and says what it
// needs, pages that are forbidden are in neither rail nor palette, and the server refuses the same calls.
func TestAViewerChangesNothing(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.fleet(9)
	var invited struct{ Invitation string }
	m.ask(http.MethodPost, "/api/v1/users", map[string]string{"email": "vic@example.com", "role": "viewer"}, http.StatusCreated, &invited)
	newVisitor(t, m).ask(http.MethodPost, "/api/v1/invitations/accept", map[string]string{"token": linkTo(t, invited.Invitation, "/invite/"), "name": "Vic", "password": firstPassword}, http.StatusOK)
	b := openTab(t, m)
	b.signsIn("vic@example.com", firstPassword)
	for _, path := range []string{"/devices", "/groups", "/groups/spare", "/profiles", "/profiles/default", "/adoption", "/import", "/devices/pump-001/twin", "/devices/pump-001/commands", "/devices/pump-001/firmware", "/devices/pump-001/messages", "/devices/pump-001/access", "/firmware", "/rollouts", "/tasks"} {
		b.do(chromedp.Navigate(b.base + path))
		b.wait(path, `document.querySelector("main h1, main h2") && document.querySelector(".live")?.textContent.includes("Live")`)
		b.wait(path+" to say what it needs", `[...document.querySelectorAll("main *")].some(e => /role operator|scopes? /.test(e.title + e.textContent))`)
		if open := evaluate[[]string](b, `[...document.querySelectorAll("main :is(input[type=file], textarea, form:not(.search) button[type=submit], .btn)")]
			.filter(e => !e.matches(":disabled") && !e.closest(".timerange") && e.offsetParent)
			.map(e => (e.getAttribute("aria-label") || e.textContent || e.name).trim()).filter(t => !`+mayPress+`.test(t))`); len(open) > 0 {
			t.Errorf("%s lets a viewer use %q", path, open)
		}
	}
	if got := evaluate[string](b, `[...document.querySelectorAll(".rail a")].map(a => a.pathname).join(" ")`); strings.Contains(got, "/service-accounts") || strings.Contains(got, "/dashboard") || strings.Contains(got, "/users") {
		t.Errorf("the rail of a viewer leads to %s", got)
	}
	for call, want := range map[string]int{
		"GET /inbox": 200, "POST /inbox/x/adopt": 403, "DELETE /inbox/x": 403, "GET /inbox-blocks": 200, "GET /adoption-keys": 403, "POST /adoption-keys": 403, "PUT /profiles/p": 403, "DELETE /profiles/p": 403,
		"PUT /profiles/default/desired": 403, "PUT /fleet/desired": 403, "PUT /groups/spare/desired": 403, "PUT /profiles/default/provisioning": 403, "POST /devices:import?dry_run=true": 403, "GET /service-accounts": 403,
		"POST /service-accounts": 403, "POST /rollouts": 403, "POST /devices/pump-001/commands": 403, "GET /profiles": 200, "GET /fleet/desired": 200,
	} {
		method, path, _ := strings.Cut(call, " ")
		body := map[bool]string{false: `, headers: {"Content-Type": "application/json"}, body: "{}"`}[method == "GET" || method == "DELETE"]
		if got := asked[int](b, fmt.Sprintf(`fetch("/api/v1%s", {method: %q%s}).then(r => r.status)`, path, method, body)); got != want {
			t.Errorf("%s of a viewer is answered %d, want %d", call, got, want)
		}
	}
	b.known("-")
}
