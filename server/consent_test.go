package server_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware/rollout"
	"muster/server"
)

// asksDDI asks hawkBit's door for something of a device, and returns the status and the body.
func (u *updating) asksDDI(method, token, path, body string) (int, string) {
	u.t.Helper()
	status, _, text := ddiCall(u.t, method, "http://"+u.HTTPAddr()+"/default/controller/v1/"+path, "TargetToken "+token, body)
	return status, text
}

// TestNoDoorGivesAnImageBeforePeopleAtTheDeviceConfirmedIt asks at each, before and after.
func TestNoDoorGivesAnImageBeforePeopleAtTheDeviceConfirmedIt(t *testing.T) {
	const size = 20_000
	u, tokens := startUpdatingAs(t, func(c *server.Config) { c.DDI.AskPeople = true }, "app", size, "d1")
	tb := u.tbConnects("d1", tokens["d1"], "fw")
	for _, f := range []string{"v2/fw/response/+/chunk/+", "v2/fw/error", "devices/me/firmware", "devices/me/firmware/error", "devices/me/firmware/data/+"} {
		if code := tb.listens(f); code > 2 {
			t.Fatalf("subscribe to %s: %#x", f, code)
		}
	}
	u.begin()
	u.becomes("d1", rollout.Offered)
	action := u.row("d1").Action
	_, links, _ := u.DeliveryForTest()
	at := links.URL("", sha256.Sum256(u.image), "d1", int64(action), time.Now().Add(time.Hour))
	file := fmt.Sprintf("d1/softwaremodules/%d/artifacts/pump.bin", action)
	get := fmt.Sprintf(`{"action":%d,"off":0,"len":256}`, action)
	why := func() (held, words string) {
		var w struct{ Held, Words string }
		call(t, u.Server, http.MethodGet, "/api/v1/rollouts/"+u.rollout+"/devices/d1/why", nil, &w)
		return w.Held, w.Words
	}
	closed := func(when string) {
		t.Helper()
		if status, b := u.ranged(at, "0-99"); status != http.StatusForbidden || !strings.Contains(string(b), "have not confirmed") {
			t.Errorf("%s its address is answered %d %s", when, status, b)
		}
		if status, b := u.asksDDI(http.MethodGet, tokens["d1"], file, ""); status != http.StatusNotFound {
			t.Errorf("%s hawkBit's door answers %d %s", when, status, b)
		}
		tb.says("devices/me/firmware/get", get)
		if p := tb.next("devices/me/firmware/error"); !strings.Contains(string(p.Payload), `"code":"consent"`) {
			t.Errorf("%s a request over MQTT is answered %s", when, p.Payload)
		}
		tb.says("v2/fw/request/1/chunk/0", "1000")
		if p := tb.next("v2/fw/error"); string(p.Payload) != "NOT_FOUND" {
			t.Errorf("%s a request in ThingsBoard's words is answered %s", when, p.Payload)
		}
		if held, words := why(); held != "consent" || !strings.Contains(words, "have not confirmed it") || !strings.Contains(words, "DDI") {
			t.Errorf("%s why says %q, %q", when, held, words)
		}
	}
	closed("when it is offered")
	tb.says("devices/me/firmware/status", fmt.Sprintf(`{"action":%d,"state":"downloading"}`, action))
	u.becomes("d1", rollout.Downloading)
	closed("when it says that it downloads")
	for { // nobody told it of an offer
		select {
		case p := <-tb.got:
			if p.Topic == "devices/me/firmware" || p.Topic == "v1/devices/me/attributes" {
				t.Errorf("it is told %s %s", p.Topic, p.Payload)
			}
			continue
		default:
		}
		break
	}

	if status, b := u.asksDDI(http.MethodPost, tokens["d1"], fmt.Sprintf("d1/confirmationBase/%d/feedback", action), `{"confirmation":"confirmed"}`); status != http.StatusOK {
		t.Fatalf("they confirm, which is answered %d %s", status, b)
	}
	if p := tb.next("devices/me/firmware"); !bytes.Contains(p.Payload, fmt.Appendf(nil, `"action":%d`, action)) {
		t.Errorf("the offer is %s", p.Payload)
	}
	if status, b := u.ranged(at, "0-99"); status != http.StatusPartialContent || len(b) != 100 {
		t.Errorf("its address is answered %d", status)
	}
	if status, b := u.asksDDI(http.MethodGet, tokens["d1"], file, ""); status != http.StatusOK || b != string(u.image) {
		t.Errorf("hawkBit's door answers %d, %d bytes", status, len(b))
	}
	tb.says("devices/me/firmware/get", get)
	if p := tb.next("devices/me/firmware/data/0"); !bytes.Equal(p.Payload, u.image[:256]) {
		t.Errorf("%d bytes over MQTT", len(p.Payload))
	}
	if got := tb.fetch(2, size, 10_000); !bytes.Equal(got, u.image) {
		t.Error("another image in ThingsBoard's words")
	}
	if held, _ := why(); held != "not_in_flight" {
		t.Errorf("why says %q", held)
	}
}

func TestPeopleCannotBeAskedWhileTheirDoorIsOff(t *testing.T) {
	c := server.Config{}
	c.DDI.Off, c.DDI.AskPeople = true, true
	if err := c.DDI.Check(); muster.KindOf(err) != muster.Invalid {
		t.Errorf("%v", err)
	}
}
