//go:build pictures

package e2e

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"muster/notify/email/mailtest"
)

const (
	picturedDevices  = 10_000
	picturedGateways = 60
	pictureLimit     = 10 * time.Minute
	tallest          = 1400 // CSS pixels of a picture
	leastTraffic     = 3    // minutes of traffic on the Overview
	historyOfFigures = 60 * time.Second
	fetchesWithin    = 1500 * time.Millisecond // after a page is there; only the pictures depend on it
)

// TestPicturesOfEveryPage writes docs/screenshots anew (make screenshots): 10,000 devices of muster sim behind
// gateways, of which one is lost, a rollout that goes on and one that has stopped itself, and one
// device with all that a device can have. MUSTER_PICTURES names the folder.
func TestPicturesOfEveryPage(t *testing.T) {
	dir := os.Getenv("MUSTER_PICTURES")
	if dir == "" {
		t.Fatal("MUSTER_PICTURES names no folder for pictures")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	post := mailtest.Start(t, mailtest.Config{})
	s := &story{muster: newMuster(t), dir: t.TempDir()}
	s.args = []string{"--ddi-idle", "1s", "--ddi-busy", "1s", "--public-url", "http://" + s.http, "--smtp", post.URL("muster@example.org")}
	s.start()
	s.ready()
	b := openTab(t, s.muster)
	b.comesIn(s.muster)
	s.simulate("--devices", fmt.Sprint(picturedDevices), "--gateways", fmt.Sprint(picturedGateways), "--rate", "0.1",
		"--cut", "1h", "--cut-after", "90s")
	vault := s.vault()
	began := time.Now()
	rollouts := s.ships()
	s.speaksUp()
	s.givesUp(post)
	s.knocks()
	s.await("all to say what they run", pictureLimit, func() bool { return s.matching(`firmware!=""`) > picturedDevices*98/100 })
	b.do(chromedp.Navigate(b.base + "/"))
	s.await("the lost gateway to be the cause", pictureLimit, func() bool {
		vault()
		c := s.figures().Change.Cause
		return c != nil && c.Kind == "gateway" && time.Since(began) > leastTraffic*time.Minute
	})
	for _, p := range picturedPages(rollouts) {
		vault()
		b.pictured(dir, p)
	}
	b.picturedUndo(dir, s.muster)
	b.picturedAway(dir, s.muster)
	b.forgives(cutErrors()...)
	b.known("-") // a profile by which nobody registers himself is answered 404
}

// picturedPage is a page of docs/screenshots.
type picturedPage struct {
	onePage

	phone bool // at a phone's width too
}

func picturedPages(rollouts []string) []picturedPage {
	var all []picturedPage
	for _, p := range everyPage() {
		if p.name == "devices" {
			p.path += "?q=group%3Acold-chain&cols=seen,v.temperature,v.battery,spark.temperature"
		}
		if p.name == "audit" {
			p.path += "?action=!rollout.log" // of which there are most
		}
		phone := map[string]bool{"overview": true, "devices": true, "inbox": true, "rollouts": true, "adoption": true}[p.name]
		all = append(all, picturedPage{p, phone})
	}
	all = append(all, picturedPage{onePage{"overview-map", "/?by=map", ".map canvas"}, true}, picturedPage{onePage{"dead", "/topics?show=dead", ".dead .outgo"}, false}, picturedPage{onePage{"nowhere", "/device/pump-7", ".nowhere"}, false})
	all = append(all, picturedPage{onePage{"topic", "/topics/cold-chain", "h1"}, false}, picturedPage{onePage{"rollout", "/rollouts/" + rollouts[0], "main h1"}, true},
		picturedPage{onePage{"profile", "/profiles/meter", ".joining form"}, false}, picturedPage{onePage{"rollout-held", "/rollouts/" + rollouts[1], "main h1"}, false}, picturedPage{onePage{"group", "/groups/cold-chain", "main h1"}, false})
	for _, tab := range []string{"live", "history", "twin", "commands", "events", "firmware", "messages", "access"} {
		all = append(all, picturedPage{onePage{"device-" + tab, "/devices/oslo-vault-2/" + tab + "?from=now-3h&to=now", ".tabbar a[aria-current]"}, tab == "live"})
	}
	return all
}

// pictured opens a page and keeps pictures of it in both themes.
func (b *tab) pictured(dir string, p picturedPage) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(1440, 900), chromedp.Navigate(b.base+p.path))
	b.wait(p.path, fmt.Sprintf("document.querySelector(%q)", p.drawn))
	b.wait("the live connection", `document.querySelector(".live")?.textContent.includes("Live")`)
	if p.name == "overview" {
		b.wait("lines, traffic and rollouts", `document.querySelectorAll(".tail li").length > 5 && document.querySelector(".traffic.plot") && document.querySelector(".ro")`)
		b.rests(historyOfFigures)
	}
	b.keptInBoth(dir, p.name, p.phone)
}

// keptInBoth keeps pictures of the page as it is in both themes.
func (b *tab) keptInBoth(dir, name string, phone bool) {
	b.t.Helper()
	for _, theme := range []string{"light", "dark"} {
		b.inTheme(theme)
		b.kept(filepath.Join(dir, name+"-"+theme+".png"), 1440)
		if phone {
			b.kept(filepath.Join(dir, name+"-phone-"+theme+".png"), 390)
		}
	}
}

// picturedUndo sends a command to a device that is away, and keeps pictures of the offer to take it back.
func (b *tab) picturedUndo(dir string, m *muster) {
	b.t.Helper()
	m.device("gate-3", "token")
	b.do(chromedp.EmulateViewport(1440, 900), chromedp.Navigate(b.base+"/devices/gate-3/commands"))
	b.wait("the form", `document.querySelector(".sendform [name=method]:not(:disabled)")`)
	evaluate[bool](b, `(document.querySelector(".sendform [name=method]").focus(), true)`)
	b.do(chromedp.KeyEvent("open\r"))
	b.wait("the offer, which a pointer on it keeps", `(e => e?.textContent.includes("open is queued for gate-3.") && (e.dispatchEvent(new PointerEvent("pointerenter")), true))(document.querySelector(".undoing"))`)
	b.keptInBoth(dir, "undo", true)
}

// picturedAway ends the server, and keeps pictures of the Overview that has lost it.
func (b *tab) picturedAway(dir string, m *muster) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(1440, 900), chromedp.Navigate(b.base+"/"))
	b.wait("the live connection", `document.querySelector(".live")?.textContent.includes("Live")`)
	b.wait("lines and traffic", `document.querySelectorAll(".tail li").length > 5 && document.querySelector(".traffic.plot")`)
	b.rests(historyOfFigures)
	m.kill()
	b.wait("the bar", `document.querySelector(".bar-foot.lost")`)
	b.keptInBoth(dir, "away", true)
}

// inTheme has the browser ask for a theme.
func (b *tab) inTheme(theme string) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
		})
		return err
	}))
	b.wait("the theme", fmt.Sprintf(`document.documentElement.dataset.theme === %q`, theme))
}

// kept keeps a picture of the page at a width, as high as the page is within bounds.
func (b *tab) kept(path string, width int64) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 900))
	b.rests(fetchesWithin)
	high := evaluate[int64](b, `Math.ceil(document.querySelector("main").getBoundingClientRect().bottom + scrollY)`)
	b.do(chromedp.EmulateViewport(width, min(max(high, 900), tallest)))
	b.rests(drawsWithin)
	ctx, cancel := context.WithTimeout(b.ctx, pageLimit)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatalf("take a picture: %v", err)
	}
	if err := os.WriteFile(path, inPalette(b.t, png), 0o644); err != nil {
		b.t.Fatalf("keep a picture: %v", err)
	}
}

// ships has two rollouts, one that goes on and one that has stopped itself, and returns their ids.
func (s *story) ships() []string {
	s.t.Helper()
	s.ask(http.MethodPut, "/api/v1/groups/lab", map[string]any{"description": "test benches"}, http.StatusOK, nil)
	s.simulate("--devices", "240", "--prefix", "bench", "--profile", "pump", "--rate", "0.1", "--firmware")
	s.simulate("--devices", "40", "--prefix", "proto", "--profile", "pump", "--rate", "0.1", "--firmware", "--firmware-failures", "0.9")
	s.await("the benches", pictureLimit, func() bool { return s.matching(`status:online (id:bench-* or id:proto-*)`) == 280 })
	s.ask(http.MethodPost, "/api/v1/devices:update", map[string]any{"q": "id:bench-* or id:proto-*", "expect": 280, "add_groups": []string{"lab"}}, http.StatusOK, nil)
	s.run("firmware", "keygen", s.path("release.key"))
	s.run("firmware", "trust", s.path("release.key.pub"), "--name", "build server")
	good, bad := s.release("2.0.0"), s.release("3.0.0-rc.1")
	stop := map[string]any{"percent": 5, "absolute": 3}
	ids := []string{
		s.begins("Benches to 2.0.0", good, "id:bench-*", []any{
			map[string]any{"name": "canary", "count": 12, "failure": stop}, map[string]any{"name": "quarter", "percent": 25, "failure": stop}, map[string]any{"name": "all", "percent": 100, "failure": stop},
		}),
		s.begins("Prototypes to 3.0.0-rc.1", bad, "id:proto-*", []any{map[string]any{"name": "canary", "count": 10, "failure": stop}, map[string]any{"name": "all", "percent": 100, "failure": stop}}),
	}
	return ids
}

// speaksUp has notifications, a webhook, a key and people.
func (s *story) speaksUp() {
	s.t.Helper()
	s.happens()
	s.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": "meters", "title": "Meters"}, http.StatusCreated, nil)
	s.ask(http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "grafana", "scopes": []string{"telemetry:read", "devices:read"}}, http.StatusCreated, nil)
	s.ask(http.MethodPut, "/api/v1/groups/warm-stores", map[string]any{"description": "cold stores over 8 degrees", "query": "group:cold-chain v.temperature>8"}, http.StatusOK, nil)
}

// givesUp has a mail server refuse what goes to somebody, so that it is given up.
func (s *story) givesUp(post *mailtest.Server) {
	s.t.Helper()
	ann, _ := caretakers(s.t, s.muster, post)
	ann.ask(http.MethodPut, "/api/v1/topics/cold-chain/subscriptions/me", map[string]any{"channels": []any{map[string]any{"channel": "email", "severity": "warning"}}}, http.StatusOK)
	post.Fail(mailtest.Content, mailtest.Fault{Code: 550, Text: "no such mailbox here"})
	titles := []string{"Vault 2 is open for ten minutes", "The compressor of vault 4 draws no current"}
	for _, title := range titles {
		s.notify("cold-chain", title)
	}
	s.await("the mails to be given up", workLimit, func() bool {
		var page struct{ Items []any }
		s.ask(http.MethodGet, "/api/v1/deliveries?state=dead", nil, http.StatusOK, &page)
		return len(page.Items) >= len(titles)
	})
}

// knocks has clients come with an adoption key, and say what they have to say.
func (s *story) knocks() {
	s.t.Helper()
	var key struct{ Secret string }
	s.ask(http.MethodPost, "/api/v1/adoption-keys", map[string]any{"name": "hall 3"}, http.StatusCreated, &key)
	for i, id := range []string{"shelly-4c7525", "esp-hall3-01", "esp-hall3-02"} {
		c := &returning{m: s.muster, login: login{clientID: id, user: strings.Split(id, "-")[0], password: key.Secret}}
		c.connect()
		for n := range i*3 + 2 {
			must(s.t, c.now.Publish("devices/me/telemetry", 1, false, fmt.Sprintf(`{"temperature":%.1f,"power_w":%d}`, 20.5+float64(n)/4, 118+7*n)))
		}
	}
}

// vault makes one device with all that a device can have, and returns what has it say its values of now.
func (s *story) vault() (speak func()) {
	s.t.Helper()
	s.ask(http.MethodPut, "/api/v1/groups/cold-chain", map[string]any{}, http.StatusOK, nil)
	var made struct{ Credential credential }
	s.ask(http.MethodPost, "/api/v1/devices", map[string]any{
		"id": "oslo-vault-2", "name": "Vault 2, Oslo", "groups": []string{"cold-chain"}, "tags": map[string]string{"site": "Oslo", "country": "NO"},
		"location": map[string]any{"lat": 59.91, "lon": 10.75, "label": "Oslo"}, "check_in_s": 60, "notes": "Compressor serviced in spring",
	}, http.StatusCreated, &made)
	d := talk(s.t, s.muster, "oslo-vault-2", made.Credential.Token, "", false)
	at := func(when time.Time) string {
		x := float64(when.Unix())
		return fmt.Sprintf(`{"ts":%d,"values":{"temperature":%.1f,"humidity":%.1f,"battery":%.1f,"door_open":%t}}`, when.UnixMilli(),
			4.2+1.1*math.Sin(x/1700)+0.3*math.Sin(x/190), 61+6*math.Sin(x/2300), 83-math.Mod(x, 10800)/3600, int64(x)%4000 < 240)
	}
	var past []string
	for ago := 3 * time.Hour; ago > 0; ago -= 30 * time.Second {
		past = append(past, at(time.Now().Add(-ago)))
	}
	d.say("devices/me/telemetry", "["+strings.Join(past, ",")+"]")
	d.say("devices/me/reported", `{"firmware":{"version":"4.1.2"},"setpoint":4,"defrost":{"every_h":8,"minutes":20},"lights":"auto"}`)
	s.ask(http.MethodPut, "/api/v1/devices/oslo-vault-2/desired", map[string]any{"setpoint": 3.5, "defrost": map[string]any{"every_h": 6, "minutes": 20}}, http.StatusOK, nil)
	for i, e := range []string{`{"severity":"info","by":"badge 1182"}`, `{"seconds":48}`, `{"minutes":20}`} {
		d.say("devices/me/events/"+[]string{"door-opened", "door-closed", "defrost"}[i], e)
	}
	d.say("devices/me/logs", `{"level":"warn","msg":"compressor ran for 41 min without a pause"}`)
	d.say("devices/me/telemetry", `{"temperature":`)
	d.subscribe("devices/me/commands/+", 1)
	for _, c := range []map[string]any{{"method": "defrost", "params": map[string]any{"minutes": 20}}, {"method": "restart"}} {
		s.ask(http.MethodPost, "/api/v1/devices/oslo-vault-2/commands", c, http.StatusCreated, nil)
	}
	d.say(d.next().topic+"/result", `{"status":"ok","result":{"minutes":20}}`)
	last := time.Now()
	return func() {
		if time.Since(last) > 30*time.Second {
			last = time.Now()
			d.say("devices/me/telemetry", at(last))
		}
	}
}
