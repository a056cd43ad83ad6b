package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestAllDoorsTogetherSendAnImageThreeTimesAndNoMore fetches over HTTP, over MQTT and in ThingsBoard's words.
func TestAllDoorsTogetherSendAnImageThreeTimesAndNoMore(t *testing.T) {
	const size = 60_000
	u, tokens := startUpdating(t, "app", size, "d1")
	c := u.client5("d1", tokens["d1"])
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	sum := 0
	status, got := u.ranged(o.Files[0].URL, "0-")
	if sum += len(got); status != http.StatusPartialContent || sum != size {
		t.Fatalf("over HTTP: %d, %d bytes", status, sum)
	}
	sum += len(c.fetch(&o, 0, size, 15_000))
	c.leave()
	tb := u.tbConnects("d1", tokens["d1"], "fw")
	for _, f := range []string{"v2/fw/response/+/chunk/+", "v2/fw/error"} {
		if code := tb.listens(f); code > 2 {
			t.Fatalf("subscribe to %s: %#x", f, code)
		}
	}
	sum += len(tb.fetch(1, size-10_000, 10_000))
	if sum != 3*size-10_000 {
		t.Fatalf("%d bytes before the last", sum)
	}
	tb.says("v2/fw/request/2/chunk/0", "10001")
	if p := tb.next("v2/fw/error"); string(p.Payload) != "BUSY" {
		t.Errorf("a part of more than is left: %s", p.Payload)
	}
	if status, got = u.ranged(o.Files[0].URL, "0-9999"); status != http.StatusPartialContent || len(got) != 10_000 {
		t.Errorf("what is left: %d, %d bytes", status, len(got))
	}
	if status, got = u.ranged(o.Files[0].URL, "0-0"); status != http.StatusForbidden || !strings.Contains(string(got), "budget_spent") {
		t.Errorf("over HTTP when nothing is left: %d %s", status, got)
	}
	tb.says("v2/fw/request/3/chunk/0", "1000")
	if p := tb.next("v2/fw/error"); string(p.Payload) != "BUSY" {
		t.Errorf("in ThingsBoard's words when nothing is left: %s", p.Payload)
	}
	c = u.client5("d1", tokens["d1"])
	c.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":0,"len":256}`, o.Action))
	if m := c.hears("firmware/error"); !strings.Contains(string(m.payload), `"code":"budget"`) {
		t.Errorf("over MQTT when nothing is left: %s", m.payload)
	}
}

// TestWhatIsReservedForADeviceIsGivenBackWhenTheServerStops asks the store, which has less than was sent while it runs.
func TestWhatIsReservedForADeviceIsGivenBackWhenTheServerStops(t *testing.T) {
	const size = 60_000
	u, tokens := startUpdating(t, "app", size, "d1")
	c := u.client5("d1", tokens["d1"])
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	if status, _ := u.ranged(o.Files[0].URL, "0-99"); status != http.StatusPartialContent {
		t.Fatalf("status %d", status)
	}
	reserved := func() int64 {
		n, err := u.ControlForTest().BudgetOf(t.Context(), "d1", int64(o.Action))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := reserved(); n != size/8 {
		t.Errorf("%d bytes are reserved", n)
	}
	awaitTrue(t, "the download to have ended", func() bool {
		status, text := u.ranged("/metrics", "0-")
		return status == http.StatusOK && strings.Contains(string(text), "\nmuster_firmware_downloads 0\n")
	})
	if err := u.BudgetsForTest().End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := reserved(); n != 100 {
		t.Errorf("%d bytes are reserved after the stop, 100 were sent", n)
	}
	if status, got := u.ranged(o.Files[0].URL, "0-99"); status != http.StatusServiceUnavailable {
		t.Errorf("after the end: %d %s", status, got)
	}
}

// TestNobodyButTheDeviceIsGivenItsAddress looks for a signature in what the API says of a device's firmware.
func TestNobodyButTheDeviceIsGivenItsAddress(t *testing.T) {
	u, tokens := startUpdating(t, "app", 1000, "d1")
	c := u.client5("d1", tokens["d1"])
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	if !strings.Contains(o.Files[0].URL, "sig=") {
		t.Fatalf("the device's own address is %q", o.Files[0].URL)
	}
	var shown json.RawMessage
	call(t, u.Server, http.MethodGet, "/api/v1/devices/d1/firmware", nil, &shown)
	if text := string(shown); !strings.Contains(text, u.sha256) || strings.Contains(text, "sig=") || strings.Contains(text, "/fw/blob/") || strings.Contains(text, `"url"`) {
		t.Errorf("the API says %s", text)
	}
}
