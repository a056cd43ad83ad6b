package server_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/firmware/rollout"
	"muster/firmware/talk"
)

// TestADeviceIsToldAtEveryDoorToWaitWithTheImageForItsWindowAndToGoOnWhenThatOpens: what it began to fetch it may fetch
// meanwhile, and its action stays.
func TestADeviceIsToldAtEveryDoorToWaitWithTheImageForItsWindowAndToGoOnWhenThatOpens(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u, tokens := startUpdating(t, "app", 20_000, "d1")
	u.begin()
	c := u.client5("d1", tokens["d1"])
	o := c.offer(u.OfferKeyForTest())
	if o.Window != nil {
		t.Errorf("without windows it is told %+v", o.Window)
	}
	windows := func(from, to time.Duration) {
		t.Helper()
		now := time.Now().UTC()
		u.asks(http.MethodPatch, "/"+u.rollout, fmt.Sprintf(`{"plan":{"windows":[{"from":%q,"to":%q}]}}`, now.Add(from).Format("15:04"), now.Add(to).Format("15:04")), http.StatusOK, nil)
	}
	ddi := func() (deployment string) {
		t.Helper()
		_, base := u.asksDDI(http.MethodGet, tokens["d1"], "d1", "")
		if !strings.Contains(base, fmt.Sprintf("deploymentBase/%d", o.Action)) {
			t.Errorf("hawkBit's door has %s", base)
		}
		_, deployment = u.asksDDI(http.MethodGet, tokens["d1"], fmt.Sprintf("d1/deploymentBase/%d", o.Action), "")
		return deployment
	}
	c.reports(&o, 1, "downloading", "")
	u.becomes("d1", rollout.Downloading)
	windows(6*time.Hour, 12*time.Hour)
	_, links, _ := u.DeliveryForTest()
	if status, b := u.ranged(links.URL("", sha256.Sum256(u.image), "d1", int64(o.Action), time.Now().Add(time.Hour)), "0-99"); status != http.StatusPartialContent || len(b) != 100 {
		t.Errorf("its address is answered %d with %d bytes", status, len(b))
	}
	c.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":0,"len":256}`, o.Action))
	if m := c.hears("firmware/data/"); len(m.payload) != 256 {
		t.Errorf("a piece has %d bytes", len(m.payload))
	}
	c.reports(&o, 2, "downloaded", "")
	wait := c.hears("firmware").payload
	var told talk.Offer
	if err := json.Unmarshal(wait, &told); err != nil || told.Action != o.Action || told.Window == nil || told.Window.Open || told.Window.Opens <= time.Now().Unix() {
		t.Fatalf("outside of its window it is told %s, %v", wait, err)
	}
	if d := u.row("d1"); !d.Parked() {
		t.Errorf("it is %+v", d)
	}
	if text := ddi(); !strings.Contains(text, `"update":"skip"`) || !strings.Contains(text, `"maintenanceWindow":"unavailable"`) {
		t.Errorf("hawkBit's door says %s", text)
	}
	var why struct{ Held, Words string }
	u.asks(http.MethodGet, "/"+u.rollout+"/devices/d1/why", "", http.StatusOK, &why)
	if why.Held != "window_open" || !strings.Contains(why.Words, "has the image") {
		t.Errorf("why: %+v", why)
	}
	windows(-6*time.Hour, 6*time.Hour)
	open := c.hears("firmware").payload
	if err := json.Unmarshal(open, &told); err != nil || told.Action != o.Action || told.Attempt != 1 || told.State != "downloaded" || told.Window == nil || !told.Window.Open || told.Window.Closes <= time.Now().Unix() {
		t.Fatalf("when it opens it is told %s, %v", open, err)
	}
	if text := ddi(); !strings.Contains(text, `"update":"forced"`) || !strings.Contains(text, `"maintenanceWindow":"available"`) {
		t.Errorf("hawkBit's door says %s", text)
	}
	if d := u.row("d1"); d.Parked() || d.Failures != 0 {
		t.Errorf("it is %+v", d)
	}
}
